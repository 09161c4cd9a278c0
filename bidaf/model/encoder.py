"""The bidirectional LSTM that every sequence layer of BiDAF is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
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
def _side_by_side(*shared: Tensor) -> Iterator[Callable[[Tensor], None]]:
    """On a GPU, run the kernels of the block at the same time as those launched after it; on a CPU, just run it.

    `shared` are the tensors that the block reads. Call what the context manager gives with the block's result before
    using that. One step of an LSTM is too small to fill a GPU, so that two directions take little longer than one.
    """
    if not shared[0].is_cuda:
        yield lambda result: None
        return
    main, side = torch.cuda.current_stream(shared[0].device), _side_stream(shared[0].device)
    side.wait_stream(main)

    def join(result: Tensor) -> None:
        main.wait_stream(side)
        # The allocator reuses memory per stream: tell it which other stream uses a tensor.
        result.record_stream(main)
        for tensor in shared:
            tensor.record_stream(side)

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

    def __init__(self, input_size: int, hidden_size: int, p: float) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.dropout = Dropout(p)
        self.weight_ih = nn.Parameter(torch.empty(2, 4 * hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(2, 4 * hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(2, 4 * hidden_size))
        lecun_uniform_(self.weight_ih, input_size + hidden_size)
        lecun_uniform_(self.weight_hh, input_size + hidden_size)
        with torch.no_grad():
            self.bias[:, hidden_size : 2 * hidden_size] = 1.0

    def forward(self, sequence: Tensor, lengths: Tensor, *, with_dropout: bool = True) -> Tensor:
        # Step by step in memory, as the kernels want it: dropout writes its result in that order.
        sequence = sequence.transpose(0, 1)
        sequence = (self.dropout(sequence) if with_dropout else sequence).contiguous()
        ahead_weights, back_weights = self._weights()
        with _side_by_side(sequence, *back_weights) as join:
            back = reverse_within_length(self._run(reverse_within_length(sequence, lengths), back_weights), lengths)
        ahead = self._run(sequence, ahead_weights)
        join(back)
        padding = torch.arange(sequence.shape[0], device=sequence.device).unsqueeze(1) >= lengths
        return torch.cat([ahead, back], dim=2).masked_fill(padding.unsqueeze(2), 0.0).transpose(0, 1)

    def _weights(self) -> Iterator[list[Tensor]]:
        """For each direction what `torch.lstm` takes: input, recurrent, bias, and its second bias, which stays 0.

        Call it before the directions go to different streams: gradients of the weights are then summed on one.
        """
        directions = zip(self.weight_ih.unbind(), self.weight_hh.unbind(), self.bias.unbind(), strict=True)
        for input_weight, recurrent_weight, bias in directions:
            weights = [input_weight, recurrent_weight, bias, torch.zeros_like(bias)]
            if bias.is_cuda:
                # One block of memory in cuDNN's order, or cuDNN would copy them into one, with a warning, at each call.
                flat = torch.cat([weight.flatten() for weight in weights])
                pieces = torch.split(flat, [weight.numel() for weight in weights])
                weights = [piece.view_as(weight) for piece, weight in zip(pieces, weights, strict=True)]
            yield weights

    def _run(self, sequence: Tensor, weights: list[Tensor]) -> Tensor:
        """One direction, [steps, batch, in] -> [steps, batch, d], by PyTorch's fused kernel (oneDNN, cuDNN)."""
        # cuDNN's LSTM under autocast is always float16, which would need loss scaling: it stays in float32 there.
        with torch.autocast("cuda", enabled=False) if sequence.is_cuda else nullcontext():
            sequence = sequence.to(weights[0].dtype) if sequence.is_cuda else sequence
            state = sequence.new_zeros(1, sequence.shape[1], self.hidden_size)
            outputs: Tensor = torch.lstm(sequence, (state, state), weights, True, 1, 0.0, self.training, False, False)[
                0
            ]
            return outputs
