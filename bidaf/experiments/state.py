"""What has become of the runs of an experiment, what is left to train, and the disk that takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from bidaf.config import Config, DataConfig
from bidaf.config_file import differences
from bidaf.data.cache import Prepared, open_prepared
from bidaf.data.identity import changes
from bidaf.data.vocabulary import SPECIAL
from bidaf.errors import DataError, UsageError
from bidaf.experiments.definition import Job
from bidaf.model.bidaf import count_weights
from bidaf.model.build import outline_model
from bidaf.runs.folder import Run
from bidaf.runs.layout import CONFIG
from bidaf.runs.log import RunLog, Status, is_training, read_run
from bidaf.runs.snapshots import kept_steps
from bidaf.runs.summary import summarize
from bidaf.training.launch import MAY_CHANGE, SOURCES

BYTES = 4  # of a weight
NOWHERE = "data.prepared_dir"  # changes nothing in a run


class State(NamedTuple):
    """One run as it is now."""

    status: Status | Literal["missing"]
    step: int
    size_bytes: int
    """Of all its files."""


def state_of(job: Job) -> State:
    """Raises `UsageError` where the folder holds a run that training with the file's settings would not lead to."""
    if not (job.folder / CONFIG).is_file():
        return State("running" if is_training(job.folder) else "missing", 0, 0)
    own = Run.open(job.folder).config()
    changed = [each for each in differences(own, job.config) if each.key not in {NOWHERE, *SOURCES}]
    if other := [str(each) for each in changed if each.key not in MAY_CHANGE]:
        raise _refusal(job, f"was trained with other settings: {'; '.join(other)}")
    found = summarize(job.folder)
    if changed and found.step and (problem := _other_course(read_run(job.folder, intervals=False), own, job.config)):
        raise _refusal(job, problem)
    status: Status = "interrupted" if found.status == "finished" and changed else found.status
    return State(status, found.step, found.size_bytes)


def _refusal(job: Job, problem: str) -> UsageError:
    return UsageError(f"{job.folder} {problem}. Name another folder with --output, or remove that run")


def _other_course(log: RunLog, own: Config, asked: Config) -> str | None:
    """Why a run with its own settings is not the beginning of one with those asked for; None where it is.

    A resumed run may change these settings; but the best of other evaluations is another score.
    """
    if log.start is None:
        return None
    epoch = log.start.steps_per_epoch
    total = asked.training.total_steps(epoch)
    if log.step > total:
        return f"was trained for {log.step:,} steps, and the file asks for {total:,}"
    before, after = (each.evaluation.every_steps or epoch for each in (own, asked))
    evaluated, wanted = (set(range(every, log.step + 1, every)) for every in (before, after))
    if (evaluated ^ wanted) - {total}:  # the last step is always evaluated
        return f"was evaluated every {before:,} steps, and the file asks for every {after:,}"
    patience = asked.evaluation.patience
    if patience and any(count >= patience for count in log.without_gain[:-1]):
        return f"was trained beyond {patience} evaluations without a better F1, where the file's patience ends it"
    return None


def disk_needed(jobs: Sequence[Job]) -> dict[str, int | None]:
    """Name of a run -> bytes of its checkpoints and snapshots at its end; None where its data is not prepared yet."""
    prepared = {data: _find_prepared(data) for data in dict.fromkeys(job.config.data for job in jobs)}
    found = ((job, prepared[job.config.data]) for job in jobs)
    return {job.name: None if data is None else _bytes_of(job.config, data) for job, data in found}


def _bytes_of(config: Config, prepared: Prepared) -> int:
    sizes, training, vectors = prepared.counts["vocabulary"], config.training, prepared.vectors()
    outline = outline_model(
        config.model,
        num_trained=sizes["trained_words"] + len(SPECIAL),
        num_chars=sizes["chars"] + len(SPECIAL),
        word_size=vectors.shape[1] if len(vectors) and config.model.embeddings != "char" else config.model.word_size,
    )
    weights = BYTES * sum(count_weights(outline).values())
    epoch = -(-prepared.manifest.counts.train.kept // training.batch_size)
    steps = training.total_steps(epoch)
    evaluations = -(-steps // (config.evaluation.every_steps or epoch))
    saved = evaluations if training.save_every is None else evaluations + steps // training.save_every
    checkpoints = min(saved, training.keep_last + training.keep_best)
    sets = 1 + config.ema.enabled + len(config.evaluation.averages)
    optimizer = 2  # tensors of the shape of each weight, whichever it is
    snapshots = 0
    if settings := config.ema.snapshots:
        snapshots = len(kept_steps(range(0, steps + 1, settings.every), [steps], settings))
    return weights * (checkpoints * (sets + optimizer) + snapshots)


def _find_prepared(config: DataConfig) -> Prepared | None:
    """The prepared data of these settings, if it is there; nothing is fetched or made."""
    for folder in sorted(Path(config.prepared_dir).glob("*/")):
        try:
            found = open_prepared(folder)
            if not changes(config, found.manifest.config, found.manifest.material):
                return found
        except DataError:
            continue
    return None
