"""Averages that a run makes while it trains: those that the settings name, and the map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import CPU, Configure, events, to_bytes

from bidaf.config import Config, MapConfig
from bidaf.data.cache import Prepared
from bidaf.errors import UsageError
from bidaf.evaluation.questions import drawn_evenly
from bidaf.evaluation.squad_v1 import score_answers
from bidaf.evaluation.sweep import Sweep
from bidaf.inference.evaluate import evaluate
from bidaf.inference.loading import load_weight_sets
from bidaf.inference.predictor import Predictor
from bidaf.inference.stored import StoredModel
from bidaf.runs.averages import resolve_weights
from bidaf.runs.checkpoint import open_checkpoint
from bidaf.runs.folder import Run
from bidaf.runs.sweeps import write_sweep
from bidaf.runs.weight_sets import Synthesis
from bidaf.training import averages
from bidaf.training.averages import map_is_due, map_targets
from bidaf.training.launch import check_changes, resume_run, start_run
from bidaf.training.trainer import Trainer

NAMES = ["half-life:3", "tail:50%", "tail:8"]


def settings(**evaluation: Any) -> dict[str, dict[str, Any]]:
    return {
        "ema": {"decay": 0.8, "warmup": "none", "snapshots": {"every": 1}},
        "training": {"deterministic": True, "keep_best": 9},
        "evaluation": {"map": {"questions": 6}, **evaluation},
    }


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A map at every evaluation."""
    monkeypatch.setattr(averages, "SCORING_SHARE", 10.0)


