"""`bidaf eval`: the official score of a model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bidaf.cli.common import (
    DeviceOption,
    JsonOption,
    ModelOption,
    UseEmaOption,
    print_json,
    print_table,
    questions_bar,
    say,
    to_json,
)
from bidaf.errors import DataError, UsageError
from bidaf.files.writing import write_output

if TYPE_CHECKING:
    from bidaf.data.squad import Example
    from bidaf.evaluation.squad_v1 import Gold


@dataclass(frozen=True)
class Evaluation:
    """Percent, and what they are of."""

    exact_match: float
    f1: float
    questions: int
    weights: str
    model: str
    data: list[str]


def eval_command(
    model: ModelOption = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="SQuAD JSON file, or hub name. (default: the run's dev set)")
    ] = None,
    use_ema: UseEmaOption = True,
    both: Annotated[bool, typer.Option("--both", help="Score raw and shadow weights, side by side.")] = False,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", "-p", help="Write {id: answer} to this file.")
    ] = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Score a model by the official SQuAD v1.1 evaluation: exact match and F1, in percent."""
    if both and predictions is not None:
        raise UsageError("--predictions takes the answers of one set of weights: leave out --both")
    results = []
    for shadow in (False, True) if both else (use_ema,):
        result, answers = evaluate_model(model, data=data, use_ema=shadow, device=device)
        results.append(result)
        if predictions is not None:
            write_output(predictions, to_json(answers))
    if json:
        print_json([asdict(result) for result in results] if both else asdict(results[0]))
        return
    rows = [(each.weights, f"{each.exact_match:.2f}", f"{each.f1:.2f}", f"{each.questions:,}") for each in results]
    title = f"{results[0].model} on {', '.join(results[0].data)}"
    print_table(title, ("weights", "EM", "F1", "questions"), rows)


def evaluate_model(
    model: str | None, *, data: str | None, use_ema: bool, device: str
) -> tuple[Evaluation, dict[str, str]]:
    """Answer all questions of the model's dev set, or of `data`, and score the answers."""
    from bidaf.device import choose_device
    from bidaf.evaluation.squad_v1 import score_answers
    from bidaf.inference.loading import load_model
    from bidaf.inference.predictor import Predictor

    loaded = load_model(model, use_ema=use_ema, device=choose_device(device))
    predictor = Predictor(loaded)
    features = loaded.dev_features() if data is None else None
    sources = list(loaded.config.data.dev) if data is None else [data]
    if features is not None:
        gold: Gold | dict[str, list[str]] = dict(zip(features.ids, features.answers, strict=True))
    else:
        examples, gold = _read(sources, named=data is not None)
        features = predictor.features(examples)
    with questions_bar(len(features)) as bar:
        answers = {question: answer.text for question, answer in predictor.answer(features, bar.update).items()}
    score = score_answers(gold, answers)
    if score.unanswerable:
        say(f"{score.unanswerable:,} questions without an answer are not scored")
    result = Evaluation(score.exact_match, score.f1, score.questions, loaded.weights, str(loaded.origin), sources)
    return result, answers


def _read(sources: list[str], *, named: bool) -> tuple[list[Example], Gold | dict[str, list[str]]]:
    """Questions with their gold answers. Of a JSON file every question counts, as for the official evaluator."""
    from bidaf.data.questions import read_questions
    from bidaf.data.sources import find_source, read_sources
    from bidaf.evaluation.squad_v1 import read_gold

    try:
        if len(sources) == 1 and sources[0].endswith((".json", ".json.gz")):
            return read_questions(sources[0]), read_gold(Path(sources[0]))
        examples = read_sources([find_source(source, "dev") for source in sources]).examples
    except DataError as error:
        hint = "" if named else "\nThat is the dev set the model was trained with; name another one with --data."
        raise DataError(f"{error}{hint}") from None
    return examples, {example.id: [answer.text for answer in example.answers] for example in examples}
