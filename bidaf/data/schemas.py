"""The schemas in which questions come, in one table: the lists that lead from a document to its questions.

A document is a whole JSON file, an item of its list, a line of JSON lines, or a row of a table. The context and the
title of an outer level hold for the questions inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bidaf.files.reading import Place, kind_of


@dataclass(frozen=True)
class Schema:
    """One way to nest questions."""

    name: str
    lists: tuple[str, ...]
    """Keys of the lists on the way from a document to its questions."""
    outline: str
    """For people; answers and ids are left out."""


SCHEMAS = (
    Schema("rows", (), '{"context", "question"}, one per line, per row of a table or per item of a list'),
    Schema("SQuAD", ("data", "paragraphs", "qas"), '{"data": [{"paragraphs": [{"context", "qas": [{"question"}]}]}]}'),
    Schema("SQuAD articles", ("paragraphs", "qas"), '{"paragraphs": [{"context", "qas": [{"question"}]}]}'),
    Schema("MRQA", ("qas",), '{"context", "qas": [{"question"}]}'),
    Schema("rows in data", ("data",), '{"data": [{"context", "question"}]}'),
    Schema("contexts with questions", ("questions",), '{"context", "questions": ["..."]}'),
)

# What is read -> the keys that may hold it; the first one that does counts.
KEYS = {
    "id": ("qid", "id"),
    "question": ("question",),
    "context": ("context", "passage", "document", "paragraph", "contexts", "passages"),
    "title": ("title",),
    "answers": ("answers", "answer"),
    "detected_answers": ("detected_answers",),
    "answer_start": ("answer_start",),
    "is_impossible": ("is_impossible",),
}
INHERITED = ("context", "title")
KNOWN_KEYS = {key for keys in KEYS.values() for key in keys} | {key for schema in SCHEMAS for key in schema.lists}

Fields = dict[str, Any]
"""The names of `KEYS` -> what a record gives for them."""


def find_schema(document: Any) -> Schema | None:
    """The first schema of the table by which a document holds questions, or at least an empty list of them."""
    return next((schema for schema in SCHEMAS if _fits(document, schema.lists)), None)


def _fits(value: Any, lists: tuple[str, ...]) -> bool:
    if not isinstance(value, Mapping):
        return False
    if not lists:
        return "question" in value
    key, *inner = lists
    items = value.get(key)
    if not isinstance(items, list):
        return False
    return not items or any(_fits(_as_object(key, item), tuple(inner)) for item in items)


def walk(document: Any, schema: Schema, place: Place) -> Iterator[tuple[Place, Fields | str]]:
    """Every question of a document with its place; where the way to questions breaks off, the reason instead."""
    return _walk(document, schema.lists, {}, place)


def _walk(value: Any, lists: tuple[str, ...], outer: Fields, place: Place) -> Iterator[tuple[Place, Fields | str]]:
    if not isinstance(value, Mapping):
        yield place, f"expected an object, found {kind_of(value)}"
        return
    fields = {**outer, **{name: found for name in KEYS if (found := _first(value, KEYS[name])) is not None}}
    if not lists:
        yield place, fields
        return
    key, *inner = lists
    items = value.get(key)
    if not isinstance(items, list):
        yield place, f"expected a list of {key}, found {kind_of(items)}"
        return
    inherited = {name: fields[name] for name in INHERITED if name in fields}
    for number, item in enumerate(items):
        yield from _walk(_as_object(key, item), tuple(inner), inherited, (*place, key, number))


def _first(value: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((value[key] for key in keys if value.get(key) not in (None, "")), None)


def _as_object(key: str, item: Any) -> Any:
    """An item of `questions` may be the question alone."""
    return {"question": item} if key == "questions" and isinstance(item, str) else item
