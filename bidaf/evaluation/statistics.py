"""How uncertain a score or a difference of scores is, and a choice that is scored on data it was not made on.

Questions on one article resemble each other, so the article is what was sampled: an interval that counts every question
as independent is too narrow (`scripts/interval_coverage.py` shows how much). Here errors are clustered by article
(Miller 2024, arXiv 2411.00640; Cameron, Gelbach and Miller 2008). The standard library alone is imported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import compress
from typing import Any

MIN_ARTICLES = 6
LEVEL = 0.95

Articles = Sequence[str | None]
"""The article of each question; None or empty where it is unknown."""


@dataclass(frozen=True, slots=True)
class Spread:
    """One source of error of a mean, in the mean's own unit."""

    standard_error: float
    degrees_of_freedom: int

    @property
    def margin(self) -> float:
        """Half the width of the 95 % interval."""
        return t_quantile(self.degrees_of_freedom) * self.standard_error


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over questions (and over seeds, where there are several), and its uncertainty."""

    value: float
    articles: Spread | None
    """What other articles would change; None where no interval is honest (`why_no_interval`)."""
    seeds: Spread | None
    """What other seeds would change; None for one seed."""

    @property
    def total(self) -> Spread | None:
        """Both sources: variances are added, and the smaller degrees of freedom taken."""
        if self.articles is None or self.seeds is None:
            return self.articles
        return Spread(
            math.hypot(self.articles.standard_error, self.seeds.standard_error),
            min(self.articles.degrees_of_freedom, self.seeds.degrees_of_freedom),
        )

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval; None where there is none."""
        if (total := self.total) is None:
            return None
        return self.value - total.margin, self.value + total.margin

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        spreads = {"articles": self.articles, "seeds": self.seeds}
        return {
            "value": self.value,
            "interval": list(self.interval) if self.interval else None,
            **{name: {**asdict(each), "margin": each.margin} if each else None for name, each in spreads.items()},
        }


def estimate(seeds: Sequence[Sequence[float]], articles: Articles) -> Estimate:
    """The mean of one value per question, given once for each seed (`[seeds, questions]`).

    For a paired difference pass the differences. Values are averaged over the seeds first; the error between articles
    is that of these averages, the error between seeds that of the seeds' means.
    """
    averaged = [sum(values) / len(seeds) for values in zip(*seeds, strict=True)]
    value = sum(averaged) / len(averaged)
    between_articles = None if why_no_interval(articles) else _between_articles(averaged, articles)
    return Estimate(value, between_articles, _between_seeds([sum(each) / len(each) for each in seeds]))


def why_no_interval(articles: Articles) -> str | None:
    """Why questions on these articles give no honest interval; None when they give one."""
    if unknown := sum(not article for article in articles):
        return f"the article of {unknown:,} questions is unknown"
    if (found := len(set(articles))) < MIN_ARTICLES:
        return f"the questions are on {found} article{'s' if found != 1 else ''}, fewer than {MIN_ARTICLES}"
    return None


def _between_articles(values: Sequence[float], articles: Articles) -> Spread:
    """SE = sqrt(G/(G-1) sum_g r_g^2) / n, where r_g sums the deviations from the mean over article g; t with G-1."""
    mean = sum(values) / len(values)
    residuals: dict[str | None, float] = {}
    for value, article in zip(values, articles, strict=True):
        residuals[article] = residuals.get(article, 0.0) + value - mean
    groups = len(residuals)
    squares = sum(residual * residual for residual in residuals.values())
    return Spread(math.sqrt(groups / (groups - 1) * squares) / len(values), groups - 1)


def _between_seeds(means: Sequence[float]) -> Spread | None:
    """SE = s / sqrt(S), with the standard deviation s of S seeds; t with S-1."""
    count = len(means)
    if count < 2:
        return None
    mean = sum(means) / count
    variance = sum((each - mean) ** 2 for each in means) / (count - 1)
    return Spread(math.sqrt(variance / count), count - 1)


@cache
def t_quantile(degrees_of_freedom: int, level: float = LEVEL) -> float:
    """The t with P(-t <= T <= t) = `level` for Student's T.

    The probability is a finite sum in theta = atan(t / sqrt(nu)) for whole nu (Abramowitz and Stegun 26.7.3 and
    26.7.4), and grows with theta: bisection finds it to the last digits.
    """
    low, high = 0.0, math.pi / 2
    while (middle := (low + high) / 2) not in (low, high):
        if _probability_within(middle, degrees_of_freedom) < level:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees_of_freedom) * math.tan(middle)


def _probability_within(theta: float, degrees_of_freedom: int) -> float:
    odd = degrees_of_freedom % 2
    cosine, sine = math.cos(theta), math.sin(theta)
    term = sine * cosine if odd else sine
    total = 0.0
    for power in range(1 + odd, degrees_of_freedom, 2):
        total += term
        term *= cosine * cosine * power / (power + 1)
    return 2 / math.pi * (theta + total) if odd else total


@dataclass(frozen=True, slots=True)
class McNemar:
    """How often only one of two systems is right, and how probable so uneven a split is where both are equally good."""

    only_a: int
    only_b: int

    @property
    def p_value(self) -> float:
        """Two-sided and exact: 2 sum_{k <= min(b, c)} C(b+c, k) / 2^(b+c), at most 1."""
        discordant = self.only_a + self.only_b
        tail, ways = 0, 1
        for k in range(min(self.only_a, self.only_b) + 1):
            tail += ways
            ways = ways * (discordant - k) // (k + 1)
        return min(1.0, 2 * tail / (1 << discordant))


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> McNemar:
    """Compare two systems' right answers, question by question."""
    pairs = list(zip(a, b, strict=True))
    return McNemar(sum(x and not y for x, y in pairs), sum(y and not x for x, y in pairs))


@dataclass(frozen=True, slots=True)
class CrossFit:
    """A choice among candidates, made on every other article and scored on the rest, both ways."""

    chosen: tuple[str, str]
    """What the first, third, ... article chose, and what the second, fourth, ... chose."""
    scored: tuple[float, float]
    """The mean of each choice over the articles that did not take part in it."""
    values: list[float]
    """Of each question, by the choice that its article took no part in: their mean is an honest score."""


def cross_fit(candidates: Mapping[str, Sequence[float]], articles: Articles) -> CrossFit:
    """Choose the candidate with the highest mean, without scoring it on what chose it.

    `candidates` gives one value per question under each name; of equals the first wins. The best of all on all
    questions would be too high: it was chosen for its luck, too. Raises `ValueError` for questions on one article.
    """
    order = {article: number for number, article in enumerate(dict.fromkeys(articles))}
    if len(order) < 2:
        raise ValueError("a choice is scored on other articles than those it was made on: it needs two of them")
    odd = [order[article] % 2 == 1 for article in articles]
    even = [not each for each in odd]

    def mean(name: str, half: Sequence[bool]) -> float:
        values = list(compress(candidates[name], half))
        return sum(values) / len(values)

    by_even, by_odd = (max(candidates, key=lambda name: mean(name, half)) for half in (even, odd))
    values = [
        candidates[by_even if is_odd else by_odd][number]  # by the other half's choice
        for number, is_odd in enumerate(odd)
    ]
    return CrossFit((by_even, by_odd), (mean(by_even, odd), mean(by_odd, even)), values)
