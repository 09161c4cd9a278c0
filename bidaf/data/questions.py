"""The one reader of all commands: from a source of any known schema to examples, every record that is skipped counted.

Bad records never stop a file. What is skipped is reported by reason and place; a file is refused when it has no known
schema or no usable record, or when `strict` asks for it.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bidaf.data.documents import Documents, Unreadable, read_documents, read_stdin
from bidaf.data.records import make_example
from bidaf.data.schemas import SCHEMAS, Schema, find_schema, walk
from bidaf.data.sources import Source, find_source
from bidaf.data.squad import Example
from bidaf.errors import DataError
from bidaf.files.reading import Place, kind_of, quote, show_place

NAMED_PLACES = 10
STDIN = "standard input"


@dataclass
class ReadReport:
    """What became of the records of a source: `read` is the number of examples and of all that were skipped."""

    source: str
    schema: str = ""
    read: int = 0
    skipped: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> the places of the records that were skipped for it."""
    made_ids: int = 0
    """Questions without an id, which got their position as id."""

    @property
    def num_skipped(self) -> int:
        """Number of skipped records, over all reasons."""
        return sum(map(len, self.skipped.values()))

    def skip(self, reason: str, place: Place) -> None:
        """Count a record that can't be used."""
        self.skipped.setdefault(reason, []).append(show_place(place) or "the top level")

    def problems(self) -> list[str]:
        """A line per reason, with the number and the places of its first records."""
        return [f"{reason} ({len(places):,}): {_listed(places)}" for reason, places in self.skipped.items()]

    def messages(self) -> list[str]:
        """The schema and the number of questions; then what was skipped and made up, if anything was."""
        lines = [f"{self.source}: {self.schema}, questions: {self.read:,}"]
        if self.made_ids:
            lines.append(f"{self.source}: questions without an id, which get their position: {self.made_ids:,}")
        if self.skipped:
            lines.append(f"{self.source}: skipped {self.num_skipped:,} of {self.read:,}")
            lines += [f"  {problem}" for problem in self.problems()]
        return lines


OnReport = Callable[[ReadReport], None]


def warn(report: ReadReport) -> None:
    """Warn of what was skipped: what Python users get who give no `on_report` of their own."""
    if report.skipped:
        warnings.warn("\n".join(report.messages()[1:]), stacklevel=2)


def read_questions(
    source: Source | Path | str | None,
    *,
    need_answers: bool = False,
    strict: bool = False,
    on_report: OnReport = warn,
) -> list[Example]:
    """All usable questions of a source, of standard input for None and `-`, in their order.

    Answers are kept as they are given, wherever they stand. With `need_answers` a question must have one, or be said to
    have none. Questions without an id get their position ("0", "1", ...), with `_` appended while another one has that
    id; of questions with one id the first is kept. `on_report` gets what was read and skipped. Raises `DataError` for
    what can't be read, has no known schema or no usable question, and with `strict` for any skipped record.
    """
    if source is None or str(source) == "-":
        documents, where = read_stdin(), STDIN
    else:
        source = source if isinstance(source, Source) else find_source(str(source), "dev")
        documents, where = read_documents(source), str(source.place if isinstance(source.place, Path) else source.name)
    return _read(documents, ReadReport(where), need_answers, strict, on_report)


def as_examples(records: Any) -> list[Example]:
    """Questions that a program holds, in any schema: one, several, or a pandas data frame.

    Several are anything that can be iterated over, a data set of the library `datasets` for one. Raises `DataError` for
    anything else, and for the first that is no question: a program can mend what it made.
    """
    where = "the questions"
    if isinstance(records, Mapping):
        records = [records]
    elif hasattr(records, "iterrows"):
        records = records.astype(object).where(records.notna(), None).to_dict("records")
    if isinstance(records, str | bytes) or not isinstance(records, Iterable):
        raise DataError(f"{where}: found {type(records).__name__}\n{_known_schemas()}")
    placed: Documents = (((number,), _plain(record)) for number, record in enumerate(records))
    return _read(placed, ReadReport(where), need_answers=False, strict=True, on_report=warn)


def _plain(value: Any) -> Any:
    """NumPy's arrays and numbers, which data frames and data sets hold, as lists and numbers."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value


def _read(
    documents: Documents, report: ReadReport, need_answers: bool, strict: bool, on_report: OnReport
) -> list[Example]:
    with _collector_paused():
        examples = _with_ids(_examples(documents, report, need_answers), report)
    if strict and report.skipped:
        problems = "\n  ".join(report.problems())
        raise DataError(f"{report.source}: {report.num_skipped:,} of {report.read:,} can't be used:\n  {problems}")
    if not examples:
        reasons = "".join(f"\n  {problem}" for problem in report.problems())
        raise DataError(f"{report.source}: no question can be used, of {report.read:,}{reasons}\n{_known_schemas()}")
    on_report(report)
    return examples


def _examples(documents: Documents, report: ReadReport, need_answers: bool) -> Iterator[tuple[int, Place, Example]]:
    """Each example with its position among all records; its id is empty where none is given."""
    schema: Schema | None = None
    first: Any = None
    for place, document in documents:
        if isinstance(document, Unreadable):
            report.read += 1
            report.skip(document.reason, place)
            continue
        if schema is None:
            if report.read == 0 and isinstance(document, Mapping) and document.keys() == {"header"}:
                continue  # how files of MRQA begin
            first = document if first is None else first
            schema = find_schema(document)
            report.schema = schema.name if schema else ""
        for found_at, fields in walk(document, schema, place) if schema else [(place, "is of no known schema")]:
            position, report.read = report.read, report.read + 1
            example = fields if isinstance(fields, str) else make_example(fields, need_answers)
            if isinstance(example, str):
                report.skip(example, found_at)
            else:
                yield position, found_at, example
    if schema is None and first is not None:
        raise DataError(f"{report.source}: has no known schema, it holds {_description(first)}\n{_known_schemas()}")


def _with_ids(placed: Iterable[tuple[int, Place, Example]], report: ReadReport) -> list[Example]:
    examples: list[tuple[int, Example]] = []
    given: set[str] = set()
    for position, place, example in placed:
        if example.id in given:
            report.skip("id is already that of another question", place)
            continue
        if example.id:
            given.add(example.id)
        examples.append((position, example))
    return [example if example.id else _with_id(position, example, given, report) for position, example in examples]


def _with_id(position: int, example: Example, given: set[str], report: ReadReport) -> Example:
    id = str(position)
    while id in given:
        id += "_"
    given.add(id)
    report.made_ids += 1
    return replace(example, id=id)


def _listed(places: list[str]) -> str:
    more = f" and {len(places) - NAMED_PLACES:,} more" if len(places) > NAMED_PLACES else ""
    return ", ".join(places[:NAMED_PLACES]) + more


def _description(document: Any) -> str:
    if not isinstance(document, Mapping):
        return kind_of(document)
    keys = ", ".join(quote(str(key)) for key in list(document)[:NAMED_PLACES])
    return f"an object with {keys or 'no key'}"


def _known_schemas() -> str:
    return "Known schemas:\n  " + "\n  ".join(f"{schema.name}: {schema.outline}" for schema in SCHEMAS)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause cyclic garbage collection: re-walking a growing heap that holds no cycles quadruples the reading time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
