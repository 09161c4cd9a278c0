"""The weight sets of a run in training: every evaluation scores each, and every checkpoint keeps each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import Tensor

from bidaf.ema.average import ExponentialMovingAverage, trained_weights
from bidaf.model.bidaf import Bidaf
from bidaf.runs.averages import Average
from bidaf.runs.weight_sets import EMA, RAW, MovingAverage, RawWeights, WeightSet


@dataclass(frozen=True)
class ScoredSet:
    """A named weight set, as it is now."""

    name: str
    applied: Callable[[], AbstractContextManager[object]]
    """Within the block the model holds this set; afterwards, whatever happens, the raw weights."""
    tensors: Callable[[], Mapping[str, Tensor]]
    """The weights by name. Live tensors; clone to keep."""
    made: Callable[[], WeightSet]
    """How the set was made, as checkpoints record it."""


def scored_sets(model: Bidaf, ema: ExponentialMovingAverage | None) -> list[ScoredSet]:
    """All weight sets of a run, the raw weights first. Another set is another item here, and nothing else."""
    sets = [ScoredSet(RAW, nullcontext, lambda: dict(trained_weights(model)), RawWeights)]
    if ema is not None:
        sets.append(_shadow(ema))
    return sets


def synthesised_set(ema: ExponentialMovingAverage, average: Average, run: str) -> ScoredSet:
    """An average that was made of snapshots for this step alone."""
    tensors = average.tensors
    assert tensors is not None
    return ScoredSet(average.name, lambda: ema.applied(tensors), lambda: tensors, lambda: average.record(run))


def _shadow(ema: ExponentialMovingAverage) -> ScoredSet:
    # `state_dict` refuses while the shadow is applied: the model's weights are not the raw ones then.
    return ScoredSet(
        EMA,
        ema.applied,
        lambda: ema.state_dict()["shadow"],
        lambda: MovingAverage.model_validate({"decay": ema.decay, "warmup": ema.warmup, "steps": ema.steps}),
    )
