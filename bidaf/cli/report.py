"""`bidaf report`: a run as a page to look at."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from bidaf.cli.common import JsonOption, print_json, say
from bidaf.files.writing import check_output

POLL_SECONDS = 2.0


def report_command(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Runs by name or folder.  [default: the newest]")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write here.  [default: RUN/report.html, of several runs beside the first]"
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Write it anew as the runs go on; Ctrl-C ends.")] = False,
    json: JsonOption = False,
) -> None:
    """Write one HTML page of a run, or of several beside each other, and print its path.

    The page holds everything (curves of raw and shadow weights, settings, dev questions): it needs no network and opens
    from the disk. `bidaf train` writes RUN/report.html itself at every evaluation.
    """
    from bidaf.runs.folder import find_run

    if output is not None:
        check_output(output)
    folders = [find_run(name) for name in runs] if runs else [find_run(None)]
    for page in report(folders, output, watch=watch):
        if json:
            print_json({"page": str(page)})
        else:
            print(page, flush=True)


def report(folders: Sequence[Path], output: Path | None, *, watch: bool) -> Iterator[Path]:
    """The path of the page, once it is written; with `watch` the page is written again until all runs are finished."""
    from bidaf.reporting.report import write_report
    from bidaf.runs.log import read_run

    yield write_report(folders, output)
    if not watch:
        return
    say("watching; Ctrl-C ends")
    try:
        seen = _sizes(folders)
        while not all(read_run(folder).is_finished for folder in folders):
            time.sleep(POLL_SECONDS)
            if (sizes := _sizes(folders)) != seen:
                seen = sizes
                write_report(folders, output)
    except KeyboardInterrupt:
        return
    say("finished")


def _sizes(folders: Sequence[Path]) -> list[int]:
    """How far each log has come."""
    from bidaf.runs.layout import METRICS

    return [(folder / METRICS).stat().st_size for folder in folders]
