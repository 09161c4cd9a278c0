"""What a run trains with: model, shadow, optimizer, data and order, built from settings and prepared features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from bidaf.config import Config
from bidaf.data.batches import BatchSource, EpochOrder
from bidaf.data.prepare import Prepared
from bidaf.device import matrix_precision, set_deterministic, set_up
from bidaf.ema.average import ExponentialMovingAverage, trained_weights
from bidaf.model.bidaf import Bidaf
from bidaf.model.build import build_model
from bidaf.runs.checkpoint import Checkpoint, restore_training
from bidaf.training.distributed import ALONE, Group, require_same
from bidaf.training.optimizer import build_optimizer
from bidaf.training.step import StepResult, TrainingStep

Scores = dict[str, dict[str, float]]  # "raw" and "ema" -> exact_match, f1 (percent)


@dataclass
class TrainingState:
    """What a run knows besides weights, shadow and optimizer; all of it is in every checkpoint."""

    step: int = 0
    evaluated_step: int = 0
    """The step of the newest evaluation, so that a resumed run neither repeats nor forgets one."""
    skipped: int = 0
    """Steps whose loss or gradient was not finite."""
    elapsed: float = 0.0
    """Seconds of training and evaluation, over all sittings."""
    scores: Scores | None = None
    best_step: int | None = None
    best_f1: float = -1.0
    evaluations_without_gain: int = 0
    interval_losses: list[float] = field(default_factory=list)
    """Losses since the last line of training metrics."""


class Trainer:
    """A model with its shadow, optimizer and data, ready to train. It writes nothing.

    Each process of a group has one, of the same settings and features.
    """

    def __init__(self, config: Config, prepared: Prepared, device: torch.device, group: Group = ALONE) -> None:
        set_up(device)
        set_deterministic(config.training.deterministic)
        torch.manual_seed(config.training.seed)
        vocabulary = prepared.vocabulary()
        self.config = config
        self.group = group
        self.prepared_key = prepared.folder.name
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
                self.model,
                decay=settings.decay,
                half_life=settings.half_life,
                warmup=settings.warmup,
                every=settings.every,
            )
            if settings.enabled
            else None
        )
        self.optimizer = build_optimizer(self.model, config.training.optimizer)
        self.precision = matrix_precision(config.training.precision, device)
        self.step = TrainingStep(self.model, self.optimizer, self.ema, config.training, self.precision, group)
        self.train_source = BatchSource(prepared.features("train"), device)
        self.dev_source = BatchSource(prepared.features("dev"), device)
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
        """Steps of the whole run: `epochs`, unless `max_steps` ends it before."""
        steps = self.config.training.epochs * self.order.batches_per_epoch
        return min(steps, self.config.training.max_steps or steps)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same settings."""
        restore_training(checkpoint, model=self.model, ema=self.ema, optimizer=self.optimizer)
        fields = {name: checkpoint.state[name] for name in asdict(self.state)}
        self.state = TrainingState(**fields)

    def take_from_first(self) -> None:
        """Weights, shadow, optimizer and state as rank 0 has them."""
        if self.group.size == 1:
            return
        weights, average = dict(trained_weights(self.model)), self.ema.state_dict() if self.ema else {"shadow": {}}
        shadow: Mapping[str, Tensor] = average.pop("shadow")
        optimizer = self.optimizer.state_dict()
        state, average = self.group.from_first([asdict(self.state), average])
        tensors = self.group.tensors_from_first(
            {
                **{f"raw/{name}": weight for name, weight in weights.items()},
                **{f"ema/{name}": tensor for name, tensor in shadow.items()},
                **{
                    f"optimizer/{number}/{name}": torch.as_tensor(value)
                    for number, fields in optimizer["state"].items()
                    for name, value in fields.items()
                },
            }
        )
        for name, weight in weights.items():
            weight.data.copy_(tensors[f"raw/{name}"])
        if self.ema is not None:
            self.ema.load_state_dict({**average, "shadow": {name: tensors[f"ema/{name}"] for name in shadow}})
        restored: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            if key.startswith("optimizer/"):
                _, number, field_name = key.split("/")
                restored.setdefault(int(number), {})[field_name] = tensor
        self.optimizer.load_state_dict({"state": restored, "param_groups": optimizer["param_groups"]})
        self.state = TrainingState(**state)

    def require_same(self) -> None:
        """Raise `BidafError` when the processes of the group do not hold the same weights and shadow, bit for bit."""
        sets: list[Mapping[str, Tensor]] = [dict(trained_weights(self.model))]
        if self.ema is not None:
            sets.append(self.ema.shadow)
        require_same(self.group, sets, f"step {self.state.step}: the weights")

    def mock_step(self) -> StepResult:
        """A training step on the longest batch there can be: what fails for want of memory fails here."""
        longest = self.train_source.context_lengths.argsort()[::-1][: self.config.training.batch_size].copy()
        answers = self.train_source.features.answer_offsets[longest]
        return self.step.run(self.train_source, longest, answers, step=0)
