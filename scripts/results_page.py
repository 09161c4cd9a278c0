"""The tables and plots of docs/results.md, made of docs/results/ alone; see results.py."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from bidaf.errors import DataError, UsageError
from bidaf.evaluation.comparison import paired
from bidaf.evaluation.metrics import METRIC_LABELS
from bidaf.evaluation.sweep import summarize
from bidaf.reporting import sweep as sweeps
from bidaf.reporting.charts import score_chart
from bidaf.reporting.comparison import NONE, interval
from bidaf.reporting.svg import standalone
from bidaf.reporting.width_map import map_chart
from bidaf.reporting.words import signed
from bidaf.runs.events import Evaluation
from bidaf.runs.layout import METRICS
from bidaf.runs.log import RunLog, read_run
from bidaf.runs.sweeps import newest_sweep

COMPARISONS = "comparisons.jsonl"
PLAIN, SHADOW = "raw", "ema"
NAMES = {name: METRIC_LABELS[name] for name in ("exact_match", "f1")}
BLOCK = re.compile(r"(<!-- begin (\w+)((?: [\w.-]+)?) -->\n).*?(<!-- end \2\3 -->)", re.DOTALL)


def dev_label(run: RunLog) -> str:
    """What a run's dev set is called here: the names of its files, without their endings."""
    return "+".join(Path(source).stem for source in run.settings("data")["dev"])


def questions_file(label: str) -> str:
    """Where the folder of a run keeps EM and F1 of each question of this data."""
    return f"questions-{label}.csv"


def rewritten(page: str, results: Path) -> str:
    """The page with each marked part made again. Raises `UsageError` for a kind or a run that does not exist."""

    def block(match: re.Match[str]) -> str:
        kind, name = match[2], match[3].strip()
        if kind not in KINDS:
            raise UsageError(f"<!-- begin {kind} ... -->: there are {', '.join(KINDS)}")
        try:
            content = KINDS[kind](results, name)
        except DataError as error:
            raise UsageError(f"<!-- begin {kind} {name} -->: {error}") from None
        return f"{match[1]}\n{content}\n\n{match[4]}"

    marks = len(re.findall(r"^<!-- begin ", page, re.MULTILINE))
    result, blocks = BLOCK.subn(block, page)
    if marks != blocks:
        raise UsageError(f"{marks} parts begin, and {blocks} of them end with the same words")
    return result


def all_runs(results: Path) -> list[RunLog]:
    return [read_run(path.parent) for path in sorted(results.glob(f"*/{METRICS}"))]


def seeds_of(results: Path, name: str) -> list[RunLog]:
    found = [run for run in all_runs(results) if re.fullmatch(re.escape(name) + r"-seed\d+", run.name)]
    if not found:
        raise DataError(f"no run {name}-seedN in {results.name}")
    return found


def runs_block(results: Path, name: str) -> str:
    """Every run as it ended, with what the shadow is worth there."""
    columns = ["run", "seed", "epochs", "code", "threads", *SCORES, *GAIN]
    rows = []
    for run in all_runs(results):
        training, last = run.settings("training"), run.evaluations[-1]
        steps = run.start.steps_per_epoch if run.start else 1
        epochs = f"{last.epoch:g} of {(run.total_steps or 0) / steps:g}"
        about = [run.environment.get("commit") or NONE, str(run.environment.get("threads", NONE))]
        rows.append([run.name, str(training.get("seed")), epochs, *about, *scored(last), *gain(run, last)])
    return markdown(columns, rows)


def epochs_block(results: Path, name: str) -> str:
    """Raw weights and shadow at every evaluation, and from which on the shadow is better."""
    run = read_run(results / name)
    columns = ["epoch", "step", *SCORES, *GAIN, "distance"]
    rows = [
        [f"{each.epoch:g}", f"{each.step:,}", *scored(each), *gain(run, each), f"{each.distance or 0:.3f}"]
        for each in run.evaluations
    ]
    picture = f"![F1 of raw and shadow weights at every evaluation](results/{name}/f1.svg)"
    return "\n\n".join([markdown(columns, rows), lead(run), picture])


def lead(run: RunLog) -> str:
    """From which evaluation on the interval of shadow minus raw lies above zero; else what the last one says."""
    since: Evaluation | None = None
    bounds: Any = None
    for each in run.evaluations:
        found = compared_at(run, each.step)
        bounds = found and found["metrics"]["f1"]["difference"]["interval"]
        since = (since or each) if bounds and bounds[0] > 0 else None
    if since is None and bounds and bounds[1] < 0:
        return "At the last evaluation the shadow is behind the raw weights: the interval is below zero."
    if since is None:
        return "At the last evaluation the shadow is not distinguishable from the raw weights."
    return f"From epoch {since.epoch:g} (step {since.step:,}) on the shadow is better: the interval is above zero."


def data_block(results: Path, name: str) -> str:
    """The last evaluation, and its checkpoint on other data."""
    run = read_run(results / name)
    rows = []
    for found in comparisons(run):
        if found["step"] == run.evaluations[-1].step:
            values = [f"{found['metrics'][metric][side]['value']:.2f}" for side in "ab" for metric in NAMES]
            rows.append([found["data"], f"{found['questions']:,}", str(found["articles"]), *values, *shown(found)])
    return markdown(["data", "questions", "articles", *SCORES, *GAIN], rows)


