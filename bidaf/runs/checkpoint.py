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
from bidaf.ema.average import ExponentialMovingAverage, mismatches, trained_weights
from bidaf.errors import BidafError, DataError, UsageError
from bidaf.files.reading import refuse_strange_files, sha256_of
from bidaf.files.writing import json_text, sync, write_json, write_text
from bidaf.model.bidaf import Bidaf
from bidaf.runs.state import check_state

FORMAT_VERSION = 1
RAW, SHADOW, OPTIMIZER = "raw.safetensors", "shadow.safetensors", "optimizer.safetensors"
STATE, CONFIG, COMPLETE = "state.json", "config.yaml", "complete.json"
NAME = re.compile(r"step-(\d{6,})")
UNFINISHED, REPLACED = re.compile(r"\.step-\d+\.\d+\.tmp"), re.compile(r"\.(step-\d+)\.replaced")


class DamagedCheckpoint(DataError):
    """A checkpoint that is incomplete, or is not what was written."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint, its files checked against their checksums."""

    folder: Path
    config: Config
    state: dict[str, Any]
    files: frozenset[str]
    """Names of the files whose checksums held."""

    @property
    def step(self) -> int:
        """Optimizer steps of the run when it was saved."""
        return int(self.state["step"])

    @property
    def has_shadow(self) -> bool:
        """Whether the run kept an average."""
        return SHADOW in self.files

    def weights(self, use_ema: bool) -> dict[str, Tensor]:
        """The shadow or the raw weights by name. Raises `DataError` when there is no shadow."""
        if use_ema and not self.has_shadow:
            raise DataError(
                f"{self.folder} holds no averaged weights: its run had ema.enabled: false. "
                "Ask for the raw ones with --no-use-ema."
            )
        return self.tensors(SHADOW if use_ema else RAW)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """What a safetensors file holds. Raises `DataError` when it is none."""
        try:
            return load_file(self.folder / name)
        except (OSError, SafetensorError) as error:
            raise DataError(f"{self.folder / name} can't be read: {error}") from None


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

    Raises `BidafError` when it can't be written; an older folder of the name is untouched then, and at no moment is
    there neither of the two (`clean_checkpoints`). `RuntimeError` (from the average) while the shadow is applied: the
    raw weights would be lost.
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
        _put_in_place(beside, folder)
    except (OSError, SafetensorError) as error:
        raise BidafError(f"the checkpoint {folder} can't be written: {error}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def open_checkpoint(folder: Path) -> Checkpoint:
    """Check every byte of a checkpoint folder and read its settings.

    Raises `DamagedCheckpoint` for one that is incomplete or not as it was written, `DataError` for another format.
    """
    files = _check_files(folder)
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        version = state["format"]
        if version != FORMAT_VERSION:
            raise DataError(f"{folder} has checkpoint format {version!r}; this version reads format {FORMAT_VERSION}")
        check_state(state)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DamagedCheckpoint(f"{folder} can't be read as a checkpoint: {STATE}: {error}") from None
    step = state["step"]
    if (match := NAME.fullmatch(folder.name)) and int(match[1]) != step:
        raise DamagedCheckpoint(f"{folder} is damaged: it holds the checkpoint of step {step}; rename it back")
    try:
        return Checkpoint(folder, load_config(folder / CONFIG, of_a_run=True), state, files)
    except UsageError as error:
        raise DataError(f"{folder} was written by another version of this program: {error}") from None


def _check_files(folder: Path) -> frozenset[str]:
    try:
        refuse_strange_files(folder, [COMPLETE])
        text = (folder / COMPLETE).read_text(encoding="utf-8")
        expected = json.loads(text)
        names = sorted({RAW, OPTIMIZER, STATE, CONFIG, *expected})
        refuse_strange_files(folder, names)
        damaged = [name for name in names if sha256_of(folder / name) != expected.get(name)]
        # Hidden files are a desktop's or a file system's.
        extra = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - {COMPLETE, *names}
    except FileNotFoundError as error:
        name = Path(error.filename).name
        raise DamagedCheckpoint(f"{folder} is not a complete checkpoint: it has no {name}") from None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, DataError) as error:
        raise DamagedCheckpoint(f"{folder} can't be read as a checkpoint: {error}") from None
    # No checksum covers the marker: its form does, in which each byte follows from the checksums it lists.
    if text != json_text(expected):
        damaged.append(COMPLETE)
    if damaged:
        names_of = ", ".join(damaged)
        raise DamagedCheckpoint(f"{folder} is damaged: {names_of} changed since it was written; use another one")
    if extra:
        raise DamagedCheckpoint(f"{folder} holds what is not its own: {', '.join(sorted(extra))}; move that elsewhere")
    return frozenset(names)


