"""Prediction files: the answers of any system to questions by their ids, in the schemas that evaluators write."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from bidaf.data.documents import Unreadable, read_documents
from bidaf.data.sources import Source
from bidaf.errors import DataError
from bidaf.files.reading import Place, kind_of, quote, read_json, show_place

SCHEMAS = '{id: text}, [{"id", "prediction_text"}] or [{"id", "answers": [{"text"}, ...]}]'

ANSWER_KEYS = ("prediction_text", "answers")


def read_predictions(path: Path) -> dict[str, str]:
    """Read `{id: answer}`, records with `prediction_text`, or `bidaf predict --n-best`, in a list or one per line.

    Of several answers the first counts, and no answer at all is the empty text. Raises `DataError` for a file that
    can't be read, an id that stands in it twice and an answer that is no text.
    """
    where = str(path)
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name a file")
    predictions: dict[str, str] = {}
    for place, document in read_documents(Source(where, path, None, "dev")):
        if not place and not _is_record(document):
            return check_predictions(document, where)
        id, text = _prediction(document, where, place)
        if id in predictions:
            raise DataError(f"{where}: {show_place(place)}: {quote(id)} is already answered; keep one of the two")
        predictions[id] = text
    return predictions


def check_predictions(predictions: Any, where: str) -> dict[str, str]:
    """Raise `DataError` unless these are `{id: answer text}`."""
    if not isinstance(predictions, Mapping):
        raise DataError(f"{where}: expected {SCHEMAS}, found {kind_of(predictions)}")
    for id, text in predictions.items():
        if not isinstance(text, str):
            raise DataError(f"{where}: the answer to {quote(str(id))} must be text, found {kind_of(text)}")
    return dict(predictions)


def read_probabilities(path: Path, ids: Collection[str]) -> dict[str, float]:
    """The probability of no answer by id, from `{id: probability}` or from an n-best file.

    Raises `DataError` unless each of the ids has one, from 0 to 1.
    """
    where, values = str(path), read_json(path)
    if isinstance(values, list):
        records = [each for each in values if isinstance(each, Mapping) and isinstance(each.get("id"), str)]
        values = {each["id"]: each["no_answer"] for each in records if "no_answer" in each}
    if not isinstance(values, Mapping):
        raise DataError(f"{where}: expected {{id: probability of no answer}}, found {kind_of(values)}")
    for id in ids:
        value = values.get(id)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            found = f"{value!r:.40}" if id in values else "none"
            raise DataError(f"{where}: expected a probability of no answer for {quote(id)}, found {found}")
    return {id: float(value) for id, value in values.items() if id in ids}


def _is_record(document: Any) -> bool:
    return (
        isinstance(document, Mapping) and "id" in document and ("prediction_text" in document or "answers" in document)
    )


def _prediction(record: Any, where: str, place: Place) -> tuple[str, str]:
    """The id and the answer of a record."""
    shown = f"{where}: {show_place(place)}"
    if isinstance(record, Unreadable):
        raise DataError(f"{shown}: {record.reason}")
    id = record.get("id") if isinstance(record, Mapping) else None
    if isinstance(id, int | float) and not isinstance(id, bool):
        id = str(id)
    if not isinstance(id, str):
        raise DataError(f"{shown}: expected {SCHEMAS}, found {kind_of(record)} without an id")
    text = record.get("prediction_text")
    if text is None and isinstance(answers := record.get("answers"), list):
        text = answers[0].get("text") if answers and isinstance(answers[0], Mapping) else None if answers else ""
    if not isinstance(text, str):
        raise DataError(f"{shown}: the answer to {quote(id)} must be text, found {kind_of(text)}")
    return id, text
