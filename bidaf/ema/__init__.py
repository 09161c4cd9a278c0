"""Moving averages of weights; knows nothing of BiDAF. `average.py` needs torch alone and can be copied as one file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bidaf.ema.average import WARMUPS, ExponentialMovingAverage

__all__ = ["WARMUPS", "ExponentialMovingAverage"]


def __getattr__(name: str) -> Any:
    """Import the average when it is asked for: the other modules here need no PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bidaf.ema import average

    return getattr(average, name)
