"""`bidaf export`: a folder with everything that answering needs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bidaf.cli.common import JsonOption, ModelOption, print_json, print_line, print_table
from bidaf.cli.weights import AllowErrorOption, AtOption, UseEmaOption, WeightsOption, one_weight_set, say_notes
from bidaf.messages import say


class ExportType(StrEnum):
    """What the model is written as."""

    safetensors = "safetensors"
    onnx = "onnx"


def export_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.")],
    model: ModelOption = None,
    format: Annotated[
        ExportType,
        typer.Option("--format", "-f", help="For bidaf (safetensors), or for onnxruntime without PyTorch (onnx)."),
    ] = ExportType.safetensors,
    weights: WeightsOption = None,
    use_ema: UseEmaOption = None,
    at: AtOption = None,
    allow_error: AllowErrorOption = False,
    json: JsonOption = False,
) -> None:
    """Write one weight set, config, vocabulary and vectors to one folder that needs nothing else.

    `--model FOLDER` of eval, predict and ask then works on a machine that has only that folder. An ONNX export comes
    with `answer.py`, which uses it; the graph is compared with the network before it counts as written.
    """
    from bidaf.device import choose_device
    from bidaf.export.write import check_export, export_model
    from bidaf.inference.loading import load_model
    from bidaf.inference.verdict import say_verdict
    from bidaf.runs.checkpoint import Checkpoint
    from bidaf.runs.weight_sets import EMA

    name = one_weight_set(weights, use_ema, "export")
    check_export(output, format.value)
    loaded = load_model(model, weights=name, at=at, allow_error=allow_error, device=choose_device("cpu"))
    say_notes([loaded])
    say(f"exporting the {loaded.description}")
    if format is ExportType.onnx:
        say("writing the graph and comparing it with the network; this takes half a minute")
    info = export_model(loaded, output, type=format.value).info
    if isinstance(loaded.source, Checkpoint) and loaded.weights == EMA:
        say_verdict(loaded.source)
    if json:
        print_json({"folder": str(output), **info.model_dump()})
        return
    print_line(f"{info.weights} weights of step {info.step:,} in {output}")
    if info.parity:
        columns = ("batch", "context", "question", "greatest difference")
        rows = [
            (f"{each.batch:,}", f"{each.context:,}", f"{each.question:,}", f"{each.difference:.1e}")
            for each in info.parity
        ]
        print_table("log-probabilities of onnxruntime compared with PyTorch", columns, rows)
