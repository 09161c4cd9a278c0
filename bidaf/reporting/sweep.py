"""A sweep as a table, in sentences and as a chart, for terminal and report."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup

from bidaf.errors import DataError, UsageError
from bidaf.evaluation.sweep import SweepRow, SweepSummary, SweptSet, summarize
from bidaf.files.writing import write_output
from bidaf.reporting.comparison import NONE, Table, interval
from bidaf.reporting.svg import ABOVE, IN_PAGE, ON_PAPER, WIDTH, Palette, drawing, style, to_image, to_svg, value_dots
from bidaf.reporting.words import signed
from bidaf.runs.sweeps import newest_sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEPT = "ema (kept)"  # the average that the run kept during training
SUFFIXES = (".png", ".svg")
HEIGHT = 3.4  # inches


def table(summary: SweepSummary) -> Table:
    """One row per weight set, the reference among them; what was not scored says why."""
    columns = ["weights", "half-life", "predicted error", "initial weights", "EM", "F1"]
    columns += [f"F1 \N{MINUS SIGN} {summary.reference}", "95 % interval"]
    rows = [[*_described(row.swept), *_scored(row, summary.reference)] for row in summary.rows]
    rows += [[*_described(swept), NONE, NONE, NONE, "predicted error too large"] for swept in summary.refused]
    return f"Averages at step {summary.step:,}, {summary.questions:,} questions", columns, rows


def _described(swept: SweptSet) -> list[str]:
    half_life = NONE if swept.half_life is None else f"{swept.half_life:,.0f}"
    error = f"{swept.predicted_error:.2%}" if swept.predicted_error else NONE
    return [KEPT if swept.weights == "ema" else swept.weights, half_life, error, f"{swept.initial_share:.1%}"]


def _scored(row: SweepRow, reference: str) -> list[str]:
    scores = [f"{row.exact_match.b.value:.2f}", f"{row.f1.b.value:.2f}"]
    if row.swept.weights == reference:
        return [*scores, NONE, NONE]
    return [*scores, signed(row.f1.difference.value, 2), interval(row.f1.difference)]


def choice_sentence(summary: SweepSummary) -> str:
    """What choosing the width is worth, scored on articles that took no part in the choice."""
    choice, reference = summary.choice, summary.reference
    if choice is None:
        why = summary.no_interval or "there is nothing to choose from"
        return f"No width is chosen: {why}."
    if set(choice.chosen) == {reference}:
        return f"Every other article chooses {reference} itself: no other width is better on these questions."
    found = choice.f1.difference
    assert found.interval is not None
    low, high = found.interval
    certain = f"not distinguishable from {reference}"
    if not low <= 0 <= high:
        certain = f"{'better' if low > 0 else 'worse'} than {reference}"
    chosen = choice.chosen[0] if len(set(choice.chosen)) == 1 else f"{choice.chosen[0]} and {choice.chosen[1]}"
    return (
        f"Chosen on every other article and scored on the rest, both ways ({chosen}): F1 {choice.f1.b.value:.2f}, "
        f"{signed(found.value, 2)} against {reference}, 95 % interval {interval(found)}: {certain}."
    )


def check_image_suffix(path: Path) -> None:
    """Raise `UsageError` unless `write_sweep_image` can write a file of this name."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: a plot is written as {' or '.join(SUFFIXES)}; choose one of these suffixes")


def write_sweep_image(summary: SweepSummary, path: Path) -> None:
    """Write the chart as a PNG or SVG file. Raises `BidafError` when it can't be written."""
    check_image_suffix(path)
    with drawing({**style(ON_PAPER), "svg.hashsalt": "sweep"}):
        figure = _figure(summary, ON_PAPER, width=7.0)
        write_output(path, to_image(figure, path.suffix.lower().removeprefix(".")))


def sweep_chart(summary: SweepSummary) -> Markup:
    """The chart for a page: F1 above that of the reference, over the half-life."""
    title = f"F1 of averages of every width minus F1 of {summary.reference}"
    with drawing({**style(IN_PAGE), "svg.hashsalt": title}):
        figure = _figure(summary, IN_PAGE, width=WIDTH)
        values = [
            (row.swept.half_life, row.f1.difference.value, f"{row.swept.weights}: F1 {row.f1.b.value:.2f}")
            for row in summary.rows
            if row.swept.half_life
        ]
        return to_svg(figure, title, value_dots(figure, figure.axes[0], values))


