"""`bidaf export`: a folder with everything that answering needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bidaf.cli.common import JsonOption, ModelOption, UseEmaOption, print_json
from bidaf.errors import UsageError


def export_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.")],
    model: ModelOption = None,
    use_ema: UseEmaOption = True,
    json: JsonOption = False,
) -> None:
    """Write shadow weights, config, vocabulary and vectors to one folder that needs nothing else.

    `--model FOLDER` of eval and predict then works on a machine that has only that folder.
    """
    from bidaf.inference.export import export_model, is_export
    from bidaf.inference.loading import find_checkpoint, find_features
    from bidaf.training.checkpoint import open_checkpoint
    from bidaf.training.run import find_run

    source = find_run(model)
    if is_export(source):
        raise UsageError(f"{source} is an export already; copy the folder")
    checkpoint = open_checkpoint(find_checkpoint(source))
    export = export_model(checkpoint, find_features(checkpoint), output, use_ema=use_ema)
    if json:
        print_json({"folder": str(output), **export.about})
        return
    print(f"{export.weights} weights of step {checkpoint.step} in {output}")
