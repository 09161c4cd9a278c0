"""Dropout whose random numbers are cheap on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LANES = 4  # 16-bit decisions in one 64-bit random number


def keep_mask(like: Tensor, drop: float) -> Tensor:
    """A float mask of `like`'s shape: 0 with probability `drop`, else 1 / (1 - drop).

    On a CPU the generator draws one number after the other, so that the draws, not the arithmetic, are
    the cost of dropout. Four decisions are cut from one 64-bit draw: `drop` is thereby rounded to a
    multiple of 2**-16 (0.2 becomes 0.20000).
    """
    count = like.numel()
    draws = torch.empty((count + LANES - 1) // LANES, dtype=torch.int64, device=like.device)
    draws.random_(-(2**63), None)  # the full range: by default the sign bit would stay 0
    lanes = draws.view(torch.int16)[:count].view(like.shape)
    mask = torch.empty_like(like, memory_format=torch.contiguous_format)
    torch.ge(lanes, round(drop * 2**16) - 2**15, out=mask)
    return mask.mul_(1.0 / (1.0 - drop))


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, drop: float) -> Tensor:
        mask = keep_mask(values, drop)
        ctx.save_for_backward(mask)
        return values * mask

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return grad * mask, None


class Dropout(nn.Module):
    """Zeroes a share `drop` of the inputs in training and scales the rest by 1 / (1 - drop)."""

    def __init__(self, drop: float) -> None:
        super().__init__()
        self.drop = drop

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or self.drop == 0.0:
            return values
        if values.device.type != "cpu":
            return F.dropout(values, self.drop)
        dropped: Tensor = _Dropped.apply(values, self.drop)  # type: ignore[no-untyped-call]
        return dropped

    def extra_repr(self) -> str:
        return f"drop={self.drop}"
