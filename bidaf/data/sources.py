"""The one way in: a source named in the config, be it a file, a folder or a hub name, becomes a corpus."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from bidaf.data.hub import HubName, locate, read_hub
from bidaf.data.records import problems_error
from bidaf.data.squad import Corpus, Example, ReadCounts, read_squad
from bidaf.errors import DataError
from bidaf.files.reading import quote, reading, sha256_of
from bidaf.files.shipped import embedded_file

Use = Literal["train", "dev"]
# What the hub calls what is `train` and `dev` here.
HUB_SPLITS = {"train": "train", "dev": "validation"}
TABLE_SUFFIXES = (".parquet", ".arrow")


@dataclass(frozen=True)
class Source:
    """A source that was located: what is read, and what it is known by. Make one with `find_source`."""

    name: str
    """As the config or the command line gives it."""
    place: Path | HubName
    """A file, a folder, or a name on the hub."""
    split: str | None
    """The split that the name asks for (`folder@split`); None where it names none."""
    use: Use

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What it holds, for a cache key: the content of a file or folder, never its path; or a hub name.

        Raises `DataError` for a path where nothing readable is.
        """
        if isinstance(self.place, HubName):
            return {"hub": self.name}
        with reading(self.place):
            if not os.path.isdir(self.place):
                return _file_identity(self.place)
            files = sorted(file for file in self.place.rglob("*") if file.is_file())
            contents = {file.relative_to(self.place).as_posix(): _file_identity(file) for file in files}
            return {"files": contents, "split": self.split}


def find_source(name: str, use: Use) -> Source:
    """Locate a file, a folder, a hub name (`owner/name`) or an embedded corpus (`embedded:mini`).

    A path need not exist: reading says so. Raises `DataError` for what can be none of these.
    """
    if not name.strip() or "\0" in name:
        raise DataError(f"{name!r}: names no data; give a file, a folder or a hub name (owner/name)")
    if embedded := embedded_file(name, use):
        return Source(name, embedded, None, use)
    return Source(name, *locate(name), use)


def read_sources(sources: Sequence[Source]) -> Corpus:
    """Read several sources as one corpus, in their order.

    Raises `DataError` as `read_source` does, and for a question id that is in two of them.
    """
    examples: list[Example] = []
    counts = ReadCounts()
    source_of: dict[str, str] = {}
    repeats: list[str] = []
    for source in sources:
        corpus = read_source(source)
        for example in corpus.examples:
            if example.id in source_of:
                repeats.append(f"the id {quote(example.id)} is in both {source_of[example.id]} and {source.name}")
            source_of.setdefault(example.id, source.name)
        examples += corpus.examples
        counts.add(corpus.counts)
    if repeats:
        raise problems_error("data sources", repeats)
    return Corpus(examples, counts)


def read_source(source: Source) -> Corpus:
    """Read a SQuAD JSON file, a local data set (folder, `.parquet`, `.arrow`) or a data set of the hub.

    Raises `DataError` when there is no such thing, or it cannot be read or used.
    """
    place = source.place
    with _collector_paused():
        if isinstance(place, HubName) or os.path.isdir(place) or place.suffix.lower() in TABLE_SUFFIXES:
            return read_hub(source.name, place, source.split, HUB_SPLITS[source.use])
        return read_squad(place)


def _file_identity(path: Path) -> dict[str, Any]:
    return {"sha256": sha256_of(path), "bytes": path.stat().st_size}


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
