"""A batch in parts, questions of similar length together."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

# Context tokens from which a batch runs in parts on a CPU: below, the matrix products would be too small.
FEWEST_TOKENS = 3000
# Padded tokens over real ones, from which twice as many parts are worth their smaller products.
MOST_PADDING = 1.1


def parts_of(lengths: NDArray[np.int64], device: torch.device, at_least: int) -> list[NDArray[np.int64]]:
    """Positions in a batch with these context lengths, part by part: a function of the lengths and the device's kind.

    On a CPU two parts, for two cores to have one each, or four where two would be mostly padding (a batch in random
    order). The number of threads has no say: the same batch has the same parts, and masks, on any processor.
    """
    if device.type != "cpu" or int(lengths.sum()) < FEWEST_TOKENS:
        return split_by_length(lengths, at_least)
    parts = split_by_length(lengths, max(2, at_least))
    padded = sum(len(part) * int(lengths[part].max()) for part in parts)
    return parts if padded < MOST_PADDING * int(lengths.sum()) else split_by_length(lengths, max(4, at_least))


def split_by_length(lengths: NDArray[np.int64], parts: int) -> list[NDArray[np.int64]]:
    """At most `parts` groups of positions, longest first, such that the most padded tokens in a group are fewest.

    A batch in random order is mostly padding; in groups of similar length much less so.
    """
    order = np.argsort(-lengths, kind="stable")
    low, high = int(lengths.max()), int(lengths.max()) * len(lengths)
    while low < high:
        middle = (low + high) // 2
        if len(_cuts(lengths[order], middle)) <= parts:
            high = middle
        else:
            low = middle + 1
    return np.split(order, _cuts(lengths[order], low)[1:])


def _cuts(lengths: NDArray[np.int64], most: int) -> list[int]:
    """Where groups begin that take as many of the falling `lengths` as keep their padded tokens at `most`."""
    cuts = [0]
    while (end := cuts[-1] + most // int(lengths[cuts[-1]])) < len(lengths):
        cuts.append(end)
    return cuts
