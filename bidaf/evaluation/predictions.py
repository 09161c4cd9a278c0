"""Prediction files: the answers of any system to questions by their ids, in the schemas that evaluators write."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from bidaf.data.documents import Unreadable, read_documents
from bidaf.data.sources import Source
from bidaf.errors import DataError
from bidaf.files.reading import kind_of, quote, show_place

SCHEMAS = '{id: text}, [{"id", "prediction_text"}] or [{"id", "answers": [{"text"}, ...]}]'

ANSWER_KEYS = ("prediction_text", "answers")


def read_predictions(path: Path) -> dict[str, str]:
    """Read `{id: answer}`, records with `prediction_text`, or `bidaf predict --n-best`, in a list or one per line.

    Of several answers the first counts, and no answer at all is the empty text. Raises `DataError` for a file that
    can't be read, an id that stands in it twice and an answer that is no text.
    """
    return check_predictions(_read(path, _text), str(path))


def read_spans(path: Path) -> dict[str, str]:
    """`read_predictions` before a threshold: of the answers in an n-best file the first that is not empty counts.

    Raises `DataError`, too, for a record that lists the empty answer alone.
    """
    return check_predictions(_read(path, _span), str(path))


def check_predictions(predictions: Any, where: str) -> dict[str, str]:
    """Raise `DataError` unless these are `{id: answer text}`."""
    if not isinstance(predictions, Mapping):
        raise DataError(f"{where}: expected {SCHEMAS}, found {kind_of(predictions)}")
    for id, text in predictions.items():
        if not isinstance(text, str):
            raise DataError(f"{where}: the answer to {quote(str(id))} must be text, found {kind_of(text)}")
    return dict(predictions)


def read_probabilities(path: Path, ids: Collection[str]) -> dict[str, float]:
    """The probability of no answer by id, from `{id: probability}`, or from records that `bidaf predict` writes.

    Raises `DataError` for a file that can't be read, and unless each of the ids has a probability, from 0 to 1.
    """
    where, values = str(path), _read(path, lambda record, shown: record.get("no_answer"))
    if not isinstance(values, Mapping):
        raise DataError(f"{where}: expected {{id: probability of no answer}}, found {kind_of(values)}")
    for id in ids:
        value = values.get(id)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            found = "none" if value is None else f"{value!r:.40}"
            raise DataError(f"{where}: expected a probability of no answer for {quote(id)}, found {found}")
    return {id: float(value) for id, value in values.items() if id in ids}


def _read(path: Path, value_of: Callable[[Mapping[str, Any], str], Any]) -> Any:
    """The value of each record by its id; a file without records is returned as it is.

    `value_of` gets a record, and what messages call its answer.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name a file")
    values: dict[str, Any] = {}
    for place, document in read_documents(Source(str(path), path, None, "dev")):
        if not place and not _is_record(document):
            return document
        where = f"{path}: {show_place(place)}" if place else str(path)
        id = _id_of(document, where)
        if id in values:
            raise DataError(f"{where}: {quote(id)} is already answered; keep one of the two")
        values[id] = value_of(document, f"{where}: the answer to {quote(id)}")
    return values


def _is_record(document: Any) -> bool:
    return isinstance(document, Mapping) and "id" in document and any(key in document for key in ANSWER_KEYS)


def _id_of(record: Any, where: str) -> str:
    if isinstance(record, Unreadable):
        raise DataError(f"{where}: {record.reason}")
    id = record.get("id") if isinstance(record, Mapping) else None
    if isinstance(id, int | float) and not isinstance(id, bool):
        id = str(id)
    if not isinstance(id, str):
        raise DataError(f"{where}: expected {SCHEMAS}, found {kind_of(record)} without an id")
    return id


def _text(record: Mapping[str, Any], shown: str) -> str:
    text = record.get("prediction_text")
    if text is None and isinstance(answers := record.get("answers"), list):
        text = answers[0].get("text") if answers and isinstance(answers[0], Mapping) else None if answers else ""
    if not isinstance(text, str):
        raise DataError(f"{shown} must be text, found {kind_of(text)}")
    return text


def _span(record: Mapping[str, Any], shown: str) -> str:
    text, answers = _text(record, shown), record.get("answers")
    if text or not answers:
        return text
    if span := next((each["text"] for each in answers if isinstance(each, Mapping) and each.get("text")), None):
        return _text({"prediction_text": span}, shown)
    raise DataError(f"{shown} is the empty one alone, and the best thresholds need its span; predict with --n-best 2")
