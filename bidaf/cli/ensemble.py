"""`bidaf ensemble`: several models that answer together, and what each further one adds."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bidaf.cli.common import DeviceOption, JsonOption, StrictOption, print_json, print_table, say_report, to_json
from bidaf.cli.completion import complete_run
from bidaf.cli.weights import AllowErrorOption, say_notes
from bidaf.errors import UsageError
from bidaf.messages import say

if TYPE_CHECKING:
    from bidaf.inference.score_ensemble import ScoredEnsemble


class EnsembleRule(StrEnum):
    """How the members' answers become one."""

    sum = "sum"
    product = "product"


def ensemble_command(
    members: Annotated[
        list[str],
        typer.Argument(
            help="Runs, checkpoints, exports, n-best files; the folder of an experiment or an ensemble stands for all "
            "its models.",
            autocompletion=complete_run,
        ),
    ],
    rule: Annotated[
        EnsembleRule,
        typer.Option(help="The highest sum of confidences (the paper's rule), or of products of span probabilities."),
    ] = EnsembleRule.sum,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            "-w",
            metavar="NAME",
            help="The weight set of all models, or one for each in their order.  [default: ema, or raw without one]",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", help="Questions with gold answers.  [default: the first run's dev set]"),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", "-p", "--output", "-o", metavar="FILE", help="Write {id: answer} to this file."),
    ] = None,
    n_best: Annotated[
        int | None, typer.Option(min=1, help="Write records of this number of answers per question instead.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the score against the number of members (.svg, .png).")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the ensemble to a new folder that needs nothing else.")
    ] = None,
    allow_error: AllowErrorOption = False,
    device: DeviceOption = "auto",
    strict: StrictOption = False,
    json: JsonOption = False,
) -> None:
    """Let several models answer together: the score with one member to all, and the gain with its interval.

    The same models with their weights averaged are scored too, where the shapes agree. An exported ensemble is used
    like a model: `--model FOLDER` of eval, predict, ask, explain and serve.
    """
    from bidaf.files.writing import check_output, write_output

    if n_best is not None and predictions is None:
        raise UsageError("--n-best goes with --predictions FILE")
    if predictions is not None:
        check_output(predictions)
    if plot is not None:
        from bidaf.reporting.ensemble import check_suffix

        check_suffix(plot)
        check_output(plot)
    if export is not None:
        from bidaf.export.write import check_export

        check_export(export, "safetensors")
    from bidaf.inference.score_ensemble import score_ensemble

    scored = score_ensemble(
        members,
        weights=weights or [],
        data=data,
        rule=rule.value,
        device=device,
        allow_error=allow_error,
        strict=strict,
        on_report=say_report,
    )
    if scored.ensemble is not None:
        say_notes([scored.ensemble])
    if predictions is not None:
        write_output(predictions, to_json(_answers(scored, n_best)))
        say(f"written: {predictions}")
    if plot is not None:
        from bidaf.reporting.ensemble import ensemble_plot

        write_output(plot, ensemble_plot(scored.score, plot))
        say(f"written: {plot}")
    if export is not None:
        from bidaf.export.ensemble import export_ensemble

        export_ensemble(scored, export)
        say(f"written: {export}")
    if json:
        print_json({**scored.score.to_dict(), "data": scored.data})
        return
    from bidaf.reporting.ensemble import remarks, tables

    for title, columns, rows in tables(scored.score, scored.data):
        print_table(title, columns, rows)
    for line in remarks(scored.score):
        print(line)


def _answers(scored: ScoredEnsemble, n_best: int | None) -> dict[str, str] | list[dict[str, Any]]:
    """What `bidaf predict` writes."""
    from bidaf.inference.records import n_best_record

    answers = scored.score.answers
    if n_best is None:
        return {id: best.text for id, (best, *_) in answers.items()}
    return [n_best_record(each.id, each.question, answers[each.id], n_best) for each in scored.questions]
