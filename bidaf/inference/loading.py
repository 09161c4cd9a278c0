"""From a name to a model that can answer: a weight set of a run, of one of its checkpoints, or of an export."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bidaf.config import Config
from bidaf.data.cache import Prepared
from bidaf.data.features import Features
from bidaf.data.vocabulary import Vocabulary
from bidaf.device import set_up
from bidaf.ema.average import trained_weights
from bidaf.ema.synthesis import canonical
from bidaf.errors import DataError, UsageError
from bidaf.inference.ensemble_folder import is_ensemble, member_folder
from bidaf.inference.exported import ExportedModel, is_export, open_export
from bidaf.model.bidaf import Bidaf
from bidaf.model.build import build_model, outline_model
from bidaf.model.weights import check_tensors, load_weights
from bidaf.runs.averages import Resolved, resolve_weights
from bidaf.runs.checkpoint import Checkpoint, open_or_suggest
from bidaf.runs.checkpoint_folders import COMPLETE, checkpoint_name, list_checkpoints
from bidaf.runs.data import open_data
from bidaf.runs.finding import find_run
from bidaf.runs.folder import Run
from bidaf.runs.layout import BEST, CHECKPOINTS
from bidaf.runs.weight_sets import WeightSet


@dataclass(frozen=True)
class LoadedModel:
    """A model that holds one weight set, in evaluation mode, with all that its input needs."""

    model: Bidaf
    vocabulary: Vocabulary
    weights: str
    """Name of the weight set."""
    made: WeightSet
    """How the weight set was made."""
    source: Checkpoint | ExportedModel
    prepared: Prepared | None
    """The run's prepared data; an export has none."""
    notes: tuple[str, ...] = ()
    """What to know about synthesised weights: their predicted error, and snapshots that were left out."""

    @property
    def config(self) -> Config:
        """All settings of the run."""
        return self.source.config

    @property
    def origin(self) -> Path:
        """The folder of the checkpoint or export."""
        return self.source.folder

    @property
    def step(self) -> int:
        """The run's step when the weights were saved."""
        return self.source.step

    @property
    def description(self) -> str:
        """Weight set, run (or export) and step, in words."""
        folder = self.origin
        if folder.parent.name == CHECKPOINTS:
            folder = folder.parent.parent
        return f"{self.weights} weights of {folder}, step {self.step:,}"

    @property
    def no_answer_threshold(self) -> float | None:
        """The probability of no answer above which that is the answer, as it was chosen when these were scored."""
        return self.source.no_answer_threshold(self.weights)

    def dev_features(self) -> Features | None:
        """The dev questions the run was scored on, if they are available."""
        return self.prepared.features("dev") if self.prepared else None


def load_model(
    name: str | None,
    *,
    weights: str | None = None,
    at: int | None = None,
    allow_error: bool = False,
    device: torch.device,
) -> LoadedModel:
    """One weight set of the best checkpoint of a run (without a name: the newest run's), a checkpoint, or an export.

    Without `weights` it is the one an export holds, and otherwise the one that ranks the run's checkpoints
    (`evaluation.rank_by`), or the raw weights where there is none of that name. Any other average is synthesised from
    the run's snapshots: `decay:0.9995`, `half-life:1000`, `sigma:0.07`, `tail:25%` (see `bidaf.ema.synthesis`). `at`
    takes the run's checkpoint of this step.

    Raises `DataError` saying what was looked for and what is missing, `UsageError` for an average that can't be
    synthesised with a small error, unless `allow_error`.
    """
    source = _open_source(name, at)
    (model,) = _load(source, [weights or default_weights(source)], device, allow_error=allow_error)
    return model


def load_weight_sets(
    name: str | None,
    names: Sequence[str] | None,
    device: torch.device,
    *,
    at: int | None = None,
    allow_error: bool = False,
) -> list[LoadedModel]:
    """Several weight sets, found as `load_model` finds one; None for all that are held.

    The models share vocabulary, word vectors and data, which are read once.
    """
    source = _open_source(name, at)
    return _load(source, list(source.weight_sets) if names is None else names, device, allow_error=allow_error)


def default_weights(source: Checkpoint | ExportedModel) -> str:
    """The weight set that answers where none is named: see `load_model`."""
    ranking, held = source.config.evaluation.rank_by, source.weight_sets
    return ranking if ranking in held else next(iter(held))


