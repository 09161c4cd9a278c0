"""`python scripts/bench`: it measures what it says, on the same input for both, and reports to people and programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bench import __main__ as bench
from bench.inputs import sample, synthetic
from bench.timing import Pairs, PhaseClock, Spread, in_turn
from conftest import CPU
from helpers_cli import write_tiny

from bidaf.data.batches import BatchSource
from bidaf.data.cache import Prepared

SCRIPT = Path(bench.__file__).parent


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    write_tiny(folder)
    return folder


class Bench:
    """The command, run in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """What it printed: the result, or with another exit code the messages."""
        assert bench.main([*arguments, "--config", "tiny.yaml"]) == code
        printed = self._capsys.readouterr()
        return printed.out if code == 0 else printed.err

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))


@pytest.fixture
def run(tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    monkeypatch.chdir(tiny)
    return Bench(capsys)


def test_both_take_turns_on_the_same_inputs_and_warming_up_is_not_counted() -> None:
    seen: list[tuple[str, int]] = []
    pairs = in_turn(
        lambda n: seen.append(("ours", n)), lambda n: seen.append(("baseline", n)), 5, CPU, block=2, warmup=1
    )
    assert len(pairs.ours) == len(pairs.baseline) == 5
    turns = [[0, 0, 1], [2, 2, 3], [4, 4]]  # a first call to warm up, and the inputs of the turn
    expected = [
        (name, number)
        for turn, first in zip(turns, ("ours", "baseline", "ours"), strict=True)
        for name in (first, {"ours": "baseline", "baseline": "ours"}[first])
        for number in turn
    ]
    assert seen == expected


def test_the_ratio_is_that_of_all_and_of_each_pair() -> None:
    pairs = Pairs([1.0, 2.0, 4.0], [3.0, 4.0, 20.0])
    assert pairs.ratio == pytest.approx(27 / 7)
    assert pairs.ratios == Spread(median=3.0, least=2.0, most=5.0)


def test_phases_add_up_to_one() -> None:
    clock = PhaseClock(CPU)
    for name in ("forward", "backward", "forward"):
        with clock.phase(name):
            torch.randn(100, 100) @ torch.randn(100, 100)
    assert set(clock.shares()) == {"forward", "backward"}
    assert sum(clock.shares().values()) == pytest.approx(1.0)


def test_training_is_timed_against_the_baseline(run: Bench) -> None:
    result = run.json("train", "-n", "2", "--device", "cpu")
    assert result["rounds"] == 2
    assert result["questions"] == 12
    for name in ("ours", "baseline"):
        assert 0.0 < result[name]["least"] <= result[name]["median"] <= result[name]["most"]
        assert set(result["phases"][name]) == {"batch", "forward", "backward", "optimizer", "ema"}
        assert result["memory_bytes"][name] > 1_000_000
    assert result["ratios"]["least"] <= result["ratio"] <= result["ratios"]["most"]
    assert result["threads"] == torch.get_num_threads()
    assert "peak memory" in run("train", "-n", "1", "--device", "cpu")


def test_the_growth_of_a_step_is_measured_and_drawn(run: Bench, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "BATCH_SIZES", (1, 3))
    monkeypatch.setattr(bench, "CONTEXT_LENGTHS", (5, 40))
    sweep = ("train", "--sweep", "--device", "cpu")
    result = run.json(*sweep, "--plot", "growth.svg")
    sizes = [(one["batch_size"], one["context_tokens"]) for one in result["sizes"]]
    assert sizes == [(1, 5), (3, 5), (1, 40), (3, 40)]
    assert "<svg" in (tiny / "growth.svg").read_text(encoding="utf-8")
    assert "context tokens" in run(*sweep)
    assert "growth.jpg" in run(*sweep, "--plot", "growth.jpg", code=2)
    assert "--sweep" in run("train", "--plot", "growth.svg", code=2)


@pytest.mark.parametrize("command", ["predict", "ema", "prepare"])
def test_the_others_are_timed_too(run: Bench, command: str) -> None:
    result = run.json(command, "-n", "1")
    assert result["ratio"] == pytest.approx(result["baseline"]["median"] / result["ours"]["median"])
    assert "times as fast" in run(command, "-n", "1")


def test_parity_trains_and_scores_both(run: Bench) -> None:
    outcomes = run.json("parity", "--epochs", "1", "--seeds", "2", "--device", "cpu")
    assert [(one["implementation"], one["seed"]) for one in outcomes] == [
        ("ours", 0),
        ("baseline", 0),
        ("ours", 1),
        ("baseline", 1),
    ]
    assert all(0.0 <= one["ema_f1"] <= 100.0 for one in outcomes)


def test_it_runs_as_a_script_and_an_error_is_one_message(tiny: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    child = subprocess.run(
        [sys.executable, SCRIPT, "train", "-c", "missing.yaml"],
        cwd=tiny,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert child.returncode == 2
    assert child.stderr.startswith("error: ")
    assert "missing.yaml" in child.stderr
    assert child.stdout == ""


def test_a_sample_is_questions_of_the_split_as_they_are(prepared: Prepared) -> None:
    features = prepared.features("dev")
    part = sample(features, 5)
    whole, some = BatchSource(features, CPU), BatchSource(part, CPU)
    numbers = np.array([features.ids.index(id) for id in part.ids])
    for one, other in zip(whole.gather(numbers), some.gather(np.arange(5)), strict=True):
        assert torch.equal(one, other)
    assert len(sample(features, 10_000)) == len(features)


def test_synthetic_texts_have_the_length_asked_for(prepared: Prepared) -> None:
    batch = BatchSource(synthetic(prepared.features("train"), 3, 50), CPU).gather(np.arange(3))
    assert batch.context.shape == (3, 50)
    assert batch.question.shape == (3, 12)
