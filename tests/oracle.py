"""What a file of questions holds, found out with the standard library alone and without the table of schemas."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """A record with a question in it, whatever the question is."""

    question: Any
    context: Any
    id: Any
    impossible: Any

    @property
    def good(self) -> bool:
        """Whether anybody could answer it and know it by its id."""
        texts = (self.question, self.context)
        id_is_good = self.id is None or (isinstance(self.id, int | str | float) and not isinstance(self.id, bool))
        return (
            all(isinstance(text, str) and text.strip() and _is_whole(text) for text in texts)
            and id_is_good
            and (not isinstance(self.id, str) or _is_whole(self.id))
            and str(self.id) not in ("nan", "inf", "-inf")
            and str(self.impossible).strip().lower() in ("none", "", "true", "false", "0", "1")
        )


def _is_whole(text: str) -> bool:
    return text.encode("utf-8", "replace").decode() == text


def unpack(content: bytes) -> bytes:
    """The content of a packed file; anything else as it is."""
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.read(archive.namelist()[0])
    packings = ((b"\x1f\x8b", gzip.decompress), (b"BZh", bz2.decompress), (b"\xfd7zXZ", lzma.decompress))
    return next((undo(content) for magic, undo in packings if content.startswith(magic)), content)


def asked_in(name: str, content: bytes) -> list[Asked]:
    """All records with a question, in their order; lines that are no JSON are left out."""
    plain, stem = unpack(content), name.split(".")[1]
    if stem == "jsonl":
        values = [_json(line) for line in plain.split(b"\n")]
        return [each for value in values for each in _leaves(value, None)]
    text = plain.decode("utf-8-sig")
    if stem in ("csv", "tsv"):
        columns, *rows = _cells(list(io.StringIO(text, newline="")), "\t" if stem == "tsv" else ",")
        return [each for row in rows for each in _leaves(dict(zip(columns, row, strict=False)), None)]
    lines = [line for line in plain.split(b"\n") if line.strip()]
    values = [_json(line) for line in lines]
    if len(lines) == 1 or not isinstance(values[0], dict):
        values = [json.loads(text)]
    if len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    elif len(values) == 1 and isinstance(values[0], dict) and isinstance(values[0].get("question"), list):
        values = [_row(values[0], number) for number in range(len(values[0]["question"]))]
    return [each for value in values for each in _leaves(value, None)]


def _cells(lines: list[str], separator: str) -> Iterator[list[str]]:
    """The rows of a table; where the quotes of one are wrong, it ends with its line, and is left out if one is open."""
    begin = 0
    while begin < len(lines):
        reader = csv.reader(lines[begin:], delimiter=separator, strict=True)
        try:
            cells, length = next(reader), reader.line_num
        except csv.Error:
            [*found, cells] = csv.reader([*lines[begin : begin + 1], "next"], delimiter=separator)
            cells, length = (found[0] if cells == ["next"] else []), 1
        begin += length
        if cells:
            yield cells


def _json(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _row(columns: dict[str, Any], number: int) -> dict[str, Any]:
    length = len(columns["question"])
    row = {key: value for key, value in columns.items() if not isinstance(value, list)}
    return row | {
        key: value[number] for key, value in columns.items() if isinstance(value, list) and len(value) == length
    }


def _leaves(value: Any, context: Any) -> Iterator[Asked]:
    if not isinstance(value, dict):
        return
    found = [value[key] for key in ("context", "passage", "document", "paragraph") if value.get(key) not in (None, "")]
    context = found[0] if found else context
    if "question" in value:
        ids = [value[key] for key in ("qid", "id") if value.get(key) not in (None, "")]
        yield Asked(value["question"], context, ids[0] if ids else None, value.get("is_impossible"))
        return
    for key in ("data", "paragraphs", "qas", "questions"):
        items = value.get(key)
        for item in items if isinstance(items, list) else ():
            yield from _leaves({"question": item} if key == "questions" and isinstance(item, str) else item, context)


def lost(asked: list[Asked], answered: list[tuple[str, str]], skipped: int) -> str | None:
    """What is wrong with the questions and contexts that were answered, given those that were asked; None if nothing.

    Every good record is answered or was counted as skipped, in order, and nothing is answered that was not asked.
    """
    left = iter(answered)
    current = next(left, None)
    missing = 0
    for each in asked:
        if current is not None and (each.question, each.context) == current:
            current = next(left, None)
        elif each.good:
            missing += 1
    if current is not None:
        return f"answered what was not asked: {current}"
    if missing > skipped:
        return f"{missing} good questions of {len(asked)} are missing, and {skipped} were skipped"
    return None
