"""A run: when it evaluates, saves and stops, what it leaves behind, and that stopping and resuming changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CPU, EMA_FILE, RAW_FILE, Configure, checkpoint_steps, events, to_bytes
from safetensors.torch import load_file

from bidaf.config import Config
from bidaf.config_optimizer import MAX_LR
from bidaf.data.batches import BatchSource
from bidaf.data.cache import Prepared
from bidaf.distributed import Group
from bidaf.ema.average import ExponentialMovingAverage, trained_weights
from bidaf.errors import BidafError, DataError, UsageError
from bidaf.evaluation.evaluator import predict_spans
from bidaf.evaluation.metrics import score_file
from bidaf.evaluation.no_answer import score_predictions
from bidaf.files.confined import ConfinedFolder
from bidaf.files.writing import json_text
from bidaf.inference.loading import load_model
from bidaf.model.bidaf import span_loss
from bidaf.runs.checkpoint import OPTIMIZER, open_checkpoint
from bidaf.runs.folder import Run
from bidaf.runs.state import TrainingState
from bidaf.runs.weight_sets import MovingAverage
from bidaf.training import loop, run_writer
from bidaf.training import trainer as trainer_module
from bidaf.training.interrupt import Interrupted
from bidaf.training.launch import resume_run, start_run, try_out
from bidaf.training.loop import train
from bidaf.training.step import TrainingStep
from bidaf.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("prepared")

ADAM = {"name": "adam", "lr": 0.05}
ADADELTA = {"name": "adadelta", "lr": 2.0, "eps": 1e-4}
# What the clock and the machine say; all else in metrics.jsonl, but the line a sitting starts with, is the run's own.
OF_THE_CLOCK = {"elapsed", "seconds", "questions_per_second", "memory_bytes"}


TIMED = {"training": {"elapsed"}}


def silent(message: str) -> None:
    pass


def start(config: Config, folder: Path) -> TrainingState:
    return start_run(config, folder, CPU, silent)


def resume(source: Path, *, config: Config | None = None, into: Path | None = None) -> TrainingState:
    return resume_run(source, CPU, silent, config=config, folder=into)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def without_clock(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    ran = [line for line in lines if line["event"] != "start"]
    return [{key: value for key, value in line.items() if key not in OF_THE_CLOCK} for line in ran]


def predictions(run: Path) -> dict[str, Any]:
    return {path.name: read_json(path) for path in (run / "predictions").iterdir()}


def script_f1(monkeypatch: pytest.MonkeyPatch, *shadow: float) -> None:
    """Let the shadow score these F1, one an evaluation, and the raw weights the opposite."""
    figures = iter([figure for f1 in shadow for figure in (100.0 - f1, f1)])
    monkeypatch.setattr(
        run_writer,
        "score_predictions",
        lambda *scored: replace(score_predictions(*scored), metrics={"exact_match": 0.0, "f1": next(figures)}),
    )


@pytest.fixture(scope="module")
def whole_runs(configure: Configure, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Runs of twelve steps that nothing disturbed, by optimizer."""
    made: dict[str, Path] = {}

    def run_of(optimizer: str) -> Path:
        if optimizer not in made:
            folder = tmp_path_factory.mktemp("whole") / optimizer
            start(settings_with(configure, optimizer), folder)
            made[optimizer] = folder
        return made[optimizer]

    return run_of


def settings_with(configure: Configure, optimizer: str) -> Config:
    return configure(training={"optimizer": ADAM if optimizer == "adam" else ADADELTA})


# ---- evaluations and checkpoints in their time


@pytest.mark.parametrize(
    ("training", "evaluation", "evaluated", "saved"),
    [
        ({}, {}, [6, 12], [6, 12]),
        ({"max_steps": 8}, {}, [6, 8], [6, 8]),
        ({}, {"every_steps": 5}, [5, 10, 12], [5, 10, 12]),
        ({"max_steps": 3}, {"every_steps": 3}, [3], [3]),
        ({"max_steps": 6, "save_every": 2}, {"every_steps": 4}, [4, 6], [2, 4, 6]),
        ({"epochs": 1, "batch_size": 5}, {}, [5], [5]),  # the last batch of an epoch may be short
    ],
)
def test_evaluations_and_checkpoints_come_when_asked_for_and_at_the_end(
    configure: Configure,
    tmp_path: Path,
    training: dict[str, Any],
    evaluation: dict[str, Any],
    evaluated: list[int],
    saved: list[int],
) -> None:
    state = start(configure(training=training, evaluation=evaluation), tmp_path)
    lines = events(tmp_path)
    assert [line["step"] for line in lines if line["event"] == "eval"] == evaluated
    assert [line["step"] for line in lines if line["event"] == "train"] == list(range(1, state.step + 1))
    assert checkpoint_steps(tmp_path) == saved
    expected = {f"step-{step:06d}.{weights}.json" for step in evaluated for weights in ("raw", "ema")}
    best = {f"step-{line['step']:06d}.n_best.json" for line in lines if line.get("best")}
    assert set(predictions(tmp_path)) == {*expected, *best}
    assert (tmp_path / "last").resolve() == (tmp_path / "checkpoints" / f"step-{saved[-1]:06d}").resolve()


