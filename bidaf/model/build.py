"""A model of the sizes that a vocabulary asks for."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from bidaf.config import ModelConfig
from bidaf.model.bidaf import Bidaf


def build_model(
    config: ModelConfig, *, num_trained: int, num_chars: int, vectors: NDArray[np.float32], device: torch.device
) -> Bidaf:
    """`vectors` [fixed words, word_size] are copied once, to the device; [0, any] leaves trained rows alone."""
    size = (0, config.word_size) if vectors.shape[0] == 0 else vectors.shape
    fixed = torch.from_numpy(np.array(vectors, dtype=np.float32)).reshape(size)
    model = Bidaf(config, num_trained=num_trained, num_chars=num_chars, fixed=fixed)
    return model.to(device)
