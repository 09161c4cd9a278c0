"""What lies where in a run's folder, and what can be read of it without PyTorch."""

from __future__ import annotations

import fcntl
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from bidaf.errors import DataError
from bidaf.files.confined import ConfinedFolder
from bidaf.files.reading import read_regular
from bidaf.messages import printable

RUNS_FOLDER = "runs"
CONFIG, ENVIRONMENT, METRICS, LOG = "config.yaml", "environment.json", "metrics.jsonl", "log.txt"
LOCK = ".lock"
CHECKPOINTS, PREDICTIONS, DATA, SNAPSHOTS = FOLDERS = ("checkpoints", "predictions", "data", "snapshots")
REPORT = "report.html"
N_BEST = "n_best.json"  # in predictions/: the best evaluation's answers, with offsets and probabilities
BEST, LAST, LATEST = "best", "last", "latest"

# How the last line of a log begins that was ended on purpose, and what that makes of the run.
ENDINGS = {"done:": "finished", "interrupted": "interrupted", "failed:": "failed"}
_TIME = "%Y-%m-%d %H:%M:%S"


def read_events(folder: Path) -> list[dict[str, Any]]:
    """All lines of metrics.jsonl; one that a crash cut short or something else spoiled is left out."""
    path = folder / METRICS
    events = []
    for line in read_regular(path).splitlines() if path.exists() else ():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "step" in event and "event" in event:
            events.append(event)
    return events


def write_log(folder: Path, message: str) -> None:
    """Append a message to a run's log.txt, with the time before it."""
    ConfinedFolder(folder).append(LOG, f"{datetime.now():{_TIME}}  {printable(message)}\n")


def last_message(path: Path) -> str:
    """The newest message of a log, without its time; empty when there is none."""
    try:
        lines = read_regular(path).decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return lines[-1].partition("  ")[2] if lines else ""


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


def find_runs(base: Path) -> list[Path]:
    """The folders of runs in `base`, by name; links, as `latest` is one, are none of their own."""
    if not base.is_dir():
        return []
    return sorted(path for path in base.iterdir() if not path.is_symlink() and os.path.isfile(path / CONFIG))
