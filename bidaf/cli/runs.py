"""`bidaf runs`: what was trained, how far it got and how well it does."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from bidaf.cli.common import JsonOption, print_json, print_table
from bidaf.cli.completion import complete_run
from bidaf.errors import DataError, UsageError
from bidaf.messages import say
from bidaf.runs.layout import LATEST, RUNS_FOLDER

if TYPE_CHECKING:
    from bidaf.runs.summary import RunSummary

LIST = "list"
# What runs are sorted by, and the value of each; a run that lacks it comes last.
SORT_KEYS: dict[str, Callable[[RunSummary], Any]] = {
    "age": lambda run: run.started and -run.started.timestamp(),
    "name": lambda run: run.folder.name,
    "status": lambda run: run.status,
    "f1": lambda run: run.best and -run.best.f1,
    "steps": lambda run: -run.step,
    "size": lambda run: -run.size_bytes,
}


class RunsCommands(TyperGroup):
    """`bidaf runs` with a folder, an option or nothing lists runs: what is no other command belongs to that one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name the command that is meant."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = [LIST, *args]
        return list(super().parse_args(ctx, args))


runs_app = typer.Typer(cls=RunsCommands, help="List runs, or delete some.")


@runs_app.command(LIST)
def list_command(
    folder: Annotated[Path, typer.Argument(help="Where the runs are.")] = Path(RUNS_FOLDER),
    sort: Annotated[
        str, typer.Option(metavar="KEY", help=f"By {', '.join(SORT_KEYS)}; the newest, best or largest first.")
    ] = "age",
    tag: Annotated[
        list[str] | None, typer.Option(help="Only runs with this tag; with several, those that have all.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List runs, the newest first: status, best dev F1 with its weight set, steps, age, size on disk.

    A run is running while a process trains in it, and stopped when it ended without a message (killed, or power lost);
    `bidaf train --resume RUN` resumes one that is interrupted, failed or stopped.
    """
    from bidaf.runs.summary import summarize_runs

    if sort not in SORT_KEYS:
        raise UsageError(f"--sort {sort}: choose from {', '.join(SORT_KEYS)}")
    if not folder.is_dir() and folder != Path(RUNS_FOLDER):
        raise DataError(f"{folder}: no such folder")
    value = SORT_KEYS[sort]
    found = [run for run in summarize_runs(folder) if set(tag or ()) <= set(run.labels.tags)]
    runs = sorted((run for run in found if value(run) is not None), key=value)
    runs += [run for run in found if value(run) is None]
    if json:
        print_json([_record(run) for run in runs])
        return
    if not runs:
        wanted = f" with the tag {' and '.join(tag)}" if tag else ""
        say(f"no run{wanted} in {folder} yet; start one with `bidaf train --config mini.yaml`")
        return
    link = folder / LATEST
    latest = os.readlink(link) if link.is_symlink() else None
    columns = ["run", "status", "best F1", "steps", "age", "size"]
    rows = [_row(run, run.folder.name == latest) for run in runs]
    if any(run.labels.name or run.labels.tags for run in runs):
        columns.append("name, tags")
        rows = [(*row, _labels(run)) for row, run in zip(rows, runs, strict=True)]
    print_table(f"runs in {folder}", columns, rows)
    for run in runs:
        if run.failure:
            say(f"{run.folder.name}: {run.failure}")
        elif run.problem and run.status != "running":  # a run that is being started has no log yet
            say(run.problem)


@runs_app.command("rm")
def rm_command(
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help="By name or folder.", autocompletion=complete_run)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete runs with all their files, after asking; one that is training is refused."""
    from bidaf.runs.finding import find_run
    from bidaf.runs.removal import check_removal, remove_run
    from bidaf.runs.summary import summarize

    folders = check_removal([find_run(name) for name in runs])
    for folder in folders:
        say(f"{folder}  {shown_size(summarize(folder).size_bytes)}")
    if not yes:
        say("Delete? [y/N]")
        answer = sys.stdin.readline()
        if not answer:
            raise UsageError("nobody answers: delete these runs with --yes")
        if answer.strip().lower() not in ("y", "yes"):
            say("nothing was deleted")
            raise typer.Exit(1)
    for folder in folders:
        remove_run(folder)
        say(f"deleted {folder}")


def _record(run: RunSummary) -> dict[str, Any]:
    return {
        **asdict(run),
        "labels": run.labels.model_dump(),
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


def _labels(run: RunSummary) -> str:
    return ", ".join([*([run.labels.name] if run.labels.name else []), *(f"#{tag}" for tag in run.labels.tags)])


def shown_age(seconds: float) -> str:
    """In the largest unit that gives at least 1: `5 s`, `3 min`, `2 h`, `4 d`."""
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
