"""Snapshots of a run's shadow, written while it trains: RUN/snapshots/step-NNNNNN.safetensors.

Other averages of the run are synthesised from them (bidaf.ema.synthesis). Step 0 holds the initial weights. A thread
writes each file; the checkpoint that follows waits until all are on the disk, and its state lists their checksums.
Nothing newer than the newest checkpoint counts: a resumed run removes it and writes it again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from bidaf.config import SnapshotsConfig
from bidaf.ema.synthesis import is_kept
from bidaf.errors import DataError
from bidaf.files.confined import ConfinedFolder
from bidaf.files.reading import refuse_strange_files, sha256_of
from bidaf.files.writing import remove, sync
from bidaf.runs.layout import SNAPSHOTS

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_NAME = re.compile(r"step-(\d{6,})\.safetensors")
_Count = Annotated[int, Field(ge=0, le=10**15)]


class SnapshotRecord(BaseModel):
    """What a checkpoint knows of a snapshot."""

    model_config = ConfigDict(frozen=True, strict=True)

    step: _Count
    """The run's step after which it was taken."""
    updates: _Count
    """Updates of the average until then: fewer than the steps when some were skipped. They decide its profile."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class CorruptedSnapshot(DataError):
    """A snapshot that is missing, or is not what was written; `name` is that of the file without its ending."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path} {problem}")
        self.name = path.stem


class SnapshotWriter:
    """Takes a run's snapshots, one file at a time."""

    def __init__(self, run: ConfinedFolder, settings: SnapshotsConfig, known: Sequence[SnapshotRecord] = ()) -> None:
        self._run = run
        self._settings = settings
        self._known = {record.step: record for record in known}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="snapshots")
        self._buffer: dict[str, Tensor] = {}  # in pinned memory, if the shadow is on a GPU
        self._copied: torch.cuda.Event | None = None
        self._waiting: Callable[[], SnapshotRecord] | None = None  # what is to be written once the copy is made
        self._writing: Future[SnapshotRecord] | None = None
        self._unflushed: list[Path] = []

    def is_due(self, step: int) -> bool:
        """Whether a snapshot of this step belongs to the run and was not taken yet."""
        return step % self._settings.every == 0 and step not in self._known

    def take(self, step: int, updates: int, shadow: Mapping[str, Tensor]) -> None:
        """Copy the shadow as it is now; a thread writes it, on a GPU after the next `advance`.

        Raises the `OSError` of an earlier snapshot, and `DataError` where the run's folder of snapshots is a link.
        """
        self._finish()  # the buffer holds one snapshot
        path = snapshot_path(self._run.make_folder(SNAPSHOTS), step)
        self._copied = _copy(shadow, self._buffer)

        def write() -> SnapshotRecord:
            return SnapshotRecord(step=step, updates=updates, sha256=_write(path, self._buffer))

        self._waiting = write
        self._unflushed.append(path)
        self.advance()

    def advance(self) -> None:
        """Let the thread write what has been copied by now; call it once per step.

        The thread itself must not wait for the GPU: CUDA forbids that while a step is being recorded as a graph.
        """
        if self._waiting is None:
            return
        if self._copied is None or self._copied.query():  # type: ignore[no-untyped-call]
            self._writing, self._waiting = self._thread.submit(self._waiting), None

    def flush(self, step: int) -> list[SnapshotRecord]:
        """Wait until all snapshots are on the disk; the records of those that are kept at this step, oldest first."""
        self._finish()
        for path in self._unflushed:
            with suppress(FileNotFoundError):  # removed by the user: training does not need its snapshots
                sync(path)
        if self._unflushed:
            self._run.sync(SNAPSHOTS)
        self._unflushed.clear()
        kept = kept_steps(self._known, [step], self._settings)
        self._known = {taken: record for taken, record in sorted(self._known.items()) if taken in kept}
        return list(self._known.values())

    def close(self) -> None:
        """Wait for the thread. What it wrote since the last checkpoint does not count."""
        self._thread.shutdown()

    def _finish(self) -> None:
        if self._waiting is not None and self._copied is not None:
            self._copied.synchronize()
            self.advance()
        if self._writing is not None:
            record, self._writing = self._writing.result(), None
            self._known[record.step] = record


