"""SQuAD JSON read into examples: every record validated, every answer at its offset, every loss counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import TypeAdapter

from bidaf.data.records import NonBlank, Offset, Strict, Text, refuse_repeats, validate
from bidaf.errors import DataError
from bidaf.files.reading import Place, kind_of, read_json

SQUAD_FORM = (
    'SQuAD v1.1 is {"data": [{"paragraphs": [{"context": ..., '
    '"qas": [{"id": ..., "question": ..., "answers": [{"text": ..., "answer_start": ...}]}]}]}]}'
)

Q = TypeVar("Q")


@dataclass(frozen=True, slots=True)
class GoldAnswer:
    """An answer's text and its character offset in the context (-1 where a question to predict gave none)."""

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


@dataclass(slots=True)
class ReadCounts:
    """What became of the questions: `read == kept + unanswerable + sum of dropped`."""

    read: int = 0
    kept: int = 0
    unanswerable: int = 0
    realigned: int = 0
    """Answers that were not at their offset but occur exactly once in the context."""
    dropped: dict[str, list[str]] = field(default_factory=dict)
    """Reason to the ids of the questions that lost all their answers to it."""
    answers_dropped: int = 0
    """Answers left out of questions that were kept for another answer."""

    def add(self, other: ReadCounts) -> None:
        """Add the counts of another source."""
        self.read += other.read
        self.kept += other.kept
        self.unanswerable += other.unanswerable
        self.realigned += other.realigned
        self.answers_dropped += other.answers_dropped
        for reason, ids in other.dropped.items():
            self.dropped.setdefault(reason, []).extend(ids)


@dataclass(frozen=True, slots=True)
class Corpus:
    """Examples in the order of their source, and what was left out of it."""

    examples: list[Example]
    counts: ReadCounts


class SquadAnswer(Strict):
    text: Text
    answer_start: Offset


class SquadQuestion(Strict):
    id: NonBlank
    question: NonBlank
    answers: list[SquadAnswer]
    is_impossible: bool = False


class Paragraph(Strict, Generic[Q]):
    context: NonBlank
    qas: list[Q]


class Article(Strict, Generic[Q]):
    title: Text | None = None
    paragraphs: list[Paragraph[Q]]


class SquadFile(Strict, Generic[Q]):
    """The whole file, whatever is asked of its questions."""

    data: list[Article[Q]]

    def walk(self) -> Iterator[tuple[Place, Article[Q], Paragraph[Q], Q]]:
        """Yield every question with its place, article and paragraph, in file order."""
        for a, article in enumerate(self.data):
            for p, paragraph in enumerate(article.paragraphs):
                for q, question in enumerate(paragraph.qas):
                    yield ("data", a, "paragraphs", p, "qas", q), article, paragraph, question


_SQUAD_FILE = TypeAdapter(SquadFile[SquadQuestion])


def read_squad(path: Path) -> Corpus:
    """Read a SQuAD v1.1 or v2.0 file (`.json`, or gzipped) for training or evaluation.

    Questions without an answer are counted as unanswerable and skipped. Raises `DataError`, with file and
    JSON path, for a file that cannot be read, is not of this format, repeats an id, or leaves nothing to use.
    """
    where = str(path)
    value = read_json(path)
    if not isinstance(value, dict) or "data" not in value:
        found = 'an object without "data"' if isinstance(value, dict) else kind_of(value)
        raise DataError(f"{where}: the top level is {found}; {SQUAD_FORM}")
    placed = []
    for place, article, paragraph, question in validate(_SQUAD_FILE, value, where).walk():
        given = () if question.is_impossible else question.answers
        answers = tuple(GoldAnswer(answer.text, answer.answer_start) for answer in given)
        placed.append(
            (place, Example(question.id, question.question, paragraph.context, answers, article.title or None))
        )
    return collect(placed, where)


def collect(placed: Sequence[tuple[Place, Example]], where: str) -> Corpus:
    """Turn validated examples, each with its place, into a corpus: the one way for every source.

    Examples without answers count as unanswerable. Raises `DataError` on repeated ids, or when none is left.
    """
    refuse_repeats(((example.id, place) for place, example in placed), where)
    examples: list[Example] = []
    counts = ReadCounts(read=len(placed))
    contexts: dict[str, str] = {}
    for _, example in placed:
        if not example.answers:
            counts.unanswerable += 1
            continue
        outcomes = [align(answer, example.context) for answer in example.answers]
        answers = tuple(outcome for outcome in outcomes if isinstance(outcome, GoldAnswer))
        if not answers:
            counts.dropped.setdefault(str(outcomes[0]), []).append(example.id)
            continue
        counts.kept += 1
        counts.answers_dropped += len(outcomes) - len(answers)
        # align returns the very same answer where it is well placed
        counts.realigned += sum(
            isinstance(new, GoldAnswer) and new is not old for new, old in zip(outcomes, example.answers, strict=True)
        )
        context = contexts.setdefault(example.context, example.context)
        examples.append(replace(example, context=context, answers=answers))
    if not examples:
        losses = {
            "unanswerable": counts.unanswerable,
            **{why: len(ids) for why, ids in counts.dropped.items()},
        }
        listed = "".join(f"; {reason}: {number}" for reason, number in losses.items() if number)
        raise DataError(f"{where}: no question can be used (of {counts.read}{listed})")
    return Corpus(examples, counts)


def align(answer: GoldAnswer, context: str) -> GoldAnswer | str:
    """Return the answer at an offset where its text stands, or the reason why there is no such offset."""
    if not answer.text.strip():
        return "answer is empty"
    if context.startswith(answer.text, answer.start):
        return answer
    first = context.find(answer.text)
    if first < 0:
        return "answer not in context"
    if context.find(answer.text, first + 1) >= 0:
        return "answer not at its offset and more than once in context"
    return GoldAnswer(answer.text, first)