def find_checkpoint(folder: Path, at: int | None = None) -> Path:
    """The folder itself if it is a checkpoint; else the run's checkpoint of step `at`, its best one, or its newest.

    Raises `DataError` when the run holds none, and `UsageError` for an ensemble, which is no one model.
    """
    if is_ensemble(folder):
        raise UsageError(f"{folder} is an ensemble; name one model, such as its member {member_folder(folder, 0)}")
    if os.path.lexists(folder / COMPLETE):
        return folder
    run = Run.open(folder)
    if at is None:
        return run.linked(BEST) or run.last_checkpoint()
    if (found := run.checkpoints / checkpoint_name(at)) in (kept := list_checkpoints(run.checkpoints)):
        return found
    names = ", ".join(path.name for path in kept) or "none at all"
    raise DataError(f"{folder} holds no checkpoint of step {at:,}; it holds {names}")


def find_features(checkpoint: Checkpoint) -> Prepared:
    """The checkpoint's vocabulary, vectors and dev questions. Raises `DataError` when they are gone."""
    run = checkpoint.folder.resolve().parent.parent
    try:
        return open_data(run, checkpoint.features, checkpoint.config.data.prepared_dir)
    except DataError as error:
        raise DataError(
            f"{checkpoint.folder} needs its vocabulary and dev questions: {error}; put the checkpoint back into its "
            "run, or run the command in the folder of the training run"
        ) from None


def _open_source(name: str | None, at: int | None) -> Checkpoint | ExportedModel:
    folder = find_run(name)
    source = open_export(folder) if is_export(folder) else open_or_suggest(find_checkpoint(folder, at))
    if at not in (None, source.step):
        raise DataError(f"{folder} is of step {source.step:,}, not of step {at:,}")
    return source


def _load(
    source: Checkpoint | ExportedModel, names: Sequence[str], device: torch.device, *, allow_error: bool
) -> list[LoadedModel]:
    set_up(device)
    sets, notes = _resolve(source, names, allow_error=allow_error)
    prepared = find_features(source) if isinstance(source, Checkpoint) else None
    holder = source if isinstance(source, ExportedModel) else prepared
    assert holder is not None
    vocabulary = holder.vocabulary()
    models = _build(
        source, vocabulary, holder.vectors(), {name: weights for name, (weights, _) in sets.items()}, device
    )
    return [
        LoadedModel(models[name], vocabulary, name, made, source, prepared, tuple(notes))
        for name, (_, made) in sets.items()
    ]


def _resolve(source: Checkpoint | ExportedModel, names: Sequence[str], *, allow_error: bool) -> Resolved:
    """The tensors of these weight sets, and how each was made: the one place where names become tensors.

    A set is held under the canonical spelling of its name, however it is spelt here. Raises `DataError` or `UsageError`
    for a name that the source does not hold and can't synthesise.
    """
    names = [canonical(name) for name in names]
    if isinstance(source, Checkpoint):
        return resolve_weights(source, names, allow_error=allow_error)
    return Resolved({name: (source.weights(name), source.weight_sets[name]) for name in names}, [])


def _build(
    source: Checkpoint | ExportedModel,
    vocabulary: Vocabulary,
    vectors: NDArray[np.float32],
    weights: Mapping[str, dict[str, Tensor]],
    device: torch.device,
) -> dict[str, Bidaf]:
    """A model per weight set, in evaluation mode, all with the same word vectors.

    Raises `DataError` for parts that do not belong together. That is checked before a model takes any memory: sizes
    that a config claims are no reason to allocate them.
    """
    config, origin = source.config, source.folder
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
    for name, tensors in weights.items():
        check_tensors(dict(trained_weights(outline)), tensors, f"the {name} weights of {origin}")
    if not np.isfinite(vectors).all():
        raise DataError(f"the word vectors of {origin} hold numbers that are not finite")
    model = build_model(config.model, num_trained=num_trained, num_chars=num_chars, vectors=vectors, device=device)
    shared = {id(vectors): vectors for vectors in model.buffers()}
    models: dict[str, Bidaf] = {}
    for name, tensors in weights.items():
        models[name] = copy.deepcopy(model, {**shared}) if models else model
        load_weights(models[name], tensors, f"the {name} weights of {origin}")
    return {name: each.eval() for name, each in models.items()}
