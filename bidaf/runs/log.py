"""What a run's metrics.jsonl holds, as typed events; the one reader of that file, and the one notion of a run's status.

    {"event": "start", ...}   total steps, sizes, counts, settings; again when a resumed run has other ones
    {"event": "train", ...}   loss, speed and memory of an interval of steps
    {"event": "eval", ...}    scores of each weight set: {"scores": {"raw": {"f1": ...}, "ema": {...}}}
    {"event": "map", ...}     scores of averages of several widths at an evaluation
    {"event": "skip", ...}    a step whose loss or gradient was not finite
    {"event": "end", ...}     how the run ended; removed when it is resumed

A line that is not such an event (cut off by a crash, edited by hand) is left out and counted, and never raises.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bidaf.errors import DataError
from bidaf.runs.layout import ENVIRONMENT, LOCK, LOG, METRICS

# Far beyond what a run can write, and within what can be drawn.
Finite = Annotated[float, Field(ge=-1e30, le=1e30)]
Count = Annotated[int, Field(ge=0, le=10**18)]
Status = Literal["running", "finished", "interrupted", "failed", "stopped"]
MAX_LINE_BYTES = 1 << 24  # a start event with all settings takes a few kB

# How the last line of log.txt begins in runs that wrote no end event.
_ENDINGS: dict[str, Status] = {"interrupted": "interrupted", "failed:": "failed"}


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    step: Count


class Start(_Event):
    """What a run began with, or was resumed with where that differs."""

    total_steps: Count
    steps_per_epoch: Count
    weights: Count
    """Number of trained weights."""
    features: str
    """Name of the prepared folder."""
    counts: dict[str, dict[str, int | Finite | dict[str, int]]]
    """Of the prepared data, as `bidaf.data.counts.without_ids` gives them."""
    config: dict[str, Any]

    def section(self, name: str) -> dict[str, Any]:
        """One section of the settings; empty where the log does not hold it."""
        values = self.config.get(name)
        return values if isinstance(values, dict) else {}


class Interval(_Event):
    """Training metrics of the steps since the line before; a deterministic run leaves out time and memory."""

    epoch: Finite
    loss: Finite | None
    ema_decay: Finite | None
    questions_per_second: Finite | None
    memory_bytes: Count | None
    elapsed: Finite | None


class Evaluation(_Event):
    """Scores of the dev questions in percent, by weight set and metric."""

    epoch: Finite
    scores: dict[str, dict[str, Finite]]
    distance: Finite | None = None
    """||raw - shadow|| / ||raw||; None in a run that keeps no average."""
    best: bool
    elapsed: Finite | None
    ranked_by: str = ""
    """The weight set whose F1 chooses the best checkpoint."""

    @model_validator(mode="before")
    @classmethod
    def _scores_of_older_versions(cls, values: Any) -> Any:
        if isinstance(values, dict) and "scores" not in values:
            return {**values, "scores": {name: values[name] for name in ("raw", "ema") if values.get(name)}}
        return values

    @model_validator(mode="after")
    def _what_is_drawn_is_there(self) -> Evaluation:
        if "raw" not in self.scores or not all({"exact_match", "f1"} <= each.keys() for each in self.scores.values()):
            raise ValueError("expected exact_match and f1 of the raw weights and of each other weight set")
        return self

    @property
    def ranking(self) -> dict[str, float]:
        """The scores that choose the best checkpoint."""
        return self.scores[self.ranked_by]

    @property
    def f1(self) -> float:
        """F1 of the weight set that ranks, in percent."""
        return self.ranking["f1"]

    @property
    def raw_f1(self) -> float:
        """F1 of the raw weights, in percent."""
        return self.scores["raw"]["f1"]

    @property
    def gain(self) -> float:
        """F1 of the ranking weight set above the raw weights, in points."""
        return self.f1 - self.raw_f1


class WidthMap(_Event):
    """What averages of several half-lives scored at an evaluation, on some of the dev questions; percent."""

    half_lives: Annotated[list[Annotated[float, Field(gt=0, le=1e30)]], Field(min_length=1, max_length=1000)]
    predicted_error: list[Finite]
    """Of each synthesis, as a share of the distance between the average and the raw weights."""
    exact_match: list[Finite | None]
    """None where the predicted error was too large for a score."""
    f1: list[Finite | None]
    questions: Count

    @model_validator(mode="after")
    def _one_of_each(self) -> WidthMap:
        if {len(self.predicted_error), len(self.exact_match), len(self.f1)} != {len(self.half_lives)}:
            raise ValueError("expected a predicted error and a score, or none, for each half-life")
        return self


class End(_Event):
    """How a run ended, until it is resumed."""

    status: Literal["finished", "interrupted", "failed"]
    message: str


KINDS: dict[str, type[_Event]] = {"start": Start, "train": Interval, "eval": Evaluation, "end": End, "map": WidthMap}


@dataclass(frozen=True)
class RunLog:
    """The events of one run, oldest first, and what can be derived from them."""

    folder: Path
    starts: list[Start]
    intervals: list[Interval]
    evaluations: list[Evaluation]
    end: End | None
    maps: list[WidthMap] = field(default_factory=list)
    skipped: int = 0
    """Steps whose loss or gradient was not finite."""
    unread: int = 0
    """Lines that are no valid event."""
    environment: dict[str, Any] = field(default_factory=dict)
    """What environment.json says; empty where that can't be read."""

    @property
    def name(self) -> str:
        """The folder's own name, such as squad-20260101-120000."""
        return self.folder.resolve().name or str(self.folder)

    @property
    def start(self) -> Start | None:
        """What the newest session began with; None in a log without a start event."""
        return self.starts[-1] if self.starts else None

    @cached_property
    def best(self) -> Evaluation | None:
        """The newest evaluation that was better than all before it."""
        return next((evaluation for evaluation in reversed(self.evaluations) if evaluation.best), None)

    @property
    def has_shadow(self) -> bool:
        """Whether an average was scored."""
        return any("ema" in evaluation.scores for evaluation in self.evaluations)

    @property
    def step(self) -> int:
        """The newest step that any event names."""
        newest = (events[-1] for events in (self.starts, self.intervals, self.evaluations) if events)
        return max([event.step for event in newest] + [self.end.step if self.end else 0])

    @property
    def total_steps(self) -> int | None:
        """Steps of the whole run; None in a log without a start event."""
        return self.start.total_steps if self.start else None

    @property
    def elapsed(self) -> float:
        """Seconds of training and evaluation so far."""
        times = [events[-1].elapsed for events in (self.intervals, self.evaluations) if events]
        return max((seconds for seconds in times if seconds is not None), default=0.0)

    @cached_property
    def status(self) -> Status:
        """`running` while a process trains; else as the run ended; `stopped` when it could not record that (killed)."""
        if self.end is not None:
            return self.end.status
        if self._is_complete:
            return "finished"
        return "running" if is_training(self.folder) else _logged_ending(self.folder / LOG)

    @property
    def _is_complete(self) -> bool:
        """Whether nothing more is to come: the last step was scored, or patience is exhausted."""
        if self.start is None or not self.evaluations:
            return False
        scored = self.evaluations[-1].step
        return scored >= self.start.total_steps or (self.step == scored and self._is_out_of_patience)

    @property
    def failure(self) -> str | None:
        """What a failed run reported."""
        return self.end.message if self.end and self.status == "failed" else None

    @property
    def _is_out_of_patience(self) -> bool:
        patience = self.settings("evaluation").get("patience")
        without_gain = 0
        for evaluation in self.evaluations:
            without_gain = 0 if evaluation.best else without_gain + 1
        return isinstance(patience, int) and without_gain >= patience

    def settings(self, section: str) -> dict[str, Any]:
        """One section of the run's config; empty where the log does not hold it."""
        return self.start.section(section) if self.start else {}


