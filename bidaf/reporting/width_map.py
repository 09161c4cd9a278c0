"""The map: F1 of averages of several widths over the course of a run, as a heat map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from markupsafe import Markup

from bidaf.reporting.svg import ABOVE, chart
from bidaf.runs.log import RunLog

MOST_COLUMNS = 100
MOST_POINTS = 200
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
    from matplotlib.patheffects import withStroke

    title = "F1 of averages of every width over training steps"
    with chart(title, "half-life (steps)", height=3, legend_lines=1) as (axes, finish):
        figure = axes.get_figure(root=True)
        assert figure is not None
        edges = [0, *(each.step for each in maps)]
        for each, sides in zip(maps, pairwise(edges), strict=True):
            values = [[math.nan if f1 is None else f1] for f1 in each.f1]
            bounds = _edges(each.half_lives)
            drawn = axes.pcolormesh(sides, bounds, values, cmap=COLOURS, vmin=lowest, vmax=highest, edgecolor="face")
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.grid(visible=False)
        axes.set_xlim(0, edges[-1])
        if own := _kept_half_lives(run):
            # White between black: it can be seen on every colour of the map, in both schemes.
            around = [withStroke(linewidth=3, foreground="#000000")]
            name = "the shadow kept in training"
            axes.plot(*zip(*own, strict=True), color="#ffffff", linewidth=1.2, label=name, path_effects=around)
            axes.set_ylim(bounds[0], bounds[-1])
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


def _kept_half_lives(run: RunLog) -> list[tuple[int, float]]:
    """Step and half-life of the shadow's effective decay, as logged: a warm-up makes it grow."""
    decays = [(each.step, each.ema_decay) for each in run.intervals if each.ema_decay and each.ema_decay < 1]
    return [(step, math.log(0.5) / math.log(decay)) for step, decay in decays[:: 1 + len(decays) // MOST_POINTS]]
