"""Answering, averaging and preparing, each compared with its baseline."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from bench.baseline import BaselineBidaf, BaselineTraining
from bench.inputs import sample
from bench.timing import Pairs, Spread, in_turn, seconds_of, settle
from bidaf.config import Config
from bidaf.data.batches import BatchSource
from bidaf.data.cache import Prepared
from bidaf.data.prepare import prepare
from bidaf.data.workers import usable_cpus
from bidaf.ema.average import ExponentialMovingAverage
from bidaf.evaluation.evaluator import predict_spans
from bidaf.training.trainer import Trainer

UPDATES = 50  # per measurement: one takes less than a millisecond


@dataclass(frozen=True)
class PredictionTimes:
    """Seconds that each implementation takes to answer the same questions, in turn."""

    pairs: Pairs
    questions: int


@dataclass(frozen=True)
class EmaTimes:
    """Seconds per update of the average, and per training step of ours for comparison."""

    pairs: Pairs
    step: Spread


@dataclass(frozen=True)
class PrepareTimes:
    """Seconds from text to features, nothing prepared before: in `workers` processes and in one (the baseline)."""

    pairs: Pairs
    workers: int


def time_prediction(
    config: Config, prepared: Prepared, device: torch.device, rounds: int, questions: int
) -> PredictionTimes:
    """Answer a sample of the prepared dev questions, with an untrained model: it is as fast as a trained one."""
    trainer = Trainer(config, prepared, device)
    baseline = BaselineBidaf(trainer.model)
    source = BatchSource(sample(trainer.dev_source.features, questions), device)

    def answer(model: torch.nn.Module, source: BatchSource) -> None:
        settings = config.evaluation
        predict_spans(model, source, batch_tokens=settings.batch_tokens, max_answer_tokens=settings.max_answer_tokens)

    pairs = in_turn(lambda n: answer(trainer.model, source), lambda n: answer(baseline, source), rounds, device)
    return PredictionTimes(pairs, len(source))


def time_average(config: Config, prepared: Prepared, device: torch.device, rounds: int) -> EmaTimes:
    """Update the shadow of the config's model, and the baseline's dictionary."""
    trainer = Trainer(config, prepared, device)
    ema = trainer.ema or ExponentialMovingAverage(trainer.model)
    baseline = BaselineTraining(trainer.model, config, ema.decay_at)

    def repeat(update: Callable[[], None]) -> None:
        for _ in range(UPDATES):
            update()

    def step(number: int) -> None:
        trainer.step.run(trainer.train_source, *trainer.order.batch(number), number + 1)

    pairs = in_turn(lambda n: repeat(ema.update), lambda n: repeat(baseline.average.update), rounds, device)
    step(0)
    steps = []
    for number in range(1, rounds + 1):
        settle(partial(step, number), device)
        steps.append(seconds_of(partial(step, number), device))
    each = Pairs(*([total / UPDATES for total in seconds] for seconds in (pairs.ours, pairs.baseline)))
    return EmaTimes(each, Spread.of(steps))


def time_preparing(config: Config, rounds: int) -> PrepareTimes:
    """Prepare the config's data again and again, each time in a new folder."""
    workers = usable_cpus()

    def work(workers: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            prepare(config.data.model_copy(update={"prepared_dir": folder}), workers=workers)

    pairs = in_turn(lambda n: work(workers), lambda n: work(1), rounds, torch.device("cpu"), warmup=0)
    return PrepareTimes(pairs, workers)
