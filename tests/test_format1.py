"""A run of checkpoint format 1 and its export, written by an older version: they answer as they did when written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers_cli import succeed

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
