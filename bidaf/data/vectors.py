"""Pre-trained word vectors in GloVe's text format: found or fetched, then read into one matrix.

A source is a file (`.txt`, `.gz`, `.zip`, or a member of an archive as `glove.6B.zip/glove.6B.100d.txt`), or a name
such as `glove.6B.100d`, which is looked for in the cache folder (`$BIDAF_CACHE`, else `~/.cache/bidaf`) and fetched
from Stanford when it is not there.
"""

from __future__ import annotations

import hashlib
import os
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPException
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidaf.errors import DataError
from bidaf.files.archives import archive_of, member_of, open_unpacked, unpacking
from bidaf.files.reading import no_such_file, sha256_of
from bidaf.files.writing import claim_folder
from bidaf.progress import Bar, bar

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Archive:
    """A zip file of Stanford's that holds some of the named vectors."""

    url: str
    sha256: str
    """Of the archive as published; anything else is refused."""
    words: int
    """Least number of rows of each member; fewer mean a truncated file."""
    max_bytes: int


_GLOVE_6B = Archive(
    "https://nlp.stanford.edu/data/glove.6B.zip",
    "617afb2fe6cbd085c235baf7a465b96f4112bd7f7ccb2b2cbd649fed9cbcf2fb",
    words=400_000,
    max_bytes=1 << 30,
)
_GLOVE_840B = Archive(
    "https://nlp.stanford.edu/data/glove.840B.300d.zip",
    "c06db255e65095393609f19a4cfca20bf3a71e20cc53e892aafa490347e3849f",
    words=2_000_000,
    max_bytes=3 << 30,
)
NAMED = {f"glove.6B.{dim}d": _GLOVE_6B for dim in (50, 100, 200, 300)} | {"glove.840B.300d": _GLOVE_840B}


@dataclass(frozen=True)
class Vectors:
    """Distinct words and their rows."""

    words: list[str]
    matrix: Matrix
    """`[words, dim]`"""


