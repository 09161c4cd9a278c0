"""Two systems on the same questions: scores, their difference with its interval, and a verdict in words.

Percent throughout. Needs neither PyTorch nor numpy, so that two prediction files are compared at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bidaf.errors import DataError
from bidaf.evaluation.breakdowns import group, kinds_of
from bidaf.evaluation.metrics import V1, V2, has_unanswerable, question_scores
from bidaf.evaluation.questions import GoldQuestion
from bidaf.evaluation.squad_v1 import QuestionScore
from bidaf.evaluation.statistics import Articles, Estimate, McNemar, estimate, mcnemar, why_no_interval
from bidaf.files.reading import quote

LISTED_IDS = 3
PLAIN = ("a", "b", "seeds", "rule", "questions", "articles", "missing", "unknown", "unanswerable")

Values = list[list[float]]
"""`[seeds, questions]`, percent."""


@dataclass(frozen=True, slots=True)
class System:
    """What is compared: its name, and for each of its seeds an answer to every question, by id."""

    name: str
    answers: Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of A and B, and B minus A."""

    a: Estimate
    b: Estimate
    difference: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {name: getattr(self, name).to_dict() for name in ("a", "b", "difference")}


@dataclass(frozen=True, slots=True)
class Row:
    """F1 of the questions of one kind, averaged over the seeds; the interval is that of the articles alone."""

    label: str
    questions: int
    a: float
    b: float
    difference: Estimate


