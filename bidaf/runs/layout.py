"""What lies where in a run's folder, and what can be read of it without PyTorch."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from bidaf.files.confined import ConfinedFolder
from bidaf.messages import printable
from bidaf.runs.weight_sets import file_stem

RUNS_FOLDER = "runs"
CONFIG, ENVIRONMENT, METRICS, LOG = "config.yaml", "environment.json", "metrics.jsonl", "log.txt"
LOCK = ".lock"
CHECKPOINTS, PREDICTIONS, DATA, SNAPSHOTS, SWEEPS, TENSORBOARD = FOLDERS = (
    "checkpoints",
    "predictions",
    "data",
    "snapshots",
    "sweeps",
    "tensorboard",
)
REPORT = "report.html"
N_BEST = "n_best.json"  # the end of `n_best_file`; its whole name in runs of format 1
EXPERIMENT = "experiment.yaml"  # in the folder of an experiment, around the folders of its runs
BEST, LAST, LATEST = "best", "last", "latest"

_TIME = "%Y-%m-%d %H:%M:%S"


def predictions_file(step: int, weights: str) -> str:
    """Where predictions/ holds the answers of a weight set at the evaluation of a step."""
    return f"step-{step:06d}.{file_stem(weights)}.json"


def n_best_file(step: int) -> str:
    """Where predictions/ holds the answers of an evaluation better than those before it: offsets and probabilities."""
    return f"step-{step:06d}.{N_BEST}"


def write_log(folder: Path, message: str) -> None:
    """Append a message to a run's log.txt, with the time before it."""
    ConfinedFolder(folder).append(LOG, f"{datetime.now():{_TIME}}  {printable(message)}\n")


def find_runs(base: Path) -> list[Path]:
    """The folders of runs in `base`, by name; links, as `latest` is one, are none of their own."""
    if not base.is_dir():
        return []
    return sorted(path for path in base.iterdir() if not path.is_symlink() and os.path.isfile(path / CONFIG))
