"""What the steps of `scripts/gpu_check.py` work with, and what they give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from bidaf.config import Config
from bidaf.data.cache import Prepared
from bidaf.data.prepare import prepare


class Row(NamedTuple):
    """A line of the table."""

    what: str
    measured: str
    expected: str = ""
    passed: bool = True


@dataclass(frozen=True)
class Sizes:
    """How much each step does."""

    batch: int = 60
    context: int = 400
    batches: tuple[int, ...] = (60, 30, 15, 8)
    hidden: tuple[int, ...] = (88, 96, 100, 104, 112, 120, 128)
    replays: int = 20
    rounds: int = 12
    sweep: tuple[tuple[int, ...], tuple[int, ...]] = ((1, 15, 60), (50, 100, 200, 400, 800))
    steps: int = 2_000


SMALL = Sizes(2, 6, (2, 1), (4, 8), 3, 1, ((1, 2), (5, 9)), 12)
"""For the guard."""


@dataclass(frozen=True)
class Task:
    """What the steps work with."""

    config: Config
    features: str
    """The key of the prepared data."""
    device: torch.device
    sizes: Sizes
    in_guard: bool
    child: tuple[str, ...]
    """The command that trains in a process of its own; a run folder follows."""

    def prepared(self) -> Prepared:
        return prepare(self.config.data, key=self.features)

    def changed(self, **sections: Mapping[str, Any]) -> Config:
        """The config with other settings."""
        given = self.config.to_dict()
        return Config.model_validate({**given, **{name: {**given[name], **new} for name, new in sections.items()}})


def silent(message: str) -> None:
    """Drop a message."""
