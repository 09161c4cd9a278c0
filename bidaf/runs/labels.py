"""RUN/run.json: what people call a run. It decides nothing, so it is no setting."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bidaf.errors import BidafError, DataError, UsageError
from bidaf.files.confined import ConfinedFolder
from bidaf.files.reading import read_regular, reading

LABELS = "run.json"

Text = Annotated[str, Field(max_length=10_000)]
Tag = Annotated[str, Field(pattern=r"^[^\s,]{1,64}$")]


class Labels(BaseModel):
    """A run's name, tags and notes."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    name: Annotated[str, Field(max_length=200)] | None = None
    tags: list[Tag] = []
    notes: Text | None = None

    @classmethod
    def of(cls, name: str | None, tags: list[str], notes: str | None) -> Labels:
        """Labels from the command line. Raises `UsageError` for a tag with blanks or commas, and for long texts."""
        try:
            return cls(name=name, tags=list(dict.fromkeys(tags)), notes=notes)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            what = (
                "a tag is one word of at most 64 characters, without commas"
                if first["loc"][0] == "tags"
                else (f"--{first['loc'][0]} is too long")
            )
            raise UsageError(f"{what}; found {str(first['input'])[:80]!r}") from None

    def over(self, before: Labels) -> Labels:
        """These on top of those that a run has: tags are added, name and notes replaced where they are given."""
        return Labels(
            name=self.name if self.name is not None else before.name,
            tags=list(dict.fromkeys([*before.tags, *self.tags])),
            notes=self.notes if self.notes is not None else before.notes,
        )


def read_labels(run: Path) -> Labels:
    """A run's labels; none of them where it has no run.json. Raises `DataError` for one that can't be read."""
    path = run / LABELS
    if not os.path.lexists(path):
        return Labels()
    with reading(path):
        content = read_regular(path)
    try:
        return Labels.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"{path} can't be read: {place}: {first['msg']}; delete it") from None


def add_labels(run: Path, labels: Labels) -> None:
    """Write labels on top of those that the run has; nothing happens where none is given."""
    if labels == Labels():
        return
    merged = labels.over(read_labels(run))
    try:
        ConfinedFolder(run).write_json(LABELS, merged.model_dump())
    except OSError as error:
        raise BidafError(f"{run / LABELS} can't be written: {error.strerror or error}") from None
