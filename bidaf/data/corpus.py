"""The sources of a split as one corpus to train on or to be scored on, with what became of every question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bidaf.data.questions import OnReport, ReadReport, read_questions, warn
from bidaf.data.records import NOT_GIVEN
from bidaf.data.sources import Source
from bidaf.data.squad import Example, GoldAnswer, align
from bidaf.errors import DataError


@dataclass(slots=True)
class ReadCounts:
    """What became of the questions: `read == kept + unanswerable + sum of skipped + sum of dropped`."""

    read: int = 0
    kept: int = 0
    unanswerable: int = 0
    """Questions that were left out because they have no answer, as their source says."""
    realigned: int = 0
    """Answers that were not at their offset and got that of the nearest or only occurrence."""
    skipped: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Reason -> `count` of the records that could not be used, and source and place of the `first`."""
    dropped: dict[str, list[str]] = field(default_factory=dict)
    """Reason to the ids of the questions that lost all their answers to it."""
    answers_dropped: int = 0
    """Answers without a place in the context, of questions that were kept."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Examples in the order of their sources, and what was left out of them."""

    examples: list[Example]
    counts: ReadCounts


def read_corpus(
    sources: Sequence[Source], *, unanswerable: bool = False, strict: bool = False, on_report: OnReport = warn
) -> Corpus:
    """Read the sources of a split in their order; `unanswerable` questions are kept, or left out and counted.

    To be trained on, a question needs an answer at a known place of its context; to be scored on, any answer will do:
    one that stands nowhere has the offset -1. An id that an earlier source has gets the number of its source in front
    ("2:ID"). Raises `DataError` as `read_questions`, and when no question is left.
    """
    counts = ReadCounts()
    examples: list[Example] = []
    contexts: dict[str, str] = {}
    ids: set[str] = set()

    def count(report: ReadReport) -> None:
        counts.read += report.read
        for reason, places in report.skipped.items():
            entry = counts.skipped.setdefault(reason, {"count": 0, "first": f"{report.source}: {places[0]}"})
            entry["count"] += len(places)
        on_report(report)

    for number, source in enumerate(sources, 1):
        for example in read_questions(source, need_answers=True, strict=strict, on_report=count):
            id = example.id
            while id in ids:
                id = f"{number}:{id}"
            ids.add(id)
            context = contexts.setdefault(example.context, example.context)
            example = replace(example, id=id, context=context)
            if example.impossible and not unanswerable:
                counts.unanswerable += 1
            elif kept := _kept(example, counts, training=source.use == "train"):
                examples.append(kept)
    if not examples:
        losses = {"unanswerable": counts.unanswerable}
        losses |= {reason: entry["count"] for reason, entry in counts.skipped.items()}
        losses |= {reason: len(ids) for reason, ids in counts.dropped.items()}
        listed = "".join(f"; {reason}: {number:,}" for reason, number in losses.items() if number)
        names = ", ".join(source.name for source in sources)
        raise DataError(f"{names}: no question can be used (of {counts.read:,}{listed})")
    return Corpus(examples, counts)


def _kept(example: Example, counts: ReadCounts, *, training: bool) -> Example | None:
    """The example with its answers in their places; None, and counted, if it can't be used."""
    if example.impossible:
        counts.kept += 1
        return example
    outcomes = [align(answer, example.context) for answer in example.answers]
    answers = tuple(outcome for outcome in outcomes if isinstance(outcome, GoldAnswer))
    if training and not answers:
        counts.dropped.setdefault(str(outcomes[0]), []).append(example.id)
        return None
    counts.kept += 1
    counts.answers_dropped += len(outcomes) - len(answers)
    # align returns the very same answer where it is well placed
    pairs = list(zip(outcomes, example.answers, strict=True))
    counts.realigned += sum(isinstance(new, GoldAnswer) and new is not old for new, old in pairs)
    if not training:
        answers = tuple(new if isinstance(new, GoldAnswer) else GoldAnswer(old.text, NOT_GIVEN) for new, old in pairs)
    return replace(example, answers=answers)
