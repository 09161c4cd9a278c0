"""Questions to predict: SQuAD JSON, a list of questions with contexts, one of them, or JSON lines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter

from bidaf.data.records import NonBlank, Strict, Text, refuse_repeats, validate
from bidaf.data.squad import Example, GoldAnswer, SquadFile
from bidaf.errors import DataError
from bidaf.files.reading import Place, kind_of, parse_json, read_stdin, read_text

QUESTION_SCHEMA = 'expected SQuAD JSON, or {"context": ..., "question": ...} alone, in a list or one per line'


def _number_as_text(value: Any) -> Any:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    is_number = is_number or (isinstance(value, float) and math.isfinite(value))
    return str(value) if is_number else value


def _answers_as_pairs(value: Any) -> Any:
    """Bring answers, in pairs or in the two columns of a data set row, to pairs; null is none."""
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        starts = value.get("answer_start")
        if not isinstance(starts, list) or len(starts) != len(value["text"]):
            starts = [None] * len(value["text"])
        return [{"text": text, "answer_start": start} for text, start in zip(value["text"], starts, strict=True)]
    return [] if value is None else value


class GivenAnswer(Strict):
    """An answer that comes along: prediction never uses its offset, so that may be anything."""

    text: Text
    answer_start: Any = None


class Asked(Strict):
    id: Annotated[NonBlank | None, BeforeValidator(_number_as_text)] = None
    question: NonBlank
    answers: Annotated[list[GivenAnswer], BeforeValidator(_answers_as_pairs)] = []


class AskedOnContext(Asked):
    context: NonBlank
    title: Text | None = None


_SQUAD_FILE = TypeAdapter(SquadFile[Asked])
_ONE = TypeAdapter(AskedOnContext)
_MANY = TypeAdapter(list[AskedOnContext])


def read_questions(path: Path | str | None) -> list[Example]:
    """Read every question of a file, or of standard input for None and `-`; gzip is read too.

    Questions without an id get their position ("0", "1", ...), with `_` appended while another one has that id.
    Answers are kept as given. Raises `DataError`, with the place, for anything that is not a question: none is
    ever skipped.
    """
    if path is None or str(path) == "-":
        where, text = "standard input", read_stdin()
    else:
        where, text = str(path), read_text(Path(path))
    placed = _parse(text, where)
    if not placed:
        raise DataError(f"{where}: holds no question; {QUESTION_SCHEMA}")
    return _with_ids(placed, where)


def as_examples(records: Any) -> list[Example]:
    """Questions that a program holds: `{"id"?, "context", "question"}`, one or several, or a pandas data frame.

    Several are anything that can be iterated over, a data set of the library `datasets` for one. Raises `DataError` for
    anything else, and as `read_questions` does.
    """
    where = "the questions"
    if isinstance(records, Mapping):
        records = [records]
    elif hasattr(records, "iterrows"):
        records = _rows(records)
    if isinstance(records, str | bytes) or not isinstance(records, Iterable):
        raise DataError(f"{where}: found {type(records).__name__}; {QUESTION_SCHEMA}")
    items = validate(_MANY, [dict(row) if isinstance(row, Mapping) else row for row in records], where)
    if not items:
        raise DataError(f"{where}: there is none")
    placed: list[tuple[Place, Example]]
    placed = [((number,), _example(item, item.context, item.title)) for number, item in enumerate(items)]
    return _with_ids(placed, where)


def _rows(frame: Any) -> list[dict[str, Any]]:
    """The rows of a data frame as records of what a question needs; None where pandas has NaN."""
    columns = frame[[name for name in ("id", "context", "question") if name in frame]].astype(object)
    rows: list[dict[str, Any]] = columns.where(columns.notna(), None).to_dict("records")
    return rows


def _parse(text: str, where: str) -> list[tuple[Place, Example]]:
    """Return the questions with their places, in whichever form they stand; a question without id has an empty one."""
    if where.lower().removesuffix(".gz").endswith(".jsonl") or _is_json_lines(text):
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        values = [parse_json(line, where, first_line=number) for number, line in lines]
        names = [f"line {number}" for number, _ in lines]
        items = validate(_MANY, values, where, name_item=names.__getitem__)
        return [((name,), _example(item, item.context, item.title)) for name, item in zip(names, items, strict=True)]
    value = parse_json(text, where)
    if isinstance(value, list):
        items = validate(_MANY, value, where)
        return [((number,), _example(item, item.context, item.title)) for number, item in enumerate(items)]
    if not isinstance(value, dict):
        raise DataError(f"{where}: the top level is {kind_of(value)}; {QUESTION_SCHEMA}")
    if "data" in value and "context" not in value:
        questions = validate(_SQUAD_FILE, value, where).walk()
        return [(place, _example(asked, at.context, article.title)) for place, article, at, asked in questions]
    item = validate(_ONE, value, where)
    return [((), _example(item, item.context, item.title))]


def _is_json_lines(text: str) -> bool:
    """Tell whether the first line is a whole JSON object and another line follows."""
    first, _, rest = text.lstrip().partition("\n")
    if not first.startswith("{") or not rest.strip():
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def _example(asked: Asked, context: str, title: str | None) -> Example:
    answers = tuple(GoldAnswer(given.text, _offset(given.answer_start)) for given in asked.answers)
    return Example(asked.id or "", asked.question, context, answers, title or None)


def _offset(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


def _with_ids(placed: list[tuple[Place, Example]], where: str) -> list[Example]:
    given = {example.id for _, example in placed}
    refuse_repeats(((example.id, place) for place, example in placed if example.id), where)
    examples = []
    for position, (_, example) in enumerate(placed):
        if not example.id:
            id = str(position)
            while id in given:
                id += "_"
            example = replace(example, id=id)
        examples.append(example)
    return examples
