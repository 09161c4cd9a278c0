"""The plain form, which stands among the scripts of a source checkout, as something to train and to answer with."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bidaf.config import Config
from bidaf.data.batches import BatchSource
from bidaf.errors import UsageError
from bidaf.model.bidaf import Bidaf, span_loss
from bidaf.training.optimizer import build_optimizer

PLAIN = Path(__file__).parents[2] / "scripts" / "plain.py"


def load_plain() -> Any:
    """The module scripts/plain.py. Raises `UsageError` outside a source checkout."""
    spec = importlib.util.spec_from_file_location("plain", PLAIN)
    if not PLAIN.is_file() or spec is None or spec.loader is None:
        raise UsageError(f"bench compares with the plain form in {PLAIN}, which only a source checkout has")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class PlainTraining:
    """Training of the plain form, as one writes it down first; begins with the weights of `model`.

    `decay_at` is the average's decay at each step, as `ExponentialMovingAverage.decay_at` gives it.
    """

    def __init__(self, model: Bidaf, config: Config, decay_at: Callable[[int], float]) -> None:
        plain = load_plain()
        self.model: nn.Module = plain.PlainBidaf(model)
        self.average = plain.PlainAverage(self.model, decay_at)
        self.optimizer = build_optimizer(self.model, config.training.optimizer)
        self.clip_norm = config.training.clip_norm
        self.phase: Callable[[str], AbstractContextManager[object]] = lambda name: nullcontext()

    def step(self, source: BatchSource, questions: NDArray[np.int64], answers: NDArray[np.int64]) -> float:
        """One step on these questions and gold answers; its loss."""
        self.model.train()
        with self.phase("batch"):
            batch = source.gather(questions)
            start, end = source.gold_spans(answers)
        with self.phase("forward"):
            loss = span_loss(self.model(batch), start, end)
        with self.phase("backward"):
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        with self.phase("optimizer"):
            if self.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
            self.optimizer.step()
        with self.phase("ema"):
            self.average.update()
        return loss.item()
