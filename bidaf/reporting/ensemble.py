"""What an ensemble scores as tables, sentences, and a plot over the number of members."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bidaf.errors import UsageError
from bidaf.evaluation.comparison import Metric
from bidaf.evaluation.ensemble import METRICS, EnsembleScore
from bidaf.evaluation.metrics import METRIC_LABELS
from bidaf.reporting.comparison import NONE, Table, interval
from bidaf.reporting.words import signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg")
SINGLE, MEAN = "1", "mean of the weights"


def tables(score: EnsembleScore, data: str) -> list[Table]:
    """The members, and ensembles of one to all of them."""
    labels = [METRIC_LABELS[metric] for metric in METRICS]
    singles = score.sizes[0].scores
    members = [
        [name, *(f"{singles[metric][number]:.2f}" for metric in METRICS)] for number, name in enumerate(score.names)
    ]
    columns = ["members", "ensembles", *labels]
    for label in labels:
        columns += [f"{label} gain", "95 % interval"]
    sizes = [_row(str(row.members), str(len(row.scores["f1"])), row.metrics) for row in score.sizes]
    if score.mean_weights is not None:
        sizes.append(_row(MEAN, "", score.mean_weights))
    return [
        (f"members on {data}", ["member", *labels], members),
        (f"ensembles ({score.rule} rule); gains are over the mean of the single members", columns, sizes),
    ]


def _row(first: str, count: str, metrics: dict[str, Metric]) -> list[str]:
    cells = [first, count, *(f"{metrics[metric].b.value:.2f}" for metric in METRICS)]
    for metric in METRICS:
        difference = metrics[metric].difference
        cells += [NONE] * 2 if first == SINGLE else [signed(difference.value, 2), interval(difference)]
    return cells


def remarks(score: EnsembleScore) -> list[str]:
    """What the tables do not say."""
    where = f" on {score.articles} articles" if score.articles else ""
    lines = [f"{score.questions:,} questions{where}."]
    if score.no_interval:
        lines.append(f"No interval: {score.no_interval}.")
    if len(score.names) > 2:
        lines.append("Between one member and all, each row is the mean of as many ensembles as there are members.")
    if score.no_answer_threshold is not None:
        lines.append(
            "Each ensemble's threshold of no answer is chosen on these questions, which makes its score slightly too "
            f"high; that of all members is {score.no_answer_threshold:.4f}."
        )
    if score.no_mean is not None:
        lines.append(f"The weights have no mean: {score.no_mean}.")
    else:
        lines.append(
            f"The {MEAN} is no ensemble: runs from different seeds end in different solutions, whose units do not "
            "correspond, and what lies between two solutions is none. An average along one run, as ema is, stays near "
            "one."
        )
    return lines


def check_suffix(path: Path) -> None:
    """Raise `UsageError` unless `ensemble_plot` can draw a file of this name."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: a plot is written as {', '.join(SUFFIXES)}; choose one of these suffixes")


def ensemble_plot(score: EnsembleScore, path: Path) -> bytes:
    """EM and F1 over the number of members, and the gain in F1 with its interval; `path` says which format."""
    from matplotlib.figure import Figure

    from bidaf.reporting.svg import ON_PAPER, drawing, style, tick, to_image

    with drawing({**style(ON_PAPER), "svg.hashsalt": "ensemble"}):
        figure = Figure(figsize=(8.0, 3.4), layout="constrained")
        scores, gains = figure.subplots(1, 2)
        for metric, colour in zip(METRICS, (ON_PAPER.raw, ON_PAPER.shadow), strict=True):
            _draw_scores(scores, score, metric, colour)
        scores.set_ylabel("percent")
        scores.legend(loc="best")
        _draw_gain(gains, score, ON_PAPER.shadow)
        gains.axhline(0, color=ON_PAPER.ink, linewidth=0.8)
        gains.set_ylabel("F1 gain over one member (points)")
        for axes in (scores, gains):
            axes.set_xlabel(f"members ({score.rule} rule)")
            tick(axes, across=8, up=6)
        return to_image(figure, path.suffix.lower().removeprefix("."))


def _draw_scores(axes: Axes, score: EnsembleScore, metric: str, colour: str) -> None:
    """The mean of each size as a line, and each ensemble as a faint dot."""
    label = METRIC_LABELS[metric]
    axes.plot(
        [row.members for row in score.sizes],
        [row.metrics[metric].b.value for row in score.sizes],
        color=colour,
        marker="o",
        markersize=4,
        label=label,
    )
    dots = [(row.members, value) for row in score.sizes for value in row.scores[metric]]
    faint: dict[str, Any] = {"linestyle": "", "marker": ".", "alpha": 0.35}
    axes.plot(*zip(*dots, strict=True), color=colour, **faint)


def _draw_gain(axes: Axes, score: EnsembleScore, colour: str) -> None:
    for row in score.sizes[1:]:
        difference = row.metrics["f1"].difference
        if difference.interval:
            axes.plot([row.members] * 2, difference.interval, color=colour, linewidth=1.4)
        axes.plot([row.members], [difference.value], "o", color=colour, markersize=4.5)
    axes.set_xlim(0.5, len(score.names) + 0.5)
