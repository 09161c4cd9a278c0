"""A run's folder: settings, environment, metrics, log, checkpoints, predictions."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from bidaf.config import Config
from bidaf.config_file import dump_config, load_config
from bidaf.errors import BidafError, DataError, UsageError
from bidaf.files.confined import ConfinedFolder
from bidaf.files.reading import read_regular
from bidaf.files.writing import claim_folder, put_folder, remove, remove_stale, sync
from bidaf.runs.checkpoint import Checkpoint
from bidaf.runs.checkpoint_folders import (
    checkpoint_name,
    clean_checkpoints,
    list_checkpoints,
    rank_checkpoints,
    remove_checkpoint,
    state_of,
    step_of,
)
from bidaf.runs.environment import environment
from bidaf.runs.finding import point_latest, refuse_copy, refuse_existing_run
from bidaf.runs.labels import LABELS
from bidaf.runs.layout import (
    BEST,
    CHECKPOINTS,
    CONFIG,
    DATA,
    ENVIRONMENT,
    FOLDERS,
    LAST,
    LOCK,
    LOG,
    METRICS,
    N_BEST,
    PREDICTIONS,
    REPORT,
    SNAPSHOTS,
    SWEEPS,
    n_best_file,
    write_log,
)
from bidaf.runs.log import read_events
from bidaf.runs.snapshots import rewind_snapshots, thin_snapshots

# What a line of metrics says of the clock and the machine; all else in it follows from settings and data.
MEASURED = frozenset({"elapsed", "seconds", "questions_per_second", "memory_bytes"})
LOCK_TRIES = 10


class Run:
    """One run directory. Everything in it can be read during training."""

    def __init__(self, folder: Path, *, deterministic: bool = False) -> None:
        self.folder = folder
        self.files = ConfinedFolder(folder)
        """Through which everything is written and deleted."""
        self.deterministic = deterministic
        self.checkpoints = folder / CHECKPOINTS
        self.predictions = folder / PREDICTIONS

    @classmethod
    def create(cls, folder: Path, config: Config, device: str, *, processes: int = 1) -> Run:
        """A new run. Raises `UsageError` where one stands already, `BidafError` where nothing can be written."""
        run = cls(folder, deterministic=config.training.deterministic)
        refuse_existing_run(folder)
        try:
            run.files.make_folder(CHECKPOINTS)
            run.files.make_folder(PREDICTIONS)
            run.files.write_json(ENVIRONMENT, environment(device, processes))
            run.files.write_text(CONFIG, dump_config(config))
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
        refuse_copy(self.folder, folder)
        try:
            with claim_folder(folder) as unfinished:
                shutil.copytree(
                    self.folder, unfinished, symlinks=True, copy_function=self._copy_or_share, dirs_exist_ok=True
                )
                if not put_folder(unfinished, folder):
                    raise UsageError(f"{folder} exists; name a new --run-dir for the copy of {self.folder}")
            point_latest(folder)
        except (OSError, shutil.Error) as error:
            raise BidafError(f"{self.folder} can't be copied to {folder}: {error}") from None
        return Run(folder)

    def _copy_or_share(self, source: str, target: str) -> None:
        """Copy a file; share data and snapshots, which are never changed in place, where the file system can."""
        if Path(source).relative_to(self.folder).parts[0] in (DATA, SNAPSHOTS):
            with suppress(OSError):
                os.link(source, target)
                return
        shutil.copy2(source, target)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within the block no other process trains in this folder. Raises `UsageError` when one does already.

        The system drops the lock with the process, however that ends: there is no stale lock. Raises `DataError` where
        a link or something else than a folder would take what is written out of the run.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._refuse_what_leads_out()
            handle = self.files.open(LOCK, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise BidafError(f"the run folder {self.folder} can't be made: {error.strerror or error}") from None
        try:
            if not _lock(handle):
                raise UsageError(f"another process is training in {self.folder}; wait for it or end it")
            yield
        finally:
            os.close(handle)

    def _refuse_what_leads_out(self) -> None:
        """Before any work, what writing would refuse only when it comes to it."""
        for name in FOLDERS:
            self.files.entries(name)
        for name in (METRICS, LOG):
            if os.path.lexists(self.folder / name):
                os.close(self.files.open(name, os.O_RDONLY))

    def config(self) -> Config:
        """The run's settings. Raises `UsageError` with what is wrong with them."""
        return load_config(self.folder / CONFIG, of_a_run=True)

    def clean_up(self) -> None:
        """Undo what a crash left half done. For the holder of the lock."""
        clean_checkpoints(self.files.path(CHECKPOINTS))
        # By name: a folder that is to become a run's may hold what is not ours.
        for name in (CONFIG, ENVIRONMENT, LABELS, METRICS, REPORT, BEST, LAST, DATA):
            remove_stale(self.folder, name)
        remove_stale(self.files.path(PREDICTIONS), "*.json")

    def log_event(self, **event: Any) -> None:
        """Append one line to metrics.jsonl; in a deterministic run, nothing in it tells the time."""
        if self.deterministic:
            event |= dict.fromkeys(MEASURED & event.keys())
        self.files.append(METRICS, json.dumps(event) + "\n")

    def log_end(self, status: str, step: int, message: str) -> None:
        """Record how the run ended, in metrics.jsonl and log.txt; a full disk is no error."""
        message = " ".join(message.split())
        with suppress(OSError):
            self.log_event(event="end", step=step, status=status, message=message)
            write_log(self.folder, message)

    def events(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl; one that a crash cut short or something else spoiled is left out."""
        return read_events(self.folder)

    def settle(self) -> None:
        """Flush metrics and predictions to the disk: a checkpoint takes them for written."""
        for name in (METRICS, PREDICTIONS, ""):
            self.files.sync(name)

    def rewind(self, checkpoint: Checkpoint | None) -> None:
        """Drop what came after this checkpoint (None: after the beginning): the resumed run makes it again.

        A corrupted checkpoint that was skipped would count as the newest, and the next ones be pruned in its place.
        """
        step, evaluated = (checkpoint.step, checkpoint.state.evaluated_step) if checkpoint else (0, 0)
        until = {"eval": evaluated, "map": evaluated, "end": -1}
        kept = [event for event in self.events() if event["step"] <= until.get(event["event"], step)]
        self.files.write_text(METRICS, "".join(json.dumps(event) + "\n" for event in kept))
        self.files.make_folder(PREDICTIONS)
        for path in [*self.files.entries(PREDICTIONS), *self.files.entries(SWEEPS)]:
            if (match := re.match(r"step-(\d+)\.", path.name)) and int(match[1]) > evaluated:
                remove(path)
        rewind_snapshots(self.files, checkpoint.step if checkpoint else None)
        if checkpoint is None:
            return
        newest = self.checkpoints / checkpoint_name(step)
        found = list_checkpoints(self.checkpoints)
        for path in found[found.index(newest) + 1 :]:
            remove_checkpoint(path)
        self.link(LAST, newest)
        best = checkpoint.state.best_step
        if best is not None and (folder := self.checkpoints / checkpoint_name(best)).exists():
            self.link(BEST, folder)
        else:
            self.files.remove(BEST)

    def link(self, name: str, checkpoint: Path) -> None:
        """Point `best` or `last` at a checkpoint."""
        self.files.link(name, checkpoint)

    def linked(self, name: str) -> Path | None:
        """The checkpoint that `best` or `last` names."""
        link = self.folder / name
        return self.folder / os.readlink(link) if link.is_symlink() and link.exists() else None

    def prune(self, config: Config) -> None:
        """Delete all checkpoints but the newest and the best ones, and the answers and snapshots only those needed."""
        found = list_checkpoints(self.files.path(CHECKPOINTS))
        best = {self.linked(BEST), *rank_checkpoints(found, config.evaluation.rank_by)[: config.training.keep_best]}
        kept = [path for path in found if path in best or path in found[-config.training.keep_last :]]
        for path in found:
            if path not in kept:
                remove_checkpoint(path)
        needed = {n_best_file(state.best_step) for path in kept if (state := state_of(path)) and state.best_step}
        for path in self.files.entries(PREDICTIONS):
            if path.name.endswith(f".{N_BEST}") and path.name not in needed:
                remove(path)
        if config.ema.snapshots:
            full = [step_of(path) for path in kept if path in best or path == kept[-1]]
            thin_snapshots(self.files, config.ema.snapshots, full, [step_of(path) for path in kept])

    def has_saved(self) -> bool:
        """Whether there ever was a checkpoint, even if it is gone."""
        return (self.folder / LAST).is_symlink()

    def other_counts(self, processes: int) -> str | None:
        """What to know when the run began with another count of threads or processes: sums are rounded otherwise."""
        here = {"processes": processes, "threads": torch.get_num_threads()}
        try:
            began = json.loads(read_regular(self.folder / ENVIRONMENT))
            changed = {name: began[name] for name in here if began.get(name, here[name]) != here[name]}
        except (OSError, ValueError, AttributeError):
            return None
        if not changed:
            return None
        before = " and ".join(f"{count} {name}" for name, count in changed.items())
        now = " and ".join(str(here[name]) for name in changed)
        keeps = f" (OMP_NUM_THREADS={changed['threads']} keeps them)" if changed.keys() == {"threads"} else ""
        return (
            f"the run began with {before} and continues with {now}: its last digits will differ from those of a "
            f"run that was not stopped{keeps}"
        )

    def last_checkpoint(self) -> Path:
        """The newest checkpoint. Raises `DataError` when there is none."""
        if not (found := list_checkpoints(self.checkpoints)):
            raise DataError(f"{self.folder} holds no checkpoint yet: the run was stopped before its first one")
        return found[-1]


def _lock(handle: int) -> bool:
    """Try for a moment: whoever lists the runs holds the lock of each while looking at it."""
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.02)
    return False
