"""Averages that a run did not keep while it trained, synthesised from its snapshots, raw weights and shadow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bidaf.ema.average import WARMUPS
from bidaf.ema.synthesis import Profile, Target, exponential, pad, raw, solve
from bidaf.runs.snapshots import CorruptedSnapshot

MAX_UPDATES = 1_000_000  # profiles of a longer run take gigabytes


class Source(NamedTuple):
    """Weights that an average is made of."""

    name: str
    profile: Profile
    read: Callable[[], Mapping[str, Tensor]]
    """Raises `CorruptedSnapshot` with this name for a snapshot that is missing or not what was written."""


@dataclass(frozen=True)
class Average:
    """One average of a run, as near as its snapshots allow."""

    name: str
    """The target in its one spelling."""
    coefficients: dict[str, float]
    """Source -> its share; the shares add up to 1."""
    predicted_error: float
    """Share of the distance between the exact average and the raw weights."""
    initial_share: float
    """Share of the initial weights in the exact average."""
    tensors: dict[str, Tensor] | None
    """The weights by name; None where the predicted error is above the limit."""


def decays_of(decay: float, warmup: str, updates: int) -> NDArray[np.float64]:
    """What a shadow with these settings kept of itself at each update, [updates]."""
    return np.minimum(decay, [WARMUPS[warmup](number) for number in range(1, updates + 1)], dtype=np.float64)


def sources_of(
    decays: NDArray[np.float64],
    snapshots: Sequence[tuple[str, int, Callable[[], Mapping[str, Tensor]]]],
    shadow: Callable[[], Mapping[str, Tensor]],
    raw_weights: Callable[[], Mapping[str, Tensor]],
) -> list[Source]:
    """All that a run can make averages of after the updates with these decays.

    `snapshots` are (name, updates, read), oldest first.
    """
    sources = [Source(name, exponential(decays[:updates]), read) for name, updates, read in snapshots]
    return [*sources, Source("ema", exponential(decays), shadow), Source("raw", raw(len(decays)), raw_weights)]


def synthesize(
    targets: Sequence[Target], sources: Sequence[Source], decays: NDArray[np.float64], *, max_error: float
) -> tuple[list[Average], list[str]]:
    """Each target from the same sources, which are read once; and what was wrong with those that were left out.

    `sources` are those of `sources_of`. A target that is one of them is that one's very tensors. Those whose predicted
    error is above `max_error` are not computed. Raises `ValueError` for a tail longer than the run.
    """
    profiles = {str(target): target.profile(decays) for target in targets}
    usable, left_out = list(sources), []
    while True:
        planned = {name: _plan(profile, usable) for name, profile in profiles.items()}
        wanted = {name: coefficients for name, (coefficients, error) in planned.items() if error <= max_error}
        try:
            tensors = _combine(wanted, usable)
            break
        except CorruptedSnapshot as corruption:
            left_out.append(str(corruption))
            usable = [source for source in usable if source.name != corruption.name]
    averages = [
        Average(
            name,
            {source.name: float(c) for source, c in zip(usable, coefficients, strict=True) if c != 0.0},
            error,
            float(profiles[name][0]),
            tensors.get(name),
        )
        for name, (coefficients, error) in planned.items()
    ]
    return averages, left_out


def _plan(profile: Profile, sources: Sequence[Source]) -> tuple[NDArray[np.float64], float]:
    """Coefficients of the sources, and the predicted error."""
    for number, source in enumerate(sources):
        if np.array_equal(source.profile, profile):
            return np.eye(len(sources))[number], 0.0
    columns = np.stack([pad(source.profile, len(profile) - 1) for source in sources], axis=1)
    return solve(columns, profile)


def _combine(wanted: Mapping[str, NDArray[np.float64]], sources: Sequence[Source]) -> dict[str, dict[str, Tensor]]:
    """The sums with these coefficients, in fp64 and one source at a time."""
    sums: dict[str, dict[str, Tensor]] = {name: {} for name in wanted}
    for number, source in enumerate(sources):
        shares = {name: float(c[number]) for name, c in wanted.items() if c[number] != 0.0}
        for key, tensor in source.read().items() if shares else ():
            weights = tensor.detach().cpu()
            for name, share in shares.items():
                total = sums[name].setdefault(key, torch.zeros(weights.shape, dtype=torch.float64))
                total.add_(weights, alpha=share)
    return {name: {key: total.float() for key, total in totals.items()} for name, totals in sums.items()}
