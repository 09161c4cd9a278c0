"""`bidaf serve`: a page to ask on, and an API, on this machine."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from bidaf.cli.common import DeviceOption, ModelOption, print_line
from bidaf.cli.weights import (
    AllowErrorOption,
    AtOption,
    BothOption,
    SeveralWeightsOption,
    UseEmaOption,
    say_notes,
    weight_sets,
)
from bidaf.errors import BidafError
from bidaf.messages import say

PACKAGES = ("fastapi", "uvicorn")


def serve_command(
    model: ModelOption = None,
    weights: SeveralWeightsOption = None,
    use_ema: UseEmaOption = None,
    both: BothOption = False,
    at: AtOption = None,
    allow_error: AllowErrorOption = False,
    host: Annotated[str, typer.Option(help="Listen on this address; 0.0.0.0 lets other machines ask.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Listen on this port; 0 takes a free one.")] = 8000,
    cors: Annotated[
        list[str] | None, typer.Option(metavar="ORIGIN", help="Let pages of this origin ask too. Repeatable.")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Serve a web page and an API until Ctrl-C or SIGTERM; what was accepted is still answered.

    Serves each weight set of the run, or those named with --weights. The address is printed once it answers; /api
    describes the API.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise BidafError(f"bidaf serve needs {' and '.join(missing)}; install: pip install {' '.join(PACKAGES)}")

    from bidaf.device import choose_device
    from bidaf.inference.ensemble import load_named_sets
    from bidaf.serve.server import serve

    names = weight_sets(weights, use_ema, both=both)
    models = load_named_sets(model, names, choose_device(device), at=at, allow_error=allow_error)
    say_notes(models)
    for each in models:
        say(f"serving the {each.description}")
    serve(models, host=host, port=port, cors=cors or (), on_ready=print_line)
