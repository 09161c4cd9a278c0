"""Whole passes of a network side by side on a processor's threads, instead of every product on all of them.

The steps of an LSTM are too small to be shared among threads. A pass on each thread keeps all of them busy, and its
sums do not depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

from bidaf.device import set_up

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_on_threads(work: Callable[[Item], Result], items: Sequence[Item], device: torch.device) -> Iterator[Result]:
    """`work` of each item, in their order; on a CPU as many at a time as PyTorch has threads here.

    Elsewhere, and with one thread or item, one follows the other. Autocast and inference mode, which PyTorch keeps for
    each thread, are the caller's.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or len(items) == 1:
        return map(work, items)
    share = max(1, threads // len(items))
    inference, autocast = torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu")

    def as_the_caller(item: Item) -> Result:
        torch.set_num_threads(share)  # of this thread
        with torch.inference_mode(inference), torch.autocast("cpu", dtype=dtype, enabled=autocast):
            return work(item)

    return _pool(threads).map(as_the_caller, items)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "bidaf", lambda: set_up(torch.device("cpu")))
