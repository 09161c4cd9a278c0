"""`bidaf eval`: the official score of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bidaf.cli.common import (
    DeviceOption,
    JsonOption,
    ModelOption,
    StrictOption,
    print_json,
    print_table,
    say_report,
    say_rule,
    to_json,
)
from bidaf.cli.weights import (
    AllowErrorOption,
    AtOption,
    BothOption,
    SeveralWeightsOption,
    UseEmaOption,
    say_notes,
    weight_sets,
)
from bidaf.errors import UsageError
from bidaf.files.writing import check_output, write_output

if TYPE_CHECKING:
    from bidaf.inference.ensemble import Loaded
    from bidaf.inference.evaluate import Evaluation


def eval_command(
    model: ModelOption = None,
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", help="Questions with gold answers.  [default: the run's dev set]"),
    ] = None,
    weights: SeveralWeightsOption = None,
    use_ema: UseEmaOption = None,
    both: BothOption = False,
    at: AtOption = None,
    allow_error: AllowErrorOption = False,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", "-p", help="Write {id: answer} to this file.")
    ] = None,
    device: DeviceOption = "auto",
    strict: StrictOption = False,
    json: JsonOption = False,
) -> None:
    """Score a model by the official SQuAD evaluation: exact match and F1, in percent.

    Models with model.no_answer are scored by v2.0, with HasAns and NoAns, others by v1.1. On the run's dev set the
    threshold of each weight set is chosen, and the cross-fitted F1 is the one to quote; other data is scored at the
    threshold that was stored.
    """
    names = weight_sets(weights, use_ema, both=both)
    if predictions is not None:
        if names is not None and len(names) > 1:
            raise UsageError("--predictions takes the answers of one weight set: run it once for each of them")
        check_output(predictions)
    evaluations = evaluate(model, names, at=at, data=data, device=device, allow_error=allow_error, strict=strict)
    if predictions is not None:
        write_output(predictions, to_json(evaluations[0].predictions))
    say_rule(evaluations[0].rule, evaluations[0].unanswerable)
    if json:
        results = [_result(each) for each in evaluations]
        print_json(results if names is not None and len(names) > 1 else results[0])
    else:
        _print_scores(evaluations)


def evaluate(
    model: str | None,
    names: list[str] | None,
    *,
    at: int | None,
    data: str | None,
    device: str,
    allow_error: bool,
    strict: bool,
) -> list[Evaluation]:
    """Load these weight sets of a model (None: its default one) and score them."""
    from bidaf.device import choose_device
    from bidaf.inference.ensemble import load_named, load_named_sets
    from bidaf.inference.evaluate import evaluate

    chosen = choose_device(device)
    if names is None:
        models: Sequence[Loaded] = [load_named(model, at=at, device=chosen)]
    else:
        models = load_named_sets(model, names, chosen, at=at, allow_error=allow_error)
    say_notes(models)
    return evaluate(models, data, strict=strict, on_report=say_report)


def _result(evaluation: Evaluation) -> dict[str, Any]:
    return {
        **evaluation.scores,
        "questions": evaluation.questions,
        "rule": evaluation.rule,
        "weights": evaluation.weights,
        "model": evaluation.model,
        "data": evaluation.data,
    }


def _print_scores(evaluations: list[Evaluation]) -> None:
    from bidaf.evaluation.metrics import METRIC_LABELS, show_metric

    first = evaluations[0]
    columns = ["weights", *(METRIC_LABELS.get(name, name) for name in first.scores), "questions"]
    rows = [
        [each.weights, *(show_metric(*metric) for metric in each.scores.items()), f"{each.questions:,}"]
        for each in evaluations
    ]
    print_table(f"{first.model} on {', '.join(first.data)}", columns, rows)
