"""What a run's metrics.jsonl tells, as typed events, and in words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bidaf.errors import DataError
from bidaf.files.reading import read_regular
from bidaf.runs.layout import ENVIRONMENT, METRICS, read_events

# Far beyond what a run can write, and within what can be drawn.
Finite = Annotated[float, Field(ge=-1e30, le=1e30)]
Count = Annotated[int, Field(ge=0, le=10**18)]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    step: Count


class Scores(BaseModel):
    """Percent."""

    model_config = ConfigDict(frozen=True, strict=True)

    exact_match: Finite
    f1: Finite


class Start(_Event):
    """What a run, or a sitting of other settings, began with."""

    total_steps: Count
    steps_per_epoch: Count
    weights: Count
    features: str
    """Name of the prepared folder."""
    counts: dict[str, dict[str, int | Finite | dict[str, int]]]
    """Of the prepared data, as `bidaf.data.counts.without_ids` gives them."""
    config: dict[str, Any]


class Interval(_Event):
    """Training metrics of the steps since the line before; a deterministic run does not tell time and memory."""

    epoch: Finite
    loss: Finite | None
    ema_decay: Finite | None
    questions_per_second: Finite | None
    memory_bytes: Count | None
    elapsed: Finite | None


class Evaluation(_Event):
    """Scores of the dev questions; `ema` and `distance` are None in a run that keeps no average."""

    epoch: Finite
    raw: Scores
    ema: Scores | None = None
    distance: Finite | None
    best: bool
    elapsed: Finite | None

    @property
    def answering(self) -> Scores:
        """The scores that choose the best checkpoint: the shadow's where there is one."""
        return self.ema or self.raw

    @property
    def gain(self) -> float:
        """F1 of the shadow above the raw weights, in points."""
        return self.answering.f1 - self.raw.f1


E = TypeVar("E", bound=_Event)


@dataclass(frozen=True)
class RunLog:
    """The events of one run, oldest first; `start` is its newest sitting's, None in a log without one."""

    folder: Path
    start: Start | None
    intervals: list[Interval]
    evaluations: list[Evaluation]
    environment: dict[str, Any]
    """What environment.json says; empty where that can't be read."""
    skipped: int
    """Steps whose loss or gradient was not finite."""
    unread: int
    """Events of a known kind with something wrong in them."""

    @property
    def name(self) -> str:
        """The folder's own name, such as squad-20260101-120000."""
        return self.folder.resolve().name or str(self.folder)

    @cached_property
    def best(self) -> Evaluation | None:
        """The newest evaluation that was better than all before it."""
        return next((evaluation for evaluation in reversed(self.evaluations) if evaluation.best), None)

    @property
    def has_shadow(self) -> bool:
        """Whether an average was scored."""
        return any(evaluation.ema for evaluation in self.evaluations)

    @property
    def step(self) -> int:
        """The newest step that is told of."""
        ends = [events[-1].step for events in (self.intervals, self.evaluations) if events]
        return max(ends, default=self.start.step if self.start else 0)

    @property
    def elapsed(self) -> float:
        """Seconds of training and evaluation so far."""
        ends = [events[-1].elapsed for events in (self.intervals, self.evaluations) if events]
        return max((end for end in ends if end is not None), default=0.0)

    @property
    def is_finished(self) -> bool:
        """Whether nothing more is to come: the last step was scored, or patience is exhausted."""
        if self.start is None or not self.evaluations:
            return False
        scored = self.evaluations[-1].step
        return scored >= self.start.total_steps or (self.step == scored and self._is_out_of_patience(self.start))

    def _is_out_of_patience(self, start: Start) -> bool:
        patience = _section(start.config, "evaluation").get("patience")
        without_gain = 0
        for evaluation in self.evaluations:
            without_gain = 0 if evaluation.best else without_gain + 1
        return isinstance(patience, int) and without_gain >= patience

    def settings(self, section: str) -> dict[str, Any]:
        """One section of the run's config; empty where the log does not tell."""
        return _section(self.start.config, section) if self.start else {}


def read_run(folder: Path) -> RunLog:
    """Read a run's log. Raises `DataError` when the folder has none, or nothing that can be read in it."""
    path = folder / METRICS
    if not path.is_file():
        raise DataError(
            f"{folder} has no {METRICS}: it is not a run folder, or the run was stopped before its first step"
        )
    try:
        events = read_events(folder)
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}") from None
    starts, bad_starts = _parse(Start, events, "start")
    intervals, bad_intervals = _parse(Interval, events, "train")
    evaluations, bad_evaluations = _parse(Evaluation, events, "eval")
    if not (starts or intervals or evaluations):
        raise DataError(f"{path} holds no event of a run; was it written by bidaf train?")
    return RunLog(
        folder,
        starts[-1] if starts else None,
        intervals,
        evaluations,
        _environment(folder),
        skipped=sum(event["event"] == "skip" for event in events),
        unread=bad_starts + bad_intervals + bad_evaluations,
    )


def _parse(kind: type[E], events: list[dict[str, Any]], name: str) -> tuple[list[E], int]:
    """Events by step, once each; and how many did not hold and are left out, as a line that is no JSON is."""
    parsed: dict[int, E] = {}
    bad = 0
    for event in events:
        if event["event"] == name:
            try:
                read = kind.model_validate(event)
            except ValidationError:
                bad += 1
            else:
                parsed[read.step] = read
    return [parsed[step] for step in sorted(parsed)], bad


def _environment(folder: Path) -> dict[str, Any]:
    try:
        environment = json.loads(read_regular(folder / ENVIRONMENT))
    except (OSError, ValueError):
        return {}
    return environment if isinstance(environment, dict) else {}


def _section(config: dict[str, Any], name: str) -> dict[str, Any]:
    values = config.get(name)
    return values if isinstance(values, dict) else {}
