"""`bidaf ask`: questions on one text, at a prompt, from the command line, or through a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bidaf.cli.answers import print_answers, print_record
from bidaf.cli.common import DeviceOption, ModelOption
from bidaf.cli.weights import AllowErrorOption, AtOption, UseEmaOption, WeightsOption, one_weight_set, say_notes
from bidaf.errors import DataError, UsageError
from bidaf.messages import say

if TYPE_CHECKING:
    from bidaf.inference.predictor import Answerer

STDIN = "-"


def ask_command(
    context: Annotated[
        str | None, typer.Option("--context", "-c", metavar="FILE", help="The text to ask about; - for stdin.")
    ] = None,
    question: Annotated[
        list[str] | None, typer.Option("--question", "-q", help="Answer this and end. Repeatable.")
    ] = None,
    model: ModelOption = None,
    weights: WeightsOption = None,
    use_ema: UseEmaOption = None,
    at: AtOption = None,
    allow_error: AllowErrorOption = False,
    n_best: Annotated[int, typer.Option(min=1, help="Number of answers per question.")] = 1,
    device: DeviceOption = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per question, each on its line.")] = False,
) -> None:
    """Ask about a text of your own.

    On a terminal this opens a prompt; /help lists its commands. With --question it answers those and ends. Questions
    can also come through a pipe, one per line, or the text can, with --context -. Away from a terminal each answer is
    one line: confidence, tab, answer.
    """
    from bidaf.cli.dialogue import Dialogue, read_context
    from bidaf.files.reading import read_stdin
    from bidaf.library import load

    name = one_weight_set(weights, use_ema, "ask")
    piped = not sys.stdin.isatty()
    if json and not (question or piped):
        raise UsageError("--json takes its questions from --question or from standard input, one per line")
    if context == STDIN and not question:
        raise UsageError("--context - reads the text from standard input, so give the questions with --question")
    if context is None and (question or piped):
        raise UsageError("name the text: --context FILE, or --context - for standard input")
    if question and not all(each.strip() for each in question):
        raise UsageError("--question is empty")
    text = None
    if context is not None:
        text = read_stdin() if context == STDIN else read_context(Path(context))
        if not text.strip():
            raise DataError("standard input: is empty")
    predictor = load(model, weights=name, at=at, allow_error=allow_error, device=device)
    say_notes([predictor.loaded])
    say(f"answering with the {predictor.loaded.description}")
    if text is not None and (question or piped):
        answer_each(predictor, text, question or _lines(), n_best=n_best, json=json)
    else:
        Dialogue(predictor, text, n_best).run()


def answer_each(predictor: Answerer, context: str, questions: Iterable[str], *, n_best: int, json: bool) -> None:
    """Print the answers to one question after the other, each as soon as it is known."""
    for question in questions:
        answers = predictor.ask(question, context, n_best)
        if json:
            print_record(question, answers)
        else:
            print_answers(context, answers)


def _lines() -> Iterator[str]:
    """Questions from standard input as they come; blank lines are none."""
    from bidaf.files.reading import stdin_lines

    found = False
    for line in stdin_lines():
        if question := line.strip():
            found = True
            yield question
    if not found:
        raise DataError("standard input: holds no question; give one per line")
