"""`bidaf train`: start a run, resume one, or try one out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bidaf.cli.common import (
    CONFIG_HELP,
    DeviceOption,
    JsonOption,
    SetOption,
    StrictOption,
    print_json,
    print_line,
    print_table,
)
from bidaf.cli.completion import complete_config, complete_run
from bidaf.cli.prepare import print_counts
from bidaf.errors import DataError, UsageError
from bidaf.messages import say

if TYPE_CHECKING:
    import torch

    from bidaf.config import Config
    from bidaf.distributed import Group
    from bidaf.runs.labels import Labels
    from bidaf.runs.state import TrainingState


def train_command(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN", help="With --resume: which run.  [default: the newest]", autocompletion=complete_run
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option("--config", "-c", help=CONFIG_HELP, autocompletion=complete_config),
    ] = None,
    set: SetOption = None,
    run_dir: Annotated[Path | None, typer.Option(help="The run's folder.  [default: runs/CONFIG-TIME]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the run's newest valid checkpoint.")] = False,
    prepared: Annotated[
        Path | None,
        typer.Option(help="Train on this prepared folder, whose sources may be missing.  [default: found by content]"),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What to call the run in lists.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A word to find the run by. Repeatable.")] = None,
    notes: Annotated[str | None, typer.Option(help="What to remember of it; all three are in RUN/run.json.")] = None,
    strict: StrictOption = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show settings, sizes and counts and run one step, without creating a run."),
    ] = False,
    device: DeviceOption = "auto",
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The same numbers every time; short for training.deterministic.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Train BiDAF, the shadow weights kept alongside; score raw and shadow at every evaluation.

    Ctrl-C saves a checkpoint and ends with exit code 130; `bidaf train --resume` resumes from there.
    """
    if run is not None and not resume:
        option = "--config" if run.endswith((".yaml", ".yml")) else "--resume"
        raise UsageError(f"unexpected argument {run}; did you mean: bidaf train {option} {run}?")
    if dry_run and json:
        raise UsageError("--json prints the final scores, and --dry-run has none; leave one out")
    if dry_run and resume:
        raise UsageError("--dry-run tries out a new run; leave out --resume")
    if prepared is not None and resume:
        raise UsageError("a resumed run finds its features itself, or in --set data.prepared_dir=FOLDER")
    if config is None and not resume:
        raise UsageError("name a config, as in: bidaf train --config squad.yaml")
    from bidaf.runs.labels import Labels

    labels = Labels.of(name, tag or [], notes)
    if sys.stderr.isatty():
        say("loading PyTorch")
    from bidaf.distributed import device_of, expected_size, joined
    from bidaf.training.launch import follow_run

    if dry_run and expected_size() > 1:
        raise UsageError("--dry-run tries out one process; start it without torchrun")
    overrides = [*(set or []), *(["training.deterministic=true"] if deterministic else [])]
    with joined(device) as group:
        chosen = device_of(group, device)
        if not group.is_first:
            code = _train(None, lambda: follow_run(chosen, group), json=json)
        elif resume:
            code = _resume(run, config, overrides, run_dir, chosen, group, labels, json=json)
        else:
            assert config is not None
            code = _start(
                config, overrides, run_dir, prepared, chosen, group, labels, strict=strict, dry_run=dry_run, json=json
            )
    raise typer.Exit(code)


def _resume(
    name: str | None,
    config: str | None,
    overrides: list[str],
    run_dir: Path | None,
    device: torch.device,
    group: Group,
    labels: Labels,
    *,
    json: bool,
) -> int:
    from bidaf.reporting.report import write_run_report
    from bidaf.runs.finding import find_run
    from bidaf.training.launch import resume_run

    source = find_run(name)
    settings = _resumed_config(source, config, overrides)
    folder = run_dir or source
    _say_where(folder, device, group)
    return _train(
        folder,
        lambda: resume_run(
            source, device, say, write_run_report, config=settings, folder=run_dir, labels=labels, group=group
        ),
        json=json,
    )


