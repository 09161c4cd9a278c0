"""How answers are shown: in their passage on a terminal, one a line elsewhere, as JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bidaf.cli.common import print_table

if TYPE_CHECKING:
    from bidaf.evaluation.evaluator import Answered

# A passage up to this many characters is shown whole; of a longer one, so many on either side of the answer.
WHOLE, AROUND = 2000, 400


def print_record(question: str, answers: Sequence[Answered]) -> None:
    """One line of JSON."""
    record: dict[str, Any] = {"question": question, "answers": [answer._asdict() for answer in answers]}
    print(json.dumps(record), flush=True)


def print_answers(context: str, answers: Sequence[Answered]) -> None:
    """On a terminal the passage with the best answer marked; elsewhere the answers alone, each on its line."""
    if sys.stdout.isatty():
        print_passage(context, answers[0])
        if len(answers) > 1:
            print_n_best(answers)
        return
    for answer in answers:
        probability = f"{answer.probability:.4f}\t" if len(answers) > 1 else ""
        print(f"{probability}{one_line(answer.text)}", flush=True)


def print_passage(context: str, answer: Answered | None = None) -> None:
    """The passage, and in it the answer; of a long passage what is around the answer."""
    from rich.console import Console
    from rich.text import Text

    begin, end = (0, len(context)) if answer is None or len(context) <= WHOLE else _around(context, answer)
    passage = Text(context)
    if answer is not None:
        passage.stylize("bold black on bright_yellow", answer.start, answer.end)
    shown = passage[begin:end]
    console = Console(highlight=False)
    console.print(Text.assemble("… " if begin else "", shown, " …" if end < len(context) else ""))
    if answer is not None:
        confidence = f"   {answer.probability:.1%} confident"
        console.print(Text.assemble("\n", (one_line(answer.text), "bold"), (confidence, "dim"), "\n"))


def print_n_best(answers: Sequence[Answered]) -> None:
    """A table, most probable first."""
    rows = [
        (str(rank), one_line(answer.text), f"{answer.probability:.1%}", f"{answer.start}-{answer.end}")
        for rank, answer in enumerate(answers, 1)
    ]
    print_table("", ("", "answer", "confidence", "characters"), rows)


def one_line(text: str) -> str:
    """Line breaks and runs of blanks as one blank."""
    return " ".join(text.split())


def _around(context: str, answer: Answered) -> tuple[int, int]:
    begin, end = max(0, answer.start - AROUND), min(len(context), answer.end + AROUND)
    # From one blank to another, so that no word is cut.
    before, after = context.find(" ", begin, answer.start), context.rfind(" ", answer.end, end)
    return (before + 1 if begin and before >= 0 else begin), (after if end < len(context) and after >= 0 else end)
