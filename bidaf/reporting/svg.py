"""Figures as SVG elements for a page, in the colours of that page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Palette(NamedTuple):
    """The colours of a drawing."""

    ink: str
    faint: str
    raw: str
    shadow: str


# Placeholders: the page's style sheet gives each a colour per scheme, and matplotlib knows fixed colours only.
IN_PAGE = Palette("#010101", "#010102", "#010103", "#010104")
INK, FAINT, RAW, SHADOW = IN_PAGE
ON_PAPER = Palette("#1a1e24", "#d3d8de", "#a84a00", "#1d4ed8")
RUNS = ("#010111", "#010112", "#010113", "#010114", "#010115", "#010116")
VARIABLES = {INK: "ink", FAINT: "line", RAW: "raw", SHADOW: "shadow"} | {
    stand_in: f"run{number}" for number, stand_in in enumerate(RUNS, 1)
}

WIDTH, LEGEND_LINE = 4.7, 0.2  # inches
ABOVE: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.1, 1), "borderaxespad": 0.2}
"""Where a legend stands: above the axes, so that it hides no line."""
POINT = 1.6  # pixels of a chart that stands alone, per point
MAX_VALUES = 60  # of one line: more dots would overlap


def style(palette: Palette) -> dict[Any, Any]:
    """Settings of matplotlib for a drawing in these colours."""
    return {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.edgecolor": palette.faint,
        "axes.labelcolor": palette.ink,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": palette.faint,
        "grid.linewidth": 0.6,
        "text.color": palette.ink,
        "xtick.color": palette.faint,
        "ytick.color": palette.faint,
        "xtick.labelcolor": palette.ink,
        "ytick.labelcolor": palette.ink,
        "legend.frameon": False,
        "legend.fontsize": 9.5,
        "lines.linewidth": 1.8,
    }


@contextmanager
def drawing(settings: dict[Any, Any]) -> Iterator[None]:
    """Within the block, matplotlib uses these settings, never reads text as a formula, and does not warn about missing
    glyphs: in a page the reader's font has them, and a picture shows a box.
    """
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False, **settings}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


@contextmanager
def chart(
    title: str, label: str, *, height: float = 2.9, legend_lines: int = 0
) -> Iterator[tuple[Axes, Callable[..., Markup]]]:
    """Axes over training steps, and a function that turns them into SVG.

    `height` is in inches; a legend above the axes adds `legend_lines` lines to it.
    The page shows the values of all named lines, or those passed to that function instead.
    """
    from matplotlib.figure import Figure

    # The salt makes ids differ between the charts of a page, and stay the same when the page is written again.
    with drawing({**style(IN_PAGE), "svg.hashsalt": title}):
        above = 0.1 + LEGEND_LINE * legend_lines
        height += LEGEND_LINE * legend_lines
        figure = Figure(figsize=(WIDTH, height))
        # Fixed margins: a layout engine would take longer than the whole drawing.
        axes = figure.add_axes((0.74 / WIDTH, 0.48 / height, 1 - 0.84 / WIDTH, 1 - (0.48 + above) / height))
        axes.set_xlabel("training step")
        axes.set_ylabel(label)
        tick(axes, across=5, up=6)

        def finish(values: Iterable[Value] | None = None) -> Markup:
            return to_svg(figure, title, value_dots(figure, axes, _line_values(axes) if values is None else values))

        yield axes, finish


def tick(axes: Axes, across: int, up: int) -> None:
    """At most `across` and `up` ticks, at round numbers."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axes.xaxis.set_major_locator(MaxNLocator(across, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(up))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,g}"))


Value = tuple[float, float, str]
"""A place in the axes' own units, and what the page's script shows there."""


def _line_values(axes: Axes) -> Iterator[Value]:
    """The points of every named line."""
    for line in axes.get_lines():
        label, points = str(line.get_label()), np.asarray(line.get_xydata(), dtype=np.float64)
        if label.startswith("_"):  # the name matplotlib gives to an unnamed line
            continue
        for step, value in points[:: 1 + len(points) // MAX_VALUES]:
            yield step, value, f"step {step:,.0f}: {label} {value:,.4g}"


def value_dots(figure: Figure, axes: Axes, values: Iterable[Value]) -> Markup:
    """Invisible dots at these places, each with a text that the page's script shows."""
    width, height = (72 * inches for inches in figure.get_size_inches())
    axes.get_xlim()  # reading the limits updates them from the data; the transformation alone does not
    dots = []
    for across, up, text in values:
        x, y = np.asarray(axes.transData.transform((across, up))) * 72 / figure.dpi
        if 0 <= x <= width and 0 <= y <= height:
            dots.append(f'<circle cx="{x:.1f}" cy="{height - y:.1f}" r="6" role="img" aria-label="{escape(text)}"/>')
    return Markup(f'<g class="values">{"".join(dots)}</g>')


def to_svg(figure: Figure, title: str, values: Markup) -> Markup:
    """The figure as an inline element in the page's colours, without header, metadata and style sheet."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # groups are numbered alike in every chart, and nothing refers to them
    svg = re.sub(r"font-family: [^;\"]*; ?", "", svg)
    view_box = re.search(r'viewBox="[\d. ]+"', svg)
    assert view_box is not None
    drawn = re.sub(r"</svg>\s*$", "", re.sub(r"<svg[^>]*>", "", svg, count=1))
    drawn = re.sub("#0101[01][1-6]", lambda match: f"var(--{VARIABLES.get(match[0], 'ink')})", drawn)
    # A screen reader reads the values one by one, and skips lines and ticks.
    opening = f'<svg class="chart" role="group" aria-label="{escape(title)}" {view_box[0]}>'
    return Markup(f'{opening}<g aria-hidden="true">{drawn}</g>{values}</svg>')


def standalone(svg: str) -> str:
    """A chart of a page as a file of its own, in the colours that the page has in light mode."""
    from bidaf.reporting.html import TEMPLATES

    styles = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    colours = dict(reversed(re.findall(r"--(\w+): (#\w+);", styles)))  # dark mode comes later in the file
    svg = re.sub(r"var\(--(\w+)\)", lambda match: colours[match[1]], svg)
    svg = re.sub(r'<g class="values">.*?</g>', "", svg, flags=re.DOTALL)  # dots that only the page's script shows
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert size is not None
    width, height = (float(points) * POINT for points in size.groups())
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="sans-serif"'
    )
    background = f'<rect width="100%" height="100%" fill="{colours["paper"]}"/>'
    return re.sub(r"<svg([^>]*>)", lambda match: f"{opening}{match[1]}{background}", svg, count=1) + "\n"


def to_image(figure: Figure, format: str) -> bytes:
    """The figure as a file of its own: `png` or `svg`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=format, dpi=150, metadata={"Date": None} if format == "svg" else None)
    return buffer.getvalue()
