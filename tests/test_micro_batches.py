"""Micro-batches: every question once, and little padding."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from conftest import CPU
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bidaf.training.micro_batches import FEWEST_TOKENS, cut, split_by_length

GPU = torch.device("meta")  # any that is not a CPU


def padded(lengths: NDArray[np.int64], micro_batches: list[NDArray[np.int64]]) -> list[int]:
    return [len(chosen) * int(lengths[chosen].max()) for chosen in micro_batches]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=70), st.integers(1, 6))
def test_each_question_is_in_one_of_at_most_this_many_and_long_ones_come_first(sizes: list[int], count: int) -> None:
    lengths = np.array(sizes)
    micro_batches = split_by_length(lengths, count)
    assert sorted(np.concatenate(micro_batches).tolist()) == list(range(len(sizes)))
    assert 1 <= len(micro_batches) <= count
    assert all(len(chosen) for chosen in micro_batches)
    assert all(lengths[one].min() >= lengths[next_].max() for one, next_ in itertools.pairwise(micro_batches))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 3))
def test_no_other_cut_makes_the_largest_one_smaller(sizes: list[int], count: int) -> None:
    lengths = np.sort(np.array(sizes))[::-1]
    cuts = itertools.combinations_with_replacement(range(1, len(sizes) + 1), count - 1)
    choices = [[chosen for chosen in np.split(np.arange(len(sizes)), cut) if len(chosen)] for cut in cuts]
    best = min(max(padded(lengths, micro_batches)) for micro_batches in choices)
    assert max(padded(lengths, split_by_length(lengths, count))) == best


def test_a_batch_in_random_order_loses_most_of_its_padding() -> None:
    lengths = np.random.default_rng(0).integers(60, 320, 60)
    micro_batches = cut(lengths, CPU, at_least=1)
    assert len(micro_batches) == 4
    assert sum(padded(lengths, micro_batches)) < 1.25 * lengths.sum() < 0.8 * 60 * lengths.max()


def test_the_number_follows_from_the_batch() -> None:
    alike = np.full(60, 150)
    assert len(cut(alike, CPU, at_least=1)) == 2
    assert len(cut(alike, CPU, at_least=5)) == 5
    assert len(cut(alike, GPU, at_least=1)) == 1
    assert len(cut(alike, GPU, at_least=3)) == 3
    assert len(cut(np.full(FEWEST_TOKENS // 100, 99), CPU, at_least=1)) == 1
