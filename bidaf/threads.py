"""Whole passes of a network at the same time on a processor's threads, instead of every product on all of them.

The steps of an LSTM are too small to be shared among threads. One pass per thread keeps all of them busy, and its
sums do not depend on how many there are.

A forked process has none of its parent's threads, and a product that waits for one of them waits forever. So a process
that was forked from one that has imported this module computes on one thread; and it can't use a GPU that its parent
has used (`refuse_after_fork`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

from bidaf.device import set_up

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_on_threads(work: Callable[[Item], Result], items: Sequence[Item], device: torch.device) -> Iterator[Result]:
    """`work` of each item, in their order; on a CPU for as many at a time as PyTorch has threads.

    On other devices, and with one thread or item, one after the other. Autocast and inference mode, which PyTorch keeps
    per thread, are those of the caller.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or len(items) <= 1:
        return map(work, items)
    share = max(1, threads // len(items))
    inference, autocast = torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu")

    def as_the_caller(item: Item) -> Result:
        # Sets the number of this thread, and what threads that are yet to start will begin with.
        torch.set_num_threads(share)
        try:
            with torch.inference_mode(inference), torch.autocast("cpu", dtype=dtype, enabled=autocast):
                return work(item)
        finally:
            torch.set_num_threads(threads)

    return _pool(threads).map(as_the_caller, items)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "bidaf", lambda: set_up(torch.device("cpu")))


def _after_fork() -> None:
    _pool.cache_clear()
    torch.set_num_threads(1)


os.register_at_fork(after_in_child=_after_fork)
