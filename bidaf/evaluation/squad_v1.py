"""Exact match and F1 as the official SQuAD v1.1 evaluator counts them, equal to the last digit.

Every question of the data counts once, with the best of its gold answers; one without a prediction counts as 0. The
standard library alone is imported here, so that scoring a file is instant.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bidaf.errors import DataError

Gold = Mapping[str, Sequence[str]]
"""Question id -> its gold answers, in data set order. Questions without an answer have no score and are left out."""

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


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
    return token_f1(normalize_answer(prediction).split(), normalize_answer(gold).split())


def token_f1(predicted: list[str], gold: list[str]) -> float:
    """Harmonic mean of precision and recall (0..1) over two multisets of tokens; 0 where they share none."""
    shared = sum((Counter(predicted) & Counter(gold)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(gold)
    return 2 * precision * recall / (precision + recall)


def question_scores(gold: Gold, predictions: Mapping[str, str]) -> list[QuestionScore]:
    """Score every question that has an answer against the best of them, in data set order."""
    return [_score_question(id, answers, predictions.get(id)) for id, answers in gold.items() if answers]


def _score_question(id: str, answers: Sequence[str], prediction: str | None) -> QuestionScore:
    if prediction is None:
        return QuestionScore(id, False, 0.0, answered=False)
    predicted = normalize_answer(prediction)
    golds = {normalize_answer(answer) for answer in answers}
    tokens = predicted.split()
    best = 1.0 if tokens and predicted in golds else max(token_f1(tokens, gold.split()) for gold in golds)
    return QuestionScore(id, predicted in golds, best, answered=True)


def score_answers(gold: Gold, predictions: Mapping[str, str]) -> Score:
    """Average `question_scores`; raises `DataError` when there is no question to score."""
    scores = question_scores(gold, predictions)
    if not scores:
        raise DataError("there is no question with an answer to score")
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
        unknown=tuple(id for id in predictions if id not in gold),
        unanswerable=len(gold) - len(scores),
    )
