"""Where runs are: the folder of a new one, and runs found by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from itertools import count
from pathlib import Path

from bidaf.errors import DataError, UsageError
from bidaf.files.writing import check_folder, is_utf8, point_link
from bidaf.runs.layout import CONFIG, LATEST, REPORT, RUNS_FOLDER, find_runs


def point_latest(folder: Path) -> None:
    """Let `runs/latest` name this run, if it is one in `runs/`."""
    if folder.parent.name == RUNS_FOLDER:
        point_link(folder.parent / LATEST, folder.name)


def refuse_existing_run(folder: Path) -> None:
    """Raise `UsageError` where a run stands already, or none can be."""
    if not is_utf8(folder):
        raise UsageError(f"{folder}: the name of a run's folder must be UTF-8; name another --run-dir")
    if check_folder(folder) and not folder.is_dir():
        raise UsageError(f"{folder} can't be made: it is no folder; name another --run-dir")
    if (folder / CONFIG).exists():
        raise UsageError(f"{folder} already holds a run; resume it with --resume {folder}, or name another --run-dir")


def refuse_copy(source: Path, folder: Path) -> None:
    """Raise `UsageError` where a run can't be copied to: a folder that exists, or one within the run itself."""
    refuse_existing_run(folder)
    if folder.exists():
        raise UsageError(f"{folder} exists; name a new --run-dir for the copy of {source}")
    if folder.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{folder} lies inside {source}, which would be copied into itself; name another --run-dir")


def new_run_folder(config_name: str) -> Path:
    """Make the folder `runs/<config>-<time>`, with a number behind it where another process has that."""
    base = Path(RUNS_FOLDER, f"{config_name}-{datetime.now():%Y%m%d-%H%M%S}")
    for number in count(1):
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            break
    return folder


def find_run(name: str | None) -> Path:
    """A run by path, or by name within `runs/`; without a name the newest. Raises `DataError` when there is none."""
    if name is None:
        return _newest_run()
    for path in (Path(name), Path(RUNS_FOLDER, name)):
        if os.path.isdir(path):
            return path
    raise DataError(f"no run {name}, neither as a path nor in {RUNS_FOLDER}/")


def find_runs_named(names: Sequence[str]) -> list[Path]:
    """The runs of these names, each once: `runs/*` also names the link `latest`, and the page of an earlier report."""
    folders = [find_run(name) for name in names if Path(name).name != REPORT]
    if not folders:
        raise DataError(f"no run among {', '.join(names)}")
    found: dict[Path, Path] = {}
    for folder in folders:
        if os.path.islink(found.get(folder.resolve(), folder)) or folder.resolve() not in found:
            found[folder.resolve()] = folder
    return list(found.values())


def _newest_run() -> Path:
    latest = Path(RUNS_FOLDER, LATEST)
    if latest.exists():
        return latest.parent / os.readlink(latest) if latest.is_symlink() else latest
    runs = find_runs(latest.parent)  # the newest one was deleted
    if not runs:
        raise DataError(f"no run yet in {latest.parent}/; start one with `bidaf train --config mini.yaml`")
    return max(runs, key=lambda run: (run / CONFIG).stat().st_mtime)
