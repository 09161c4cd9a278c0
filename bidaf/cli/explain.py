"""`bidaf explain`: the attention behind an answer, as a page or an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bidaf.cli.common import DeviceOption, JsonOption, ModelOption, print_json, print_line, say_report
from bidaf.cli.weights import (
    AllowErrorOption,
    AtOption,
    BothOption,
    SeveralWeightsOption,
    UseEmaOption,
    say_notes,
    weight_sets,
)
from bidaf.errors import DataError, UsageError
from bidaf.files.writing import check_output

if TYPE_CHECKING:
    from bidaf.data.squad import Example

STDIN = "-"


def explain_command(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Questions of the run's dev set, or of --data.")
    ] = None,
    context: Annotated[
        str | None, typer.Option("--context", "-c", metavar="FILE", help="A text of your own; - for stdin.")
    ] = None,
    question: Annotated[
        list[str] | None, typer.Option("--question", "-q", help="A question on that text. Repeatable.")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="The ids are of this file.  [default: the run's dev set]")
    ] = None,
    model: ModelOption = None,
    weights: SeveralWeightsOption = None,
    use_ema: UseEmaOption = None,
    both: BothOption = False,
    at: AtOption = None,
    allow_error: AllowErrorOption = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="Write the page here.")] = Path("explain.html"),
    png: Annotated[
        Path | None,
        typer.Option("--png", metavar="FILE", help="Also draw the question as an image (one question only)."),
    ] = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Show why a model answers what it answers, as a page that opens from the disk.

    Attention between context and question as a heat map, start and end probabilities under the text, the most probable
    answers: of each weight set of the run, side by side, of those named with --weights, or of each member of an
    ensemble.
    """
    if bool(ids) == bool(question):
        raise UsageError("name ids of a dev set, or give --context FILE with --question TEXT (and not both)")
    if (context is None) != (not question):
        raise UsageError("--context and --question go together")
    if data is not None and question:
        raise UsageError("--data goes with ids; leave it out")
    if png is not None and len(ids or question or ()) > 1:
        raise UsageError("--png draws one question")
    names = weight_sets(weights, use_ema, both=both)
    for path in (output, png):
        if path is not None:
            check_output(path)
    examples = [] if context is None else _own_questions(context, question or [])

    from bidaf.device import choose_device
    from bidaf.inference.ensemble import load_named_sets
    from bidaf.inference.explain import find_questions
    from bidaf.reporting.explain import write_explanation

    models = load_named_sets(model, names, choose_device(device), at=at, allow_error=allow_error)
    say_notes(models)
    write_explanation(models, examples or find_questions(models[0], ids or [], data, on_report=say_report), output, png)
    if json:
        print_json({"page": str(output), "png": str(png) if png else None})
        return
    for path in (output, png):
        if path is not None:
            print_line(str(path))


def _own_questions(context: str, questions: list[str]) -> list[Example]:
    """Questions on a text of the user's own."""
    from bidaf.data.squad import Example
    from bidaf.files.reading import read_stdin, read_text

    text = read_stdin() if context == STDIN else read_text(Path(context))
    for name, given in (("the context", text), *(("--question", question) for question in questions)):
        if not given.strip():
            raise DataError(f"{name} is empty")
    return [Example(str(number), question, text, ()) for number, question in enumerate(questions)]
