"""The one way in: a source named in the config, be it a file, a folder or a hub name, becomes a corpus."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from bidaf.data.hub import HubName, locate
from bidaf.errors import DataError
from bidaf.files.reading import reading, sha256_of
from bidaf.files.shipped import embedded_file

Use = Literal["train", "dev"]
# What the hub calls what is `train` and `dev` here.
HUB_SPLITS = {"train": "train", "dev": "validation"}
TABLE_SUFFIXES = (".parquet", ".arrow")


@dataclass(frozen=True)
class Source:
    """A located source: what is read, and what identifies it. Make one with `find_source`."""

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


def _file_identity(path: Path) -> dict[str, Any]:
    return {"sha256": sha256_of(path), "bytes": path.stat().st_size}
