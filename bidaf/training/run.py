"""A run's folder: settings, environment, metrics, log, checkpoints, predictions."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bidaf.config import Config
from bidaf.config_file import dump_config
from bidaf.errors import BidafError, DataError, UsageError
from bidaf.training.checkpoint import Checkpoint, checkpoint_name, list_checkpoints, remove_checkpoint
from bidaf.training.files import point_link, write_json, write_text

RUNS_FOLDER = "runs"
CONFIG, ENVIRONMENT, METRICS, LOG = "config.yaml", "environment.json", "metrics.jsonl", "log.txt"
LOCK = ".lock"
CHECKPOINTS, PREDICTIONS = "checkpoints", "predictions"
N_BEST = "n_best.json"  # in predictions/: the best evaluation's answers, with offsets and probabilities
BEST, LAST, LATEST = "best", "last", "latest"
PACKAGES = ("bidaf", "torch", "numpy", "spacy", "datasets", "pydantic", "safetensors")


class Run:
    """One run directory. Everything in it can be read while training goes on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoints = folder / CHECKPOINTS
        self.predictions = folder / PREDICTIONS

    @classmethod
    def create(cls, folder: Path, config: Config, device: str) -> Run:
        """A new run. Raises `UsageError` where one stands already, `BidafError` where nothing can be written."""
        run = cls(folder)
        refuse_existing_run(folder)
        try:
            run.checkpoints.mkdir(parents=True, exist_ok=True)
            run.predictions.mkdir(exist_ok=True)
            write_json(folder / ENVIRONMENT, environment(device))
            write_text(folder / CONFIG, dump_config(config))
            if folder.parent.name == RUNS_FOLDER:
                point_link(folder.parent / LATEST, folder.name)
        except OSError as error:
            raise BidafError(f"the run folder {folder} can't be made: {error.strerror or error}") from None
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """An existing run. Raises `DataError` when the folder is none."""
        if not (folder / CONFIG).is_file():
            raise DataError(f"{folder} is not a run folder: it has no {CONFIG}")
        return cls(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within the block no other process trains in this folder. Raises `UsageError` when one does already.

        The system drops the lock with the process, however that ends: there is no stale lock.
        """
        with (self.folder / LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(f"another process is training in {self.folder}; wait for it or end it") from None
            yield

    def log_event(self, **event: Any) -> None:
        """Append one line to metrics.jsonl."""
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")

    def events(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl; one that a crash cut short or something else spoiled is left out."""
        path = self.folder / METRICS
        events = []
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "step" in event and "event" in event:
                events.append(event)
        return events

    def rewind(self, checkpoint: Checkpoint) -> None:
        """Drop metrics and checkpoints of what came after this one: the resumed run makes them again.

        A checkpoint passed over for damage would count as the newest, and what is saved next be pruned for it.
        """
        until = {"eval": checkpoint.state["evaluated_step"]}
        kept = [event for event in self.events() if event["step"] <= until.get(event["event"], checkpoint.step)]
        write_text(self.folder / METRICS, "".join(json.dumps(event) + "\n" for event in kept))
        found = list_checkpoints(self.checkpoints)
        names = [path.name for path in found]
        newest = names.index(checkpoint.folder.name)
        for path in found[newest + 1 :]:
            remove_checkpoint(path)
        self.link(LAST, found[newest])
        best = checkpoint_name(checkpoint.state["best_step"] or 0)
        if best in names[: newest + 1]:
            self.link(BEST, self.checkpoints / best)

    def link(self, name: str, checkpoint: Path) -> None:
        """Point `best` or `last` at a checkpoint."""
        point_link(self.folder / name, os.path.relpath(checkpoint, self.folder))

    def linked(self, name: str) -> Path | None:
        """The checkpoint that `best` or `last` names."""
        link = self.folder / name
        return self.folder / os.readlink(link) if link.is_symlink() and link.exists() else None

    def prune(self, keep_last: int) -> None:
        """Delete all checkpoints but the newest ones and the best."""
        best = self.linked(BEST)
        for path in list_checkpoints(self.checkpoints)[:-keep_last]:
            if path != best:
                remove_checkpoint(path)

    def last_checkpoint(self) -> Path:
        """The newest checkpoint. Raises `DataError` when there is none."""
        if not (found := list_checkpoints(self.checkpoints)):
            raise DataError(f"{self.folder} holds no checkpoint yet: the run was stopped before its first one")
        return found[-1]


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
        if path.is_dir():
            return path
    raise DataError(f"no run {name}, neither as a path nor in {RUNS_FOLDER}/")


def environment(device: str) -> dict[str, Any]:
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
