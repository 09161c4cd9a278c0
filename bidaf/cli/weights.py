"""The options that choose weight sets, the same in every command that takes a model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from bidaf.errors import UsageError
from bidaf.messages import say

if TYPE_CHECKING:
    from bidaf.inference.ensemble import Loaded

WeightsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        "-w",
        metavar="NAME",
        help="The weight set: ema (the moving average), raw, or any other average, made from the run's snapshots: "
        "decay:0.9995, half-life:1000, sigma:0.07, tail:25%.  [default: ema, or raw where there is no ema]",
    ),
]
SeveralWeightsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        "-w",
        metavar="NAME",
        help="A weight set: ema (the moving average), raw, or any other average, made from the run's snapshots: "
        "decay:0.9995, half-life:1000, sigma:0.07, tail:25%. Repeatable.",
    ),
]
UseEmaOption = Annotated[
    bool | None,
    typer.Option("--use-ema/--no-use-ema", help="Short for --weights ema and --weights raw.", show_default=False),
]
BothOption = Annotated[bool, typer.Option("--both", help="Short for --weights raw --weights ema.", show_default=False)]
AtOption = Annotated[
    int | None, typer.Option("--at", metavar="STEP", min=0, help="The run's checkpoint of this step, not its best one.")
]

AllowErrorOption = Annotated[
    bool, typer.Option("--allow-error", help="Accept a synthesised average whatever its predicted error.")
]


def weight_sets(weights: list[str] | None, use_ema: bool | None, *, both: bool = False) -> list[str] | None:
    """The names that the options ask for, each once; None where they ask for none.

    Raises `UsageError` for options that contradict each other.
    """
    from bidaf.runs.weight_sets import EMA, RAW

    ways = {}
    if weights:
        ways[" ".join(f"--weights {name}" for name in weights)] = list(dict.fromkeys(weights))
    if use_ema is not None:
        ways["--use-ema" if use_ema else "--no-use-ema"] = [EMA if use_ema else RAW]
    if both:
        ways["--both"] = [RAW, EMA]
    if any(set(names) != set(asked) for names in ways.values() for asked in ways.values()):
        raise UsageError(f"{' and '.join(ways)} contradict each other; give one of them")
    return next(iter(ways.values()), None)


def one_weight_set(weights: list[str] | None, use_ema: bool | None, command: str) -> str | None:
    """The name that the options ask for, or None. Raises `UsageError` for several: `command` takes one."""
    names = weight_sets(weights, use_ema)
    if names is not None and len(names) > 1:
        raise UsageError(f"bidaf {command} takes one weight set, not {len(names)}: run it once for each of them")
    return names[0] if names else None


def say_notes(models: Iterable[Loaded]) -> None:
    """What to know about weights that were synthesised, on stderr."""
    for note in dict.fromkeys(note for model in models for note in model.notes):
        say(note)
