"""An ensemble on disk: one folder with an export of each member, and nothing that needs the runs they came from.

ensemble.json       the rule, the members' names and checksums, what the ensemble scored
README.md           the same for people
members/1/ ...      exports
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bidaf.errors import DataError
from bidaf.evaluation.ensemble import Rule
from bidaf.files.reading import read_json, refuse_strange_files, sha256_of
from bidaf.inference.exported import INFO
from bidaf.runs.weight_sets import Count

FORMAT_VERSION: Literal[1] = 1
ENSEMBLE, MEMBERS = "ensemble.json", "members"
MOST_MEMBERS = 100


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)


class MemberInfo(_Part):
    """One member; it lies in `members/` under its number, from 1."""

    name: str = Field(min_length=1)
    checksum: str
    """SHA-256 of its export.json, which has the checksums of its other files."""


class EnsembleInfo(_Part):
    """The whole of ensemble.json."""

    format: Literal[1] = FORMAT_VERSION
    version: str
    """Of the program that wrote it."""
    rule: Rule
    members: Annotated[list[MemberInfo], Field(min_length=2, max_length=MOST_MEMBERS)]
    no_answer_threshold: float | None = None
    """Of models that know "no answer": the probability above which that is the answer."""
    scores: dict[str, float]
    """Metric -> percent."""
    data: str
    """What was scored."""
    questions: Count


def is_ensemble(folder: Path) -> bool:
    """Whether this folder is meant to be an ensemble; `open_ensemble` says whether it is a valid one."""
    return os.path.lexists(folder / ENSEMBLE)


def member_folder(folder: Path, number: int) -> Path:
    """Where member `number`, counted from 0, lies."""
    return folder / MEMBERS / str(number + 1)


def open_ensemble(folder: Path) -> EnsembleInfo:
    """Read what an ensemble is, and check that its members are those it was written with.

    Raises `DataError` for a folder that is corrupted, of another format, or contains links in place of its own files.
    """
    try:
        refuse_strange_files(folder, [ENSEMBLE])
        found = read_json(folder / ENSEMBLE)
        if (version := found["format"]) != FORMAT_VERSION:
            raise DataError(f"{folder} has ensemble format {version!r}; this version reads {FORMAT_VERSION}")
        info = EnsembleInfo.model_validate(found)
        for number, member in enumerate(info.members):
            path = member_folder(folder, number) / INFO
            refuse_strange_files(folder, [str(path.relative_to(folder))])
            if sha256_of(path) != member.checksum:
                raise DataError(f"{folder} is corrupted: {path} changed since it was written; copy it again")
        return info
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise DataError(f"{folder} can't be read as an ensemble: {ENSEMBLE}: {place}: {first['msg'].lower()}") from None
    except (OSError, KeyError, TypeError) as error:
        raise DataError(f"{folder} can't be read as an ensemble: {error}") from None
