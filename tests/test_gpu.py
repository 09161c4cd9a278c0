"""What only a GPU can show; skipped without one. On one: `python -m pytest tests/test_gpu.py`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CPU, Configure, without_score_biases

from bidaf.config import SnapshotsConfig
from bidaf.data.cache import Prepared
from bidaf.ema.average import trained_weights
from bidaf.files.confined import ConfinedFolder
from bidaf.runs.layout import SNAPSHOTS
from bidaf.runs.snapshots import SnapshotWriter, read_snapshot
from bidaf.training.step import TrainingStep
from bidaf.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
CUDA = torch.device("cuda", 0)


def run(trainer: Trainer, steps: range, step: TrainingStep | None = None) -> list[list[float]]:
    """Loss and gradient norm of each step."""
    step = step or trainer.step
    results = [step.run(trainer.train_source, *trainer.order.batch(n), n + 1) for n in steps]
    return [result.figures.tolist() for result in results]


@contextmanager
def no_waits() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("settings", [{}, {"accumulate": 3}, {"optimizer": {"name": "adadelta"}}], ids=str)
def test_replayed_steps_are_the_steps_as_written(
    configure: Configure, prepared: Prepared, settings: dict[str, Any]
) -> None:
    config = configure(training={"clip_norm": 1.0, **settings})
    ours, theirs = (Trainer(config, prepared, CUDA) for _ in range(2))
    written_out = TrainingStep(
        theirs.model,
        theirs.optimizer,
        theirs.ema,
        config.training,
        theirs.precision,
        phase=lambda name: nullcontext(),
    )
    figures = run(ours, range(12)), run(theirs, range(12), written_out)
    torch.testing.assert_close(*map(torch.tensor, figures), rtol=1e-4, atol=1e-5)
    weights = [without_score_biases(dict(trained_weights(trainer.model))) for trainer in (ours, theirs)]
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)
    assert ours.ema is not None
    assert ours.ema.steps == 12


def test_a_replayed_step_never_waits_for_the_device(configure: Configure, prepared: Prepared) -> None:
    trainer = Trainer(configure(), prepared, CUDA)
    run(trainer, range(12))
    with no_waits():
        for n in range(12, 18):
            trainer.step.run(trainer.train_source, *trainer.order.batch(n), n + 1)


def test_a_written_out_step_never_waits_either(configure: Configure, prepared: Prepared) -> None:
    trainer = Trainer(configure(training={"clip_norm": 1.0}), prepared, CUDA)
    step = TrainingStep(
        trainer.model,
        trainer.optimizer,
        trainer.ema,
        trainer.config.training,
        trainer.precision,
        phase=lambda name: nullcontext(),
    )
    run(trainer, range(2), step)
    with no_waits():
        step.run(trainer.train_source, *trainer.order.batch(2), 3)


def test_a_snapshot_is_copied_while_training_continues(
    configure: Configure, prepared: Prepared, tmp_path: Path
) -> None:
    trainer = Trainer(configure(), prepared, CUDA)
    assert trainer.ema is not None
    run(trainer, range(12))
    writer = SnapshotWriter(ConfinedFolder(tmp_path), SnapshotsConfig(every=1))
    writer.take(11, 11, trainer.ema.shadow)  # allocates the buffer, which waits
    writer.flush(11)
    expected = {name: tensor.cpu() for name, tensor in trainer.ema.shadow.items()}
    with no_waits():
        writer.take(12, 12, trainer.ema.shadow)
        for step in range(12, 18):
            writer.advance()
            trainer.step.run(trainer.train_source, *trainer.order.batch(step), step + 1)
    record = writer.flush(12)[-1]
    writer.close()
    found = read_snapshot(tmp_path / SNAPSHOTS, record)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_the_gpu_computes_what_the_cpu_does(configure: Configure, prepared: Prepared) -> None:
    config = configure(model={"dropout": 0.0})
    cpu, gpu = (Trainer(config, prepared, device) for device in (CPU, CUDA))
    for one, other in zip(run(cpu, range(6)), run(gpu, range(6)), strict=True):
        assert other == pytest.approx(one, rel=1e-3)


def test_in_bf16_lstms_run_in_fp32(configure: Configure, prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    lstm, types = torch.lstm, set()

    def noting(*given: Any) -> Any:
        result = lstm(*given)
        types.add(result[0].dtype)
        return result

    monkeypatch.setattr(torch, "lstm", noting)
    trainer = Trainer(configure(training={"precision": "bf16"}), prepared, CUDA)
    losses = [loss for loss, _ in run(trainer, range(6))]
    assert types == {torch.float32}
    assert all(loss == loss for loss in losses)
