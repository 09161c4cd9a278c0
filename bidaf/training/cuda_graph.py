"""Kernels of a micro-batch recorded as CUDA graphs: one launch replays hundreds.

The kernels of a small network run about as fast as Python launches them. For each shape, the first micro-batch runs
as written, which also initializes the libraries; the second is recorded; from then on the recording is replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bidaf.data.batches import BatchSource, Shape

Compute = Callable[[BatchSource, Tensor, Tensor, Shape, float], None]
"""Takes question and answer numbers [batch], the batch's shape and its share of the step's questions. It must not wait
for the device, and must write its results to memory that exists before."""


class _Key(NamedTuple):
    questions: int
    shape: Shape
    share: float


class CudaGraphs:
    """Runs `compute`, and replays it once the same source and shape have come twice.

    Everything runs on one stream of its own, as recording requires; the caller's stream waits for it.
    """

    def __init__(self, compute: Compute, device: torch.device) -> None:
        self._compute = compute
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # One memory pool for all graphs: no result stays in it, and replays follow one another.
        self._pool = torch.cuda.graph_pool_handle()
        self._inputs: dict[int, Tensor] = {}
        # A graph reads the memory of its source: it must not outlive that. None: this key has run once.
        self._graphs: WeakKeyDictionary[BatchSource, dict[_Key, torch.cuda.CUDAGraph | None]] = WeakKeyDictionary()

    def run(self, source: BatchSource, questions: NDArray[np.int64], answers: NDArray[np.int64], share: float) -> None:
        """Compute this micro-batch. Seed the device's generator before: a replay draws its own random numbers."""
        key = _Key(len(questions), source.shape_of(questions), share)
        graphs = self._graphs.setdefault(source, {})
        outer = torch.cuda.current_stream(source.device)
        self._stream.wait_stream(outer)
        with torch.cuda.stream(self._stream):
            if key.questions not in self._inputs:
                self._inputs[key.questions] = torch.empty(2, key.questions, dtype=torch.int64, device=source.device)
            inputs = self._inputs[key.questions]
            inputs.copy_(torch.from_numpy(np.stack([questions, answers])).pin_memory(), non_blocking=True)
            compute = partial(self._compute, source, inputs[0], inputs[1], key.shape, share)
            if key in graphs:
                graph = graphs[key] = graphs[key] or self._record(compute)
                graph.replay()
            else:
                graphs[key] = None
                compute()
        outer.wait_stream(self._stream)

    def _record(self, compute: Callable[[], None]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            compute()
        return graph
