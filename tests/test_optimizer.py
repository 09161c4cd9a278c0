"""Optimizers and learning rates: the published update rules, each step's rate a function of the step alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CPU, Configure, events
from torch import Tensor

from bidaf.config import ModelConfig
from bidaf.config_base import Section
from bidaf.config_optimizer import AdamConfig, AdamWConfig, ConstantSchedule, DecaySchedule, ScheduleConfig
from bidaf.errors import UsageError
from bidaf.model.bidaf import Bidaf
from bidaf.training.launch import check_changes, resume_run, start_run
from bidaf.training.optimizer import build_optimizer, learning_rate_factor

LINEAR = DecaySchedule(name="linear", warmup_steps=4, steps=14, final=0.2)
COSINE = DecaySchedule(name="cosine", steps=10)


def small_model() -> Bidaf:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 3, "char_channels": 4, "char_embedding_size": 2}
    return Bidaf(ModelConfig(**sizes), num_trained=5, num_chars=6, fixed=torch.zeros(2, 4)).double()


def weights_after_one_step(config: AdamConfig) -> dict[str, Tensor]:
    model = small_model()
    optimizer = build_optimizer(model, config)
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        weight.grad = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    optimizer.step()
    return {name: weight.detach() for name, weight in model.named_parameters()}


def test_adamw_is_adam_that_takes_a_share_of_all_weights_but_biases_and_embedding_tables() -> None:
    before = {name: weight.detach() for name, weight in small_model().named_parameters()}
    without = weights_after_one_step(AdamConfig(lr=0.1))
    decayed = weights_after_one_step(AdamWConfig(lr=0.1, weight_decay=0.5))
    still = {name for name in before if name.endswith(("bias", "word.trained", "char.embedding"))}
    assert 0 < len(still) < len(before)
    for name, weight in decayed.items():
        share = 0.0 if name in still else 0.1 * 0.5
        torch.testing.assert_close(weight, without[name] - share * before[name], rtol=0, atol=1e-12)


def test_settings_of_no_known_optimizer_are_an_error() -> None:
    class Other(Section):
        lr: float = 0.1

    with pytest.raises(TypeError, match="no optimizer is defined for Other"):
        build_optimizer(small_model(), Other())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (ConstantSchedule(), {1: 1.0, 10**6: 1.0}),
        (ConstantSchedule(warmup_steps=4), {0: 0.0, 1: 0.25, 2: 0.5, 4: 1.0, 5: 1.0, 99: 1.0}),
        (LINEAR, {1: 0.25, 4: 1.0, 9: 0.6, 14: 0.2, 15: 0.2, 10**6: 0.2}),
        (COSINE, {0: 1.0, 1: (1 + math.cos(0.1 * math.pi)) / 2, 5: 0.5, 10: 0.0, 11: 0.0}),
    ],
    ids=str,
)
def test_the_learning_rate_rises_in_the_warmup_and_falls_to_its_end(
    schedule: ScheduleConfig, factors: dict[int, float]
) -> None:
    found = {step: learning_rate_factor(schedule, step) for step in factors}
    assert found == pytest.approx(factors, abs=1e-15)


def test_each_step_is_taken_with_the_rate_of_its_schedule(configure: Configure, tmp_path: Path) -> None:
    training = {"optimizer": {"name": "adamw", "lr": 0.05}, "schedule": LINEAR.model_dump()}
    start_run(configure(training=training), tmp_path / "run", CPU, lambda message: None)
    rates = {event["step"]: event["learning_rate"] for event in events(tmp_path / "run", "train")}
    assert rates == {step: 0.05 * learning_rate_factor(LINEAR, step) for step in range(1, 13)}


@pytest.mark.parametrize("stop", [3, 6])
def test_a_resumed_run_keeps_its_schedule_to_the_bit(configure: Configure, tmp_path: Path, stop: int) -> None:
    training: dict[str, Any] = {
        "optimizer": {"name": "adamw", "lr": 0.05, "weight_decay": 0.1},
        "schedule": COSINE.model_dump(),
    }
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    start_run(configure(training=training), whole, CPU, lambda message: None)
    start_run(configure(training={**training, "max_steps": stop}), parted, CPU, lambda message: None)
    resume_run(parted, CPU, lambda message: None, config=configure(training=training))
    for name in ("weights/raw", "weights/ema", "optimizer"):
        files = [run / "last" / f"{name}.safetensors" for run in (whole, parted)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_schedule_keeps_its_length_however_long_the_run_becomes(configure: Configure) -> None:
    before = configure(training={"schedule": COSINE.model_dump(), "max_steps": 10})
    longer = {"schedule": COSINE.model_dump(), "max_steps": 20}
    check_changes(before, configure(training=longer))
    longer["schedule"] = {**COSINE.model_dump(), "steps": COSINE.steps + 1}
    with pytest.raises(UsageError, match=r"training\.schedule\.steps"):
        check_changes(before, configure(training=longer))


def test_a_resumed_run_refuses_another_schedule(configure: Configure, tmp_path: Path) -> None:
    start_run(configure(training={"max_steps": 1}), tmp_path / "run", CPU, lambda message: None)
    changed = configure(training={"schedule": COSINE.model_dump()})
    with pytest.raises(UsageError, match=r"training\.schedule\.name: constant -> cosine"):
        resume_run(tmp_path / "run", CPU, lambda message: None, config=changed)
