"""A run of checkpoint format 1 and its export, written by an older version: they answer as they did when written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import EMA_FILE, RAW_FILE, checkpoint_steps, events, to_bytes
from helpers_cli import succeed
from helpers_fuzz import sign_checkpoint

from bidaf.errors import DataError
from bidaf.runs.checkpoint import OPTIMIZER, open_checkpoint
from bidaf.runs.log import read_run
from bidaf.runs.state import STATE
from bidaf.runs.weight_sets import MovingAverage, RawWeights

FIXTURE = Path(__file__).parent / "fixtures" / "format1"
EXPECTED: dict[str, dict[str, dict[str, Any]]] = json.loads((FIXTURE / "expected.json").read_text(encoding="utf-8"))
FLAGS = {"raw": "--no-use-ema", "ema": "--use-ema"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy, with the run's links, to read and to write in."""
    return shutil.copytree(FIXTURE, tmp_path / "format1", symlinks=True)


def evaluated(folder: Path, model: str, weights: str, *options: str) -> dict[str, Any]:
    """What `eval` says of these weights, as `expected.json` has it."""
    ran = succeed("eval", "-m", model, FLAGS[weights], "--json", "-p", "answers.json", *options, cwd=folder)
    assert ran.json["weights"] == weights
    scores = {name: ran.json[name] for name in ("exact_match", "f1", "questions")}
    return {**scores, "predictions": json.loads((folder / "answers.json").read_text(encoding="utf-8"))}


@pytest.mark.parametrize("weights", FLAGS)
@pytest.mark.parametrize(
    ("model", "step"),
    [
        ("run", "step-000060"),
        ("run/best", "step-000060"),
        ("run/last", "step-000080"),
        ("run/checkpoints/step-000060", "step-000060"),
    ],
)
def test_each_checkpoint_answers_as_it_did(folder: Path, model: str, step: str, weights: str) -> None:
    assert evaluated(folder, model, weights) == EXPECTED[step][weights]


def test_the_export_answers_as_the_best_checkpoint_did(folder: Path) -> None:
    shutil.rmtree(folder / "run")
    shutil.rmtree(folder / "prepared")
    assert evaluated(folder, "export", "ema", "--data", "dev.json") == EXPECTED["step-000060"]["ema"]


def test_raw_and_averaged_weights_of_each_step_can_be_told_apart() -> None:
    scores = [expected["f1"] for step in EXPECTED.values() for expected in step.values()]
    assert len(set(scores)) == len(scores) == 4


def test_a_checkpoint_opens_as_one_of_today_would(folder: Path) -> None:
    checkpoint = open_checkpoint(folder / "run" / "last")
    assert checkpoint.weight_sets == {
        "raw": RawWeights(),
        "ema": MovingAverage(decay=0.9, warmup="none", steps=80),
    }
    assert (checkpoint.step, checkpoint.features, checkpoint.state.best_step) == (80, "041bf8fc21810538", 60)
    scores = checkpoint.scores
    assert scores is not None
    assert {name: metrics["f1"] for name, metrics in scores.items()} == {
        name: expected["f1"] for name, expected in EXPECTED["step-000080"].items()
    }


def test_a_resumed_run_continues_where_it_stopped_and_writes_todays_format(folder: Path) -> None:
    """Without its last checkpoint the run makes its last twenty steps again."""
    run, expected = folder / "run", FIXTURE / "run" / "checkpoints" / "step-000080"
    shutil.rmtree(run / "checkpoints" / "step-000080")
    succeed("train", "--resume", run, "--device", "cpu", cwd=folder)
    assert checkpoint_steps(run) == [60, 80]
    assert json.loads((run / "last" / STATE).read_bytes())["format"] == 2
    assert {"raw.safetensors", "ema.safetensors"} == set(os.listdir(run / "last" / "weights"))
    ours, theirs = open_checkpoint(run / "last"), open_checkpoint(expected)
    assert ours.weight_sets == theirs.weight_sets
    # Bit for bit only on the same processor with one thread. A bias within a softmax has no gradient but rounding.
    for name in ("raw", "ema"):
        found, made = ours.weights(name), theirs.weights(name)
        for weight in made.keys() - {f"{part}.bias" for part in ("attention.similarity", "start_scorer", "end_scorer")}:
            torch.testing.assert_close(found[weight], made[weight], rtol=0, atol=1e-2)
    assert evaluated(folder, "run/best", "ema") == EXPECTED["step-000060"]["ema"]

    log = read_run(run)
    assert [evaluation.step for evaluation in log.evaluations] == [20, 40, 60, 80]
    assert [set(evaluation.scores) for evaluation in log.evaluations] == [{"raw", "ema"}] * 4
    assert log.unread == 0
    assert log.best is not None
    assert log.best.step == 60


def test_a_run_resumed_twice_keeps_the_best_of_both_formats(folder: Path) -> None:
    run = folder / "run"
    settings = (
        "--set",
        "training.max_steps=85",
        "--set",
        "training.epochs=30",
        "--set",
        "training.save_every=1",
        "--set",
        "training.keep_best=2",
    )
    succeed("train", "--resume", run, "--device", "cpu", *settings, cwd=folder)
    assert checkpoint_steps(run) == [60, 80, 85]
    assert (run / "best").resolve().name == "step-000060"
    before = {name: to_bytes(open_checkpoint(run / "last").weights(name)) for name in ("raw", "ema")}
    succeed("train", "--resume", run, "--device", "cpu", cwd=folder)
    assert {name: to_bytes(open_checkpoint(run / "last").weights(name)) for name in ("raw", "ema")} == before
    assert len(events(run, "eval")) == 5


def test_a_resumed_copy_leaves_the_old_run_as_it_was(folder: Path) -> None:
    before = {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}
    more = ("--run-dir", folder / "copy", "--set", "training.max_steps=81", "--set", "training.epochs=30")
    succeed("train", "--resume", folder / "run", "--device", "cpu", *more, cwd=folder)
    assert {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()} == before
    assert checkpoint_steps(folder / "copy") == [60, 81]
    for file in (RAW_FILE, EMA_FILE, OPTIMIZER):
        assert (folder / "copy" / "last" / file).is_file()


def test_the_report_of_an_old_run_shows_both_weight_sets(folder: Path) -> None:
    page = Path(succeed("report", "run", cwd=folder).out.strip())
    text = (folder / page).read_text(encoding="utf-8")
    assert "best shadow F1" in text
    assert f"{EXPECTED['step-000060']['ema']['f1']:.1f}" in text


FORGED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "an average of nothing": (lambda state: state.update(ema=None), STATE),
    "no average beside its weights": (lambda state: state.pop("ema"), "unexpected files: shadow.safetensors"),
    "updates of another step": (lambda state: state["ema"].update(steps=3), "ema was updated 3 times"),
    "updates of every other step": (lambda state: state["ema"].update(every=2), "ema.every"),
    "scores without metrics": (lambda state: state.update(scores={"raw": {}}), "training: scores: raw lacks"),
    "no features": (lambda state: state.pop("features"), "features"),
}


@pytest.mark.parametrize("forgery", FORGED)
def test_a_forged_state_is_refused(folder: Path, forgery: str) -> None:
    forge, said = FORGED[forgery]
    checkpoint = folder / "run" / "checkpoints" / "step-000080"
    state = json.loads((checkpoint / STATE).read_bytes())
    forge(state)
    (checkpoint / STATE).write_text(json.dumps(state), encoding="utf-8")
    sign_checkpoint(checkpoint)
    with pytest.raises(DataError, match="step-000080") as caught:
        open_checkpoint(checkpoint)
    assert said in str(caught.value)
