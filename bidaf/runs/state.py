"""The form of a checkpoint's state.json, checked where it is read: what the checksums hold may be another's make."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bidaf.runs.snapshots import SnapshotRecord

Count = Annotated[int, Field(ge=0)]


class SavedState(BaseModel):
    """`TrainingState`, and what says of which data and with which average; other keys are a newer version's."""

    model_config = ConfigDict(strict=True)

    format: int
    step: Count
    features: str = Field(pattern=r"^[0-9a-f]{16}$")
    """The name of a prepared folder, and no path that leads out of `data.prepared_dir`."""
    evaluated_step: Count
    skipped: Count
    elapsed: float
    scores: dict[str, dict[str, float]] | None
    best_step: Count | None
    best_f1: float
    evaluations_without_gain: Count
    interval_losses: list[float]
    ema: dict[str, Any] | None = None
    snapshots: list[SnapshotRecord] = []


def check_state(state: Any) -> None:
    """Raise `ValueError` naming the first thing that is not of this form."""
    try:
        SavedState.model_validate(state)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise ValueError(f"{place}: {first['msg'].lower()}") from None
