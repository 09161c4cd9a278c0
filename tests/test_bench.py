"""`bidaf bench`: it measures what it says, on the same input for both forms, and says so to people and programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CPU
from helpers_cli import bidaf, fail, succeed, write_tiny

from bidaf.bench.inputs import sample, synthetic
from bidaf.bench.timing import Pairs, PhaseClock, Spread, in_turn
from bidaf.data.batches import BatchSource
from bidaf.data.cache import Prepared


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    write_tiny(folder)
    return folder


def test_forms_take_turns_on_the_same_inputs_and_warming_up_is_not_counted() -> None:
    seen: list[tuple[str, int]] = []
    pairs = in_turn(lambda n: seen.append(("ours", n)), lambda n: seen.append(("plain", n)), 5, CPU, block=2, warmup=1)
    assert len(pairs.ours) == len(pairs.plain) == 5
    turns = [[0, 0, 1], [2, 2, 3], [4, 4]]  # a first call to warm up, and the inputs of the turn
    expected = [
        (form, number)
        for turn, first in zip(turns, ("ours", "plain", "ours"), strict=True)
        for form in (first, {"ours": "plain", "plain": "ours"}[first])
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


def test_training_is_timed_against_the_plain_form(folder: Path) -> None:
    result = succeed("bench", "train", "-c", "tiny.yaml", "-n", "2", "--device", "cpu", "--json", cwd=folder).json
    assert result["rounds"] == 2
    assert result["questions"] == 12
    for form in ("ours", "plain"):
        assert 0.0 < result[form]["least"] <= result[form]["median"] <= result[form]["most"]
        assert set(result["phases"][form]) == {"batch", "forward", "backward", "optimizer", "ema"}
        assert result["memory_bytes"][form] > 1_000_000
    assert result["ratios"]["least"] <= result["ratio"] <= result["ratios"]["most"]
    assert result["threads"] == torch.get_num_threads()


def test_the_growth_of_a_step_is_measured_and_drawn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bidaf.cli.bench.BATCH_SIZES", (1, 3))
    monkeypatch.setattr("bidaf.cli.bench.CONTEXT_LENGTHS", (5, 40))
    arguments = ("bench", "train", "-c", "tiny.yaml", "--sweep", "--device", "cpu")
    result = succeed(*arguments, "--json", "--plot", "growth.svg", cwd=folder).json
    sizes = [(one["batch_size"], one["context_tokens"]) for one in result["sizes"]]
    assert sizes == [(1, 5), (3, 5), (1, 40), (3, 40)]
    assert "<svg" in (folder / "growth.svg").read_text(encoding="utf-8")
    assert "context tokens" in succeed(*arguments, cwd=folder).out
    assert "growth.jpg" in fail(2, *arguments, "--plot", "growth.jpg", cwd=folder)
    assert "--sweep" in fail(2, "bench", "train", "-c", "tiny.yaml", "--plot", "growth.svg", cwd=folder)


@pytest.mark.parametrize("what", ["predict", "ema", "prepare"])
def test_the_others_are_timed_too(folder: Path, what: str) -> None:
    result = succeed("bench", what, "-c", "tiny.yaml", "-n", "1", "--json", cwd=folder).json
    assert result["ratio"] == pytest.approx(result["plain"]["median"] / result["ours"]["median"])
    assert "times as fast" in succeed("bench", what, "-c", "tiny.yaml", "-n", "1", cwd=folder).out


def test_without_the_plain_form_it_says_what_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bidaf.bench.plain.PLAIN", folder / "nowhere.py")
    assert "source checkout" in fail(2, "bench", "ema", "-c", "tiny.yaml", cwd=folder)
    assert bidaf("bench", "train", "-c", "missing.yaml", cwd=folder).code == 2


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