@dataclass(frozen=True)
class VectorSource:
    """A source that was located, and fetched where it had to be. Make one with `find_vectors`."""

    name: str
    """As the config gives it."""
    path: Path
    """A file, or an archive's path with its member's after it."""

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What tells these vectors from others, for cache keys. Raises `DataError` for a file that can't be read.

        The SHA-256 of a file's bytes; for a member of an archive its size and CRC, which the archive's index holds.
        """
        with unpacking(self.path):
            if self.path.suffix == ".zip" or archive_of(self.path):
                _, info = member_of(self.path)
                return {"crc": info.CRC, "bytes": info.file_size}
            return {"sha256": sha256_of(self.path)}


def find_vectors(name: str, *, fetch: bool = True) -> VectorSource:
    """Locate a file, or a name of `NAMED`, which is fetched when it is not in the cache folder.

    Raises `DataError` when there is none, or it would have to be fetched and `fetch` is false.
    """
    path = _locate(name)
    if path is None and not fetch:
        raise DataError(f"{name}: is not in {cache_folder()}")
    return VectorSource(name, path or _download(name))


def read_vectors(source: VectorSource) -> Vectors:
    """Read all words and their vectors; the first of several rows of one word wins.

    Raises `DataError` with file and line for a row that is not a word and `dim` finite numbers (`dim` is taken from
    the first row).
    """
    path, name = source.path, source.name
    words: dict[str, None] = {}
    parts: list[Matrix] = []
    for found, numbers in _parse(path):
        fresh = [index for index, word in enumerate(found) if word not in words and words.setdefault(word) is None]
        parts.append(numbers if len(fresh) == len(found) else numbers[fresh])
    if not words:
        raise DataError(f"{path}: holds no word vectors")
    if name in NAMED and len(words) < NAMED[name].words:
        size = f"holds {len(words):,} words where {name} has {NAMED[name].words:,}"
        raise DataError(f"{path}: is cut short, it {size}; delete it, so that it is fetched again")
    return Vectors(list(words), np.concatenate(parts))


def _locate(name: str) -> Path | None:
    """A path that exists, or that of a name found in the cache folder. None: a name that is not there yet."""
    if name in NAMED:
        folder = cache_folder()
        archive = folder / NAMED[name].url.rpartition("/")[2]
        for path in (folder / f"{name}.txt", folder / f"{name}.txt.gz"):
            if path.is_file():
                return path
        return archive / f"{name}.txt" if archive.is_file() else None
    path = Path(os.path.expanduser(name))  # unlike Path's, it keeps the name of an unknown user
    if archive_of(path) is None and not os.path.isfile(path):  # where Path.is_file() raises for a name too long
        names = ", ".join(NAMED)
        raise DataError(f"{no_such_file(path)} (data.vectors takes a file in GloVe's format, one of {names}, or null)")
    return path


def cache_folder() -> Path:
    """Where fetched vectors are kept. Raises `DataError` for a user without a home folder."""
    folder = Path(os.environ.get("BIDAF_CACHE") or os.path.expanduser("~/.cache/bidaf"))
    if folder.parts[:1] == ("~",):
        raise DataError("this user has no home folder; name one for fetched vectors with BIDAF_CACHE=FOLDER")
    return folder


def _parse(path: Path) -> Iterator[tuple[list[str], Matrix]]:
    """Words and numbers, some megabytes of lines at a time."""
    dim, first, rows = 0, 1, 0
    header: tuple[int, int] | None = None
    with unpacking(path), open_unpacked(path) as unpacked, _progress(path.name, unpacked.size) as bar:
        for lines in unpacked.lines():
            bar.update(sum(map(len, lines)))
            if first == 1:
                lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
                if header := _header(lines[0]):
                    lines, first = lines[1:], 2
            if not lines:
                continue
            if not dim:
                dim = lines[0].rstrip().count(b" ")
                if not dim:
                    raise DataError(f"{path}, line {first}: expected a word and its numbers, separated by blanks")
            try:
                words, numbers = _parse_lines(lines, dim)
            except ValueError as whole:
                # Single lines are checked only after an error: it takes long.
                for number, line in zip(count(first), lines):
                    try:
                        _parse_lines([line], dim)
                    except ValueError as error:
                        raise DataError(f"{path}, line {number}: {error}") from None
                raise DataError(f"{path}, lines {first} to {first + len(lines) - 1}: {whole}") from None
            first += len(lines)
            rows += len(words)
            yield words, numbers
    if header and header != (rows, dim):
        said = f"its first line says {header[0]:,} words of {header[1]:,} numbers"
        raise DataError(f"{path}: {said}, and it holds {rows:,} of {dim:,}; fetch it again, or correct that line")


def _header(line: bytes) -> tuple[int, int] | None:
    """Number of words, and of numbers per word, from the first line of word2vec's text format."""
    fields = line.split()
    if len(fields) == 2 and all(field.isdigit() and len(field) < 4_000 for field in fields):
        return int(fields[0]), int(fields[1])
    return None


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
            warnings.simplefilter("error", DeprecationWarning)  # NumPy's warning about text that is not a number
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


def _progress(name: str, size: int | None) -> Bar:
    """A bar in bytes that only a terminal shows."""
    return bar(name, "B", size, unit_scale=True)


def _download(name: str) -> Path:
    """Fetch the archive of named vectors into the cache folder, whole or not at all."""
    archive = NAMED[name]
    target = cache_folder() / archive.url.rpartition("/")[2]
    try:
        with claim_folder(target) as unfinished:
            _fetch(archive, unfinished / target.name)
            (unfinished / target.name).replace(target)
    except (OSError, HTTPException) as error:
        raise DataError(
            f"{name}: could not be fetched ({error}); download {archive.url} elsewhere and put it at {target}, "
            "or name a local file: data.vectors: PATH"
        ) from None
    return target / f"{name}.txt"


def _fetch(archive: Archive, path: Path) -> None:
    """Write the published archive to `path`. Raises `OSError` or `HTTPException` where that is not what comes."""
    with urllib.request.urlopen(archive.url, timeout=30) as answer, path.open("wb") as file:
        expected = int(answer.headers.get("Content-Length") or 0)
        digest = hashlib.sha256()
        with _progress(path.name, expected or None) as shown:
            while block := answer.read(1 << 20):
                digest.update(block)
                shown.update(file.write(block))
                if file.tell() > archive.max_bytes:
                    raise OSError(f"it is larger than {archive.max_bytes:,} bytes")
        if expected and file.tell() != expected:
            raise OSError("the connection broke off")
    if digest.hexdigest() != archive.sha256:
        raise OSError("what came is not the published archive: its SHA-256 is another")
