"""The map: F1 of averages of several widths over the course of a run, as a heat map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from markupsafe import Markup

from bidaf.reporting.svg import ABOVE, INK, chart
from bidaf.runs.log import RunLog

MOST_COLUMNS = 100
SPAN = 10.0  # F1 points below the highest score over which colours change
COLOURS = "viridis"


def map_chart(run: RunLog) -> Markup:
    """F1 over training step and half-life; empty for a run without a map.

    What was not scored stays blank. Scores far below the highest all have the first colour, so that differences at the
    end of a run can be seen.
    """
    every = -(-len(run.maps) // MOST_COLUMNS) or 1
    maps = run.maps[::-every][::-1]  # the newest one is always there
    scores = [f1 for each in maps for f1 in each.f1 if f1 is not None]
    if not scores:
        return Markup("")
    lowest, highest = max(min(scores), max(scores) - SPAN), max(scores)
    title = "F1 of averages of every width over training steps"
    with chart(title, "half-life (steps)", height=3, legend_lines=1) as (axes, finish):
        figure = axes.get_figure(root=True)
        assert figure is not None
        edges = [0, *(each.step for each in maps)]
        for each, sides in zip(maps, pairwise(edges), strict=True):
            values = [[math.nan if f1 is None else f1] for f1 in each.f1]
            drawn = axes.pcolormesh(sides, _edges(each.half_lives), values, cmap=COLOURS, vmin=lowest, vmax=highest)
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.grid(visible=False)
        axes.set_xlim(0, edges[-1])
        if own := _half_life(run):
            axes.axhline(own, color=INK, linestyle=(0, (4, 2)), linewidth=1, label="the shadow of training")
            axes.legend(**ABOVE)
        figure.colorbar(drawn, ax=axes, label="F1 (percent)", extend="min" if min(scores) < lowest else "neither")
        return finish(
            (sum(sides) / 2, half_life, f"step {each.step:,}, half-life {half_life:,.0f}: F1 {f1:.1f}")
            for each, sides in zip(maps, pairwise(edges), strict=True)
            for half_life, f1 in zip(each.half_lives, each.f1, strict=True)
            if f1 is not None
        )


def _edges(half_lives: Sequence[float]) -> list[float]:
    """Halfway between neighbours, on a scale of factors."""
    if len(half_lives) == 1:
        return [half_lives[0] / math.sqrt(2), half_lives[0] * math.sqrt(2)]
    inner = [math.sqrt(low * high) for low, high in pairwise(half_lives)]
    return [half_lives[0] ** 2 / inner[0], *inner, half_lives[-1] ** 2 / inner[-1]]


def _half_life(run: RunLog) -> float | None:
    """Of the shadow that the run keeps, from its settings."""
    ema = run.settings("ema")
    if isinstance(half_life := ema.get("half_life"), float):
        return half_life
    decay = ema.get("decay")
    return math.log(0.5) / math.log(decay) if isinstance(decay, float) and 0 < decay < 1 else None