def open_or_suggest(folder: Path) -> Checkpoint:
    """`open_checkpoint`, whose complaint about a damaged one names the newest sound one beside it."""
    try:
        return open_checkpoint(folder)
    except DamagedCheckpoint as damage:
        for other in reversed(list_checkpoints(folder.resolve().parent)):
            try:
                open_checkpoint(other)
            except DataError:
                continue
            raise DamagedCheckpoint(f"{damage} (this one is sound: {other})") from None
        raise


def checkpoint_name(step: int) -> str:
    """The folder name of the checkpoint of a step; what `list_checkpoints` looks for."""
    return f"step-{step:06d}"


def step_of(folder: Path) -> int:
    """The step in the name of a checkpoint folder."""
    return int(folder.name.removeprefix("step-"))


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders (complete or not), oldest first."""
    found = [(int(match[1]), path) for path in _entries(folder) if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def remove_checkpoint(folder: Path) -> None:
    """Delete a checkpoint. The marker goes first: what a crash leaves of the rest is no checkpoint."""
    (folder / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def clean_checkpoints(folder: Path) -> None:
    """Undo what a crash left half done; for the process alone that trains there.

    What was half written goes. A checkpoint that was to be replaced comes back, if its successor is not in its place.
    """
    for path in sorted(_entries(folder), reverse=True):  # what comes back before what goes, on every file system
        if (match := REPLACED.fullmatch(path.name)) and not (folder / match[1]).exists():
            path.rename(folder / match[1])
        elif match or UNFINISHED.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def dev_f1(scores: dict[str, dict[str, float]]) -> float:
    """The F1 that ranks checkpoints: the shadow's, or the raw weights' in a run without one."""
    return scores.get("ema", scores["raw"])["f1"]


def rank_checkpoints(folders: list[Path]) -> list[Path]:
    """Those that were scored, best first; of equals the earlier, as a run's `best` has it."""
    ranked = []
    for folder in folders:
        try:
            state = json.loads((folder / STATE).read_text(encoding="utf-8"))
            complete = (folder / COMPLETE).exists()
            if complete and state["scores"] is not None and state["evaluated_step"] == state["step"]:
                ranked.append((-dev_f1(state["scores"]), state["step"], folder))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            continue  # half removed, or damaged: no candidate
    return [folder for *_, folder in sorted(ranked)]


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
    """Put raw weights, shadow with counter, and optimizer back as they were saved.

    Raises `DataError` for a checkpoint of another model.
    """
    restore_weights(model, checkpoint.weights(use_ema=False), checkpoint.folder)
    names = [name for name, _ in model.named_parameters()]
    state: dict[int, dict[str, Tensor]] = {}
    try:
        if ema is not None:
            ema.load_state_dict({**checkpoint.state["ema"], "shadow": checkpoint.weights(use_ema=True)})
        for key, tensor in checkpoint.tensors(OPTIMIZER).items():
            name, field = key.rsplit("/", 1)
            state.setdefault(names.index(name), {})[field] = tensor
    except (KeyError, ValueError) as error:
        raise DataError(f"{checkpoint.folder} does not fit this run: {error}") from None
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


def _put_in_place(beside: Path, folder: Path) -> None:
    """Rename to `folder`. What is there already steps aside under a name from which a crash can bring it back."""
    replaced = folder.with_name(f".{folder.name}.replaced")
    try:
        if folder.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            folder.rename(replaced)
        beside.rename(folder)
        sync(folder.parent)
    finally:
        clean_checkpoints(folder.parent)


def _entries(folder: Path) -> Iterator[Path]:
    return iter(folder.iterdir()) if folder.is_dir() else iter(())
