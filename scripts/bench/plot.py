"""A chart of how a step grows with its batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.training import Growth
from bidaf.errors import BidafError, UsageError

FORMATS = (".svg", ".png")


def draw_growth(growth: Sequence[Growth], path: Path) -> None:
    """Time and memory against context length, one line per batch size, both axes logarithmic.

    Raises `UsageError` for a suffix other than .svg and .png, `BidafError` where the file can't be written.
    """
    if path.suffix not in FORMATS:
        raise UsageError(f"--plot {path}: name a file that ends in {' or '.join(FORMATS)}")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for size in sorted({one.batch_size for one in growth}):
        line = [one for one in growth if one.batch_size == size]
        lengths = [one.context_tokens for one in line]
        left.plot(lengths, [1000 * one.seconds for one in line], marker="o", label=f"batch {size}")
        right.plot(lengths, [one.memory_bytes / 1e9 for one in line], marker="o", label=f"batch {size}")
    for axes, label in ((left, "ms per training step"), (right, "peak memory, GB")):
        axes.set(xlabel="context tokens", ylabel=label, xscale="log", yscale="log")
        axes.set_xticks(lengths, map(str, lengths), minor=False)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    left.legend()
    try:
        figure.savefig(path)
    except OSError as error:
        raise BidafError(f"{path} can't be written: {error.strerror or error}") from None
