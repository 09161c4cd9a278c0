"""Pre-trained word vectors in GloVe's text format: found or fetched, then read into one matrix.

A source is a file (`.txt`, `.gz`, `.zip`, or a member of an archive as `glove.6B.zip/glove.6B.100d.txt`), or a name
such as `glove.6B.100d`, which is looked for in the cache folder (`$BIDAF_CACHE`, else `~/.cache/bidaf`) and fetched
from Stanford when it is not there.
"""

from __future__ import annotations

import gzip
import os
import urllib.request
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from itertools import count
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bidaf.bars import bar
from bidaf.data.files import no_such_file, reading, sha256_of
from bidaf.errors import DataError

Matrix = NDArray[np.float32]

_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True)
class Archive:
    """A zip file of Stanford's that holds some of the named vectors."""

    url: str
    words: int
    """Rows of each member at least; fewer mean a truncated file."""
    max_bytes: int


_GLOVE_6B = Archive("https://nlp.stanford.edu/data/glove.6B.zip", 400_000, 1 << 30)
_GLOVE_840B = Archive("https://nlp.stanford.edu/data/glove.840B.300d.zip", 2_000_000, 3 << 30)
NAMED = {f"glove.6B.{dim}d": _GLOVE_6B for dim in (50, 100, 200, 300)} | {"glove.840B.300d": _GLOVE_840B}


@dataclass(frozen=True)
class Vectors:
    """Distinct words and their rows."""

    words: list[str]
    matrix: Matrix
    """`[words, dim]`"""


def read_vectors(source: str) -> Vectors:
    """Read the vectors of a file or of a name, fetching the latter when it is not in the cache folder.

    The first of several rows of one word wins. Raises `DataError` with file and line for a row that is not a word
    and `dim` finite numbers (`dim` is taken from the first row), and for a source that can't be had.
    """
    path = locate_vectors(source) or _download(source)
    words: dict[str, None] = {}
    parts: list[Matrix] = []
    for found, numbers in _parse(path):
        fresh = [index for index, word in enumerate(found) if word not in words and words.setdefault(word) is None]
        parts.append(numbers if len(fresh) == len(found) else numbers[fresh])
    if not words:
        raise DataError(f"{path}: holds no word vectors")
    if source in NAMED and len(words) < NAMED[source].words:
        size = f"holds {len(words):,} words where {source} has {NAMED[source].words:,}"
        raise DataError(f"{path}: is cut short, it {size}; delete it, so that it is fetched again")
    return Vectors(list(words), np.concatenate(parts))


def locate_vectors(source: str) -> Path | None:
    """The file of a source: a path that exists, or a name found in the cache folder. None: a name not there yet.

    A member of an archive is the archive's path with the member's after it. Raises `DataError` for a missing file.
    """
    if source in NAMED:
        folder = cache_folder()
        archive = folder / NAMED[source].url.rpartition("/")[2]
        for path in (folder / f"{source}.txt", folder / f"{source}.txt.gz"):
            if path.is_file():
                return path
        return archive / f"{source}.txt" if archive.is_file() else None
    path = Path(source).expanduser()
    if _archive_of(path) is None and not path.is_file():
        names = ", ".join(NAMED)
        raise DataError(f"{no_such_file(path)} (data.vectors takes a file in GloVe's format, one of {names}, or null)")
    return path


def vectors_identity(source: str) -> dict[str, Any] | None:
    """What tells these vectors from others, for cache keys; None for a name not fetched yet.

    The SHA-256 of a file's bytes; for a member of an archive its size and CRC, which the archive's index holds.
    """
    path = locate_vectors(source)
    if path is None:
        return None
    with _failures(path):
        if path.suffix == ".zip" or _archive_of(path):
            _, info = _member(path)
            return {"crc": info.CRC, "bytes": info.file_size}
        return {"sha256": sha256_of(path)}


def cache_folder() -> Path:
    """Where fetched vectors are kept."""
    return Path(os.environ.get("BIDAF_CACHE") or Path.home() / ".cache" / "bidaf")


def _parse(path: Path) -> Iterator[tuple[list[str], Matrix]]:
    """Words and numbers, some megabytes of lines at a time."""
    dim, first = 0, 1
    with _failures(path), _open(path) as (stream, size), _progress(path.name, size) as bar:
        while lines := stream.readlines(_CHUNK_BYTES):
            if not dim:
                header = lines[0].split()
                if len(header) == 2 and all(field.isdigit() for field in header):
                    # word2vec's text format starts with "count dim".
                    lines, first = lines[1:] or stream.readlines(_CHUNK_BYTES), 2
                dim = lines[0].rstrip().count(b" ") if lines else 0
                if not dim:
                    raise DataError(f"{path}, line {first}: expected a word and its numbers, parted by blanks")
            try:
                yield _parse_lines(lines, dim)
            except ValueError as whole:
                # Only now is it worth while to look at single lines.
                for number, line in zip(count(first), lines):
                    try:
                        _parse_lines([line], dim)
                    except ValueError as error:
                        raise DataError(f"{path}, line {number}: {error}") from None
                raise DataError(f"{path}, lines {first} to {first + len(lines) - 1}: {whole}") from None
            first += len(lines)
            bar.update(sum(map(len, lines)))


