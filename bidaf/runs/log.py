"""A run as its metrics.jsonl tells it: the one reader of that file, and the one definition of a run's status."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from bidaf.errors import DataError
from bidaf.files.confined import ConfinedFolder
from bidaf.files.reading import open_regular, read_regular
from bidaf.runs.events import (
    KINDS,
    MAX_LINE_BYTES,
    End,
    Evaluation,
    Event,
    Interval,
    Start,
    WidthMap,
    lines_of,
    load_event,
    parse_event,
    parse_json,
)
from bidaf.runs.layout import ENVIRONMENT, LOCK, LOG, METRICS

Status = Literal["running", "finished", "interrupted", "failed", "stopped"]

# How the last line of log.txt begins in runs that wrote no end event.
_ENDINGS: dict[str, Status] = {"interrupted": "interrupted", "failed:": "failed"}


@dataclass(frozen=True)
class RunLog:
    """The events of one run, oldest first, and what can be derived from them."""

    folder: Path
    starts: list[Start]
    intervals: list[Interval]
    evaluations: list[Evaluation]
    end: End | None
    maps: list[WidthMap] = field(default_factory=list)
    skipped: int = 0
    """Steps whose loss or gradient was not finite."""
    unread: int = 0
    """Lines that are no valid event."""
    environment: dict[str, Any] = field(default_factory=dict)
    """What environment.json says; empty where that can't be read."""

    @property
    def name(self) -> str:
        """The folder's own name, such as squad-20260101-120000."""
        return self.folder.resolve().name or str(self.folder)

    @property
    def start(self) -> Start | None:
        """What the newest session began with; None in a log without a start event."""
        return self.starts[-1] if self.starts else None

    @cached_property
    def best(self) -> Evaluation | None:
        """The newest evaluation that was better than all before it."""
        return next((evaluation for evaluation in reversed(self.evaluations) if evaluation.best), None)

    @property
    def has_shadow(self) -> bool:
        """Whether an average was scored."""
        return any("ema" in evaluation.scores for evaluation in self.evaluations)

    @property
    def step(self) -> int:
        """The newest step that any event names."""
        newest = (events[-1] for events in (self.starts, self.intervals, self.evaluations) if events)
        return max([event.step for event in newest] + [self.end.step if self.end else 0])

    @property
    def total_steps(self) -> int | None:
        """Steps of the whole run; None in a log without a start event."""
        return self.start.total_steps if self.start else None

    @property
    def elapsed(self) -> float:
        """Seconds of training and evaluation so far."""
        times = [events[-1].elapsed for events in (self.intervals, self.evaluations) if events]
        return max((seconds for seconds in times if seconds is not None), default=0.0)

    @cached_property
    def status(self) -> Status:
        """`running` while a process trains; else as the run ended; `stopped` when it could not record that (killed)."""
        if self.end is not None:
            return self.end.status
        if self._is_complete:
            return "finished"
        return "running" if is_training(self.folder) else _logged_ending(self.folder / LOG)

    @property
    def _is_complete(self) -> bool:
        """Whether nothing more is to come: the last step was scored, or patience is exhausted."""
        if self.start is None or not self.evaluations:
            return False
        scored = self.evaluations[-1].step
        return scored >= self.start.total_steps or (self.step == scored and self._is_out_of_patience)

    @property
    def without_gain(self) -> list[int]:
        """For each evaluation, how many in a row, up to it, were not better than all before them."""
        counts = accumulate(self.evaluations, lambda count, each: 0 if each.best else count + 1, initial=0)
        return list(counts)[1:]

    @property
    def failure(self) -> str | None:
        """What a failed run reported."""
        return self.end.message if self.end and self.status == "failed" else None

    @property
    def _is_out_of_patience(self) -> bool:
        patience = self.settings("evaluation").get("patience")
        return isinstance(patience, int) and self.without_gain[-1] >= patience

    def settings(self, section: str) -> dict[str, Any]:
        """One section of the run's config; empty where the log does not hold it."""
        return self.start.section(section) if self.start else {}


def read_run(folder: Path, *, intervals: bool = True) -> RunLog:
    """Read a run's log; without `intervals` (most of its lines) faster, for lists of runs.

    Raises `DataError` when the folder has no log, or the log no valid event.
    """
    path = folder / METRICS
    if not path.is_file():
        raise DataError(
            f"{folder} has no {METRICS}: it is not a run folder, or the run was stopped before its first step"
        )
    events: dict[str, dict[int, Any]] = {name: {} for name in KINDS}
    skipped = unread = 0
    last = b""
    try:
        for line in lines_of(path):
            if not intervals and b'"event": "train"' in line:
                last = line
                continue
            event = parse_event(line)
            if event is None:
                unread += 1
            elif isinstance(event, Event):
                events[_NAMES[type(event)]][event.step] = event  # an event counts once per step, the newest one
            else:
                skipped += event.get("event") == "skip"
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}") from None
    if last and isinstance(event := parse_event(last), Interval):
        events["train"][event.step] = event
    if not any(events.values()):
        raise DataError(f"{path} holds no event of a run; was it written by bidaf train?")
    starts, trained, evaluations, ends, maps = ([found[step] for step in sorted(found)] for found in events.values())
    rank_by = starts[-1].section("evaluation").get("rank_by", "ema") if starts else "ema"
    return RunLog(
        folder,
        starts,
        trained,
        [_ranked(evaluation, rank_by) for evaluation in evaluations],
        ends[-1] if ends else None,
        maps,
        skipped,
        unread,
        read_environment(folder),
    )


def read_events(folder: Path) -> list[dict[str, Any]]:
    """All lines of metrics.jsonl that name an event and its step, as they were written."""
    path = folder / METRICS
    events = [load_event(line) for line in lines_of(path)] if path.exists() else []
    return [event for event in events if event is not None]


def is_training(folder: Path) -> bool:
    """Whether a process holds the run's lock."""
    try:
        handle = ConfinedFolder(folder).open(LOCK, os.O_RDONLY)
    except (OSError, DataError):
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


_NAMES = {kind: name for name, kind in KINDS.items()}


def _ranked(evaluation: Evaluation, rank_by: Any) -> Evaluation:
    name = rank_by if rank_by in evaluation.scores else "raw"
    return evaluation.model_copy(update={"ranked_by": name})


def _logged_ending(path: Path) -> Status:
    """What the last line of log.txt says; its lines begin with the time and two blanks."""
    try:
        with open_regular(path) as file:
            file.seek(max(0, path.stat().st_size - MAX_LINE_BYTES))
            last = (file.read().decode("utf-8", "replace").splitlines() or [""])[-1]
    except OSError:
        return "stopped"
    message = last.partition("  ")[2]
    return next((status for prefix, status in _ENDINGS.items() if message.startswith(prefix)), "stopped")


def read_environment(folder: Path) -> dict[str, Any]:
    """What environment.json says; empty where that can't be read."""
    try:
        environment = parse_json(read_regular(folder / ENVIRONMENT).decode())
    except (OSError, ValueError, RecursionError):
        return {}
    return environment if isinstance(environment, dict) else {}
