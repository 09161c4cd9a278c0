"""How often a 95 % interval holds the truth: worlds of some articles are drawn from a pool whose mean is known.

    python scripts/interval_coverage.py

Each article of the pool has its own accuracy for two systems, A and B, and its own number of questions. A world is
some of its articles with all their questions; an interval is right when it holds the mean over all questions of the
pool. "per article" is what `bidaf compare` prints; "per question" counts the questions as independent.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bidaf.evaluation.statistics import estimate

POOL = 1_000  # articles
QUESTIONS, SIZE_SPREAD = 200, 0.4  # median number of an article's questions, and the deviation of its logarithm
ACCURACY, ACCURACY_SPREAD = 0.67, 0.07  # of A: mean, and standard deviation between articles
GAIN, GAIN_SPREAD = 0.01, 0.015  # of B over A, likewise
SHARED = 0.85  # share of the questions on which B succeeds or fails for the same reason as A

Article = tuple[NDArray[np.float64], NDArray[np.float64]]
"""What A scores on each question, and what B scores above that."""


class Covered(NamedTuple):
    """Share of the worlds whose interval holds the truth."""

    per_article: float
    per_question: float


@dataclass(frozen=True)
class Coverage:
    """Of A's score, and of the difference between B and A."""

    articles: int
    score: Covered
    difference: Covered


def make_pool(generator: np.random.Generator, median_questions: int = QUESTIONS) -> list[Article]:
    """All articles there are."""

    def article() -> Article:
        size = max(1, round(median_questions * math.exp(SIZE_SPREAD * generator.normal())))
        accuracy = np.clip(generator.normal(ACCURACY, ACCURACY_SPREAD), 0, 1)
        gain = generator.normal(GAIN, GAIN_SPREAD)
        difficulty = generator.random(size)
        other = np.where(generator.random(size) < SHARED, difficulty, generator.random(size))
        right = (difficulty < accuracy).astype(float)
        return right, (other < accuracy + gain) - right

    return [article() for _ in range(POOL)]


def measure(pool: list[Article], articles: int, worlds: int, generator: np.random.Generator) -> Coverage:
    """Draw worlds of so many articles and count the intervals that hold the pool's mean."""
    score, difference = (
        _cover([each[kind] for each in pool], list(_worlds(len(pool), articles, worlds, generator))) for kind in (0, 1)
    )
    return Coverage(articles, score, difference)


def _worlds(pool: int, articles: int, worlds: int, generator: np.random.Generator) -> Iterator[list[int]]:
    for _ in range(worlds):
        yield generator.integers(pool, size=articles).tolist()


def _cover(pool: list[NDArray[np.float64]], worlds: list[list[int]]) -> Covered:
    truth = float(np.concatenate(pool).mean())
    lists = [values.tolist() for values in pool]
    per_article = per_question = 0
    for world in worlds:
        values = [value for article in world for value in lists[article]]
        # An article that was drawn twice counts as two: so the draws are independent.
        names = [str(number) for number, article in enumerate(world) for _ in lists[article]]
        interval = estimate([values], names).interval
        assert interval is not None
        per_article += interval[0] <= truth <= interval[1]
        margin = 1.96 * float(np.std(values, ddof=1)) / math.sqrt(len(values))
        per_question += abs(float(np.mean(values)) - truth) <= margin
    return Covered(per_article / len(worlds), per_question / len(worlds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=2_000)
    parser.add_argument("--articles", type=int, nargs="+", default=[12, 24, 48])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = np.random.default_rng(options.seed)
    pool = make_pool(generator)
    print("articles  score: per article, per question   difference: per article, per question")
    for articles in options.articles:
        found = measure(pool, articles, options.worlds, generator)
        print(
            f"{articles:8}  {found.score.per_article:18.1%} {found.score.per_question:13.1%}"
            f"  {found.difference.per_article:22.1%} {found.difference.per_question:13.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