def read_run(folder: Path, *, intervals: bool = True) -> RunLog:
    """Read a run's log; without `intervals` (most of its lines) faster, for lists of runs.

    Raises `DataError` when the folder has no log, or the log no valid event.
    """
    path = folder / METRICS
    if not path.is_file():
        raise DataError(
            f"{folder} has no {METRICS}: it is not a run folder, or the run was stopped before its first step"
        )
    events: dict[str, dict[int, Any]] = {name: {} for name in KINDS}
    skipped = unread = 0
    last = b""
    try:
        for line in _lines(path):
            if not intervals and b'"event": "train"' in line:
                last = line
                continue
            event = _parse(line)
            if event is None:
                unread += 1
            elif isinstance(event, _Event):
                events[_NAMES[type(event)]][event.step] = event  # an event counts once per step, the newest one
            else:
                skipped += event.get("event") == "skip"
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}") from None
    if last and isinstance(event := _parse(last), Interval):
        events["train"][event.step] = event
    if not any(events.values()):
        raise DataError(f"{path} holds no event of a run; was it written by bidaf train?")
    starts, trained, evaluations, ends, maps = ([found[step] for step in sorted(found)] for found in events.values())
    rank_by = starts[-1].section("evaluation").get("rank_by", "ema") if starts else "ema"
    return RunLog(
        folder,
        starts,
        trained,
        [_ranked(evaluation, rank_by) for evaluation in evaluations],
        ends[-1] if ends else None,
        maps,
        skipped,
        unread,
        _environment(folder),
    )


def read_events(folder: Path) -> list[dict[str, Any]]:
    """All lines of metrics.jsonl that name an event and its step, as they were written."""
    path = folder / METRICS
    events = [_load(line) for line in _lines(path)] if path.exists() else []
    return [event for event in events if event is not None]


def is_training(folder: Path) -> bool:
    """Whether a process holds the run's lock."""
    try:
        with (folder / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


_NAMES = {kind: name for name, kind in KINDS.items()}


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file that are not blank, each cut at a length that no event has."""
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES):
            if line.strip():
                yield line


def _load(line: bytes) -> dict[str, Any] | None:
    """A line as JSON, when it names an event and a step; NaN and infinity are no JSON."""
    try:
        event = _DECODER.decode(line.decode())
    except (ValueError, RecursionError):
        return None
    step = event.get("step") if isinstance(event, dict) else None
    named = isinstance(step, int) and not isinstance(step, bool) and step >= 0 and isinstance(event.get("event"), str)
    return event if named else None


def _parse(line: bytes) -> _Event | dict[str, Any] | None:
    """A typed event, an event of another kind as it stands, or None for neither."""
    event = _load(line)
    if event is None or event["event"] not in KINDS:
        return event
    try:
        return KINDS[event["event"]].model_validate(event)
    except (ValidationError, RecursionError):
        return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _ranked(evaluation: Evaluation, rank_by: Any) -> Evaluation:
    name = rank_by if rank_by in evaluation.scores else "raw"
    return evaluation.model_copy(update={"ranked_by": name})


def _logged_ending(path: Path) -> Status:
    """What the last line of log.txt says; its lines begin with the time and two blanks."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - MAX_LINE_BYTES))
            last = (file.read().decode("utf-8", "replace").splitlines() or [""])[-1]
    except OSError:
        return "stopped"
    message = last.partition("  ")[2]
    return next((status for prefix, status in _ENDINGS.items() if message.startswith(prefix)), "stopped")


def _environment(folder: Path) -> dict[str, Any]:
    try:
        environment = _DECODER.decode((folder / ENVIRONMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return environment if isinstance(environment, dict) else {}
