"""`bidaf experiment`: train variants with several seeds, and compare them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bidaf.cli.common import DeviceOption, JsonOption, print_json, print_line, print_table
from bidaf.cli.completion import complete_experiment
from bidaf.cli.runs import shown_size
from bidaf.errors import UsageError
from bidaf.messages import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bidaf.experiments.definition import Job
    from bidaf.experiments.state import State


def experiment_command(
    file: Annotated[
        str,
        typer.Argument(
            help="A YAML file: a path, or the name of one that comes with bidaf, such as mini_ablation.yaml.",
            autocompletion=complete_experiment,
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder of its runs.  [default: runs/NAME-OF-FILE]")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Runs at a time.  [default: as processors or GPUs allow]")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="VARIANT", help="Train this variant alone. Repeatable.")
    ] = None,
    list_runs: Annotated[
        bool, typer.Option("--list", help="List the runs, what has become of each, and the disk they take.")
    ] = False,
    commands: Annotated[
        bool, typer.Option("--commands", help="Print a command for each run that is left, for any scheduler.")
    ] = False,
    only_table: Annotated[
        bool, typer.Option("--table", help="Train nothing: show the runs that are finished.")
    ] = False,
    device: DeviceOption = "auto",
    csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV.")] = False,
    json: JsonOption = False,
) -> None:
    """Train every variant of a config with every seed, and show scores, spread and differences in one table.

    Finished runs are skipped and interrupted ones resumed: Ctrl-C saves, and the same command continues. A run that
    fails does not stop the others; the exit code is 1 then.
    """
    if sum((list_runs, commands, only_table)) > 1:
        raise UsageError("--list, --commands and --table exclude each other")
    if csv and (json or list_runs or commands):
        raise UsageError("--csv prints the table: leave out --json, --list and --commands")
    from bidaf.experiments.definition import choose, find_experiment, keep_copy, plan, read_experiment
    from bidaf.experiments.page import notes, table, to_csv, write_page
    from bidaf.experiments.results import collect
    from bidaf.experiments.runner import Resources, shown_command, train
    from bidaf.experiments.state import state_of
    from bidaf.runs.layout import RUNS_FOLDER
    from bidaf.training.interrupt import Interrupted

    path = find_experiment(file)
    experiment = read_experiment(path)
    folder = output or Path(RUNS_FOLDER, path.stem)
    planned = plan(experiment, path, folder)
    states = {job.name: state_of(job) for job in planned}
    chosen = choose(planned, only or [])
    if list_runs:
        _list([(job, states[job.name]) for job in chosen], json=json)
        return
    left = [job for job in chosen if states[job.name].status != "finished"]
    failures: dict[str, str] = {}
    if not only_table:
        resources = None if commands else Resources.of(experiment, device, jobs)
        keep_copy(path, folder)
        if resources is None:
            for job in left:
                print_line(shown_command(job, experiment, device))
            return
        at_once = f", {resources.at_once} at a time" if left else ""
        say(f"{len(left)} of {len(chosen)} runs to train in {folder}{at_once}")
        try:
            failures = train(left, resources, say)
        except Interrupted as interrupted:
            say("interrupted and saved; the same command continues")
            raise typer.Exit(interrupted.exit_code) from None
    results = collect(experiment, planned)
    if any(variant.seeds for variant in results.variants):
        say(f"report: {write_page(results, path.stem, folder)}")
    if json:
        print_json({"experiment": path.stem, **results.to_dict(), "failed": failures})
    elif csv:
        print(to_csv(results), end="")
    else:
        print_table(*table(results))
        for note in notes(results):
            print_line(note)
    for name, reason in failures.items():
        say(f"failed: {name}: {reason}")
    raise typer.Exit(1 if failures else 0)


def _list(jobs: Sequence[tuple[Job, State]], *, json: bool) -> None:
    from bidaf.experiments.state import disk_needed

    needed = disk_needed([job for job, _ in jobs])
    if json:
        print_json([{"run": str(job.folder), **state._asdict(), "disk_bytes": needed[job.name]} for job, state in jobs])
        return
    rows = [
        (
            job.name,
            state.status,
            f"{state.step:,}",
            shown_size(state.size_bytes),
            "-" if (size := needed[job.name]) is None else shown_size(size),
        )
        for job, state in jobs
    ]
    print_table("", ("run", "status", "steps", "size now", "disk when finished"), rows)
    if unknown := [job for job, _ in jobs if needed[job.name] is None]:
        command = shlex.join(("bidaf", "prepare", *unknown[0].arguments))
        say(f"the disk that runs take is known once their data is prepared: {command}")
    else:
        total = sum(size for size in needed.values() if size is not None)
        say(f"all of them take about {shown_size(total)} for checkpoints and snapshots")
