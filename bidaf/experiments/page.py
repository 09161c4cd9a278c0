"""The results of an experiment as a table for terminal and page, as CSV, and as a page with a band per variant."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

from markupsafe import Markup

from bidaf.errors import BidafError
from bidaf.evaluation.metrics import METRIC_LABELS
from bidaf.evaluation.statistics import Estimate
from bidaf.experiments.results import METRICS, Results, Summary, VariantResult
from bidaf.files.writing import write_text
from bidaf.reporting.comparison import NONE, Table, difference_charts, interval, remarks, verdict
from bidaf.reporting.html import render
from bidaf.reporting.svg import ABOVE, RUNS, chart
from bidaf.reporting.words import plain, signed
from bidaf.runs.layout import REPORT
from bidaf.runs.weight_sets import EMA, RAW
from bidaf.version import __version__

WEIGHTS = (RAW, EMA)


def table(results: Results) -> Table:
    """A row per variant: scores with their spread over seeds, the difference to the base, the paper's scores."""
    columns = ["variant", "seeds", *(f"{weights} {METRIC_LABELS[metric]}" for weights in WEIGHTS for metric in METRICS)]
    columns += [f"F1 \N{MINUS SIGN} {results.base.name}", "95 % interval", "paper EM / F1"]
    rows = []
    for variant in results.variants:
        scores = [_shown(variant.summary(weights, metric)) for weights in WEIGHTS for metric in METRICS]
        difference = [NONE, NONE]
        if found := _difference(variant, "f1"):
            difference = [signed(found.value, 2), interval(found)]
        paper = f"{variant.paper.exact_match:.1f} / {variant.paper.f1:.1f}" if variant.paper else NONE
        rows.append([variant.name, str(len(variant.seeds)), *scores, *difference, paper])
    return "", columns, rows


def notes(results: Results) -> list[str]:
    """What the table does not say, in sentences."""
    found = next((variant.comparison for variant in results.variants if variant.comparison), None)
    sentences = ["Scores are those of each run's best checkpoint; ± is the standard deviation between seeds."]
    if found is None:
        return sentences
    questions = f"{found.questions:,} questions"
    where = f" on {found.articles} articles" if found.articles else ""
    sentences.append(f"Differences are those of the weights that rank checkpoints, on {questions}{where}.")
    if found.no_interval:
        sentences.append(f"There is no interval: {found.no_interval}.")
    elif found.seeds == 1:
        sentences.append("One seed each: what another seed would change is not part of the interval.")
    return sentences


def _shown(summary: Summary | None) -> str:
    if summary is None:
        return NONE
    return f"{summary.mean:.1f}" if summary.spread is None else f"{summary.mean:.1f}±{summary.spread:.1f}"


def _difference(variant: VariantResult, metric: str) -> Estimate | None:
    return variant.comparison.metrics[metric].difference if variant.comparison else None


def to_csv(results: Results) -> str:
    """A row per variant, numbers at full precision; what is missing is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    scores = [(weights, metric) for weights in WEIGHTS for metric in METRICS]
    header = ["variant", "seeds"]
    header += [f"{weights}_{metric}{suffix}" for weights, metric in scores for suffix in ("", "_spread")]
    header += [f"difference_{metric}{suffix}" for metric in METRICS for suffix in ("", "_low", "_high")]
    writer.writerow([*header, *(f"paper_{metric}" for metric in METRICS)])
    for variant in results.variants:
        row: list[object] = [variant.name, len(variant.seeds)]
        for weights, metric in scores:
            row += variant.summary(weights, metric) or (None, None)
        for metric in METRICS:
            found = _difference(variant, metric)
            row += [found.value, *(found.interval or (None, None))] if found else [None] * 3
        row += [getattr(variant.paper, metric) if variant.paper else None for metric in METRICS]
        writer.writerow(row)
    return text.getvalue()


def write_page(results: Results, name: str, folder: Path) -> Path:
    """Write the experiment's report.html; its path. Raises `BidafError` where it can't be written."""
    path = folder / REPORT
    compared = [variant for variant in results.variants if variant.comparison]
    page = render(
        "experiment",
        title=name,
        base=results.base.name,
        table=table(results),
        notes=notes(results),
        settings=[
            (variant.name, [(key, plain(value)) for key, value in variant.settings.items()])
            for variant in results.variants
        ],
        charts=[band_chart(results, metric) for metric in reversed(METRICS)],
        comparisons=[
            {
                "name": variant.name,
                "verdict": verdict(variant.comparison),
                "remarks": remarks(variant.comparison)[:-1],
                "charts": difference_charts(variant.comparison),
            }
            for variant in compared
            if variant.comparison
        ],
        version=__version__,
    )
    try:
        write_text(path, page)
    except OSError as error:
        raise BidafError(f"the report {path} can't be written: {error.strerror or error}") from None
    return path


def band_chart(results: Results, metric: str) -> Markup:
    """A metric over training steps: of each variant the mean of its seeds, in a band from the lowest to the highest."""
    bands = [(variant, list(_band(variant, metric))) for variant in results.variants if variant.seeds]
    drawn = [(variant, band) for variant, band in bands if band]
    if not drawn:
        return Markup("")
    label = METRIC_LABELS[metric]
    title = f"{label} of each variant over training steps"
    with chart(title, f"{label} (percent)", height=3, legend_lines=len(drawn)) as (axes, finish):
        for number, (variant, band) in enumerate(drawn):
            colour = RUNS[number % len(RUNS)]
            steps, low, mean, high = zip(*band, strict=True)
            seeds = f"{len(variant.seeds)} seed{'s' * (len(variant.seeds) > 1)}"
            axes.plot(steps, mean, "o-", color=colour, markersize=3, label=f"{variant.name} ({seeds})")
            if len(variant.seeds) > 1:
                axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.legend(**ABOVE)
        return finish()


def _band(variant: VariantResult, metric: str) -> Iterator[tuple[int, float, float, float]]:
    """Step, lowest, mean and highest value of the seeds, at each evaluation that all of them have."""
    curves = [{each.step: each.ranking[metric] for each in seed.log.evaluations} for seed in variant.seeds]
    for step in curves[0]:
        if all(step in curve for curve in curves):
            values = [curve[step] for curve in curves]
            yield step, min(values), fmean(values), max(values)
