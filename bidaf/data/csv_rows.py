"""The rows of a CSV or TSV file, and the lists that cells hold.

A quote that is never closed would make one cell of all that follows, up to the next quote. Where the quotes of a row
are wrong, its first line is read by itself, and skipped if a quote stays open; the lines after it are rows of their
own.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import IO, Any

from bidaf.data.schemas import KEYS
from bidaf.errors import DataError
from bidaf.files import reading
from bidaf.files.reading import quote

DELIMITERS = {".csv": ",", ".tsv": "\t"}
SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
OPEN_QUOTE = "opens a quote that its cell does not close"
MOST_REPEATED = 100_000
"""Lines that may be read again after wrong quotes, besides 20 times those of the file: each row might read them all."""
MORE_CELLS = "has more cells than columns; a text that holds the separator needs quotes around it"
ANSWERS = KEYS["answers"] + KEYS["detected_answers"]
LISTED_IN_CELLS = (*ANSWERS, *KEYS["answer_start"], "contexts", "passages")
_STRINGS = re.compile(r"""('(?:[^'\\]|\\.)*'?|"(?:[^"\\]|\\.)*"?)(\s*(?=['"]))?""", re.DOTALL)
"""A Python string, and the blanks up to another one that follows without a comma. It always matches, in one pass."""
_NUMBERS = re.compile(r"\s*\[\s*-?\d+(\s+-?\d+)*\s*\]\s*")
"""A list of NumPy's integers."""


def read_csv(stream: IO[bytes], where: str, delimiter: str) -> Iterator[dict[str, Any] | str]:
    """Each row by the names of its columns, which the first one gives; or what is wrong with the row.

    Raises `DataError` for what is no table, and where the names of the columns can't be used.
    """
    csv.field_size_limit(reading.MAX_BYTES)  # 128 kB otherwise; contexts may be longer
    with io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
        try:
            rows = _rows(text, delimiter)
            columns = _columns(next(rows, None), where)
            for number, cells in enumerate(rows, 1):
                if number % 1_000 == 0 and text.buffer.tell() > reading.MAX_BYTES:
                    raise DataError(f"{where}: holds more than {reading.MAX_BYTES:,} bytes of text; split it")
                yield cells if isinstance(cells, str) else _by_column(columns, cells)
        except UnicodeDecodeError:
            raise DataError(f"{where}: is not UTF-8; convert it (iconv -t UTF-8)") from None
        except csv.Error as error:
            raise DataError(f"{where}: can't be read as a table: {error}") from None


def _rows(text: IO[str], delimiter: str) -> Iterator[list[str] | str]:
    """The cells of every row that is not blank, or what is wrong with its quotes."""
    again: list[str] = []  # lines that come once more, the next one last
    taken: list[str] = []
    fresh = repeated = 0

    def lines() -> Iterator[str]:
        nonlocal fresh
        while True:
            if again:
                line = again.pop()
            elif line := text.readline():
                fresh += 1
            else:
                return
            taken.append(line)
            yield line

    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    while True:
        taken.clear()
        cells: list[str] | str | None
        try:
            cells = next(reader, None)
        except csv.Error:
            first, *rest = taken
            again += reversed(rest)
            repeated += len(rest)
            if repeated > MOST_REPEATED + 20 * fresh:
                raise csv.Error("many rows open a quote that they do not close") from None
            cells = _of_line(first, delimiter)
            reader = csv.reader(lines(), delimiter=delimiter, strict=True)
        if cells is None:
            return
        if cells:
            yield cells


def _of_line(line: str, delimiter: str) -> list[str] | str:
    """The cells of a line with wrong quotes, such as `"Rome" is old`: usable, unless the last one is open."""
    lines = iter([line, ""])  # the second is left where the row ends with the first
    cells = next(csv.reader(lines, delimiter=delimiter))
    return cells if "" in lines else OPEN_QUOTE


def _columns(first: list[str] | str | None, where: str) -> list[str]:
    if first is None:
        raise DataError(f"{where}: is empty")
    if isinstance(first, str):
        raise DataError(f"{where}: the first row, which names the columns, {first}")
    others = [name for separator, name in SEPARATORS.items() if separator in first[0]]
    if len(first) == 1 and others:
        raise DataError(
            f"{where}: the first row names one column, and holds {others[0]}; "
            "separate columns with commas (.csv) or tabs (.tsv)"
        )
    repeated = [name for name, count in Counter(filter(None, first)).items() if count > 1]
    if repeated:
        raise DataError(f"{where}: has two columns {quote(repeated[0])}; keep one of the two")
    return first


def _by_column(columns: list[str], cells: list[str]) -> dict[str, Any] | str:
    if any(cells[len(columns) :]):
        return MORE_CELLS
    row = dict.fromkeys(columns) | dict(zip(columns, cells, strict=False))
    return {name: _cell(name, row) for name in row if name}


def _cell(name: str, row: Mapping[str, str | None]) -> Any:
    """Answers, their offsets and several contexts are JSON or Python literals; any other text is itself."""
    cell = row[name]
    if cell is None or name not in LISTED_IN_CELLS or cell.lstrip()[:1] not in ("{", "["):
        return cell
    for parse in (json.loads, _literal):
        try:
            value = parse(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        # Answers are cut from contexts: a "[5]" that stands there is a text. An empty list may stand there by chance.
        contexts = (_cell(key, row) for key in KEYS["context"] if key in row)
        is_text = value and name in ANSWERS and any(cell in each for each in contexts if isinstance(each, str))
        return cell if is_text else value
    return cell


def _literal(text: str) -> Any:
    """A Python literal; lists may be NumPy's: `array([...])`, which `datasets` writes, `['a' 'b']`, `[ 0 5]`."""
    if _NUMBERS.fullmatch(text):
        return [int(number) for number in text.strip().strip("[]").split()]
    text = _STRINGS.sub(lambda found: found[1] + ("" if found[2] is None else ","), text)
    return ast.literal_eval(_ArraysToLists().visit(ast.parse(text.strip(), mode="eval")))


class _ArraysToLists(ast.NodeTransformer):
    def visit_Call(self, node: ast.Call) -> ast.expr:
        is_array = isinstance(node.func, ast.Name) and node.func.id == "array" and node.args
        return node.args[0] if is_array else node
