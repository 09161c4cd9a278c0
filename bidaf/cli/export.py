"""`bidaf export`: a folder with everything that answering needs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bidaf.cli.common import JsonOption, ModelOption, UseEmaOption, print_json, print_table, say
from bidaf.errors import UsageError


class Form(StrEnum):
    """What the model is written as."""

    SAFETENSORS = "safetensors"
    ONNX = "onnx"


def export_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.")],
    model: ModelOption = None,
    format: Annotated[
        Form, typer.Option("--format", "-f", help="For bidaf (safetensors), or for onnxruntime without PyTorch (onnx).")
    ] = Form.SAFETENSORS,
    use_ema: UseEmaOption = True,
    json: JsonOption = False,
) -> None:
    """Write shadow weights, config, vocabulary and vectors to one folder that needs nothing else.

    `--model FOLDER` of eval, predict and ask then works on a machine that has only that folder. An ONNX export comes
    with `answer.py`, which asks it; the graph is compared with the network before it counts as written.
    """
    from bidaf.export.write import export_model
    from bidaf.inference.exported import is_export
    from bidaf.inference.loading import find_checkpoint, find_features
    from bidaf.inference.verdict import judge_average
    from bidaf.runs.checkpoint import open_checkpoint
    from bidaf.runs.folder import find_run

    source = find_run(model)
    if is_export(source):
        raise UsageError(f"{source} is an export already; copy the folder, or export the run it came from")
    checkpoint = open_checkpoint(find_checkpoint(source))
    if format is Form.ONNX:
        say("writing the graph and comparing it with the network; this takes half a minute")
    export = export_model(checkpoint, find_features(checkpoint), output, use_ema=use_ema, form=format.value)
    if verdict := judge_average(checkpoint):
        say(f"verdict: {verdict.sentence}")
    if json:
        print_json({"folder": str(output), **export.about})
        return
    print(f"{export.weights} weights of step {checkpoint.step} in {output}")
    if parity := export.about.get("parity"):
        columns = ("batch", "context", "question", "greatest difference")
        rows = [(*(f"{each[name]:,}" for name in columns[:3]), f"{each['difference']:.1e}") for each in parity]
        print_table("log-probabilities of onnxruntime against PyTorch", columns, rows)
