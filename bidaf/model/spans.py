"""Decoding: the best answer spans of start and end log probabilities.

A span's score is `start[i] + end[j]` with `i <= j`, and `j - i < max_length` if there is a cap. Of equal scores the
span with the smaller end goes first, then the one with the smaller start. A result depends on nothing but the row
itself: not on padding (`-inf`), on neighbours or on the device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Span(NamedTuple):
    """One span of one row: first token, last token (inclusive) and log probability."""

    start: int
    end: int
    score: float


def top_spans(start: Tensor, end: Tensor, n: int, max_length: int | None = None) -> list[list[Span]]:
    """List the `n` best spans of every row, best first; fewer where fewer are possible, none where scores are NaN.

    `start`, `end`: log probabilities `[batch, context]`, padding `-inf`; added up in float32 at least. `max_length`:
    greatest length of a span in tokens; `None` for no cap. Raises `ValueError` if `n` or `max_length` is below 1.

    Exact in O(context * n) memory, not O(context^2): an end that is not among the `n` with the best spans has `n`
    better spans before it, so only `n` ends per row are looked at in full.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    start, end = _at_least_float32(start), _at_least_float32(end)
    totals = _best_start_scores(start, max_length) + end
    ends = totals.sort(dim=1, descending=True, stable=True).indices[:, :n].sort(dim=1).values
    starts = torch.arange(start.shape[1], device=start.device)
    scores = start[:, None] + end.gather(1, ends)[:, :, None]
    scores = scores.masked_fill(~_is_allowed(starts, ends[:, :, None], max_length), -torch.inf).flatten(1)
    # A row's flat order is the order among equals, and stable sorts of all that reaches the n-th score keep it.
    threshold = scores.topk(min(n, scores.shape[1])).values[:, -1:]
    rows, places = ((scores >= threshold) & (scores > -torch.inf)).nonzero(as_tuple=True)
    order = scores[rows, places].argsort(descending=True, stable=True)
    order = order[rows[order].argsort(stable=True)]
    rows, places = rows[order], places[order]
    found = [rows, places % start.shape[1], ends[rows, places // start.shape[1]], scores[rows, places]]
    spans: list[list[Span]] = [[] for _ in start]
    for row, first, last, score in zip(*(column.tolist() for column in found), strict=True):
        if len(spans[row]) < n:
            spans[row].append(Span(first, last, score))
    return spans


def _is_allowed(start: Tensor, end: Tensor, max_length: int | None) -> Tensor:
    allowed = start <= end
    return allowed if max_length is None else allowed & (end - start < max_length)


def _best_start_scores(start: Tensor, max_length: int | None) -> Tensor:
    """Greatest start score a span ending at each token may have, `[batch, context]`."""
    context = start.shape[1]
    if max_length is None or max_length >= context:
        return start.cummax(1).values
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1, not {max_length}")
    # Sliding maximum in linear time (van Herk 1992; Gil and Werman 1993): a window is the tail of one block
    # and the head of the next, so running maxima from both sides of every block need one comparison more.
    width = max_length
    blocks = -(-(context + width - 1) // width)
    padded = F.pad(start, (width - 1, blocks * width - context - width + 1), value=-torch.inf)
    shaped = padded.view(-1, blocks, width)
    heads = shaped.cummax(2).values.view_as(padded)
    tails = shaped.flip(2).cummax(2).values.flip(2).view_as(padded)
    return torch.maximum(tails[:, :context], heads[:, width - 1 : width - 1 + context])


def _at_least_float32(scores: Tensor) -> Tensor:
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