def _parse_lines(lines: list[bytes], dim: int) -> tuple[list[str], Matrix]:
    words: list[bytes] = []
    fields: list[bytes] = []
    for line in map(bytes.rstrip, lines):
        blanks = line.count(b" ")
        if blanks == dim:
            cut = line.index(b" ")
        elif blanks > dim:
            # Some words of GloVe 840B hold blanks. One more number than `dim` looks the same but for its last field.
            cut = len(line.rsplit(b" ", dim)[0])
            if _is_number(line[:cut].rpartition(b" ")[2]):
                raise ValueError(f"expected a word and {dim} numbers, found more numbers")
        elif line:
            raise ValueError(f"expected a word and {dim} numbers, found {blanks + 1} fields")
        else:
            continue
        words.append(line[:cut])
        fields.append(line[cut:])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # how NumPy tells of text that is not a number
            matrix = np.fromstring(b"".join(fields), dtype=np.float32, sep=" ")
    except (ValueError, DeprecationWarning):
        raise ValueError("a field is not a number") from None
    if matrix.size != len(words) * dim:
        raise ValueError(f"expected a word and {dim} numbers")
    if not np.isfinite(matrix).all():
        raise ValueError("a number is not finite")
    try:
        return b"\n".join(words).decode().split("\n") if words else [], matrix.reshape(-1, dim)
    except UnicodeDecodeError:
        raise ValueError("the word is not UTF-8 text") from None


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _archive_of(path: Path) -> Path | None:
    return next((parent for parent in path.parents if parent.suffix == ".zip" and parent.is_file()), None)


def _member(path: Path) -> tuple[Path, zipfile.ZipInfo]:
    """The archive and the member that a path means; an archive alone means its only text file."""
    archive = _archive_of(path) or path
    with zipfile.ZipFile(archive) as opened:
        members = [info for info in opened.infolist() if info.filename.endswith(".txt")]
    names = [info.filename for info in members]
    wanted = [path.relative_to(archive).as_posix()] if archive != path else names
    if len(wanted) != 1 or wanted[0] not in names:
        example = f"{archive}/{names[0] if names else 'MEMBER.txt'}"
        raise DataError(f"{archive}: holds {', '.join(names) or 'no text file'}; name one as data.vectors: {example}")
    return archive, members[names.index(wanted[0])]


@contextmanager
def _open(path: Path) -> Iterator[tuple[IO[bytes] | gzip.GzipFile, int | None]]:
    """The unpacked bytes, and how many there are where that is known."""
    if path.suffix == ".zip" or _archive_of(path):
        archive, member = _member(path)
        with zipfile.ZipFile(archive) as opened, opened.open(member) as stream:
            yield stream, member.file_size
    elif path.suffix == ".gz":
        with gzip.open(path) as stream:
            yield stream, None
    else:
        with path.open("rb") as stream:
            yield stream, path.stat().st_size


@contextmanager
def _failures(path: Path) -> Iterator[None]:
    with reading(path):
        try:
            yield
        except (EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile) as error:
            raise DataError(f"{path}: is damaged ({error}); delete it and fetch it again") from None


def _progress(name: str, size: int | None) -> tqdm[None]:
    """A bar in bytes that only a terminal shows."""
    return bar(name, "B", size, unit_scale=True)


def _download(name: str) -> Path:
    """Fetch the archive of named vectors into the cache folder, whole or not at all."""
    archive = NAMED[name]
    target = cache_folder() / archive.url.rpartition("/")[2]
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(archive.url, timeout=30) as answer, partial.open("wb") as file:
            expected = int(answer.headers.get("Content-Length") or 0)
            with _progress(target.name, expected or None) as bar:
                while block := answer.read(1 << 20):
                    bar.update(file.write(block))
                    if file.tell() > archive.max_bytes:
                        raise OSError(f"it is larger than {archive.max_bytes:,} bytes")
            if expected and file.tell() != expected:
                raise OSError("the connection broke off")
        partial.replace(target)
    except (OSError, HTTPException) as error:
        raise DataError(
            f"{name}: could not be fetched ({error}); download {archive.url} elsewhere and put it at {target}, "
            "or name a local file: data.vectors: PATH"
        ) from None
    finally:
        partial.unlink(missing_ok=True)
    return target / f"{name}.txt"
