"""From a name to a model that can answer: a run, one of its checkpoints, or an export."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bidaf.config import Config
from bidaf.data.cache import Prepared, open_by_key
from bidaf.data.features import Features
from bidaf.data.records import LISTED_PROBLEMS
from bidaf.data.vocabulary import Vocabulary
from bidaf.device import set_up
from bidaf.ema.average import mismatches, trained_weights
from bidaf.errors import DataError
from bidaf.inference.exported import ExportedModel, is_export, open_export
from bidaf.model.bidaf import Bidaf
from bidaf.model.build import build_model, outline_model
from bidaf.runs.checkpoint import COMPLETE, Checkpoint, open_or_suggest, restore_weights
from bidaf.runs.folder import Run, find_run
from bidaf.runs.layout import BEST


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode with all that its input needs."""

    model: Bidaf
    config: Config
    vocabulary: Vocabulary
    weights: str
    """`ema` or `raw`."""
    origin: Path
    prepared: Prepared | None
    """The run's prepared data; an export has none."""

    def dev_features(self) -> Features | None:
        """The dev questions the run was scored on, if they are at hand."""
        return self.prepared.features("dev") if self.prepared else None


def load_model(name: str | None, *, use_ema: bool | None, device: torch.device) -> LoadedModel:
    """The best checkpoint of a run (without a name: the newest run's), a checkpoint folder, or an export folder.

    `use_ema` None takes the weights that an export holds, and else the shadow. Raises `DataError` saying what was
    looked for and what is missing.
    """
    set_up(device)
    folder = find_run(name)
    if is_export(folder):
        export = open_export(folder)
        if use_ema is not None:
            export.check_weights(use_ema)
        return _load_export(export, device)
    use_ema = use_ema is not False
    checkpoint = open_or_suggest(find_checkpoint(folder))
    prepared = find_features(checkpoint)
    vocabulary = prepared.vocabulary()
    model = assemble(
        checkpoint.config, vocabulary, prepared.vectors(), checkpoint.weights(use_ema), checkpoint.folder, device
    )
    return LoadedModel(model, checkpoint.config, vocabulary, "ema" if use_ema else "raw", checkpoint.folder, prepared)


def load_all_weights(name: str | None, device: torch.device) -> list[LoadedModel]:
    """The raw and the shadow weights of what `load_model` finds; one alone where no more is there."""
    folder = find_run(name)
    if is_export(folder):
        return [load_model(str(folder), use_ema=None, device=device)]
    checkpoint = open_or_suggest(find_checkpoint(folder))
    kinds = (False, True) if checkpoint.has_shadow else (False,)
    return [load_model(str(checkpoint.folder), use_ema=use_ema, device=device) for use_ema in kinds]


def find_checkpoint(folder: Path) -> Path:
    """The folder itself if it is a checkpoint, else the run's best one, else its newest."""
    if os.path.lexists(folder / COMPLETE):
        return folder
    run = Run.open(folder)
    return run.linked(BEST) or run.last_checkpoint()


def find_features(checkpoint: Checkpoint) -> Prepared:
    """The prepared data that the checkpoint's vocabulary stands in. Raises `DataError` when it is gone."""
    try:
        return open_by_key(checkpoint.config.data.prepared_dir, str(checkpoint.state["features"]))
    except DataError as error:
        raise DataError(
            f"{checkpoint.folder} needs its prepared data: {error}; run the command in the folder of the training run, "
            f"or `bidaf prepare --config {checkpoint.folder / 'config.yaml'}`"
        ) from None


def assemble(
    config: Config,
    vocabulary: Vocabulary,
    vectors: NDArray[np.float32],
    weights: dict[str, Tensor],
    origin: Path,
    device: torch.device,
) -> Bidaf:
    """A model with these weights, in evaluation mode. Raises `DataError` for parts that do not belong together.

    That they do is known before the model takes any memory: sizes that a config claims are no reason to allocate them.
    """
    if len(vectors) != len(vocabulary.fixed_words):
        raise DataError(
            f"the word vectors of {origin} have the shape {list(vectors.shape)}, but its vocabulary has "
            f"{len(vocabulary.fixed_words):,} words for them"
        )
    if vocabulary.max_word_chars != config.data.max_word_chars:
        raise DataError(
            f"the vocabulary of {origin} reads {vocabulary.max_word_chars:,} characters of a word, and its config says "
            f"data.max_word_chars: {config.data.max_word_chars:,}"
        )
    num_trained, num_chars = len(vocabulary.trained_words), len(vocabulary.chars)
    word_size = vectors.shape[1] if len(vectors) else config.model.word_size
    outline = outline_model(config.model, num_trained=num_trained, num_chars=num_chars, word_size=word_size)
    check_weights(outline, weights, origin)
    if not np.isfinite(vectors).all():
        raise DataError(f"the word vectors of {origin} hold numbers that are not finite")
    model = build_model(config.model, num_trained=num_trained, num_chars=num_chars, vectors=vectors, device=device)
    restore_weights(model, weights, origin)
    return model.eval()


def check_weights(model: Bidaf, weights: dict[str, Tensor], origin: Path) -> None:
    """Raise `DataError` unless these are the weights of this model by name, shape and type, and numbers all of them."""
    problems = mismatches(dict(trained_weights(model)), weights)
    problems += [f"{name} is {weight.dtype}" for name, weight in weights.items() if weight.dtype != torch.float32]
    if not problems:
        problems = [
            f"{name} holds numbers that are not finite"
            for name, weight in weights.items()
            if not weight.isfinite().all()
        ]
    if problems:
        raise DataError(f"the weights of {origin} do not fit this model:\n  " + "\n  ".join(problems[:LISTED_PROBLEMS]))


def _load_export(export: ExportedModel, device: torch.device) -> LoadedModel:
    weights, vocabulary = export.tensors(), export.vocabulary()
    model = assemble(export.config, vocabulary, export.vectors(), weights, export.folder, device)
    return LoadedModel(model, export.config, vocabulary, export.weights, export.folder, None)
