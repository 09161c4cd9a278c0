"""Which dev questions a page holds where it can't hold all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bidaf.reporting.answers import Answer, Asked
from bidaf.reporting.sample import filter_counts, sample, shares, spread


def asked(number: int, raw: bool, shadow: bool, changed: bool) -> Asked:
    spans = ([(0, 1, 0.5)], [(0, 2 if changed else 1, 0.5)])
    return Asked(number, Answer(spans[0], raw, float(raw)), Answer(spans[1], shadow, float(shadow)), {})


@pytest.fixture
def questions() -> list[Asked]:
    """7,704 questions as one real dev set answered them: few that the average made right, and fewer made wrong."""
    classes = [(True, True, False)] * 4500 + [(False, False, False)] * 1900 + [(False, False, True)] * 801
    classes += [(False, True, True)] * 367 + [(True, False, True)] * 136
    order = np.random.default_rng(0).permutation(len(classes))
    return [asked(number, *classes[place]) for number, place in enumerate(order)]


def features(count: int, length: int = 10) -> Any:
    return SimpleNamespace(question_context=np.arange(count), contexts=["x" * length] * count)


def test_the_filters_count_every_question(questions: list[Asked]) -> None:
    counts = filter_counts(questions)
    assert counts == {"all": 7704, "wrong": 2837, "right": 4867, "changed": 1304, "gained": 367, "lost": 136}


def test_every_class_has_its_share_and_none_is_cut_for_another(questions: list[Asked]) -> None:
    chosen = sample(questions, features(len(questions)), 2000, 10**9)
    assert len(chosen) == 2000
    counts = filter_counts(chosen)
    assert (counts["gained"], counts["lost"]) == (367, 136)
    assert 450 < counts["right"] - counts["gained"] < 550
    numbers = [each.number for each in chosen]
    assert numbers == sorted(numbers)
    assert abs(np.mean(numbers) / len(questions) - 0.5) < 0.02


def test_long_contexts_take_fewer_questions(questions: list[Asked]) -> None:
    chosen = sample(questions, features(len(questions), 10_000), 2000, 2_500_000)
    assert 0 < len(chosen) * 10_000 <= 2_500_000


def test_all_are_there_when_all_fit(questions: list[Asked]) -> None:
    assert sample(questions, features(len(questions)), 10_000, 10**9) == questions


def test_places_are_given_out_evenly_and_in_full() -> None:
    assert shares({"a": 100, "b": 3, "c": 50}, 40) == {"b": 3, "c": 18, "a": 19}
    assert shares({"a": 1, "b": 1}, 40) == {"a": 1, "b": 1}
    assert spread(range(10), 5) == [0, 2, 4, 6, 8]
