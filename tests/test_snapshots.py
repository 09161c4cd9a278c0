"""Snapshots: which are kept, that they are what the shadow was, and that no crash changes a bit of them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CPU, Configure, checkpoint_steps
from safetensors.torch import load_file
from torch import Tensor

from bidaf.config import Config, SnapshotsConfig
from bidaf.ema.average import ExponentialMovingAverage
from bidaf.ema.synthesis import is_kept
from bidaf.errors import BidafError, DataError
from bidaf.files.confined import ConfinedFolder
from bidaf.runs import snapshots
from bidaf.runs.checkpoint import open_checkpoint
from bidaf.runs.snapshots import (
    SnapshotRecord,
    SnapshotWriter,
    expected_records,
    kept_steps,
    list_snapshots,
    rewind_snapshots,
    snapshot_path,
    sparser,
    thin_snapshots,
)
from bidaf.runs.state import TrainingState
from bidaf.training.launch import resume_run, start_run

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from compare_runs import differences  # noqa: E402

EVERY_STEP = SnapshotsConfig(every=1, density=2)


def ones(value: float) -> dict[str, Tensor]:
    return {"b": torch.full((3,), value), "a": torch.full((2, 2), value)}


def steps_in(run: Path) -> list[int]:
    return [step for step, _ in list_snapshots(ConfinedFolder(run))]


# ---- the writer


def test_a_snapshot_is_the_shadow_as_it_was_when_it_was_taken(tmp_path: Path) -> None:
    writer = SnapshotWriter(ConfinedFolder(tmp_path), EVERY_STEP)
    shadow = ones(0.0)
    for step in range(4):
        assert writer.is_due(step)
        writer.take(step, 10 * step, shadow)
        for tensor in shadow.values():
            tensor += 1.0
    records = writer.flush(3)
    writer.close()
    assert [(record.step, record.updates) for record in records] == [(0, 0), (1, 10), (2, 20), (3, 30)]
    for record in records:
        path = snapshot_path(tmp_path / "snapshots", record.step)
        found = load_file(path)
        assert found.keys() == shadow.keys()
        assert all(torch.equal(tensor, ones(float(record.step))[name]) for name, tensor in found.items())
        assert record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_taking_a_snapshot_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.open

    def slow(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.suffix == ".safetensors" and "b" in arguments[0]:
            time.sleep(0.3)
        return original(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", slow)
    writer = SnapshotWriter(ConfinedFolder(tmp_path), EVERY_STEP)
    began = time.perf_counter()
    writer.take(0, 0, ones(0.0))
    assert time.perf_counter() - began < 0.2
    assert [record.step for record in writer.flush(0)] == [0]
    writer.close()


def test_the_write_waits_until_a_gpu_has_made_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an event that stands for CUDA's: nothing is written before it has happened."""

    class Event:
        happened = False

        def query(self) -> bool:
            return self.happened

        def synchronize(self) -> None:
            self.happened = True

    copy, events = snapshots._copy, [Event(), Event()]
    remaining = iter(events)

    def copying(*arguments: Any) -> Any:
        copy(*arguments)
        return next(remaining)

    monkeypatch.setattr(snapshots, "_copy", copying)
    writer = SnapshotWriter(ConfinedFolder(tmp_path), EVERY_STEP)
    writer.take(0, 0, ones(0.0))
    writer.advance()
    assert steps_in(tmp_path) == []
    events[0].happened = True
    writer.advance()
    writer.take(1, 1, ones(1.0))
    assert steps_in(tmp_path) == [0]
    assert [record.step for record in writer.flush(1)] == [0, 1]
    assert events[1].happened
    writer.close()


def test_a_failure_to_write_comes_up_at_the_checkpoint(tmp_path: Path) -> None:
    snapshot_path(tmp_path / "snapshots", 0).mkdir(parents=True)
    writer = SnapshotWriter(ConfinedFolder(tmp_path), EVERY_STEP)
    writer.take(0, 0, ones(0.0))
    with pytest.raises(OSError, match="directory"):
        writer.flush(0)
    writer.close()


