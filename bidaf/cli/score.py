"""`bidaf score`: EM and F1 of any prediction file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bidaf.cli.common import (
    AnswerableOnlyOption,
    JsonOption,
    StrictOption,
    print_json,
    print_table,
    say_report,
    say_rule,
)
from bidaf.messages import say

SHOWN_IDS = 5


def score_command(
    data: Annotated[str, typer.Argument(help="Questions with gold answers: JSON, JSON lines, CSV or Parquet.")],
    predictions: Annotated[Path, typer.Argument(help="{id: answer}, records with prediction_text, or an n-best file.")],
    answerable_only: AnswerableOnlyOption = False,
    no_answer: Annotated[
        Path | None, typer.Option(metavar="FILE", help="{id: probability of no answer}, or an n-best file: SQuAD v2.0.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="With --no-answer: empty the answers above it.  [default: 1]")
    ] = None,
    strict: StrictOption = False,
    json: JsonOption = False,
) -> None:
    """Score predictions exactly as the official SQuAD evaluator does; questions without a prediction score 0.

    The rule is SQuAD v2.0 when any question has no answer, and SQuAD v1.1 otherwise.
    """
    from bidaf.evaluation.metrics import METRIC_LABELS, score_file, show_metric

    scored = score_file(
        data,
        predictions,
        answerable_only=answerable_only,
        no_answer=no_answer,
        threshold=threshold,
        strict=strict,
        on_report=say_report,
    )
    score = scored.score
    say_rule(scored.rule, scored.left_out)
    _report("questions have no prediction and score 0", score.missing)
    _report("predicted ids are not in the data and are ignored", score.unknown)
    if json:
        print_json(
            {
                **score.metrics,
                "rule": scored.rule,
                "questions": score.questions,
                "missing": list(score.missing),
                "unknown": list(score.unknown),
                "unanswerable": scored.left_out,
            }
        )
        return
    columns = (*(METRIC_LABELS[name] for name in score.metrics), "questions", "without a prediction")
    figures = (show_metric(name, value) for name, value in score.metrics.items())
    row = (*figures, f"{score.questions:,}", f"{len(score.missing):,}")
    print_table(f"{predictions} on {data}", columns, [row])


def _report(what: str, ids: tuple[str, ...]) -> None:
    if ids:
        more = f", ... ({len(ids) - SHOWN_IDS:,} more)" if len(ids) > SHOWN_IDS else ""
        say(f"{len(ids):,} {what}: {', '.join(map(ascii, ids[:SHOWN_IDS]))}{more}")
