"""Real processes and real signals: Ctrl-C and SIGTERM wherever they come, and what the run is worth afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bidaf.cli import app as cli
from bidaf.errors import DataError
from bidaf.runs.checkpoint import open_checkpoint

ROOT = Path(__file__).parents[1]
SECONDS = 5.0  # from the signal to the end of the process, where it has a processor core to itself
SETTINGS = {
    "train": ["training.log_every=1", "training.save_every=2", "evaluation.every_steps=1000"],
    # Five questions at once, so that scoring all 504 takes its time.
    "evaluation": ["training.log_every=1", "evaluation.every_steps=1", "evaluation.batch_tokens=400"],
}

Reached = Callable[[Path], bool]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with the embedded corpus."""
    (tmp_path / "data").mkdir()
    shutil.copytree(ROOT / "data" / "mini", tmp_path / "data" / "mini")
    return tmp_path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded corpus as features."""
    from bidaf.config_file import load_config
    from bidaf.data.prepare import prepare

    folder = tmp_path_factory.mktemp("features")
    names = {"train": ROOT / "data/mini/train.json", "dev": ROOT / "data/mini/dev.json", "prepared_dir": folder}
    overrides = [f"data.{name}={value}" for name, value in names.items()]
    prepare(load_config(ROOT / "configs/mini.yaml", overrides).data)
    return folder


def bidaf(home: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "bidaf", *arguments],
        cwd=home,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(home: Path, prepared: Path, kind: str) -> subprocess.Popen[str]:
    settings = [f"data.prepared_dir={prepared}", *SETTINGS[kind]]
    overrides = [word for setting in settings for word in ("--set", setting)]
    return bidaf(home, "train", "-c", "mini.yaml", "--run-dir", "run", "--device", "cpu", *overrides)


def wait_for(reached: Reached, home: Path, process: subprocess.Popen[str]) -> None:
    began = time.monotonic()
    while not reached(home):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - began < 120
        time.sleep(0.01)


def end_by(process: subprocess.Popen[str], *numbers: int) -> str:
    """Send the signals; what the process said, and that it ended in time with the code of the last of them."""
    began = time.monotonic()
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.05)  # the kernel would make one of two
    _, said = process.communicate(timeout=60)
    seconds = time.monotonic() - began
    assert process.returncode == 128 + numbers[-1], said
    assert seconds < SECONDS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert "Traceback" not in said
    print(f"{seconds:.2f} s")
    return said


def steps_told(home: Path) -> int:
    try:
        lines = (home / "run" / "metrics.jsonl").read_bytes().splitlines()
        return sum(json.loads(line)["event"] == "train" for line in lines)
    except (FileNotFoundError, json.JSONDecodeError):
        return 0


def training(home: Path) -> bool:
    return steps_told(home) >= 3


def scoring_the_shadow(home: Path) -> bool:
    return bool(list((home / "run").glob("predictions/step-*.raw.json")))


def tokenizing(home: Path) -> bool:
    return bool(list(home.glob("prepared/.*")))


PLACES: dict[str, tuple[str, Reached]] = {
    "in a step": ("train", training),
    "in an evaluation": ("evaluation", scoring_the_shadow),
}


@pytest.mark.parametrize(
    ("place", "number"),
    [
        ("in a step", signal.SIGTERM),
        pytest.param("in a step", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("in an evaluation", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("in an evaluation", signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_where_the_run_is(home: Path, prepared: Path, place: str, number: signal.Signals) -> None:
    kind, reached = PLACES[place]
    process = train(home, prepared, kind)
    wait_for(reached, home, process)
    said = end_by(process, number)
    assert "interrupted and saved; resume with: bidaf train --resume run" in said
    told = steps_told(home)
    assert open_checkpoint(home / "run" / "last").step == told
    if place == "in an evaluation":
        assert told == 1
        assert open_checkpoint(home / "run" / "last").state.evaluated_step == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_preparation_and_leaves_nothing(home: Path, number: signal.Signals) -> None:
    process = bidaf(home, "prepare", "-c", "mini.yaml")
    wait_for(tokenizing, home, process)
    said = end_by(process, number)
    assert said.splitlines()[-1] == f"error: {'terminated' if number == signal.SIGTERM else 'interrupted'}"
    assert list((home / "prepared").iterdir()) == []


def test_a_termination_between_the_commands_own_lines_has_its_code_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the command is found, after it has returned: where nothing catches it."""
    monkeypatch.setattr(cli, "app", lambda **options: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 143


@pytest.mark.slow  # in the suite, within one process: tests/test_training.py
@pytest.mark.parametrize("place", PLACES)
def test_a_second_ctrl_c_quits_at_once_and_the_run_goes_on(home: Path, prepared: Path, place: str) -> None:
    kind, reached = PLACES[place]
    process = train(home, prepared, kind)
    wait_for(reached, home, process)
    end_by(process, signal.SIGINT, signal.SIGINT)
    try:
        assert open_checkpoint(home / "run" / "last").step <= steps_told(home)
    except DataError:
        assert place == "in an evaluation"  # the first one: nothing was saved yet, and the run starts over
