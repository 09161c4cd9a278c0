"""Timing of two implementations in turn, on the same input: ratios hold even while the machine does other things."""

from __future__ import annotations

import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch


@dataclass(frozen=True)
class Spread:
    """Median and extremes of several measurements."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Pairs:
    """Seconds that each implementation took on each input, measured in turn."""

    ours: list[float]
    baseline: list[float]

    @property
    def ratio(self) -> float:
        """Baseline over ours, all inputs together: how many times as fast ours is."""
        return sum(self.baseline) / sum(self.ours)

    @property
    def ratios(self) -> Spread:
        """The same input by input."""
        return Spread.of([baseline / ours for ours, baseline in zip(self.ours, self.baseline, strict=True)])


def in_turn(
    ours: Callable[[int], object],
    baseline: Callable[[int], object],
    rounds: int,
    device: torch.device,
    *,
    block: int = 1,
    warmup: int = 1,
) -> Pairs:
    """Time both on the inputs 0, 1, ..., taking turns every `block` inputs; who goes first changes each time.

    After each change of turns, `warmup` calls are not counted: they find memory as the other implementation left it.
    """
    pairs = Pairs([], [])
    both = [(ours, pairs.ours), (baseline, pairs.baseline)]
    for number in range(rounds):
        for work, _ in both:
            settle(partial(work, number), device)
    for turn, start in enumerate(range(0, rounds, block)):
        for work, seconds in both if turn % 2 == 0 else reversed(both):
            for number in range(warmup):
                work(start + number % block)
            for number in range(start, min(start + block, rounds)):
                seconds.append(seconds_of(partial(work, number), device))
    return pairs


def settle(work: Callable[[], object], device: torch.device) -> None:
    """On a CUDA device, call `work` until its steps are replayed: the first runs as written, the second is recorded."""
    for _ in range(3 if device.type == "cuda" else 0):
        work()


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds until the device has finished."""
    synchronize(device)
    began = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - began


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class PhaseClock:
    """Adds up the seconds of each named phase, over all threads."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._device = device
        self._lock = threading.Lock()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the block's time to this phase."""
        synchronize(self._device)
        began = time.perf_counter()
        try:
            yield
        finally:
            synchronize(self._device)
            with self._lock:
                self.seconds[name] += time.perf_counter() - began

    def shares(self) -> dict[str, float]:
        """Each phase's share of the total."""
        total = sum(self.seconds.values())
        return {name: seconds / total for name, seconds in self.seconds.items()}