@pytest.fixture(scope="module")
def run(configure: Configure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 12 steps, evaluated at steps 6 and 12, with averages and maps."""
    folder = tmp_path_factory.mktemp("averages") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(averages, "SCORING_SHARE", 10.0)
        start_run(configure(**settings(averages=NAMES)), folder, CPU, lambda message: None)
    return folder


@pytest.fixture(scope="module")
def plain(configure: Configure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run without."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    start_run(configure(**settings(map=None)), folder, CPU, lambda message: None)
    return folder


def checkpoint_of(run: Path, step: int) -> Any:
    return open_checkpoint(run / "checkpoints" / f"step-{step:06d}")


def test_averages_are_scored_at_every_evaluation_and_kept_in_its_checkpoint(run: Path) -> None:
    first, last = events(run, "eval")
    assert list(first["scores"]) == ["raw", "ema", "half-life:3", "tail:50%"]  # eight steps are not there yet
    assert list(last["scores"]) == ["raw", "ema", *NAMES]
    assert "tail:8 is not scored: it is longer" in (run / "log.txt").read_text()
    checkpoint = checkpoint_of(run, 12)
    assert list(checkpoint.weight_sets) == ["raw", "ema", *NAMES]
    made = checkpoint.weight_sets["half-life:3"]
    assert isinstance(made, Synthesis)
    assert (made.target, made.run) == ("half-life:3", "run")
    assert sum(made.coefficients.values()) == pytest.approx(1)


def test_what_was_scored_is_what_is_saved(run: Path) -> None:
    loaded = load_weight_sets(str(run / "checkpoints" / "step-000012"), None, CPU)
    logged = events(run, "eval")[-1]["scores"]
    for evaluation in evaluate(loaded):
        assert evaluation.scores == pytest.approx(logged[evaluation.weights])
        stem = evaluation.weights.replace(":", "-").replace("%", "pct")
        stored = json.loads((run / "predictions" / f"step-000012.{stem}.json").read_text())
        assert stored == evaluation.predictions


def test_they_are_the_averages_that_any_run_of_the_kind_gives_afterwards(run: Path, plain: Path) -> None:
    for step in (6, 12):
        kept, bare = checkpoint_of(run, step), checkpoint_of(plain, step)
        names = [name for name in kept.weight_sets if name not in ("raw", "ema")]
        afterwards = resolve_weights(bare, names, allow_error=True).sets
        for name in names:
            assert to_bytes(kept.weights(name)) == to_bytes(afterwards[name][0])


def test_a_kept_average_is_read_however_its_name_is_spelt(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = run / "checkpoints" / "step-000012"
    stored = StoredModel.open(str(checkpoint), "tail: 50.0%")
    assert str(stored) == f"tail:50% of {checkpoint}"
    assert stored.stored_answers() == StoredModel.open(str(checkpoint), "tail:50%").stored_answers() is not None
    monkeypatch.setattr("bidaf.runs.averages.synthesize", lambda *args, **options: pytest.fail("synthesised again"))
    loaded = load_weight_sets(str(checkpoint), ["half-life:3.0", "tail:50.0%", "tail:50%", "tail:8e0"], CPU)
    assert [each.weights for each in loaded] == NAMES


def test_training_is_the_same_with_and_without(run: Path, plain: Path) -> None:
    one, other = checkpoint_of(run, 12), checkpoint_of(plain, 12)
    for name in ("raw", "ema"):
        assert to_bytes(one.weights(name)) == to_bytes(other.weights(name))
    assert to_bytes(one.tensors("optimizer.safetensors")) == to_bytes(other.tensors("optimizer.safetensors"))
    shared = [[event["loss"] for event in events(each, "train")] for each in (run, plain)]
    assert shared[0] == shared[1]


def test_an_average_with_too_large_an_error_is_not_scored(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(averages, "MAX_ERROR", 1e-6)
    changed = {**settings(averages=["half-life:3"]), "ema": {"snapshots": {"every": 3}}}
    start_run(configure(**changed), tmp_path / "run", CPU, lambda message: None)
    assert list(events(tmp_path / "run", "eval")[-1]["scores"]) == ["raw", "ema"]
    assert "its predicted error is" in (tmp_path / "run" / "log.txt").read_text()


def test_the_map_scores_every_half_life_on_one_sample(run: Path, plain: Path) -> None:
    columns = events(run, "map")
    assert [column["step"] for column in columns] == [6, 12]
    assert events(plain, "map") == []
    column = columns[-1]
    assert column["half_lives"] == [10.0]  # half the run is no longer than that
    assert column["questions"] == 6
    (model,) = load_weight_sets(str(plain), ["half-life:10"], CPU, at=12, allow_error=True)
    features = model.dev_features()
    assert features is not None
    answers = Predictor(model).answer(features)
    sample = [features.ids[number] for number in drawn_evenly(features.titles, 6)]
    gold = dict(zip(features.ids, features.answers, strict=True))
    expected = score_answers({id: gold[id] for id in sample}, {id: answers[id][0].text for id in sample}).metrics
    assert (column["f1"][0], column["exact_match"][0]) == pytest.approx((expected["f1"], expected["exact_match"]))


@pytest.mark.usefixtures("often")
def test_a_run_of_very_many_updates_makes_no_averages(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(averages, "MAX_UPDATES", 6)
    start_run(configure(**settings(averages=NAMES)), tmp_path / "run", CPU, lambda message: None)
    assert [len(event["scores"]) for event in events(tmp_path / "run", "eval")] == [4, 2]
    assert [event["step"] for event in events(tmp_path / "run", "map")] == [6]
    assert "half-life:3, tail:50%, tail:8 are not scored: " in (tmp_path / "run/log.txt").read_text()


@pytest.mark.usefixtures("often")
def test_a_resumed_run_logs_the_same_maps_and_scores(configure: Configure, run: Path, tmp_path: Path) -> None:
    config = configure(**settings(averages=NAMES))
    half = config.model_copy(update={"training": config.training.model_copy(update={"max_steps": 6})})
    start_run(half, tmp_path / "run", CPU, lambda message: None)
    resume_run(tmp_path / "run", CPU, lambda message: None, config=config)
    for kind in ("train", "eval"):
        assert events(tmp_path / "run", kind) == events(run, kind)
    assert events(tmp_path / "run", "map")[-1]["step"] == 12
    for name in NAMES:
        assert to_bytes(checkpoint_of(tmp_path / "run", 12).weights(name)) == to_bytes(
            checkpoint_of(run, 12).weights(name)
        )


def test_what_is_made_again_is_dropped(run: Path, tmp_path: Path) -> None:
    copy = Run.open(run).copy(tmp_path / "copy")
    for step in (6, 12):
        write_sweep(copy.folder, Sweep(step=step, checkpoint="", ids=[], articles=[]))
    copy.rewind(checkpoint_of(copy.folder, 6))
    assert [event["step"] for event in events(copy.folder, "map")] == [6]
    assert [path.name for path in (copy.folder / "sweeps").iterdir()] == ["step-000006.json"]


def test_half_lives_of_the_map_reach_from_ten_steps_to_half_the_run() -> None:
    assert [target.value for target in map_targets(8_992)] == [10, 24, 57, 137, 328, 785, 1879, 4496]
    assert [target.value for target in map_targets(12)] == [10]
    assert [target.value for target in map_targets(30)] == [10, 11, 12, 13, 14, 15]


@pytest.mark.parametrize(
    ("questions", "before", "step", "due"),
    [
        (1_000, 0, 4, False),  # 8 maps of 12 questions cost 32; 4 * 5 questions trained on pay 0.8 of them
        (1_000, 0, 160, True),
        (1_000, 160, 165, False),
        (1_000, 160, 325, True),
        (3, 0, 50, True),
        (3, 0, 49, True),
        (3, 0, 20, False),
    ],
)
def test_the_map_is_drawn_as_often_as_its_share_of_time_pays_for(
    configure: Configure, prepared: Prepared, questions: int, before: int, step: int, due: bool
) -> None:
    trainer = Trainer(configure(training={"batch_size": 5}), prepared, CPU)
    trainer.state.step, trainer.state.evaluated_step = step, before
    assert map_is_due(MapConfig(questions=questions), trainer) is due


def test_without_snapshots_there_is_no_map(configure: Configure, prepared: Prepared) -> None:
    trainer = Trainer(configure(ema={"snapshots": None}), prepared, CPU)
    trainer.state.step = 10_000
    assert not map_is_due(MapConfig(), trainer)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"evaluation": {"averages": ["width:3"]}}, "names no average"),
        ({"evaluation": {"averages": ["tail:0%"]}}, "out of range"),
        ({"evaluation": {"averages": ["ema"]}}, "scored in any case"),
        ({"evaluation": {"averages": ["decay:.9", "decay:0.9"]}}, "twice"),
        ({"evaluation": {"averages": ["tail:50%"]}, "ema": {"snapshots": None}}, "switched off"),
        ({"evaluation": {"averages": ["tail:50%"]}, "ema": {"enabled": False}}, "switched off"),
        ({"evaluation": {"map": {"questions": 0}}}, "greater than or equal to 1"),
    ],
)
def test_settings_that_name_no_average_are_refused(configure: Configure, changed: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        configure(**changed)


def test_averages_and_map_may_change_on_resume(configure: Configure) -> None:
    config = configure()
    check_changes(config, configure(evaluation={"averages": ["tail:50%"], "map": None}))
    check_changes(config, configure(evaluation={"map": {"questions": 3}}))
    with pytest.raises(UsageError, match="snapshots"):
        check_changes(config, configure(ema={"snapshots": {"every": 3}}))


def test_names_have_one_spelling(configure: Configure) -> None:
    config: Config = configure(evaluation={"averages": ["decay:.99", "tail:50%"]})
    assert config.evaluation.averages == ("decay:0.99", "tail:50%")
