"""Steps of a GPU recorded as CUDA graphs: one launch instead of some thousands.

A step of BiDAF is thousands of small kernels, most of them steps of LSTMs; launching them one by one takes longer than
running them. Per shape of a batch the first step runs as it is written, which also warms the libraries up, the second
is recorded, and from then on steps of that shape are replayed. Replayed and written-out steps compute the same.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bidaf.data.batches import Shape

Compute = Callable[[Tensor, Tensor, Shape], Tensor]
"""Question and answer numbers [batch] and their shape -> the step's figures; changes weights and optimizer in place."""


class RecordedSteps:
    """Replays `compute`, which must neither wait for the device nor allocate what outlives it."""

    def __init__(self, compute: Compute, device: torch.device) -> None:
        self._compute = compute
        self._device = device
        self._met: set[tuple[int, Shape]] = set()
        self._graphs: dict[tuple[int, Shape], torch.cuda.CUDAGraph] = {}
        self._inputs: dict[int, tuple[Tensor, Tensor]] = {}
        self._figures = torch.zeros(2, device=device)
        # One pool for all graphs: nothing in it outlives a replay, and replays follow one another.
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, questions: NDArray[np.int64], answers: NDArray[np.int64], shape: Shape) -> Tensor:
        """The figures of a step on these questions; seed the device's generator before."""
        key = (len(questions), shape)
        if len(questions) not in self._inputs:
            empty = torch.zeros(2, len(questions), dtype=torch.int64, device=self._device)
            self._inputs[len(questions)] = (empty[0], empty[1])
        inputs = self._inputs[len(questions)]
        for place, numbers in zip(inputs, (questions, answers), strict=True):
            place.copy_(torch.from_numpy(numbers).pin_memory(), non_blocking=True)
        if key not in self._met:
            self._met.add(key)
            return self._compute(*inputs, shape)
        if key not in self._graphs:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                self._figures.copy_(self._compute(*inputs, shape))
            self._graphs[key] = graph
        self._graphs[key].replay()
        return self._figures.clone()
