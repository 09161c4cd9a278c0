"""Which dev questions a page holds where it can't hold all: as many of each class as fit, evenly spaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


def sample(questions: Sequence[Asked], features: Features, most: int, characters: int) -> list[Asked]:
    """At most `most` questions on contexts of at most `characters` characters, in the order of the data.

    Each class (right or wrong, before and by the average, changed or not) gets the same number of places; what a small
    class leaves free goes to the others. Within a class the questions are evenly spaced.
    """
    while True:
        classes: dict[tuple[bool, bool, bool], list[Asked]] = {}
        for asked in questions:
            classes.setdefault((asked.changed, asked.raw.exact, asked.answering.exact), []).append(asked)
        places = shares({name: len(members) for name, members in classes.items()}, most)
        chosen = [asked for name, members in classes.items() for asked in spread(members, places[name])]
        contexts = {int(features.question_context[asked.number]) for asked in chosen}
        if most <= 1 or sum(len(features.contexts[context]) for context in contexts) <= characters:
            return sorted(chosen, key=lambda asked: asked.number)
        most //= 2


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
