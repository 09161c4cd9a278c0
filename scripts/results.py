"""What real runs left behind, kept in docs/results/, and the tables and plots of docs/results.md made of it.

    python scripts/results.py collect RUN NAME [--data LABEL=FILE]...   RUN -> docs/results/NAME
    python scripts/results.py tables                                    the marked parts of docs/results.md, and plots

`collect` keeps numbers: settings, environment, metrics (the map among them), sweeps, the comparison of shadow and raw
weights at every evaluation, and EM and F1 of each question with its article at the last one; no text of the data, no
weights, no path of the machine. `--data` scores the checkpoint of the last evaluation on other questions, too. Sources
that the run names are looked up from the current folder.

`tables` reads docs/results/ alone, and rewrites what stands in docs/results.md between `<!-- begin KIND NAME -->` and
`<!-- end KIND NAME -->`. Kinds: `runs` (all of them, without a name), `epochs`, `data`, `sweep` and `map` of a run, and
`seeds`, whose NAME stands for the runs NAME-seed0, NAME-seed1 and so on.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from results_page import COMPARISONS, NAMES, PLAIN, SHADOW, dev_label, draw, questions_file, rewritten

from bidaf.data.questions import read_questions
from bidaf.errors import BidafError, DataError
from bidaf.evaluation.comparison import System, compare
from bidaf.evaluation.metrics import question_scores
from bidaf.evaluation.predictions import read_predictions
from bidaf.evaluation.questions import GoldQuestion, questions_of_examples, questions_of_features
from bidaf.files.writing import claim_folder, json_text, put_folder
from bidaf.inference.stored import StoredModel
from bidaf.runs.checkpoint_folders import checkpoint_name
from bidaf.runs.data import open_data
from bidaf.runs.events import Evaluation
from bidaf.runs.layout import CHECKPOINTS, CONFIG, ENVIRONMENT, METRICS, PREDICTIONS, SWEEPS, predictions_file
from bidaf.runs.log import RunLog, read_run

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "docs/results", ROOT / "docs/results.md"
# A path of two parts that begins at the root of the file system, where a text or a word of it begins.
MACHINE_PATH = re.compile(r"""(?:^|[\s"'=:(])((?:/[\w.+-]+){2,}|[A-Za-z]:\\\w+)""", re.MULTILINE)

Answers = Mapping[str, Mapping[str, str]]
"""Weight set -> question id -> answer."""


def collect(folder: Path, target: Path, data: Mapping[str, str]) -> None:
    """Keep the numbers of the run in `folder`; `data` are labels and files of other questions.

    Raises `DataError` for a run without an evaluation or with a path of this machine in what would be kept.
    """
    run = read_run(folder)
    if not run.evaluations:
        raise DataError(f"{folder}: nothing is scored yet")
    last = run.evaluations[-1]
    with claim_folder(target) as unfinished:
        shutil.copyfile(folder / CONFIG, unfinished / CONFIG)
        shutil.copyfile(folder / METRICS, unfinished / METRICS)
        command = ["bidaf", *run.environment.get("command", ["bidaf"])[1:]]
        (unfinished / ENVIRONMENT).write_text(json_text({**run.environment, "command": command}))
        if (folder / SWEEPS).is_dir():
            shutil.copytree(folder / SWEEPS, unfinished / SWEEPS, copy_function=shutil.copyfile)
        label, questions = dev_label(run), dev_questions(run)
        compared: list[dict[str, Any]] = []
        for evaluation in run.evaluations:
            answers = stored_answers(run, evaluation)
            compared += comparison_line(label, evaluation.step, questions, answers)
        write_questions(unfinished, label, questions, answers)
        for label, file in data.items():
            questions = questions_of_examples(read_questions(file, need_answers=True))
            checkpoint = str(folder / CHECKPOINTS / checkpoint_name(last.step))
            models = [StoredModel.open(checkpoint, name) for name in (PLAIN, SHADOW) if name in last.scores]
            answers = {str(each.weights): each.answers(questions, "auto", allow_error=False) for each in models}
            compared += comparison_line(label, last.step, questions, answers)
            write_questions(unfinished, label, questions, answers)
        (unfinished / COMPARISONS).write_text("".join(f"{json.dumps(line)}\n" for line in compared))
        refuse_machine_paths(unfinished)
        shutil.rmtree(target, ignore_errors=True)
        put_folder(unfinished, target)


def dev_questions(run: RunLog) -> list[GoldQuestion]:
    """The dev questions that the run holds, or those of their sources where it holds none or no articles (format 1)."""
    assert run.start is not None
    settings = run.settings("data")
    try:
        prepared = open_data(run.folder, run.start.features, settings["prepared_dir"])
        questions = questions_of_features(prepared.features("dev"))
    except DataError:
        questions = []
    if questions and all(question.article for question in questions):
        return questions
    try:
        return questions_of_examples(
            example for source in settings["dev"] for example in read_questions(source, need_answers=True)
        )
    except DataError:
        if not questions:
            raise
        return questions


def stored_answers(run: RunLog, evaluation: Evaluation) -> Answers:
    """Those that the run kept of this evaluation, by weight set."""
    paths = {name: run.folder / PREDICTIONS / predictions_file(evaluation.step, name) for name in evaluation.scores}
    return {name: read_predictions(path) for name, path in paths.items() if path.is_file()}


def comparison_line(
    label: str, step: int, questions: Sequence[GoldQuestion], answers: Answers
) -> Iterator[dict[str, Any]]:
    """The comparison of the shadow (B) with the raw weights (A), where both have answers."""
    if {PLAIN, SHADOW} <= answers.keys():
        found = compare(questions, *(System(name, [answers[name]]) for name in (PLAIN, SHADOW)))
        yield {"data": label, "step": step, **found.to_dict()}


def write_questions(folder: Path, label: str, questions: Sequence[GoldQuestion], answers: Answers) -> None:
    """EM and F1 (0 to 1) of each question by each weight set, with its article."""
    gold = {question.id: question.answers for question in questions}
    scores = {name: question_scores(gold, of_set) for name, of_set in answers.items()}
    with (folder / questions_file(label)).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "article", *(f"{name} {metric}" for name in scores for metric in NAMES)])
        for number, question in enumerate(questions):
            found = [of_set[number] for of_set in scores.values()]
            values = [value for each in found for value in (int(each.exact_match), round(each.f1, 6))]
            writer.writerow([question.id, question.article or "", *values])


def refuse_machine_paths(folder: Path) -> None:
    """Raise `DataError` where a file that is kept tells where things lie on this machine."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if found := MACHINE_PATH.search(path.read_text(encoding="utf-8")):
            raise DataError(
                f"{path.name} holds a path of this machine, {found[1]}: run with paths relative to the current folder"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    collecting = commands.add_parser("collect", help="keep the numbers of a run in docs/results/NAME")
    collecting.add_argument("run", type=Path)
    collecting.add_argument("name")
    collecting.add_argument("--data", action="append", default=[], metavar="LABEL=FILE")
    commands.add_parser("tables", help="rewrite the marked parts of docs/results.md, and the plots")
    options = parser.parse_args()
    try:
        if options.command == "collect":
            data = dict(each.split("=", 1) if "=" in each else (Path(each).stem, each) for each in options.data)
            collect(options.run, RESULTS / options.name, data)
            print(RESULTS / options.name)
            return
        PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8"), RESULTS), encoding="utf-8")
        print(PAGE, *draw(RESULTS), sep="\n")
    except BidafError as error:
        parser.exit(error.exit_code, f"error: {error}\n")


if __name__ == "__main__":
    main()