class SweepView(NamedTuple):
    """What a run's report shows of its newest sweep; all is empty without one."""

    sentence: str = ""
    chart: Markup = Markup("")
    caption: str = ""
    table: Table | None = None
    problem: str = ""
    """Why a sweep can't be shown."""


def sweep_view(run: Path) -> SweepView:
    """The newest sweep of a run, once its reference is scored."""
    try:
        sweep = newest_sweep(run)
    except DataError as error:
        return SweepView(problem=str(error))
    if sweep is None or (summary := summarize(sweep)) is None:
        return SweepView()
    return SweepView(choice_sentence(summary), sweep_chart(summary), _caption(summary), table(summary))


def _caption(summary: SweepSummary) -> str:
    """What the chart shows; only what applies to it."""
    sentences = [f"F1 minus that of {summary.reference}."]
    placed = [row for row in summary.rows if row.swept.half_life]
    if any(row.f1.difference.interval for row in placed):
        sentences.append("Bars: 95 % intervals over articles.")
    if any(not _is_exponential(row) and row.swept.weights != summary.reference for row in placed):
        sentences.append("An average that is not exponential is drawn at the half-life of the same mean age.")
    if _floor(summary.rows) is not None:
        sentences.append("Averages that are far worse lie below the chart.")
    return " ".join(sentences)


def _is_exponential(row: SweepRow) -> bool:
    return row.swept.weights.startswith(("half-life:", "decay:"))


def _figure(summary: SweepSummary, palette: Palette, width: float) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator, StrMethodFormatter

    figure = Figure(figsize=(width, HEIGHT))
    axes = figure.add_axes((0.8 / width, 0.5 / HEIGHT, 1 - 0.9 / width, 1 - 1.02 / HEIGHT))
    placed = [(row.swept.half_life, row) for row in summary.rows if row.swept.half_life]
    own = [(half_life, row) for half_life, row in placed if row.swept.weights == summary.reference]
    exponential = [each for each in placed if _is_exponential(each[1])]
    others = [each for each in placed if each not in exponential and each not in own]
    _draw(axes, exponential, "o-", "exponential averages", palette.shadow)
    _draw(axes, others, "s", "other averages", palette.shadow)
    raw = next((row for row in summary.rows if row.swept.weights == "raw"), None)
    if raw and summary.reference != "raw":
        axes.axhline(raw.f1.difference.value, color=palette.raw, linestyle=(0, (4, 2)), label="raw weights")
    axes.axhline(0, color=palette.ink, linewidth=0.8)
    if (floor := _floor(summary.rows)) is not None:
        axes.set_ylim(bottom=floor)
    for half_life, _ in own:
        axes.plot([half_life], [0], "*", markersize=12, color=palette.shadow, label="the shadow of training")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("half-life (steps)")
    axes.set_ylabel(f"F1 \N{MINUS SIGN} F1 of {summary.reference} (points)")
    if axes.get_legend_handles_labels()[0]:  # none where the raw weights alone are scored
        axes.legend(ncols=2, columnspacing=1.2, **ABOVE)
    return figure


def _floor(rows: list[SweepRow]) -> float | None:
    """Where the chart ends below: far worse averages would hide all other differences. None for no such average."""
    spreads = [total.margin for row in rows if (total := row.f1.difference.total)]
    lowest = min(row.f1.difference.value for row in rows)
    if not spreads:
        return None
    shown = min([0.0, *(row.f1.difference.value for row in rows if row.swept.weights == "raw")])
    floor = shown - 6 * max(median(spreads), 0.1)
    return floor if lowest < floor else None


def _draw(axes: Axes, placed: list[tuple[float, SweepRow]], style: str, label: str, colour: str) -> None:
    """Points over their half-lives, with the interval of each."""
    if not placed:
        return
    points = sorted((half_life, row.f1.difference.value) for half_life, row in placed)
    axes.plot(*zip(*points, strict=True), style, color=colour, markersize=4.5, label=label)
    for half_life, row in placed:
        if row.f1.difference.interval:
            axes.plot([half_life, half_life], row.f1.difference.interval, color=colour, linewidth=1, alpha=0.5)
