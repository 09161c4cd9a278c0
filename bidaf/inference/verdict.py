"""Did the average help? What the end of training and every export say about a checkpoint's shadow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bidaf.errors import DataError
from bidaf.evaluation.comparison import System, compare
from bidaf.evaluation.statistics import Estimate
from bidaf.inference.stored import StoredModel
from bidaf.messages import say
from bidaf.runs.averages import decays_of
from bidaf.runs.checkpoint import Checkpoint
from bidaf.runs.weight_sets import EMA, RAW, MovingAverage

LITTLE = 0.01
"""Up to this share of the initial weights in a shadow does no harm that a score shows."""


@dataclass(frozen=True)
class AverageVerdict:
    """The shadow against the raw weights of one checkpoint, on the dev questions."""

    step: int
    f1: Estimate
    """F1 of the shadow minus F1 of the raw weights, in points."""
    articles: int | None
    no_interval: str | None
    """Why there is no interval; None where there is one."""
    initial_share: float
    """Share of the untrained initial weights in the shadow."""
    decay: float
    """What the shadow keeps of itself at each update now."""

    @property
    def is_behind(self) -> bool:
        """Whether the shadow scores less than the raw weights, by however little."""
        return self.f1.value < 0

    @property
    def sentence(self) -> str:
        """Who is ahead, by how much, whether that is more than chance, and what to do where the shadow is behind."""
        points = abs(self.f1.value)
        said = f"the shadow is {points:.2f} F1 {'behind' if self.is_behind else 'above'} the raw weights"
        if self.f1.value == 0:
            said = "the shadow and the raw weights have the same F1"
        said += f" ({self._certainty})"
        return f"{said}: {self._cause_and_advice}" if self.is_behind else said

    @property
    def _certainty(self) -> str:
        if (interval := self.f1.interval) is None:
            return f"no interval: {self.no_interval}"
        figures = f"95 % interval {interval[0]:+.2f} to {interval[1]:+.2f}"
        if interval[0] <= 0 <= interval[1]:
            figures += f", not distinguishable on these {self.articles} articles"
        return figures

    @property
    def _cause_and_advice(self) -> str:
        if self.initial_share > LITTLE:
            more = math.ceil(math.log(LITTLE / self.initial_share) / math.log(self.decay))
            return (
                f"{self.initial_share:.1%} of it is still the untrained initial weights; train {more:,} more steps, "
                "start with ema.warmup: ramp, or use --weights raw"
            )
        memory = round(1 / (1 - self.decay))
        return (
            f"it averages over about {memory:,} steps, in which the weights still improved; train more steps, choose "
            "a smaller ema.decay, or use --weights raw"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "step": self.step,
            "f1": self.f1.to_dict(),
            "articles": self.articles,
            "no_interval": self.no_interval,
            "initial_share": self.initial_share,
            "sentence": self.sentence,
        }


def judge_average(checkpoint: Checkpoint) -> AverageVerdict | None:
    """The verdict on a checkpoint's shadow, from the answers that its evaluation stored.

    None where the run keeps no average, or did not evaluate this step. Raises `DataError` for answers or questions that
    can't be read.
    """
    raw, ema = (StoredModel(checkpoint.folder, name, checkpoint) for name in (RAW, EMA))
    made = checkpoint.weight_sets.get(EMA)
    if not isinstance(made, MovingAverage) or (answers := ema.stored_answers()) is None:
        return None
    if (others := raw.stored_answers()) is None or (questions := raw.dev_questions()) is None:
        return None
    found = compare(questions, System("raw", [others]), System("ema", [answers]))
    decays = decays_of(made.decay, made.warmup, made.steps)
    return AverageVerdict(
        step=checkpoint.step,
        f1=found.metrics["f1"].difference,
        articles=found.articles,
        no_interval=found.no_interval,
        initial_share=float(decays.prod()),
        decay=float(decays[-1]) if made.steps else made.decay,
    )


def say_verdict(checkpoint: Checkpoint) -> None:
    """Say the verdict on a checkpoint's shadow, if there is one; answers that can't be read end no command."""
    try:
        verdict = judge_average(checkpoint)
    except DataError as error:
        say(f"no verdict: {error}")
        return
    if verdict:
        say(f"verdict: {verdict.sentence}")