def snapshot_path(folder: Path, step: int) -> Path:
    """The file of a step's snapshot."""
    return folder / f"step-{step:06d}.safetensors"


def read_snapshot(folder: Path, record: SnapshotRecord) -> dict[str, Tensor]:
    """The shadow's tensors by name. Raises `CorruptedSnapshot`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = snapshot_path(folder, record.step)
    try:
        refuse_strange_files(folder, [path.name])
        unchanged = sha256_of(path) == record.sha256
        tensors = load_file(path) if unchanged else {}
    except FileNotFoundError:
        raise CorruptedSnapshot(path, "is missing") from None
    except (OSError, SafetensorError, DataError) as error:
        raise CorruptedSnapshot(path, f"can't be read: {error}") from None
    if not unchanged:
        raise CorruptedSnapshot(path, "is corrupted: it changed since it was written")
    return tensors


def list_snapshots(run: ConfinedFolder) -> list[tuple[int, Path]]:
    """The snapshot files of a run with their steps, oldest first. Raises `DataError` where their folder is a link."""
    paths = run.entries(SNAPSHOTS)
    return sorted((int(match[1]), path) for path in paths if (match := _NAME.fullmatch(path.name)))


def rewind_snapshots(run: ConfinedFolder, step: int | None) -> None:
    """Remove the snapshots that were taken after the checkpoint of this step; all where there is none."""
    for taken, path in list_snapshots(run):
        if step is None or taken > step:
            remove(path)


def thin_snapshots(
    run: ConfinedFolder, settings: SnapshotsConfig, full: Sequence[int], sparse: Sequence[int] = ()
) -> None:
    """Remove the snapshots that no checkpoint needs; call it once the newest of them is complete.

    The checkpoints of the steps `full` need all of theirs (the newest and the best); those of `sparse` half as many.
    """
    newest = max([*full, *sparse], default=-1)
    taken = {step: path for step, path in list_snapshots(run) if step <= newest}
    needed = kept_steps(taken, full, settings) | kept_steps(taken, sparse, sparser(settings))
    for step in taken.keys() - needed:
        remove(taken[step])


def kept_steps(taken: Iterable[int], checkpoint_steps: Sequence[int], settings: SnapshotsConfig) -> set[int]:
    """Those of the snapshots taken that at least one of these checkpoints keeps."""
    every, density = settings.every, settings.density
    return {step for step in taken if any(is_kept(step, now, every=every, density=density) for now in checkpoint_steps)}


def sparser(settings: SnapshotsConfig) -> SnapshotsConfig:
    """How dense the snapshots of a checkpoint stay that is neither the newest nor the best."""
    return SnapshotsConfig(every=settings.every, density=max(1, settings.density // 2))


def expected_records(
    folder: Path, records: Sequence[SnapshotRecord], settings: SnapshotsConfig, step: int
) -> list[SnapshotRecord]:
    """The records of a checkpoint without those that were thinned since it was saved at this step."""
    kept = kept_steps([record.step for record in records], [step], sparser(settings))
    return [record for record in records if record.step in kept or snapshot_path(folder, record.step).is_file()]


def _copy(tensors: Mapping[str, Tensor], buffer: dict[str, Tensor]) -> torch.cuda.Event | None:
    """Copy into the processor's memory. From a GPU the copy is made while training continues, until the event."""
    import torch

    device = next(iter(tensors.values())).device
    on_gpu = device.type == "cuda"
    for name, tensor in tensors.items():
        if name not in buffer:
            buffer[name] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=on_gpu)
        buffer[name].copy_(tensor.detach(), non_blocking=on_gpu)
    if not on_gpu:
        return None
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record(torch.cuda.current_stream(device))
    return copied


def _write(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a new file, never through a link or into one that another run shares; its checksum."""
    from safetensors.torch import save

    content = save(dict(tensors))
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()
