"""What lies where in a run's folder, and what can be read of it without PyTorch."""

from __future__ import annotations

import fcntl
import json
from datetime import datetime
from pathlib import Path
from typing import Any

RUNS_FOLDER = "runs"
CONFIG, ENVIRONMENT, METRICS, LOG = "config.yaml", "environment.json", "metrics.jsonl", "log.txt"
LOCK = ".lock"
CHECKPOINTS, PREDICTIONS, SNAPSHOTS = "checkpoints", "predictions", "snapshots"
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
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "step" in event and "event" in event:
            events.append(event)
    return events


def write_log(path: Path, message: str) -> None:
    """Append a message to a log, with the time before it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{datetime.now():{_TIME}}  {message}\n")


def last_message(path: Path) -> str:
    """The newest message of a log, without its time; empty when there is none."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return lines[-1].partition("  ")[2] if lines else ""


def is_training(folder: Path) -> bool:
    """Whether a process holds the run's lock."""
    try:
        with (folder / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def find_runs(base: Path) -> list[Path]:
    """The folders of runs in `base`, by name; links, as `latest` is one, are none of their own."""
    if not base.is_dir():
        return []
    return sorted(path for path in base.iterdir() if not path.is_symlink() and (path / CONFIG).is_file())
