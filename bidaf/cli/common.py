"""Options that several commands share, and how results and messages are shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bidaf.cli.completion import complete_config, complete_run, complete_setting
from bidaf.messages import printable, say

if TYPE_CHECKING:
    from bidaf.data.questions import ReadReport
    from bidaf.progress import Bar

CONFIG_HELP = "A YAML file: a path, or the name of one that comes with bidaf, such as mini.yaml."
ConfigOption = Annotated[str, typer.Option("--config", "-c", help=CONFIG_HELP, autocompletion=complete_config)]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Change a setting, as in training.batch_size=32. Repeatable.",
        autocompletion=complete_setting,
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="A run, checkpoint, export or ensemble folder.  [default: the newest run's best]",
        autocompletion=complete_run,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Refuse data with any record that can't be used.")]
AnswerableOnlyOption = Annotated[
    bool, typer.Option("--answerable-only", help="Leave out questions without an answer and score by SQuAD v1.1.")
]


def say_rule(rule: str, left_out: int) -> None:
    """Report the official rule that was used, and how many questions it has no score for."""
    say(f"scored by the rule of {rule}")
    if left_out:
        say(f"{left_out:,} unanswerable questions are left out")


def to_json(value: Any) -> str:
    """Readable JSON; with escapes where the text can't be encoded as UTF-8."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    return text if _can_be_encoded(text, "utf-8") else json.dumps(value, indent=2) + "\n"


def _can_be_encoded(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def say_report(report: ReadReport) -> None:
    """Show what was read of a source, and what was skipped."""
    for message in report.messages():
        say(message)


def print_line(text: str) -> None:
    """A result for people, on stdout; what would control a terminal is escaped."""
    print(printable(text), flush=True)


def print_json(value: Any) -> None:
    """Data for programs, on stdout; with escapes where that has another encoding than the text needs."""
    text = to_json(value)
    print(text if _can_be_encoded(text, sys.stdout.encoding or "utf-8") else json.dumps(value, indent=2) + "\n", end="")


def questions_bar(total: int, unit: str = "question") -> Bar:
    """Progress over questions on stderr; nothing when that is not a terminal."""
    from bidaf.progress import bar

    return bar("answer", unit, total)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout, under its title if it has one; numbers to the right.

    On a terminal that is too narrow, each row takes two lines: its first cell, and the others below it.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
    width = sum(widths) + 3 * len(widths) + 1  # with the borders
    if title:
        print_line(title)
    if sys.stdout.isatty() and width > Console().width:
        for row in (columns, *cells):
            _, *others = (" " * (size - cell_len(cell)) + cell for cell, size in zip(row, widths, strict=True))
            print("\n".join(filter(None, (row[0], f"  {'  '.join(others)}"))))
        return
    table = Table()
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in cells:
        table.add_row(*map(Text, row))
    console = Console(width=width)
    with console.capture() as shown:  # rich itself would end the process on a broken pipe
        console.print(table)
    print(shown.get(), end="")
