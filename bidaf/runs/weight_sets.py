"""Weight sets: the named sets of all trained weights that a run scores and keeps in its checkpoints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

RAW, EMA = "raw", "ema"

# `decay:0.9995:debias`, `tail:25%`: fit for a file's name once `file_stem` has replaced what some systems do not allow.
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9.:%-]{0,63}$")]
Count = Annotated[int, Field(ge=0, le=10**15)]


class _Recorded(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


class RawWeights(_Recorded):
    """The weights that the optimizer trains."""

    kind: Literal["raw"] = "raw"


class MovingAverage(_Recorded):
    """The shadow that was kept during training: its settings, and how often it was updated."""

    kind: Literal["ema"] = "ema"
    decay: float = Field(ge=0.0, lt=1.0)
    warmup: Literal["none", "ramp", "power"]
    steps: Count


class Synthesis(_Recorded):
    """A linear combination of other weights of the run that stands for the average `target`."""

    kind: Literal["synthesis"] = "synthesis"
    target: Name
    coefficients: dict[str, float]
    """Snapshot or weight set -> its share; the shares add up to 1."""
    predicted_error: float = Field(ge=0.0)
    """Share of the distance between the raw weights and the exact average."""
    initial_share: float = Field(ge=0.0, le=1.0)
    """Share of the initial weights in the exact average."""
    run: str
    """Name of the run's folder."""

    @property
    def summary(self) -> str:
        """Predicted error, initial weights and number of files, in words."""
        files = len(self.coefficients)
        return (
            f"predicted error {self.predicted_error:.2%} of its distance to the raw weights, {self.initial_share:.2%} "
            f"initial weights, made of {files} file{'s' * (files > 1)}"
        )


WeightSet = Annotated[RawWeights | MovingAverage | Synthesis, Field(discriminator="kind")]
"""How a set of weights was made."""


def file_stem(name: str) -> str:
    """The name of a weight set within the name of a file."""
    return name.replace(":", "-").replace("%", "pct")
