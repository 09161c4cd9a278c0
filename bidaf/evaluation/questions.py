"""Questions with their gold answers, as scoring and comparing want them, whatever they were read from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bidaf.data.squad import Example

if TYPE_CHECKING:
    from bidaf.data.features import Features


@dataclass(frozen=True, slots=True)
class GoldQuestion:
    """One question; `answers` is empty where the context does not answer it."""

    id: str
    article: str | None
    """The title of the article that its context is from; None where the source names none."""
    question: str
    context: str
    answers: tuple[str, ...]
    start: int | None
    """The character of the context at which its first gold answer begins; None where that is unknown."""


def questions_of_examples(examples: Iterable[Example]) -> list[GoldQuestion]:
    """Questions as they were read from a file."""

    def question(example: Example) -> GoldQuestion:
        starts = [answer.start for answer in example.answers if answer.start >= 0]
        texts = tuple(answer.text for answer in example.answers)
        start = min(starts, default=None)
        return GoldQuestion(example.id, example.title or None, example.question, example.context, texts, start)

    return [question(example) for example in examples]


def questions_of_features(features: Features) -> list[GoldQuestion]:
    """Questions of prepared data, such as the dev set of a run."""

    def question(number: int) -> GoldQuestion:
        context = int(features.question_context[number])
        base = int(features.context_offsets[context])
        spans = features.gold_spans(number)
        start = int(features.context_spans[base + int(spans[:, 0].min()), 0]) if len(spans) else None
        return GoldQuestion(
            id=features.ids[number],
            article=features.titles[number] or None,
            question=features.questions[number],
            context=features.contexts[context],
            answers=tuple(features.answers[number]),
            start=start,
        )

    return [question(number) for number in range(len(features))]


def drawn_evenly(articles: Sequence[str | None], count: int) -> list[int]:
    """The numbers of up to `count` questions, as many from each article as it has and the others leave, in order.

    Within an article they are spread evenly; the same questions every time.
    """
    groups: dict[str | None, list[int]] = {}
    for number, article in enumerate(articles):
        groups.setdefault(article, []).append(number)
    drawn: list[int] = []
    for place, group in enumerate(sorted(groups.values(), key=len)):  # what a small one lacks, larger ones make up for
        share = min(len(group), (count - len(drawn)) // (len(groups) - place))
        drawn += [group[(2 * k + 1) * len(group) // (2 * share)] for k in range(share)]
    return sorted(drawn)
