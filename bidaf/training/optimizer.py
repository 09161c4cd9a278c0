"""The optimizers, with the constants of the recipe they come from."""

from __future__ import annotations

import torch
from torch import nn

from bidaf.config import AdadeltaConfig, AdamConfig


def build_optimizer(model: nn.Module, config: AdadeltaConfig | AdamConfig) -> torch.optim.Optimizer:
    """Over all weights that train, in the model's order.

    Adadelta takes rho and eps from the config: TensorFlow's (0.95, 1e-8), on which the paper's "learning rate 0.5"
    rests, make a first step seven times smaller than PyTorch's own (0.9, 1e-6).
    Raises `TypeError` for settings of any other optimizer.
    """
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if isinstance(config, AdadeltaConfig):
        return torch.optim.Adadelta(weights, lr=config.lr, rho=config.rho, eps=config.eps, foreach=True)
    if isinstance(config, AdamConfig):
        betas = (config.beta1, config.beta2)
        return torch.optim.Adam(weights, lr=config.lr, betas=betas, eps=config.eps, foreach=True)
    raise TypeError(f"no optimizer is defined for {config!r}")
