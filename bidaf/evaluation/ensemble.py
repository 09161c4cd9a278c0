"""Several models' answers as one: the rules, and what the score gains with each further member.

A member gives its most probable answers to a question. An ensemble of one answers as that member does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from bidaf.errors import DataError
from bidaf.evaluation.comparison import Metric, paired
from bidaf.evaluation.evaluator import Prediction
from bidaf.evaluation.questions import GoldQuestion
from bidaf.evaluation.squad_v1 import QuestionScore, question_scores
from bidaf.evaluation.statistics import Articles, why_no_interval

Rule = Literal["sum", "product"]
RULES: tuple[Rule, ...] = get_args(Rule)
CANDIDATES = 20
"""Answers that a member gives to a question. The rest of its probability is left out."""
METRICS = ("exact_match", "f1")

Candidates = Mapping[str, Sequence[Prediction]]
"""What one member answers: question id -> its answers. "No answer" is the empty text, an answer like any other."""


def combine(members: Sequence[Sequence[Prediction]], rule: Rule) -> list[Prediction]:
    """The members' answers to one question as those of an ensemble, most probable first.

    `sum` is the paper's rule (Seo et al., ICLR 2017, section 4): an answer's confidence is the sum of the confidences
    that the members have in its text, here divided by their number. `product` takes the geometric mean of the
    probabilities of a span; a member that does not list the span counts with its smallest listed probability, which
    the span's own can't exceed. The order of the members changes nothing.
    """
    found = _sum(members) if rule == "sum" else _product(members)
    return sorted(found, key=lambda answer: (-answer.probability, answer.end, answer.start))


def _sum(members: Sequence[Sequence[Prediction]]) -> list[Prediction]:
    by_text: dict[str, list[Prediction]] = {}
    for answers in members:
        own: dict[str, Prediction] = {}
        for answer in answers:  # a text that stands twice in the context is one answer: its better span counts
            if answer.text not in own or _rank(answer) < _rank(own[answer.text]):
                own[answer.text] = answer
        for text, answer in own.items():
            by_text.setdefault(text, []).append(answer)
    return [
        min(answers, key=_rank)._replace(probability=math.fsum(each.probability for each in answers) / len(members))
        for answers in by_text.values()
    ]


def _rank(answer: Prediction) -> tuple[float, int, int]:
    return -answer.probability, answer.end, answer.start


def _product(members: Sequence[Sequence[Prediction]]) -> list[Prediction]:
    listed = [{answer[:3]: answer.probability for answer in answers} for answers in members]
    smallest = [min((each.probability for each in answers if each.text), default=0.0) for answers in members]
    spans = dict.fromkeys(span for own in listed for span in own)

    def probability(span: tuple[str, int, int]) -> float:
        found = sorted(own.get(span, least) for own, least in zip(listed, smallest, strict=True))
        return float(math.prod(found) ** (1 / len(members)))

    return [Prediction(*span, probability(span)) for span in spans]


@dataclass(frozen=True, slots=True)
class SizeRow:
    """Ensembles of the same number of members."""

    members: int
    scores: dict[str, list[float]]
    """Metric -> percent of each ensemble."""
    metrics: dict[str, Metric]
    """B is the mean of these ensembles, A the mean of the single members; their difference is the gain."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"members": self.members, "scores": self.scores, "metrics": _to_dict(self.metrics)}


