"""The checkpoint folders of a run: how they are named, listed, ranked, replaced and removed."""

from __future__ import annotations

import os
import re
from pathlib import Path

from bidaf.errors import DataError
from bidaf.files.writing import remove, remove_stale, sync
from bidaf.runs.state import TrainingState, ranking_f1, read_state

COMPLETE = "complete.json"  # the marker, written last
STEP_NAME = re.compile(r"step-(\d{6,})")
REPLACED = re.compile(r"\.(step-\d+)\.replaced")


def checkpoint_name(step: int) -> str:
    """The folder name of the checkpoint of a step; what `list_checkpoints` looks for."""
    return f"step-{step:06d}"


def step_of(folder: Path) -> int:
    """The step in the name of a checkpoint folder."""
    return int(folder.name.removeprefix("step-"))


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders (complete or not), oldest first; a link leads to another run's, and is none."""
    found = [
        (int(match[1]), path)
        for path in entries_of(folder)
        if (match := STEP_NAME.fullmatch(path.name)) and not path.is_symlink()
    ]
    return [path for _, path in sorted(found)]


def remove_checkpoint(folder: Path) -> None:
    """Delete a checkpoint. The marker goes first: what a crash leaves of the rest is no checkpoint."""
    if not folder.is_symlink():
        (folder / COMPLETE).unlink(missing_ok=True)
    remove(folder)


def clean_checkpoints(folder: Path) -> None:
    """Undo what a crash left half done; for the one process that trains there.

    A checkpoint that was to be replaced comes back, if its successor is not there. Half-written folders are removed.
    """
    for path in entries_of(folder):
        if match := REPLACED.fullmatch(path.name):
            if os.path.lexists(folder / match[1]):
                remove(path)
            else:
                path.rename(folder / match[1])
    remove_stale(folder, "step-*")


def rank_checkpoints(folders: list[Path], rank_by: str) -> list[Path]:
    """Those that were scored, best first by the weight set `rank_by`; of equals the earlier, as a run's `best`."""
    ranked = []
    for folder in folders:
        if (state := state_of(folder)) and (scores := state.own_scores):
            ranked.append((-ranking_f1(scores, rank_by), state.step, folder))
    return [folder for *_, folder in sorted(ranked)]


def state_of(folder: Path) -> TrainingState | None:
    """The state that a checkpoint holds, without its checksum; None for one that is half removed or corrupted."""
    try:
        return read_state(folder)[0].training if (folder / COMPLETE).exists() else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, DataError):
        return None


def put_in_place(unfinished: Path, folder: Path) -> None:
    """Rename to `folder`. What is there already steps aside under a name from which a crash can bring it back."""
    replaced = folder.with_name(f".{folder.name}.replaced")
    try:
        if folder.exists():
            remove(replaced)
            folder.rename(replaced)
        unfinished.rename(folder)
        sync(folder.parent)
    finally:
        clean_checkpoints(folder.parent)


def entries_of(folder: Path) -> list[Path]:
    """What lies in a folder; nothing where there is none."""
    return list(folder.iterdir()) if folder.is_dir() else []
