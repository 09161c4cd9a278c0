"""Files as they come from outside: text and JSON read, whatever is wrong with them named by file and place.

The standard library alone is imported here. An error reads `PATH: what is wrong; what to do`.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import gzip
import hashlib
import io
import json
import os
import stat
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import IO, Any

from bidaf.errors import DataError

QUOTED_CHARACTERS = 80
MAX_BYTES = 1 << 30  # SQuAD is 30 MB; parsing takes some ten times the text in memory
_BLOCK_BYTES = 1 << 20
STDIN = "standard input"
MAX_LINE_BYTES = 1 << 20  # of a question on standard input
# How files begin that hold others; a gzipped one is unpacked first.
_ARCHIVES = {
    b"PK\x03\x04": "zip archive",
    b"BZh": "bzip2 file",
    b"\xfd7zXZ\0": "xz file",
    b"(\xb5/\xfd": "zstandard file",
    b"7z\xbc\xaf'\x1c": "7z archive",
    b"Rar!": "rar archive",
}
_TAR = slice(257, 262)  # where a tar archive says "ustar"

Place = tuple[str | int, ...]
"""Keys and positions that lead to a value of a JSON document."""


def read_json(path: Path) -> Any:
    """Read a JSON file (UTF-8, also gzipped), or raise `DataError`."""
    return parse_json(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Read a UTF-8 text file, gunzipped where its content is gzip, or raise `DataError`."""
    with reading(path), path.open("rb") as stream:
        return decode(read_bounded(stream, str(path)), str(path))


def read_stdin() -> str:
    """Read all of standard input as `read_text` reads a file."""
    if sys.stdin is None:  # closed by the caller of a program that uses this as a library
        raise DataError(f"{STDIN}: is closed")
    return decode(read_bounded(sys.stdin.buffer, STDIN), STDIN)


def stdin_lines() -> Iterator[str]:
    """The lines of standard input, each as soon as it is there. Raises `DataError` for one that is too long."""
    for number in count(1):
        line = sys.stdin.buffer.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        where = f"{STDIN}, line {number}"
        if len(line) > MAX_LINE_BYTES:
            raise DataError(f"{where}: is longer than {MAX_LINE_BYTES:,} bytes")
        yield decode(line, where)


def read_bounded(stream: IO[bytes] | gzip.GzipFile, where: str) -> bytearray:
    """Read a stream to its end. Raises `DataError` beyond `MAX_BYTES`: a few kB of gzip can unpack to any size."""
    content = bytearray()
    while block := stream.read(_BLOCK_BYTES):
        content += block
        if len(content) > MAX_BYTES:
            raise DataError(f"{where}: holds more than {MAX_BYTES:,} bytes of text; split it")
    return content


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[IO[bytes]]:
    """Open a regular file. Raises `OSError`, also for a pipe or device: these may have no end."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "no regular file", str(path))
        yield file


def read_regular(path: Path) -> bytes:
    """Read a regular file. Raises `OSError`, also for a pipe or device."""
    with open_regular(path) as file:
        return file.read()


def sha256_of(path: Path) -> str:
    """Hash a file's bytes; an `OSError` is the caller's to name."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def refuse_strange_files(folder: Path, names: Iterable[str]) -> None:
    """Raise `DataError` unless each name is a regular file within `folder`.

    Somebody else's folder could hold a link to a file elsewhere, or a pipe that never ends. `OSError` (a missing file)
    is the caller's to name.
    """
    inside = folder.resolve()
    for name in names:
        path = folder / name
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode) or not path.parent.resolve().is_relative_to(inside):
            kind = "a link" if stat.S_ISLNK(mode) else "no file of this folder" if stat.S_ISREG(mode) else "no file"
            raise DataError(f"{path} is {kind}; put the file itself there")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the system has against reading `path` into a `DataError`."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise no_such_file(path) from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL character
        reason = getattr(error, "strerror", None) or str(error)
        hint = "is a folder; name a file" if os.path.isdir(path) else f"cannot be read: {reason}"
        raise DataError(f"{path}: {hint}") from None


def decode(raw: bytes | bytearray, where: str) -> str:
    """Decode bytes (gzip or plain, with or without a byte order mark) as UTF-8, or raise `DataError`."""
    if raw.startswith(b"\x1f\x8b"):
        try:
            raw = read_bounded(gzip.GzipFile(fileobj=io.BytesIO(raw)), where)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{where}: is cut off or corrupted gzip ({error}); fetch it again") from None
    refuse_archive(raw, where)
    try:
        if b"\0" in raw[:4]:  # JSON never holds a raw NUL: these are UTF-16 or UTF-32 without a mark
            raise ValueError
        return raw.decode("utf-8-sig")
    except ValueError:
        raise DataError(f"{where}: is not UTF-8; convert it (iconv -t UTF-8)") from None


def refuse_archive(beginning: bytes | bytearray, where: str) -> None:
    """Raise `DataError` for what begins as an archive does."""
    kind = next((kind for magic, kind in _ARCHIVES.items() if beginning.startswith(magic)), None)
    if kind is None and beginning[_TAR] == b"ustar":
        kind = "tar archive"
    if kind:
        raise DataError(f"{where}: is a {kind}; unpack it, and name the file that it holds")


def parse_json(text: str, where: str, first_line: int = 1) -> Any:
    """Parse a JSON text that begins at `first_line` of its file.

    Raises `DataError` with line and column where it is not JSON, and for what JSON allows but a file of records
    never means: an object that gives a key twice, endless numbers, nesting beyond Python's stack.
    """
    if not text.strip():
        raise DataError(f"{where}: is empty")
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        place = f"line {first_line + error.lineno - 1}, column {error.colno}"
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        hint = "; it seems cut off" if cut else ""
        raise DataError(f"{where}: is not JSON at {place}: {error.msg}{hint}") from None
    except RecursionError:
        raise DataError(f"{where}: is nested too deeply to be read, from line {first_line} on") from None
    except ValueError as error:  # a key given twice, or a number of thousands of digits
        raise DataError(f"{where}: is not usable JSON, from line {first_line} on: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"one object holds {quote(key)} twice; keep one of the two")
    return members


def no_such_file(path: Path) -> DataError:
    """Say where a missing file was looked for and which name there comes nearest."""
    absolute = path.absolute()
    if not os.path.isdir(absolute.parent):
        return DataError(f"{absolute}: no such file; the folder {absolute.parent} does not exist")
    near: list[str] = []
    with contextlib.suppress(OSError):  # a folder that may be entered but not listed
        near = difflib.get_close_matches(path.name, os.listdir(absolute.parent), n=1)
    return DataError(f"{absolute}: no such file" + (f"; did you mean {near[0]}?" if near else ""))


def show_place(place: Place) -> str:
    """Write a place as a JSON path: `data[3].paragraphs[0].qas[2].question`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")


def kind_of(value: Any) -> str:
    """Name the JSON type of a parsed value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    names: dict[type, str] = {str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")


def quote(text: str) -> str:
    """Make an id or key fit for a terminal: escaped, and cut where somebody's ids are whole documents."""
    return repr(text if len(text) <= QUOTED_CHARACTERS else text[: QUOTED_CHARACTERS - 1] + "…")
