"""Two lower bounds on the time of a training step: its arithmetic, and its LSTM steps one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from bench.timing import seconds_of
from bidaf.data.batches import BatchSource
from bidaf.model.bidaf import Bidaf
from bidaf.training.step import Numbers

PRODUCT = 2048  # rows and columns of the matrix product whose speed is taken as the device's
LSTM_STEPS = 200


@dataclass(frozen=True)
class Roofline:
    """The bounds of a step, and what they follow from."""

    flop: float
    """Floating-point operations of the step's matrix products, forward and backward."""
    flop_per_second: float
    """The speed of one large fp32 product on this device: the most that small ones could reach."""
    serial_steps: int
    """LSTM steps each of which waits for the one before."""
    step_seconds: float
    """Seconds of one LSTM step of a single question, forward and backward: nearly all of it is latency."""

    @property
    def arithmetic(self) -> float:
        """Seconds."""
        return self.flop / self.flop_per_second

    @property
    def latency(self) -> float:
        """Seconds."""
        return self.serial_steps * self.step_seconds


def roofline(model: Bidaf, source: BatchSource, questions: Numbers) -> Roofline:
    """The bounds of a step on these questions, without padding and without attention (1 % of the arithmetic)."""
    batch = source.gather(questions)
    layers = [model.context_phrase or model.phrase, *model.modeling, model.end_lstm]
    context_tokens, question_tokens = int(batch.context_length.sum()), int(batch.question_length.sum())
    char, highway = model.embedding.char, model.embedding.highway
    assert char is not None
    windows = batch.chars.shape[1] - char.width + 1
    multiplications = (
        context_tokens * sum(_lstm_weights(layer) for layer in layers)
        + question_tokens * _lstm_weights(model.phrase)
        + len(batch.word_rows) * (windows * char.weight.numel() + sum(w.numel() for w in highway.parameters()))
    )
    return Roofline(
        # Multiply and add; the backward pass takes two products for each one of the forward pass.
        flop=3.0 * 2.0 * multiplications,
        flop_per_second=_product_speed(source.device),
        serial_steps=len(layers) * batch.context.shape[1],
        step_seconds=_lstm_step(model.phrase.hidden_size, source.device),
    )


def _lstm_weights(layer: nn.Module) -> int:
    return sum(getattr(layer, name).numel() for name in ("weight_ih", "weight_hh"))


@cache
def _product_speed(device: torch.device) -> float:
    left, right = torch.randn(2, PRODUCT, PRODUCT, device=device)
    return 2.0 * PRODUCT**3 / _least(lambda: left @ right, device)


@cache
def _lstm_step(d: int, device: torch.device) -> float:
    lstm = nn.LSTM(d, d).to(device)
    sequence = torch.randn(LSTM_STEPS, 1, d, device=device)
    return _least(lambda: lstm(sequence)[0].sum().backward(), device) / LSTM_STEPS


def _least(work: Callable[[], object], device: torch.device) -> float:
    work()
    return min(seconds_of(work, device) for _ in range(5))