def test_without_a_shadow_the_raw_weights_alone_are_scored_and_saved(configure: Configure, tmp_path: Path) -> None:
    state = start(configure(ema={"enabled": False}, training={"epochs": 1}), tmp_path)
    assert set(state.scores or {}) == {"raw"}
    assert set(predictions(tmp_path)) == {"step-000006.raw.json", "step-000006.n_best.json"}
    assert set(open_checkpoint(tmp_path / "last").weight_sets) == {"raw"}
    assert events(tmp_path, "eval")[0]["distance"] is None
    assert events(tmp_path, "train")[0]["ema_decay"] is None
    with pytest.raises(DataError, match=r"no ema weights, only raw: .*--weights"):
        open_checkpoint(tmp_path / "last").weights("ema")


def test_the_shadow_changes_nothing_of_the_raw_weights(
    configure: Configure, tmp_path: Path, whole_runs: Callable[[str], Path]
) -> None:
    start(configure(ema={"enabled": False}), tmp_path)
    for step in ("step-000006", "step-000012"):
        for file in (RAW_FILE, OPTIMIZER):
            plain, averaged = (load_file(run / "checkpoints" / step / file) for run in (tmp_path, whole_runs("adam")))
            assert to_bytes(plain) == to_bytes(averaged)


def test_how_often_is_evaluated_changes_nothing_of_the_weights(
    configure: Configure, tmp_path: Path, whole_runs: Callable[[str], Path]
) -> None:
    start(configure(evaluation={"every_steps": 1}), tmp_path)
    for file in (RAW_FILE, EMA_FILE, OPTIMIZER):
        often, seldom = (load_file(run / "checkpoints/step-000012" / file) for run in (tmp_path, whole_runs("adam")))
        assert to_bytes(often) == to_bytes(seldom)


def test_a_run_learns_and_its_shadow_is_not_its_raw_weights(whole_runs: Callable[[str], Path]) -> None:
    run = whole_runs("adam")
    losses = [line["loss"] for line in events(run, "train")]
    assert sum(losses[-3:]) < sum(losses[:3])
    checkpoint = open_checkpoint(run / "last")
    assert to_bytes(checkpoint.weights("ema")) != to_bytes(checkpoint.weights("raw"))
    pairs = [
        [read_json(run / f"predictions/step-{step:06d}.{weights}.json") for weights in ("raw", "ema")]
        for step in (6, 12)
    ]
    assert all(raw.keys() == shadow.keys() for raw, shadow in pairs)
    assert any(raw != shadow for raw, shadow in pairs)
    made = checkpoint.weight_sets["ema"]
    assert isinstance(made, MovingAverage)
    assert (made.warmup, made.steps, checkpoint.step) == ("ramp", 12, 12)


# ---- metrics and log


def test_metrics_hold_the_documented_keys(whole_runs: Callable[[str], Path]) -> None:
    run = whole_runs("adam")
    common = {"event", "step", "epoch", "elapsed"}
    for line in events(run, "train"):
        own = {"loss", "grad_norm", "learning_rate", "ema_decay", "questions_per_second", "memory_bytes"}
        assert set(line) == common | own
        assert line["ema_decay"] == pytest.approx((1 + line["step"]) / (10 + line["step"]))
        assert line["memory_bytes"] > 1e6
    for line in events(run, "eval"):
        assert set(line) == common | {"scores", "distance", "best", "seconds"}
        assert set(line["scores"]) == {"raw", "ema"}
        assert all(set(metrics) == {"exact_match", "f1"} for metrics in line["scores"].values())
        assert line["distance"] > 0.0
        assert line["epoch"] == line["step"] / 6
    times = [line["elapsed"] for line in events(run) if line["event"] not in ("start", "end")]
    assert times == sorted(times)


