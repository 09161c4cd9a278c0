"""`bidaf runs`: what was trained, how far it got and how well it does."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bidaf.cli.common import JsonOption, print_json, print_table
from bidaf.errors import DataError
from bidaf.messages import say
from bidaf.runs.layout import LATEST, RUNS_FOLDER

if TYPE_CHECKING:
    from bidaf.runs.summary import RunSummary


def runs_command(
    folder: Annotated[Path, typer.Argument(help="Where the runs are.")] = Path(RUNS_FOLDER), json: JsonOption = False
) -> None:
    """List runs, the newest first: status, best dev F1 and of which weights, steps, age, size on disk.

    A run is running while a process trains in it, and stopped when it ended without a word (killed, or power lost);
    `bidaf train --resume RUN` goes on with one that is interrupted, failed or stopped.
    """
    from bidaf.runs.summary import summarize_runs

    if not folder.is_dir() and folder != Path(RUNS_FOLDER):
        raise DataError(f"{folder}: no such folder")
    runs = summarize_runs(folder)
    if json:
        print_json([_record(run) for run in runs])
        return
    if not runs:
        say(f"no run in {folder} yet; start one with `bidaf train --config mini.yaml`")
        return
    link = folder / LATEST
    latest = os.readlink(link) if link.is_symlink() else None
    columns = ("run", "status", "best F1", "steps", "age", "size")
    print_table(f"runs in {folder}", columns, [_row(run, run.folder.name == latest) for run in runs])
    for run in runs:
        if run.failure:
            say(f"{run.folder.name}: {run.failure}")


def _record(run: RunSummary) -> dict[str, Any]:
    return {
        **asdict(run),
        "folder": str(run.folder),
        "started": run.started.isoformat() if run.started else None,
    }


def _row(run: RunSummary, is_latest: bool) -> tuple[str, ...]:
    return (
        f"{run.folder.name} (latest)" if is_latest else run.folder.name,
        run.status,
        f"{run.best.f1:.2f} {run.best.weights}" if run.best else "-",
        f"{run.step:,} of {run.total_steps:,}" if run.total_steps else f"{run.step:,}",
        shown_age((datetime.now(UTC) - run.started).total_seconds()) if run.started else "-",
        shown_size(run.size_bytes),
    )


def shown_age(seconds: float) -> str:
    """The greatest unit that it fills: `5 s`, `3 min`, `2 h`, `4 d`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def shown_size(size: int) -> str:
    """In the unit that leaves it below 1,000."""
    amount, units = float(size), iter(("B", "kB", "MB", "GB"))
    unit = next(units)
    while amount >= 999.5 and (larger := next(units, None)):
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if amount >= 10 or unit == "B" else f"{amount:.1f} {unit}"
