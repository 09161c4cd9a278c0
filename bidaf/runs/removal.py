"""Deleting runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from bidaf.errors import BidafError, UsageError
from bidaf.files.writing import point_link, remove, temporary_sibling
from bidaf.runs.folder import Run
from bidaf.runs.layout import CONFIG, LATEST, find_runs
from bidaf.runs.log import is_training


def check_removal(folders: Sequence[Path]) -> list[Path]:
    """The folders themselves, of links what they lead to.

    Raises `DataError` for one that is not a run, `UsageError` for one that is training.
    """
    found = list(dict.fromkeys(folder.resolve() if folder.is_symlink() else folder for folder in folders))
    for folder in found:
        Run.open(folder)
        if is_training(folder):
            raise UsageError(f"{folder} is training; end it first")
    return found


def remove_run(folder: Path) -> None:
    """Delete a run, at once for whoever looks; `latest` then names the newest of those that are left.

    Raises `UsageError` where a process has begun to train in it, `BidafError` where it can't be deleted.
    """
    try:
        with Run.open(folder).locked():
            unnamed = temporary_sibling(folder)
            folder.rename(unnamed)
            remove(unnamed)
        _repair_latest(folder.parent)
    except OSError as error:
        raise BidafError(f"{folder} can't be deleted: {error.strerror or error}") from None


def _repair_latest(base: Path) -> None:
    link = base / LATEST
    if not link.is_symlink() or link.exists():
        return
    if left := find_runs(base):
        point_link(link, os.fspath(max(left, key=lambda run: (run / CONFIG).stat().st_mtime).name))
    else:
        link.unlink()