@dataclass(frozen=True, slots=True)
class EnsembleScore:
    """What an ensemble and smaller ones of its members score on some questions."""

    rule: Rule
    names: list[str]
    questions: int
    articles: int | None
    """None where they are unknown."""
    no_interval: str | None
    """Why there is no interval; None where there is one."""
    sizes: list[SizeRow]
    """From one member to all."""
    mean_weights: dict[str, Metric] | None
    """One model with the mean of the members' weights (B), against the single members (A)."""
    no_mean: str | None
    """Why the weights have no mean; None where they have one."""

    @property
    def scores(self) -> dict[str, float]:
        """Of the whole ensemble: metric -> percent."""
        return {metric: values[0] for metric, values in self.sizes[-1].scores.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        singles = self.sizes[0].scores
        return {
            **self.scores,
            "rule": self.rule,
            "questions": self.questions,
            "articles": self.articles,
            "no_interval": self.no_interval,
            "members": [
                {"name": name, **{metric: singles[metric][number] for metric in singles}}
                for number, name in enumerate(self.names)
            ],
            "sizes": [row.to_dict() for row in self.sizes],
            "mean_weights": None if self.mean_weights is None else _to_dict(self.mean_weights),
            "no_mean": self.no_mean,
        }


def _to_dict(metrics: Mapping[str, Metric]) -> dict[str, Any]:
    return {name: metric.to_dict() for name, metric in metrics.items()}


def some_ensembles(members: int, size: int) -> list[list[int]]:
    """Ensembles of `size` members: neighbours in a circle, so that every member is in equally many of them."""
    starts = range(1 if size == members else members)
    return [[(start + step) % members for step in range(size)] for start in starts]


def number_of_ensembles(members: int) -> int:
    """How many `score_sizes` scores."""
    return sum(len(some_ensembles(members, size)) for size in range(1, members + 1))


def score_sizes(
    questions: Sequence[GoldQuestion],
    members: Mapping[str, Candidates],
    rule: Rule,
    mean_weights: Mapping[str, str] | str,
    on_progress: Callable[[], object] = lambda: None,
) -> EnsembleScore:
    """Score ensembles of every number of members by the official SQuAD v1.1 evaluation.

    `questions` have gold answers, and every member answers all of them. `mean_weights` are the answers of the model
    with the mean of the members' weights, or why there is none. `on_progress` is called after each ensemble. Raises
    `DataError` without a question.
    """
    if not questions:
        raise DataError("there is no question with an answer to score")
    articles: Articles = [question.article for question in questions]
    score = _Scorer(questions)
    answers = list(members.values())
    sizes: list[SizeRow] = []
    for size in range(1, len(answers) + 1):
        scored = []
        for chosen in some_ensembles(len(answers), size):
            scored.append(score([combine([answers[m][each.id] for m in chosen], rule)[0].text for each in questions]))
            on_progress()
        means = {metric: _mean([values[metric] for values in scored]) for metric in METRICS}
        if size == 1:
            singles = means
        sizes.append(
            SizeRow(
                members=size,
                scores={metric: [sum(each[metric]) / len(questions) for each in scored] for metric in METRICS},
                metrics=_against(singles, means, articles),
            )
        )
    is_mean = not isinstance(mean_weights, str)
    return EnsembleScore(
        rule=rule,
        names=list(members),
        questions=len(questions),
        articles=len(set(articles)) if all(articles) else None,
        no_interval=why_no_interval(articles),
        sizes=sizes,
        mean_weights=_against(singles, score([mean_weights[each.id] for each in questions]), articles)
        if not isinstance(mean_weights, str)
        else None,
        no_mean=None if is_mean else str(mean_weights),
    )


Values = dict[str, list[float]]
"""Metric -> percent of each question."""


class _Scorer:
    """Scores texts; each text of a question once, since most ensembles give the same."""

    def __init__(self, questions: Sequence[GoldQuestion]) -> None:
        self._questions = questions
        self._known: list[dict[str, QuestionScore]] = [{} for _ in questions]

    def __call__(self, texts: Sequence[str]) -> Values:
        found = [self._score(number, text) for number, text in enumerate(texts)]
        return {metric: [100.0 * getattr(each, metric) for each in found] for metric in METRICS}

    def _score(self, number: int, text: str) -> QuestionScore:
        known, question = self._known[number], self._questions[number]
        if text not in known:
            (known[text],) = question_scores({question.id: question.answers}, {question.id: text})
        return known[text]


def _mean(values: Sequence[Sequence[float]]) -> list[float]:
    return [math.fsum(of_question) / len(values) for of_question in zip(*values, strict=True)]


def _against(a: Values, b: Values, articles: Articles) -> dict[str, Metric]:
    return {metric: paired([a[metric]], [b[metric]], articles) for metric in METRICS}