def test_a_folder_of_snapshots_that_is_a_link_is_neither_written_nor_thinned(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    snapshot_path(elsewhere, 3).write_text("another's")
    (tmp_path / "snapshots").symlink_to(elsewhere)
    writer = SnapshotWriter(ConfinedFolder(tmp_path), EVERY_STEP)
    with pytest.raises(DataError, match="is a link"):
        writer.take(0, 0, ones(0.0))
    with pytest.raises(DataError, match="is a link"):
        rewind_snapshots(ConfinedFolder(tmp_path), 0)
    with pytest.raises(DataError, match="is a link"):
        thin_snapshots(ConfinedFolder(tmp_path), EVERY_STEP, [9])
    writer.close()
    assert [path.name for path in elsewhere.iterdir()] == ["step-000003.safetensors"]


def test_a_snapshot_replaces_a_link_and_leaves_a_shared_file_alone(tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    shared, linked = tmp_path / "shared", tmp_path / "linked"
    for path in (shared, linked):
        path.write_text("another's")
    os.link(shared, snapshot_path(tmp_path / "snapshots", 0))
    snapshot_path(tmp_path / "snapshots", 1).symlink_to(linked)
    writer = SnapshotWriter(ConfinedFolder(tmp_path), EVERY_STEP)
    for step in range(2):
        writer.take(step, step, ones(0.0))
    writer.flush(1)
    writer.close()
    assert shared.read_text() == linked.read_text() == "another's"
    assert load_file(snapshot_path(tmp_path / "snapshots", 1))["b"].shape == (3,)


# ---- which are kept


@pytest.mark.parametrize("density", [1, 2, 3, 8])
@pytest.mark.parametrize("every", [1, 3])
def test_what_is_kept_was_kept_at_every_earlier_step(every: int, density: int) -> None:
    """So thinning at every checkpoint, at some or only at the last leaves the same snapshots."""
    settings = SnapshotsConfig(every=every, density=density)
    taken = range(0, 300, every)
    left = set(taken)
    for now in range(0, 300, 7):
        kept = kept_steps(taken, [now], settings)
        assert {step for step in left if step <= now} >= kept
        left -= {step for step in left if step <= now} - kept
        assert {0, max(step for step in taken if step <= now)} <= kept
    assert {step for step in left if step <= now} == kept


def test_the_number_kept_grows_with_the_logarithm_of_the_run() -> None:
    counts = [sum(is_kept(step, now, every=50, density=8) for step in range(0, now + 1, 50)) for now in (17_500, 10**6)]
    assert counts[0] == 51
    assert counts[1] < 120


@pytest.mark.parametrize("steps", [8_992, 13_500, 17_500, 20_000])
def test_a_run_on_squad_keeps_few_files_wherever_its_best_checkpoint_is(steps: int) -> None:
    """With a checkpoint at each epoch, of which the last three and the best are kept."""
    settings, taken, epochs = SnapshotsConfig(), range(0, steps + 1, 50), range(1_460, steps, 1_460)
    assert len(kept_steps(taken, [steps], settings)) <= 55
    older = kept_steps(taken, epochs[-2:], sparser(settings))
    assert max(len(older | kept_steps(taken, [best, steps], settings)) for best in epochs) <= 110


def test_a_checkpoint_keeps_its_own_snapshots(tmp_path: Path) -> None:
    settings, run = SnapshotsConfig(every=1, density=2), ConfinedFolder(tmp_path)
    (tmp_path / "snapshots").mkdir()
    for step in range(40):
        snapshot_path(tmp_path / "snapshots", step).write_text("")

    def of(step: int, density: int) -> set[int]:
        return kept_steps(range(step + 1), [step], SnapshotsConfig(every=1, density=density))

    newer = set(range(31, 40))
    thin_snapshots(run, settings, [9, 30], [20])
    assert set(steps_in(tmp_path)) == of(9, 2) | of(30, 2) | of(20, 1) | newer
    assert not of(20, 2) <= of(9, 2) | of(30, 2) | of(20, 1)
    thin_snapshots(run, settings, [30])
    assert set(steps_in(tmp_path)) == of(30, 2) | newer
    thin_snapshots(run, settings, [])
    assert newer <= set(steps_in(tmp_path))


def test_snapshots_that_were_thinned_are_not_expected(tmp_path: Path) -> None:
    settings = SnapshotsConfig(every=1, density=4)
    taken = sorted(kept_steps(range(41), [40], settings))
    records = [SnapshotRecord(step=step, updates=step, sha256="a" * 64) for step in taken]
    sparse = kept_steps(taken, [40], SnapshotsConfig(every=1, density=2))
    (extra,) = sorted(set(taken) - sparse)[:1]
    snapshot_path(tmp_path, extra).write_text("")
    expected = expected_records(tmp_path, records, settings, 40)
    assert {record.step for record in expected} == {*sparse, extra}


# ---- in a run

pytestmark = pytest.mark.usefixtures("prepared")


def start(config: Config, folder: Path) -> TrainingState:
    return start_run(config, folder, CPU, lambda message: None)


def resume(source: Path, **options: Any) -> tuple[TrainingState, str]:
    said: list[str] = []
    return resume_run(source, CPU, said.append, **options), "\n".join(said)


def with_snapshots(configure: Configure, **training: Any) -> Config:
    ema = {"decay": 0.9, "snapshots": {"every": 2, "density": 1}}
    return configure(ema=ema, training={"save_every": 3, "keep_last": 2, **training})


@pytest.fixture(scope="module")
def whole(configure: Configure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve steps that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    start(with_snapshots(configure), folder)
    return folder


def needed(run: Path) -> set[int]:
    """The snapshots that the checkpoints of a run list."""
    return {
        record["step"]
        for path in (run / "checkpoints").iterdir()
        for record in json.loads((path / "state.json").read_bytes())["training"]["snapshots"]
    }


def test_the_snapshots_of_a_run_are_its_shadows(configure: Configure, whole: Path) -> None:
    run = whole
    kept = set(steps_in(run))
    settings = SnapshotsConfig(every=2, density=1)
    assert kept == needed(run) == kept_steps(range(0, 13, 2), checkpoint_steps(run), settings)  # half of 1 is 1
    assert 0 in kept
    assert 12 in kept
    assert len(kept) < 7
    for record in open_checkpoint(run / "last").state.snapshots:
        path = snapshot_path(run / "snapshots", record.step)
        assert record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert record.updates == record.step
    shadow = load_file(run / "last" / "weights" / "ema.safetensors")
    newest = load_file(snapshot_path(run / "snapshots", 12))
    assert all(torch.equal(newest[name], tensor) for name, tensor in shadow.items())
    initial = load_file(snapshot_path(run / "snapshots", 0))
    assert not any(torch.equal(initial[name], tensor) for name, tensor in shadow.items() if tensor.numel() > 8)


def test_snapshots_change_no_number_of_a_run(configure: Configure, tmp_path: Path, whole: Path) -> None:
    config = with_snapshots(configure)
    without = config.model_copy(update={"ema": config.ema.model_copy(update={"snapshots": None})})
    start(without, tmp_path / "run")
    assert not (tmp_path / "run" / "snapshots").exists()
    for name in ("weights/raw", "weights/ema", "optimizer"):
        file = f"last/{name}.safetensors"
        assert (tmp_path / "run" / file).read_bytes() == (whole / file).read_bytes()


def test_a_run_stopped_between_two_checkpoints_takes_its_snapshots_again(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    folder = tmp_path / "run"
    update = ExponentialMovingAverage.update

    def killed_at_11(ema: ExponentialMovingAverage) -> None:
        if ema.steps == 10:
            raise MemoryError
        update(ema)

    with monkeypatch.context() as patch:
        patch.setattr(ExponentialMovingAverage, "update", killed_at_11)
        with pytest.raises(MemoryError):
            start(with_snapshots(configure), folder)
    assert checkpoint_steps(folder)[-1] == 9
    assert 10 in steps_in(folder)
    snapshot_path(folder / "snapshots", 10).write_text("half")
    resume(folder)
    assert differences(folder, whole) == []


def test_what_a_crash_left_to_thin_is_thinned_on_resume(tmp_path: Path, whole: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder, symlinks=True)
    for step in (2, 14):
        assert step not in steps_in(folder)
        snapshot_path(folder / "snapshots", step).write_text("left over")
    resume(folder)
    assert differences(folder, whole) == []


def test_a_run_continues_without_snapshots_that_were_deleted(configure: Configure, tmp_path: Path, whole: Path) -> None:
    folder = tmp_path / "run"
    start(with_snapshots(configure, max_steps=6), folder)
    shutil.rmtree(folder / "snapshots")
    resume(folder, config=with_snapshots(configure, max_steps=12))
    assert {8, 10, 12} <= set(steps_in(folder))
    assert 0 not in steps_in(folder)
    assert open_checkpoint(folder / "last").state.snapshots[0].step == 0


def test_skipped_steps_are_no_updates(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = sys.modules["bidaf.training.step"].span_loss
    calls = iter(range(1, 100))
    monkeypatch.setattr(
        "bidaf.training.step.span_loss", lambda *a: loss(*a) * (float("nan") if next(calls) in (3, 4) else 1.0)
    )
    start(with_snapshots(configure, nonfinite="skip"), tmp_path / "run")
    records = open_checkpoint(tmp_path / "run" / "last").state.snapshots
    assert {record.step: record.updates for record in records if record.step in (0, 12)} == {0: 0, 12: 10}


def test_a_copied_run_shares_its_snapshots_and_changes_none_of_the_other(configure: Configure, tmp_path: Path) -> None:
    one, copy = tmp_path / "one", tmp_path / "copy"
    start(with_snapshots(configure), one)
    before = {path: path.read_bytes() for path in (one / "snapshots").iterdir()}
    shutil.rmtree(one / "checkpoints" / "step-000012")
    resume(one, folder=copy)
    assert {path: path.read_bytes() for path in (one / "snapshots").iterdir()} == before
    first = snapshot_path(copy / "snapshots", 0)
    assert first.samefile(snapshot_path(one / "snapshots", 0))
    assert not snapshot_path(copy / "snapshots", 12).samefile(snapshot_path(one / "snapshots", 12))


def test_a_run_that_began_without_snapshots_stays_without(configure: Configure, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    start(configure(ema={"snapshots": None}, training={"max_steps": 6}), folder)
    said = resume(folder, config=with_snapshots(configure, max_steps=12).model_copy(update={"ema": configure().ema}))[1]
    assert "keeps no snapshots" in said
    assert not (folder / "snapshots").exists()
    assert resume(folder)[0].step == 12


def test_a_snapshot_that_can_not_be_written_ends_the_run(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bidaf.runs.snapshots._write", full)
    with pytest.raises(BidafError, match=r"can't be written.*No space left"):
        start(with_snapshots(configure), tmp_path / "run")


@pytest.mark.parametrize("wrong", [{"step": -1}, {"updates": 1.5}, {"sha256": "../x"}, {"sha256": "A" * 64}])
def test_a_forged_record_is_refused(wrong: dict[str, Any]) -> None:
    valid = {"step": 0, "updates": 0, "sha256": "a" * 64}
    SnapshotRecord.model_validate(valid)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SnapshotRecord.model_validate(valid | wrong)
