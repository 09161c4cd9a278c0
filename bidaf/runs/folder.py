"""A run's folder: settings, environment, metrics, log, checkpoints, predictions."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from bidaf.config import Config
from bidaf.config_file import dump_config, load_config
from bidaf.device import describe
from bidaf.errors import BidafError, DataError, UsageError
from bidaf.files.writing import point_link, sync, write_json, write_text
from bidaf.runs.checkpoint import (
    Checkpoint,
    checkpoint_name,
    clean_checkpoints,
    list_checkpoints,
    rank_checkpoints,
    remove_checkpoint,
)
from bidaf.runs.layout import (
    BEST,
    CHECKPOINTS,
    CONFIG,
    ENVIRONMENT,
    LAST,
    LATEST,
    LOCK,
    METRICS,
    PREDICTIONS,
    REPORT,
    RUNS_FOLDER,
    read_events,
)

# What a line of metrics says of the clock and the machine; all else in it follows from settings and data.
MEASURED = frozenset({"elapsed", "seconds", "questions_per_second", "memory_bytes"})
PACKAGES = ("bidaf", "torch", "numpy", "spacy", "datasets", "pydantic", "safetensors")


class Run:
    """One run directory. Everything in it can be read while training goes on."""

    def __init__(self, folder: Path, *, deterministic: bool = False) -> None:
        self.folder = folder
        self.deterministic = deterministic
        self.checkpoints = folder / CHECKPOINTS
        self.predictions = folder / PREDICTIONS

    @classmethod
    def create(cls, folder: Path, config: Config, device: str, *, processes: int = 1) -> Run:
        """A new run. Raises `UsageError` where one stands already, `BidafError` where nothing can be written."""
        run = cls(folder, deterministic=config.training.deterministic)
        refuse_existing_run(folder)
        try:
            run.checkpoints.mkdir(parents=True, exist_ok=True)
            run.predictions.mkdir(exist_ok=True)
            write_json(folder / ENVIRONMENT, environment(device, processes))
            write_text(folder / CONFIG, dump_config(config))
            for changed in (folder, folder.parent):
                sync(changed)
            point_latest(folder)
        except OSError as error:
            raise BidafError(f"the run folder {folder} can't be made: {error.strerror or error}") from None
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """An existing run. Raises `DataError` when the folder is none."""
        if not os.path.isfile(folder / CONFIG):  # where Path.is_file() raises for a link to a name too long
            raise DataError(f"{folder} is not a run folder: it has no {CONFIG}")
        return cls(folder)

    def copy(self, folder: Path) -> Run:
        """The run in another folder, which is there whole or not at all.

        Raises `UsageError` where something stands already, `BidafError` where it can't be written.
        """
        if folder.exists():
            raise UsageError(f"{folder} exists; name a new --run-dir for the copy of {self.folder}")
        beside = folder.with_name(f".{folder.name}.tmp")
        try:
            shutil.rmtree(beside, ignore_errors=True)
            shutil.copytree(self.folder, beside, symlinks=True)
            beside.rename(folder)
            point_latest(folder)
        except (OSError, shutil.Error) as error:
            raise BidafError(f"{self.folder} can't be copied to {folder}: {error}") from None
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return Run(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within the block no other process trains in this folder. Raises `UsageError` when one does already.

        The system drops the lock with the process, however that ends: there is no stale lock.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BidafError(f"the run folder {self.folder} can't be made: {error.strerror or error}") from None
        with (self.folder / LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(f"another process is training in {self.folder}; wait for it or end it") from None
            yield

    def config(self) -> Config:
        """The run's settings. Raises `UsageError` with what is wrong with them."""
        return load_config(self.folder / CONFIG)

    def clean_up(self) -> None:
        """Undo what a crash left half done. For the holder of the lock."""
        clean_checkpoints(self.checkpoints)
        # By name: a folder that is to become a run's may hold what is not ours.
        own = [
            path
            for name in (CONFIG, ENVIRONMENT, METRICS, REPORT, BEST, LAST)
            for path in self.folder.glob(f".{name}.*tmp")
        ]
        for path in (*own, *self.predictions.glob(".*.json.*tmp")):
            path.unlink()

    def log_event(self, **event: Any) -> None:
        """Append one line to metrics.jsonl; in a deterministic run, nothing in it tells the time."""
        if self.deterministic:
            event |= dict.fromkeys(MEASURED & event.keys())
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")

    def events(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl; one that a crash cut short or something else spoiled is left out."""
        return read_events(self.folder)

    def settle(self) -> None:
        """Flush metrics and predictions to the disk: a checkpoint takes them for written."""
        for path in (self.folder / METRICS, self.predictions, self.folder):
            if path.exists():
                sync(path)

    def rewind(self, checkpoint: Checkpoint | None) -> None:
        """Drop what came after this checkpoint (None: after the beginning): the resumed run makes it again.

        A checkpoint passed over for damage would count as the newest, and what is saved next be pruned for it.
        """
        step, evaluated = (checkpoint.step, checkpoint.state["evaluated_step"]) if checkpoint else (0, 0)
        until = {"eval": evaluated}
        kept = [event for event in self.events() if event["step"] <= until.get(event["event"], step)]
        write_text(self.folder / METRICS, "".join(json.dumps(event) + "\n" for event in kept))
        self.predictions.mkdir(exist_ok=True)
        for path in self.predictions.iterdir():
            if (match := re.match(r"step-(\d+)\.", path.name)) and int(match[1]) > evaluated:
                path.unlink()
        if checkpoint is None:
            return
        newest = self.checkpoints / checkpoint_name(step)
        found = list_checkpoints(self.checkpoints)
        for path in found[found.index(newest) + 1 :]:
            remove_checkpoint(path)
        self.link(LAST, newest)
        best = self.checkpoints / checkpoint_name(checkpoint.state["best_step"] or 0)
        if best.exists():
            self.link(BEST, best)
        else:
            (self.folder / BEST).unlink(missing_ok=True)

    def link(self, name: str, checkpoint: Path) -> None:
        """Point `best` or `last` at a checkpoint."""
        point_link(self.folder / name, os.path.relpath(checkpoint, self.folder))

    def linked(self, name: str) -> Path | None:
        """The checkpoint that `best` or `last` names."""
        link = self.folder / name
        return self.folder / os.readlink(link) if link.is_symlink() and link.exists() else None

    def prune(self, keep_last: int, keep_best: int) -> None:
        """Delete all checkpoints but the newest ones and the best ones."""
        found = list_checkpoints(self.checkpoints)
        kept = {self.linked(BEST), *found[-keep_last:], *rank_checkpoints(found)[:keep_best]}
        for path in found:
            if path not in kept:
                remove_checkpoint(path)

    def has_saved(self) -> bool:
        """Whether there ever was a checkpoint, even if it is gone."""
        return (self.folder / LAST).is_symlink()

    def other_counts(self, processes: int) -> str | None:
        """What to know when the run began with another count of threads or processes: sums are rounded otherwise."""
        here = {"processes": processes, "threads": torch.get_num_threads()}
        try:
            began = json.loads((self.folder / ENVIRONMENT).read_text(encoding="utf-8"))
            changed = {name: began[name] for name in here if began.get(name, here[name]) != here[name]}
        except (OSError, ValueError, AttributeError):
            return None
        if not changed:
            return None
        before = " and ".join(f"{count} {name}" for name, count in changed.items())
        now = " and ".join(str(here[name]) for name in changed)
        keeps = f" (OMP_NUM_THREADS={changed['threads']} keeps them)" if changed.keys() == {"threads"} else ""
        return (
            f"the run began with {before} and goes on with {now}: its last digits will differ from those of a run that "
            f"was not stopped{keeps}"
        )

    def last_checkpoint(self) -> Path:
        """The newest checkpoint. Raises `DataError` when there is none."""
        if not (found := list_checkpoints(self.checkpoints)):
            raise DataError(f"{self.folder} holds no checkpoint yet: the run was stopped before its first one")
        return found[-1]


def point_latest(folder: Path) -> None:
    """Let `runs/latest` name this run, if it is one in `runs/`."""
    if folder.parent.name == RUNS_FOLDER:
        point_link(folder.parent / LATEST, folder.name)


def refuse_existing_run(folder: Path) -> None:
    """Raise `UsageError` where a run stands already."""
    if (folder / CONFIG).exists():
        raise UsageError(f"{folder} already holds a run; go on with --resume {folder}, or name another --run-dir")


def new_run_folder(config_name: str) -> Path:
    """`runs/<config>-<time>`, with a number behind it where that is taken."""
    base = Path(RUNS_FOLDER, f"{config_name}-{datetime.now():%Y%m%d-%H%M%S}")
    folder, number = base, 2
    while folder.exists():
        folder, number = base.with_name(f"{base.name}-{number}"), number + 1
    return folder


def find_run(name: str | None) -> Path:
    """A run by path, or by name within `runs/`; without a name the newest. Raises `DataError` when there is none."""
    if name is None:
        latest = Path(RUNS_FOLDER, LATEST)
        if not latest.exists():
            raise DataError(f"no run yet: {latest} does not exist; start one with `bidaf train --config mini.yaml`")
        return latest.parent / os.readlink(latest) if latest.is_symlink() else latest
    for path in (Path(name), Path(RUNS_FOLDER, name)):
        if os.path.isdir(path):
            return path
    raise DataError(f"no run {name}, neither as a path nor in {RUNS_FOLDER}/")


def environment(device: str, processes: int = 1) -> dict[str, Any]:
    """What the run runs on, for whoever reads its numbers later."""
    packages = {}
    for package in PACKAGES:
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = "not installed"
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "packages": packages,
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "device": device,
        **describe(torch.device(device)),
        "processes": processes,
        "threads": torch.get_num_threads(),
        "commit": _commit(),
    }


@cache
def _commit() -> str | None:
    """The source's git commit, with `+` when it was changed since; None outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+" if status.stdout.strip() else "")
