"""`bidaf explain`: the attention behind an answer, as a page or a picture."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bidaf.cli.common import DeviceOption, JsonOption, ModelOption, print_json
from bidaf.errors import DataError, UsageError
from bidaf.files.writing import write_output

if TYPE_CHECKING:
    from bidaf.data.squad import Example
    from bidaf.inference.attention import Explained
    from bidaf.inference.loading import LoadedModel

STDIN = "-"


def explain_command(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Questions of the run's dev set, or of --data.")
    ] = None,
    context: Annotated[
        str | None, typer.Option("--context", "-c", metavar="FILE", help="A text of your own; - for stdin.")
    ] = None,
    question: Annotated[list[str] | None, typer.Option("--question", "-q", help="Ask this on it. Repeatable.")] = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="The ids are of this file.  [default: the run's dev set]")
    ] = None,
    model: ModelOption = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Write the page here.")] = Path("explain.html"),
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Draw the one question too.")] = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Show why a model answers what it answers, as a page that opens from the disk.

    Attention between context and question as a heat map, start and end probabilities under the text, the most probable
    answers: of raw and shadow weights, side by side.
    """
    if bool(ids) == bool(question):
        raise UsageError("name ids of a dev set, or give --context FILE with --question TEXT (and not both)")
    if (context is None) != (not question):
        raise UsageError("--context and --question go together")
    if data is not None and question:
        raise UsageError("--data goes with ids; leave it out")
    if png is not None and len(ids or question or ()) > 1:
        raise UsageError("--png draws one question")
    explained, origin = explain(ids or [], _asked(context, question or []), data=data, model=model, device=device)
    write_explained(explained, origin, output, png)
    if json:
        print_json({"page": str(output), "png": str(png) if png else None})
        return
    for path in (output, png):
        if path is not None:
            print(path)


def explain(
    ids: Sequence[str], examples: Sequence[Example], *, data: str | None, model: str | None, device: str
) -> tuple[list[Explained], str]:
    """Explain the questions with these ids (of the file `data`, or the model's dev set) and these examples.

    Returns them with the folder of the model that answered.
    """
    from bidaf.device import choose_device
    from bidaf.inference import attention
    from bidaf.inference.loading import load_all_weights

    models = load_all_weights(model, choose_device(device))
    if ids:
        examples = [*_find(ids, data, models[0]), *examples]
    return list(attention.explain(models, examples)), str(models[0].origin)


def write_explained(explained: Sequence[Explained], origin: str, output: Path, png: Path | None) -> None:
    """Write the page, and the picture of the first question where one is asked for."""
    from bidaf.reporting.attention_image import write_picture
    from bidaf.reporting.explain import explain_page

    write_output(output, explain_page(explained, origin))
    if png is not None:
        write_picture(explained[0], png)


def _asked(context: str | None, questions: Sequence[str]) -> list[Example]:
    """Questions on a text of the user's own."""
    from bidaf.data.squad import Example
    from bidaf.files.reading import decode, read_text

    if context is None:
        return []
    text = decode(sys.stdin.buffer.read(), "standard input") if context == STDIN else read_text(Path(context))
    for name, given in (("the context", text), *(("--question", question) for question in questions)):
        if not given.strip():
            raise DataError(f"{name} is empty")
    return [Example(str(number), question, text, ()) for number, question in enumerate(questions)]


def _find(ids: Sequence[str], data: str | None, model: LoadedModel) -> list[Example]:
    from bidaf.data.questions import read_questions
    from bidaf.inference.attention import dev_examples, find_id

    if data is not None:
        known = {example.id: example for example in read_questions(data)}
        return [find_id(id, known, data) for id in ids]
    if (features := model.dev_features()) is None:
        raise DataError(f"{model.origin} is an export and has no dev set; name the file of the ids with --data")
    return dev_examples(features, ids)
