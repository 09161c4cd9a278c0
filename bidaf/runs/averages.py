"""Averages that a run did not keep while it trained, synthesised from its snapshots, raw weights and shadow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bidaf.config import SnapshotsConfig
from bidaf.ema.average import WARMUPS, mismatches
from bidaf.ema.synthesis import Profile, Target, exponential, pad, raw, solve
from bidaf.errors import DataError, UsageError
from bidaf.runs.checkpoint import Checkpoint
from bidaf.runs.layout import SNAPSHOTS
from bidaf.runs.snapshots import CorruptedSnapshot, SnapshotRecord, expected_records, read_snapshot, snapshot_path
from bidaf.runs.weight_sets import EMA, RAW, MovingAverage, Synthesis, WeightSet

MAX_ERROR, NOTABLE_ERROR = 0.05, 0.01  # predicted: refused above the one, reported above the other
LISTED_PROBLEMS = 3
MAX_UPDATES = 1_000_000  # profiles of a longer run take gigabytes


Reader = tuple[str, int, Callable[[], Mapping[str, Tensor]]]
"""A snapshot: name, updates until it was taken, and what reads it."""


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
    """The target in canonical spelling."""
    coefficients: dict[str, float]
    """Source -> its share; the shares add up to 1."""
    predicted_error: float
    """Share of the distance between the exact average and the raw weights."""
    initial_share: float
    """Share of the initial weights in the exact average."""
    tensors: dict[str, Tensor] | None
    """The weights by name; None where the predicted error is above the limit."""

    def record(self, run: str) -> Synthesis:
        """How it was made, in the run of this name."""
        return Synthesis(
            target=self.name,
            coefficients=self.coefficients,
            predicted_error=self.predicted_error,
            initial_share=self.initial_share,
            run=run.encode(errors="replace").decode(),  # the name of a folder need not be text
        )


class Resolved(NamedTuple):
    """Weight sets of a checkpoint, as their names ask for them."""

    sets: dict[str, tuple[dict[str, Tensor], WeightSet]]
    """Name in canonical spelling -> the weights by name, and how they were made."""
    notes: list[str]
    """What to know about those that were synthesised: their predicted error, and snapshots that were left out."""


def resolve_weights(checkpoint: Checkpoint, names: Sequence[str], *, allow_error: bool = False) -> Resolved:
    """The weight sets that a checkpoint holds, and those to be synthesised from its run's snapshots.

    Raises `UsageError` for a name that means nothing, and for an average whose predicted error is above `MAX_ERROR`,
    unless `allow_error`; `DataError` where the run kept no average or no snapshots.
    """
    sets: dict[str, tuple[dict[str, Tensor], WeightSet] | None] = {}
    targets = []
    for name in names:
        if name in (RAW, EMA) or name in checkpoint.weight_sets:
            sets[name] = checkpoint.weights(name), checkpoint.weight_sets[name]
        else:
            targets.append(_parse(name))
            sets[str(targets[-1])] = None  # in this order
    max_error = math.inf if allow_error else MAX_ERROR
    averages, notes = _synthesize_at(checkpoint, targets, max_error) if targets else ({}, [])
    return Resolved({name: held or averages[name] for name, held in sets.items()}, notes)


def _parse(name: str) -> Target:
    try:
        return Target.parse(name)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _synthesize_at(
    checkpoint: Checkpoint, targets: Sequence[Target], max_error: float
) -> tuple[dict[str, tuple[dict[str, Tensor], WeightSet]], list[str]]:
    kept = checkpoint.weight_sets.get(EMA)
    run = checkpoint.folder.resolve().parents[1]
    asked = ", ".join(map(str, targets))
    if not isinstance(kept, MovingAverage):
        raise DataError(f"{checkpoint.folder} can't give {asked}: its run kept no average (ema.enabled: false)")
    if not checkpoint.state.snapshots:
        raise DataError(
            f"{checkpoint.folder} can't give {asked}: its run took no snapshots, so {RAW} and {EMA} are all"
        )
    if kept.steps > MAX_UPDATES:
        raise DataError(f"{checkpoint.folder}: averages of more than {MAX_UPDATES:,} updates can't be synthesised")
    decays = decays_of(kept.decay, kept.warmup, kept.steps)
    records, settings = checkpoint.state.snapshots, checkpoint.config.ema.snapshots or SnapshotsConfig()
    records = expected_records(run / SNAPSHOTS, records, settings, checkpoint.step)
    snapshots = readers_of(run / SNAPSHOTS, records)
    sources = sources_of(decays, snapshots, lambda: checkpoint.weights(EMA), lambda: checkpoint.weights(RAW))
    try:
        averages, left_out = synthesize(targets, sources, decays, max_error=max_error)
    except ValueError as error:
        raise UsageError(f"{checkpoint.folder}: {error}") from None
    notes = [f"left out of the synthesis: {problem}" for problem in left_out[:LISTED_PROBLEMS]]
    if len(left_out) > LISTED_PROBLEMS:
        notes.append(f"left out of the synthesis: {len(left_out) - LISTED_PROBLEMS} more")
    made: dict[str, tuple[dict[str, Tensor], WeightSet]] = {}
    for average in averages:
        record = average.record(run.name)
        note = f"{average.name}: {record.summary}"
        if average.tensors is None:
            problem = f"more than {max_error:.0%} is refused: name a longer average, or take it with --allow-error"
            raise UsageError("; ".join([*notes, note, problem]))
        notes.append(f"warning: {note}" if average.predicted_error > NOTABLE_ERROR else note)
        made[average.name] = (average.tensors, record)
    return made, notes


def decays_of(decay: float, warmup: str, updates: int) -> NDArray[np.float64]:
    """What a shadow with these settings kept of itself at each update, [updates]."""
    return np.minimum(decay, [WARMUPS[warmup](number) for number in range(1, updates + 1)], dtype=np.float64)


def readers_of(folder: Path, records: Sequence[SnapshotRecord]) -> list[Reader]:
    """The snapshots of a run, from which `sources_of` makes averages; each is read when it is needed."""
    return [
        (snapshot_path(folder, record.step).stem, record.updates, partial(read_snapshot, folder, record))
        for record in records
    ]


def sources_of(
    decays: NDArray[np.float64],
    snapshots: Sequence[Reader],
    shadow: Callable[[], Mapping[str, Tensor]],
    raw_weights: Callable[[], Mapping[str, Tensor]],
) -> list[Source]:
    """All that a run can make averages of after the updates with these decays. Snapshots come oldest first."""
    sources = [Source(name, exponential(decays[:updates]), read) for name, updates, read in snapshots]
    return [*sources, Source(EMA, exponential(decays), shadow), Source(RAW, raw(len(decays)), raw_weights)]


def synthesize(
    targets: Sequence[Target], sources: Sequence[Source], decays: NDArray[np.float64], *, max_error: float
) -> tuple[list[Average], list[str]]:
    """Each target from the same sources, which are read once; and what was wrong with those that were left out.

    `sources` are those of `sources_of`. A target that is one of them is that one's very tensors. Those whose predicted
    error is above `max_error` are not computed. Raises `ValueError` for a tail longer than the run, `DataError` for
    sources that are not of one model.
    """
    profiles = {str(target): target.profile(decays) for target in targets}
    usable = list(sources)
    left_out: list[str] = []
    while True:
        planned = {name: _plan(profile, usable) for name, profile in profiles.items()}
        wanted = {name: coefficients for name, (coefficients, error) in planned.items() if error <= max_error}
        tensors, corrupted = _combine(wanted, usable)
        if not corrupted:
            break
        left_out += map(str, corrupted)
        names = {each.name for each in corrupted}
        usable = [source for source in usable if source.name not in names]
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


def _combine(
    wanted: Mapping[str, NDArray[np.float64]], sources: Sequence[Source]
) -> tuple[dict[str, dict[str, Tensor]], list[CorruptedSnapshot]]:
    """The sums with these coefficients, in fp64 and one source at a time; and what is wrong with sources of theirs.

    All that is wrong is found in one pass: fits take time, and a run whose snapshots were deleted lacks every one.
    """
    corrupted: list[CorruptedSnapshot] = []
    if not wanted:
        return {}, corrupted
    raw_weights = sources[-1].read()
    sums = {
        name: {key: torch.zeros(tensor.shape, dtype=torch.float64) for key, tensor in raw_weights.items()}
        for name in wanted
    }
    for number, source in enumerate(sources):
        shares = {name: float(c[number]) for name, c in wanted.items() if c[number] != 0.0}
        if not shares:
            continue
        try:
            tensors = source.read()
        except CorruptedSnapshot as corruption:
            corrupted.append(corruption)
            continue
        if problems := mismatches(raw_weights, tensors):
            raise DataError(f"the tensors of {source.name} do not fit the raw weights: {problems[0]}")
        for key, tensor in tensors.items():
            weights = tensor.detach().cpu()
            for name, share in shares.items():
                sums[name][key].add_(weights, alpha=share)
    return {name: {key: total.float() for key, total in totals.items()} for name, totals in sums.items()}, corrupted
