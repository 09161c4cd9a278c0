"""What state.json of a checkpoint holds, and the schema it is checked against.

Checksums show that a file is as it was written; the schema is for one that somebody else wrote.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bidaf.errors import DataError
from bidaf.files.reading import read_regular
from bidaf.runs import format1
from bidaf.runs.snapshots import SnapshotRecord
from bidaf.runs.weight_sets import EMA, RAW, Count, MovingAverage, Name, RawWeights, WeightSet, file_stem

FORMAT_VERSION: Final = 2
STATE, WEIGHTS = "state.json", "weights"
_KINDS: dict[str, type] = {RAW: RawWeights, EMA: MovingAverage}
METRICS = frozenset({"exact_match", "f1"})  # in every evaluation, among others

Scores = dict[Name, dict[str, float]]
"""Weight set -> metric -> value (percent)."""


class _Saved(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class TrainingState(_Saved):
    """What a run knows besides weights and optimizer; all of it is in every checkpoint."""

    step: Count = 0
    evaluated_step: Count = 0
    """The step of the newest evaluation, so that a resumed run neither repeats nor forgets one."""
    skipped: Count = 0
    """Steps whose loss or gradient was not finite."""
    elapsed: float = 0.0
    """Seconds of training and evaluation, over all sessions."""
    scores: Scores | None = None
    """Of the newest evaluation."""
    best_step: Count | None = None
    best_f1: float = -1.0
    evaluations_without_gain: Count = 0
    interval_losses: list[float] = Field(default_factory=list)
    """Losses since the last line of training metrics."""
    snapshots: list[SnapshotRecord] = Field(default_factory=list)
    """Those that are kept at the step of this checkpoint, oldest first."""

    @property
    def updates(self) -> int:
        """Steps that changed the weights."""
        return self.step - self.skipped

    @property
    def own_scores(self) -> Scores | None:
        """The scores, if they are of the weights as they are; those of an earlier step are not."""
        return self.scores if self.evaluated_step == self.step else None

    @model_validator(mode="after")
    def _is_possible(self) -> TrainingState:
        if not max(self.evaluated_step, self.skipped) <= self.step:
            raise ValueError("evaluated_step and skipped can't be more than step")
        if self.scores is not None and (problem := _problem_of(self.scores)):
            raise ValueError(f"scores: {problem}")
        order = [(record.step, record.updates) for record in self.snapshots]
        if order != sorted(set(order)) or any(step > self.step or updates > self.updates for step, updates in order):
            raise ValueError("snapshots: they are out of order, or newer than the checkpoint")
        return self


class SavedState(_Saved):
    """The whole of state.json."""

    format: Literal[2] = FORMAT_VERSION
    features: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    """The name of a prepared folder, and no path that leads out of `data.prepared_dir`."""
    training: TrainingState
    weights: dict[Name, WeightSet]

    @model_validator(mode="after")
    def _parts_belong_together(self) -> SavedState:
        if RAW not in self.weights:
            raise ValueError(f"weights: {RAW} is missing")
        if len({file_stem(name) for name in self.weights}) < len(self.weights):
            raise ValueError("weights: two sets have the same file")
        for name, made in self.weights.items():
            if not isinstance(made, _KINDS.get(name, type(made))):
                raise ValueError(f"weights: {name} can't be of the kind {made.kind}")
            if isinstance(made, MovingAverage) and made.steps != self.training.updates:
                raise ValueError(f"weights: {name} was updated {made.steps} times in {self.training.updates} updates")
        return self


def ranking_f1(scores: Scores, rank_by: str) -> float:
    """The F1 that ranks checkpoints: that of the weight set `rank_by`, or of the raw weights in a run without it."""
    return scores.get(rank_by, scores[RAW])["f1"]


def _problem_of(scores: Scores) -> str | None:
    if RAW not in scores:
        return f"the {RAW} weights are missing"
    lacking = [name for name, metrics in scores.items() if not metrics.keys() >= METRICS]
    return f"{lacking[0]} lacks one of {', '.join(sorted(METRICS))}" if lacking else None


def weights_file(name: str) -> str:
    """Where a checkpoint keeps a weight set."""
    return f"{WEIGHTS}/{file_stem(name)}.safetensors"


def read_state(folder: Path) -> tuple[SavedState, dict[str, str]]:
    """The state of a checkpoint of any format that this version knows, and where its weight sets lie.

    Raises `ValueError` (or what a value of another type leads to) for a state that is invalid, `DataError` for another
    format.
    """
    text = read_regular(folder / STATE).decode()
    state = json.loads(text)
    version = state["format"]
    if version == format1.FORMAT_VERSION:
        saved = _parse(json.dumps(format1.translate_state(state)))
        return saved, {name: format1.weights_file(name) for name in saved.weights}
    if version != FORMAT_VERSION:
        raise DataError(
            f"{folder} has checkpoint format {version!r:.40}; this version reads formats {format1.FORMAT_VERSION} and "
            f"{FORMAT_VERSION}"
        )
    saved = _parse(text)
    return saved, {name: weights_file(name) for name in saved.weights}


def _parse(text: str) -> SavedState:
    try:
        saved = SavedState.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        place = [".".join(map(str, first["loc"]))] if first["loc"] else []
        raise ValueError(": ".join([*place, f"{message[0].lower()}{message[1:]}"])) from None
    # The defaults are those of a run that begins, not of one that is resumed.
    if missing := sorted(TrainingState.model_fields.keys() - saved.training.model_fields_set):
        raise ValueError(f"training.{missing[0]}: is missing")
    return saved