def _start(
    config: str,
    overrides: list[str],
    run_dir: Path | None,
    prepared: Path | None,
    device: torch.device,
    group: Group,
    labels: Labels,
    *,
    strict: bool,
    dry_run: bool,
    json: bool,
) -> int:
    from bidaf.config_file import explain_missing, find_config, load_config
    from bidaf.data.prepare import prepare, use_prepared
    from bidaf.reporting.report import write_run_report
    from bidaf.runs.finding import new_run_folder
    from bidaf.training.launch import start_run

    path = find_config(config)
    settings = load_config(path, overrides)
    features = None
    if prepared is not None:
        data, features = use_prepared(settings.data, prepared)
        settings = settings.model_copy(update={"data": data})
    if strict:
        prepare(settings.data, key=features, strict=True, echo=say)
    if dry_run:
        print_dry_run(settings, device, features)
        return 0
    folder = run_dir or new_run_folder(path.stem)
    _say_where(folder, device, group)
    try:
        return _train(
            folder,
            lambda: start_run(
                settings, folder, device, say, write_run_report, features=features, labels=labels, group=group
            ),
            json=json,
        )
    except DataError as error:
        raise DataError(f"{error}{explain_missing(settings, path)}") from None
    finally:
        if run_dir is None:
            with suppress(OSError):  # not empty: the run began
                folder.rmdir()


def _say_where(folder: Path, device: torch.device, group: Group) -> None:
    import torch

    threads = torch.get_num_threads()
    processes = f", {group.size} processes" if group.size > 1 else ""
    say(f"run {folder} on {device}, {threads} thread{'' if threads == 1 else 's'}{processes}")


def _train(folder: Path | None, work: Callable[[], TrainingState], *, json: bool) -> int:
    """Train and report how it ended, in the process that has the run's folder; the exit code."""
    from bidaf.evaluation.metrics import show_metrics
    from bidaf.inference.verdict import say_verdict
    from bidaf.runs.checkpoint import open_checkpoint
    from bidaf.runs.folder import Run
    from bidaf.runs.layout import REPORT
    from bidaf.training.interrupt import Interrupted

    try:
        state = work()
    except Interrupted as interrupted:
        if folder is not None:
            say(f"interrupted and saved; resume with: bidaf train --resume {folder}")
        return interrupted.exit_code
    if folder is not None:
        for weights, score in (state.scores or {}).items():
            say(f"{weights:>4}  {show_metrics(score)}")
        say_verdict(open_checkpoint(Run.open(folder).last_checkpoint()))
        say(f"done: {state.step} steps, best F1 {state.best_f1:.2f} at step {state.best_step}, in {folder}")
        if (page := folder / REPORT).exists():
            say(f"report: {page}")
        if json:
            print_json(
                {
                    "run": str(folder),
                    "step": state.step,
                    "scores": state.scores,
                    "best_step": state.best_step,
                    "best_f1": state.best_f1,
                }
            )
    return 0


def _resumed_config(source: Path, config: str | None, overrides: list[str]) -> Config | None:
    """The settings asked for, on top of the run's own; None when nothing is asked for."""
    from bidaf.config_file import find_config, load_config
    from bidaf.runs.folder import Run
    from bidaf.runs.layout import CONFIG

    if config is None and not overrides:
        return None
    Run.open(source)
    return load_config(find_config(config) if config else source / CONFIG, overrides, of_a_run=config is None)


def print_dry_run(config: Config, device: torch.device, features: str | None) -> None:
    """Print what a run would begin with, on stdout."""
    from bidaf.config_file import dump_config
    from bidaf.training.launch import try_out

    result = try_out(config, device, say, features=features)
    print(dump_config(config))
    tables = sum(count for part, count in result.weights.items() if part.endswith("table"))
    total = sum(result.weights.values())
    rows = [(part, f"{count:,}") for part, count in result.weights.items()]
    rows += [("all", f"{total:,}"), ("all but the embedding tables", f"{total - tables:,}")]
    print_table("trained weights", ("part", "weights"), rows)
    print_counts(result.counts)
    print(f"steps: {result.total_steps:,}, batches of {config.training.batch_size}")
    print_line(
        f"one step on the longest batch, on {device}: loss {result.loss:.3f}, {result.seconds:.2f} s, "
        f"{result.memory_bytes / 1e9:.2f} GB at most"
    )
