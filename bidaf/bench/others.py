"""Answering, averaging and preparing, each against its plain form."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from bidaf.bench.inputs import sample
from bidaf.bench.plain import PlainTraining, load_plain
from bidaf.bench.timing import Pairs, Spread, in_turn, seconds_of
from bidaf.config import Config
from bidaf.data.batches import BatchSource
from bidaf.data.cache import Prepared
from bidaf.data.prepare import prepare
from bidaf.data.workers import usable_cpus
from bidaf.ema.average import ExponentialMovingAverage
from bidaf.evaluation.evaluator import predict_spans
from bidaf.training.trainer import Trainer

UPDATES = 50  # in one measurement of the average, which takes a millisecond


@dataclass(frozen=True)
class PredictionTimes:
    """Seconds for the same questions, in turn."""

    pairs: Pairs
    questions: int


@dataclass(frozen=True)
class EmaTimes:
    """Seconds an update of the average; and of a training step of ours, to compare."""

    pairs: Pairs
    step: Spread


@dataclass(frozen=True)
class PrepareTimes:
    """Seconds from text to features, nothing prepared before: in one process (plain) and in `workers`."""

    pairs: Pairs
    workers: int


def time_prediction(
    config: Config, prepared: Prepared, device: torch.device, rounds: int, questions: int
) -> PredictionTimes:
    """Answer a sample of the dev questions, tokenized before, with an untrained model: its speed is a trained one's."""
    trainer = Trainer(config, prepared, device)
    plain = load_plain().PlainBidaf(trainer.model)
    source = BatchSource(sample(trainer.dev_source.features, questions), device)

    def answer(model: torch.nn.Module, source: BatchSource) -> None:
        settings = config.evaluation
        predict_spans(model, source, batch_tokens=settings.batch_tokens, max_answer_tokens=settings.max_answer_tokens)

    pairs = in_turn(lambda n: answer(trainer.model, source), lambda n: answer(plain, source), rounds, device)
    return PredictionTimes(pairs, len(source))


def time_average(config: Config, prepared: Prepared, device: torch.device, rounds: int) -> EmaTimes:
    """Move the shadow of the config's model, and a dictionary's."""
    trainer = Trainer(config, prepared, device)
    ema = trainer.ema or ExponentialMovingAverage(trainer.model)
    plain = PlainTraining(trainer.model, config, ema.decay_at)

    def repeat(update: Callable[[], None]) -> None:
        for _ in range(UPDATES):
            update()

    def step(number: int) -> None:
        trainer.step.run(trainer.train_source, *trainer.order.batch(number), number + 1)

    pairs = in_turn(lambda n: repeat(ema.update), lambda n: repeat(plain.average.update), rounds, device)
    step(0)
    steps = [seconds_of(partial(step, number), device) for number in range(1, rounds + 1)]
    each = Pairs(*([seconds / UPDATES for seconds in form] for form in (pairs.ours, pairs.plain)))
    return EmaTimes(each, Spread.of(steps))


def time_preparing(config: Config, rounds: int) -> PrepareTimes:
    """Prepare the config's data anew, each time in a folder of its own."""
    workers = usable_cpus()

    def work(workers: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            prepare(config.data.model_copy(update={"prepared_dir": folder}), workers=workers)

    pairs = in_turn(lambda n: work(workers), lambda n: work(1), rounds, torch.device("cpu"), warmup=0)
    return PrepareTimes(pairs, workers)
