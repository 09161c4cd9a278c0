"""Checkpoints: a folder of safetensors and JSON that holds all a run needs to continue as if it had never stopped.

    step-000500/
      weights/raw.safetensors    the weights that train
      weights/ema.safetensors    their moving average (when the run keeps one); one such file per weight set
      optimizer.safetensors      the optimizer's tensors
      state.json                 step, best score, scores at this step, and how each weight set was made
      config.yaml                the run's resolved settings
      complete.json              written last: the checksum of each file above

Dropout masks, order of questions and drawn answers are functions of (seed, step): there is no generator to save.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bidaf.config import Config
from bidaf.config_file import dump_config, load_config
from bidaf.errors import BidafError, DataError, UsageError
from bidaf.evaluation.squad_v2 import NO_ANSWER_THRESHOLD
from bidaf.files.reading import read_regular, refuse_strange_files, sha256_of
from bidaf.files.writing import claim_folder, json_text, save_tensors, sync, write_json, write_text
from bidaf.runs.checkpoint_folders import COMPLETE, STEP_NAME, entries_of, list_checkpoints, put_in_place
from bidaf.runs.state import STATE, WEIGHTS, SavedState, Scores, TrainingState, read_state, weights_file
from bidaf.runs.weight_sets import WeightSet

OPTIMIZER, CONFIG = "optimizer.safetensors", "config.yaml"

Tensors = Mapping[str, Tensor]


class CorruptedCheckpoint(DataError):
    """A checkpoint that is incomplete, or is not what was written."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint, its files checked against their checksums and its state against the schema."""

    folder: Path
    config: Config
    saved: SavedState
    weight_files: Mapping[str, str]
    """Where each weight set lies in the folder."""

    @property
    def state(self) -> TrainingState:
        """What the run knew besides weights and optimizer."""
        return self.saved.training

    @property
    def step(self) -> int:
        """Optimizer steps of the run when it was saved."""
        return self.state.step

    @property
    def features(self) -> str:
        """Name of the prepared folder that the run trains on."""
        return self.saved.features

    @property
    def weight_sets(self) -> dict[str, WeightSet]:
        """How each weight set was made, by name; `raw` is always one of them."""
        return self.saved.weights

    @property
    def scores(self) -> Scores | None:
        """Dev scores of these weights; None when they were saved between two evaluations."""
        return self.state.own_scores

    def no_answer_threshold(self, name: str) -> float | None:
        """The probability of no answer above which that is the answer of a weight set; None where it was not scored."""
        return (self.scores or {}).get(name, {}).get(NO_ANSWER_THRESHOLD)

    def weights(self, name: str) -> dict[str, Tensor]:
        """A weight set by name. Raises `DataError` when the run kept none of this name."""
        if name not in self.weight_files:
            raise DataError(
                f"{self.folder} holds no {name} weights, only {', '.join(self.weight_files)}: "
                "name one of these with --weights (--no-use-ema is raw)"
            )
        return self.tensors(self.weight_files[name])

    def tensors(self, file: str) -> dict[str, Tensor]:
        """The content of a safetensors file. Raises `DataError` when it is none."""
        try:
            return load_file(self.folder / file)
        except (OSError, SafetensorError) as error:
            raise DataError(f"{self.folder / file} can't be read: {error}") from None


