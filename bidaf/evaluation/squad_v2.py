"""Exact match and F1 as the official SQuAD v2.0 evaluator counts them, best thresholds too, equal to the last digit.

A question without a gold answer is answered by the empty text. Where the probability of "no answer" is above a
threshold, that is the answer, whatever was predicted. Only the standard library is imported here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bidaf.errors import DataError
from bidaf.evaluation.squad_v1 import Gold, QuestionScore, normalize_answer, token_f1

Probabilities = Mapping[str, float]
"""Question id -> probability that it has no answer."""

NEVER = 1.0  # a threshold that no probability is above
NO_ANSWER_THRESHOLD = "no_answer_threshold"
"""The name, among the metrics of a weight set, of the threshold that was chosen for it."""


class Means(NamedTuple):
    """Means over some questions, in percent."""

    exact_match: float
    f1: float
    questions: int


class BestThreshold(NamedTuple):
    """The threshold with the highest mean score, in percent."""

    score: float
    threshold: float


@dataclass(frozen=True, slots=True)
class Score:
    """Means over all questions, over those with an answer and over those without one."""

    all: Means
    answerable: Means | None
    unanswerable: Means | None
    best_exact_match: BestThreshold | None
    """Over all thresholds, as `best_f1`; None where no probabilities were given."""
    best_f1: BestThreshold | None
    missing: tuple[str, ...]
    """Ids without a prediction, counted as 0, in data set order. (The official evaluator refuses those.)"""
    unknown: tuple[str, ...]
    """Predicted ids that are not in the data; they change no figure."""

    @property
    def exact_match(self) -> float:
        """Over all questions, in percent."""
        return self.all.exact_match

    @property
    def f1(self) -> float:
        """Over all questions, in percent."""
        return self.all.f1

    @property
    def questions(self) -> int:
        """Number of questions that were scored."""
        return self.all.questions

    @property
    def metrics(self) -> dict[str, float]:
        """The figures by name, in percent; thresholds are probabilities."""
        metrics = {"exact_match": self.all.exact_match, "f1": self.all.f1}
        if self.answerable:
            metrics |= {"answerable_exact_match": self.answerable.exact_match, "answerable_f1": self.answerable.f1}
        if self.unanswerable:  # there, exact match and F1 are the same
            metrics["unanswerable_f1"] = self.unanswerable.f1
        for name, best in (("exact_match", self.best_exact_match), ("f1", self.best_f1)):
            if best:
                metrics |= {f"best_{name}": best.score, f"best_{name}_threshold": best.threshold}
        return metrics


def score_answers(
    gold: Gold, predictions: Mapping[str, str], no_answer: Probabilities | None = None, threshold: float = NEVER
) -> Score:
    """Score predictions, emptied where `no_answer` is above the threshold; raises `DataError` without a question."""
    if not gold:
        raise DataError("there is no question to score")
    raw = question_scores(gold, predictions)
    scores = raw if no_answer is None else apply_threshold(gold, raw, no_answer, threshold)
    best = [
        best_threshold(gold, predictions, {score.id: getattr(score, metric) for score in raw}, no_answer)
        for metric in ("exact_match", "f1")
        if no_answer is not None
    ]
    return Score(
        all=_means(scores),
        answerable=_means_of([score for score in scores if gold[score.id]]),
        unanswerable=_means_of([score for score in scores if not gold[score.id]]),
        best_exact_match=best[0] if best else None,
        best_f1=best[1] if best else None,
        missing=tuple(score.id for score in raw if not score.answered),
        unknown=tuple(id for id in predictions if id not in gold),
    )


def question_scores(gold: Gold, predictions: Mapping[str, str]) -> list[QuestionScore]:
    """Score every question against the best of its gold answers, in data set order; no threshold is applied."""
    return [_score_question(id, answers, predictions.get(id)) for id, answers in gold.items()]


def _score_question(id: str, answers: Sequence[str], prediction: str | None) -> QuestionScore:
    if prediction is None:
        return QuestionScore(id, False, 0.0, answered=False)
    predicted = normalize_answer(prediction)
    # What normalizes to nothing is no answer; a question without any is answered by the empty text.
    golds = list(filter(None, map(normalize_answer, answers))) or [""]
    best = max(_f1(predicted, answer) for answer in golds)
    return QuestionScore(id, predicted in golds, best, answered=True)


def _f1(predicted: str, gold: str) -> float:
    if not predicted or not gold:
        return float(predicted == gold)
    return token_f1(predicted.split(), gold.split())


def apply_threshold(
    gold: Gold, scores: Iterable[QuestionScore], no_answer: Probabilities, threshold: float
) -> list[QuestionScore]:
    """The scores when the answer is empty wherever the probability of no answer is above the threshold."""
    return [
        score._replace(exact_match=not gold[score.id], f1=float(not gold[score.id]))
        if score.answered and no_answer[score.id] > threshold
        else score
        for score in scores
    ]


def best_threshold(
    gold: Gold, predictions: Mapping[str, str], scores: Mapping[str, float], no_answer: Probabilities
) -> BestThreshold:
    """The threshold, among the given probabilities, at which the mean of `scores` (0..1) is highest.

    As published: questions are sorted by their probability of no answer, and the sum of the scores is updated as one
    after the other is answered. Of equal sums the first counts; the threshold is 0 where answering none is best.
    """
    current = best = float(sum(not answers for answers in gold.values()))
    threshold = 0.0
    for id in sorted(no_answer, key=lambda id: no_answer[id]):
        if id not in scores:
            continue
        if gold[id]:
            current += scores[id]
        elif predictions.get(id):
            current -= 1.0
        if current > best:
            best, threshold = current, no_answer[id]
    return BestThreshold(100.0 * best / len(scores), threshold)


def _means_of(scores: Sequence[QuestionScore]) -> Means | None:
    return _means(scores) if scores else None


def _means(scores: Sequence[QuestionScore]) -> Means:
    # A loop: from Python 3.12 on sum() compensates for rounding, and would differ in the last digit.
    matches, overlap = 0, 0.0
    for score in scores:
        matches += score.exact_match
        overlap += score.f1
    return Means(100.0 * matches / len(scores), 100.0 * overlap / len(scores), len(scores))
