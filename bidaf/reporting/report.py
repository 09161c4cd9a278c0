"""The report: what one run did, or several side by side, on one page."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any, NamedTuple

from bidaf.data.counts import count_rows
from bidaf.errors import BidafError, DataError
from bidaf.evaluation.breakdowns import UNITS
from bidaf.evaluation.metrics import METRIC_LABELS, show_metric
from bidaf.files.writing import write_output, write_text
from bidaf.reporting import charts
from bidaf.reporting.answers import Answer, DevAnswers, breakdowns, changes, read_answers
from bidaf.reporting.html import render, script_json
from bidaf.reporting.sample import filter_counts, sample
from bidaf.reporting.sweep import sweep_view
from bidaf.reporting.width_map import map_chart
from bidaf.reporting.words import details, duration, headline, plain, signed
from bidaf.runs.events import Evaluation
from bidaf.runs.layout import METRICS, REPORT
from bidaf.runs.log import RunLog, is_training, read_run
from bidaf.version import __version__

WEIGHTS = {"ema": "shadow"}  # how prose calls a weight set, where not by its name
MAX_QUESTIONS = 2_000  # embedded in a page, over all its runs
MAX_TEXT_BYTES = 2_500_000  # of their texts, over all runs of a page
RELOAD_SECONDS = 15
POLL_SECONDS = 2.0


def write_report(folders: Sequence[Path], output: Path | None = None) -> Path:
    """Write the page of these runs; returns its path: by default report.html in the run, or next to several.

    Raises `DataError` for a folder without a log, `BidafError` when the page can't be written.
    """
    first = folders[0]
    path = output or (first / REPORT if len(folders) == 1 else first.parent / REPORT)
    page = report_page([read_run(folder) for folder in folders])
    if output:
        write_output(output, page)
        return path
    try:
        write_text(path, page)
    except OSError as error:
        raise BidafError(f"the report {path} can't be written: {error.strerror or error}") from None
    return path


def watched_report(folders: Sequence[Path], output: Path | None, say: Callable[[str], None]) -> Iterator[Path]:
    """The path of the page once it is written; then the page is written again until none of the runs trains."""
    yield write_report(folders, output)
    say("watching; Ctrl-C ends")
    with suppress(KeyboardInterrupt):
        seen = _log_sizes(folders)
        while any(is_training(folder) for folder in folders):
            time.sleep(POLL_SECONDS)
            if (sizes := _log_sizes(folders)) != seen:
                seen = sizes
                write_report(folders, output)
        write_report(folders, output)
        say("no run is training any more")


def _log_sizes(folders: Sequence[Path]) -> list[int]:
    return [(folder / METRICS).stat().st_size for folder in folders]


def write_run_report(folder: Path) -> Path:
    """`write_report` of one run, as training calls it."""
    return write_report([folder])


def report_page(runs: Sequence[RunLog]) -> str:
    """The HTML of the report. What is missing (dev questions, a start event) is named in its place."""
    several = len(runs) > 1
    scored = any(run.evaluations for run in runs)
    return render(
        "report",
        title=" and ".join(run.name for run in runs) if len(runs) < 3 else f"{len(runs)} runs",
        runs=[_run_view(run, 1 / len(runs)) for run in runs],
        has_shadow=any(run.has_shadow for run in runs),
        has_warmup=charts.has_warmup(runs),
        several=several,
        units=UNITS,
        comparison=_comparison(runs),
        scores=[charts.score_chart(runs, "f1", "F1"), charts.score_chart(runs, "exact_match", "EM")] if scored else [],
        gain="" if several or not runs[0].has_shadow else charts.gain_chart(runs[0]),
        clipped=charts.clips_gains(runs[0]),
        average=[charts.distance_chart(runs), charts.window_chart(runs)],
        training=[charts.loss_chart(runs), charts.speed_chart(runs), charts.memory_chart(runs)],
        settings=_settings(runs),
        written=f"{datetime.now():%Y-%m-%d %H:%M:%S}",
        version=__version__,
        reload_seconds=RELOAD_SECONDS if any(run.status == "running" for run in runs) else 0,
    )


def _run_view(run: RunLog, share: float) -> dict[str, Any]:
    """What the template shows of one run, whose questions may take this share of the page."""
    sentences = details(run)
    answers, absent = None, ""
    try:
        answers = read_answers(run)
    except DataError as error:
        absent = str(error)
    if answers and run.has_shadow:
        changed, gained, lost = changes(answers.questions)
        sentences.append(
            f"At the best checkpoint the average changed {changed:,} of {len(answers.questions):,} answers: {gained:,} "
            f"from wrong to right, {lost:,} from right to wrong, {changed - gained - lost:,} neither."
        )
    return {
        "name": run.name,
        "folder": str(run.folder),
        "status": _status(run),
        "headline": headline(run),
        "details": sentences,
        "tiles": _tiles(run),
        "has_shadow": run.has_shadow,
        "evaluations": _evaluations(run),
        "map": map_chart(run),
        "map_is_partial": any(f1 is None for each in run.maps for f1 in each.f1),
        "sweep": sweep_view(run.folder),
        "breakdowns": breakdowns(answers.questions) if answers else {},
        "questions": _embedded(answers, share, run) if answers else None,
        "absent": absent,
        "counts": count_rows(run.start.counts) if run.start else [],
        "environment": _environment(run),
        "unread": run.unread,
    }


def _evaluations(run: RunLog) -> tuple[list[str], list[list[tuple[str, object]]]] | None:
    """Columns, and for each evaluation what its cells show and their exact values; None for a run without any."""
    if not run.evaluations:
        return None
    scores = [(weights, metric) for weights, metrics in run.evaluations[-1].scores.items() for metric in metrics]
    columns = [
        "step",
        "epoch",
        *(f"{weights} {METRIC_LABELS.get(metric, metric)}" for weights, metric in scores),
        "best",
    ]
    rows: list[list[tuple[str, object]]] = []
    for each in run.evaluations:
        values = [each.scores.get(weights, {}).get(metric) for weights, metric in scores]
        cells = [
            ("\N{EN DASH}" if value is None else show_metric(metric, value), value)
            for (_, metric), value in zip(scores, values, strict=True)
        ]
        best = "best" if each is run.best else "better" if each.best else ""
        rows.append([(f"{each.step:,}", each.step), (f"{each.epoch:.2f}", each.epoch), *cells, (best, best)])
    return columns, rows


def _status(run: RunLog) -> str:
    total = f" of {run.total_steps:,}" if run.total_steps else ""
    return f"{run.status}: step {run.step:,}{total}"


def _tiles(run: RunLog) -> list[tuple[str, str, str]]:
    """Label, figure and small print."""
    device = str(run.environment.get("device", "an unknown device"))
    tiles = []
    if best := run.best:
        scores, raw = best.ranking, best.scores["raw"]
        tiles.append((_best_label(best), f"{best.f1:.1f}", f"EM {scores['exact_match']:.1f}, step {best.step:,}"))
        if scores is not raw:
            tiles.append(("raw F1 there", f"{best.raw_f1:.1f}", f"EM {raw['exact_match']:.1f}, same step"))
            tiles.append(("shadow \N{MINUS SIGN} raw", signed(best.gain), "F1 points, same step"))
    if run.intervals and run.elapsed:
        tiles.append(("time", duration(run.elapsed), f"{run.intervals[-1].epoch:.1f} epochs"))
    if speeds := [event.questions_per_second for event in run.intervals if event.questions_per_second is not None]:
        tiles.append(("questions / s", f"{median(speeds):,.0f}", f"median, on {device}"))
    if peaks := [event.memory_bytes for event in run.intervals if event.memory_bytes is not None]:
        tiles.append(("peak memory", f"{max(peaks) / 1e9:.1f} GB", f"on {device}"))
    return tiles


def _best_label(best: Evaluation) -> str:
    return f"best {WEIGHTS.get(best.ranked_by, best.ranked_by)} F1"


def _comparison(runs: Sequence[RunLog]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The tiles' labels, and a named row of figures for each run and each group of seeds; what is missing is a dash."""
    tiles = [{label: figure for label, figure, _ in _tiles(run)} for run in runs]
    labels = list(dict.fromkeys(label for each in tiles for label in each))
    rows = [
        (run.name, [each.get(label, "\N{EN DASH}") for label in labels]) for run, each in zip(runs, tiles, strict=True)
    ]
    for group in _seed_groups(runs):
        scored = {str(run.settings("training").get("seed")): run.best for run in group if run.best}
        if len(scored) > 1:
            name = f"{len(scored)} seeds: {', '.join(scored)}"
            scores = [best.f1 for best in scored.values()]
            summary = {_best_label(next(iter(scored.values()))): f"{fmean(scores):.1f} ± {stdev(scores):.1f}"}
            rows.append((name, [summary.get(label, "") for label in labels]))
    return labels, rows


