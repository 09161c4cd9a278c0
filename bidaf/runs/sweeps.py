"""The sweeps of a run, one file per step: RUN/sweeps/step-NNNNNN.json. Each score is kept as soon as it is made."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from bidaf.errors import BidafError, DataError
from bidaf.evaluation.sweep import Sweep
from bidaf.files.confined import ConfinedFolder
from bidaf.files.reading import read_regular, reading
from bidaf.runs.layout import SWEEPS


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


def write_sweep(run: Path, sweep: Sweep) -> None:
    """Replace the file of the sweep's step at once.

    Raises `DataError` where RUN/sweeps is a link, `BidafError` where it can't be written.
    """
    files, path = ConfinedFolder(run), sweep_path(run, sweep.step)
    try:
        files.make_folder(SWEEPS)
        files.write_text(str(path.relative_to(run)), sweep.model_dump_json())
    except OSError as error:
        raise BidafError(f"{path} can't be written: {error.strerror or error}") from None
