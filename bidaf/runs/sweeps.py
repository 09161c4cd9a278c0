"""The sweeps of a run, one file per step: RUN/sweeps/step-NNNNNN.json. Each score is kept as soon as it is made."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from bidaf.errors import BidafError, DataError, UsageError
from bidaf.evaluation.sweep import Sweep
from bidaf.files.confined import ConfinedFolder
from bidaf.files.reading import read_regular, reading
from bidaf.files.writing import remove_stale
from bidaf.runs.layout import LOCK, SWEEPS


def sweep_path(run: Path, step: int) -> Path:
    """The file of a step's sweep."""
    return run / SWEEPS / f"step-{step:06d}.json"


def read_sweep(path: Path) -> Sweep:
    """Raises `DataError` for a file that is missing, or is not a sweep."""
    with reading(path):
        content = read_regular(path)
    try:
        return Sweep.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        problem = ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
        raise DataError(f"{path} can't be read as a sweep: {problem}; delete it") from None


def newest_sweep(run: Path) -> Sweep | None:
    """The sweep of the latest step in which something was scored; None where there is none.

    Raises `DataError` as `read_sweep` does.
    """
    for path in sorted((run / SWEEPS).glob("step-*.json"), key=lambda path: (len(path.name), path.name), reverse=True):
        if (sweep := read_sweep(path)).sets:
            return sweep
    return None


@contextmanager
def sweeping(run: Path) -> Iterator[None]:
    """Within the block no other process sweeps this run: each would replace the file without the other's scores.

    Raises `UsageError` where one does already, and otherwise as `write_sweep`. The system drops the lock with the
    process; what a killed one left half written is removed.
    """
    files = ConfinedFolder(run)
    with _writing(run / SWEEPS):
        folder = files.make_folder(SWEEPS)
        handle = files.open(f"{SWEEPS}/{LOCK}", os.O_RDWR | os.O_CREAT)
    try:
        with _writing(run / SWEEPS):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(f"another process is sweeping {run}; wait for it or end it") from None
            remove_stale(folder, "step-*.json")
        yield
    finally:
        os.close(handle)


def write_sweep(run: Path, sweep: Sweep) -> None:
    """Replace the file of the sweep's step at once.

    Raises `DataError` where RUN/sweeps is a link, `BidafError` where it can't be written.
    """
    files, path = ConfinedFolder(run), sweep_path(run, sweep.step)
    with _writing(path):
        files.make_folder(SWEEPS)
        files.write_text(str(path.relative_to(run)), sweep.model_dump_json())


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BidafError(f"{path} can't be written: {error.strerror or error}") from None
