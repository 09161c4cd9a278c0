"""The optimizers, with the constants of the recipe they come from, learning rates, and their state by weight name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bidaf.config_optimizer import (
    AdadeltaConfig,
    AdamConfig,
    AdamWConfig,
    DecaySchedule,
    OptimizerConfig,
    ScheduleConfig,
)
from bidaf.ema.average import trained_weights
from bidaf.errors import DataError
from bidaf.model.bidaf import EMBEDDING_TABLES
from bidaf.model.weights import check_tensors

STEP = "step"  # how often a weight was updated: a scalar
# What an optimizer keeps for each weight besides that, in the weight's shape.
FIELDS: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.Adadelta: ("square_avg", "acc_delta"),
    torch.optim.Adam: ("exp_avg", "exp_avg_sq"),
    torch.optim.AdamW: ("exp_avg", "exp_avg_sq"),
}
EXACT_FLOAT = 2**24  # PyTorch counts in float32, which stays here once it is reached


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Over all weights that train, in the model's order.

    Adadelta takes rho and eps from the config: TensorFlow's (0.95, 1e-8), on which the paper's "learning rate 0.5"
    rests, make a first step seven times smaller than PyTorch's own (0.9, 1e-6). AdamW's weight decay acts on matrices
    and vectors that multiply, not on biases and embedding tables. Raises `TypeError` for any other optimizer.
    """
    weights = dict(trained_weights(model))
    if isinstance(config, AdadeltaConfig):
        return torch.optim.Adadelta(weights.values(), lr=config.lr, rho=config.rho, eps=config.eps, foreach=True)
    if isinstance(config, AdamWConfig):
        decaying = {name for name in weights if not name.endswith("bias") and name not in EMBEDDING_TABLES}
        groups: list[dict[str, Any]] = [
            {"params": [weight for name, weight in weights.items() if name in decaying]},
            {"params": [weight for name, weight in weights.items() if name not in decaying], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            groups,
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            weight_decay=config.weight_decay,
            foreach=True,
        )
    if isinstance(config, AdamConfig):
        betas = (config.beta1, config.beta2)
        return torch.optim.Adam(weights.values(), lr=config.lr, betas=betas, eps=config.eps, foreach=True)
    raise TypeError(f"no optimizer is defined for {config!r}")


def learning_rate_factor(schedule: ScheduleConfig, step: int) -> float:
    """The share of the optimizer's learning rate that optimizer step `step` (the first is 1) is taken with.

    A function of the step alone: a resumed run needs no state for it.
    """
    if step < schedule.warmup_steps:
        return step / schedule.warmup_steps
    if isinstance(schedule, DecaySchedule):
        progress = min(1.0, (step - schedule.warmup_steps) / (schedule.steps - schedule.warmup_steps))
        left = 1.0 - progress if schedule.name == "linear" else (1.0 + math.cos(math.pi * progress)) / 2.0
        return schedule.final + (1.0 - schedule.final) * left
    return 1.0


def scale_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Take the next steps with this share of the learning rate that the optimizer was built with."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as `weight/field` -> tensor; empty before the first update."""
    return {
        f"{name}/{field}": torch.as_tensor(value)
        for name, weight in trained_weights(model)
        for field, value in optimizer.state.get(weight, {}).items()
    }


def check_optimizer_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], *, updates: int, what: str
) -> None:
    """Raise `DataError` unless this is the state of this optimizer after that number of updates of every weight."""
    expected: dict[str, Tensor] = {}
    for name, weight in trained_weights(model) if updates else ():
        expected[f"{name}/{STEP}"] = torch.zeros(())
        expected |= {f"{name}/{field}": weight for field in FIELDS[type(optimizer)]}
    check_tensors(expected, tensors, what)
    steps = {float(tensor) for key, tensor in tensors.items() if key.endswith(f"/{STEP}")}
    if steps - {float(min(updates, EXACT_FLOAT))}:
        raise DataError(f"{what} is of another step: it counts {min(steps):g} to {max(steps):g} updates, not {updates}")


def load_optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put the state back to the weights by name, wherever these stand among the optimizer's own."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    places = {weight: number for number, weight in enumerate(weights)}
    numbers = {name: places[weight] for name, weight in trained_weights(model)}
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, field = key.rsplit("/", 1)
        state.setdefault(numbers[name], {})[field] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
