"""BiDAF on SQuAD with an exponential moving average of all weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bidaf.version import __version__

if TYPE_CHECKING:
    from bidaf.ema.average import ExponentialMovingAverage
    from bidaf.library import evaluate, explain, load, predict, score

__all__ = ["ExponentialMovingAverage", "__version__", "evaluate", "explain", "load", "predict", "score"]

_MODULES = {"ExponentialMovingAverage": "bidaf.ema.average"} | dict.fromkeys(
    ("evaluate", "explain", "load", "predict", "score"), "bidaf.library"
)


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `import bidaf` alone stays immediate, and needs no PyTorch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
