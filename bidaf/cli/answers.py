"""How answers are shown: in their passage on a terminal, one per line elsewhere, as JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bidaf.cli.common import print_table

if TYPE_CHECKING:
    from bidaf.evaluation.evaluator import Prediction

# A passage of up to `WHOLE` characters is shown whole; of a longer one, `AROUND` on either side of the answer.
WHOLE, AROUND = 2000, 400
LONGEST = 200  # characters of an answer, as shown below its passage

_CONTROLS = {code: " " for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


def print_record(question: str, answers: Sequence[Prediction]) -> None:
    """One line of JSON."""
    record: dict[str, Any] = {"question": question, "answers": [answer.to_dict() for answer in answers]}
    print(json.dumps(record), flush=True)


def print_answers(context: str, answers: Sequence[Prediction]) -> None:
    """On a terminal the passage with the best answer marked; elsewhere `print_n_best`."""
    on_terminal = sys.stdout.isatty()
    if on_terminal:
        print_passage(context, answers[0])
    if len(answers) > 1 or not on_terminal:
        print_n_best(answers)


def print_passage(context: str, answer: Prediction | None = None) -> None:
    """The passage with the answer marked in it; of a long passage the part around the answer."""
    from rich.console import Console
    from rich.text import Text

    begin, end = (0, len(context)) if answer is None or len(context) <= WHOLE else _around(context, answer)
    passage = Text(_printable(context))
    if answer is not None:
        passage.stylize("bold black on bright_yellow", answer.start, answer.end)
    console = Console(highlight=False)
    console.print(Text.assemble("... " if begin else "", passage[begin:end], " ..." if end < len(context) else ""))
    if answer is not None:
        confidence = f"   confidence {answer.probability:.1%}"
        console.print(Text.assemble("\n", (_shortened(answer.shown), "bold"), (confidence, "dim"), "\n"))


def print_n_best(answers: Sequence[Prediction]) -> None:
    """The answer, then the others: a table on a terminal, elsewhere a line per answer: confidence, tab, answer."""
    if not sys.stdout.isatty():
        for answer in answers:
            print(f"{answer.probability:.4f}\t{one_line(answer.shown)}", flush=True)
        return
    rows = [
        (one_line(each.shown), f"{each.probability:.1%}", "" if each.is_empty else f"{each.start}-{each.end}")
        for each in answers
    ]
    print_table("", ("answer", "confidence", "characters"), rows)


def one_line(text: str) -> str:
    """Line breaks and runs of blanks as one blank."""
    return " ".join(_printable(text).split())


def _shortened(text: str) -> str:
    """The beginning and end of a long answer: a model that is hardly trained answers with half a passage."""
    line = one_line(text)
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


def _printable(text: str) -> str:
    """The text, character for character, without those that would control a terminal or that it can't show."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.translate(_CONTROLS).encode(encoding, "replace").decode(encoding)


def _around(context: str, answer: Prediction) -> tuple[int, int]:
    begin, end = max(0, answer.start - AROUND), min(len(context), answer.end + AROUND)
    # From one blank to another, so that no word is cut.
    before, after = context.find(" ", begin, answer.start), context.rfind(" ", answer.end, end)
    return (before + 1 if begin and before >= 0 else begin), (after if end < len(context) and after >= 0 else end)
