"""One optimizer step: forward, backward, guard, update of weights and shadow."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bidaf.config import TrainingConfig
from bidaf.data.batches import BatchSource
from bidaf.ema import ExponentialMovingAverage
from bidaf.errors import BidafError
from bidaf.model.bidaf import Bidaf, span_loss


class StepResult(NamedTuple):
    """Mean loss of the batch, global norm of its gradient before clipping, and whether the weights were changed."""

    loss: float
    grad_norm: float
    updated: bool


class TrainingStep:
    """Holds what a step changes: model, optimizer, shadow."""

    def __init__(
        self,
        model: Bidaf,
        optimizer: torch.optim.Optimizer,
        ema: ExponentialMovingAverage | None,
        config: TrainingConfig,
        precision: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.ema = ema
        self.config = config
        self.precision = precision
        self._weights = [weight for weight in model.parameters() if weight.requires_grad]

    def run(
        self, source: BatchSource, questions: NDArray[np.int64], answers: NDArray[np.int64], step: int
    ) -> StepResult:
        """Train on these questions and gold answers as optimizer step `step`.

        Dropout masks are a function of (seed, step). With `accumulate` the batch runs in parts, each weighted by its
        share of questions; optimizer and shadow still move once. When loss or gradient is not finite nothing moves:
        raises `BidafError` naming the questions, or returns with `updated` false (`nonfinite: skip`).
        """
        torch.manual_seed(_step_seed(self.config.seed, step))
        loss = self._backward(source, questions, answers)
        gradients = [weight.grad for weight in self._weights if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        result = StepResult(float(loss), float(norm), bool(torch.isfinite(loss + norm)))
        if result.updated:
            if self.config.clip_norm is not None:
                torch.nn.utils.clip_grads_with_norm_(self._weights, self.config.clip_norm, norm)
            self.optimizer.step()
            if self.ema is not None:
                self.ema.update()
        self.optimizer.zero_grad(set_to_none=True)
        if not result.updated and self.config.nonfinite == "stop":
            ids = ", ".join(source.features.ids[question] for question in questions)
            raise BidafError(
                f"step {step}: loss {result.loss} with gradient norm {result.grad_norm} is not finite; no weight "
                f"was changed. Lower training.optimizer.lr or set training.clip_norm, or set training.nonfinite: "
                f"skip to pass over such batches. Questions of the batch: {ids}"
            )
        return result

    def _backward(self, source: BatchSource, questions: NDArray[np.int64], answers: NDArray[np.int64]) -> Tensor:
        self.model.train()
        total = torch.zeros((), device=source.device)
        parts = min(self.config.accumulate, len(questions))
        pairs = zip(np.array_split(questions, parts), np.array_split(answers, parts), strict=True)
        for part, part_answers in pairs:
            start, end = source.gold_spans(part_answers)
            with self.precision():
                scores = self.model(source.gather(part))
            loss = span_loss(scores, start, end) * (len(part) / len(questions))
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total


def _step_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint32)[0])
