"""`bidaf predict`: answers to the questions of a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bidaf.cli.common import DeviceOption, ModelOption, UseEmaOption, questions_bar, to_json, write_output

if TYPE_CHECKING:
    from bidaf.data.squad import Example


def predict_command(
    input: Annotated[
        str,
        typer.Argument(help="SQuAD JSON, or {id?, context, question}: one, a list, or one a line; - for stdin."),
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here.  [default: stdout]")] = None,
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
    from bidaf.data.questions import read_questions

    examples = read_questions(input)
    result = predict(examples, model=model, use_ema=use_ema, n_best=n_best, device=device)
    if output is None:
        print(to_json(result), end="")
    else:
        write_output(output, to_json(result))


def predict(
    examples: Sequence[Example], *, model: str | None, use_ema: bool, n_best: int | None, device: str
) -> dict[str, str] | list[dict[str, Any]]:
    """`{id: answer}`, or with `n_best` one record a question, both in the order of the questions."""
    from bidaf.device import choose_device
    from bidaf.inference.loading import load_model
    from bidaf.inference.predictor import Predictor

    predictor = Predictor(load_model(model, use_ema=use_ema, device=choose_device(device)))
    features = predictor.features(examples)
    with questions_bar(len(features)) as bar:
        if n_best is None:
            return {id: answer.text for id, answer in predictor.answer(features, bar.update).items()}
        answers = predictor.answer_n_best(features, n_best, bar.update)
    return [
        {"id": example.id, "question": example.question, "answers": [best._asdict() for best in answers[example.id]]}
        for example in examples
    ]