def save_checkpoint(
    folder: Path,
    *,
    weights: Mapping[str, tuple[WeightSet, Tensors]],
    optimizer: Tensors,
    config: Config,
    state: TrainingState,
    features: str,
) -> None:
    """Write a checkpoint next to its place, flush it, and rename it into place.

    Raises `BidafError` when it can't be written; an older folder of the name is untouched then, and at no moment is
    there neither of the two (`clean_checkpoints`).
    """
    saved = SavedState(features=features, training=state, weights={name: made for name, (made, _) in weights.items()})
    files = {weights_file(name): tensors for name, (_, tensors) in weights.items()} | {OPTIMIZER: optimizer}
    try:
        with claim_folder(folder) as unfinished:
            (unfinished / WEIGHTS).mkdir()
            for name, tensors in files.items():
                save_tensors(tensors, unfinished / name)
            write_json(unfinished / STATE, saved.model_dump(mode="json"))
            write_text(unfinished / CONFIG, dump_config(config))
            names = sorted([*files, STATE, CONFIG])
            for name in names:
                sync(unfinished / name)
            write_json(unfinished / COMPLETE, {name: sha256_of(unfinished / name) for name in names})
            sync(unfinished / WEIGHTS)
            sync(unfinished)
            put_in_place(unfinished, folder)
    except (OSError, SafetensorError) as error:
        raise BidafError(f"the checkpoint {folder} can't be written: {error}") from None


def open_checkpoint(folder: Path) -> Checkpoint:
    """Check every byte of a checkpoint folder and read its settings.

    Raises `CorruptedCheckpoint` for one that is incomplete or not as it was written, `DataError` for another format.
    """
    files = _check_files(folder)
    try:
        saved, weight_files = read_state(folder)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CorruptedCheckpoint(f"{folder} can't be read as a checkpoint: {STATE}: {error}") from None
    expected = {OPTIMIZER, STATE, CONFIG, *weight_files.values()}
    if missing := sorted(expected - files):
        raise CorruptedCheckpoint(f"{folder} is not a complete checkpoint: it has no {', '.join(missing)}")
    if extra := sorted(files - expected):
        raise CorruptedCheckpoint(f"{folder} contains unexpected files: {', '.join(extra)}")
    step = saved.training.step
    if (match := STEP_NAME.fullmatch(folder.name)) and int(match[1]) != step:
        raise CorruptedCheckpoint(f"{folder} is corrupted: it holds the checkpoint of step {step}; rename it back")
    try:
        return Checkpoint(folder, load_config(folder / CONFIG, of_a_run=True), saved, weight_files)
    except UsageError as error:
        raise DataError(f"{folder} was written by another version of this program: {error}") from None


def _check_files(folder: Path) -> frozenset[str]:
    """The names of all files, their checksums compared with those in the marker."""
    try:
        refuse_strange_files(folder, [COMPLETE])
        text = read_regular(folder / COMPLETE).decode()
        expected = json.loads(text)
        names = sorted({STATE, CONFIG, *expected})
        refuse_strange_files(folder, names)
        corrupted = [name for name in names if sha256_of(folder / name) != expected.get(name)]
        # Hidden files are a desktop's or a file system's.
        present = [path for place in (folder, folder / WEIGHTS) for path in entries_of(place) if path.name[0] != "."]
        extra = {path.relative_to(folder).as_posix() for path in present} - {COMPLETE, WEIGHTS, *names}
    except FileNotFoundError as error:
        name = os.path.relpath(error.filename, folder)
        raise CorruptedCheckpoint(f"{folder} is not a complete checkpoint: it has no {name}") from None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, DataError) as error:
        raise CorruptedCheckpoint(f"{folder} can't be read as a checkpoint: {error}") from None
    # The marker has no checksum: it must equal its canonical JSON.
    if text != json_text(expected):
        corrupted.append(COMPLETE)
    if corrupted:
        changed = ", ".join(corrupted)
        raise CorruptedCheckpoint(f"{folder} is corrupted: {changed} changed since it was written; use another one")
    if extra:
        raise CorruptedCheckpoint(f"{folder} contains unexpected files: {', '.join(sorted(extra))}; move them away")
    return frozenset(names)


def open_or_suggest(folder: Path) -> Checkpoint:
    """`open_checkpoint`, whose error about a corrupted one names the newest valid one next to it."""
    try:
        return open_checkpoint(folder)
    except CorruptedCheckpoint as corruption:
        for other in reversed(list_checkpoints(folder.resolve().parent)):
            try:
                open_checkpoint(other)
            except DataError:
                continue
            raise CorruptedCheckpoint(f"{corruption} (this one is valid: {other})") from None
        raise
