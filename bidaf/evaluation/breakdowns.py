"""Questions by kind: the word that asks, the lengths of context, question and answer, and the position of the answer.

Lengths are in words separated by white space, so that they need no tokenizer and are the same for every model.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence

from bidaf.evaluation.questions import GoldQuestion

QUESTION_WORDS = ("what", "who", "whom", "whose", "when", "where", "which", "why", "how")
ALSO_AFTER_HOW = ("many", "much", "long")
LENGTHS = {
    "context length": (50, 75, 100, 125, 150, 200, 300, 400),
    "question length": (6, 8, 10, 12, 15, 20),
    "answer length": (1, 2, 3, 5, 10),
}
POSITIONS = 5
NO_ANSWER, UNKNOWN = "no answer", "unknown"

UNITS = dict.fromkeys(LENGTHS, "words") | {"answer position": "% of the context"}
"""What the labels of a breakdown count; a breakdown that is not here needs no unit."""


def _labels(bounds: Sequence[int]) -> list[str]:
    """Of the lengths up to each bound, and of those above the last."""
    starts = [1, *(bound + 1 for bound in bounds[:-1])]
    inner = [
        str(end) if start == end else f"{start}\N{EN DASH}{end}" for start, end in zip(starts, bounds, strict=True)
    ]
    return [*inner, f"over {bounds[-1]}"]


_LENGTH_LABELS = {kind: _labels(bounds) for kind, bounds in LENGTHS.items()}
_POSITION_LABELS = [f"{100 * n // POSITIONS}\N{EN DASH}{100 * (n + 1) // POSITIONS}" for n in range(POSITIONS)]
_ORDER = {kind: [*labels, NO_ANSWER] for kind, labels in _LENGTH_LABELS.items()}
_ORDER["answer position"] = [*_POSITION_LABELS, UNKNOWN, NO_ANSWER]


def kinds_of(asked: GoldQuestion) -> dict[str, str]:
    """Breakdown -> the row that a question belongs to. The answer's length is that of the shortest gold answer."""
    words = min((len(text.split()) for text in asked.answers), default=None)
    return {
        "question word": question_word(asked.question),
        "answer length": NO_ANSWER if words is None else _length("answer length", words),
        "answer position": NO_ANSWER if words is None else _position(asked.start, len(asked.context)),
        "context length": _length("context length", len(asked.context.split())),
        "question length": _length("question length", len(asked.question.split())),
    }


def question_word(question: str) -> str:
    """The first question word of a question; `how many`, `how much` and `how long` are separate rows."""
    words = re.findall(r"[a-z]+", question.lower())
    for place, word in enumerate(words):
        if word in QUESTION_WORDS:
            following = words[place + 1] if place + 1 < len(words) else ""
            return f"how {following}" if word == "how" and following in ALSO_AFTER_HOW else word
    return "other"


def _length(kind: str, words: int) -> str:
    return _LENGTH_LABELS[kind][bisect_left(LENGTHS[kind], words)]


def _position(start: int | None, characters: int) -> str:
    if start is None or not 0 <= start < characters:
        return UNKNOWN
    return _POSITION_LABELS[POSITIONS * start // characters]


def group(kinds: Sequence[dict[str, str]]) -> dict[str, dict[str, list[int]]]:
    """Breakdown -> row -> the numbers of its questions; frequent question words and small lengths come first."""
    groups: dict[str, dict[str, list[int]]] = {}
    for number, of_question in enumerate(kinds):
        for kind, label in of_question.items():
            groups.setdefault(kind, {}).setdefault(label, []).append(number)
    return {kind: {label: rows[label] for label in _ordered(kind, rows)} for kind, rows in groups.items()}


def _ordered(kind: str, rows: dict[str, list[int]]) -> list[str]:
    if kind in _ORDER:
        return sorted(rows, key=_ORDER[kind].index)
    return sorted(rows, key=lambda label: (-len(rows[label]), label))
