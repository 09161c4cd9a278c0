"""Parts of a batch: every question once, and little padding."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from conftest import CPU
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bidaf.training.micro_batches import FEWEST_TOKENS, parts_of, split_by_length

GPU = torch.device("meta")  # any that is not a CPU


def padded(lengths: NDArray[np.int64], parts: list[NDArray[np.int64]]) -> list[int]:
    return [len(part) * int(lengths[part].max()) for part in parts]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=70), st.integers(1, 6))
def test_each_question_is_in_one_part_of_at_most_so_many_and_long_ones_come_first(sizes: list[int], count: int) -> None:
    lengths = np.array(sizes)
    parts = split_by_length(lengths, count)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(sizes)))
    assert 1 <= len(parts) <= count
    assert all(len(part) for part in parts)
    assert all(lengths[one].min() >= lengths[next_].max() for one, next_ in itertools.pairwise(parts))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 3))
def test_no_other_cut_makes_the_largest_part_smaller(sizes: list[int], count: int) -> None:
    lengths = np.sort(np.array(sizes))[::-1]
    cuts = itertools.combinations_with_replacement(range(1, len(sizes) + 1), count - 1)
    choices = [[part for part in np.split(np.arange(len(sizes)), cut) if len(part)] for cut in cuts]
    best = min(max(padded(lengths, parts)) for parts in choices)
    assert max(padded(lengths, split_by_length(lengths, count))) == best


def test_a_batch_in_random_order_loses_most_of_its_padding() -> None:
    lengths = np.random.default_rng(0).integers(60, 320, 60)
    parts = parts_of(lengths, CPU, at_least=1)
    assert len(parts) == 4
    assert sum(padded(lengths, parts)) < 1.25 * lengths.sum() < 0.8 * 60 * lengths.max()


def test_the_number_of_parts_follows_from_the_batch() -> None:
    alike = np.full(60, 150)
    assert len(parts_of(alike, CPU, at_least=1)) == 2
    assert len(parts_of(alike, CPU, at_least=5)) == 5
    assert len(parts_of(alike, GPU, at_least=1)) == 1
    assert len(parts_of(alike, GPU, at_least=3)) == 3
    assert len(parts_of(np.full(FEWEST_TOKENS // 100, 99), CPU, at_least=1)) == 1
