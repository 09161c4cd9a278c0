"""Training steps of ours and of the baseline on the same batches, and how a step grows with batch and context."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from bench.baseline import BaselineTraining
from bench.inputs import synthetic
from bench.roofline import Roofline, roofline
from bench.timing import Pairs, PhaseClock, in_turn, seconds_of, settle
from bidaf.config import Config
from bidaf.data.batches import BatchSource, EpochOrder
from bidaf.data.cache import Prepared
from bidaf.device import peak_memory, reset_peak_memory
from bidaf.ema.average import ExponentialMovingAverage
from bidaf.training.step import Numbers, TrainingStep
from bidaf.training.trainer import Trainer

BLOCK = 4  # steps of one implementation in a row, as training runs them
PHASES = ("batch", "forward", "backward", "optimizer", "ema")


@dataclass(frozen=True)
class TrainingTimes:
    """Seconds per step, on the same batches in turn."""

    pairs: Pairs
    questions: int
    """Questions of all timed batches."""
    random_order: list[float]
    """Seconds of the baseline on as many batches in random order; `pairs.baseline` when the config has that order."""
    shares: dict[str, dict[str, float]]
    """Each implementation's share of a step by phase, summed over micro-batches that run at the same time."""
    memory: dict[str, int]
    """Each implementation's peak on the longest batch, bytes: of the process on a CPU, reserved on a GPU."""
    rooflines: list[Roofline]
    """One per timed batch."""

    def gaps(self) -> dict[str, float]:
        """Our time over each lower bound, all batches together."""
        taken = sum(self.pairs.ours)
        return {
            "over_arithmetic": taken / sum(bound.arithmetic for bound in self.rooflines),
            "over_latency": taken / sum(bound.latency for bound in self.rooflines),
        }

    @property
    def ratio_with_order(self) -> float:
        """Questions per second of ours in the config's order over those of the baseline in random order."""
        return sum(self.random_order) / sum(self.pairs.ours)


def time_training(config: Config, prepared: Prepared, device: torch.device, rounds: int) -> TrainingTimes:
    """Train both from the same weights on the first `rounds` batches of the config's order."""
    trainer = Trainer(config, prepared, device)
    ema = trainer.ema or ExponentialMovingAverage(trainer.model)
    baseline, source = BaselineTraining(trainer.model, config, ema.decay_at), trainer.train_source
    training = config.training
    shuffled = EpochOrder(source, training.batch_size, seed=training.seed, bucketed=False, reshuffle=True)

    def ours(number: int) -> None:
        trainer.step.run(source, *trainer.order.batch(number), number + 1)

    def theirs(number: int, order: EpochOrder = trainer.order) -> None:
        baseline.step(source, *order.batch(number))

    longest = source.context_lengths.argsort()[::-1][: training.batch_size].copy()
    answers = source.features.answer_offsets[longest]
    memory = {  # on a GPU in this order: memory that recorded steps reserve stays reserved
        "baseline": _peak(lambda: baseline.step(source, longest, answers), device),
        "ours": _peak(lambda: trainer.step.run(source, longest, answers, 1), device),
    }
    pairs = in_turn(ours, theirs, rounds, device, block=BLOCK)
    random_order = pairs.baseline
    if training.batching == "bucketed":
        theirs(0, shuffled)
        random_order = [seconds_of(partial(theirs, number, shuffled), device) for number in range(rounds)]
    questions = sum(len(trainer.order.batch(number)[0]) for number in range(rounds))
    rooflines = [roofline(trainer.model, source, trainer.order.batch(number)[0]) for number in range(rounds)]
    shares = _phases(trainer, ema, rounds=min(rounds, 3))
    return TrainingTimes(pairs, questions, random_order, shares, memory, rooflines)


def _phases(trainer: Trainer, ema: ExponentialMovingAverage, rounds: int) -> dict[str, dict[str, float]]:
    """Each phase's share of a step whose phases are timed; on a GPU such a step is not recorded."""
    source, config, device = trainer.train_source, trainer.config, trainer.train_source.device
    clocks = {"ours": PhaseClock(device), "baseline": PhaseClock(device)}
    step = TrainingStep(
        trainer.model, trainer.optimizer, ema, config.training, trainer.precision, phase=clocks["ours"].phase
    )
    baseline = BaselineTraining(trainer.model, config, ema.decay_at, clocks["baseline"].phase)
    for number in range(rounds):
        questions, answers = trainer.order.batch(number)
        step.run(source, questions, answers, number + 1)
        baseline.step(source, questions, answers)
    return {name: clock.shares() for name, clock in clocks.items()}


@dataclass(frozen=True)
class Growth:
    """Time and memory of a step at one batch size and context length."""

    batch_size: int
    context_tokens: int
    seconds: float
    memory_bytes: int


def sweep(
    config: Config,
    prepared: Prepared,
    device: torch.device,
    batch_sizes: Sequence[int],
    context_lengths: Sequence[int],
    on_progress: Callable[[], object] = lambda: None,
) -> list[Growth]:
    """A step's time (least of three) and peak memory on random contexts of each length."""
    trainer = Trainer(config, prepared, device)
    found = []
    for context_tokens in context_lengths:
        for batch_size in batch_sizes:
            source = BatchSource(synthetic(trainer.train_source.features, batch_size, context_tokens), device)
            questions = np.arange(batch_size)

            def work(source: BatchSource = source, questions: Numbers = questions) -> None:
                trainer.step.run(source, questions, questions, 1)

            work()
            settle(work, device)
            seconds = min(seconds_of(work, device) for _ in range(3))
            found.append(Growth(batch_size, context_tokens, seconds, _peak(work, device)))
            on_progress()
    return found


def _peak(work: Callable[[], object], device: torch.device) -> int:
    gc.collect()
    reset_peak_memory(device)
    work()
    settle(work, device)
    return peak_memory(device)
