"""Starting a run, resuming one, and trying one out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Set
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bidaf.config import Config
from bidaf.config_file import differences, dump_config
from bidaf.data.cache import Prepared
from bidaf.data.counts import without_ids
from bidaf.data.prepare import prepare
from bidaf.device import peak_memory
from bidaf.distributed import ALONE, Group
from bidaf.errors import BidafError, DataError, UsageError
from bidaf.model.bidaf import count_weights
from bidaf.runs.checkpoint import Checkpoint, CorruptedCheckpoint, open_checkpoint
from bidaf.runs.checkpoint_folders import list_checkpoints
from bidaf.runs.data import keep_data
from bidaf.runs.finding import refuse_copy, refuse_existing_run
from bidaf.runs.folder import Run
from bidaf.runs.labels import Labels, add_labels
from bidaf.runs.layout import CONFIG, write_log
from bidaf.runs.state import TrainingState
from bidaf.training.interrupt import Interrupted
from bidaf.training.loop import train
from bidaf.training.run_writer import Report
from bidaf.training.tensorboard import require_tensorboard
from bidaf.training.trainer import Trainer

Echo = Callable[[str], None]

# Settings that are safe to change on resume: how long a run takes, what it reports and keeps, not how it computes.
MAY_CHANGE = {
    "data.prepared_dir",
    "training.epochs",
    "training.max_steps",
    "training.log_every",
    "training.save_every",
    "training.keep_last",
    "training.keep_best",
    "training.nonfinite",
    "training.tensorboard",
    "evaluation.every_steps",
    "evaluation.batch_tokens",
    "evaluation.patience",
    "evaluation.averages",
    "evaluation.map",
    "evaluation.map.questions",
}
# Sources may have moved: a checkpoint's features are found by their key, and sources compared by their content.
SOURCES = {"data.train", "data.dev", "data.vectors"}
NO_LABELS = Labels()


@dataclass(frozen=True)
class DryRun:
    """Sizes and counts of a run, and one step on the longest batch."""

    weights: dict[str, int]
    """Trained weights by part."""
    counts: dict[str, dict[str, Any]]
    """Of the prepared data."""
    total_steps: int
    loss: float
    seconds: float
    memory_bytes: int


def start_run(
    config: Config,
    folder: Path,
    device: torch.device,
    echo: Echo,
    report: Report = lambda folder: None,
    *,
    features: str | None = None,
    labels: Labels = NO_LABELS,
    group: Group = ALONE,
) -> TrainingState:
    """Prepare the data where needed and train in a new folder; the other processes of the group `follow_run`.

    `features` is the key of prepared data to train on, whose sources may be missing here; `report` as for `train`.
    """
    refuse_existing_run(folder)
    _check_extras(config)
    config, prepared = _prepare_together(config, features, group, echo)
    trainer = Trainer(config, prepared, device, group)
    run = Run(folder)
    with run.locked():
        run.clean_up()
        run = Run.create(folder, config, str(device), processes=group.size)
        add_labels(folder, labels)
        keep_data(folder, prepared)
        if features is not None:
            made_from = ", ".join((*prepared.manifest.config.train, *prepared.manifest.config.dev))
            message = f"training on {prepared.folder}, as asked with --prepared; it was made from {made_from}"
            echo(message)
            write_log(run.folder, message)
        echo(_sizes(trainer))
        trainer.take_from_first()
        _log_start(run, trainer, prepared)
        return _train(trainer, run, report)


def resume_run(
    source: Path,
    device: torch.device,
    echo: Echo,
    report: Report = lambda folder: None,
    *,
    config: Config | None = None,
    folder: Path | None = None,
    labels: Labels = NO_LABELS,
    group: Group = ALONE,
) -> TrainingState:
    """Resume from the newest valid checkpoint of the run in `source`, there or in a copy of it in `folder`.

    A run that was stopped before its first checkpoint starts over. Without `config` the run's own settings are used.
    `labels` are added to those of the run. Raises `UsageError` listing settings that may not change, or for a `folder`
    that can't take the copy.
    """
    run = Run.open(source)
    copying = folder is not None and folder.resolve() != source.resolve()
    if folder is not None and copying:
        refuse_copy(source, folder)
    with ExitStack() as stack:
        lock = stack.enter_context(ExitStack())
        lock.enter_context(run.locked())  # of the source, too, until it is copied: training would change it meanwhile
        if not copying:
            run.clean_up()
        checkpoint = newest_valid_checkpoint(run, echo)
        began_with = checkpoint.config if checkpoint else run.config()
        config = config or run.config()
        if began_with.ema.snapshots is None and config.ema.snapshots is not None:
            echo(f"{run.folder} keeps no snapshots: it began without, and the first ones would be missing")
            config = config.model_copy(update={"ema": config.ema.model_copy(update={"snapshots": None})})
        check_changes(began_with, config, MAY_CHANGE | SOURCES if checkpoint else MAY_CHANGE)
        _check_extras(config)
        features = checkpoint.features if checkpoint else None
        config, prepared = _prepare_together(config, features, group, echo)
        trainer = Trainer(config, prepared, device, group)
        if checkpoint:
            trainer.restore(checkpoint)
        if folder is not None and copying:
            run = run.copy(folder)
            lock.close()
            stack.enter_context(run.locked())
            run.clean_up()
        run.rewind(checkpoint)
        run.prune(config)
        keep_data(run.folder, prepared)
        run.deterministic = config.training.deterministic
        run.files.write_text(CONFIG, dump_config(config))
        add_labels(run.folder, labels)
        echo(_sizes(trainer))
        echo(f"resuming {run.folder} at step {trainer.state.step} of {trainer.total_steps}")
        if trainer.state.step >= trainer.total_steps:
            limit = "epochs" if config.training.max_steps is None else "max_steps"
            echo(f"the run is finished; to train on, raise training.{limit} with --set training.{limit}=N")
        if remark := run.other_counts(group.size):
            echo(remark)
        trainer.take_from_first()
        _log_start(run, trainer, prepared)
        return _train(trainer, run, report)


def _check_extras(config: Config) -> None:
    """Raise `UsageError` where the settings need a package that is not installed."""
    if config.training.tensorboard:
        require_tensorboard()


def _train(trainer: Trainer, run: Run, report: Report) -> TrainingState:
    """`train`, and a record in the run of how it ended, while the run is still locked."""
    try:
        state = train(trainer, run, report)
    except Interrupted:
        run.log_end("interrupted", trainer.state.step, "interrupted and saved")
        raise
    except BidafError as error:
        run.log_end("failed", trainer.state.step, f"failed: {error}")
        raise
    run.log_end(
        "finished", state.step, f"done: {state.step} steps, best F1 {state.best_f1:.2f} at step {state.best_step}"
    )
    return state


def _sizes(trainer: Trainer) -> str:
    """Number of parameters and steps, in words."""
    config, steps = trainer.config.training, trainer.order.batches_per_epoch
    parameters = sum(count_weights(trainer.model).values())
    return (
        f"{parameters:,} parameters; {trainer.total_steps:,} steps, {steps:,} per epoch of batches of "
        f"{config.batch_size}"
    )


def _log_start(run: Run, trainer: Trainer, prepared: Prepared) -> None:
    """The line of metrics.jsonl that all lines after it rest on; once, and again where a later session differs."""
    start = {
        "total_steps": trainer.total_steps,
        "steps_per_epoch": trainer.order.batches_per_epoch,
        "weights": sum(count_weights(trainer.model).values()),
        "features": prepared.key,
        "counts": without_ids(prepared.counts),
        "config": trainer.config.to_dict(),
    }
    written = [event for event in run.events() if event["event"] == "start"]
    if not written or {**written[-1], **json.loads(json.dumps(start))} != written[-1]:
        run.log_event(event="start", step=trainer.state.step, **start)


def follow_run(device: torch.device, group: Group) -> TrainingState:
    """Take part in a run that rank 0 starts or resumes: settings and state come from there.

    Only the data is read, and only prepared data is written.
    """
    config, prepared = _prepare_together(None, None, group, lambda message: None)
    trainer = Trainer(config, prepared, device, group)
    trainer.take_from_first()
    return train(trainer, None)


def _prepare_together(config: Config | None, features: str | None, group: Group, echo: Echo) -> tuple[Config, Prepared]:
    """Rank 0's settings and their features (of the key `features`, if one is given), which rank 0 prepares first.

    Then one process per machine finds them by their key or makes them from its own sources. Raises `DataError` where
    these are different data.
    """
    config = Config.model_validate(group.from_first(config.to_dict() if config else None))
    prepared = prepare(config.data, key=features, echo=echo) if group.is_first else None
    features = group.from_first(prepared.key if prepared else None)
    for my_turn in (group.local_rank == 0, True):
        if my_turn and prepared is None:
            prepared = prepare(config.data, key=features, echo=echo)
        group.wait()
    assert prepared is not None
    return config, prepared


def try_out(config: Config, device: torch.device, echo: Echo, *, features: str | None = None) -> DryRun:
    """Everything up to the first step, and one step on the longest batch, without creating a run."""
    prepared = prepare(config.data, key=features, echo=echo)
    trainer = Trainer(config, prepared, device)
    began = time.perf_counter()
    result = trainer.mock_step()
    return DryRun(
        weights=count_weights(trainer.model),
        counts=prepared.counts,
        total_steps=trainer.total_steps,
        loss=result.loss,
        seconds=time.perf_counter() - began,
        memory_bytes=peak_memory(device),
    )


def newest_valid_checkpoint(run: Run, echo: Echo) -> Checkpoint | None:
    """The newest checkpoint that is complete and not corrupted; reports those that are skipped.

    None for a run that was stopped before its first one. Raises `DataError` when there were some and none is valid.
    """
    found = list_checkpoints(run.checkpoints)
    for folder in reversed(found):
        try:
            return open_checkpoint(folder)
        except CorruptedCheckpoint as error:
            echo(f"skipping corrupted checkpoint: {error}")
    if not found and not run.has_saved():
        echo(f"{run.folder} was stopped before its first checkpoint: starting over")
        return None
    raise DataError(f"{run.folder} holds no valid checkpoint; start a new run with another --run-dir")


def check_changes(before: Config, after: Config, may_change: Set[str] = MAY_CHANGE) -> None:
    """Raise `UsageError` with each difference that would make the resumed run another run."""
    changed = [each for each in differences(before, after) if each.key not in may_change]
    if changed:
        raise UsageError(
            "a resumed run keeps its settings; these differ:\n  "
            + "\n  ".join(map(str, changed))
            + "\nLeave them out, or start a new run without --resume."
        )
