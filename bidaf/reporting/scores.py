"""The scores of runs as CSV, for a spreadsheet or a program."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from bidaf.runs.log import read_run


def scores_csv(folders: Sequence[Path]) -> str:
    """A row per run and evaluation, numbers at full precision; what a run does not have is empty.

    Raises `DataError` for a folder without a log.
    """
    runs = [read_run(folder) for folder in folders]
    evaluations = [(run, evaluation) for run in runs for evaluation in run.evaluations]
    columns = dict.fromkeys(
        (weights, metric) for _, each in evaluations for weights, metrics in each.scores.items() for metric in metrics
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"{weights}_{metric}" for weights, metric in columns]
    writer.writerow(["run", "step", "epoch", *names, "distance", "best", "elapsed"])
    for run, each in evaluations:
        scores = [each.scores.get(weights, {}).get(metric) for weights, metric in columns]
        writer.writerow([run.name, each.step, each.epoch, *scores, each.distance, int(each.best), each.elapsed])
    return text.getvalue()
