"""What averages of other widths score, question by question, and what choosing one of them is worth.

The best of a grid is never a result: it was chosen for its luck on these questions, too. The width is chosen on every
other article and scored on the rest, both ways.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bidaf.evaluation.comparison import Metric, Values, paired
from bidaf.evaluation.statistics import Articles, cross_fit, why_no_interval

Share = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class _Recorded(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class SweptSet(_Recorded):
    """One weight set of a sweep."""

    weights: str
    half_life: Share | None
    """Steps after which a weight's share has halved; for other than exponential averages, that of the same mean age."""
    predicted_error: Share
    """Of the synthesis, as a share of the distance between the average and the raw weights."""
    initial_share: float
    """Share of the untrained initial weights."""
    exact_match: list[bool] | None
    """For each question; None where the predicted error is too large to be worth a score."""
    f1: list[Annotated[float, Field(ge=0.0, le=1.0)]] | None


class Sweep(_Recorded):
    """The weight sets of one checkpoint that were scored so far."""

    step: int
    checkpoint: str
    """Checksum of the checkpoint's own checksums: scores of other weights do not count."""
    ids: list[str]
    articles: list[str | None]
    sets: list[SweptSet] = []

    @model_validator(mode="after")
    def _one_value_for_each_question(self) -> Sweep:
        scored = [each for each in self.sets if (each.exact_match, each.f1) != (None, None)]
        lists = [self.articles, *(values for each in scored for values in (each.exact_match, each.f1))]
        if any(values is None or len(values) != len(self.ids) for values in lists):
            raise ValueError("expected an article, and EM and F1 of each scored set, for each question")
        return self


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One weight set (B of each metric) against the reference (A)."""

    swept: SweptSet
    exact_match: Metric
    f1: Metric


@dataclass(frozen=True, slots=True)
class Choice:
    """The width chosen on every other article and scored on the rest."""

    chosen: tuple[str, str]
    """By the first, third, ... article, and by the others."""
    scored: tuple[float, float]
    """F1 of each choice on the articles that took no part in it."""
    f1: Metric
    """Every question by the choice that its article took no part in (B), against the reference (A)."""


@dataclass(frozen=True, slots=True)
class SweepSummary:
    """A sweep, summarized for people."""

    step: int
    questions: int
    reference: str
    """`ema`, or `raw` where there is no shadow."""
    rows: list[SweepRow]
    refused: list[SweptSet]
    """Sets that were not scored, for their predicted error."""
    no_interval: str | None
    choice: Choice | None
    """None where there is nothing to choose, or where no interval is honest."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the questions."""

        def described(swept: SweptSet) -> dict[str, Any]:
            return swept.model_dump(exclude={"exact_match", "f1"})

        def against_reference(metric: Metric) -> dict[str, Any]:
            return metric.b.to_dict() | {"gain": metric.difference.to_dict()}

        choice = self.choice and {
            "chosen": list(self.choice.chosen),
            "scored": list(self.choice.scored),
            "f1": against_reference(self.choice.f1),
        }
        return {
            "step": self.step,
            "questions": self.questions,
            "reference": self.reference,
            "sets": [
                described(row.swept)
                | {"exact_match": against_reference(row.exact_match), "f1": against_reference(row.f1)}
                for row in self.rows
            ],
            "refused": [described(swept) for swept in self.refused],
            "no_interval": self.no_interval,
            "choice": choice,
        }


def summarize(sweep: Sweep) -> SweepSummary | None:
    """Scores, their differences to the reference and the cross-fitted choice; None before the reference is scored."""
    exact, f1 = (
        {
            swept.weights: [[100.0 * value for value in values]]
            for swept in sweep.sets
            if (values := getattr(swept, name))
        }
        for name in ("exact_match", "f1")
    )
    reference = "ema" if "ema" in f1 else "raw"
    if reference not in f1:
        return None
    articles = sweep.articles
    no_interval = why_no_interval(articles)
    return SweepSummary(
        step=sweep.step,
        questions=len(sweep.ids),
        reference=reference,
        rows=[
            SweepRow(
                swept,
                exact_match=paired(exact[reference], exact[swept.weights], articles),
                f1=paired(f1[reference], f1[swept.weights], articles),
            )
            for swept in sweep.sets
            if swept.weights in f1
        ],
        refused=[swept for swept in sweep.sets if swept.weights not in f1],
        no_interval=no_interval,
        choice=None if no_interval or len(f1) < 3 else _choose(f1, reference, articles),
    )


def _choose(f1: dict[str, Values], reference: str, articles: Articles) -> Choice:
    found = cross_fit({name: values for name, (values,) in f1.items()}, articles)
    return Choice(found.chosen, found.scored, paired(f1[reference], [found.values], articles))
