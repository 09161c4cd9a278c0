"""The runs of a folder at a glance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bidaf.config_file import load_config
from bidaf.errors import BidafError
from bidaf.runs.layout import CONFIG, ENDINGS, ENVIRONMENT, LOG, find_runs, is_training, last_message, read_events


@dataclass(frozen=True)
class BestScore:
    """The best evaluation so far: percent on the dev set, and which weights they are of (`ema` or `raw`)."""

    f1: float
    exact_match: float
    weights: str
    step: int


@dataclass(frozen=True)
class RunSummary:
    """One run as its files tell it."""

    folder: Path
    status: str
    """`running`; `finished`, `interrupted` or `failed` as its log ends; `stopped` when it ends in the middle."""
    step: int
    total_steps: int | None
    best: BestScore | None
    started: datetime | None
    size_bytes: int
    failure: str | None
    """What a failed run said."""


def summarize_runs(base: Path) -> list[RunSummary]:
    """All runs in `base`, the newest first."""
    runs = [summarize(folder) for folder in find_runs(base)]
    unknown = datetime.min.replace(tzinfo=UTC)
    return sorted(runs, key=lambda run: run.started or unknown, reverse=True)


def summarize(folder: Path) -> RunSummary:
    """Read what a run has left behind so far."""
    events = read_events(folder)
    step = max((int(event["step"]) for event in events), default=0)
    total = _total_steps(folder, events)
    message = last_message(folder / LOG)
    status = next((status for prefix, status in ENDINGS.items() if message.startswith(prefix)), "stopped")
    if is_training(folder):
        status = "running"
    elif status == "stopped" and total is not None and step >= total:
        status = "finished"
    return RunSummary(
        folder=folder,
        status=status,
        step=step,
        total_steps=total,
        best=_best(events),
        started=_started(folder),
        size_bytes=_size(folder),
        failure=message.partition(": ")[2] if status == "failed" else None,
    )


def _best(events: Sequence[dict[str, Any]]) -> BestScore | None:
    best = next((event for event in reversed(events) if event["event"] == "eval" and event.get("best")), None)
    if best is None:
        return None
    weights = "ema" if "ema" in best else "raw"
    return BestScore(best[weights]["f1"], best[weights]["exact_match"], weights, best["step"])


def _total_steps(folder: Path, events: Sequence[dict[str, Any]]) -> int | None:
    """As the settings and the length of an epoch have it; None before the first line of training metrics."""
    latest = next((event for event in reversed(events) if event.get("epoch")), None)
    if latest is None:
        return None
    try:
        training = load_config(folder / CONFIG, of_a_run=True).training
    except BidafError:  # of another version of this program
        return None
    steps: int = training.epochs * round(latest["step"] / latest["epoch"])
    return min(steps, training.max_steps or steps)


def _started(folder: Path) -> datetime | None:
    try:
        return datetime.fromisoformat(json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size if path.is_file() and not path.is_symlink() else 0
        except OSError:  # a checkpoint that training deleted just now
            continue
    return total
