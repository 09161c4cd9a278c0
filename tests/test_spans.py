"""Decoding finds exactly the spans that looking at every pair would, in the documented order."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bidaf.model.spans import Span, top_spans

INFINITY = float("inf")


def every_span(start: Tensor, end: Tensor, max_length: int | None) -> list[Span]:
    """All possible spans of a row `[context]` in the documented order, by looking at every pair."""
    context = len(start)
    sums = (start[:, None] + end[None, :]).tolist()
    spans = [
        Span(i, j, sums[i][j])
        for j in range(context)
        for i in range(j + 1)
        if (max_length is None or j - i < max_length) and sums[i][j] > -INFINITY
    ]
    return sorted(spans, key=lambda span: (-span.score, span.end, span.start))


def scores(seed: int, batch: int, context: int, *, ties: bool, padded: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pair = torch.randn(2, batch, context, generator=generator, dtype=torch.float64)
    pair = pair.mul(2).round() / 2 if ties else pair
    if padded:
        lengths = torch.randint(1, context + 1, (batch, 1), generator=generator)
        pair = pair.masked_fill(torch.arange(context) >= lengths, -INFINITY)
    return pair[0], pair[1]


SHAPES = st.tuples(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 12))


@settings(max_examples=150, deadline=None)
@given(SHAPES, st.booleans(), st.booleans(), st.integers(1, 100), st.sampled_from(["float64", "float32"]))
def test_spans_are_those_of_looking_at_every_pair_under_every_cap(
    shape: tuple[int, int, int], ties: bool, padded: bool, n: int, dtype: str
) -> None:
    start, end = (x.to(getattr(torch, dtype)) for x in scores(*shape, ties=ties, padded=padded))
    for cap in (None, *range(1, start.shape[1] + 2)):
        expected = [every_span(*row, cap) for row in zip(start, end, strict=True)]
        assert top_spans(start, end, n, cap) == [row[:n] for row in expected]


def test_long_rows_agree_too_when_the_cap_does_not_divide_the_length() -> None:
    start, end = scores(0, 2, 67, ties=True, padded=True)
    for cap in (None, 1, 2, 5, 17, 33, 66, 67, 1000):
        expected = [every_span(*row, cap)[:40] for row in zip(start, end, strict=True)]
        assert top_spans(start, end, 40, cap) == expected


@pytest.mark.parametrize("max_length", [None, 1, 3])
def test_of_equal_scores_the_smaller_end_and_then_the_smaller_start_goes_first(
    max_length: int | None,
) -> None:
    level = torch.zeros(1, 5)
    order = [Span(0, 0, 0.0), Span(1, 1, 0.0)] if max_length == 1 else [Span(0, 0, 0.0), Span(0, 1, 0.0)]
    assert top_spans(level, level, 2, max_length) == [order]


def test_starts_that_only_rounding_makes_equal_go_by_position() -> None:
    start = torch.tensor([[-1.0, -1.0 + 2**-24]])
    end = torch.tensor([[-INFINITY, -1e4]])
    assert top_spans(start, end, 1) == [[Span(0, 1, -10001.0)]]


@settings(max_examples=50, deadline=None)
@given(SHAPES, st.integers(1, 9), st.integers(1, 9), st.one_of(st.none(), st.integers(1, 13)))
def test_a_row_depends_on_neither_padding_nor_neighbours(
    shape: tuple[int, int, int], padding: int, n: int, max_length: int | None
) -> None:
    start, end = scores(*shape, ties=True, padded=False)
    wide = torch.full((len(start), padding), -INFINITY, dtype=torch.float64)
    padded = top_spans(torch.cat([start, wide], 1), torch.cat([end, wide], 1), n, max_length)
    for row, spans in enumerate(padded):
        assert [spans] == top_spans(start[row : row + 1], end[row : row + 1], n, max_length)


def test_a_row_without_any_possible_span_yields_none_and_does_not_disturb_the_others() -> None:
    start = torch.tensor([[-INFINITY] * 3, [-1.0, -2.0, -3.0]])
    assert top_spans(start, start, 1, 2) == [[], [Span(0, 0, -2.0)]]
    assert [len(row) for row in top_spans(start, start, 10, 2)] == [0, 5]


@pytest.mark.parametrize("n", [1, 5])
def test_a_row_of_scores_that_are_no_numbers_yields_no_span(n: int) -> None:
    nan, good = [math.nan] * 3, [-1.0, -2.0, -3.0]
    start, end = torch.tensor([nan, good, good]), torch.tensor([good, nan, good])
    assert [len(row) for row in top_spans(start, end, n)] == [0, 0, n]


def test_a_context_of_one_token_has_one_span() -> None:
    one = torch.tensor([[-0.5]])
    assert top_spans(one, one, 20) == [[Span(0, 0, -1.0)]]


@pytest.mark.parametrize(
    ("given_type", "small"), [(torch.bfloat16, -0.125), (torch.float16, -0.125), (torch.float64, -(2.0**-40))]
)
def test_half_precision_is_added_up_in_single_and_double_stays_double(given_type: torch.dtype, small: float) -> None:
    start, end = torch.tensor([[-100.0]], dtype=given_type), torch.tensor([[small]], dtype=given_type)
    assert top_spans(start, end, 1) == [[Span(0, 0, -100.0 + small)]]


def test_scores_are_log_probabilities_of_the_pair() -> None:
    start, end = torch.log_softmax(torch.randn(2, 1, 9, dtype=torch.float64), -1)
    spans = top_spans(start, end, 100)[0]
    assert len(spans) == 45
    assert all(span.score == (start[0, span.start] + end[0, span.end]).item() for span in spans)
    assert sum(math.exp(span.score) for span in spans) <= 1.0


def test_a_long_context_needs_no_square_of_memory() -> None:
    # 100,000 tokens squared are 40 GB in single precision.
    start, end = (x.float() for x in scores(1, 1, 100_000, ties=False, padded=False))
    (spans,) = top_spans(start, end, 5)
    assert spans[0].score == (start.cummax(1).values + end).max().item()
    assert spans == sorted(spans, key=lambda span: -span.score)


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_cap_or_a_count_below_one_is_refused(wrong: int) -> None:
    row = torch.zeros(1, 3)
    with pytest.raises(ValueError, match="max_length must be at least 1"):
        top_spans(row, row, 1, wrong)
    with pytest.raises(ValueError, match="n must be at least 1"):
        top_spans(row, row, wrong)
