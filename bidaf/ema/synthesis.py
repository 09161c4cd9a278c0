"""Any average of a training run, rebuilt afterwards from a few snapshots of one average. Needs NumPy alone.

Training passes through the weights w_0 (initial), w_1, ..., w_T. An average of them is described by its *profile*
p[0..T], the share that it holds of each; p sums to 1. A snapshot is an average as it was at an earlier step; its
profile ends in zeros. A sum of snapshots, with coefficients c that sum to 1, has the profile P c. It approaches a
wanted profile p by

    minimise || cum(P c - p) ||   subject to   sum(c) = 1,        cum(x)[j] = x[j] + x[j+1] + ... + x[T],  j >= 1

The norm is that of the cumulative profiles because weights walk: w_T - sum_t p_t w_t = sum_j (1 - cum(p)[j]) m_j, where
the moves m_j = w_j - w_(j-1), unlike the weights, are close to independent. For the same reason the error is known
without any weights: || cum(P c - p) || / || cum(p - raw) || of the distance between the wanted average and w_T.

    decays = np.full(T, 0.999)                                  # what the average kept at each update
    P = np.stack([pad(exponential(decays[:t]), T) for t in snapshot_updates] + [raw(T)], axis=1)
    fit = solve(P, Target.parse("half-life:2000").profile(decays))
    average = sum(c * weights for c, weights in zip(fit.coefficients, snapshots_and_raw_weights))
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Profile = NDArray[np.float64]
"""[T + 1]: an average's share of each of the weights w_0 (initial) ... w_T; sums to 1."""

# Of the uniform average over a whole run it is 12 ** -0.5; the power function covers no wider profile.
MIN_SIGMA, MAX_SIGMA = 1e-4, 0.289
MAX_HALF_LIFE = 1e9  # steps; at this the decay is 1 - 7e-10


def raw(updates: int) -> Profile:
    """The profile of the raw weights after `updates` updates: all of w_T."""
    profile = np.zeros(updates + 1)
    profile[-1] = 1.0
    return profile


def exponential(decays: ArrayLike) -> Profile:
    """The profile of an exponential average that started as w_0 and kept `decays[t]` [T] of itself at update t + 1.

    Covers warm-ups and changes of the decay; an update that was skipped is left out, as the weights did not move.
    """
    kept = np.asarray(decays, dtype=np.float64)
    survived = np.append(np.cumprod(kept[::-1])[::-1], 1.0)  # the share left after update t + 1 and all later ones
    return np.concatenate([survived[:1], (1.0 - kept) * survived[1:]])


def debiased(profile: Profile) -> Profile:
    """The same average without its share of the initial weights."""
    without = profile.copy()
    without[0] = 0.0
    without /= without.sum()
    return without


def power_function(sigma: float, updates: int) -> Profile:
    """The power function average of Karras et al. 2024 (arXiv 2312.02696) with relative width `sigma`.

    Its width grows with the run: sigma is the standard deviation of the profile, divided by T.
    """
    return exponential((1.0 - 1.0 / np.arange(1.0, updates + 1.0)) ** (gamma_of(sigma) + 1.0))


def gamma_of(sigma: float) -> float:
    """The exponent of the power function with this width: sigma^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3))."""
    square = sigma**-2
    return float(np.max(np.roots(np.array([1.0, 7.0, 16.0 - square, 12.0 - square])).real))


def tail(count: int, updates: int) -> Profile:
    """The mean of the last `count` weights."""
    profile = np.zeros(updates + 1)
    profile[-count:] = 1.0 / count
    return profile


def pad(profile: Profile, updates: int) -> Profile:
    """A profile of an earlier step, seen from after `updates` updates."""
    return np.pad(profile, (0, updates + 1 - len(profile)))


