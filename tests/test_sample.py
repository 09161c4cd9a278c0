"""Which dev questions a page holds where it can't hold all."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers_browser import Browser
from test_report import log_of

from bidaf.reporting.answers import Answer, Asked, DevAnswers
from bidaf.reporting.report import write_report
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


def features(count: int, length: int = 10, letter: str = "x") -> Any:
    return SimpleNamespace(
        question_context=np.arange(count),
        contexts=[letter * length] * count,
        questions=[f"{number}?" for number in range(count)],
        answers=[[letter]] * count,
        ids=[f"id-{number}" for number in range(count)],
    )


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


def test_long_texts_take_fewer_questions(questions: list[Asked]) -> None:
    for letter in ("x", "語"):
        chosen = sample(questions, features(len(questions), 10_000, letter), 2000, 2_500_000)
        assert 0 < len(chosen) * 10_000 * len(letter.encode()) <= 2_500_000
    assert sample(questions, features(len(questions), 10_000), 2000, 9_999) == []


def test_all_are_there_when_all_fit(questions: list[Asked]) -> None:
    assert sample(questions, features(len(questions)), 10_000, 10**9) == questions


def test_a_report_of_50_000_questions_is_small_opens_at_once_and_counts_all(
    questions: list[Asked], browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = [dataclasses.replace(each, number=number) for number, each in enumerate((questions * 7)[:50_000])]
    answers = DevAnswers(200, features(len(every), 800, "語"), every)
    monkeypatch.setattr(DevAnswers, "gold_spans", lambda self, number: [(0, 5)])
    monkeypatch.setattr("bidaf.reporting.report.read_answers", lambda run: answers)
    run = log_of(tmp_path / "run", [40, 60], [10, 61], total=200)
    page = write_report([run.folder])
    assert page.stat().st_size < 5_000_000
    assert 0 < browser.seconds_to_open(page) < 2
    assert browser.text(".answers [role=status]").startswith("20 of ")
    counts = filter_counts(every)
    chips = browser.texts(".answers .chip")
    assert chips[0].startswith("all (50,000, ")
    for name, chip in zip(counts, chips, strict=True):
        assert f"({counts[name]:,}" in chip
    assert "of 50,000 questions" in browser.text("main")


def test_places_are_given_out_evenly_and_in_full() -> None:
    assert shares({"a": 100, "b": 3, "c": 50}, 40) == {"b": 3, "c": 18, "a": 19}
    assert shares({"a": 1, "b": 1}, 40) == {"a": 1, "b": 1}
    assert spread(range(10), 5) == [0, 2, 4, 6, 8]
