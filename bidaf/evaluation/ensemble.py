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
from bidaf.evaluation.no_answer import ScoredAnswers, score_ranked
from bidaf.evaluation.questions import GoldQuestion
from bidaf.evaluation.squad_v2 import NO_ANSWER_THRESHOLD
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


def first_spans(answers: Sequence[Prediction], n: int) -> list[Prediction]:
    """The first `n` spans, and "no answer" if it is among the answers, in its place."""
    kept, spans = [], 0
    for answer in answers:
        spans += not answer.is_empty
        if answer.is_empty or spans <= n:
            kept.append(answer)
    return kept


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
        min(answers, key=_rank)._replace(
            probability=math.fsum(each.probability for each in answers) / len(members), score=None
        )
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
        # The root comes first, for the product of many small numbers is 0.
        return math.prod(math.pow(each, 1 / len(members)) for each in found)

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
    no_answer_threshold: float | None
    """Of the whole ensemble, chosen on these questions; None where no member knows "no answer"."""
    answers: dict[str, list[Prediction]]
    """Of the whole ensemble: question id -> its answer, then others, most probable first."""

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
            "no_answer_threshold": self.no_answer_threshold,
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
    mean_weights: Candidates | str,
    on_progress: Callable[[], object] = lambda: None,
) -> EnsembleScore:
    """Score ensembles of every number of members as the official SQuAD evaluation does.

    That is v1.1, and `questions` have gold answers, or v2.0 for members that know "no answer"; then each ensemble's
    threshold is chosen here. Every member answers all questions, each with a span. `mean_weights` are the answers of
    the model with the mean of the members' weights, or why there is none. `on_progress` is called after each ensemble.
    Raises `DataError` without a question, and where only some answers come with that of "no answer".
    """
    if not questions:
        raise DataError("there is no question with an answer to score")
    _refuse_mixture(questions, members)
    gold = {question.id: list(question.answers) for question in questions}
    articles: Articles = [question.article for question in questions]

    def score(answers: Candidates) -> ScoredAnswers:
        return score_ranked(gold, articles, answers)

    found = list(members.values())
    sizes: list[SizeRow] = []
    singles: Values = {}
    for size in range(1, len(found) + 1):
        scored = []
        for chosen in some_ensembles(len(found), size):
            scored.append(score({id: combine([found[number][id] for number in chosen], rule) for id in gold}))
            on_progress()
        means = _mean([_values(each) for each in scored])
        singles = singles or means
        scores = {metric: [each.metrics[metric] for each in scored] for metric in METRICS}
        sizes.append(SizeRow(size, scores, _against(singles, means, articles)))
    whole = scored[0]
    mean = None if isinstance(mean_weights, str) else _values(score({id: mean_weights[id] for id in gold}))
    return EnsembleScore(
        rule=rule,
        names=list(members),
        questions=len(questions),
        articles=len(set(articles)) if all(articles) else None,
        no_interval=why_no_interval(articles),
        sizes=sizes,
        mean_weights=None if mean is None else _against(singles, mean, articles),
        no_mean=mean_weights if isinstance(mean_weights, str) else None,
        no_answer_threshold=whole.metrics.get(NO_ANSWER_THRESHOLD),
        answers=whole.answers,
    )


def _refuse_mixture(questions: Sequence[GoldQuestion], members: Mapping[str, Candidates]) -> None:
    knows = {
        name: {any(answer.is_empty for answer in answers[question.id]) for question in questions}
        for name, answers in members.items()
    }
    if mixed := [name for name, found in knows.items() if len(found) > 1]:
        raise DataError(f'{mixed[0]} gives some questions a probability of "no answer", and others none')
    if len(set(map(frozenset, knows.values()))) > 1:
        with_it, without = (next(name for name in knows if knows[name] == {each}) for each in (True, False))
        raise DataError(f'{with_it} gives each question a probability of "no answer", and {without} does not')


Values = dict[str, list[float]]
"""Metric -> percent of each question."""


def _values(scored: ScoredAnswers) -> Values:
    return {metric: [100.0 * getattr(each, metric) for each in scored.questions] for metric in METRICS}


def _mean(several: Sequence[Values]) -> Values:
    return {
        metric: [math.fsum(each) / len(several) for each in zip(*(values[metric] for values in several), strict=True)]
        for metric in METRICS
    }


def _against(a: Values, b: Values, articles: Articles) -> dict[str, Metric]:
    return {metric: paired([a[metric]], [b[metric]], articles) for metric in METRICS}
