"""Whether ours learns as well as the baseline: both trained on a config's data, seed by seed, and scored alike.

The two draw different dropout masks, so that single runs differ as seeds do: compare the ranges.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from tqdm import trange

from bench.baseline import BaselineTraining
from bidaf.config import Config
from bidaf.data.cache import Prepared
from bidaf.ema.average import trained_weights
from bidaf.evaluation.evaluator import predict_spans
from bidaf.evaluation.squad_v1 import score_answers
from bidaf.training.trainer import Trainer


@dataclass(frozen=True)
class Outcome:
    """Dev F1 (percent) of one implementation, trained with one seed."""

    implementation: str
    seed: int
    raw_f1: float
    ema_f1: float


def train_both(config: Config, prepared: Prepared, device: torch.device, seed: int, epochs: int) -> Iterator[Outcome]:
    """Train both from the same initial weights on the same batches."""
    training, ema = config.training.model_copy(update={"seed": seed}), config.ema.model_copy(update={"enabled": True})
    trainer = Trainer(config.model_copy(update={"training": training, "ema": ema}), prepared, device)
    assert trainer.ema is not None
    source, order = trainer.train_source, trainer.order
    baseline = BaselineTraining(trainer.model, trainer.config, trainer.ema.decay_at)
    steps = epochs * order.batches_per_epoch

    def score(model: nn.Module) -> float:
        settings, dev = config.evaluation, trainer.dev_source
        answers = predict_spans(
            model, dev, batch_tokens=settings.batch_tokens, max_answer_tokens=settings.max_answer_tokens
        )
        gold = dict(zip(dev.features.ids, dev.features.answers, strict=True))
        return score_answers(gold, {question: best.text for question, (best,) in answers.items()}).f1

    for number in trange(steps, desc=f"ours, seed {seed}", disable=None, leave=False):
        trainer.step.run(source, *order.batch(number), number + 1)
    raw = score(trainer.model)
    with trainer.ema.applied():
        yield Outcome("ours", seed, raw, score(trainer.model))
    torch.manual_seed(seed)
    for number in trange(steps, desc=f"baseline, seed {seed}", disable=None, leave=False):
        baseline.step(source, *order.batch(number))
    raw = score(baseline.model)
    with _holding(baseline.model, baseline.average.shadow):
        yield Outcome("baseline", seed, raw, score(baseline.model))


@contextmanager
def _holding(model: nn.Module, weights: dict[str, torch.Tensor]) -> Iterator[None]:
    """Within the block the model holds other weights."""
    own = {name: weight.detach().clone() for name, weight in trained_weights(model)}
    model.load_state_dict(weights, strict=False)
    yield
    model.load_state_dict(own, strict=False)
