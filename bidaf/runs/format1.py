"""Checkpoints of format 1, translated into today's format as they are read."""

from __future__ import annotations

from typing import Any

from bidaf.runs.weight_sets import EMA, RAW

FORMAT_VERSION = 1
_SHADOW = "shadow.safetensors"
_NOT_TRAINING = {"format", "features", "ema"}


def translate_state(state: dict[str, Any]) -> dict[str, Any]:
    """A state.json of today's format. Raises `ValueError` for an average that only updated on some steps."""
    weights: dict[str, Any] = {RAW: {"kind": RAW}}
    if "ema" in state:
        weights[EMA] = state["ema"]
        if isinstance(state["ema"], dict):
            average = {"kind": EMA, **state["ema"]}
            if (every := average.pop("every", 1)) != 1:
                raise ValueError(f"ema.every: must be 1, found {every!r:.40}")
            weights[EMA] = average
    return {
        "format": 2,
        "features": state["features"],
        "training": {"snapshots": []} | {name: value for name, value in state.items() if name not in _NOT_TRAINING},
        "weights": weights,
    }


def weights_file(name: str) -> str:
    """Where a checkpoint of format 1 keeps a weight set."""
    return _SHADOW if name == EMA else f"{name}.safetensors"