def test_a_line_of_metrics_holds_the_mean_loss_of_its_interval(
    configure: Configure, tmp_path: Path, whole_runs: Callable[[str], Path]
) -> None:
    start(configure(training={"log_every": 5}), tmp_path)
    each = [line["loss"] for line in events(whole_runs("adam"), "train")]
    lines = [(line["step"], line["loss"]) for line in events(tmp_path, "train")]
    means = [sum(each[:5]) / 5, sum(each[5:10]) / 5, sum(each[10:]) / 2]
    assert lines == [(step, pytest.approx(mean)) for step, mean in zip([5, 10, 12], means, strict=True)]


def test_the_log_says_what_the_metrics_say(whole_runs: Callable[[str], Path]) -> None:
    run = whole_runs("adam")
    log = (run / "log.txt").read_text(encoding="utf-8")
    assert "step 12/12  epoch 2.00  loss " in log
    for line in events(run, "eval"):
        for name, metrics in line["scores"].items():
            assert f"{name} EM {metrics['exact_match']:.2f} F1 {metrics['f1']:.2f}" in log


def test_a_skipped_step_is_counted_and_told_and_the_run_goes_on(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(1, 100))
    poisoned = (2, 5)

    def poison(*arguments: Any) -> Any:
        return span_loss(*arguments) * (float("nan") if next(calls) in poisoned else 1.0)

    monkeypatch.setattr("bidaf.training.step.span_loss", poison)
    state = start(configure(training={"nonfinite": "skip", "epochs": 1}), tmp_path)
    assert (state.step, state.skipped) == (6, 2)
    checkpoint = open_checkpoint(tmp_path / "last")
    assert checkpoint.weight_sets["ema"] == MovingAverage(decay=0.999, warmup="ramp", steps=4)
    skips = events(tmp_path, "skip")
    assert [(line["step"], line["loss"], len(line["questions"])) for line in skips] == [(2, "nan", 4), (5, "nan", 4)]
    assert [line["loss"] is None for line in events(tmp_path, "train")] == [False, True, False, False, True, False]
    assert "step 2: loss or gradient is not finite, step skipped" in (tmp_path / "log.txt").read_text(encoding="utf-8")


def test_a_run_that_must_stop_keeps_its_last_checkpoint(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(1, 100))

    def poison(*arguments: Any) -> Any:
        return span_loss(*arguments) * (float("nan") if next(calls) == 8 else 1.0)

    monkeypatch.setattr("bidaf.training.step.span_loss", poison)
    with pytest.raises(BidafError, match=r"^step 8: loss nan"):
        start(configure(), tmp_path)
    assert checkpoint_steps(tmp_path) == [6]
    assert open_checkpoint(tmp_path / "last").step == 6


def spoil_after(monkeypatch: pytest.MonkeyPatch, step: int, spoil: Callable[[TrainingStep], object]) -> None:
    """Let something go wrong with what a step changes, once it is done, without its loss showing it."""
    original = TrainingStep.run

    def spoiling(self: TrainingStep, *arguments: Any, **options: Any) -> Any:
        result = original(self, *arguments, **options)
        if arguments[3] == step:
            with torch.no_grad():
                spoil(self)
        return result

    monkeypatch.setattr(TrainingStep, "run", spoiling)


def fill(tensors: Any, value: float) -> None:
    for tensor in tensors:
        tensor.fill_(value)


DIVERGED: dict[str, tuple[Callable[[TrainingStep], object], str]] = {
    "a NaN among the raw weights": (
        lambda step: fill([step.model.end_scorer.flow_weight[:1]], float("nan")),
        "the raw weights diverged: end_scorer.flow_weight holds",
    ),
    "an infinite shadow": (
        lambda step: fill(step.ema.shadow.values() if step.ema else (), float("inf")),
        "the ema weights diverged: .*, .* hold",
    ),
    "finite raw weights that score NaN": (
        lambda step: fill([*step.model.modeling.parameters(), *step.model.start_scorer.parameters()], 3e38),
        "the raw weights diverged: the scores of question",
    ),
    "a finite shadow that scores NaN": (
        lambda step: fill(step.ema.shadow.values() if step.ema else (), 3e38),
        "the ema weights diverged: the scores of question",
    ),
    "an infinite moment of the optimizer": (
        lambda step: fill([next(iter(step.optimizer.state.values()))["exp_avg"]], float("inf")),
        "the optimizer's state diverged: .*/exp_avg holds",
    ),
}


