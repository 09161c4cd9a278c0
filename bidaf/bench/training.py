"""Training steps of ours and of the plain form on the same batches, and how a step grows with batch and context."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from bidaf.bench.floors import Floors, floors
from bidaf.bench.inputs import synthetic
from bidaf.bench.plain import PlainTraining
from bidaf.bench.timing import Pairs, PhaseClock, in_turn, seconds_of
from bidaf.config import Config
from bidaf.data.batches import BatchSource, EpochOrder
from bidaf.data.cache import Prepared
from bidaf.device import peak_memory, reset_peak_memory
from bidaf.ema.average import ExponentialMovingAverage
from bidaf.training.step import Numbers
from bidaf.training.trainer import Trainer

BLOCK = 4  # steps of a form in a row: training is one step after the other
PHASES = ("batch", "forward", "backward", "optimizer", "ema")


@dataclass(frozen=True)
class TrainingTimes:
    """Seconds a step, on the same batches in turn."""

    pairs: Pairs
    questions: int
    """Questions of all timed batches."""
    random_order: list[float]
    """Seconds of the plain form on as many batches in random order; as `pairs.plain` when the config has that order."""
    shares: dict[str, dict[str, float]]
    """Each form's share of a step by phase; phases of parts that run side by side are added up."""
    memory: dict[str, int]
    """Each form's peak on the longest batch, bytes: the process's on a CPU, the allocator's on a GPU."""
    floors: list[Floors]
    """Of each timed batch."""

    def gaps(self) -> dict[str, float]:
        """Our time over each floor, all batches together."""
        taken = sum(self.pairs.ours)
        return {
            "over_arithmetic": taken / sum(floor.arithmetic for floor in self.floors),
            "over_latency": taken / sum(floor.latency for floor in self.floors),
        }

    @property
    def ratio_with_order(self) -> float:
        """How many times as many questions a second ours takes in the config's order as the plain form in random."""
        return sum(self.random_order) / sum(self.pairs.ours)


def time_training(config: Config, prepared: Prepared, device: torch.device, rounds: int) -> TrainingTimes:
    """Train both forms from the same weights on the first `rounds` batches of the config's order."""
    trainer = Trainer(config, prepared, device)
    ema = trainer.ema or ExponentialMovingAverage(trainer.model)
    plain, source = PlainTraining(trainer.model, config, ema.decay_at), trainer.train_source
    training = config.training
    shuffled = EpochOrder(source, training.batch_size, seed=training.seed, bucketed=False, reshuffle=True)

    def ours(number: int) -> None:
        trainer.step.run(source, *trainer.order.batch(number), number + 1)

    def theirs(order: EpochOrder) -> Callable[[int], object]:
        return lambda number: plain.step(source, *order.batch(number))

    pairs = in_turn(ours, theirs(trainer.order), rounds, device, block=BLOCK)
    random_order = pairs.plain
    if training.batching == "bucketed":
        theirs(shuffled)(0)
        random_order = [seconds_of(partial(theirs(shuffled), number), device) for number in range(rounds)]
    shares = {}
    for name, form, run in (("ours", trainer.step, ours), ("plain", plain, theirs(trainer.order))):
        clock = PhaseClock(device)
        before, form.phase = form.phase, clock.phase
        for number in range(min(rounds, 3)):
            run(number)
        form.phase, shares[name] = before, clock.shares()
    longest = source.context_lengths.argsort()[::-1][: training.batch_size].copy()
    answers = source.features.answer_offsets[longest]
    memory = {
        "ours": _peak(lambda: trainer.step.run(source, longest, answers, 1), device),
        "plain": _peak(lambda: plain.step(source, longest, answers), device),
    }
    questions = sum(len(trainer.order.batch(number)[0]) for number in range(rounds))
    bounds = [floors(trainer.model, source, trainer.order.batch(number)[0]) for number in range(rounds)]
    return TrainingTimes(pairs, questions, random_order, shares, memory, bounds)


@dataclass(frozen=True)
class Growth:
    """What a step takes at one batch size and context length."""

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
    tick: Callable[[], object] = lambda: None,
) -> list[Growth]:
    """A step's time (least of three) and peak memory on contexts of so many tokens each, drawn from the vocabulary."""
    trainer = Trainer(config, prepared, device)
    found = []
    for context_tokens in context_lengths:
        for batch_size in batch_sizes:
            source = BatchSource(synthetic(trainer.train_source.features, batch_size, context_tokens), device)
            questions = np.arange(batch_size)

            def work(source: BatchSource = source, questions: Numbers = questions) -> None:
                trainer.step.run(source, questions, questions, 1)

            work()
            seconds = min(seconds_of(work, device) for _ in range(3))
            found.append(Growth(batch_size, context_tokens, seconds, _peak(work, device)))
            tick()
    return found


def _peak(work: Callable[[], object], device: torch.device) -> int:
    gc.collect()
    reset_peak_memory(device)
    work()
    return peak_memory(device)
