"""`bidaf predict`: answers to the questions of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bidaf.cli.common import DeviceOption, ModelOption, UseEmaOption, questions_bar, to_json
from bidaf.files.writing import write_output


def predict_command(
    input: Annotated[
        str,
        typer.Argument(help="SQuAD JSON, or {id?, context, question}: one, a list, or one a line; - for stdin."),
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here. (default: stdout)")] = None,
    model: ModelOption = None,
    use_ema: UseEmaOption = True,
    n_best: Annotated[
        int | None, typer.Option(min=1, help="Give so many answers each, with offsets and probability.")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Answer questions: {id: answer}, as the official evaluator takes it, or records with --n-best.

    Contexts may be of any length; every answer is cut from its context as it stands there.
    """
    result = predict(input, model=model, use_ema=use_ema, n_best=n_best, device=device)
    if output is None:
        print(to_json(result), end="")
    else:
        write_output(output, to_json(result))


def predict(
    input: str, *, model: str | None, use_ema: bool, n_best: int | None, device: str
) -> dict[str, str] | list[dict[str, Any]]:
    """`{id: answer}`, or with `n_best` one record a question, both in the order of the questions."""
    from bidaf.data.questions import read_questions
    from bidaf.library import load, predict_examples

    # A file that can't be read should be known before a model is loaded.
    examples = read_questions(input)
    predictor = load(model, use_ema=use_ema, device=device)
    with questions_bar(len(examples)) as bar:
        return predict_examples(predictor, examples, n_best=n_best, tick=bar.update)