@pytest.mark.parametrize("how", DIVERGED)
def test_weights_that_diverge_end_the_run_with_their_name_and_nothing_of_them_is_saved(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    spoil, said = DIVERGED[how]
    spoil_after(monkeypatch, 4, spoil)
    with pytest.raises(BidafError, match=f"^step 4: {said}") as caught:
        start(configure(evaluation={"every_steps": 2}), tmp_path)
    assert caught.value.exit_code == 1
    assert checkpoint_steps(tmp_path) == [2]
    assert [line["step"] for line in events(tmp_path, "eval")] == [2]
    assert "step-000004.raw.json" not in predictions(tmp_path)
    monkeypatch.undo()
    assert resume(tmp_path).step == 12


def test_weights_that_diverge_on_the_share_of_another_process_end_this_one_too(
    configure: Configure, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(evaluation={"every_steps": 2})
    trainer = Trainer(config, prepared, CPU, Group())
    other = [{}, [0.0, 0.0], "step 2: the ema weights diverged"]
    monkeypatch.setattr(trainer.group, "gather", lambda ours: [ours, other if trainer.ema.is_applied else ours])  # type: ignore[union-attr]
    with pytest.raises(BidafError, match="the ema weights diverged"):
        train(trainer, Run.create(tmp_path / "run", config, "cpu"))
    assert trainer.ema is not None
    assert not trainer.ema.is_applied
    assert checkpoint_steps(tmp_path / "run") == []


def test_diverged_weights_are_not_saved_between_evaluations_either(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_after(monkeypatch, 4, DIVERGED["a NaN among the raw weights"][0])
    with pytest.raises(BidafError, match=r"^step 4: the raw weights diverged"):
        start(configure(training={"save_every": 2}), tmp_path)
    assert checkpoint_steps(tmp_path) == [2]


def test_the_highest_learning_rate_ends_in_one_error_or_in_finite_weights(configure: Configure, tmp_path: Path) -> None:
    for number, optimizer in enumerate(("adam", "adadelta")):
        settings = {"optimizer": {"name": optimizer, "lr": MAX_LR}, "max_steps": 4}
        run = tmp_path / str(number)
        with suppress(BidafError):
            start(configure(training=settings, evaluation={"every_steps": 1}), run)
        for step in checkpoint_steps(run):
            weights = open_checkpoint(run / "checkpoints" / f"step-{step:06d}").weights("ema")
            assert all(weight.isfinite().all() for weight in weights.values())


# ---- the best, the last, and the patience between them


@pytest.mark.parametrize(
    ("f1", "best", "kept"),
    [
        ([50.0, 70.0, 60.0, 65.0, 10.0, 20.0], 4, [4, 10, 12]),
        ([50.0, 50.0, 50.0, 50.0, 50.0, 50.0], 2, [2, 10, 12]),  # a tie is no gain
        ([10.0, 20.0, 30.0, 40.0, 50.0, 60.0], 12, [10, 12]),
        ([0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 2, [2, 10, 12]),
    ],
)
def test_the_best_is_the_shadows_best_and_is_never_pruned(
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    f1: list[float],
    best: int,
    kept: list[int],
) -> None:
    script_f1(monkeypatch, *f1)
    state = start(configure(training={"keep_last": 2}, evaluation={"every_steps": 2}), tmp_path)
    assert (state.best_step, state.best_f1) == (best, max(f1))
    assert checkpoint_steps(tmp_path) == kept
    assert open_checkpoint(tmp_path / "best").step == best
    assert open_checkpoint(tmp_path / "last").step == 12
    flags = [line["best"] for line in events(tmp_path, "eval")]
    assert flags == [figure > max([-1.0, *f1[:number]]) for number, figure in enumerate(f1)]


@pytest.mark.parametrize(
    ("keep_best", "kept"), [(1, [4, 12]), (2, [4, 8, 12]), (3, [4, 6, 8, 12]), (9, [2, 4, 6, 8, 10, 12])]
)
def test_as_many_of_the_best_are_kept_as_asked_for(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_best: int, kept: list[int]
) -> None:
    script_f1(monkeypatch, 50.0, 70.0, 60.0, 65.0, 60.0, 20.0)
    config = configure(training={"keep_last": 1, "keep_best": keep_best}, evaluation={"every_steps": 2})
    start(config, tmp_path)
    assert checkpoint_steps(tmp_path) == kept
    assert open_checkpoint(tmp_path / "best").step == 4


def test_n_best_answers_stay_with_the_checkpoints_whose_best_evaluation_they_are_of(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stored() -> list[int]:
        answers = {name: value for name, value in predictions(tmp_path).items() if name.endswith("n_best.json")}
        assert all(name == f"step-{value['step']:06d}.n_best.json" for name, value in answers.items())
        return sorted(value["step"] for value in answers.values())

    script_f1(monkeypatch, 10.0, 20.0, 5.0, 30.0)
    start(configure(training={"keep_last": 2}, evaluation={"every_steps": 3}), tmp_path)
    assert (checkpoint_steps(tmp_path), stored()) == ([9, 12], [6, 12])
    shutil.rmtree(tmp_path / "checkpoints" / "step-000012")
    script_f1(monkeypatch, 15.0)
    state = resume(
        tmp_path, config=configure(training={"max_steps": 10, "keep_last": 2}, evaluation={"every_steps": 9})
    )
    assert (state.best_step, stored()) == (6, [6])  # those of step 12 are of an evaluation that was not made again


def test_patience_ends_the_run_after_so_many_evaluations_without_gain(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_f1(monkeypatch, 50.0, 40.0, 60.0, 60.0, 59.0, 99.0)
    state = start(configure(evaluation={"every_steps": 2, "patience": 2}), tmp_path)
    assert (state.step, state.best_step, state.evaluations_without_gain) == (10, 6, 2)
    assert "no better dev F1 in 2 evaluations" in (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert resume(tmp_path).step == 10  # it stays stopped


def test_what_was_scored_is_what_is_saved(whole_runs: Callable[[str], Path], corpus: Path) -> None:
    run = whole_runs("adam")
    for weights in ("raw", "ema"):
        loaded = load_model(str(run), weights=weights, device=CPU)
        step = open_checkpoint(loaded.origin).step
        assert loaded.weights == weights
        assert loaded.prepared is not None
        source = BatchSource(loaded.prepared.features("dev"), CPU)
        answers = predict_spans(loaded.model, source, batch_tokens=120, max_answer_tokens=None)
        file = run / "predictions" / f"step-{step:06d}.{weights}.json"
        assert {question: best.text for question, (best,) in answers.items()} == read_json(file)
        score = score_file(corpus / "dev.json", file).score
        logged = next(line for line in events(run, "eval") if line["step"] == step)["scores"][weights]
        assert logged == {"exact_match": score.exact_match, "f1": score.f1}


# ---- what fails


def test_a_failure_while_the_shadow_is_scored_leaves_raw_weights_and_checkpoints(
    configure: Configure, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure()
    trainer = Trainer(config, prepared, CPU)
    assert trainer.ema is not None
    raw: list[dict[str, bytes]] = []

    def fail(*arguments: Any, **options: Any) -> Any:
        if trainer.state.step < 12:
            return predict_spans(*arguments, **options)
        if not trainer.ema.is_applied:  # type: ignore[union-attr]
            raw.append(to_bytes(trained_weights(trainer.model)))
            return predict_spans(*arguments, **options)
        raise ValueError("in the middle of scoring the shadow")

    monkeypatch.setattr(loop, "predict_spans", fail)
    with pytest.raises(ValueError, match="in the middle"):
        train(trainer, Run.create(tmp_path / "run", config, "cpu"))
    assert not trainer.ema.is_applied
    assert to_bytes(trained_weights(trainer.model)) == raw[0]
    assert open_checkpoint(tmp_path / "run/last").step == 6
    monkeypatch.undo()
    assert resume(tmp_path / "run").step == 12


def test_a_file_that_cannot_be_written_ends_the_run_with_its_name(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(files: ConfinedFolder, name: str, value: Any) -> None:
        if name.startswith("predictions"):
            raise OSError(28, "No space left on device", str(files.path(name)))
        files.write_text(name, json_text(value))

    monkeypatch.setattr(ConfinedFolder, "write_json", full)
    with pytest.raises(BidafError, match=r"can't be written: .*No space left on device: .*step-000006\.raw\.json"):
        start(configure(), tmp_path)


def test_trying_out_makes_no_run(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = try_out(configure(training={"accumulate": 2}), CPU, silent)
    assert result.total_steps == 12
    assert result.loss > 0.0
    assert result.counts["train"]["kept"] == 24
    assert result.weights["end_lstm"] > 0
    assert list(tmp_path.iterdir()) == []


# ---- stopped and resumed


def send_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, number: int = signal.SIGINT) -> None:
    """Send this process a signal as `owner.name` is called for the `call`-th time."""
    original = getattr(owner, name)
    calls = iter(range(1, 10_000))

    def signalling(*arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            os.kill(os.getpid(), number)
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, signalling)


# Where the signal comes, and the step whose state is saved then. Evaluations call `predict_spans` for raw, then shadow.
PLACES: dict[str, tuple[Any, str, int, int]] = {
    "before the first step": (loop._Loop, "_evaluation_due", 1, 0),
    "mid-epoch": (TrainingStep, "run", 3, 3),
    "right before an evaluation": (TrainingStep, "run", 6, 6),
    "as raw weights are scored": (loop, "predict_spans", 1, 6),
    "as the shadow is scored": (loop, "predict_spans", 2, 6),
    "right after an evaluation": (ExponentialMovingAverage, "distance", 1, 6),
    "in the second epoch": (TrainingStep, "run", 9, 9),
    "as the shadow is scored for the last time": (loop, "predict_spans", 4, 12),
}


def assert_same_run(run: Path, other: Path) -> None:
    """Weights, shadow and optimizer bit for bit, state, metrics and predictions."""
    for step in sorted({6, 12} & set(checkpoint_steps(run))):
        ours, theirs = (open_checkpoint(each / "checkpoints" / f"step-{step:06d}") for each in (run, other))
        for file in (RAW_FILE, EMA_FILE, OPTIMIZER):
            assert to_bytes(load_file(ours.folder / file)) == to_bytes(load_file(theirs.folder / file)), (step, file)
        assert ours.saved.model_dump(exclude=TIMED) == theirs.saved.model_dump(exclude=TIMED)
    assert without_clock(events(run)) == without_clock(events(other))
    assert predictions(run) == predictions(other)
    assert open_checkpoint(run / "best").step == open_checkpoint(other / "best").step
    assert open_checkpoint(run / "last").step == open_checkpoint(other / "last").step == 12


@pytest.mark.parametrize(
    ("optimizer", "place"),
    [*(("adam", place) for place in PLACES), ("adadelta", "mid-epoch"), ("adadelta", "as the shadow is scored")],
)
def test_a_run_stopped_and_resumed_ends_as_one_that_was_not(
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole_runs: Callable[[str], Path],
    optimizer: str,
    place: str,
) -> None:
    owner, name, call, step = PLACES[place]
    whole = whole_runs(optimizer)
    with monkeypatch.context() as patch:
        send_at(patch, owner, name, call)
        with pytest.raises(Interrupted) as caught:
            start(settings_with(configure, optimizer), tmp_path)
    assert caught.value.exit_code == 130
    assert checkpoint_steps(tmp_path)[-1] == open_checkpoint(tmp_path / "last").step == step
    resume(tmp_path)
    assert_same_run(tmp_path, whole)


def test_a_run_stopped_again_and_again_ends_as_one_that_was_not(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_runs: Callable[[str], Path]
) -> None:
    whole = whole_runs("adam")
    sessions: Iterator[Callable[[], Any]] = iter(
        [lambda: start(settings_with(configure, "adam"), tmp_path), *[lambda: resume(tmp_path)] * 4]
    )
    for owner, name, call in [
        (TrainingStep, "run", 6),
        (loop, "predict_spans", 1),  # twice at one step: nothing new to save
        (loop, "predict_spans", 2),
        (TrainingStep, "run", 1),
        (loop._Loop, "_evaluation_due", 1),  # at once: no step done
    ]:
        with monkeypatch.context() as patch:
            send_at(patch, owner, name, call)
            with pytest.raises(Interrupted):
                next(sessions)()
    resume(tmp_path)
    assert_same_run(tmp_path, whole)


def test_a_termination_ends_with_its_own_code(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    send_at(monkeypatch, TrainingStep, "run", 2, signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGTERM") as caught:
        start(configure(), tmp_path)
    assert caught.value.exit_code == 143
    assert open_checkpoint(tmp_path / "last").step == 2
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_second_interrupt_ends_at_once_and_keeps_the_last_checkpoint(
    configure: Configure, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(training={"save_every": 2})
    trainer = Trainer(config, prepared, CPU)
    send_at(monkeypatch, loop, "predict_spans", 2)
    send_at(monkeypatch, loop, "predict_spans", 2)  # a wrapper about the wrapper: both signals at one call
    with pytest.raises(KeyboardInterrupt):
        train(trainer, Run.create(tmp_path / "run", config, "cpu"))
    assert trainer.ema is not None
    assert not trainer.ema.is_applied
    assert open_checkpoint(tmp_path / "run/last").step == 4


def test_a_finished_run_resumed_changes_nothing(configure: Configure, tmp_path: Path) -> None:
    start(configure(training={"epochs": 1}), tmp_path)
    before = events(tmp_path)
    assert resume(tmp_path).step == 6
    assert events(tmp_path) == before


def test_a_run_made_longer_ends_as_one_that_was_long_from_the_start(
    configure: Configure, tmp_path: Path, whole_runs: Callable[[str], Path]
) -> None:
    start(configure(training={"epochs": 1}), tmp_path)
    resume(tmp_path, config=configure())
    assert_same_run(tmp_path, whole_runs("adam"))


def test_changed_settings_are_refused_and_listed(configure: Configure, tmp_path: Path) -> None:
    start(configure(training={"max_steps": 1}), tmp_path)
    other = configure(
        ema={"decay": 0.5}, model={"dropout": 0.3}, training={"max_steps": 9, "batch_size": 3, "save_every": 1}
    )
    with pytest.raises(UsageError) as caught:
        resume(tmp_path, config=other)
    listed = [line.split(":")[0].strip() for line in str(caught.value).splitlines() if line.startswith("  ")]
    assert listed == ["model.dropout", "ema.decay", "training.batch_size"]
    assert open_checkpoint(tmp_path / "last").step == 1


def test_settings_that_only_say_how_long_and_how_loud_may_change(
    configure: Configure, corpus: Path, tmp_path: Path
) -> None:
    start(configure(training={"max_steps": 1}), tmp_path)
    other = configure(
        training={"max_steps": 4, "epochs": 3, "log_every": 2, "save_every": 3, "keep_last": 5},
        evaluation={"every_steps": 4, "batch_tokens": 500, "patience": 7},
    )
    assert resume(tmp_path, config=other).step == 4
    assert checkpoint_steps(tmp_path) == [1, 3, 4]
    assert open_checkpoint(tmp_path / "last").config == other


def test_a_damaged_newest_checkpoint_is_passed_over_and_made_again(
    configure: Configure, tmp_path: Path, whole_runs: Callable[[str], Path]
) -> None:
    start(configure(), tmp_path)
    (tmp_path / "checkpoints/step-000012" / RAW_FILE).write_bytes(b"")
    said: list[str] = []
    resume_run(tmp_path, CPU, said.append)
    assert any("skipping" in line and f"step-000012 is corrupted: {RAW_FILE}" in line for line in said)
    assert any("at step 6 of 12" in line for line in said)
    assert_same_run(tmp_path, whole_runs("adam"))


def test_what_is_saved_after_a_damaged_checkpoint_is_not_pruned_for_it(configure: Configure, tmp_path: Path) -> None:
    """The damaged one has the higher number, and must not count as the newest."""
    config = configure(training={"keep_last": 2, "save_every": 2})
    start(config, tmp_path)
    assert checkpoint_steps(tmp_path)[-2:] == [10, 12]
    (tmp_path / "checkpoints/step-000012" / RAW_FILE).write_bytes(b"")
    shorter = configure(training={"keep_last": 1, "save_every": 1, "max_steps": 11})
    resume(tmp_path, config=shorter)
    assert open_checkpoint(tmp_path / "last").step == 11
    assert 12 not in checkpoint_steps(tmp_path)
    assert resume(tmp_path, config=config).step == 12


def test_best_names_a_sound_checkpoint_after_the_best_was_damaged(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_f1(monkeypatch, 50.0, 60.0, 55.0)
    start(configure(), tmp_path)
    assert open_checkpoint(tmp_path / "best").step == 12
    (tmp_path / "best" / EMA_FILE).write_bytes(b"")
    assert resume(tmp_path, config=configure(training={"max_steps": 7})).best_step == 7
    script_f1(monkeypatch, 1.0)
    (tmp_path / "best" / EMA_FILE).write_bytes(b"")
    assert resume(tmp_path, config=configure(training={"max_steps": 8})).best_step == 6
    assert open_checkpoint(tmp_path / "best").step == 6


def test_an_evaluation_whose_checkpoint_failed_is_told_once(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_runs: Callable[[str], Path]
) -> None:
    whole = whole_runs("adam")
    with monkeypatch.context() as patch:  # stopped inside the evaluation: step 6 is saved without its scores
        send_at(patch, loop, "predict_spans", 1)
        with pytest.raises(Interrupted):
            start(configure(), tmp_path)

    def full(*arguments: Any, **options: Any) -> None:
        raise BidafError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "save_checkpoint", full)
        with pytest.raises(BidafError, match="full"):
            resume(tmp_path)
    assert len(events(tmp_path, "eval")) == 1
    resume(tmp_path)
    assert_same_run(tmp_path, whole)


def test_without_one_sound_checkpoint_there_is_no_resuming(configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a run folder"):
        resume(tmp_path / "nowhere")
    start(configure(training={"max_steps": 1}), tmp_path)
    (tmp_path / "last" / "complete.json").unlink()
    with pytest.raises(DataError, match="no valid checkpoint"):
        resume(tmp_path)


def test_a_run_is_resumed_in_a_copy_and_left_as_it_was(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_runs: Callable[[str], Path]
) -> None:
    source, copy = tmp_path / "first", tmp_path / "second"
    with monkeypatch.context() as patch:
        send_at(patch, TrainingStep, "run", 8)
        with pytest.raises(Interrupted):
            start(configure(), source)
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    resume(source, into=copy)
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before
    assert_same_run(copy, whole_runs("adam"))
    assert (copy / "best").resolve().is_relative_to(copy)
    with pytest.raises(UsageError, match="name another --run-dir"):
        resume(source, into=copy)


def test_the_source_of_a_copy_is_not_trained_in_while_it_is_copied(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, copy = tmp_path / "first", tmp_path / "second"
    start(configure(training={"max_steps": 1}), source)
    with Run.open(source).locked(), pytest.raises(UsageError, match="another process"):
        resume(source, into=copy)
    assert not copy.exists()
    original, locks = Run.copy, []

    def copying(self: Run, folder: Path) -> Run:
        with pytest.raises(UsageError, match="another process"), Run.open(source).locked():
            pass
        locks.append(source)
        return original(self, folder)

    monkeypatch.setattr(Run, "copy", copying)

    def reporting(folder: Path) -> None:  # the copy trains: its source is free again
        with Run.open(source).locked():
            locks.append(folder)

    resume_run(source, CPU, silent, reporting, config=configure(training={"max_steps": 2}), folder=copy)
    assert locks == [source, copy]


@pytest.mark.parametrize("inside", ["copy", "checkpoints/copy", "checkpoints/../copy"])
def test_a_run_is_not_copied_into_itself(configure: Configure, tmp_path: Path, inside: str) -> None:
    start(configure(training={"max_steps": 1}), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="lies inside") as caught:
        resume(tmp_path, into=tmp_path / inside)
    assert caught.value.exit_code == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_other_data_under_the_same_name_is_refused(configure: Configure, corpus: Path, tmp_path: Path) -> None:
    train = tmp_path / "train.json"
    data = {"train": str(train), "prepared_dir": str(tmp_path / "prepared")}
    train.write_bytes((corpus / "train.json").read_bytes())
    start(configure(data=data, training={"max_steps": 1}), tmp_path / "run")
    train.write_text((corpus / "train.json").read_text(encoding="utf-8").replace("1204", "1205"), encoding="utf-8")
    with pytest.raises(DataError, match="the data changed since the run began"):
        resume(tmp_path / "run")


def test_a_run_that_is_being_trained_is_not_resumed_beside_it(configure: Configure, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    start_run(configure(), folder, CPU, silent)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with Run.open(folder).locked(), pytest.raises(UsageError, match="another process"):
        resume_run(folder, CPU, silent)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_moved_source_of_the_same_content_resumes(configure: Configure, corpus: Path, tmp_path: Path) -> None:
    sources = {name: shutil.copy(corpus / f"{name}.json", tmp_path) for name in ("train", "dev")}
    data = {**sources, "prepared_dir": str(tmp_path / "prepared")}
    start(configure(data=data, training={"max_steps": 1}), tmp_path / "run")
    moved = {name: shutil.move(path, tmp_path / f"moved-{name}.json") for name, path in sources.items()}
    config = configure(data={**data, **{name: str(path) for name, path in moved.items()}}, training={"max_steps": 2})
    assert resume_run(tmp_path / "run", CPU, silent, config=config).step == 2
