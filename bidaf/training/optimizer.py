"""The optimizers, with the constants of the recipe they come from."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from bidaf.config import AdadeltaConfig, AdamConfig


def build_optimizer(model: nn.Module, config: AdadeltaConfig | AdamConfig) -> torch.optim.Optimizer:
    """Over all weights that train, in the model's order.

    Adadelta takes rho and eps from the config: TensorFlow's (0.95, 1e-8), on which the paper's "learning rate 0.5"
    rests, make a first step seven times smaller than PyTorch's own (0.9, 1e-6).
    """
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    on_gpu = weights[0].is_cuda
    if on_gpu:
        # The count of steps then lies on the GPU, as a recorded step needs it; PyTorch warns when one runs unrecorded.
        warnings.filterwarnings("ignore", message=".*capturable=True.*")
    if isinstance(config, AdadeltaConfig):
        return torch.optim.Adadelta(
            weights, lr=config.lr, rho=config.rho, eps=config.eps, foreach=True, capturable=on_gpu
        )
    betas = (config.beta1, config.beta2)
    return torch.optim.Adam(weights, lr=config.lr, betas=betas, eps=config.eps, foreach=True, capturable=on_gpu)
