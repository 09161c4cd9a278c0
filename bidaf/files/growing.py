"""A file of lines that is written for hours, and that another process continues when this one is killed.

Until it is complete it is called `NAME.partial`. Next to it, `NAME.partial.json` says what the lines are made from and
how many of them are safe on the disk.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from bidaf.errors import BidafError, DataError, UsageError
from bidaf.files.writing import sync, write_text


class _Progress(BaseModel):
    """The sidecar."""

    model_config = ConfigDict(extra="forbid", strict=True)

    origin: dict[str, Any]
    lines: NonNegativeInt = 0
    size: NonNegativeInt = 0
    """Bytes of these lines."""


class GrowingFile:
    """Lines that are appended in pieces; make one with `growing_file`."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        self._name = path
        self.path = Path(os.path.realpath(path))
        if self.path.exists() and not self.path.is_file():
            raise UsageError(f"{path} is no regular file; JSON lines are written to one")
        self.partial = self.path.with_name(f"{self.path.name}.partial")
        self._sidecar = self.path.with_name(f"{self.path.name}.partial.json")
        left = self._read_sidecar() if self.partial.exists() else None
        if left is None and self.partial.exists() and self.partial.stat().st_size:
            raise UsageError(f"{self.partial} has the name that unfinished answers get; rename or delete it")
        if left is not None and left.lines and not resume:
            raise UsageError(
                f"{self.partial} holds {left.lines:,} answers of a prediction that was stopped: continue it with "
                "--resume, or delete the file to start over"
            )
        self._progress = left or _Progress(origin={})
        with self._writing():
            self._file = _lock(self.partial)

    @property
    def num_lines(self) -> int:
        """Lines that are safe on the disk."""
        return self._progress.lines

    def begin(self, origin: Mapping[str, Any]) -> None:
        """Say what the lines are made from. Raises `UsageError` where those there already were made from other things,
        `DataError` where some of them are gone.
        """
        left = self._progress
        changed = [name for name, value in origin.items() if left.lines and left.origin.get(name) != value]
        if changed:
            raise UsageError(
                f"{self.partial} was made with other {' and '.join(changed)}: repeat the command that it was made "
                "with, or delete the file to start over"
            )
        if self._file.seek(0, os.SEEK_END) < left.size:
            raise DataError(f"{self.partial} has lost its end; delete it to start over")
        with self._writing():
            self._file.truncate(left.size)  # the rest was being written when the process was killed
            self._save(left.lines, left.size, origin)

    def append(self, content: bytes, lines: int) -> None:
        """Add whole lines; they are on the disk when this returns."""
        with self._writing():
            self._file.write(content)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._save(self.num_lines + lines, self._progress.size + len(content), self._progress.origin)

    def complete(self) -> None:
        """Give the file its name; a file that has it is replaced, its mode is kept."""
        with self._writing():
            with suppress(FileNotFoundError):
                os.fchmod(self._file.fileno(), stat.S_IMODE(self.path.stat().st_mode))
            self.partial.replace(self.path)
            self._sidecar.unlink()
            sync(self.path.parent)

    def close(self) -> None:
        """Leave the file as it is, for another process to continue, and nothing of one without lines."""
        if not self.num_lines:
            self.partial.unlink(missing_ok=True)
            self._sidecar.unlink(missing_ok=True)
        self._file.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BidafError(f"{self._name} can't be written: {error.strerror or error}") from None

    def _save(self, lines: int, size: int, origin: Mapping[str, Any]) -> None:
        self._progress = _Progress(origin=dict(origin), lines=lines, size=size)
        write_text(self._sidecar, self._progress.model_dump_json(indent=2) + "\n")

    def _read_sidecar(self) -> _Progress | None:
        try:
            return _Progress.model_validate_json(self._sidecar.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            raise DataError(f"{self._sidecar} is corrupted; delete it and {self.partial} to start over") from None


def _lock(path: Path) -> IO[bytes]:
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UsageError(f"{path} is being written by another process") from None
    except OSError:
        pass  # a file system without locks
    return file


@contextmanager
def growing_file(path: Path, *, resume: bool) -> Iterator[GrowingFile]:
    """A file to be begun, appended to and completed; what is there of an earlier process is continued with `resume`.

    Raises `UsageError` for lines that would be lost without `resume`, and where another process is writing them;
    `BidafError` for what the system refuses.
    """
    file = GrowingFile(path, resume=resume)
    try:
        yield file
    finally:
        file.close()
