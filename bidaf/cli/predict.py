"""`bidaf predict`: answers to the questions of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bidaf.cli.common import DeviceOption, ModelOption, StrictOption, print_json, questions_bar, say_report, to_json
from bidaf.cli.weights import AllowErrorOption, AtOption, UseEmaOption, WeightsOption, one_weight_set, say_notes
from bidaf.files.writing import check_output, write_output
from bidaf.messages import say


def predict_command(
    input: Annotated[
        str,
        typer.Argument(help="Questions with contexts, in any schema of docs/data.md; - for stdin."),
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here. (default: stdout)")] = None,
    model: ModelOption = None,
    weights: WeightsOption = None,
    use_ema: UseEmaOption = None,
    at: AtOption = None,
    allow_error: AllowErrorOption = False,
    n_best: Annotated[
        int | None, typer.Option(min=1, help="Number of answers per question, with offsets and probabilities.")
    ] = None,
    device: DeviceOption = "auto",
    strict: StrictOption = False,
) -> None:
    """Answer questions: {id: answer}, as the official evaluator takes it, or records with --n-best.

    Contexts may be of any length; every answer is cut from its context, character for character.
    """
    from bidaf.data.questions import read_questions
    from bidaf.library import load, predict_examples

    name = one_weight_set(weights, use_ema, "predict")
    # What is wrong with either file should be known before a model is loaded.
    if output is not None:
        check_output(output)
    examples = read_questions(input, strict=strict, on_report=say_report)
    predictor = load(model, weights=name, at=at, allow_error=allow_error, device=device)
    say_notes([predictor.loaded])
    say(f"answering with the {predictor.loaded.description}")
    with questions_bar(len(examples)) as bar:
        answers = predict_examples(predictor, examples, n_best=n_best, on_progress=bar.update)
    if output is None:
        print_json(answers)
    else:
        write_output(output, to_json(answers))
