"""Averages rebuilt from snapshots: profiles against weights that are pulses, and the error known in advance."""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import bidaf.ema.synthesis
from bidaf.ema.average import WARMUPS, ExponentialMovingAverage
from bidaf.ema.synthesis import (
    Fit,
    Profile,
    Target,
    debiased,
    exponential,
    gamma_of,
    is_kept,
    pad,
    power_function,
    raw,
    solve,
    tail,
)


def decays_of(updates: int, decay: float = 0.999, warmup: str = "none") -> list[float]:
    return [min(decay, WARMUPS[warmup](n)) for n in range(1, updates + 1)]


# ---- profiles


@pytest.mark.parametrize("warmup", WARMUPS)
@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999])
def test_the_profile_is_that_read_off_by_pulses(decay: float, warmup: str) -> None:
    """Weight t is 1 after update t alone and 0 before and after: what the average holds of it is its share."""
    updates = 200
    model = nn.Linear(updates + 1, 1, bias=False, dtype=torch.float64)

    def pulse(step: int) -> None:
        with torch.no_grad():
            model.weight.zero_()
            model.weight[0, step] = 1.0

    pulse(0)
    ema = ExponentialMovingAverage(model, decay=decay, warmup=warmup)
    for step in range(1, updates + 1):
        pulse(step)
        ema.update()
    found = ema.shadow["weight"][0].numpy()
    np.testing.assert_allclose(found, exponential(decays_of(updates, decay, warmup)), rtol=0, atol=1e-14)


PROFILES: dict[str, Profile] = {
    "raw": raw(50),
    "constant": exponential(np.full(50, 0.9)),
    "warm-up": exponential(decays_of(50, 0.9, "ramp")),
    "debiased": debiased(exponential(np.full(50, 0.999))),
    "power": power_function(0.1, 50),
    "tail": tail(7, 50),
    "of the initial weights": pad(exponential([]), 50),
}


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_sums_to_one(name: str) -> None:
    assert len(PROFILES[name]) == 51
    assert PROFILES[name].sum() == pytest.approx(1.0, rel=1e-12)
    assert (PROFILES[name] >= 0).all()


def test_a_debiased_average_has_nothing_of_the_start_and_the_same_proportions() -> None:
    profile = exponential(np.full(50, 0.99))
    assert profile[0] == pytest.approx(0.99**50)
    without = debiased(profile)
    assert without[0] == 0.0
    np.testing.assert_allclose(without[1:] / without[-1], profile[1:] / profile[-1])


@pytest.mark.parametrize(("sigma", "gamma"), [(0.05, 16.97), (0.10, 6.94), (0.25, 0.72)])
def test_the_power_function_is_that_of_the_paper(sigma: float, gamma: float) -> None:
    """Karras et al. 2024 give gamma 16.97 and 6.94 for their two averages; p_t is proportional to t^gamma."""
    assert gamma_of(sigma) == pytest.approx(gamma, abs=0.005)
    updates = 5_000
    profile = power_function(sigma, updates)
    steps = np.arange(updates + 1) / updates
    width = math.sqrt((profile * steps**2).sum() - (profile * steps).sum() ** 2)
    assert width == pytest.approx(sigma, rel=1e-3)
    assert profile[0] == 0.0
    assert profile[4_000] / profile[2_000] == pytest.approx(2 ** gamma_of(sigma), rel=0.01)


def test_tensorflows_ramp_is_a_power_function() -> None:
    """(1 + n) / (10 + n) multiplies to the profile of gamma 8."""
    ramp = exponential(decays_of(5_000, 0.9999999, "ramp"))
    sigma = math.sqrt(9 / (10**2 * 11))
    assert gamma_of(sigma) == pytest.approx(8)
    assert np.abs(ramp - power_function(sigma, 5_000)).sum() < 0.01


# ---- names


