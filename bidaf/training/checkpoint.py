"""Checkpoints: a folder of safetensors and JSON that holds all a run needs to go on as if it had never stopped.

    step-000500/
      raw.safetensors        the weights that train
      shadow.safetensors     their moving average (when the run keeps one)
      optimizer.safetensors  the optimizer's tensors
      state.json             step, EMA counter and settings, best score, scores at this step
      config.yaml            the run's resolved settings
      complete.json          written last: the checksum of each file above

Dropout masks, order of questions and drawn answers are functions of (seed, step): there is no generator to save.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bidaf.config import Config
from bidaf.config_file import dump_config, load_config
from bidaf.data.files import sha256_of
from bidaf.ema import ExponentialMovingAverage, mismatches, trained_weights
from bidaf.errors import BidafError, DataError
from bidaf.model.bidaf import Bidaf
from bidaf.training.files import sync, write_json, write_text

FORMAT_VERSION = 1
RAW, SHADOW, OPTIMIZER = "raw.safetensors", "shadow.safetensors", "optimizer.safetensors"
STATE, CONFIG, COMPLETE = "state.json", "config.yaml", "complete.json"
NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint, its files checked against their checksums."""

    folder: Path
    config: Config
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """Optimizer steps of the run when it was saved."""
        return int(self.state["step"])

    @property
    def has_shadow(self) -> bool:
        """Whether the run kept an average."""
        return (self.folder / SHADOW).exists()

    def weights(self, use_ema: bool) -> dict[str, Tensor]:
        """The shadow or the raw weights by name. Raises `DataError` when there is no shadow."""
        if use_ema and not self.has_shadow:
            raise DataError(
                f"{self.folder} holds no averaged weights: its run had ema.enabled: false. "
                "Ask for the raw ones with --no-use-ema."
            )
        return load_file(self.folder / (SHADOW if use_ema else RAW))


def save_checkpoint(
    folder: Path,
    *,
    model: Bidaf,
    ema: ExponentialMovingAverage | None,
    optimizer: torch.optim.Optimizer,
    config: Config,
    state: dict[str, Any],
) -> None:
    """Write a checkpoint beside its place, flush it, and rename it into place.

    Raises `BidafError` when it can't be written; an older folder of the name is untouched then. `RuntimeError` (from
    the average) while the shadow is applied: the raw weights would be lost.
    """
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        state = {"format": FORMAT_VERSION, **state}
        if ema is not None:
            average = ema.state_dict()
            save_file(_contiguous(average.pop("shadow")), beside / SHADOW)
            state["ema"] = average
        save_file(_contiguous(dict(trained_weights(model))), beside / RAW)
        save_file(_contiguous(_optimizer_tensors(model, optimizer)), beside / OPTIMIZER)
        write_json(beside / STATE, state)
        write_text(beside / CONFIG, dump_config(config))
        for path in beside.iterdir():
            sync(path)
        write_json(beside / COMPLETE, {path.name: sha256_of(path) for path in sorted(beside.iterdir())})
        sync(beside)
        if folder.exists():
            shutil.rmtree(folder)
        beside.rename(folder)
        sync(folder.parent)
    except (OSError, SafetensorError) as error:
        raise BidafError(f"the checkpoint {folder} can't be written: {error}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def open_checkpoint(folder: Path) -> Checkpoint:
    """Check a checkpoint folder and read its settings. Raises `DataError` for one that is incomplete or damaged."""
    try:
        expected = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
        names = sorted({RAW, OPTIMIZER, STATE, CONFIG, *expected})
        damaged = [name for name in names if sha256_of(folder / name) != expected.get(name)]
    except FileNotFoundError as error:
        name = Path(error.filename).name
        raise DataError(f"{folder} is not a complete checkpoint: it has no {name}") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{folder} can't be read as a checkpoint: {error}") from None
    if damaged:
        raise DataError(f"{folder} is damaged: {', '.join(damaged)} changed since it was written; use another one")
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    if state["format"] != FORMAT_VERSION:
        raise DataError(f"{folder} has checkpoint format {state['format']}; this version reads format {FORMAT_VERSION}")
    return Checkpoint(folder, load_config(folder / CONFIG), state)


def checkpoint_name(step: int) -> str:
    """The folder name of the checkpoint of a step; what `list_checkpoints` looks for."""
    return f"step-{step:06d}"


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders (complete or not), oldest first."""
    found = [(int(match[1]), path) for path in _entries(folder) if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def remove_checkpoint(folder: Path) -> None:
    """Delete a checkpoint. The marker goes first: what a crash leaves of the rest is no checkpoint."""
    (folder / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def remove_stale(folder: Path) -> None:
    """Delete what a crash left half written."""
    for path in _entries(folder):
        if re.fullmatch(r"\.step-\d+\.\d+\.tmp", path.name):
            shutil.rmtree(path, ignore_errors=True)


def restore_weights(model: Bidaf, weights: dict[str, Tensor], origin: Path) -> None:
    """Copy weights into the model by name. Raises `DataError` listing what does not fit."""
    targets = dict(trained_weights(model))
    if problems := mismatches(targets, weights):
        raise DataError(f"the weights of {origin} do not fit this model:\n  " + "\n  ".join(problems))
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(weights[name])


def restore_training(
    checkpoint: Checkpoint,
    *,
    model: Bidaf,
    ema: ExponentialMovingAverage | None,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Put raw weights, shadow with counter, and optimizer back as they were saved."""
    restore_weights(model, checkpoint.weights(use_ema=False), checkpoint.folder)
    if ema is not None:
        ema.load_state_dict({**checkpoint.state["ema"], "shadow": checkpoint.weights(use_ema=True)})
    tensors = load_file(checkpoint.folder / OPTIMIZER)
    names = [name for name, _ in model.named_parameters()]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, field = key.rsplit("/", 1)
        state.setdefault(names.index(name), {})[field] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _optimizer_tensors(model: Bidaf, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}/{field}": torch.as_tensor(value)
        for parameter, fields in optimizer.state.items()
        for field, value in fields.items()
    }


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _entries(folder: Path) -> Iterator[Path]:
    return iter(folder.iterdir()) if folder.is_dir() else iter(())
