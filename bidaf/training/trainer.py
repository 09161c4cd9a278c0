"""What a run trains with: model, shadow, optimizer, data and order, built from settings and prepared features."""

from __future__ import annotations

from pathlib import Path

import torch

from bidaf.config import Config
from bidaf.data.batches import BatchSource, EpochOrder
from bidaf.data.cache import Prepared
from bidaf.data.features import is_no_answer
from bidaf.device import matrix_precision, set_deterministic, set_up
from bidaf.distributed import ALONE, Group, require_same
from bidaf.ema.average import ExponentialMovingAverage, trained_weights
from bidaf.errors import BidafError, DataError
from bidaf.model.bidaf import Bidaf
from bidaf.model.build import build_model
from bidaf.model.weights import check_tensors, load_weights, nonfinite
from bidaf.runs.checkpoint import OPTIMIZER, Checkpoint, save_checkpoint
from bidaf.runs.state import TrainingState
from bidaf.runs.weight_sets import EMA, RAW
from bidaf.training.optimizer import (
    build_optimizer,
    check_optimizer_tensors,
    load_optimizer_tensors,
    optimizer_tensors,
)
from bidaf.training.scored_sets import ScoredSet, scored_sets
from bidaf.training.step import StepResult, TrainingStep

LISTED = 5  # names of tensors in an error


class Trainer:
    """A model with its shadow, optimizer and data, ready to train.

    Each process of a group has one, of the same settings and features.
    """

    def __init__(self, config: Config, prepared: Prepared, device: torch.device, group: Group = ALONE) -> None:
        set_up(device)
        set_deterministic(config.training.deterministic)
        torch.manual_seed(config.training.seed)
        vocabulary = prepared.vocabulary()
        self.config = config
        self.group = group
        self.prepared_key = prepared.key
        self.model: Bidaf = build_model(
            config.model,
            num_trained=len(vocabulary.trained_words),
            num_chars=len(vocabulary.chars),
            vectors=prepared.vectors(),
            device=device,
        )
        settings = config.ema
        self.ema = (
            ExponentialMovingAverage(
                self.model, decay=settings.decay, half_life=settings.half_life, warmup=settings.warmup
            )
            if settings.enabled
            else None
        )
        self.scored_sets = scored_sets(self.model, self.ema)
        self.averages: list[ScoredSet] = []
        """Other averages that the newest evaluation scored."""
        self.optimizer = build_optimizer(self.model, config.training.optimizer)
        self.precision = matrix_precision(config.training.precision, device)
        self.step = TrainingStep(self.model, self.optimizer, self.ema, config.training, self.precision, group)
        self.train_source = BatchSource(prepared.features("train"), device)
        self.dev_source = BatchSource(prepared.features("dev"), device)
        if not config.model.no_answer and is_no_answer(self.train_source.features.answer_spans).any():
            raise DataError(f"{prepared.folder} holds questions without an answer, and model.no_answer is false")
        self.order = EpochOrder(
            self.train_source,
            config.training.batch_size,
            seed=config.training.seed,
            bucketed=config.training.batching == "bucketed",
            reshuffle=config.training.reshuffle,
        )
        self.state = TrainingState()

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.config.training.total_steps(self.order.batches_per_epoch)

    def save(self, folder: Path) -> None:
        """Write a checkpoint to `folder`. Raises `BidafError` when it can't be written."""
        averages = self.averages if self.state.evaluated_step == self.state.step else []
        save_checkpoint(
            folder,
            weights={each.name: (each.made(), each.tensors()) for each in [*self.scored_sets, *averages]},
            optimizer=optimizer_tensors(self.model, self.optimizer),
            config=self.config,
            state=self.state,
            features=self.prepared_key,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint of the same settings. Raises `DataError` for tensors that do not fit."""
        where, state = checkpoint.folder, checkpoint.state
        optimizer = checkpoint.tensors(OPTIMIZER)
        check_optimizer_tensors(
            self.model, self.optimizer, optimizer, updates=state.updates, what=f"the optimizer tensors of {where}"
        )
        load_weights(self.model, checkpoint.weights(RAW), f"the {RAW} weights of {where}")
        load_optimizer_tensors(self.model, self.optimizer, optimizer)
        if self.ema is not None:
            shadow = checkpoint.weights(EMA)
            check_tensors(self.ema.shadow, shadow, f"the {EMA} weights of {where}")
            try:
                self.ema.load_state_dict({**checkpoint.weight_sets[EMA].model_dump(), "shadow": shadow})
            except ValueError as error:
                raise DataError(f"{where} does not fit this run: {error}") from None
        self.state = state.model_copy(deep=True)

    def take_from_first(self) -> None:
        """Weights, shadow, optimizer and state as rank 0 has them."""
        if self.group.size == 1:
            return
        weights = self.group.tensors_from_first(dict(trained_weights(self.model)))
        load_weights(self.model, weights, "the weights of rank 0")
        optimizer = self.group.tensors_from_first(optimizer_tensors(self.model, self.optimizer))
        load_optimizer_tensors(self.model, self.optimizer, optimizer)
        if self.ema is not None:
            state = self.ema.state_dict()
            shadow = self.group.tensors_from_first(state.pop("shadow"))
            self.ema.load_state_dict({**self.group.from_first(state), "shadow": shadow})
        self.state = TrainingState.model_validate(self.group.from_first(self.state.model_dump()))

    def require_finite(self) -> None:
        """Raise `BidafError` naming what holds a NaN or an infinity, before it is scored or saved."""
        tensors = {f"the {each.name} weights": each.tensors() for each in self.scored_sets}
        for what, named in {**tensors, "the optimizer's state": optimizer_tensors(self.model, self.optimizer)}.items():
            if found := nonfinite(named):
                raise BidafError(
                    f"step {self.state.step}: {what} diverged: {', '.join(found[:LISTED])} "
                    f"{'hold' if len(found) > 1 else 'holds'} numbers that are not finite. Nothing of this step is "
                    "saved; lower training.optimizer.lr or set training.clip_norm."
                )

    def require_same(self) -> None:
        """Raise `BidafError` when the processes of the group do not hold the same weights and shadow, bit for bit."""
        require_same(self.group, [each.tensors() for each in self.scored_sets], f"step {self.state.step}: the weights")

    def mock_step(self) -> StepResult:
        """A training step on the longest possible batch: if the memory is too small, it fails here."""
        longest = self.train_source.context_lengths.argsort()[::-1][: self.config.training.batch_size].copy()
        answers = self.train_source.features.answer_offsets[longest]
        return self.step.run(self.train_source, longest, answers, step=0)
