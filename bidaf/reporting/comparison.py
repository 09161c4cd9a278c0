"""A comparison as tables and sentences for terminal and page, as a page, and as a plot of the differences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bidaf.errors import UsageError
from bidaf.evaluation.breakdowns import UNITS
from bidaf.evaluation.comparison import Comparison, Row
from bidaf.evaluation.metrics import METRIC_LABELS
from bidaf.evaluation.statistics import Estimate
from bidaf.files.writing import write_output
from bidaf.reporting.words import signed
from bidaf.version import __version__

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bidaf.reporting.svg import Palette

NONE, DIFFERENCE = "\N{EN DASH}", "B \N{MINUS SIGN} A"
SUFFIXES = (".html", ".png", ".svg")
# Inches of the plot: its margins and the height of a row.
LEFT, RIGHT, BELOW, ROW = 1.75, 0.1, 0.5, 0.21

Table = tuple[str, list[str], list[list[str]]]
"""Title, columns, rows."""


def tables(comparison: Comparison) -> list[Table]:
    """The scores, and F1 by kind of question."""
    return [_scores(comparison), *_breakdowns(comparison)]


def _scores(comparison: Comparison) -> Table:
    columns = ["", "A", "B", DIFFERENCE, "95 % interval"]
    if comparison.seeds > 1:
        columns += ["articles' part", "seeds' part"]
    rows = []
    for name, metric in comparison.metrics.items():
        difference = metric.difference
        row = [METRIC_LABELS[name], _with_margin(metric.a), _with_margin(metric.b)]
        row += [signed(difference.value, 2), interval(difference)]
        if comparison.seeds > 1:
            row += [f"± {part.margin:.2f}" if part else NONE for part in (difference.articles, difference.seeds)]
        rows.append(row)
    return "", columns, rows


def _breakdowns(comparison: Comparison) -> Iterator[Table]:
    columns = ["", "questions", "A", "B", DIFFERENCE, "95 % interval"]
    for kind, rows in comparison.breakdowns.items():
        cells = [
            [
                *(row.label, f"{row.questions:,}", f"{row.a:.1f}", f"{row.b:.1f}"),
                *(signed(row.difference.value), interval(row.difference, 1)),
            ]
            for row in rows
        ]
        yield f"F1 by {with_unit(kind)}", columns, cells


def with_unit(kind: str) -> str:
    """The name of a breakdown, such as `context length (words)`."""
    return f"{kind} ({UNITS[kind]})" if kind in UNITS else kind


def _with_margin(estimate: Estimate) -> str:
    margin = f" ± {estimate.total.margin:.2f}" if estimate.total else ""
    return f"{estimate.value:.2f}{margin}"


def interval(estimate: Estimate, digits: int = 2) -> str:
    """Such as `+0.08 to +1.72`."""
    if estimate.interval is None:
        return NONE
    low, high = estimate.interval
    return f"{signed(low, digits)} to {signed(high, digits)}"


def remarks(comparison: Comparison) -> list[str]:
    """What the tables do not say, in sentences; the verdict comes last."""
    questions = f"{comparison.questions:,} questions"
    where = f" on {comparison.articles} articles" if comparison.articles else ""
    lines = [f"{questions}{where}."]
    for number, counts in enumerate(comparison.mcnemar, 1):
        pair = f" in pair {number}" if comparison.seeds > 1 else ""
        lines.append(
            f"Exactly right{pair}: A alone {counts.only_a:,}, B alone {counts.only_b:,}; "
            f"McNemar's exact test: p = {counts.p_value:.2g} (it treats questions as independent)."
        )
    if comparison.seeds == 1:
        lines.append("One seed each: what another seed would change is not part of the interval.")
    return [*lines, verdict(comparison)]


def verdict(comparison: Comparison) -> str:
    """The verdict with its figures."""
    difference = comparison.metrics["f1"].difference
    figures = f"F1 {signed(difference.value, 2)}"
    if difference.interval:
        figures += f", 95 % interval {interval(difference)}"
    return f"{comparison.verdict} ({figures})"


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Write a page (.html) or a plot (.png, .svg). Raises `UsageError` for another suffix."""
    check_suffix(path)
    suffix = path.suffix.lower()
    write_output(
        path, comparison_page(comparison) if suffix == ".html" else _image(comparison, suffix.removeprefix("."))
    )


