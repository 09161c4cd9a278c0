"""The prompt of `bidaf ask`: questions on a passage, one after the other, until Ctrl-D."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bidaf.cli.answers import print_answers, print_n_best, print_passage
from bidaf.errors import BidafError, UsageError
from bidaf.messages import say

if TYPE_CHECKING:
    from bidaf.evaluation.evaluator import Prediction
    from bidaf.inference.predictor import Answerer

HELP = """\
  Type a question; the answer is marked in the passage.

  /best N        the N best answers to the last question
  /context FILE  another passage, from a text file
  /context       another passage, pasted
  /show          the passage
  /help          this
  /quit          leave (or Ctrl-D, Ctrl-C)"""
PASTE = "Paste the passage; a line with a single dot, or Ctrl-D, ends it."
END = "."
DEFAULT_BEST = 5


class Leave(Exception):
    """The user wants to end the session."""


class Dialogue:
    """One session at the prompt; an error in one line is shown, and the next line is asked for."""

    def __init__(self, predictor: Answerer, context: str | None, n_best: int) -> None:
        self._predictor = predictor
        self._context = context
        self._n_best = n_best
        self._question: str | None = None
        self._commands: dict[str, Callable[[str], None]] = {
            "/best": self._show_best,
            "/context": self._change_context,
            "/show": self._show_context,
            "/help": lambda _: say(HELP),
            "/quit": self._leave,
        }

    def run(self) -> None:
        """Ask and answer until the user leaves."""
        _edit_lines()
        say("Ask about the passage; /help lists the commands." if self._context else HELP)
        try:
            if self._context is None:
                self._guarded(self._change_context, "")
            while True:
                if line := _read("question> ").strip():
                    self._guarded(self._take, line)
        except (Leave, EOFError, KeyboardInterrupt):
            # The cursor stands behind the prompt.
            say("")

    def _guarded(self, action: Callable[[str], None], line: str) -> None:
        try:
            action(line)
        except BidafError as error:
            say(f"error: {error}")

    def _take(self, line: str) -> None:
        if not line.startswith("/"):
            self._question = line
            print_answers(*self._answers(self._n_best))
            return
        word, _, rest = line.partition(" ")
        if (command := self._commands.get(word)) is None:
            raise UsageError(f"no command {word}; there are {', '.join(self._commands)}")
        command(rest.strip())

    def _answers(self, n_best: int) -> tuple[str, list[Prediction]]:
        """The passage, and the answers to the last question in it."""
        if self._context is None:
            raise UsageError("there is no passage yet; give one with /context")
        assert self._question is not None
        return self._context, self._predictor.ask(self._question, self._context, n_best)

    def _show_best(self, number: str) -> None:
        if self._question is None:
            raise UsageError("ask a question first")
        if number and not (number.isdecimal() and int(number)):
            raise UsageError(f"/best takes a number from 1 up, not {number}")
        print_n_best(self._answers(int(number or DEFAULT_BEST))[1])

    def _change_context(self, file: str) -> None:
        context = read_context(Path(file).expanduser()) if file else _paste()
        if not context.strip():
            raise UsageError(
                "the passage is empty" if self._context is None else "that is empty; the passage is unchanged"
            )
        self._context, self._question = context, None
        say(f"passage: {len(context.split()):,} words")

    def _show_context(self, _: str) -> None:
        if self._context is None:
            raise UsageError("there is no passage yet; give one with /context")
        print_passage(self._context)

    def _leave(self, _: str) -> None:
        raise Leave


def read_context(path: Path) -> str:
    """The text of a file. Raises `DataError` for one that can't be read or is empty."""
    from bidaf.errors import DataError
    from bidaf.files.reading import read_text

    text = read_text(path)
    if not text.strip():
        raise DataError(f"{path}: is empty")
    return text


def _paste() -> str:
    say(PASTE)
    lines: list[str] = []
    try:
        while (line := _read("| ")) != END:
            lines.append(line)
    except EOFError:
        if not lines:
            raise
    return "\n".join(lines).strip()


def _read(prompt: str) -> str:
    """A line from the terminal. The prompt is not data: it goes to stderr where stdout is not a terminal."""
    if not sys.stdout.isatty():
        print(prompt, end="", file=sys.stderr, flush=True)
        prompt = ""
    try:
        return input(prompt)
    except UnicodeDecodeError:
        say("error: that line is not UTF-8 text")
        return ""


def _edit_lines() -> None:
    """Arrow keys and history; without them a terminal also cuts a pasted line at 4,096 bytes."""
    with suppress(ImportError):  # some builds of Python have none
        import readline  # noqa: F401
