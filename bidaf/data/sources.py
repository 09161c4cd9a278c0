"""The one way in: a source named in the config, be it a file, a folder or a hub name, becomes a corpus."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bidaf.data.hub import HubName, locate, read_hub
from bidaf.data.records import problems_error
from bidaf.data.squad import Corpus, Example, ReadCounts, read_squad
from bidaf.errors import DataError
from bidaf.files.reading import quote, reading, sha256_of


def read_sources(sources: Sequence[str], split: str) -> Corpus:
    """Read several sources as one corpus, in their order; `split` is what a data set with splits is asked for.

    Raises `DataError` as `read_source` does, and for a question id that is in two of them.
    """
    examples: list[Example] = []
    counts = ReadCounts()
    source_of: dict[str, str] = {}
    repeats: list[str] = []
    for source in sources:
        corpus = read_source(source, split)
        for example in corpus.examples:
            if example.id in source_of:
                repeats.append(f"the id {quote(example.id)} is in both {source_of[example.id]} and {source}")
            source_of.setdefault(example.id, source)
        examples += corpus.examples
        counts.add(corpus.counts)
    if repeats:
        raise problems_error("data sources", repeats)
    return Corpus(examples, counts)


def read_source(source: str, split: str) -> Corpus:
    """Read a SQuAD JSON file, a local data set (folder, `.parquet`, `.arrow`) or a hub name (`owner/name`).

    Raises `DataError` when there is no such thing, or it cannot be read or used.
    """
    located = _locate(source)
    with _collector_paused():
        if isinstance(located, HubName):
            return read_hub(source, split)
        path, _ = located
        is_table = os.path.isdir(path) or path.suffix.lower() in (".parquet", ".arrow")
        return read_hub(source, split) if is_table else read_squad(path)


def source_identity(source: str) -> dict[str, Any]:
    """Say what a source holds, for a cache key: the content of a file or folder, never its path; or a hub name.

    Raises `DataError` for a path where nothing readable is.
    """
    located = _locate(source)
    if isinstance(located, HubName):
        return {"hub": source}
    path, split = located
    with reading(path):
        if not os.path.isdir(path):
            return _file_identity(path)
        files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
        return {"files": {name: _file_identity(files[name]) for name in sorted(files)}, "split": split}


def _locate(source: str) -> tuple[Path, str | None] | HubName:
    if not source.strip() or "\0" in source:
        raise DataError(f"{source!r}: names no data; give a file, a folder or a hub name (owner/name)")
    return locate(source)


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
