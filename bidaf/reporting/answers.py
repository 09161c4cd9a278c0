"""The dev questions as a run's best checkpoint answered them: scored one by one, and by kind of question."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from pydantic import BaseModel, Field, ValidationError

from bidaf.data.features import Features
from bidaf.errors import DataError
from bidaf.evaluation.breakdowns import group, kinds_of
from bidaf.evaluation.metrics import question_scores
from bidaf.evaluation.questions import questions_of_features
from bidaf.files.reading import read_regular
from bidaf.runs.data import open_data
from bidaf.runs.layout import N_BEST, PREDICTIONS, n_best_file
from bidaf.runs.log import RunLog

# Where a span starts and ends in its context, in characters, and its probability.
Span = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)], Annotated[float, Field(ge=0, le=1)]]


class StoredAnswers(BaseModel):
    """What training keeps of its best evaluation: weights -> question id -> spans, most probable first."""

    step: int
    answers: dict[str, dict[str, Annotated[list[Span], Field(min_length=1)]]]


class Answer(NamedTuple):
    """How one set of weights answered one question."""

    spans: list[Span]
    exact: bool
    f1: float


@dataclass(frozen=True)
class Asked:
    """One dev question with its answers."""

    number: int
    raw: Answer
    shadow: Answer | None
    kinds: dict[str, str]
    """Breakdown -> its row that this question belongs to."""

    @property
    def answering(self) -> Answer:
        """The shadow's answer, where there is a shadow."""
        return self.shadow or self.raw

    @property
    def changed(self) -> bool:
        """Whether the two sets of weights chose different spans."""
        return self.shadow is not None and self.shadow.spans[0][:2] != self.raw.spans[0][:2]


@dataclass(frozen=True)
class DevAnswers:
    """All dev questions of a run."""

    step: int
    features: Features
    questions: list[Asked]

    def gold_spans(self, number: int) -> list[tuple[int, int]]:
        """Distinct gold answers of a question as characters of its context."""
        features = self.features
        base = int(features.context_offsets[features.question_context[number]])
        found = features.gold_spans(number).tolist()
        bounds = features.context_spans
        spans = ((int(bounds[base + first, 0]), int(bounds[base + last, 1])) for first, last in found)
        return sorted(set(spans))


class Row(NamedTuple):
    """A row of a breakdown; means in percent."""

    label: str
    questions: int
    raw_f1: float
    f1: float
    exact: float

    @property
    def gain(self) -> float:
        """F1 of the shadow above the raw weights."""
        return self.f1 - self.raw_f1


def read_answers(run: RunLog) -> DevAnswers:
    """The answers of the run's best checkpoint. Raises `DataError` saying what is missing."""
    if run.best is None:
        raise DataError("nothing is scored yet")
    folder = run.folder / PREDICTIONS
    path = folder / n_best_file(run.best.step)
    if not os.path.lexists(path) and os.path.lexists(folder / N_BEST):
        path = folder / N_BEST
    try:
        stored = StoredAnswers.model_validate_json(read_regular(path))
    except OSError:
        raise DataError(f"{path} is missing") from None
    except ValidationError:
        raise DataError(f"{path} can't be read as answers to dev questions") from None
    if stored.step != run.best.step:
        raise DataError(f"{path} is of step {stored.step:,}, and the best checkpoint of step {run.best.step:,}")
    features = _dev_features(run)
    if any(answers.keys() != set(features.ids) for answers in stored.answers.values()) or "raw" not in stored.answers:
        raise DataError(f"{path} answers other questions than the prepared data holds")
    return DevAnswers(stored.step, features, _score(features, stored))


def _dev_features(run: RunLog) -> Features:
    if run.start is None:
        raise DataError("metrics.jsonl does not name the prepared data")
    prepared_dir = str(run.settings("data").get("prepared_dir", ""))
    return open_data(run.folder, run.start.features, prepared_dir).features("dev")


def _score(features: Features, stored: StoredAnswers) -> list[Asked]:
    gold = dict(zip(features.ids, features.answers, strict=True))
    by_weights = {}
    for weights in ("raw", "ema"):
        if (answers := stored.answers.get(weights)) is None:
            continue
        texts = {}
        for number, id in enumerate(features.ids):
            start, end, _ = answers[id][0]
            texts[id] = features.contexts[features.question_context[number]][start:end]
        scores = question_scores(gold, texts)
        by_weights[weights] = [Answer(answers[score.id], score.exact_match, score.f1) for score in scores]
    shadow: Sequence[Answer | None] = by_weights.get("ema") or [None] * len(features)
    kinds = [kinds_of(question) for question in questions_of_features(features)]
    return [
        Asked(number, raw, averaged, kinds[number])
        for number, (raw, averaged) in enumerate(zip(by_weights["raw"], shadow, strict=True))
    ]


def breakdowns(questions: Sequence[Asked]) -> dict[str, list[Row]]:
    """Breakdown -> its rows: the most frequent question word first, lengths from short to long."""
    groups = group([asked.kinds for asked in questions])
    return {
        kind: [_row(label, [questions[number] for number in numbers]) for label, numbers in rows.items()]
        for kind, rows in groups.items()
    }


def _row(label: str, group: Sequence[Asked]) -> Row:
    return Row(
        label,
        len(group),
        _percent(asked.raw.f1 for asked in group),
        _percent(asked.answering.f1 for asked in group),
        _percent(asked.answering.exact for asked in group),
    )


def _percent(values: Iterable[float]) -> float:
    listed = list(values)
    return 100.0 * sum(listed) / len(listed)


class Changes(NamedTuple):
    """What the average did to the answers at the best checkpoint, by exact match."""

    changed: int
    gained: int
    lost: int


def changes(questions: Sequence[Asked]) -> Changes:
    """Count the questions whose span the average changed, and how many of these it made right or wrong."""
    changed = [asked for asked in questions if asked.changed]
    return Changes(
        len(changed),
        sum(asked.answering.exact and not asked.raw.exact for asked in changed),
        sum(asked.raw.exact and not asked.answering.exact for asked in changed),
    )