def _seed_groups(runs: Sequence[RunLog]) -> list[list[RunLog]]:
    """Runs that differ in nothing but the seed, together."""
    groups: dict[str, list[RunLog]] = {}
    for run in runs:
        settings = _leaves(run.start.config) if run.start else {}
        settings.pop("training.seed", None)
        groups.setdefault(json.dumps(settings, sort_keys=True, default=str), []).append(run)
    return [group for group in groups.values() if len(group) > 1]


class Setting(NamedTuple):
    """A setting's value in each run, and whether these differ."""

    name: str
    values: list[str]
    differs: bool


def _settings(runs: Sequence[RunLog]) -> list[Setting]:
    leaves = [_leaves(run.start.config) if run.start else {} for run in runs]
    names = dict.fromkeys(name for each in leaves for name in each)
    rows = []
    for name in names:
        values = [plain(each[name]) if name in each else "not set" for each in leaves]
        rows.append(Setting(name, values, len(set(values)) > 1))
    return rows


def _leaves(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _environment(run: RunLog) -> list[tuple[str, str]]:
    rows = []
    for name, value in run.environment.items():
        if name == "command" and isinstance(value, list):
            rows.append((name, shlex.join(map(str, value))))
        elif isinstance(value, dict):
            rows += [(str(package), str(number)) for package, number in value.items()]
        else:
            rows.append((name, plain(value)))
    return rows


def _embedded(answers: DevAnswers, share: float, run: RunLog) -> dict[str, Any]:
    """The questions that the page itself holds, as its script reads them, and how many these are."""
    features = answers.features
    chosen = sample(answers.questions, features, int(share * MAX_QUESTIONS), int(share * MAX_TEXT_BYTES))
    contexts: dict[int, int] = {}
    questions = []
    for asked in chosen:
        context = int(features.question_context[asked.number])
        questions.append(
            {
                "id": features.ids[asked.number],
                "question": features.questions[asked.number],
                "context": contexts.setdefault(context, len(contexts)),
                "gold": answers.gold_spans(asked.number),
                "answers": list(dict.fromkeys(features.answers[asked.number])),
                "raw": _shown_answer(asked.raw),
                "shadow": _shown_answer(asked.shadow) if asked.shadow else None,
            }
        )
    data = {
        "run": str(run.folder),
        "contexts": [features.contexts[each] for each in contexts],
        "questions": questions,
        "counts": filter_counts(answers.questions),
    }
    return {"json": script_json(data), "embedded": len(chosen), "all": len(answers.questions), "step": answers.step}


def _shown_answer(answer: Answer) -> dict[str, Any]:
    return {**answer._asdict(), "f1": round(answer.f1, 3)}
