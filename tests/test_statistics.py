"""Intervals against recorded values of scipy and statsmodels, and how often they hold the truth."""

from __future__ import annotations

import math
import re
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
from interval_coverage import make_pool, measure

from bidaf.evaluation.statistics import McNemar, cross_fit, estimate, mcnemar, t_quantile, why_no_interval

# scipy.stats.t.ppf of 0.975 and 0.995 (scipy 1.17.1).
T_QUANTILES = {
    1: (12.706204736174694, 63.656741162871526),
    2: (4.302652729749462, 9.924843200918287),
    3: (3.1824463052837078, 5.840909309733355),
    5: (2.5705818356363146, 4.032142983555228),
    6: (2.4469118511449786, 3.7074280213248065),
    23: (2.0686576104190486, 2.807335683769999),
    47: (2.0117405137297655, 2.6845556178665246),
    441: (1.9653578272030217, 2.5870235068553016),
}


@pytest.mark.parametrize("degrees", T_QUANTILES)
def test_quantiles_of_t_are_those_of_scipy(degrees: int) -> None:
    expected = T_QUANTILES[degrees]
    assert (t_quantile(degrees), t_quantile(degrees, 0.99)) == pytest.approx(expected, rel=1e-11)


SIZES = (3, 1, 4, 2, 5, 2, 3)
VALUES = [((i * 37) % 11 - 4) / 10 for i in range(sum(SIZES))]
ARTICLES = [name for name, size in zip("abcdefg", SIZES, strict=True) for _ in range(size)]


def test_the_clustered_interval_is_that_of_statsmodels() -> None:
    """Recorded: OLS on a constant, cov_type="cluster", use_t (statsmodels 0.15.0)."""
    found = estimate([VALUES], ARTICLES)
    assert found.value == pytest.approx(0.1)
    assert found.articles is not None
    assert found.articles.standard_error == pytest.approx(0.05066228, abs=5e-9)
    assert found.articles.degrees_of_freedom == 6
    assert found.interval == pytest.approx((-0.02396613, 0.22396613), abs=5e-9)
    shuffled = [7, 3, 19, *(n for n in range(20) if n not in (3, 7, 19))]
    again = estimate([[VALUES[n] for n in shuffled]], [ARTICLES[n] for n in shuffled])
    assert again.interval == pytest.approx(found.interval)


def test_the_example_of_the_docs_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parents[1] / "docs" / "compare.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    exec(compile(example, page.name, "exec"), {})
    assert example.rstrip().endswith(f"# {capsys.readouterr().out.strip()}")


def test_an_interval_needs_six_known_articles() -> None:
    five = [name for name, size in zip("abcde", SIZES, strict=False) for _ in range(size)]
    assert estimate([VALUES[: len(five)]], five).interval is None
    assert "5 articles, fewer than 6" in str(why_no_interval(five))
    assert "on 1 article," in str(why_no_interval(["a", "a"]))
    assert why_no_interval(ARTICLES) is None
    partly = [*ARTICLES[:-3], None, "", None]
    assert estimate([VALUES], partly).interval is None
    assert "3 questions is unknown" in str(why_no_interval(partly))


def test_seeds_add_their_own_part() -> None:
    shifts = (-0.02, 0.0, 0.05)
    found = estimate([[value + shift for value in VALUES] for shift in shifts], ARTICLES)
    mean = sum(shifts) / 3
    spread = math.sqrt(sum((shift - mean) ** 2 for shift in shifts) / 2 / 3)
    assert found.value == pytest.approx(0.1 + mean)
    assert found.articles is not None
    assert found.articles.standard_error == pytest.approx(0.05066228, abs=5e-9)
    assert found.seeds is not None
    assert found.seeds.standard_error == pytest.approx(spread)
    assert found.seeds.margin == pytest.approx(4.302652729749462 * spread)
    assert found.total is not None
    assert found.total.degrees_of_freedom == 2
    margin = 4.302652729749462 * math.hypot(0.05066228, spread)
    assert found.interval == pytest.approx((0.1 + mean - margin, 0.1 + mean + margin), abs=1e-7)
    plain = found.to_dict()
    assert plain["interval"] == list(found.interval or ())
    assert plain["seeds"]["margin"] == found.seeds.margin


def test_seeds_without_articles_give_no_interval_but_show_their_part() -> None:
    found = estimate([VALUES, [value + 0.1 for value in VALUES]], list(repeat(None, len(VALUES))))
    assert found.interval is None
    assert found.seeds is not None
    assert found.seeds.standard_error == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [(3, 9, 0.14599609375), (0, 6, 0.03125), (10, 10, 1.0), (210, 274, 0.004141109439210357), (0, 0, 1.0)],
)
def test_mcnemar_is_the_exact_binomial_test(only_a: int, only_b: int, p: float) -> None:
    """Recorded: scipy.stats.binomtest."""
    assert McNemar(only_a, only_b).p_value == pytest.approx(p, rel=1e-12)
    assert McNemar(only_b, only_a).p_value == pytest.approx(p, rel=1e-12)


def test_mcnemar_counts_only_where_one_is_right() -> None:
    a = [True, True, False, False, True]
    b = [True, False, True, False, False]
    assert mcnemar(a, b) == McNemar(only_a=2, only_b=1)


def test_a_choice_is_scored_by_the_articles_that_did_not_make_it() -> None:
    articles = ["p", "p", "q", "r", "s"]  # p and r against q and s
    candidates = {"steady": [5.0, 5.0, 5.0, 5.0, 5.0], "lucky": [9.0, 9.0, 1.0, 6.0, 2.0]}
    found = cross_fit(candidates, articles)
    assert found.chosen == ("lucky", "steady")
    assert found.scored == (1.5, 5.0)
    assert found.values == [5.0, 5.0, 1.0, 5.0, 2.0]


def test_noise_alone_gains_nothing_by_a_cross_fitted_choice() -> None:
    generator = np.random.default_rng(0)
    articles = [str(number // 10) for number in range(400)]
    best, fitted = [], []
    for _ in range(50):
        candidates = {str(name): generator.normal(size=400).tolist() for name in range(16)}
        best.append(max(sum(values) for values in candidates.values()) / 400)
        fitted.append(sum(cross_fit(candidates, articles).values) / 400)
    assert np.mean(best) > 0.07  # what the best of the grid promises, and what is not there
    assert abs(np.mean(fitted)) < 0.02


def test_a_choice_needs_two_articles() -> None:
    with pytest.raises(ValueError, match="two"):
        cross_fit({"a": [1.0, 2.0]}, ["p", "p"])


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """The short form of scripts/interval_coverage.py."""
    generator = np.random.default_rng(1)
    found = measure(make_pool(generator, median_questions=30), 24, worlds=400, generator=generator)
    for covered in (found.score, found.difference):
        assert 0.91 < covered.per_article < 0.98
    assert found.score.per_question < 0.88