def is_kept(step: int, now: int, *, every: int, density: int) -> bool:
    """Whether the snapshot of `step`, a multiple of `every`, is among those that are kept at step `now`.

    Snapshots grow sparser with age: one of age x stays while its number is a multiple of the largest power of two
    up to x / density (age and number counted in snapshots). The rule needs no state, and what it keeps at one step
    it keeps at every earlier step: thinning often or rarely ends with the same set. Step 0 and the newest always stay.
    """
    if step > now:
        return False
    age = (now - step) // every
    stride = 1 << ((age // density).bit_length() - 1) if age >= density else 1
    return step // every % stride == 0


class Fit(NamedTuple):
    """What comes nearest to a wanted profile."""

    coefficients: NDArray[np.float64]
    """One per column; they sum to 1."""
    predicted_error: float
    """Share of the distance between the wanted average and the raw weights; 0 where that distance is 0."""


def solve(profiles: NDArray[np.float64], target: Profile) -> Fit:
    """The sum of averages that comes nearest to a target [T + 1], and its predicted error; see the module's head.

    `profiles` [T + 1, n] holds a column for each average that is available. The last column is that of the raw weights.
    """
    gap = _cumulative(target) - 1.0  # from the raw weights, whose cumulative profile is 1 everywhere
    size = float(np.linalg.norm(gap))
    if size == 0.0:
        return Fit(raw(profiles.shape[1] - 1), 0.0)
    columns = _cumulative(profiles[:, :-1]) - 1.0
    lengths = np.linalg.norm(columns, axis=0)
    lengths[lengths == 0.0] = 1.0
    columns /= lengths
    scaled = np.linalg.lstsq(columns, gap, rcond=1e-13)[0]
    error = float(np.linalg.norm(columns @ scaled - gap)) / size
    others = scaled / lengths
    return Fit(np.append(others, 1.0 - others.sum()), error)


def _cumulative(profile: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.cumsum(profile[:0:-1], axis=0)[::-1]


@dataclass(frozen=True)
class Target:
    """A named average: `raw`, `ema`, `decay:0.9995`, `half-life:1000`, `sigma:0.07`, `tail:4000` or `tail:25%`.

    `:debias` after a decay or half-life leaves the initial weights out.
    """

    kind: str
    value: float = 0.0
    debias: bool = False
    percent: bool = False

    @classmethod
    def parse(cls, name: str) -> Target:
        """Raises `ValueError` with one line that says what is wrong with the name."""
        kind, *rest = name.split(":")
        if kind in ("raw", "ema") and not rest:
            return cls(kind)
        if kind not in _RANGES or not rest:
            raise ValueError(f"{name!r} names no average; write {NOTATION}")
        text, *flags = rest
        percent = kind == "tail" and text.endswith("%")
        debias = flags == ["debias"]
        if flags and not (debias and kind in ("decay", "half-life")):
            raise ValueError(f"{name!r} has an unknown ending; only decay and half-life take one, which is :debias")
        try:
            value = float(text.removesuffix("%") if percent else text)
        except ValueError:
            raise ValueError(f"{name!r}: {text!r} is no number; write {NOTATION}") from None
        allowed, says = _RANGES["percent" if percent else kind]
        if not allowed(value):
            raise ValueError(f"{name!r} is out of range: {says}")
        return cls(kind, value, debias, percent)

    def __str__(self) -> str:
        """The name in canonical spelling: `decay:.9995` is `decay:0.9995`."""
        if self.kind in ("raw", "ema"):
            return self.kind
        number = str(int(self.value)) if self.value.is_integer() else repr(self.value)
        return f"{self.kind}:{number}{'%' if self.percent else ''}{':debias' if self.debias else ''}"

    def profile(self, decays: ArrayLike) -> Profile:
        """The profile after the updates of a run whose own average, `ema`, kept `decays` [T] of itself.

        Raises `ValueError` when the run is too short for it.
        """
        updates = len(np.asarray(decays))
        if self.kind == "ema":
            return exponential(decays)
        if self.kind == "raw" or updates == 0:
            return raw(updates)
        if self.kind == "sigma":
            return power_function(self.value, updates)
        if self.kind == "tail":
            count = max(1, round(self.value / 100 * updates)) if self.percent else int(self.value)
            if count > updates:
                raise ValueError(f"{self} is longer than the {updates:,} updates that were made")
            return tail(count, updates)
        decay = self.value if self.kind == "decay" else 0.5 ** (1.0 / self.value)
        profile = exponential(np.full(updates, decay))
        return debiased(profile) if self.debias else profile


def canonical(name: str) -> str:
    """The one spelling of an average's name, under which it is kept and looked up; any other name as it is."""
    try:
        return str(Target.parse(name))
    except ValueError:
        return name


NOTATION = "raw, ema, decay:0.9995, half-life:1000 (either with :debias), sigma:0.07, tail:25% or tail:4000"

_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "decay": (lambda value: 0.0 <= value < 1.0, "a decay is at least 0 and less than 1"),
    "half-life": (
        lambda value: 0.0 < value <= MAX_HALF_LIFE,
        f"a half-life is more than 0 and at most {MAX_HALF_LIFE:g} steps",
    ),
    "sigma": (lambda value: MIN_SIGMA <= value < MAX_SIGMA, f"sigma is at least {MIN_SIGMA:g} and below {MAX_SIGMA:g}"),
    "tail": (
        lambda value: value >= 1.0 and math.isfinite(value) and value.is_integer(),
        "a tail is a whole number of steps, or a share of the run such as 25%",
    ),
    "percent": (lambda value: 0.0 < value <= 100.0, "a tail is more than 0 % and at most 100 % of the run"),
}
