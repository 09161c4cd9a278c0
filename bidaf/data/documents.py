"""From a source to its documents, one by one: JSON, JSON lines, CSV, packed or not, and the tables of `datasets`.

What is read of a file of JSON lines or of a table is one document at a time. The standard library alone is imported
here; tables bring their own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bidaf.data.csv_rows import DELIMITERS, read_csv
from bidaf.data.hub import HubName, read_rows
from bidaf.data.sources import HUB_SPLITS, TABLE_SUFFIXES, Source
from bidaf.errors import DataError
from bidaf.files import reading
from bidaf.files.packed import SUFFIXES, unpacked, unpacking
from bidaf.files.reading import Place, decode, parse_json, read_bounded

LINES_SUFFIXES = (".jsonl", ".ndjson")

Documents = Iterator[tuple[Place, Any]]


@dataclass(frozen=True)
class Unreadable:
    """Stands for a document that can't be read."""

    reason: str


def read_documents(source: Source) -> Documents:
    """The documents of a source, each with its place.

    Raises `DataError` for a source that is missing or is nothing that can be read.
    """
    place = source.place
    if isinstance(place, HubName) or os.path.isdir(place) or place.suffix.lower() in TABLE_SUFFIXES:
        rows = read_rows(source.name, place, source.split, HUB_SPLITS[source.use])
        yield from (((f"row {number}",), row) for number, row in enumerate(rows))
        return
    with reading.reading(place), place.open("rb") as stream:
        yield from _of_stream(stream, str(place), _suffix(place))


def read_stdin() -> Documents:
    """The documents of standard input; its content tells the format."""
    where = "standard input"
    if sys.stdin is None:  # closed by the caller: `<&-`
        raise DataError(f"{where}: is closed")
    yield from _of_stream(sys.stdin.buffer, where, "")


def _suffix(path: Path) -> str:
    """The suffix for the content, without the suffix of the compression."""
    name = path.name.lower()
    for packing in SUFFIXES:
        name = name.removesuffix(packing)
    return os.path.splitext(name)[1]


def _of_stream(packed: IO[bytes], where: str, suffix: str) -> Documents:
    with unpacking(where):
        stream = unpacked(packed, where)
        if suffix in DELIMITERS:
            for number, row in enumerate(read_csv(stream, where, DELIMITERS[suffix]), 1):
                yield (f"row {number}",), Unreadable(row) if isinstance(row, str) else row
        elif suffix in LINES_SUFFIXES:
            documents = _json_lines(stream, where, 1)
            if (first := next(documents, None)) is None:
                raise DataError(f"{where}: is empty")
            yield first
            yield from documents
        else:
            yield from _json(stream, where)


def _json(stream: IO[bytes], where: str) -> Documents:
    """JSON, or JSON lines whatever the name: the first line is an object, and it is not the only line."""
    head = b""
    while not head.strip():
        if not (line := stream.readline(reading.MAX_BYTES)):
            raise DataError(f"{where}: is empty")
        head += line
    begin = number = max(1, head.count(b"\n"))
    first = _parsed(head)
    rest = b""
    while first is not None and not rest.strip():
        if not (rest := stream.readline(reading.MAX_BYTES)):
            break
        number += 1
    if first is None or (rest and not isinstance(first, dict)):
        head += rest + read_bounded(stream, where)
        if len(head) > reading.MAX_BYTES:
            raise DataError(f"{where}: holds more than {reading.MAX_BYTES:,} bytes of text; split it")
        yield from _items(parse_json(decode(head, where), where))
    elif not rest:
        yield from _items(first)
    else:
        yield (f"line {begin}",), first
        yield (f"line {number}",), _line(rest, where, number)
        yield from _json_lines(stream, where, number + 1)


def _parsed(line: bytes) -> Any:
    """What a line holds if it is JSON by itself; None if it is not, or can't be used."""
    try:
        return parse_json(decode(line, ""), "")
    except DataError:
        return None


def _json_lines(stream: IO[bytes], where: str, number: int) -> Documents:
    size = 0
    while line := stream.readline(reading.MAX_BYTES):
        size += len(line)
        if size > reading.MAX_BYTES:
            raise DataError(f"{where}: holds more than {reading.MAX_BYTES:,} bytes of text; split it")
        if line.strip():
            yield (f"line {number}",), _line(line, where, number)
        number += 1


def _line(line: bytes, where: str, number: int) -> Any:
    try:
        text = decode(line, where)
    except DataError:
        return Unreadable("is not UTF-8; convert it (iconv -t UTF-8)")
    try:
        return parse_json(text, where, first_line=number)
    except DataError:
        return Unreadable("is not JSON")


def _items(value: Any) -> Documents:
    """A list is its items; columns are the rows they make; anything else is one document."""
    if isinstance(value, list):
        yield from (((number,), item) for number, item in enumerate(value))
    elif isinstance(value, dict) and isinstance(value.get("question"), list):
        length = len(value["question"])
        columns = {key: items for key, items in value.items() if isinstance(items, list) and len(items) == length}
        shared = {key: item for key, item in value.items() if not isinstance(item, list)}
        for number in range(length):
            yield (number,), {**shared, **{key: items[number] for key, items in columns.items()}}
    else:
        yield (), value
