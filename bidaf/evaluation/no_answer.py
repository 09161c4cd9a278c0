"""Scoring a model that knows "no answer", with the threshold that belongs to its weight set.

Where the probability of no answer is above the threshold, that is the answer. The threshold is chosen for the highest
F1 on the questions that are scored, which makes this F1 slightly too high. The cross-fitted F1 is not: each question is
scored at the threshold that was chosen on the other half of the articles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bidaf.data.features import Features
from bidaf.evaluation import squad_v1, squad_v2
from bidaf.evaluation.evaluator import Prediction
from bidaf.evaluation.squad_v1 import Gold, QuestionScore
from bidaf.evaluation.squad_v2 import NO_ANSWER_THRESHOLD, Probabilities
from bidaf.evaluation.statistics import Articles

Predictions = Mapping[str, Sequence[Prediction]]


@dataclass(frozen=True)
class ScoredAnswers:
    """What a weight set answers to some questions, and how good that is."""

    answers: dict[str, list[Prediction]]
    """Question id -> its predictions, the answer first."""
    questions: list[QuestionScore]
    metrics: dict[str, float]
    """Name -> percent, and the threshold, if the model knows "no answer"."""


def score_predictions(features: Features, predictions: Predictions, threshold: float | None = None) -> ScoredAnswers:
    """The official score of these predictions: v1.1, or v2.0 of a model whose predictions hold the empty answer.

    Without a `threshold` it is chosen here, and the cross-fitted F1 is one of the metrics.
    """
    gold, articles = _gold(features, predictions)
    return score_ranked(gold, articles, predictions, threshold)


def score_ranked(
    gold: Gold, articles: Articles, predictions: Predictions, threshold: float | None = None
) -> ScoredAnswers:
    """`score_predictions` of questions by id, which come with the article of each."""
    if not any(each.is_empty for ranked in predictions.values() for each in ranked):
        texts = {id: best.text for id, (best, *_) in predictions.items()}
        questions = squad_v1.question_scores(gold, texts)
        return ScoredAnswers(
            {id: list(each) for id, each in predictions.items()}, questions, squad_v1.score_answers(gold, texts).metrics
        )
    spans, no_answer = _separate(predictions)
    raw = squad_v2.question_scores(gold, spans)
    f1 = _cross_fitted_f1(gold, spans, raw, no_answer, articles) if threshold is None else None
    if threshold is None:
        threshold = _best(gold, spans, raw, no_answer)
    metrics = squad_v2.score_answers(gold, spans, no_answer, threshold).metrics
    kept = {name: value for name, value in metrics.items() if not name.startswith("best_")}
    if f1 is not None:
        kept["cross_fitted_f1"] = f1
    return ScoredAnswers(
        {id: decide(each, threshold) for id, each in predictions.items()},
        squad_v2.apply_threshold(gold, raw, no_answer, threshold),
        {**kept, NO_ANSWER_THRESHOLD: threshold},
    )


def choose_threshold(features: Features, predictions: Predictions) -> float:
    """The threshold with the highest F1 on these questions."""
    gold, _ = _gold(features, predictions)
    spans, no_answer = _separate(predictions)
    return _best(gold, spans, squad_v2.question_scores(gold, spans), no_answer)


def decide(predictions: Sequence[Prediction], threshold: float | None) -> list[Prediction]:
    """Put the answer first: the empty one where its probability is above the threshold, else the best span.

    Without a threshold, and without an empty one among them, the most probable is the answer.
    """
    empty = [each for each in predictions if each.is_empty]
    if threshold is None or not empty:
        return list(predictions)
    first = empty[0] if empty[0].probability > threshold else next(each for each in predictions if not each.is_empty)
    return [first, *(each for each in predictions if each is not first)]


def _gold(features: Features, predictions: Predictions) -> tuple[dict[str, list[str]], Articles]:
    """Gold answers and articles of the questions that were answered, in data set order."""
    numbers = [number for number, id in enumerate(features.ids) if id in predictions]
    return {features.ids[number]: features.answers[number] for number in numbers}, [
        features.titles[number] for number in numbers
    ]


def _separate(predictions: Predictions) -> tuple[dict[str, str], dict[str, float]]:
    """Each question's best span, and its probability of no answer."""
    spans = {id: next(each.text for each in ranked if not each.is_empty) for id, ranked in predictions.items()}
    no_answer = {id: next(each.probability for each in ranked if each.is_empty) for id, ranked in predictions.items()}
    return spans, no_answer


def _best(gold: Gold, spans: Mapping[str, str], raw: Sequence[QuestionScore], no_answer: Probabilities) -> float:
    return squad_v2.best_threshold(gold, spans, {score.id: score.f1 for score in raw}, no_answer).threshold


def _cross_fitted_f1(
    gold: Gold, spans: Mapping[str, str], raw: Sequence[QuestionScore], no_answer: Probabilities, articles: Articles
) -> float | None:
    """F1 in percent; None for questions on one article, or on articles without a title."""
    order = {article: number for number, article in enumerate(dict.fromkeys(articles))}
    if len(order) < 2:
        return None
    halves = [[score for score, each in zip(raw, articles, strict=True) if order[each] % 2 == odd] for odd in (0, 1)]
    total = 0.0
    for chosen_on, scored in (halves, halves[::-1]):
        ids = {score.id: score.f1 for score in chosen_on}
        threshold = squad_v2.best_threshold(
            {id: gold[id] for id in ids}, spans, ids, {id: no_answer[id] for id in ids}
        ).threshold
        for score in squad_v2.apply_threshold(gold, scored, no_answer, threshold):
            total += score.f1
    return 100.0 * total / len(raw)
