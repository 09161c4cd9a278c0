"""Settings of the optimizers and of their learning-rate schedules."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bidaf.config_base import Count, Section

# What float32 arithmetic still stands: a learning rate beyond it diverges in one step, an eps below it divides by zero.
MAX_LR, MIN_EPS = 100.0, 1e-30


class AdadeltaConfig(Section):
    """Adadelta with TensorFlow's constants; PyTorch's defaults (0.9, 1e-6) are another recipe."""

    name: Literal["adadelta"] = "adadelta"
    lr: float = Field(0.5, gt=0.0, le=MAX_LR)
    """Factor on Adadelta's own step."""
    rho: float = Field(0.95, gt=0.0, lt=1.0)
    """Decay of the running squares."""
    eps: float = Field(1e-8, ge=MIN_EPS, le=1.0)
    """Added inside the square roots."""


class AdamConfig(Section):
    """Adam."""

    name: Literal["adam"] = "adam"
    lr: float = Field(1e-3, gt=0.0, le=MAX_LR)
    """Learning rate."""
    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    """Decay of the running mean."""
    beta2: float = Field(0.999, ge=0.0, lt=1.0)
    """Decay of the running square."""
    eps: float = Field(1e-8, ge=MIN_EPS, le=1.0)
    """Added to the denominator."""


class AdamWConfig(AdamConfig):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    name: Literal["adamw"] = "adamw"  # type: ignore[assignment]
    weight_decay: float = Field(0.01, ge=0.0, le=1.0)
    """Share of a weight, times the learning rate, taken off at each step; biases and embedding tables don't decay."""


OptimizerConfig = Annotated[AdadeltaConfig | AdamConfig | AdamWConfig, Field(discriminator="name")]


class ConstantSchedule(Section):
    """The optimizer's learning rate, after a warm-up if there is one."""

    name: Literal["constant"] = "constant"
    warmup_steps: int = Field(0, ge=0, le=10**9)
    """Steps in which the learning rate rises linearly from 0 to the optimizer's."""


class DecaySchedule(ConstantSchedule):
    """After the warm-up, down to a share of the optimizer's learning rate: linearly, or along half a cosine."""

    name: Literal["linear", "cosine"]  # type: ignore[assignment]
    steps: Count
    """Step at which the learning rate reaches its final value: the length of the schedule, not of the run."""
    final: float = Field(0.0, ge=0.0, le=1.0)
    """Learning rate at the end, as a share of the optimizer's."""

    @model_validator(mode="after")
    def _warmup_ends_before_the_schedule(self) -> DecaySchedule:
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps ({self.warmup_steps}) must be less than steps ({self.steps})")
        return self


ScheduleConfig = Annotated[ConstantSchedule | DecaySchedule, Field(discriminator="name")]
