"""A question with its context and gold answers, and the place of an answer in its context."""

from __future__ import annotations

from dataclasses import dataclass

NEAR_CHARACTERS = 20  # an offset counted in bytes, or before white space was cleaned, is off by a few


@dataclass(frozen=True, slots=True)
class GoldAnswer:
    """An answer's text and its character offset in the context; -1 where it has none."""

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class Example:
    """One question on one context; questions on equal contexts share one context object."""

    id: str
    question: str
    context: str
    answers: tuple[GoldAnswer, ...]
    title: str | None = None
    """Of the article; None where the source names none."""
    impossible: bool = False
    """The context has no answer, as its source says; then there are no `answers`."""
    further_contexts: tuple[str, ...] = ()
    """Where the answer may be in one of several passages: all but the first, which is `context`."""

    @property
    def passages(self) -> tuple[str, ...]:
        """All contexts."""
        return (self.context, *self.further_contexts)


def align(answer: GoldAnswer, context: str) -> GoldAnswer | str:
    """The answer at an offset where its text stands, or the reason why there is no such offset.

    That is its own offset, else the nearest occurrence within `NEAR_CHARACTERS`, else the only one in the context.
    """
    text, start = answer.text, answer.start
    if not text.strip():
        return "answer is empty"
    if start >= 0 and context.startswith(text, start):
        return answer
    first = context.find(text)
    if first < 0:
        return "answer not in context"
    if start >= 0:
        near = range(max(0, start - NEAR_CHARACTERS), min(len(context), start + NEAR_CHARACTERS) + 1)
        places = [place for place in near if context.startswith(text, place)]
        if places:
            return GoldAnswer(text, min(places, key=lambda place: abs(place - start)))
    if context.find(text, first + 1) >= 0:
        return "answer not at its offset and more than once in context"
    return GoldAnswer(text, first)
