"""A record's fields checked and made an `Example`, or the reason why it can't be used.

Only what nobody could use is refused: no question, no context, an id that is no text. Answers are taken in every shape
that data sets have; what is wrong with them matters to those who score or train, and not to those who ask.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from bidaf.data.schemas import Fields
from bidaf.data.squad import Example, GoldAnswer
from bidaf.files.reading import kind_of

SEVERAL = "has several contexts, which only predict and score take"
NOT_GIVEN = -1  # the offset of an answer that comes without one
HALF_CHARACTER = "holds half of a surrogate pair (such as \\ud800), which is no character"


class Needs(NamedTuple):
    """What a command asks of a question."""

    answers: bool = False
    """It has an answer, or is said to have none."""
    passages: bool = False
    """It may have several contexts."""


ANY_QUESTION = Needs(passages=True)


def make_example(fields: Fields, needs: Needs = ANY_QUESTION) -> Example | str:
    """An example, with an empty id where none is given; or what is wrong, as in `question is empty`."""
    given: Any = fields.get("context")
    contexts: list[Any] = given or [None] if isinstance(given, list) else [given]
    for name, texts in (("question", [fields.get("question")]), ("context", contexts)):
        if problem := next(filter(None, map(_text_problem, texts)), None):
            return f"{name} {problem}"
    if len(contexts) > 1 and not needs.passages:
        return SEVERAL
    id, title, impossible = fields.get("id", ""), fields.get("title"), _flag(fields.get("is_impossible"))
    if (isinstance(id, int) and not isinstance(id, bool)) or (isinstance(id, float) and math.isfinite(id)):
        id = str(id)
    if not isinstance(id, str):
        return f"id is {kind_of(id)}, not text"
    if not _encodable(id):
        return f"id {HALF_CHARACTER}"
    if impossible is None:
        return f"is_impossible is {kind_of(fields['is_impossible'])}, not true or false"
    # An empty list of answers means that the question has no answer; missing or unusable answers mean nothing.
    impossible = impossible or (_is_empty(fields.get("answers")) and "detected_answers" not in fields)
    answers = () if impossible else tuple(_answers(fields))
    if needs.answers and not answers and not impossible:
        return "no usable answer is given"
    return Example(
        id if id.strip() else "",
        fields["question"],
        contexts[0],
        answers,
        title if isinstance(title, str) and _encodable(title) else None,
        impossible,
        tuple(contexts[1:]),
    )


@lru_cache(maxsize=64)  # questions come one after another on one context
def _problem_of(text: str) -> str | None:
    if not text.strip():
        return "is empty"
    return None if _encodable(text) else HALF_CHARACTER


def _text_problem(value: Any) -> str | None:
    if value is None:
        return "is missing or empty"
    return _problem_of(value) if isinstance(value, str) else f"is {kind_of(value)}, not text"


def _encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _flag(value: Any) -> bool | None:
    """A truth value in the shapes that files have; None for anything else."""
    if value is None or isinstance(value, bool):
        return bool(value)
    text = str(value).strip().lower().removesuffix(".0")  # a column of them that has gaps holds 1.0 and 0.0
    return {"true": True, "1": True, "false": False, "0": False}.get(text)


def _is_empty(answers: Any) -> bool:
    return answers == [] or (isinstance(answers, Mapping) and answers.get("text") == [])


def _answers(fields: Fields) -> Iterator[GoldAnswer]:
    """MRQA's detected answers have places; its other answers, as all others, come behind them."""
    detected = [*_each(fields.get("detected_answers"), None)]
    yield from detected
    texts = {answer.text for answer in detected}
    for answer in _each(fields.get("answers"), fields.get("answer_start")):
        if not detected or answer.text not in texts:
            yield answer


def _each(value: Any, start: Any) -> Iterator[GoldAnswer]:
    """The answers that a value holds: a text, an object of text and offset, one of two lists, or a list of these."""
    if isinstance(value, str):
        yield GoldAnswer(value, _offset(start))
    elif isinstance(value, list):
        starts = start if isinstance(start, list) and len(start) == len(value) else [None] * len(value)
        for item, place in zip(value, starts, strict=True):
            yield from _each(item, place)
    elif isinstance(value, Mapping):
        texts, offsets = value.get("text"), value.get("answer_start")
        if isinstance(texts, str):
            yield from _each(texts, offsets if offsets is not None else _first_span(value.get("char_spans")))
        elif isinstance(texts, list):
            yield from _each(texts, offsets)


def _first_span(spans: Any) -> Any:
    """MRQA lists all places of an answer, `[[first, last], ...]`."""
    try:
        return spans[0][0]
    except (TypeError, LookupError):
        return None


def _offset(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 20:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else NOT_GIVEN
