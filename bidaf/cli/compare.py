"""`bidaf compare`: which of two is better, and whether these questions can tell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bidaf.cli.common import (
    AnswerableOnlyOption,
    DeviceOption,
    JsonOption,
    print_json,
    print_line,
    print_table,
    say_report,
    say_rule,
)
from bidaf.cli.completion import complete_run
from bidaf.cli.weights import AllowErrorOption
from bidaf.errors import UsageError
from bidaf.messages import say


def compare_command(
    a: Annotated[
        str | None,
        typer.Argument(
            metavar="A",
            help="A run, checkpoint, export or prediction file.  [default: the newest run]",
            autocompletion=complete_run,
        ),
    ] = None,
    b: Annotated[
        str | None,
        typer.Argument(metavar="B", help="Likewise.  [default: another weight set of A]", autocompletion=complete_run),
    ] = None,
    seeds_a: Annotated[
        list[str] | None, typer.Option("--a", metavar="A", help="A seed of A, in place of the argument. Repeatable.")
    ] = None,
    seeds_b: Annotated[list[str] | None, typer.Option("--b", metavar="B", help="Likewise of B.")] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option("--weights", metavar="NAME", help="A weight set for all models, or twice: A's and B's."),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="Questions with gold answers.  [default: the run's dev set]")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write a page (.html) or a plot (.png, .svg) of the differences."),
    ] = None,
    answerable_only: AnswerableOnlyOption = False,
    allow_error: AllowErrorOption = False,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Compare two systems on the same questions: EM and F1, their difference with its interval, and a verdict.

    The interval counts articles, not questions, as independent. `bidaf compare RUN` compares the raw weights (A) with
    the shadow (B) of one run; `--a R0 --a R1 --b S0 --b S1` compares two systems of two seeds each.
    """
    from bidaf.files.writing import check_output
    from bidaf.inference.systems import compare_named, pair_names
    from bidaf.reporting.comparison import check_suffix, remarks, tables, write_comparison

    if (seeds_a or seeds_b) and (a or b):
        raise UsageError("name A and B as arguments, or each seed with --a and --b, but not both")
    if seeds_b and not seeds_a:
        raise UsageError("--b needs as many --a")
    names_a, names_b = seeds_a or ([a] if a else []), seeds_b or ([b] if b else [])
    if output is not None:
        check_suffix(output)
        check_output(output)
    pair = pair_names(names_a, names_b, weights or [])
    comparison = compare_named(
        pair,
        data=data,
        device=device,
        answerable_only=answerable_only,
        allow_error=allow_error,
        on_report=say_report,
    )
    if output is not None:
        write_comparison(comparison, output)
        say(f"written: {output}")
    say_rule(comparison.rule, comparison.unanswerable)
    if comparison.missing:
        say(f"{comparison.missing:,} questions are answered by neither and score 0")
    if comparison.unknown:
        say(f"{comparison.unknown:,} answered ids are not in the data and are ignored")
    if json:
        print_json(comparison.to_dict())
        return
    print_line(f"A: {comparison.a}")
    print_line(f"B: {comparison.b}")
    for title, columns, rows in tables(comparison):
        print_table(title, columns, rows)
    for line in remarks(comparison):
        print_line(line)
