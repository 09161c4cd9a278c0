"""Lines of a text file that may be packed (gzip, or a member of a zip), bounded whatever the archive says.

Nothing is ever unpacked to the disk, so that no name in an archive can lead anywhere.
"""

from __future__ import annotations

import gzip
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bidaf.errors import DataError
from bidaf.files import packed
from bidaf.files.reading import reading, refuse_archive

CHUNK_BYTES = 1 << 24
LINE_BYTES = 1 << 22  # a word and 300 numbers take some 3 kB
MAX_RATIO, SPARE_BYTES = 50, 1 << 28  # text of numbers packs to a third or a tenth, not to a fiftieth
LISTED_MEMBERS = 10
_PEEKED = 512  # bytes that tell an archive


@dataclass(frozen=True)
class Unpacked:
    """An open file's bytes as they are once unpacked."""

    path: Path
    stream: IO[bytes] | gzip.GzipFile
    packed: int | None
    """Bytes it is packed in; None where it is not packed."""
    size: int | None
    """Bytes unpacked, where that is known."""

    def lines(self) -> Iterator[list[bytes]]:
        """Whole lines without their ends, some megabytes at a time.

        Raises `DataError` for endless lines, and where far more comes out than text of numbers can be packed in.
        """
        rest, seen = b"", 0
        while block := self.stream.read(CHUNK_BYTES):
            seen += len(block)
            if self.packed is not None and seen > max(SPARE_BYTES, MAX_RATIO * self.packed):
                raise DataError(
                    f"{self.path}: unpacks to more than {MAX_RATIO} times its size; if that is meant, unpack it and "
                    "name the text file"
                )
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            if len(rest) > LINE_BYTES:
                raise DataError(f"{self.path}: has a line of more than {LINE_BYTES:,} bytes; is it a text file?")
            if lines:
                yield lines
        if rest:
            yield [rest]


@contextmanager
def open_unpacked(path: Path) -> Iterator[Unpacked]:
    """Open a file, a gzip file, or a member of a zip file (its path is the archive's with the member's behind it)."""
    if path.suffix == ".zip" or archive_of(path):
        archive, member = member_of(path)
        with zipfile.ZipFile(archive) as opened, opened.open(member) as stream:
            yield Unpacked(path, stream, member.compress_size, member.file_size)
    elif path.suffix == ".gz":
        with gzip.open(path) as stream:
            refuse_archive(stream.peek(_PEEKED), str(path))
            yield Unpacked(path, stream, path.stat().st_size, None)
    else:
        with path.open("rb") as stream:
            refuse_archive(stream.peek(_PEEKED), str(path))
            yield Unpacked(path, stream, None, path.stat().st_size)


@contextmanager
def unpacking(path: Path) -> Iterator[None]:
    """Turn whatever is wrong with the file or its packing into a `DataError`."""
    with reading(path), packed.unpacking(str(path)):
        yield


def archive_of(path: Path) -> Path | None:
    """The zip file that a path leads into, if any."""
    return next((parent for parent in path.parents if parent.suffix == ".zip" and os.path.isfile(parent)), None)


def member_of(path: Path) -> tuple[Path, zipfile.ZipInfo]:
    """The archive and the member that a path means; an archive alone means its only text file."""
    archive = archive_of(path) or path
    with zipfile.ZipFile(archive) as opened:
        members = [info for info in opened.infolist() if info.filename.endswith(".txt")]
    names = [info.filename for info in members]
    wanted = [path.relative_to(archive).as_posix()] if archive != path else names
    if len(wanted) != 1 or wanted[0] not in names:
        shown = ", ".join(names[:LISTED_MEMBERS]) + (", ..." if len(names) > LISTED_MEMBERS else "")
        example = f"{archive}/{names[0] if names else 'MEMBER.txt'}"
        raise DataError(f"{archive}: holds {shown or 'no text file'}; name one as data.vectors: {example}")
    return archive, members[names.index(wanted[0])]
