"""Starting a run, going on with one, and trying one out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bidaf.config import Config
from bidaf.config_file import differences
from bidaf.data.counts import without_ids
from bidaf.data.prepare import Prepared, prepare
from bidaf.device import peak_memory
from bidaf.errors import BidafError, DataError, UsageError
from bidaf.model.bidaf import count_weights
from bidaf.training.checkpoint import Checkpoint, list_checkpoints, open_checkpoint
from bidaf.training.loop import Report, train
from bidaf.training.run import Run, environment, refuse_existing_run
from bidaf.training.trainer import Trainer, TrainingState

Echo = Callable[[str], None]

# Settings that say how long a run goes on and what it tells, not how it computes.
MAY_CHANGE = {
    "data.prepared_dir",
    "training.epochs",
    "training.max_steps",
    "training.log_every",
    "training.save_every",
    "training.keep_last",
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
    config: Config, folder: Path, device: torch.device, echo: Echo, report: Report = lambda folder: None
) -> TrainingState:
    """Prepare the data where needed and train in a new folder; `report` as for `train`."""
    refuse_existing_run(folder)
    prepared = prepare(config.data, echo=echo)
    trainer = Trainer(config, prepared, device)
    run = Run.create(folder, config, str(device))
    with run.locked():
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
) -> TrainingState:
    """Go on from the newest sound checkpoint of the run in `source`, there or in a copy of it in `folder`.

    Without `config` the run's own settings hold. Raises `UsageError` listing settings that may not change.
    """
    checkpoint = newest_sound_checkpoint(Run.open(source), echo)
    config = config or checkpoint.config
    check_changes(checkpoint.config, config)
    prepared = prepare(config.data, echo=echo)
    trainer = Trainer(config, prepared, device)
    if trainer.prepared_key != checkpoint.state["features"]:
        raise DataError(
            f"the data changed since the run began: its features were {checkpoint.state['features']}, now they "
            f"are {trainer.prepared_key}"
        )
    if folder is not None and folder.resolve() != source.resolve():
        if folder.exists():
            raise UsageError(f"{folder} exists; name a new --run-dir for the copy of {source}")
        try:
            shutil.copytree(source, folder, symlinks=True)
        except (OSError, shutil.Error) as error:
            raise BidafError(f"{source} can't be copied to {folder}: {error}") from None
        source = folder
    trainer.restore(checkpoint)
    run = Run.open(source)
    with run.locked():
        run.rewind(checkpoint)
        _log_start(run, trainer, prepared)
        echo(f"resuming {source} at step {checkpoint.step} of {trainer.total_steps}")
        return train(trainer, run, report)


def _log_start(run: Run, trainer: Trainer, prepared: Prepared) -> None:
    """The line of metrics.jsonl that begins a sitting: all that the lines after it rest on."""
    run.log_event(
        event="start",
        step=trainer.state.step,
        total_steps=trainer.total_steps,
        steps_per_epoch=trainer.order.batches_per_epoch,
        weights=sum(count_weights(trainer.model).values()),
        features=prepared.folder.name,
        counts=without_ids(prepared.counts),
        config=trainer.config.to_dict(),
        environment=environment(str(trainer.train_source.device)),
    )


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


def newest_sound_checkpoint(run: Run, echo: Echo) -> Checkpoint:
    """The newest checkpoint that is complete and undamaged; says which ones were passed over.

    Raises `DataError` when there is none.
    """
    run.last_checkpoint()
    for folder in reversed(list_checkpoints(run.checkpoints)):
        try:
            return open_checkpoint(folder)
        except DataError as error:
            echo(f"passed over: {error}")
    raise DataError(f"{run.folder} holds no sound checkpoint; start anew with another --run-dir")


def check_changes(before: Config, after: Config) -> None:
    """Raise `UsageError` with each difference that would make the resumed run another run."""
    changed = [line for line in differences(before, after) if line.split(":")[0] not in MAY_CHANGE]
    if changed:
        raise UsageError(
            "a resumed run keeps its settings; these differ:\n  "
            + "\n  ".join(changed)
            + "\nLeave them out, or start a new run without --resume."
        )
