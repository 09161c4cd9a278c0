"""What a run's metrics.jsonl holds, as typed events.

    {"event": "start", ...}   total steps, sizes, counts, settings; again when a resumed run has other ones
    {"event": "train", ...}   loss, speed and memory of an interval of steps
    {"event": "eval", ...}    scores of each weight set: {"scores": {"raw": {"f1": ...}, "ema": {...}}}
    {"event": "map", ...}     scores of averages of several widths at an evaluation
    {"event": "skip", ...}    a step whose loss or gradient was not finite
    {"event": "end", ...}     how the run ended; removed when it is resumed

A line that is not such an event (cut off by a crash, edited by hand) is left out and counted, and never raises.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bidaf.files.reading import open_regular

# Far beyond what a run can write, and within what can be drawn.
Finite = Annotated[float, Field(ge=-1e30, le=1e30)]
Count = Annotated[int, Field(ge=0, le=10**18)]
MAX_LINE_BYTES = 1 << 24  # a start event with all settings takes a few kB


class Event(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    step: Count


class Start(Event):
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


class Interval(Event):
    """Training metrics of the steps since the line before; a deterministic run leaves out time and memory."""

    epoch: Finite
    loss: Finite | None
    ema_decay: Finite | None
    questions_per_second: Finite | None
    memory_bytes: Count | None
    elapsed: Finite | None


class Evaluation(Event):
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
    def shadow(self) -> dict[str, float]:
        """The scores of the average; in a run that keeps none, those of the raw weights."""
        return self.scores.get("ema", self.scores["raw"])

    @property
    def raw_f1(self) -> float:
        """F1 of the raw weights, in percent."""
        return self.scores["raw"]["f1"]

    @property
    def gain(self) -> float:
        """F1 of the shadow above the raw weights, in points."""
        return self.shadow["f1"] - self.raw_f1


class WidthMap(Event):
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


class End(Event):
    """How a run ended, until it is resumed."""

    status: Literal["finished", "interrupted", "failed"]
    message: str


KINDS: dict[str, type[Event]] = {"start": Start, "train": Interval, "eval": Evaluation, "end": End, "map": WidthMap}


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file that are not blank, each cut at a length that no event has."""
    with open_regular(path) as file:
        while line := file.readline(MAX_LINE_BYTES):
            if line.strip():
                yield line


def load_event(line: bytes) -> dict[str, Any] | None:
    """A line as JSON, when it names an event and a step; NaN and infinity are not JSON."""
    try:
        event = parse_json(line.decode())
    except (ValueError, RecursionError):
        return None
    step = event.get("step") if isinstance(event, dict) else None
    named = isinstance(step, int) and not isinstance(step, bool) and step >= 0 and isinstance(event.get("event"), str)
    return event if named else None


def parse_event(line: bytes) -> Event | dict[str, Any] | None:
    """A typed event, an event of another kind unchanged, or None for neither."""
    event = load_event(line)
    if event is None or event["event"] not in KINDS:
        return event
    try:
        return KINDS[event["event"]].model_validate(event)
    except (ValidationError, RecursionError):
        return None


def parse_json(text: str) -> Any:
    """JSON, in which NaN and infinity are errors. Raises `ValueError`, or `RecursionError` for deep nesting."""
    return _DECODER.decode(text)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