@pytest.mark.parametrize(
    ("name", "spelt"),
    [
        ("raw", "raw"),
        ("ema", "ema"),
        ("decay:.9995", "decay:0.9995"),
        ("decay:0", "decay:0"),
        ("decay:0.9995:debias", "decay:0.9995:debias"),
        ("half-life:1e3", "half-life:1000"),
        ("half-life:0.5:debias", "half-life:0.5:debias"),
        ("sigma:0.07", "sigma:0.07"),
        ("tail:25%", "tail:25%"),
        ("tail:12.50%", "tail:12.5%"),
        ("tail:4000", "tail:4000"),
    ],
)
def test_a_name_has_one_spelling(name: str, spelt: str) -> None:
    target = Target.parse(name)
    assert str(target) == spelt
    assert Target.parse(spelt) == target


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "names no average"),
        ("emma", "names no average"),
        ("ema:0.9", "names no average"),
        ("decay", "names no average"),
        ("decay:", "is no number"),
        ("decay:x", "is no number"),
        ("decay:1", "less than 1"),
        ("decay:-0.1", "at least 0"),
        ("decay:nan", "out of range"),
        ("decay:0.9:bias", "unknown ending"),
        ("decay:0.9:debias:debias", "unknown ending"),
        ("decay:50%", "is no number"),
        ("half-life:0", "more than 0"),
        ("half-life:inf", "at most"),
        ("sigma:0", "at least 0.0001"),
        ("sigma:0.289", "below 0.289"),
        ("sigma:0.1:debias", "unknown ending"),
        ("tail:0", "whole number"),
        ("tail:1.5", "whole number"),
        ("tail:inf", "whole number"),
        ("tail:0%", "more than 0 %"),
        ("tail:101%", "at most 100 %"),
        ("tail:25%:debias", "unknown ending"),
    ],
)
def test_a_name_that_is_wrong_is_one_line(name: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        Target.parse(name)
    assert "\n" not in str(caught.value)


def test_a_target_has_the_profile_of_its_name() -> None:
    decays = decays_of(400, 0.99, "ramp")
    for name, profile in {
        "raw": raw(400),
        "ema": exponential(decays),
        "decay:0.9": exponential(np.full(400, 0.9)),
        "half-life:10": exponential(np.full(400, 0.5**0.1)),
        "half-life:10:debias": debiased(exponential(np.full(400, 0.5**0.1))),
        "sigma:0.07": power_function(0.07, 400),
        "tail:25%": tail(100, 400),
        "tail:0.01%": raw(400),
        "tail:400": tail(400, 400),
    }.items():
        np.testing.assert_array_equal(Target.parse(name).profile(decays), profile)
    with pytest.raises(ValueError, match="tail:401 is longer than the 400 updates"):
        Target.parse("tail:401").profile(decays)


@pytest.mark.parametrize("name", ["raw", "ema", "decay:0.9", "sigma:0.1", "tail:25%", "half-life:3:debias"])
def test_before_the_first_update_every_average_is_the_initial_weights(name: str) -> None:
    np.testing.assert_array_equal(Target.parse(name).profile([]), [1.0])


# ---- the fit


def run_profiles(updates: int, *, every: int = 50, density: int = 8, warmup: str = "none") -> Any:
    decays = np.array(decays_of(updates, warmup=warmup))
    steps = [step for step in range(0, updates + 1, every) if is_kept(step, updates, every=every, density=density)]
    columns = [*(pad(exponential(decays[:step]), updates) for step in steps), exponential(decays), raw(updates)]
    return decays, len(steps), np.stack(columns, axis=1)


def fit(updates: int, name: str, **options: Any) -> Fit:
    decays, _, profiles = run_profiles(updates, **options)
    return solve(profiles, Target.parse(name).profile(decays))


WIDE = ["decay:0.99", "decay:0.995", "decay:0.998", "decay:0.9995", "decay:0.9999", "decay:0.9999:debias"]
WIDE += ["sigma:0.02", "sigma:0.05", "sigma:0.1", "sigma:0.25", "tail:5%", "tail:10%", "tail:25%", "tail:50%"]


@pytest.mark.parametrize("updates", [8_992, 13_500, 17_500, 20_000])
def test_a_run_on_squad_rebuilds_every_usual_average_within_a_percent(updates: int) -> None:
    decays, files, profiles = run_profiles(updates)
    assert files <= 55
    errors = {name: solve(profiles, Target.parse(name).profile(decays)).predicted_error for name in WIDE}
    assert {name: error for name, error in errors.items() if error > 0.01} == {}


def test_what_is_among_the_columns_is_found_exactly() -> None:
    profiles = run_profiles(1_000)[2]
    for number in range(profiles.shape[1]):
        found = solve(profiles, profiles[:, number])
        assert found.predicted_error < 1e-9
        np.testing.assert_allclose(profiles @ found.coefficients, profiles[:, number], atol=1e-9)
        assert found.coefficients.sum() == pytest.approx(1.0, abs=1e-12)


def test_the_coefficients_are_a_minimum_under_their_constraint() -> None:
    """Moving along any direction that keeps the sum makes the error larger."""
    decays, _, profiles = run_profiles(300, every=20, density=2)
    target = Target.parse("tail:30%").profile(decays)
    found = solve(profiles, target)

    def error(coefficients: Any) -> float:
        off = np.cumsum((profiles @ coefficients - target)[:0:-1])
        gap = np.cumsum((target - raw(300))[:0:-1])
        return float(np.linalg.norm(off) / np.linalg.norm(gap))

    assert error(found.coefficients) == pytest.approx(found.predicted_error, rel=1e-9)
    random = np.random.default_rng(0)
    for _ in range(20):
        direction = random.normal(size=len(found.coefficients))
        direction -= direction.mean()
        assert error(found.coefficients + 1e-3 * direction) > found.predicted_error


def test_the_predicted_error_is_that_of_weights_that_walk() -> None:
    """Moves of each step that are independent: measured over 4,000 such weights, the error is the predicted one."""
    updates, count = 400, 4_000
    decays, _, profiles = run_profiles(updates, every=20, density=2)
    weights = np.cumsum(np.random.default_rng(1).normal(size=(updates + 1, count)), axis=0)
    for name in ("decay:0.98", "decay:0.9995", "sigma:0.1", "tail:25%"):
        target = Target.parse(name).profile(decays)
        found = solve(profiles, target)
        exact, rebuilt = target @ weights, (profiles @ found.coefficients) @ weights
        measured = np.linalg.norm(rebuilt - exact) / np.linalg.norm(exact - weights[-1])
        assert measured == pytest.approx(found.predicted_error, rel=0.1)


def test_warmups_are_rebuilt_through_the_decays_really_used() -> None:
    assert fit(2_000, "decay:0.998", every=10, warmup="ramp").predicted_error < 0.01
    assert fit(2_000, "decay:0.999", every=10, warmup="power").predicted_error < 0.01


def test_the_raw_weights_are_the_raw_weights() -> None:
    found = fit(500, "raw")
    assert found.predicted_error == 0.0
    assert found.coefficients.tolist() == [0.0] * (len(found.coefficients) - 1) + [1.0]
    assert fit(0, "decay:0.9").predicted_error == 0.0


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 100), st.integers(1, 20))
def test_the_first_and_the_newest_are_always_kept(step: int, more: int, every: int, density: int) -> None:
    newest = step // every * every
    now = newest + more % every
    assert is_kept(0, now, every=every, density=density)
    assert is_kept(newest, now, every=every, density=density)
    assert not is_kept(newest + every, now, every=every, density=density)


def test_it_needs_numpy_alone() -> None:
    nodes = list(ast.walk(ast.parse(Path(bidaf.ema.synthesis.__file__).read_text(encoding="utf-8"))))
    imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert {str(name).split(".")[0] for name in imported} <= {
        "__future__",
        "collections",
        "dataclasses",
        "math",
        "numpy",
        "typing",
    }


def test_an_average_that_is_the_raw_weights_takes_no_part() -> None:
    profiles = np.stack([exponential(np.full(20, 0.9)), raw(20)], 1)
    target = exponential(np.full(20, 0.8))
    alone, beside = solve(profiles, target), solve(np.insert(profiles, 1, raw(20), axis=1), target)
    assert beside.predicted_error == pytest.approx(alone.predicted_error)
    assert beside.coefficients == pytest.approx([alone.coefficients[0], 0.0, alone.coefficients[1]])
