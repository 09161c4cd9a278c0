"""The bidirectional LSTM that every sequence layer of BiDAF is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from bidaf.model.dropout import Dropout


def lecun_uniform_(weight: Tensor, fan_in: int) -> Tensor:
    """Uniform in +-sqrt(3 / fan_in), the default initialiser of the TensorFlow that the released code ran on."""
    bound = math.sqrt(3.0 / fan_in)
    with torch.no_grad():
        return weight.uniform_(-bound, bound)


class _Rows(torch.autograd.Function):
    """Rows of a matrix in the order of a permutation that is its own inverse, and so is its gradient's order."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (order,) = ctx.saved_tensors
        return grad.index_select(0, order), None


def reverse_within_length(sequence: Tensor, lengths: Tensor) -> Tensor:
    """Each example's first `lengths` steps in reverse order, padding left where it is.

    `sequence` [steps, batch, features], `lengths` [batch].
    """
    steps, batch, features = sequence.shape
    step = torch.arange(steps, device=sequence.device).unsqueeze(1)
    mirrored = lengths - 1 - step
    order = torch.where(mirrored >= 0, mirrored, step)
    order = order * batch + torch.arange(batch, device=sequence.device)
    rows = sequence.reshape(steps * batch, features)
    reversed_rows: Tensor = _Rows.apply(rows, order.flatten())  # type: ignore[no-untyped-call]
    return reversed_rows.view(steps, batch, features)


@contextmanager
def _beside(shared: Tensor) -> Iterator[Callable[[Tensor], None]]:
    """On a GPU, what the block launches runs beside what comes after it; call the result with the block's own tensor
    before using that. `shared` is read on both sides. On a CPU the block just runs.

    A step of an LSTM is too small to fill a GPU, and its steps follow one another: two directions at a time take little
    more than one.
    """
    if not shared.is_cuda:
        yield lambda result: None
        return
    main, side = torch.cuda.current_stream(shared.device), _side_stream(shared.device)
    side.wait_stream(main)

    def join(result: Tensor) -> None:
        main.wait_stream(side)
        # Memory is handed out again by stream: each stream is told of what it uses of the other's.
        result.record_stream(main)
        shared.record_stream(side)

    with torch.cuda.stream(side):
        yield join


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class BiLstm(nn.Module):
    """[batch, steps, in] -> [batch, steps, 2d], exactly 0 beyond an example's length.

    The backward direction reads each example from its own last token, so that nothing depends on the padding; padded
    input runs about twice as fast as packed sequences on a CPU. Gates are in PyTorch's order (input, forget, cell,
    output). A gate has one bias, as in TensorFlow's cell (PyTorch's `nn.LSTM` has a second one, which says nothing
    new and makes 3,200 weights over the whole network), and the forget gate's starts at 1 (BasicLSTMCell's default).
    """

    def __init__(self, input_size: int, hidden_size: int, drop: float) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.dropout = Dropout(drop)
        self.weight_ih = nn.Parameter(torch.empty(2, 4 * hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(2, 4 * hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(2, 4 * hidden_size))
        lecun_uniform_(self.weight_ih, input_size + hidden_size)
        lecun_uniform_(self.weight_hh, input_size + hidden_size)
        with torch.no_grad():
            self.bias[:, hidden_size : 2 * hidden_size] = 1.0

    def forward(self, sequence: Tensor, lengths: Tensor, *, with_dropout: bool = True) -> Tensor:
        # Step by step in memory, as the kernels want it: the one pass of dropout brings it there.
        sequence = sequence.transpose(0, 1)
        sequence = (self.dropout(sequence) if with_dropout else sequence).contiguous()
        with _beside(sequence) as join:
            back = reverse_within_length(self._run(1, reverse_within_length(sequence, lengths)), lengths)
        ahead = self._run(0, sequence)
        join(back)
        padding = torch.arange(sequence.shape[0], device=sequence.device).unsqueeze(1) >= lengths
        return torch.cat([ahead, back], dim=2).masked_fill(padding.unsqueeze(2), 0.0).transpose(0, 1)

    def _run(self, direction: int, sequence: Tensor) -> Tensor:
        """One direction, [steps, batch, in] -> [steps, batch, d], by PyTorch's fused kernel (oneDNN, cuDNN)."""
        state = sequence.new_zeros(1, sequence.shape[1], self.hidden_size)
        weights = [self.weight_ih[direction], self.weight_hh[direction], self.bias[direction]]
        weights.append(torch.zeros_like(weights[2]))
        if sequence.is_cuda:
            # One stretch of memory in cuDNN's order, or it would copy them into one, with a warning, at every call.
            flat = torch.cat([weight.flatten() for weight in weights])
            pieces = torch.split(flat, [weight.numel() for weight in weights])
            weights = [piece.view_as(weight) for piece, weight in zip(pieces, weights, strict=True)]
        outputs: Tensor = torch.lstm(sequence, (state, state), weights, True, 1, 0.0, self.training, False, False)[0]
        return outputs
