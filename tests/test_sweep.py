"""Sweeps: what averages of other widths score, and what choosing one of them is worth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_report import log_of

from bidaf.errors import DataError
from bidaf.evaluation.comparison import paired
from bidaf.evaluation.sweep import Sweep, SweepSummary, SweptSet, summarize
from bidaf.reporting.report import report_page
from bidaf.reporting.sweep import choice_sentence, table
from bidaf.runs.folder import Run
from bidaf.runs.log import read_run
from bidaf.runs.sweeps import newest_sweep, read_sweep, sweep_path, write_sweep

ARTICLES: list[str | None] = [f"article {number // 3}" for number in range(24)]


def swept(weights: str, right: set[int], half_life: float | None = None, *, scored: bool = True) -> SweptSet:
    exact = [number in right for number in range(24)]
    return SweptSet(
        weights=weights,
        half_life=half_life,
        predicted_error=0.01 if scored else 0.2,
        initial_share=0.0,
        exact_match=exact if scored else None,
        f1=[0.5 + 0.5 * each for each in exact] if scored else None,
    )


def a_sweep(*sets: SweptSet, articles: list[str | None] = ARTICLES) -> Sweep:
    return Sweep(
        step=100, checkpoint="c", ids=[str(number) for number in range(24)], articles=articles, sets=list(sets)
    )


def summary(*sets: SweptSet, articles: list[str | None] = ARTICLES) -> SweepSummary:
    found = summarize(a_sweep(*sets, articles=articles))
    assert found is not None
    return found


RAW, EMA = swept("raw", {0, 5}), swept("ema", set(range(0, 24, 2)), 69.0)
LUCKY = swept("half-life:10", set(range(12)), 10.0)  # right on the first half of the articles alone
WIDE = swept("half-life:50", set(range(0, 24, 2)) | {1, 3, 9, 13, 15}, 50.0)


def test_every_set_is_compared_with_the_shadow_question_by_question() -> None:
    found = summary(RAW, EMA, WIDE, swept("tail:50", set(), 17.3, scored=False))
    assert found.reference == "ema"
    assert [row.swept.weights for row in found.rows] == ["raw", "ema", "half-life:50"]
    assert [swept.weights for swept in found.refused] == ["tail:50"]
    assert found.rows[1].f1.difference.value == 0
    values = [[100.0 * value for value in each.f1 or []] for each in (EMA, WIDE)]
    assert found.rows[2].f1 == paired([values[0]], [values[1]], ARTICLES)
    assert found.rows[2].exact_match.b.value == pytest.approx(100 * 17 / 24)


def test_the_best_of_the_grid_is_chosen_on_other_articles_than_it_is_scored_on() -> None:
    choice = summary(RAW, EMA, LUCKY, WIDE).choice
    assert choice is not None
    assert choice.chosen == ("half-life:50", "half-life:50")
    odd = [number for number in range(24) if number // 3 % 2]
    assert choice.scored[0] == pytest.approx(sum(100 * (WIDE.f1 or [])[number] for number in odd) / len(odd))
    assert choice.f1.difference.value == pytest.approx(100 * 0.5 * 5 / 24)


def test_without_a_shadow_the_raw_weights_are_the_reference() -> None:
    assert summary(RAW, WIDE).reference == "raw"
    assert summarize(a_sweep(WIDE)) is None


def test_without_articles_there_is_no_choice_and_no_interval() -> None:
    found = summary(RAW, EMA, WIDE, articles=[None] * 24)
    assert found.choice is None
    assert found.rows[0].f1.difference.interval is None
    assert "unknown" in str(found.no_interval)
    assert summary(RAW, EMA).choice is None


def test_a_sweep_survives_its_file_and_its_plain_form_leaves_the_questions_out() -> None:
    sweep = a_sweep(RAW, EMA, WIDE, swept("tail:50", set(), 17.3, scored=False))
    assert Sweep.model_validate_json(sweep.model_dump_json()) == sweep
    plain = json.loads(json.dumps(summary(*sweep.sets).to_dict()))
    assert [each["weights"] for each in plain["sets"]] == ["raw", "ema", "half-life:50"]
    assert plain["refused"][0]["predicted_error"] == 0.2
    assert plain["sets"][2]["f1"]["gain"]["interval"] is not None
    assert plain["choice"]["chosen"] == ["half-life:50", "half-life:50"]
    assert "ids" not in plain


def test_the_table_marks_raw_and_ema_and_says_what_was_not_scored() -> None:
    found = summary(RAW, EMA, WIDE, swept("tail:50", set(), 17.3, scored=False))
    _, columns, rows = table(found)
    assert columns[-2:] == ["F1 − ema", "95 % interval"]
    assert [row[0] for row in rows] == ["raw (no average)", "ema (kept in training)", "half-life:50", "tail:50"]
    assert rows[1][-2:] == ["–", "–"]
    assert rows[2][-2] == "+10.42"
    assert rows[3][-1] == "predicted error too large"


def test_a_sentence_says_what_the_choice_is_worth() -> None:
    assert "half-life:50" in choice_sentence(summary(RAW, EMA, WIDE))
    assert "better than ema" in choice_sentence(summary(RAW, EMA, swept("half-life:50", set(range(24)), 50.0)))
    assert "chooses ema itself" in choice_sentence(summary(RAW, EMA, swept("half-life:50", set(), 50.0)))
    assert "is unknown" in choice_sentence(summary(RAW, EMA, WIDE, articles=[None] * 24))


def test_the_newest_sweep_is_read_again_and_a_bad_one_is_named(tmp_path: Path) -> None:
    assert newest_sweep(tmp_path) is None
    for step in (999_999, 1_000_000):
        write_sweep(tmp_path, a_sweep(RAW).model_copy(update={"step": step}))
    write_sweep(tmp_path, a_sweep().model_copy(update={"step": 1_000_001}))  # nothing is scored yet
    found = newest_sweep(tmp_path)
    assert found is not None
    assert found.step == 1_000_000
    path = sweep_path(tmp_path, 7)
    for bad in ("{", '{"step": 7}', '{"step": "x"}'):
        path.write_text(bad)
        with pytest.raises(DataError, match="can't be read as a sweep"):
            read_sweep(path)


def test_the_report_shows_map_and_sweep(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    log_of(folder, [40, 60], [10, 61], total=200, config={"ema": {"decay": 0.99}})
    assert "other widths" not in report_page([read_run(folder)])
    for step, scores in ((100, [None, 40.0, 30.0]), (200, [50.0, 61.0, 60.0])):
        Run(folder).log_event(
            event="map", step=step, half_lives=[10.0, 32.0, 100.0], predicted_error=[0.1, 0.01, 0.0],
            exact_match=scores, f1=scores, questions=10,
        )  # fmt: skip
    page = report_page([read_run(folder)])
    assert "Averages of other widths" in page
    assert page.count("F1 of averages of every width over training steps") == 1
    write_sweep(folder, a_sweep(RAW, EMA, WIDE))
    page = report_page([read_run(folder), read_run(folder)])
    assert page.count("Averages of other widths of run") == 2
    assert "half-life:50" in page
    assert 'aria-label="F1 of averages of every width minus F1 of ema"' in page
    sweep_path(folder, 100).write_text("{")
    assert "can&#39;t be read as a sweep" in report_page([read_run(folder)])


def test_a_map_that_does_not_hold_is_left_out(tmp_path: Path) -> None:
    log_of(tmp_path, [40], [10], total=100)
    event = {
        "step": 100,
        "half_lives": [10.0, 32.0],
        "predicted_error": [0.1, 0.1],
        "f1": [1.0],
        "exact_match": [1.0, 1],
    }
    Run(tmp_path).log_event(event="map", questions=10, **event)
    found = read_run(tmp_path)
    assert (found.maps, found.unread) == ([], 1)
