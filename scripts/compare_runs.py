"""Say what sets two runs apart: nothing, if one is the other stopped and resumed.

    python scripts/compare_runs.py runs/one runs/other

Compared are, byte for byte, weights, shadow and optimizer of every checkpoint, snapshots, settings, predictions and
links; and all values of the checkpoints' state and of metrics.jsonl but time and memory. log.txt and
environment.json tell when and where a run was made, and are not. Exit code 1 when there is a difference.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from bidaf.errors import DataError
from bidaf.runs.checkpoint_folders import COMPLETE, list_checkpoints
from bidaf.runs.folder import MEASURED, Run
from bidaf.runs.layout import (
    BEST,
    CHECKPOINTS,
    ENVIRONMENT,
    LAST,
    LOG,
    METRICS,
    N_BEST,
    PREDICTIONS,
    REPORT,
    SNAPSHOTS,
    n_best_file,
)
from bidaf.runs.snapshots import snapshot_path
from bidaf.runs.state import STATE


def differences(run: Path, other: Path, *, common_checkpoints: bool = False) -> list[str]:
    """One line each; with `common_checkpoints` those are left out that one of the two has not saved."""
    ours, theirs = contents(run), contents(other)
    if common_checkpoints:
        saved = [{path.name for path in list_checkpoints(each / CHECKPOINTS)} for each in (run, other)]
        both = saved[0] & saved[1]
        for found in (ours, theirs):
            _drop(found, CHECKPOINTS, both)
            states = [found.get(f"{found.get(link)}/{STATE}") for link in (BEST, LAST)]  # others keep half of theirs
            training = [state["training"] for state in states if state]
            snapshots = {snapshot_path(run, record["step"]).name for state in training for record in state["snapshots"]}
            _drop(found, SNAPSHOTS, snapshots)
            answers = {n_best_file(state["best_step"]) for state in training if state["best_step"]}
            _drop(found, PREDICTIONS, answers, ending=N_BEST)
    return [
        f"{name} is {'not there' if name not in ours else 'there' if name not in theirs else 'different'}"
        for name in sorted(ours.keys() | theirs.keys())
        if name not in ours or name not in theirs or ours[name] != theirs[name]
    ]


def _drop(found: dict[str, Any], folder: str, keep: set[str], *, ending: str = "") -> None:
    """Leave out what lies in a folder of the run and ends so, but what has one of these names."""
    inside = [name for name in found if name.startswith(f"{folder}/") and name.endswith(ending)]
    for name in inside:
        if name.split("/")[1] not in keep:
            del found[name]


def contents(run: Path) -> dict[str, Any]:
    """All that must be the same, by name: bytes of files, targets of links, values without time and memory."""
    found: dict[str, Any] = {}
    for path in run.rglob("*"):
        name = path.relative_to(run).as_posix()
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_dir() or path.name in (ENVIRONMENT, LOG, REPORT, COMPLETE):
            found[name] = None  # the marker follows from the other files of its checkpoint
        elif path.name == STATE:
            state = json.loads(path.read_bytes())
            found[name] = {**state, "training": {**state["training"], "elapsed": None}}
        elif path.name == METRICS:
            lines = [json.loads(line) for line in path.read_bytes().splitlines()]
            found[name] = [{key: value for key, value in line.items() if key not in MEASURED} for line in lines]
        else:
            found[name] = path.read_bytes()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs=2)
    runs = parser.parse_args().runs
    try:
        for run in runs:
            Run.open(run)
    except DataError as error:
        parser.error(str(error))
    found = differences(*runs)
    print("\n".join(found) or "the same")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
