"""`bidaf score`: EM and F1 of any prediction file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bidaf.cli.common import JsonOption, StrictOption, print_json, print_table, say_report
from bidaf.messages import say

SHOWN_IDS = 5


def score_command(
    data: Annotated[str, typer.Argument(help="Questions with gold answers, in any schema of docs/data.md.")],
    predictions: Annotated[Path, typer.Argument(help="{id: answer}, records with prediction_text, or an n-best file.")],
    strict: StrictOption = False,
    json: JsonOption = False,
) -> None:
    """Score predictions exactly as the official SQuAD v1.1 evaluator does; questions without a prediction score 0."""
    from bidaf.evaluation.squad_v1 import METRIC_LABELS, score_file

    score = score_file(data, predictions, strict=strict, on_report=say_report)
    _report("questions have no prediction and score 0", score.missing)
    _report("predicted ids are not in the data and are ignored", score.unknown)
    if score.unanswerable:
        say(f"{score.unanswerable:,} unanswerable questions are left out")
    if json:
        print_json(
            {
                **score.metrics,
                "questions": score.questions,
                "missing": list(score.missing),
                "unknown": list(score.unknown),
                "unanswerable": score.unanswerable,
            }
        )
        return
    columns = (*(METRIC_LABELS[name] for name in score.metrics), "questions", "without a prediction")
    figures = (f"{value:.2f}" for value in score.metrics.values())
    row = (*figures, f"{score.questions:,}", f"{len(score.missing):,}")
    print_table(f"{predictions} on {data}", columns, [row])


def _report(what: str, ids: tuple[str, ...]) -> None:
    if ids:
        more = f", ... ({len(ids) - SHOWN_IDS:,} more)" if len(ids) > SHOWN_IDS else ""
        say(f"{len(ids):,} {what}: {', '.join(map(ascii, ids[:SHOWN_IDS]))}{more}")
