"""Sweeps: what averages of other widths score, and what choosing one of them is worth."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import CPU, Configure, events
from helpers_cli import fail, succeed
from markupsafe import Markup
from test_report import log_of

from bidaf.errors import DataError, UsageError
from bidaf.evaluation.comparison import paired
from bidaf.evaluation.sweep import Sweep, SweepSummary, SweptSet, summarize
from bidaf.inference import sweep
from bidaf.inference.loading import LoadedModel
from bidaf.inference.predictor import Predictor
from bidaf.inference.sweep import grid, sweep_run
from bidaf.reporting.report import report_page
from bidaf.reporting.sweep import choice_sentence, sweep_chart, table
from bidaf.runs.folder import Run
from bidaf.runs.log import read_run
from bidaf.runs.sweeps import newest_sweep, read_sweep, sweep_path, sweeping, write_sweep
from bidaf.training.launch import start_run

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
    assert [row[0] for row in rows] == ["raw", "ema (kept)", "half-life:50", "tail:50"]
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
    for values in ({"f1": [1.0] * 25}, {"exact_match": [True]}, {"f1": None}):
        sets = [RAW.model_copy(update=values), EMA]
        path.write_text(a_sweep().model_copy(update={"sets": sets}).model_dump_json())
        with pytest.raises(DataError, match=r"can't be read as a sweep: .*each question"):
            read_sweep(path)


def test_a_sweep_of_the_raw_weights_alone_is_drawn_without_a_legend() -> None:
    assert "raw weights" not in sweep_chart(summary(RAW))


def test_the_report_shows_map_and_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("svg", "sweep"):  # charts are laid out, not drawn
        monkeypatch.setattr(
            f"bidaf.reporting.{module}.to_svg", lambda figure, title, values: Markup(f'<svg aria-label="{title}">')
        )
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


# The command


@pytest.fixture(scope="module")
def trained(configure: Configure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 24 steps with a snapshot at every second one, evaluated at steps 12 and 24."""
    folder = tmp_path_factory.mktemp("swept") / "run"
    config = configure(
        training={"epochs": 4},
        evaluation={"every_steps": 12},
        ema={"decay": 0.8, "warmup": "none", "snapshots": {"every": 2}},
    )
    start_run(config, folder, CPU, lambda message: None)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy to sweep."""
    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def test_the_grid_reaches_from_ten_steps_to_half_the_run() -> None:
    assert grid(8_992)[:10] == [f"half-life:{n}" for n in (10, 20, 40, 80, 160, 320, 640, 1280, 2560, 4496)]
    assert grid(8_992)[10:] == ["tail:5%", "tail:10%", "tail:25%", "tail:50%"]
    assert grid(30)[0] == "half-life:10"
    assert grid(1)[0] == "half-life:1"
    assert grid(20)[:1] == ["half-life:10"]


def test_raw_and_ema_score_what_training_logged(run: Path) -> None:
    folder, found = sweep_run(str(run))
    assert folder == run
    scores = events(run, "eval")[-1]["scores"]
    for row in found.rows[:2]:
        for metric in ("exact_match", "f1"):
            assert getattr(row, metric).b.value == pytest.approx(scores[row.swept.weights][metric], abs=1e-4)
    assert [row.swept.weights for row in found.rows][:2] == ["raw", "ema"]
    assert {row.swept.weights for row in found.rows} | {swept.weights for swept in found.refused} == {
        *("raw", "ema", "half-life:12", "tail:5%", "tail:10%", "tail:25%", "tail:50%")
    }
    widths = {row.swept.weights: row.swept.half_life for row in found.rows}
    assert widths["raw"] is None
    assert widths["ema"] == pytest.approx(math.log(2) * 0.8 / 0.2, rel=0.03)  # a mean age of decay / (1 - decay)


def test_what_was_scored_is_not_scored_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep_run(str(run), weights=["half-life:4"])
    said: list[str] = []
    _, both = sweep_run(str(run), weights=["half-life:4", "sigma:0.1"], say=said.append)
    assert said == ["3 of 4 averages are scored already"]
    assert [row.swept.weights for row in both.rows] == ["raw", "ema", "half-life:4", "sigma:0.1"]
    monkeypatch.setattr("bidaf.inference.sweep.load_weight_sets", lambda *args, **options: pytest.fail("scored again"))
    _, again = sweep_run(str(run), weights=["half-life:4", "sigma:0.1"])
    assert again == both


def test_an_interrupted_sweep_continues_to_the_same_result(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["half-life:2", "half-life:4", "tail:50%"]
    _, whole = sweep_run(str(run), weights=names)
    shutil.rmtree(run / "sweeps")
    predict = Predictor.predict
    calls: list[str] = []

    def interrupted(self: Predictor, *args: Any, **options: Any) -> Any:
        calls.append(self.loaded.weights)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return predict(self, *args, **options)

    monkeypatch.setattr(Predictor, "predict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep_run(str(run), weights=names)
    kept = newest_sweep(run)
    assert kept is not None
    assert [swept.weights for swept in kept.sets] == ["raw", "ema", "half-life:2"]
    _, found = sweep_run(str(run), weights=names)
    assert found == whole
    assert calls == ["raw", "ema", "half-life:2", "half-life:4", "half-life:4", "tail:50%"]


def test_a_second_sweep_at_the_same_time_is_refused_and_no_score_is_lost(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = sweep._score
    tried: list[str] = []

    def meanwhile(model: LoadedModel, *args: Any) -> SweptSet:
        if not tried:
            tried.append(model.weights)
            with pytest.raises(UsageError, match=r"another process is sweeping .*; wait for it"):
                sweep_run(str(run), weights=["half-life:2"])
        return score(model, *args)

    monkeypatch.setattr(sweep, "_score", meanwhile)
    left = run / "sweeps" / ".step-000024.json.1-0123abcd.tmp"  # by a sweep that was killed
    left.parent.mkdir()
    left.write_text("{")
    sweep_run(str(run), weights=["half-life:4"])
    sweep_run(str(run), weights=["half-life:2"])
    assert not left.exists()
    kept = read_sweep(sweep_path(run, 24)).sets
    assert [each.weights for each in kept] == ["raw", "ema", "half-life:4", "half-life:2"]
    with sweeping(run):  # shown again without a lock
        sweep_run(str(run), weights=["half-life:2"])


def test_scores_of_another_checkpoint_do_not_count(run: Path) -> None:
    _, found = sweep_run(str(run), weights=["half-life:4"])
    kept = newest_sweep(run)
    assert kept is not None
    forged = [swept.model_copy(update={"f1": [1.0] * len(kept.ids)}) for swept in kept.sets]
    write_sweep(run, kept.model_copy(update={"checkpoint": "another", "sets": forged}))
    assert sweep_run(str(run), weights=["half-life:4"])[1] == found


def test_what_can_be_synthesised_badly_alone_is_not_scored(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bidaf.inference.sweep.MAX_ERROR", 1e-12)
    _, found = sweep_run(str(run), weights=["half-life:1"])
    assert [row.swept.weights for row in found.rows] == ["raw", "ema"]
    (refused,) = found.refused
    assert refused.predicted_error > 1e-12
    assert table(found)[2][-1][0] == "half-life:1"


def test_the_command_prints_draws_and_writes_the_report(run: Path) -> None:
    plot = run.parent / "sweep.svg"
    ran = succeed("sweep", run, "-w", "half-life:4", "-o", plot, cwd=run.parent)
    assert "half-life:4" in ran.out
    assert "No width is chosen" in ran.out.splitlines()[-1]
    assert "<svg" in plot.read_text()
    assert "Averages of other widths" in (run / "report.html").read_text(encoding="utf-8")
    found = succeed("sweep", run, "-w", "half-life:4", "--at", 24, "--json", cwd=run.parent).json
    assert [each["weights"] for each in found["sets"]] == ["raw", "ema", "half-life:4"]
    assert succeed("sweep", run, "-w", "tail:6", "--at", 12, "--json", cwd=run.parent).json["step"] == 12


def test_what_cannot_be_swept_is_one_message(run: Path, configure: Configure) -> None:
    home = run.parent
    assert "names no average" in fail(2, "sweep", run, "-w", "width:3", cwd=home)
    assert "longer than" in fail(2, "sweep", run, "-w", "tail:99", cwd=home)
    assert "step 7" in fail(3, "sweep", run, "--at", 7, cwd=home)
    assert "no run nowhere" in fail(3, "sweep", "nowhere", cwd=home)
    assert ".png or .svg" in fail(2, "sweep", run, "-o", "plot.pdf", cwd=home)
    succeed("export", "--model", run, "-o", "export", cwd=home)
    assert "is an export" in fail(3, "sweep", "export", cwd=home)
    for changed, why in (({"snapshots": None}, "no snapshots"), ({"enabled": False}, "no average")):
        folder = home / why.replace(" ", "-")
        start_run(configure(training={"epochs": 1}, ema=changed), folder, CPU, lambda message: None)
        assert why in fail(3, "sweep", folder, cwd=home)
