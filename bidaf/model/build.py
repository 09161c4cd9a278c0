"""A model of the sizes that a vocabulary asks for."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from bidaf.config import ModelConfig
from bidaf.device import free_memory
from bidaf.errors import BidafError
from bidaf.model.bidaf import Bidaf


def build_model(
    config: ModelConfig, *, num_trained: int, num_chars: int, vectors: NDArray[np.float32], device: torch.device
) -> Bidaf:
    """`vectors` [fixed words, word_size] are copied once, to the device; [0, any] for none.

    Raises `BidafError` for a model that this machine's memory can't hold.
    """
    if config.embeddings == "char":
        vectors = vectors[:0]
    size = (0, config.word_size) if vectors.shape[0] == 0 else vectors.shape
    outline = outline_model(config, num_trained=num_trained, num_chars=num_chars, word_size=size[1])
    needed = vectors.nbytes + sum(4 * weight.numel() for weight in outline.parameters())
    free = free_memory(torch.device("cpu"))
    if free is not None and needed > free:
        raise BidafError(
            f"a model of these sizes takes {needed / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB are free; lower "
            "the sizes of the section model, or name fewer word vectors"
        )
    fixed = torch.from_numpy(np.array(vectors, dtype=np.float32)).reshape(size)
    model = Bidaf(config, num_trained=num_trained, num_chars=num_chars, fixed=fixed)
    return model.to(device)


def outline_model(config: ModelConfig, *, num_trained: int, num_chars: int, word_size: int) -> Bidaf:
    """The model's names and shapes without its numbers, which takes no memory."""
    with torch.device("meta"):
        return Bidaf(config, num_trained=num_trained, num_chars=num_chars, fixed=torch.empty(0, word_size))
