"""The runs of a folder at a glance, each as its log tells it (`bidaf.runs.log`)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bidaf.errors import DataError
from bidaf.runs.labels import Labels, read_labels
from bidaf.runs.layout import find_runs
from bidaf.runs.log import RunLog, Status, read_run


@dataclass(frozen=True)
class BestScore:
    """The best evaluation so far: percent on the dev set, by the weight set that ranks checkpoints."""

    f1: float
    exact_match: float
    weights: str
    step: int


@dataclass(frozen=True)
class RunSummary:
    """One run, for lists."""

    folder: Path
    status: Status
    step: int
    total_steps: int | None
    best: BestScore | None
    started: datetime | None
    size_bytes: int
    failure: str | None
    """What a failed run reported."""
    labels: Labels
    problem: str | None = None
    """Why the folder could not be read, where it could not."""


def summarize_runs(base: Path) -> list[RunSummary]:
    """All runs in `base`, the newest first. A run that can't be read is listed with its problem."""
    unknown = datetime.min.replace(tzinfo=UTC)
    return sorted(map(summarize, find_runs(base)), key=lambda run: run.started or unknown, reverse=True)


def summarize(folder: Path) -> RunSummary:
    """What a run has left behind so far."""
    try:
        log, problem = read_run(folder, intervals=False), None
    except DataError as error:
        log, problem = RunLog(folder, [], [], [], None), str(error)
    try:
        labels = read_labels(folder)
    except DataError as error:
        labels, problem = Labels(), problem or str(error)
    return RunSummary(
        folder=folder,
        status=log.status,
        step=log.step,
        total_steps=log.total_steps,
        best=_best(log),
        started=_started(log.environment),
        size_bytes=_size(folder),
        failure=log.failure,
        labels=labels,
        problem=problem,
    )


def _best(log: RunLog) -> BestScore | None:
    if (best := log.best) is None:
        return None
    return BestScore(best.ranking["f1"], best.ranking["exact_match"], best.ranked_by, best.step)


def _started(environment: dict[str, Any]) -> datetime | None:
    try:
        started = datetime.fromisoformat(environment["started"])
    except (KeyError, TypeError, ValueError):
        return None
    return started if started.tzinfo else started.replace(tzinfo=UTC)


def _size(folder: Path) -> int:
    """Bytes of all files; links count nothing, and what training deletes meanwhile is left out."""
    total = 0
    pending = [os.fspath(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return total
