"""Starting a run, going on with one, and trying one out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bidaf.config import Config
from bidaf.config_file import differences, dump_config
from bidaf.data.counts import without_ids
from bidaf.data.prepare import Prepared, prepare
from bidaf.device import peak_memory
from bidaf.errors import DataError, UsageError
from bidaf.files.writing import write_text
from bidaf.model.bidaf import count_weights
from bidaf.runs.checkpoint import Checkpoint, DamagedCheckpoint, list_checkpoints, open_checkpoint
from bidaf.runs.folder import Run, refuse_existing_run
from bidaf.runs.layout import CONFIG
from bidaf.training.distributed import ALONE, Group
from bidaf.training.loop import train
from bidaf.training.run_writer import Report
from bidaf.training.trainer import Trainer, TrainingState

Echo = Callable[[str], None]

# Settings that say how long a run goes on, what it tells and keeps, and how it reacts, not how it computes.
MAY_CHANGE = {
    "data.prepared_dir",
    "training.epochs",
    "training.max_steps",
    "training.log_every",
    "training.save_every",
    "training.keep_last",
    "training.keep_best",
    "training.nonfinite",
    "evaluation.every_steps",
    "evaluation.batch_tokens",
    "evaluation.patience",
}


@dataclass(frozen=True)
class DryRun:
    """What a run would be: sizes, counts, and one step on the longest batch."""

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
    group: Group = ALONE,
) -> TrainingState:
    """Prepare the data where needed and train in a new folder; the other processes of the group `follow_run`.

    `report` as for `train`.
    """
    refuse_existing_run(folder)
    config, prepared = _prepare_together(config, group, echo)
    trainer = Trainer(config, prepared, device, group)
    run = Run(folder)
    with run.locked():
        run.clean_up()
        run = Run.create(folder, config, str(device), processes=group.size)
        trainer.take_from_first()
        _log_start(run, trainer, prepared)
        return train(trainer, run, report)


def resume_run(
    source: Path,
    device: torch.device,
    echo: Echo,
    report: Report = lambda folder: None,
    *,
    config: Config | None = None,
    folder: Path | None = None,
    group: Group = ALONE,
) -> TrainingState:
    """Go on from the newest sound checkpoint of the run in `source`, there or in a copy of it in `folder`.

    A run that was stopped before its first checkpoint begins anew. Without `config` the run's own settings hold. Raises
    `UsageError` listing settings that may not change.
    """
    run = Run.open(source)
    copying = folder is not None and folder.resolve() != source.resolve()
    with ExitStack() as stack:
        if not copying:
            stack.enter_context(run.locked())
            run.clean_up()
        checkpoint = newest_sound_checkpoint(run, echo)
        began_with = checkpoint.config if checkpoint else run.config()
        config = config or run.config()
        check_changes(began_with, config)
        config, prepared = _prepare_together(config, group, echo)
        trainer = Trainer(config, prepared, device, group)
        if checkpoint:
            check_features(trainer, checkpoint)
            trainer.restore(checkpoint)
        if copying:
            assert folder is not None
            run = run.copy(folder)
            stack.enter_context(run.locked())
            run.clean_up()
        run.rewind(checkpoint)
        run.prune(config.training.keep_last, config.training.keep_best)
        run.deterministic = config.training.deterministic
        write_text(run.folder / CONFIG, dump_config(config))
        echo(f"resuming {run.folder} at step {trainer.state.step} of {trainer.total_steps}")
        if remark := run.other_counts(group.size):
            echo(remark)
        trainer.take_from_first()
        _log_start(run, trainer, prepared)
        return train(trainer, run, report)


def _log_start(run: Run, trainer: Trainer, prepared: Prepared) -> None:
    """The line of metrics.jsonl that all lines after it rest on; once, and again where a later sitting differs."""
    start = {
        "total_steps": trainer.total_steps,
        "steps_per_epoch": trainer.order.batches_per_epoch,
        "weights": sum(count_weights(trainer.model).values()),
        "features": prepared.folder.name,
        "counts": without_ids(prepared.counts),
        "config": trainer.config.to_dict(),
    }
    written = [event for event in run.events() if event["event"] == "start"]
    if not written or {**written[-1], **json.loads(json.dumps(start))} != written[-1]:
        run.log_event(event="start", step=trainer.state.step, **start)


def follow_run(device: torch.device, group: Group) -> TrainingState:
    """Take part in a run that the first process of the group starts or resumes: settings and state come from there.

    Nothing is read but the data, and nothing written but what is prepared of it.
    """
    config, prepared = _prepare_together(None, group, lambda message: None)
    trainer = Trainer(config, prepared, device, group)
    trainer.take_from_first()
    return train(trainer, None)


def _prepare_together(config: Config | None, group: Group, echo: Echo) -> tuple[Config, Prepared]:
    """The first process's settings and their features: it prepares them, then one process a machine, if it finds none.

    Raises `DataError` when machines read different data.
    """
    config = Config.model_validate(group.from_first(config.to_dict() if config else None))
    prepared: Prepared | None = None
    for my_turn in (group.is_first, group.local_rank == 0, True):
        if my_turn and prepared is None:
            prepared = prepare(config.data, echo=echo)
        group.wait()
    assert prepared is not None
    if len(keys := set(group.gather(prepared.folder.name))) > 1:
        raise DataError(f"the machines have different data under the same names: its features are {sorted(keys)}")
    return config, prepared


def try_out(config: Config, device: torch.device, echo: Echo) -> DryRun:
    """Everything up to the first step, and one step at the longest length; no run is made."""
    prepared = prepare(config.data, echo=echo)
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


def newest_sound_checkpoint(run: Run, echo: Echo) -> Checkpoint | None:
    """The newest checkpoint that is complete and undamaged; says which ones were passed over.

    None for a run that was stopped before its first one. Raises `DataError` when there were some and none is sound.
    """
    found = list_checkpoints(run.checkpoints)
    for folder in reversed(found):
        try:
            return open_checkpoint(folder)
        except DamagedCheckpoint as error:
            echo(f"passed over: {error}")
    if not found and not run.has_saved():
        echo(f"{run.folder} was stopped before its first checkpoint: it begins anew")
        return None
    raise DataError(f"{run.folder} holds no sound checkpoint; start anew with another --run-dir")


def check_features(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Raise `DataError` when the prepared data is not that of the checkpoint."""
    if trainer.prepared_key != checkpoint.state["features"]:
        raise DataError(
            f"the data changed since the run began: its features were {checkpoint.state['features']}, now they "
            f"are {trainer.prepared_key}"
        )


def check_changes(before: Config, after: Config) -> None:
    """Raise `UsageError` with each difference that would make the resumed run another run."""
    changed = [line for line in differences(before, after) if line.split(":")[0] not in MAY_CHANGE]
    if changed:
        raise UsageError(
            "a resumed run keeps its settings; these differ:\n  "
            + "\n  ".join(changed)
            + "\nLeave them out, or start a new run without --resume."
        )
