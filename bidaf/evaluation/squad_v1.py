"""Exact match and F1 as the official SQuAD v1.1 evaluator counts them, equal to the last digit.

Every question of the raw data file counts once, with the best of its gold answers; one without a prediction
counts as 0. The standard library alone is imported here, so that scoring a file is instant.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bidaf.data.questions import OnReport, read_questions, warn
from bidaf.errors import DataError
from bidaf.evaluation.predictions import read_predictions
from bidaf.files.reading import kind_of, quote

METRIC_LABELS = {"exact_match": "EM", "f1": "F1"}
"""Name of each metric -> how tables call it."""

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


@dataclass(frozen=True, slots=True)
class Gold:
    """Questions in data set order, each with one gold answer or more."""

    ids: Sequence[str]
    answers: Sequence[Sequence[str]]
    unanswerable: tuple[str, ...] = ()
    """Ids of SQuAD 2.0 questions without an answer: v1.1 has no score for them, so they are left out."""


class QuestionScore(NamedTuple):
    """One question's share of the score; `f1` lies in 0..1, and both are zero for an `answered` of False."""

    id: str
    exact_match: bool
    f1: float
    answered: bool


@dataclass(frozen=True, slots=True)
class Score:
    """Means over all questions, in percent."""

    exact_match: float
    f1: float
    questions: int
    missing: tuple[str, ...]
    """Ids without a prediction, counted as 0, in data set order."""
    unknown: tuple[str, ...]
    """Predicted ids that are not in the data; they change no figure."""
    unanswerable: int = 0
    """SQuAD 2.0 questions without an answer, left out of every figure."""

    @property
    def metrics(self) -> dict[str, float]:
        """The figures by name, in percent."""
        return {"exact_match": self.exact_match, "f1": self.f1}


def normalize_answer(text: str) -> str:
    """Lower the case, then drop ASCII punctuation, then the words a, an, the, then spare white space."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, gold: str) -> bool:
    """Whether the two texts are the same once normalized."""
    return normalize_answer(prediction) == normalize_answer(gold)


def f1(prediction: str, gold: str) -> float:
    """Harmonic mean of precision and recall (0..1) over the multisets of normalized tokens.

    A text that normalizes to nothing shares no token with any other, itself included: 0, though it may match
    exactly.
    """
    return _token_f1(normalize_answer(prediction).split(), normalize_answer(gold).split())


def _token_f1(predicted: list[str], gold: list[str]) -> float:
    shared = sum((Counter(predicted) & Counter(gold)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(gold)
    return 2 * precision * recall / (precision + recall)


def question_scores(gold: Gold | Mapping[str, Sequence[str]], predictions: Mapping[str, str]) -> list[QuestionScore]:
    """Score every question against the best of its gold answers, in data set order."""
    questions: Iterable[tuple[str, Sequence[str]]]
    questions = zip(gold.ids, gold.answers, strict=True) if isinstance(gold, Gold) else gold.items()
    return [_score_question(id, answers, predictions.get(id)) for id, answers in questions]


def _score_question(id: str, answers: Sequence[str], prediction: str | None) -> QuestionScore:
    if prediction is None:
        return QuestionScore(id, False, 0.0, answered=False)
    predicted = normalize_answer(prediction)
    golds = {normalize_answer(answer) for answer in answers}
    tokens = predicted.split()
    best = 1.0 if tokens and predicted in golds else max(_token_f1(tokens, gold.split()) for gold in golds)
    return QuestionScore(id, predicted in golds, best, answered=True)


def score_answers(gold: Gold | Mapping[str, Sequence[str]], predictions: Mapping[str, str]) -> Score:
    """Average `question_scores`; raises `DataError` when there is no question to score."""
    scores = question_scores(gold, predictions)
    if not scores:
        raise DataError("there is no question with an answer to score")
    unanswerable = gold.unanswerable if isinstance(gold, Gold) else ()
    known = {score.id for score in scores}.union(unanswerable)
    # A loop: from Python 3.12 on sum() compensates for rounding, and would differ in the last digit.
    matches, overlap = 0, 0.0
    for score in scores:
        matches += score.exact_match
        overlap += score.f1
    return Score(
        exact_match=100.0 * matches / len(scores),
        f1=100.0 * overlap / len(scores),
        questions=len(scores),
        missing=tuple(score.id for score in scores if not score.answered),
        unknown=tuple(id for id in predictions if id not in known),
        unanswerable=len(unanswerable),
    )


def score_file(data: Path | str, predictions: Path, *, strict: bool = False, on_report: OnReport = warn) -> Score:
    """Score a prediction file on a data set of any known schema; raises `DataError` for what is wrong with either."""
    return score_answers(read_gold(data, strict=strict, on_report=on_report), read_predictions(predictions))


def read_gold(source: Path | str, *, strict: bool = False, on_report: OnReport = warn) -> Gold:
    """Read the gold answers of all questions of a data set, none aligned, cut or dropped; as `read_questions`.

    Raises `DataError` for a data set that can't be read, and for one without any gold answer.
    """
    examples = read_questions(source, need_answers=True, passages=True, strict=strict, on_report=on_report)
    answered = [example for example in examples if not example.impossible]
    if not answered:
        raise DataError(f"{source}: holds no question with an answer")
    return Gold(
        ids=[example.id for example in answered],
        answers=[[answer.text for answer in example.answers] for example in answered],
        unanswerable=tuple(example.id for example in examples if example.impossible),
    )


def check_gold(gold: Any, where: str) -> dict[str, list[str]]:
    """Raise `DataError` unless these are `{id: gold answers}`, one answer or more each."""
    if not isinstance(gold, Mapping):
        raise DataError(f"{where}: expected {{id: list of gold answers}}, found {kind_of(gold)}")
    for id, answers in gold.items():
        if isinstance(answers, str) or not isinstance(answers, Sequence) or not answers:
            raise DataError(f"{where}: the gold answers to {quote(str(id))} must be a list of one text or more")
        if not all(isinstance(answer, str) for answer in answers):
            raise DataError(f"{where}: the gold answers to {quote(str(id))} must be texts")
    return {id: list(answers) for id, answers in gold.items()}
