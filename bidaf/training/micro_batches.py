"""A batch cut into micro-batches of questions of similar length."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

# Context tokens from which a batch is cut on a CPU: below, the matrix products would be too small.
FEWEST_TOKENS = 3000
# Padded over real tokens, from which twice as many micro-batches are worth their smaller products.
MOST_PADDING = 1.1


def cut(lengths: NDArray[np.int64], device: torch.device, at_least: int) -> list[NDArray[np.int64]]:
    """Positions of each micro-batch in a batch of these context lengths.

    Depends on the lengths and the kind of device only, not on the number of threads: a batch has the same
    micro-batches, and the same dropout masks, on any processor. On a CPU there are two, so that two cores have one
    each, or four where two would be mostly padding (a batch in random order).
    """
    if device.type != "cpu" or int(lengths.sum()) < FEWEST_TOKENS:
        return split_by_length(lengths, at_least)
    micro_batches = split_by_length(lengths, max(2, at_least))
    padded = sum(len(positions) * int(lengths[positions].max()) for positions in micro_batches)
    return micro_batches if padded < MOST_PADDING * int(lengths.sum()) else split_by_length(lengths, max(4, at_least))


def split_by_length(lengths: NDArray[np.int64], at_most: int) -> list[NDArray[np.int64]]:
    """At most this many groups of positions, longest first; the largest group has as few padded tokens as possible.

    A batch in random order is mostly padding; in groups of similar length much less so.
    """
    order = np.argsort(-lengths, kind="stable")
    low, high = int(lengths.max()), int(lengths.max()) * len(lengths)
    while low < high:
        middle = (low + high) // 2
        if len(_cuts(lengths[order], middle)) <= at_most:
            high = middle
        else:
            low = middle + 1
    return np.split(order, _cuts(lengths[order], low)[1:])


def _cuts(lengths: NDArray[np.int64], most: int) -> list[int]:
    """Where each group begins if it takes as many of the falling `lengths` as fit into `most` padded tokens."""
    cuts = [0]
    while (end := cuts[-1] + most // int(lengths[cuts[-1]])) < len(lengths):
        cuts.append(end)
    return cuts