@dataclass(frozen=True, slots=True)
class Comparison:
    """B against A."""

    a: str
    b: str
    seeds: int
    rule: str
    """`SQuAD v1.1` or `SQuAD v2.0`."""
    questions: int
    articles: int | None
    """None where they are unknown."""
    metrics: dict[str, Metric]
    """`exact_match` and `f1`; by v2.0 also `answerable_f1` and `unanswerable_f1`, where there are such questions."""
    mcnemar: list[McNemar]
    """Exact matches of only one of the two, for each seed."""
    no_interval: str | None
    """Why there is no interval; None where there is one."""
    breakdowns: dict[str, list[Row]]
    missing: int
    """Questions that neither A nor B answers; they count 0 for both."""
    unknown: int
    """Answered ids that are not in the data; they change no figure."""
    unanswerable: int
    """Questions without a gold answer that were left out."""

    @property
    def better(self) -> str | None:
        """`A` or `B` where the interval of the difference in F1 leaves out zero; else None."""
        interval = self.metrics["f1"].difference.interval
        if interval is None or interval[0] <= 0 <= interval[1]:
            return None
        return "B" if interval[0] > 0 else "A"

    @property
    def verdict(self) -> str:
        """In words, without figures."""
        if self.no_interval:
            return f"no verdict: {self.no_interval}"
        if self.better is None:
            return f"not distinguishable on these {self.articles} articles"
        return f"{self.better} is better"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; every difference is B minus A."""
        return {
            **{name: getattr(self, name) for name in PLAIN},
            "metrics": {name: metric.to_dict() for name, metric in self.metrics.items()},
            "mcnemar": [{**asdict(each), "p_value": each.p_value} for each in self.mcnemar],
            "better": self.better,
            "verdict": self.verdict,
            "no_interval": self.no_interval,
            "breakdowns": {
                kind: [
                    {"label": row.label, "questions": row.questions, "a": row.a, "b": row.b}
                    | {"difference": row.difference.to_dict()}
                    for row in rows
                ]
                for kind, rows in self.breakdowns.items()
            },
        }


def paired(a: Values, b: Values, articles: Articles) -> Metric:
    """A metric of A and B, whose difference is taken question by question and seed by seed."""
    differences = [[y - x for x, y in zip(of_a, of_b, strict=True)] for of_a, of_b in zip(a, b, strict=True)]
    return Metric(estimate(a, articles), estimate(b, articles), estimate(differences, articles))


def compare(questions: Sequence[GoldQuestion], a: System, b: System, *, answerable_only: bool = False) -> Comparison:
    """Score both systems by the official SQuAD evaluation, and compare them question by question.

    The rule is v2.0 when any question has no gold answer, else v1.1; with `answerable_only`, those are left out. Seeds
    are paired in their order. Raises `DataError` where the systems answered different questions, or none of these.
    """
    _refuse_different_questions(a, b)
    scored = [question for question in questions if question.answers or not answerable_only]
    gold = {question.id: question.answers for question in scored}
    answered = a.answers[0].keys()
    if gold.keys().isdisjoint(answered):
        raise DataError(f"{a.name} and {b.name} answer no question of this data; name the data that they answered")
    articles = [question.article for question in scored]
    of_a, of_b = ([question_scores(gold, answers) for answers in system.answers] for system in (a, b))
    f1_a, f1_b = _values(of_a, "f1"), _values(of_b, "f1")
    return Comparison(
        a=a.name,
        b=b.name,
        seeds=len(of_a),
        rule=V2 if has_unanswerable(gold) else V1,
        questions=len(scored),
        articles=len(set(articles)) if all(articles) else None,
        metrics={
            "exact_match": paired(_values(of_a, "exact_match"), _values(of_b, "exact_match"), articles),
            "f1": paired(f1_a, f1_b, articles),
            **_by_answerability(scored, f1_a, f1_b),
        },
        mcnemar=[
            mcnemar([score.exact_match for score in of_one], [score.exact_match for score in of_other])
            for of_one, of_other in zip(of_a, of_b, strict=True)
        ],
        no_interval=why_no_interval(articles),
        breakdowns=_breakdowns(scored, _mean(f1_a), _mean(f1_b), articles),
        missing=len(gold.keys() - answered),
        unknown=len(answered - {question.id for question in questions}),
        unanswerable=len(questions) - len(scored),
    )


def _refuse_different_questions(a: System, b: System) -> None:
    first = a.answers[0].keys()
    for system in (a, b):
        for answers in system.answers:
            if answers.keys() != first:
                more, fewer = _listed(first - answers.keys()), _listed(answers.keys() - first)
                raise DataError(
                    f"{a.name} and {system.name} answer different questions: {more} are answered by the first alone, "
                    f"{fewer} by the second alone"
                )


def _listed(ids: set[str]) -> str:
    if not ids:
        return "none"
    shown = ", ".join(quote(id) for id in sorted(ids)[:LISTED_IDS])
    return f"{len(ids):,} ({shown}{', ...' if len(ids) > LISTED_IDS else ''})"


def _values(scores: list[list[QuestionScore]], metric: str) -> Values:
    return [[100.0 * getattr(score, metric) for score in of_seed] for of_seed in scores]


def _by_answerability(questions: Sequence[GoldQuestion], a: Values, b: Values) -> dict[str, Metric]:
    """F1 of the questions with an answer and of those without one; nothing where all have an answer."""
    if all(question.answers for question in questions):
        return {}
    found = {}
    for name, answerable in (("answerable_f1", True), ("unanswerable_f1", False)):
        numbers = [number for number, question in enumerate(questions) if bool(question.answers) is answerable]
        if numbers:
            of_a, of_b = ([[of_seed[number] for number in numbers] for of_seed in values] for values in (a, b))
            found[name] = paired(of_a, of_b, [questions[number].article for number in numbers])
    return found


def _mean(values: Values) -> list[float]:
    return [sum(of_question) / len(values) for of_question in zip(*values, strict=True)]


def _breakdowns(
    questions: Sequence[GoldQuestion], a: list[float], b: list[float], articles: Articles
) -> dict[str, list[Row]]:
    def row(label: str, numbers: list[int]) -> Row:
        of_a, of_b = ([values[number] for number in numbers] for values in (a, b))
        differences = [y - x for x, y in zip(of_a, of_b, strict=True)]
        difference = estimate([differences], [articles[number] for number in numbers])
        return Row(label, len(numbers), sum(of_a) / len(numbers), sum(of_b) / len(numbers), difference)

    groups = group([kinds_of(question) for question in questions])
    return {kind: [row(label, numbers) for label, numbers in rows.items()] for kind, rows in groups.items()}
