"""`bidaf config describe`: every setting with its default, its range and a sentence, and the page made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers_cli import fail, succeed

from bidaf.config import Config
from bidaf.config_reference import describe, settings

ROOT = Path(__file__).parents[1]


def test_every_setting_has_a_sentence_and_a_default_that_the_config_has() -> None:
    defaults = Config.model_validate({"data": {"train": "t", "dev": "d"}}).to_dict()
    for each in settings():
        assert each.sentence.endswith("."), each.key
        if each.range and each.default != "required" and not each.only_with:
            value: Any = defaults
            for name in each.key.split("."):
                value = value[name]
            assert yaml.safe_load(each.default) == value, each.key


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("training.batch_size", ["training.batch_size = 60", "whole number from 1 to", "Questions in a step's batch."]),
        ("data.train", ["data.train = required", "list of text, at least one"]),
        ("ema.decay", ["ema.decay = null", "number from 0 below 1, or null"]),
        ("model.variant", ["model.variant = paper", "paper, released"]),
        ("training.schedule", ["training.schedule.name = constant", "final = 0.0  (with name: linear, cosine)"]),
        ("training.optimizer.lr", ["lr = 0.5  (with name: adadelta)", "lr = 0.001  (with name: adam, adamw)"]),
    ],
)
def test_a_setting_or_a_section_is_described(tmp_path: Path, key: str, expected: list[str]) -> None:
    shown = succeed("config", "describe", key, cwd=tmp_path).out
    assert all(piece in shown for piece in expected)
    assert "data.dev" not in shown


def test_without_a_key_all_settings_are_described(tmp_path: Path) -> None:
    shown = succeed("config", "describe", "--json", cwd=tmp_path).json
    assert [each["key"] for each in shown] == [each.key for each in describe()]
    batch_size = next(each for each in shown if each["key"] == "training.batch_size")
    assert batch_size.keys() == {"key", "default", "range", "sentence"}


def test_an_unknown_setting_is_one_message_with_the_nearest(tmp_path: Path) -> None:
    assert "did you mean training.batch_size?" in fail(2, "config", "describe", "training.batchsize", cwd=tmp_path)
    assert "leave out KEY" in fail(2, "config", "describe", "model", "--markdown", cwd=tmp_path)


def test_the_page_of_all_settings_is_the_one_that_the_command_prints(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert succeed("config", "describe", "--markdown", cwd=tmp_path).out == page
