"""`--deterministic`: the same metrics.jsonl, byte for byte, every time."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import EMA_FILE, RAW_FILE
from helpers_cli import bidaf, fail, succeed, write_tiny

from bidaf.device import set_deterministic
from bidaf.runs.folder import MEASURED
from bidaf.training.step import TrainingStep

TRAIN = ("train", "-c", "tiny.yaml", "--device", "cpu", "--deterministic", "--set", "training.log_every=1")


@pytest.fixture(autouse=True)
def _process_as_before(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    yield
    set_deterministic(False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one deterministic run."""
    folder = tmp_path_factory.mktemp("deterministic")
    write_tiny(folder)
    succeed(*TRAIN, "--run-dir", "one", cwd=folder)
    return folder


def metrics(run: Path) -> bytes:
    return (run / "metrics.jsonl").read_bytes()


def test_metrics_are_the_same_bytes_when_a_run_is_made_again(home: Path) -> None:
    succeed(*TRAIN, "--run-dir", "two", cwd=home)
    assert metrics(home / "two") == metrics(home / "one")
    for file in (RAW_FILE, EMA_FILE):
        assert (home / "two" / "last" / file).read_bytes() == (home / "one" / "last" / file).read_bytes()


def test_metrics_are_the_same_bytes_when_a_run_is_stopped_and_resumed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = TrainingStep.run

    def interrupted(self: TrainingStep, *arguments: Any) -> Any:
        if arguments[3] == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingStep, "run", interrupted)
        assert bidaf(*TRAIN, "--run-dir", "stopped", cwd=home).code == 143
    succeed("train", "--resume", "stopped", cwd=home)
    assert metrics(home / "stopped") == metrics(home / "one")
    # Its numbers are another run's than those of one without: the flag stays as it was.
    assert "training.deterministic: True -> False" in fail(
        2, "train", "--resume", "stopped", "--set", "training.deterministic=false", cwd=home
    )


def test_what_is_measured_is_left_empty_and_nothing_else(home: Path) -> None:
    lines = [json.loads(line) for line in metrics(home / "one").splitlines()]
    empty = {key for line in lines for key, value in line.items() if value is None}
    assert empty == MEASURED
    succeed(*TRAIN[:-3], "--run-dir", "plain", *TRAIN[-2:], cwd=home)
    plain = [json.loads(line) for line in metrics(home / "plain").splitlines()]
    assert all(line[key] > 0 for line in plain for key in MEASURED & line.keys())
    ran = [[line for line in run if line["event"] != "start"] for run in (lines, plain)]  # a start tells the settings
    without = [[{k: v for k, v in line.items() if k not in MEASURED} for line in run] for run in ran]
    assert without[0] == without[1]


def test_the_process_is_set_up_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for asked in (True, False):
        set_deterministic(asked)
        assert torch.are_deterministic_algorithms_enabled() == asked
        assert torch.backends.cudnn.deterministic == asked
        assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
