"""`bidaf sweep`: what averages of other widths would have scored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bidaf.cli.common import DeviceOption, JsonOption, print_json, print_table
from bidaf.cli.completion import complete_run
from bidaf.cli.weights import AtOption
from bidaf.messages import say


def sweep_command(
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="The run.  [default: the newest]", autocompletion=complete_run),
    ] = None,
    at: AtOption = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            "-w",
            metavar="NAME",
            help="An average in place of the grid, such as decay:0.9995, sigma:0.07 or tail:25%. Repeatable.",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Draw the plot here (.png, .svg).")] = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Score averages of every width, made from the run's snapshots, on its dev questions.

    The grid has half-lives from 10 steps to half the run, and tails. Each score is kept in RUN/sweeps: an interrupted
    sweep continues where it ended. The best of the grid is not a result: a width is chosen on every other article and
    scored on the rest, both ways.
    """
    from bidaf.files.writing import check_output
    from bidaf.inference.sweep import sweep_run
    from bidaf.reporting.report import write_run_report
    from bidaf.reporting.sweep import check_image_suffix, choice_sentence, table, write_sweep_image

    if output is not None:
        check_image_suffix(output)
        check_output(output)
    folder, summary = sweep_run(run, at=at, weights=weights or [], device=device, say=say)
    if output is not None:
        write_sweep_image(summary, output)
        say(f"written: {output}")
    say(f"report: {write_run_report(folder)}")
    if json:
        print_json(summary.to_dict())
        return
    print_table(*table(summary))
    print(choice_sentence(summary))