def sweep_block(results: Path, name: str) -> str:
    """Averages of other widths, and what choosing one is worth."""
    sweep = newest_sweep(results / name)
    if sweep is None or (summary := summarize(sweep)) is None:
        raise DataError(f"{name} has no sweep")
    title, columns, rows = sweeps.table(summary)
    picture = f"![F1 of averages over their half-life](results/{name}/sweep.svg)"
    return "\n\n".join([f"{title}:", markdown(columns, rows), sweeps.choice_sentence(summary), picture])


def map_block(results: Path, name: str) -> str:
    """F1 over training step and half-life."""
    if not read_run(results / name).maps:
        raise DataError(f"{name} has no map")
    return f"![F1 of averages of every width over the course of the run](results/{name}/map.svg)"


def seeds_block(results: Path, name: str) -> str:
    """Each seed at the last evaluation that all of them had, their mean and spread, and shadow minus raw over all."""
    runs = seeds_of(results, name)
    by_step = [{each.step: each for each in run.evaluations} for run in runs]
    if not (common := set.intersection(*map(set, by_step))):
        raise DataError(f"the runs {name}-seedN have no evaluation at the same step")
    step = max(common)
    scores = [evaluations[step] for evaluations in by_step]
    rows = [
        [run.name, f"{each.epoch:g}", *scored(each), *gain(run, each)] for run, each in zip(runs, scores, strict=True)
    ]
    if len(runs) > 1:
        columns = [[each.scores[side][metric] for each in scores] for side in (PLAIN, SHADOW) for metric in NAMES]
        means = [f"{fmean(values):.2f} ± {stdev(values):.2f}" for values in columns]
        if all(step == run.evaluations[-1].step for run in runs):
            over_seeds = gain_over_seeds(runs)
        else:  # questions are kept one by one at the end of a run only
            over_seeds = [signed(fmean(each.scores[SHADOW]["f1"] - each.raw_f1 for each in scores), 2), NONE]
        rows.append([f"{len(runs)} seeds", "", *means, *over_seeds])
    picture = f"![F1 of raw and shadow weights of every seed](results/{name}-seeds.svg)"
    return "\n\n".join([markdown(["run", "epochs", *SCORES, *GAIN], rows), picture])


def gain_over_seeds(runs: Sequence[RunLog]) -> list[str]:
    """Of the last evaluations, question by question; the interval counts articles and seeds."""
    values: dict[str, list[list[float]]] = {PLAIN: [], SHADOW: []}
    articles: list[list[str]] = []
    for run in runs:
        with (run.folder / questions_file(dev_label(run))).open(encoding="utf-8", newline="") as file:
            questions = list(csv.DictReader(file))
        articles.append([question["article"] for question in questions])
        for name, of_seeds in values.items():
            of_seeds.append([100 * float(question[f"{name} f1"]) for question in questions])
    if any(each != articles[0] for each in articles):
        raise DataError("these seeds were scored on different questions")
    found = paired(values[PLAIN], values[SHADOW], articles[0]).difference
    return [signed(found.value, 2), interval(found)]


KINDS: dict[str, Callable[[Path, str], str]] = {
    "runs": runs_block,
    "epochs": epochs_block,
    "data": data_block,
    "sweep": sweep_block,
    "map": map_block,
    "seeds": seeds_block,
}
SCORES = ["raw EM", "raw F1", "shadow EM", "shadow F1"]
GAIN = ["shadow − raw F1", "95 % interval"]


def scored(evaluation: Evaluation) -> list[str]:
    found = [evaluation.scores.get(side, {}).get(metric) for side in (PLAIN, SHADOW) for metric in NAMES]
    return [NONE if value is None else f"{value:.2f}" for value in found]


def comparisons(run: RunLog) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / COMPARISONS).read_text(encoding="utf-8").splitlines()]


def compared_at(run: RunLog, step: int) -> dict[str, Any] | None:
    """The comparison of shadow and raw weights on the dev questions at this step; they come before other data."""
    return next((found for found in comparisons(run) if found["step"] == step), None)


def gain(run: RunLog, evaluation: Evaluation) -> list[str]:
    """Shadow minus raw at an evaluation; the interval where the run still had its answers."""
    if found := compared_at(run, evaluation.step):
        return shown(found)
    known = SHADOW in evaluation.scores
    return [signed(evaluation.scores[SHADOW]["f1"] - evaluation.raw_f1, 2) if known else NONE, NONE]


def shown(found: Mapping[str, Any]) -> list[str]:
    difference = found["metrics"]["f1"]["difference"]
    bounds = " to ".join(signed(bound, 2) for bound in difference["interval"] or ())
    return [signed(difference["value"], 2), bounds or NONE]


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def draw(results: Path) -> Iterator[Path]:
    """The plots of every run and of every group of seeds; their paths."""
    runs = all_runs(results)
    for run in runs:
        pictures = {"f1": score_chart([run], "f1", "F1"), "map": map_chart(run)}
        for name, picture in pictures.items():
            if picture:
                yield write_picture(run.folder / f"{name}.svg", picture)
        sweep = newest_sweep(run.folder)
        if sweep and (summary := summarize(sweep)):
            sweeps.write_sweep_image(summary, run.folder / "sweep.svg")
            yield run.folder / "sweep.svg"
    for name in sorted({run.name.rpartition("-seed")[0] for run in runs} - {""}):
        if len(seeds := seeds_of(results, name)) > 1:
            yield write_picture(results / f"{name}-seeds.svg", score_chart(seeds, "f1", "F1"))


def write_picture(path: Path, picture: str) -> Path:
    path.write_text(standalone(picture), encoding="utf-8")
    return path
