"""The results of an experiment, read from its run folders: scores by variant, and differences to the base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, NamedTuple

from bidaf.errors import DataError
from bidaf.evaluation.comparison import Comparison, System, compare
from bidaf.evaluation.predictions import read_predictions
from bidaf.evaluation.questions import GoldQuestion, questions_of_features
from bidaf.experiments.definition import Experiment, Job, Paper, Settings, by_variant
from bidaf.experiments.state import state_of
from bidaf.runs.data import open_data
from bidaf.runs.events import Evaluation
from bidaf.runs.layout import PREDICTIONS, predictions_file
from bidaf.runs.log import RunLog, read_run
from bidaf.runs.weight_sets import EMA, RAW

METRICS = ("exact_match", "f1")


class Summary(NamedTuple):
    """Mean over the seeds, and standard deviation between them."""

    mean: float
    spread: float | None
    """None for one seed."""


@dataclass(frozen=True)
class SeedResult:
    """One finished run."""

    seed: int
    log: RunLog
    best: Evaluation
    """The evaluation whose checkpoint the run answers with."""


@dataclass(frozen=True)
class VariantResult:
    """A variant and its finished runs."""

    name: str
    settings: Settings
    paper: Paper | None
    seeds: list[SeedResult]
    comparison: Comparison | None
    """With the base (A), over the seeds that both have; None for the base itself, and without such seeds."""

    def summary(self, weights: str, metric: str) -> Summary | None:
        """Of a metric of a weight set, in percent; None where no run has it."""
        values = [each.best.scores[weights][metric] for each in self.seeds if weights in each.best.scores]
        if not values:
            return None
        return Summary(fmean(values), stdev(values) if len(values) > 1 else None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        summaries = {
            weights: {metric: found._asdict() for metric in METRICS if (found := self.summary(weights, metric))}
            for weights in (RAW, EMA)
        }
        return {
            "variant": self.name,
            "settings": self.settings,
            "paper": self.paper and self.paper.model_dump(),
            "seeds": [
                {"seed": each.seed, "run": str(each.log.folder), "step": each.best.step, "scores": each.best.scores}
                for each in self.seeds
            ],
            "scores": {weights: scores for weights, scores in summaries.items() if scores},
            "difference": self.comparison
            and {name: metric.difference.to_dict() for name, metric in self.comparison.metrics.items()},
            "verdict": self.comparison and self.comparison.verdict,
        }


@dataclass(frozen=True)
class Results:
    """All variants, the base first."""

    experiment: Experiment
    variants: list[VariantResult]

    @property
    def base(self) -> VariantResult:
        """What the others are compared with."""
        return self.variants[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; every difference is variant minus base, of the weights that rank checkpoints."""
        return {"base": self.base.name, "variants": [variant.to_dict() for variant in self.variants]}


def collect(experiment: Experiment, jobs: Sequence[Job]) -> Results:
    """Read what is finished. Raises `DataError` where runs were scored on different questions, and as `state_of`."""
    finished = {name: _finished(of_variant) for name, of_variant in by_variant(list(jobs))}
    base = finished[experiment.base]
    questions = _questions(base[0].log) if base else []
    variants = []
    for name, variant in experiment.variants.items():
        comparison = _compare(experiment.base, base, name, finished[name], questions)
        variants.append(VariantResult(name, variant.settings, variant.paper, finished[name], comparison))
    return Results(experiment, variants)


def _finished(jobs: Sequence[Job]) -> list[SeedResult]:
    logs = [(job.seed, read_run(job.folder)) for job in jobs if state_of(job).status == "finished"]
    return [SeedResult(seed, log, log.best) for seed, log in logs if log.best]


def _compare(
    base: str, of_base: list[SeedResult], name: str, of_variant: list[SeedResult], questions: list[GoldQuestion]
) -> Comparison | None:
    a, b = ({each.seed: each for each in side} for side in (of_base, of_variant))
    common = [seed for seed in a if seed in b]
    if name == base or not common:
        return None
    systems = (System(side, [_answers(by_seed[seed]) for seed in common]) for side, by_seed in ((base, a), (name, b)))
    return compare(questions, *systems)


def _answers(result: SeedResult) -> dict[str, str]:
    """Of the weight set that ranks, as the evaluation stored them."""
    return read_predictions(result.log.folder / PREDICTIONS / predictions_file(result.best.step, result.best.ranked_by))


def _questions(log: RunLog) -> list[GoldQuestion]:
    if log.start is None:
        raise DataError(f"{log.folder} does not name its data")
    prepared_dir = str(log.settings("data").get("prepared_dir", ""))
    return questions_of_features(open_data(log.folder, log.start.features, prepared_dir).features("dev"))
