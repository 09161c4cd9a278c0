"""`bidaf ask`: questions on one text, at a prompt, in one go, or through a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bidaf.cli.answers import print_answers, print_record
from bidaf.cli.common import DeviceOption, ModelOption, UseEmaOption
from bidaf.errors import DataError, UsageError
from bidaf.messages import say

if TYPE_CHECKING:
    from bidaf.inference.predictor import Predictor

STDIN = "-"


def ask_command(
    context: Annotated[
        str | None, typer.Option("--context", "-c", metavar="FILE", help="The text to ask about; - for stdin.")
    ] = None,
    question: Annotated[
        list[str] | None, typer.Option("--question", "-q", help="Answer this and end. Repeatable.")
    ] = None,
    model: ModelOption = None,
    use_ema: UseEmaOption = True,
    n_best: Annotated[int, typer.Option(min=1, help="Give so many answers each.")] = 1,
    device: DeviceOption = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a question, each on its line.")] = False,
) -> None:
    """Ask about a text of your own.

    On a terminal: a prompt that takes one question after the other. With --question: those, and the end. Questions
    also come through a pipe, one a line; the text does with --context -.
    """
    from bidaf.cli.dialogue import Dialogue, read_context
    from bidaf.library import load

    piped = not sys.stdin.isatty()
    if json and not (question or piped):
        raise UsageError("--json takes its questions from --question or from standard input, one a line")
    if context == STDIN and not question:
        raise UsageError("--context - reads the text from standard input, so give the questions with --question")
    if context is None and (question or piped):
        raise UsageError("name the text: --context FILE, or --context - for standard input")
    text = None if context is None else _standard_input() if context == STDIN else read_context(Path(context))
    if not (question or piped):
        predictor = load(model, use_ema=use_ema, device=device)
        say(f"{predictor.loaded.weights} weights of {predictor.loaded.origin}")
        Dialogue(predictor, text, n_best).run()
        return
    assert text is not None
    asked = _checked(question) if question else _lines()
    answer_each(load(model, use_ema=use_ema, device=device), text, asked, n_best=n_best, json=json)


def answer_each(predictor: Predictor, context: str, questions: Iterable[str], *, n_best: int, json: bool) -> None:
    """Print the answers to one question after the other, each as soon as it is known."""
    for question in questions:
        answers = predictor.ask(question, context, n_best)
        if json:
            print_record(question, answers)
        else:
            print_answers(context, answers)


def _standard_input() -> str:
    from bidaf.files.reading import read_stdin

    text = read_stdin()
    if not text.strip():
        raise DataError("standard input: is empty")
    return text


def _checked(questions: list[str]) -> list[str]:
    if not all(question.strip() for question in questions):
        raise UsageError("--question is empty")
    return questions


def _lines() -> Iterator[str]:
    """Questions from standard input as they come; blank lines are none."""
    from bidaf.files.reading import stdin_lines

    found = False
    for line in stdin_lines():
        if question := line.strip():
            found = True
            yield question
    if not found:
        raise DataError("standard input: holds no question; give one a line")
