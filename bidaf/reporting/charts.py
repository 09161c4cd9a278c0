"""The charts of the report: curves over training steps, of one run or of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from bidaf.reporting.svg import ABOVE, FAINT, INK, RAW, RUNS, SHADOW, chart, tick
from bidaf.reporting.words import signed
from bidaf.runs.log import RunLog

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = list[tuple[int, float]]
MARKED_POINTS = 40  # more markers would merge into a line
DRAWN_POINTS = 1_000  # the width of a chart; of more, neighbours are drawn as their mean
MARKERS = "osD^v"
DASHES = (0, (4, 2))
RAW_SUFFIX = ", raw weights"
LEGEND_CHARACTERS = 44  # that fit the width of a chart


def score_chart(runs: Sequence[RunLog], metric: str, label: str) -> Markup:
    """EM or F1 of raw and shadow weights at every evaluation, the gap between them shaded, the best checkpoint marked.

    `metric` names a score. Of several runs each has its colour, and dashes are the raw weights. Where the later
    evaluations lie close together, an inset shows them larger.
    """
    from matplotlib.lines import Line2D

    weights = "raw and shadow weights" if any(run.has_shadow for run in runs) else "the raw weights"
    title, lines = f"{label} of {weights} over training steps", max(2, len(runs) + 1)
    with chart(title, f"{label} (percent)", height=3, legend_lines=lines) as (axes, finish):
        _draw_scores(axes, runs, metric)
        if later := _close_up(runs, metric):
            inset = axes.inset_axes((0.4, 0.1, 0.58, 0.55))
            _draw_scores(inset, runs, metric)
            low, high = min(score for _, score in later), max(score for _, score in later)
            first, last = later[0][0], max(step for step, _ in later)
            inset.set_xlim(first - 0.04 * (last - first), last + 0.04 * (last - first))
            inset.set_ylim(low - 0.1 * (high - low), high + 0.12 * (high - low))
            inset.tick_params(labelsize=8)
            tick(inset, across=3, up=4)
            axes.indicate_inset_zoom(inset, edgecolor=FAINT, alpha=1)
        handles, labels = axes.get_legend_handles_labels()
        if len(runs) > 1:  # one entry names the raw weights of all runs
            named = [pair for pair in zip(handles, labels, strict=True) if not pair[1].endswith(RAW_SUFFIX)]
            handles, labels = [handle for handle, _ in named], [_shortened(label) for _, label in named]
            handles.append(Line2D([], [], color=INK, linestyle=DASHES))
            labels.append("dashed: raw weights")
        axes.legend(handles, labels, ncols=2 if len(runs) == 1 else 1, columnspacing=1.2, **ABOVE)
        return finish()


def _draw_scores(axes: Axes, runs: Sequence[RunLog], metric: str) -> None:
    for number, run in enumerate(runs):
        colour, marker = _look(number)
        _draw_score(axes, run, metric, colour if len(runs) > 1 else None, marker)


def _look(number: int) -> tuple[str, str]:
    """Colour and marker of one of several runs; when all colours are used, another marker tells them apart."""
    return RUNS[number % len(RUNS)], MARKERS[number // len(RUNS) % len(MARKERS)]


def _draw_score(axes: Axes, run: RunLog, metric: str, colour: str | None, marker: str) -> None:
    steps = [evaluation.step for evaluation in run.evaluations]
    raw = [evaluation.scores["raw"][metric] for evaluation in run.evaluations]
    shadow = [evaluation.shadow[metric] for evaluation in run.evaluations]
    style: dict[str, Any] = {"marker": marker if len(steps) <= MARKED_POINTS else "", "markersize": 3.5}
    raw_name = f"{_name(run)}{RAW_SUFFIX if run.has_shadow else ''}" if colour else "raw weights"
    axes.plot(steps, raw, color=colour or RAW, linestyle=DASHES, label=raw_name, **style)
    if run.has_shadow:
        axes.plot(steps, shadow, color=colour or SHADOW, label=_name(run) if colour else "shadow", **style)
    if run.has_shadow and not colour:
        above = [averaged >= plain for averaged, plain in zip(shadow, raw, strict=True)]
        for where, shade in ((above, SHADOW), ([not each for each in above], RAW)):
            axes.fill_between(steps, raw, shadow, where=where, interpolate=True, color=shade, alpha=0.16, lw=0)
    if best := run.best:
        value = best.ranking[metric]
        star: dict[str, Any] = {"marker": "*", "markersize": 12, "linestyle": ""}
        label = None if colour else f"best checkpoint: {value:.1f} at step {best.step:,}"
        axes.plot(
            [best.step], [value], color=colour or (RAW if best.ranked_by == "raw" else SHADOW), label=label, **star
        )


def _close_up(runs: Sequence[RunLog], metric: str) -> Points:
    """The scores of the later half, where they take less than a third of the height; else none."""
    evaluations = [run.evaluations[len(run.evaluations) // 2 :] for run in runs]
    all_scores = [
        scores[metric] for run in runs for each in run.evaluations for scores in (each.scores["raw"], each.shadow)
    ]
    later = [
        (each.step, scores[metric])
        for some in evaluations
        for each in some
        for scores in (each.scores["raw"], each.shadow)
    ]
    if min(map(len, evaluations)) < 3:
        return []
    low, high = min(score for _, score in later), max(score for _, score in later)
    return sorted(later) if 0 < 3 * (high - low) < max(all_scores) - min(all_scores) else []


def gain_chart(run: RunLog) -> Markup:
    """Shadow minus raw, in F1 points, at every evaluation. Bars of the first evaluations may be clipped."""
    title, label = "F1 of the shadow minus F1 of the raw weights", "shadow \N{MINUS SIGN} raw (F1 points)"
    with chart(title, label) as (axes, finish):
        steps = [evaluation.step for evaluation in run.evaluations]
        gains = [evaluation.gain for evaluation in run.evaluations]
        width = 0.7 * min((after - before for before, after in pairwise(steps)), default=1)
        axes.bar(steps, gains, width=width, color=[SHADOW if gain >= 0 else RAW for gain in gains])
        axes.plot(steps, gains, linestyle="", label="shadow \N{MINUS SIGN} raw F1")  # gives the values to show
        axes.axhline(0, color=INK, linewidth=0.8)
        limit = _gain_limit(gains)
        if clips_gains(run):
            axes.set_ylim(-limit, limit)
        for step, gain in zip(steps, gains, strict=True):
            if abs(gain) > limit:  # its label goes across the zero line, where there is room
                place: dict[str, Any] = {"ha": "center", "va": "bottom" if gain < 0 else "top", "fontsize": 9}
                axes.text(step, 0, signed(gain), rotation=0 if len(steps) <= 10 else 90, **place)
        return finish()


def clips_gains(run: RunLog) -> bool:
    """Whether `gain_chart` clips bars, and labels them."""
    gains = [evaluation.gain for evaluation in run.evaluations]
    return max(map(abs, gains), default=0.0) > _gain_limit(gains)


def _gain_limit(gains: list[float]) -> float:
    """Height that the later two thirds need: the first evaluations may be far below."""
    return 1.4 * max([*(abs(gain) for gain in gains[len(gains) // 3 :]), 0.1])


def loss_chart(runs: Sequence[RunLog]) -> Markup:
    """Mean training loss of each interval."""

    def points(run: RunLog) -> Points:
        return [(event.step, event.loss) for event in run.intervals if event.loss is not None]

    return _lines(runs, "Training loss", "loss (nats per question)", points)


def distance_chart(runs: Sequence[RunLog]) -> Markup:
    """How far the raw weights are from their average."""

    def points(run: RunLog) -> Points:
        return [(event.step, 100 * event.distance) for event in run.evaluations if event.distance is not None]

    return _lines(runs, "Distance between raw and shadow weights", "distance (% of the raw norm)", points)


def window_chart(runs: Sequence[RunLog]) -> Markup:
    """The effective decay, as the number of steps that the average looks back on."""

    def points(run: RunLog) -> Points:
        decays = [(event.step, event.ema_decay) for event in run.intervals]
        return [(step, 1 / (1 - decay)) for step, decay in decays if decay is not None and decay < 1]

    label = "1 / (1 \N{MINUS SIGN} decay) (steps)"
    return _lines(runs, "Steps the average looks back on", label, points, from_zero=True)


def has_warmup(runs: Sequence[RunLog]) -> bool:
    """Whether the effective decay of any run changes, as it does where it is warmed up."""
    return any(len({event.ema_decay for event in run.intervals} - {None}) > 1 for run in runs)


def speed_chart(runs: Sequence[RunLog]) -> Markup:
    """Training questions per second."""

    def points(run: RunLog) -> Points:
        speeds = [(event.step, event.questions_per_second) for event in run.intervals]
        return [(step, speed) for step, speed in speeds if speed is not None]

    return _lines(runs, "Training throughput", "questions / s", points, from_zero=True)


def memory_chart(runs: Sequence[RunLog]) -> Markup:
    """Peak memory of the process or device."""

    def points(run: RunLog) -> Points:
        peaks = [(event.step, event.memory_bytes) for event in run.intervals]
        return [(step, peak / 1e9) for step, peak in peaks if peak is not None]

    return _lines(runs, "Peak memory", "peak memory (GB)", points, from_zero=True)


def _lines(
    runs: Sequence[RunLog],
    title: str,
    label: str,
    points: Callable[[RunLog], Points],
    *,
    from_zero: bool = False,
) -> Markup:
    """One line per run; empty where no run has a point."""
    drawn = [(run, _thinned(points(run))) for run in runs]
    if not any(found for _, found in drawn):
        return Markup("")
    with chart(f"{title} over training steps", label, legend_lines=len(runs) if len(runs) > 1 else 0) as (axes, finish):
        for number, (run, found) in enumerate(drawn):
            colour, marker = _look(number)
            axes.plot(
                *zip(*found, strict=True) if found else ([], []),
                color=colour if len(runs) > 1 else SHADOW,
                label=_shortened(_name(run)) if len(runs) > 1 else label,
                marker=marker if len(found) <= MARKED_POINTS else "",
                markersize=3,
            )
        if len(runs) > 1:
            axes.legend(**ABOVE)
        if from_zero:
            axes.set_ylim(bottom=0)
        return finish()


def _thinned(points: Points) -> Points:
    """At most `DRAWN_POINTS` points, each the mean of equally many neighbours."""
    size = -(-len(points) // DRAWN_POINTS)
    if size <= 1:
        return points
    groups = (points[begin : begin + size] for begin in range(0, len(points), size))
    return [(group[-1][0], fmean(value for _, value in group)) for group in groups]


def _shortened(name: str) -> str:
    """Its beginning and end: the end of a run's name distinguishes runs of the same config."""
    half = LEGEND_CHARACTERS // 2
    return name if len(name) <= LEGEND_CHARACTERS else f"{name[: half - 1]}…{name[-half:]}"


def _name(run: RunLog) -> str:
    # A leading underscore would hide the line from the legend, and a byte that is not UTF-8 can't be drawn.
    return run.name.lstrip("_").encode("utf-8", "replace").decode() or "run"
