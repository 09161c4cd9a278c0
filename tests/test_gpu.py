"""What only a GPU can show; skipped without one. On one: `python -m pytest tests/test_gpu.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import Configure

from bidaf.config import SnapshotsConfig
from bidaf.data.cache import Prepared
from bidaf.ema.average import trained_weights
from bidaf.files.confined import ConfinedFolder
from bidaf.runs.layout import SNAPSHOTS
from bidaf.runs.snapshots import SnapshotWriter, read_snapshot
from bidaf.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CUDA = torch.device("cuda")


def run(trainer: Trainer, steps: int, *, recorded: bool) -> list[list[float]]:
    """Loss and gradient norm of each step."""
    results = []
    for step in range(steps):
        if not recorded and trainer.step._recorded is not None:
            trainer.step._recorded._met.clear()  # every shape is new: written out each time
        results.append(trainer.step.run(trainer.train_source, *trainer.order.batch(step), step + 1))
    return [result.figures.tolist() for result in results]


@pytest.mark.parametrize("optimizer", ["adam", "adadelta"])
def test_replayed_steps_are_the_steps_as_written(configure: Configure, prepared: Prepared, optimizer: str) -> None:
    config = configure(training={"optimizer": {"name": optimizer}, "clip_norm": 1.0})
    ours, theirs = (Trainer(config, prepared, CUDA) for _ in range(2))
    torch.testing.assert_close(run(ours, 12, recorded=True), run(theirs, 12, recorded=False), rtol=1e-4, atol=1e-5)
    assert ours.step._recorded is not None
    assert ours.step._recorded._graphs
    weights = dict(trained_weights(theirs.model))
    for name, weight in trained_weights(ours.model):
        torch.testing.assert_close(weight, weights[name], rtol=1e-3, atol=1e-4)
    assert ours.ema is not None
    assert ours.ema.steps == 12


def test_a_step_never_waits_for_the_device(configure: Configure, prepared: Prepared) -> None:
    trainer = Trainer(configure(), prepared, CUDA)
    run(trainer, 12, recorded=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = [trainer.step.run(trainer.train_source, *trainer.order.batch(n), n + 1) for n in range(12, 18)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(result.updated for result in results)


def test_a_snapshot_is_copied_while_training_continues(
    configure: Configure, prepared: Prepared, tmp_path: Path
) -> None:
    trainer = Trainer(configure(), prepared, CUDA)
    assert trainer.ema is not None
    run(trainer, 12, recorded=True)
    writer = SnapshotWriter(ConfinedFolder(tmp_path), SnapshotsConfig(every=1))
    writer.take(11, 11, trainer.ema.shadow)  # allocates the buffer, which waits
    writer.flush(11)
    expected = {name: tensor.cpu() for name, tensor in trainer.ema.shadow.items()}
    torch.cuda.set_sync_debug_mode("error")
    try:
        writer.take(12, 12, trainer.ema.shadow)
        for step in range(12, 18):
            writer.advance()
            trainer.step.run(trainer.train_source, *trainer.order.batch(step), step + 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    record = writer.flush(12)[-1]
    writer.close()
    found = read_snapshot(tmp_path / SNAPSHOTS, record)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_the_gpu_computes_what_the_cpu_does(configure: Configure, prepared: Prepared) -> None:
    config = configure(model={"dropout": 0.0})
    cpu, gpu = (Trainer(config, prepared, device) for device in (torch.device("cpu"), CUDA))
    for step in range(6):
        one, other = (t.step.run(t.train_source, *t.order.batch(step), step + 1) for t in (cpu, gpu))
        assert other.loss == pytest.approx(one.loss, rel=1e-3)
