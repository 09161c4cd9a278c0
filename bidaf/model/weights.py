"""Weights by name: whether tensors fit a model, and putting them into it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bidaf.ema.average import mismatches, trained_weights
from bidaf.errors import DataError

LISTED_PROBLEMS = 10


def check_tensors(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], what: str) -> None:
    """Raise `DataError` unless `found` has the names, shapes and types of `expected`, and all numbers are finite.

    `what` names them in the error, as in "the raw weights of runs/one".
    """
    problems = mismatches(expected, found)
    problems += [
        f"{name} is {tensor.dtype}, and {expected[name].dtype} in this model"
        for name, tensor in found.items()
        if name in expected and tensor.dtype != expected[name].dtype
    ]
    if not problems:
        problems = [f"{name} holds numbers that are not finite" for name in nonfinite(found)]
    if problems:
        raise DataError(f"{what} do not fit this model:\n  " + "\n  ".join(problems[:LISTED_PROBLEMS]))


def nonfinite(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of those that hold a NaN or an infinity. Waits once for each device: an optimizer counts on the CPU."""
    found = []
    for device in dict.fromkeys(tensor.device for tensor in tensors.values()):
        here = {name: tensor.detach().isfinite().all() for name, tensor in tensors.items() if tensor.device == device}
        found += [name for name, finite in zip(here, torch.stack([*here.values()]).tolist(), strict=True) if not finite]
    return found


@torch.no_grad()
def load_weights(model: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Copy weights into the model by name. Raises `DataError` listing what does not fit; then nothing is changed."""
    targets = dict(trained_weights(model))
    check_tensors(targets, weights, what)
    for name, target in targets.items():
        target.copy_(weights[name])
