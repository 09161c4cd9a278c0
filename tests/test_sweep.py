"""Sweeps: what averages of other widths score, and what choosing one of them is worth."""

from __future__ import annotations

import json

import pytest

from bidaf.evaluation.comparison import paired
from bidaf.evaluation.sweep import Sweep, SweptSet, summarize

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


RAW, EMA = swept("raw", {0, 5}), swept("ema", set(range(0, 24, 2)), 69.0)
LUCKY = swept("half-life:10", set(range(12)), 10.0)  # right on the first half of the articles alone
WIDE = swept("half-life:50", set(range(0, 24, 2)) | {1, 3, 9, 13, 15}, 50.0)


def test_every_set_is_compared_with_the_shadow_question_by_question() -> None:
    found = summarize(a_sweep(RAW, EMA, WIDE, swept("tail:50", set(), 17.3, scored=False)))
    assert found.reference == "ema"
    assert [row.swept.weights for row in found.rows] == ["raw", "ema", "half-life:50"]
    assert [swept.weights for swept in found.refused] == ["tail:50"]
    assert found.rows[1].f1.difference.value == 0
    values = [[100.0 * value for value in each.f1 or []] for each in (EMA, WIDE)]
    assert found.rows[2].f1 == paired([values[0]], [values[1]], ARTICLES)
    assert found.rows[2].exact_match.b.value == pytest.approx(100 * 17 / 24)


def test_the_best_of_the_grid_is_chosen_on_other_articles_than_it_is_scored_on() -> None:
    choice = summarize(a_sweep(RAW, EMA, LUCKY, WIDE)).choice
    assert choice is not None
    assert choice.chosen == ("half-life:50", "half-life:50")
    odd = [number for number in range(24) if number // 3 % 2]
    assert choice.scored[0] == pytest.approx(sum(100 * (WIDE.f1 or [])[number] for number in odd) / len(odd))
    assert choice.f1.difference.value == pytest.approx(100 * 0.5 * 5 / 24)


def test_without_a_shadow_the_raw_weights_are_the_reference() -> None:
    assert summarize(a_sweep(RAW, WIDE)).reference == "raw"
    with pytest.raises(ValueError, match="not scored yet"):
        summarize(a_sweep(WIDE))


def test_without_articles_there_is_no_choice_and_no_interval() -> None:
    found = summarize(a_sweep(RAW, EMA, WIDE, articles=[None] * 24))
    assert found.choice is None
    assert found.rows[0].f1.difference.interval is None
    assert "unknown" in str(found.no_interval)
    assert summarize(a_sweep(RAW, EMA)).choice is None


def test_a_sweep_survives_its_file_and_its_plain_form_leaves_the_questions_out() -> None:
    sweep = a_sweep(RAW, EMA, WIDE, swept("tail:50", set(), 17.3, scored=False))
    assert Sweep.model_validate_json(sweep.model_dump_json()) == sweep
    plain = json.loads(json.dumps(summarize(sweep).to_dict()))
    assert [each["weights"] for each in plain["sets"]] == ["raw", "ema", "half-life:50"]
    assert plain["refused"][0]["predicted_error"] == 0.2
    assert plain["sets"][2]["f1"]["gain"]["interval"] is not None
    assert plain["choice"]["chosen"] == ["half-life:50", "half-life:50"]
    assert "ids" not in plain
