"""The one reader of all commands: from a source of any known schema to examples, every record that is skipped counted.

Bad records never stop a file. What is skipped is reported by reason and place; a file is refused when it has no known
schema or no usable record, or when `strict` asks for it. `read_questions` holds all examples in memory;
`stream_questions` holds one at a time, and reads the source twice for it.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bidaf.data.documents import Documents, Unreadable, read_documents, read_stdin
from bidaf.data.records import ANY_QUESTION, Needs, make_example
from bidaf.data.schemas import SCHEMAS, Schema, find_schema, walk
from bidaf.data.sources import Source, find_source
from bidaf.data.squad import Example
from bidaf.errors import DataError
from bidaf.files.reading import Place, kind_of, quote, show_place

NAMED_PLACES = 10
STDIN = "standard input"

Placed = tuple[int, Place, Example]
"""The position of a record among all of them, its place, and the example that it holds."""


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
    passages: bool = False,
    strict: bool = False,
    on_report: OnReport = warn,
) -> list[Example]:
    """All usable questions of a source, of standard input for None and `-`, in their order.

    Answers are kept as they are given, wherever they stand. With `need_answers` a question must have one, or be said to
    have none; with `passages` it may have several contexts. Questions without an id get their position ("0", "1", ...),
    with `_` appended while another one has that id; of questions with one id the first is kept. `on_report` gets what
    was read and skipped. Raises `DataError` for what can't be read, has no known schema or no usable question, and with
    `strict` for any skipped record.
    """
    if is_stdin(source):
        documents, report = read_stdin(), ReadReport(STDIN)
    else:
        documents, report = _open(source if isinstance(source, Source) else find_source(str(source), "dev"))
    return _read(documents, report, Needs(need_answers, passages), strict, on_report)


def is_stdin(source: Source | Path | str | None) -> bool:
    """Whether this names standard input."""
    return source is None or str(source) == "-"


class QuestionStream(Collection[Example]):
    """The usable questions of a source, which is read from its beginning whenever they are iterated over."""

    def __init__(self, source: Source, ids: _Ids) -> None:
        self.source = source
        self.num_passages = ids.num_passages
        self._ids = ids

    def __len__(self) -> int:
        return self._ids.num_questions

    def __iter__(self) -> Iterator[Example]:
        documents, report = _open(self.source)
        return self._ids.apply(_examples(documents, report, ANY_QUESTION))

    def __contains__(self, example: object) -> bool:
        return any(each == example for each in self)


def stream_questions(source: str, *, strict: bool = False, on_report: OnReport = warn) -> QuestionStream:
    """What `read_questions` gives with `passages`, as a stream: for files of lines and tables that are large.

    The first reading, which is made now, finds what is skipped and which ids are made. Raises as `read_questions`, and
    `DataError` for a pipe.
    """
    found = find_source(source, "dev")
    if isinstance(found.place, Path) and found.place.exists() and not (found.place.is_file() or found.place.is_dir()):
        raise DataError(f"{source}: is a pipe or a device, which can't be read twice; name a file")
    documents, report = _open(found)
    with _collector_paused():
        ids = _Ids.settle(_examples(documents, report, ANY_QUESTION), report)
    _accept(report, strict, on_report)
    return QuestionStream(found, ids)


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
    return _read(placed, ReadReport(where), ANY_QUESTION, strict=True, on_report=warn)


def _plain(value: Any) -> Any:
    """NumPy's arrays and numbers, which data frames and data sets hold, as lists and numbers."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value


def _open(source: Source) -> tuple[Documents, ReadReport]:
    where = source.place if isinstance(source.place, Path) else source.name
    return read_documents(source), ReadReport(str(where))


def _read(documents: Documents, report: ReadReport, needs: Needs, strict: bool, on_report: OnReport) -> list[Example]:
    with _collector_paused():
        placed = list(_examples(documents, report, needs))
        ids = _Ids.settle(placed, report)
    _accept(report, strict, on_report)
    return list(ids.apply(placed))


def _accept(report: ReadReport, strict: bool, on_report: OnReport) -> None:
    if strict and report.skipped:
        problems = "\n  ".join(report.problems())
        raise DataError(f"{report.source}: {report.num_skipped:,} of {report.read:,} can't be used:\n  {problems}")
    if report.num_skipped == report.read:
        reasons = "".join(f"\n  {problem}" for problem in report.problems())
        raise DataError(f"{report.source}: no question can be used, of {report.read:,}{reasons}\n{_known_schemas()}")
    on_report(report)


def _examples(documents: Documents, report: ReadReport, needs: Needs) -> Iterator[Placed]:
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
            example = fields if isinstance(fields, str) else make_example(fields, needs)
            if isinstance(example, str):
                report.skip(example, found_at)
            else:
                yield position, found_at, example
    if schema is None and first is not None:
        raise DataError(f"{report.source}: has no known schema, it holds {_description(first)}\n{_known_schemas()}")


@dataclass(frozen=True)
class _Ids:
    """What the ids of all records decide: which are skipped, and what those without an id are called."""

    repeated: frozenset[int]
    """Positions of the records whose id an earlier one has."""
    made: Mapping[int, str]
    """Position -> the made id; missing where that is the position itself."""
    num_questions: int
    num_passages: int

    @classmethod
    def settle(cls, placed: Iterable[Placed], report: ReadReport) -> _Ids:
        given: set[str] = set()
        repeated: set[int] = set()
        unnamed: list[int] = []
        num_passages = 0
        for position, place, example in placed:
            if example.id in given:
                report.skip("id is already that of another question", place)
                repeated.add(position)
                continue
            num_passages += len(example.passages)
            if example.id:
                given.add(example.id)
            else:
                unnamed.append(position)
        report.made_ids = len(unnamed)
        made = {position: _made_id(position, given) for position in unnamed if str(position) in given}
        return cls(frozenset(repeated), made, len(given) + len(unnamed), num_passages)

    def apply(self, placed: Iterable[Placed]) -> Iterator[Example]:
        for position, _, example in placed:
            if position not in self.repeated:
                yield example if example.id else replace(example, id=self.made.get(position, str(position)))


def _made_id(position: int, given: set[str]) -> str:
    id = str(position)
    while id in given:
        id += "_"
    return id


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
