"""Which dev questions a page holds where it can't hold all: as many of each class as fit, evenly spaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from bidaf.data.features import Features
from bidaf.reporting.answers import Asked

T = TypeVar("T")

# What the filters of the page show; a question can be in several.
FILTERS: dict[str, Callable[[Asked], bool]] = {
    "all": lambda asked: True,
    "wrong": lambda asked: not asked.answering.exact,
    "right": lambda asked: asked.answering.exact,
    "changed": lambda asked: asked.changed,
    "gained": lambda asked: asked.changed and asked.answering.exact and not asked.raw.exact,
    "lost": lambda asked: asked.changed and not asked.answering.exact and asked.raw.exact,
}


def filter_counts(questions: Sequence[Asked]) -> dict[str, int]:
    """Number of questions behind each filter, whether the page holds them or not."""
    return {name: sum(map(test, questions)) for name, test in FILTERS.items()}


def sample(questions: Sequence[Asked], features: Features, most: int, size: int) -> list[Asked]:
    """At most `most` questions whose texts take at most `size` bytes of UTF-8, in the order of the data.

    Each class (right or wrong, before and by the average, changed or not) gets the same number of places; what a small
    class leaves free goes to the others. Within a class the questions are evenly spaced.
    """
    while True:
        classes: dict[tuple[bool, bool, bool], list[Asked]] = {}
        for asked in questions:
            classes.setdefault((asked.changed, asked.raw.exact, asked.answering.exact), []).append(asked)
        places = shares({name: len(members) for name, members in classes.items()}, most)
        chosen = [asked for name, members in classes.items() for asked in spread(members, places[name])]
        if most == 0 or _fits(_texts(chosen, features), size):
            return sorted(chosen, key=lambda asked: asked.number)
        most //= 2


def _texts(chosen: Sequence[Asked], features: Features) -> Iterator[str]:
    """Each context once, the questions and their gold answers."""
    for context in {int(features.question_context[asked.number]) for asked in chosen}:
        yield features.contexts[context]
    for asked in chosen:
        yield features.questions[asked.number]
        yield from features.answers[asked.number]


def _fits(texts: Iterator[str], size: int) -> bool:
    for text in texts:
        size -= len(text.encode("utf-8", "surrogatepass"))
        if size < 0:
            return False
    return True


def shares(sizes: Mapping[T, int], most: int) -> dict[T, int]:
    """`most` places given out evenly, to none more than its size."""
    given: dict[T, int] = {}
    for left, name in zip(range(len(sizes), 0, -1), sorted(sizes, key=lambda name: sizes[name]), strict=True):
        given[name] = min(sizes[name], most // left)
        most -= given[name]
    return given


def spread(members: Sequence[T], count: int) -> list[T]:
    """`count` of the members, evenly spaced."""
    return [members[place * len(members) // count] for place in range(count)]
