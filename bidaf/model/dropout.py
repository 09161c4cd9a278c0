"""Dropout whose random numbers are cheap on a CPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LANES = 4  # 16-bit decisions in one 64-bit random number


class _Drawing(threading.local):
    generator: torch.Generator | None = None


_drawing = _Drawing()


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Within the block this thread's masks on a CPU are a function of `seed`, whatever other threads draw meanwhile."""
    before, _drawing.generator = _drawing.generator, torch.Generator().manual_seed(seed)
    try:
        yield
    finally:
        _drawing.generator = before


def keep_mask(like: Tensor, p: float) -> Tensor:
    """A float mask of `like`'s shape: 0 with probability `p`, else 1 / (1 - p).

    A CPU generator draws one number after the other, so that the draws, not the arithmetic, are the
    cost of dropout. Each 64-bit draw is cut into four decisions: `p` is thereby rounded to a multiple
    of 2**-16 (0.2 becomes 0.20000).
    """
    count = like.numel()
    draws = torch.empty((count + LANES - 1) // LANES, dtype=torch.int64, device=like.device)
    draws.random_(-(2**63), None, generator=_drawing.generator)  # the full range: by default the sign bit would stay 0
    lanes = draws.view(torch.int16)[:count].view(like.shape)
    mask = torch.empty_like(like, memory_format=torch.contiguous_format)
    torch.ge(lanes, round(p * 2**16) - 2**15, out=mask)
    return mask.mul_(1.0 / (1.0 - p))


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, p: float) -> Tensor:
        mask = keep_mask(values, p)
        ctx.save_for_backward(mask)
        return torch.mul(values, mask, out=torch.empty_like(mask))  # in the order of the mask: contiguous

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return grad * mask, None


class _DroppedScores(torch.autograd.Function):
    """(dropout(values) @ weight) without a gradient of `values` apart from the mask's own memory."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, p: float) -> Tensor:
        mask = keep_mask(values, p)
        dropped = torch.mul(values, mask, out=torch.empty_like(mask))
        ctx.save_for_backward(mask, dropped, weight)
        return dropped @ weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        mask, dropped, weight = ctx.saved_tensors
        weight_grad = dropped.flatten(0, -2).t() @ grad.flatten()
        return mask.mul_(weight).mul_(grad.unsqueeze(-1)), weight_grad, None


class Dropout(nn.Module):
    """In training sets a share `p` of the inputs to 0 and scales the rest by 1 / (1 - p)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return values
        if values.device.type != "cpu":
            return F.dropout(values, self.p)
        dropped: Tensor = _Dropped.apply(values, self.p)  # type: ignore[no-untyped-call]
        return dropped

    def score(self, values: Tensor, weight: Tensor) -> Tensor:
        """`self(values) @ weight`: [..., size] and [size] -> [...]."""
        plain = not self.training or self.p == 0.0 or values.dtype != weight.dtype or torch.is_autocast_enabled("cpu")
        if plain or values.device.type != "cpu":
            scores: Tensor = self(values) @ weight
            return scores
        fused: Tensor = _DroppedScores.apply(values, weight, self.p)  # type: ignore[no-untyped-call]
        return fused

    def extra_repr(self) -> str:
        return f"p={self.p}"
