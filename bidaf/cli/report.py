"""`bidaf report`: a run as a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bidaf.cli.common import JsonOption, print_json, print_line
from bidaf.cli.completion import complete_run
from bidaf.errors import UsageError
from bidaf.files.writing import check_output
from bidaf.messages import say


def report_command(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="Runs by name or folder.  [default: the newest]",
            autocompletion=complete_run,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write here.  [default: RUN/report.html, of several runs next to the first]"
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write it again as the runs train, until none does; Ctrl-C ends.")
    ] = False,
    csv: Annotated[
        bool, typer.Option("--csv", help="Print the scores of every evaluation as CSV, and write no page.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Write one HTML page of a run, or of several side by side, and print its path.

    The page holds everything (curves of raw and shadow weights, settings, dev questions): it needs no network and opens
    from the disk. `bidaf train` writes RUN/report.html itself at every evaluation.
    """
    from bidaf.reporting.report import watched_report, write_report
    from bidaf.reporting.scores import scores_csv
    from bidaf.runs.finding import find_run, find_runs_named

    if csv and (json or watch or output is not None):
        raise UsageError("--csv prints the scores: leave out --json, --watch and --output")
    if output is not None:
        check_output(output)
    folders = find_runs_named(runs) if runs else [find_run(None)]
    if csv:
        print(scores_csv(folders), end="")
        return
    pages = watched_report(folders, output, say) if watch else [write_report(folders, output)]
    for page in pages:
        if json:
            print_json({"page": str(page)})
        else:
            print_line(str(page))