def check_suffix(path: Path) -> None:
    """Raise `UsageError` unless `write_comparison` can write a file of this name."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: a comparison is written as {', '.join(SUFFIXES)}; choose one of these suffixes")


def comparison_page(comparison: Comparison) -> str:
    """A page of its own: verdict, tables, a chart for each kind of question."""
    from bidaf.reporting.html import render

    return render(
        "comparison",
        title=f"{comparison.b} against {comparison.a}",
        a=comparison.a,
        b=comparison.b,
        verdict=verdict(comparison),
        remarks=remarks(comparison)[:-1],
        tables=tables(comparison),
        charts=difference_charts(comparison),
        has_intervals=comparison.no_interval is None,
        version=__version__,
    )


def difference_charts(comparison: Comparison) -> list[tuple[str, Any, str]]:
    """For each kind of question: its name, its rows as a chart for a page, and what the chart's marks mean."""
    found = []
    for kind, rows in comparison.breakdowns.items():
        colour = "In colour: rows whose interval excludes zero. " if any(map(_excludes_zero, rows)) else ""
        found.append((with_unit(kind), _chart(kind, rows), f"{colour}In brackets: number of questions."))
    return found


def _excludes_zero(row: Row) -> bool:
    interval = row.difference.interval
    return interval is not None and not interval[0] <= 0 <= interval[1]


def _chart(kind: str, rows: list[Row]) -> Any:
    from bidaf.reporting.svg import IN_PAGE, WIDTH, drawing, style, to_svg, value_dots

    title = f"F1 of B minus F1 of A by {kind}"
    with drawing({**style(IN_PAGE), "svg.hashsalt": title}):
        figure, (axes,) = _figure([rows], WIDTH, above=0.05)
        _draw(axes, rows, IN_PAGE)
        values = [(row.difference.value, place, _value(row)) for place, row in enumerate(rows)]
        return to_svg(figure, title, value_dots(figure, axes, values))


def _value(row: Row) -> str:
    found = f"{row.label}: F1 {signed(row.difference.value)}"
    return f"{found}, 95 % interval {interval(row.difference, 1)}" if row.difference.interval else found


def _image(comparison: Comparison, format: str) -> bytes:
    from bidaf.reporting.svg import ON_PAPER, drawing, style, to_image

    with drawing({**style(ON_PAPER), "svg.hashsalt": "comparison"}):
        figure, every_axes = _figure(list(comparison.breakdowns.values()), width=7.0, above=0.35)
        for axes, (kind, rows) in zip(every_axes, comparison.breakdowns.items(), strict=True):
            _draw(axes, rows, ON_PAPER)
            axes.set_title(f"by {with_unit(kind)}", loc="left", fontsize=10)
        return to_image(figure, format)


def _figure(groups: list[list[Row]], width: float, above: float) -> tuple[Figure, list[Axes]]:
    """Axes below each other, one for each group of rows; inches: the width, and the room above each."""
    from matplotlib.figure import Figure

    heights = [above + BELOW + ROW * len(rows) for rows in groups]
    figure = Figure(figsize=(width, sum(heights)))
    top, found = 1.0, []
    for rows, height in zip(groups, heights, strict=True):
        bottom = top - (height - BELOW) / sum(heights)
        share = ROW * len(rows) / sum(heights)
        found.append(figure.add_axes((LEFT / width, bottom, 1 - (LEFT + RIGHT) / width, share)))
        top -= height / sum(heights)
    return figure, found


def _draw(axes: Axes, rows: list[Row], palette: Palette) -> None:
    """A dot and an interval for each row; rows whose interval excludes zero are coloured."""
    for place, row in enumerate(rows):
        value, clear = row.difference.value, _excludes_zero(row)
        colour = (palette.shadow if value > 0 else palette.raw) if clear else palette.ink
        if row.difference.interval:
            axes.plot(row.difference.interval, (place, place), color=colour, linewidth=1.4, alpha=1 if clear else 0.5)
        axes.plot([value], [place], "o", color=colour, markersize=4.5, markerfacecolor=colour if clear else "none")
    axes.axvline(0, color=palette.ink, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{row.label}  ({row.questions:,})" for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("F1 of B \N{MINUS SIGN} F1 of A (points)")
