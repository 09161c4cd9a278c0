"""Averages synthesised from snapshots: as near as predicted, or exactly the file, and never with corrupted parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bidaf.config import SnapshotsConfig
from bidaf.ema.average import ExponentialMovingAverage
from bidaf.ema.synthesis import Target, solve
from bidaf.errors import DataError
from bidaf.files.confined import ConfinedFolder
from bidaf.runs.averages import Average, Source, decays_of, sources_of, synthesize
from bidaf.runs.snapshots import (
    CorruptedSnapshot,
    SnapshotRecord,
    SnapshotWriter,
    kept_steps,
    read_snapshot,
    snapshot_path,
)

UPDATES = 400
SETTINGS = SnapshotsConfig(every=10, density=4)


class Walk(NamedTuple):
    """Weights that walked at random, with a shadow (decay 0.98, ramp) and its snapshots."""

    history: NDArray[np.float64]
    folder: Path
    records: list[SnapshotRecord]
    shadow: dict[str, Tensor]
    raw: dict[str, Tensor]

    def exact(self, name: str) -> Tensor:
        """The average of all weights, computed from each of them."""
        return torch.from_numpy(Target.parse(name).profile(DECAYS) @ self.history).float()

    def sources(self) -> list[Source]:
        def reader(record: SnapshotRecord) -> Callable[[], dict[str, Tensor]]:
            return lambda: read_snapshot(self.folder, record)

        snapshots = [(f"step-{r.step:06d}", r.updates, reader(r)) for r in self.records]
        return sources_of(DECAYS, snapshots, lambda: self.shadow, lambda: self.raw)

    def synthesize(self, *names: str, max_error: float = 0.05) -> tuple[list[Average], list[str]]:
        return synthesize([Target.parse(name) for name in names], self.sources(), DECAYS, max_error=max_error)


DECAYS = decays_of(0.98, "ramp", UPDATES)


@pytest.fixture
def walk(tmp_path: Path) -> Walk:
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(500, 1, bias=False)
    ema = ExponentialMovingAverage(model, decay=0.98, warmup="ramp")
    writer = SnapshotWriter(ConfinedFolder(tmp_path), SETTINGS)
    history = []
    for step in range(UPDATES + 1):
        if step:
            with torch.no_grad():
                model.weight += torch.randn(model.weight.shape, generator=generator)
            ema.update()
        history.append(model.weight.detach().numpy().copy()[0].astype(np.float64))
        if writer.is_due(step):
            writer.take(step, ema.steps, ema.shadow)
    records = writer.flush(UPDATES)
    writer.close()
    assert {record.step for record in records} == kept_steps(range(0, UPDATES + 1, 10), [UPDATES], SETTINGS)
    return Walk(
        np.stack(history),
        tmp_path / "snapshots",
        records,
        {name: tensor.clone() for name, tensor in ema.shadow.items()},
        {"weight": model.weight.detach().clone()},
    )


TARGETS = ["decay:0.95", "decay:0.99", "half-life:100", "half-life:100:debias", "sigma:0.1", "tail:25%", "tail:300"]


def test_a_synthesised_average_is_as_near_as_predicted(walk: Walk) -> None:
    averages, left_out = walk.synthesize(*TARGETS, max_error=1.0)
    assert left_out == []
    for average, name in zip(averages, TARGETS, strict=True):
        assert average.tensors is not None
        exact = walk.exact(name)
        gap = (exact - walk.raw["weight"][0]).norm()
        measured = float((average.tensors["weight"][0] - exact).norm() / gap)
        assert measured == pytest.approx(average.predicted_error, rel=0.35, abs=1e-4), name
        assert sum(average.coefficients.values()) == pytest.approx(1.0, abs=1e-9)
    assert any(average.predicted_error > 1e-3 for average in averages)


def test_the_runs_own_average_and_raw_weights_are_those_very_numbers(walk: Walk) -> None:
    averages, _ = walk.synthesize("ema", "raw", "decay:0", "tail:1")
    for average, tensors in zip(averages, (walk.shadow, walk.raw, walk.raw, walk.raw), strict=True):
        assert average.tensors is not None
        assert torch.equal(average.tensors["weight"], tensors["weight"])
        assert average.predicted_error == 0.0
        assert list(average.coefficients.values()) == [1.0]


def test_several_at_once_are_each_what_it_is_alone_bit_for_bit(walk: Walk) -> None:
    together, _ = walk.synthesize(*TARGETS, max_error=1.0)
    for average, name in zip(together, TARGETS, strict=True):
        ((alone,), _) = walk.synthesize(name, max_error=1.0)
        assert alone.coefficients == average.coefficients
        assert alone.tensors is not None
        assert average.tensors is not None
        assert torch.equal(alone.tensors["weight"], average.tensors["weight"])


def test_above_the_limit_nothing_is_computed(walk: Walk) -> None:
    (wide, narrow), _ = walk.synthesize("half-life:100", "decay:0.5")
    assert wide.tensors is not None
    assert narrow.tensors is None
    assert narrow.predicted_error > 0.05


def test_the_share_of_the_initial_weights_is_reported(walk: Walk) -> None:
    (average, debiased), _ = walk.synthesize("decay:0.998", "decay:0.998:debias")
    assert average.initial_share == pytest.approx(0.998**UPDATES)
    assert debiased.initial_share == 0.0


@pytest.mark.parametrize("corruption", ["flipped", "missing", "cut", "link"])
def test_a_corrupted_snapshot_is_named_and_left_out(walk: Walk, corruption: str) -> None:
    ((before,), _) = walk.synthesize("half-life:100")
    victim = walk.records[len(walk.records) // 2]
    path = snapshot_path(walk.folder, victim.step)
    content = bytearray(path.read_bytes())
    path.unlink()
    if corruption == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif corruption == "cut":
        path.write_bytes(content[:-1])
    elif corruption == "link":
        (walk.folder / "elsewhere").write_bytes(content)
        path.symlink_to("elsewhere")
    ((average,), left_out) = walk.synthesize("half-life:100")
    (problem,) = left_out
    assert str(path) in problem
    assert path.stem in before.coefficients
    assert path.stem not in average.coefficients
    assert average.predicted_error > before.predicted_error
    assert average.tensors is not None
    exact = walk.exact("half-life:100")
    measured = float((average.tensors["weight"][0] - exact).norm() / (exact - walk.raw["weight"][0]).norm())
    assert measured == pytest.approx(average.predicted_error, rel=0.35)


def test_without_snapshots_only_what_the_checkpoint_holds_is_exact(walk: Walk) -> None:
    for path in walk.folder.iterdir():
        path.unlink()
    with mock.patch("bidaf.runs.averages.solve", wraps=solve) as fits:
        (raw, ema, other), left_out = walk.synthesize("raw", "ema", "half-life:100", max_error=1.0)
    assert raw.predicted_error == ema.predicted_error == 0.0
    assert other.predicted_error > 0.05
    assert len(left_out) == len(walk.records)
    assert fits.call_count == 2  # with them and without: a fit for each missing one would take minutes


@pytest.mark.parametrize("tensors", [{"weight": torch.zeros(1, 499)}, {"other": torch.zeros(1, 500)}, {}])
def test_a_snapshot_of_another_model_is_refused(walk: Walk, tensors: dict[str, Tensor]) -> None:
    sources = walk.sources()
    sources[3] = sources[3]._replace(read=lambda: tensors)
    with pytest.raises(DataError, match=f"{sources[3].name} do not fit the raw weights: weight is"):
        synthesize([Target.parse("half-life:100")], sources, DECAYS, max_error=1.0)


def test_every_flipped_bit_of_a_snapshot_is_found(walk: Walk) -> None:
    record = walk.records[1]
    path = snapshot_path(walk.folder, record.step)
    content = path.read_bytes()
    random = np.random.default_rng(0)
    for position in random.integers(len(content), size=50):
        corrupted = bytearray(content)
        corrupted[position] ^= 1 << int(random.integers(8))
        path.write_bytes(corrupted)
        with pytest.raises(CorruptedSnapshot, match="corrupted"):
            read_snapshot(walk.folder, record)
    path.write_bytes(content)
    read_snapshot(walk.folder, record)
