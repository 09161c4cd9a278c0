"""Prepared data on the disk: opened, verified, and kept with a run.

    <prepared_dir>/<key>/manifest.json  vocabulary.json  vectors.safetensors
                         train/  dev/   features.safetensors  texts.json

The manifest, written last, holds the SHA-256 of every file and of itself. Opening and loading need neither spaCy nor
`datasets` nor PyTorch. Folders of format 2 have `.npy` arrays and sizes in the place of checksums.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from bidaf.config import DataConfig
from bidaf.data import format2
from bidaf.data.features import Features, check_rows
from bidaf.data.identity import FORMAT_VERSION, key_of
from bidaf.data.vocabulary import OLD_VECTORS_FILE, VECTORS_FILE, VOCABULARY_FILE, Vocabulary, load_vectors_matrix
from bidaf.errors import DataError
from bidaf.files.reading import parse_json, read_regular, refuse_strange_files, sha256_of
from bidaf.files.sealed import is_intact, sealed
from bidaf.files.writing import claim_folder, put_folder

MANIFEST_FILE = "manifest.json"


class Skipped(BaseModel):
    """Records that could not be used, for one reason."""

    model_config = ConfigDict(strict=True)

    count: int
    first: str
    """Source and place of the first of them."""


class SplitCounts(BaseModel):
    """What other code relies on among the counts of a split."""

    model_config = ConfigDict(strict=True, extra="allow")

    read: int
    kept: int
    dropped: dict[str, list[str]]
    skipped: dict[str, Skipped] = {}


class Counts(BaseModel):
    """How many questions of each split were kept, cut and dropped; `vocabulary` has sizes."""

    model_config = ConfigDict(strict=True, extra="allow")

    train: SplitCounts
    dev: SplitCounts
    vocabulary: dict[str, int]


class Manifest(BaseModel):
    """What a prepared folder holds, and what it was made from."""

    model_config = ConfigDict(strict=True, frozen=True)

    material: dict[str, Any]
    """What the key is made from, as `identity.identify` gives it."""
    config: DataConfig
    """The settings it was prepared with."""
    counts: Counts
    files: dict[str, str | int]
    """Name -> SHA-256; in format 2, bytes."""


@dataclass(frozen=True)
class Prepared:
    """A prepared folder that was opened. Its parts are verified and read when they are first asked for."""

    folder: Path
    manifest: Manifest
    _verified: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    @property
    def key(self) -> str:
        """Identifies the features, wherever they are stored: 16 hexadecimal digits."""
        return key_of(self.manifest.material)

    @property
    def counts(self) -> dict[str, dict[str, Any]]:
        """How many questions of `train` and `dev` were kept, cut and dropped, and the sizes of the `vocabulary`."""
        return self.manifest.counts.model_dump()

    def vocabulary(self) -> Vocabulary:
        """Word rows and character ids. Raises `DataError` when they are corrupted."""
        return self._vocabulary

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        self.verify([VOCABULARY_FILE])
        return Vocabulary.load(self.folder)

    def vectors(self) -> NDArray[np.float32]:
        """Pre-trained rows, `[fixed words, dim]`; `[0, 0]` when there are none. Raises `DataError` as above."""
        self.verify([OLD_VECTORS_FILE if OLD_VECTORS_FILE in self.manifest.files else VECTORS_FILE])
        return load_vectors_matrix(self.folder)

    def features(self, split: str) -> Features:
        """The arrays of `train` or `dev`. Raises `DataError` when they are corrupted or not of this vocabulary."""
        if not (names := self._of_split(split)):
            raise DataError(f"{self.folder} holds no {split} features")
        self.verify(names)
        features, vocabulary = Features.load(self.folder / split), self.vocabulary()
        words = len(vocabulary.trained_words) + len(vocabulary.fixed_words)
        try:
            check_rows(features, words, len(vocabulary.chars), vocabulary.max_word_chars)
        except ValueError as error:
            raise DataError(f"the features in {self.folder / split} don't fit its vocabulary: {error}") from None
        if split == "dev":
            _ = features.texts  # Load gold answers now, so that errors surface before training.
        return features

    def verify(self, names: Iterable[str] | None = None) -> None:
        """Compare files with the manifest (all, where none is named), each once per object.

        Raises `DataError` naming those that differ.
        """
        files = self.manifest.files
        unverified = [name for name in (files if names is None else names) if name not in self._verified]
        if corrupted := [name for name in unverified if not _is_intact(self.folder, name, files.get(name))]:
            raise DataError(f"{self.folder} is corrupted: {', '.join(corrupted)} changed since it was written")
        self._verified.update(unverified)

    def keep(self, folder: Path) -> Prepared:
        """Put vocabulary, vectors and dev questions into a new folder, where `open_prepared` finds them.

        Files are hard links where the file system can, else copies. Raises `OSError`, `DataError` for corrupted files.
        """
        names = [name for name in self.manifest.files if not name.startswith("train/")]
        self.verify(names)
        with claim_folder(folder) as unfinished:
            (unfinished / "dev").mkdir()
            for name in names:
                try:
                    os.link(self.folder / name, unfinished / name)
                except OSError:  # another file system, or one without hard links
                    shutil.copyfile(self.folder / name, unfinished / name)
            write_manifest(unfinished, self.manifest.model_copy(update={"files": checksums(unfinished)}))
            put_folder(unfinished, folder)
        return open_prepared(folder)

    def _of_split(self, split: str) -> list[str]:
        return [name for name in self.manifest.files if name.startswith(f"{split}/")]


def open_prepared(folder: Path) -> Prepared:
    """Open a prepared folder. Raises `DataError` when there is none, or its manifest is corrupted or of another format.

    The other files are verified when they are loaded, or by `Prepared.verify`.
    """
    path = folder / MANIFEST_FILE
    try:
        refuse_strange_files(folder, [MANIFEST_FILE])
        text = read_regular(path).decode("ascii")
        document = parse_json(text, str(path))
        found = document["material"]["format"]
        if found == FORMAT_VERSION and not is_intact(text, document):
            raise DataError(f"{path} is corrupted: it changed since it was written")
        if found not in (FORMAT_VERSION, format2.FORMAT_VERSION):
            raise DataError(
                f"{path} is of format {found!r}; this version reads {FORMAT_VERSION}; prepare the data again"
            )
        return Prepared(folder, Manifest.model_validate(document))
    except FileNotFoundError:
        raise DataError(f"there is no prepared data in {folder.absolute()}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or str(error).replace("\n", " ")
        raise DataError(f"{path} can't be read as the manifest of prepared data: {reason}") from None


def open_by_key(prepared_dir: str | Path, key: str) -> Prepared:
    """Open the prepared data that a run knows by its key. Raises `DataError` as `open_prepared`."""
    folder = Path(prepared_dir, key)
    prepared = open_prepared(folder)
    if prepared.key != key:
        raise DataError(f"{folder} holds the features {prepared.key}")
    return prepared


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Complete a folder with its manifest. Raises `OSError`."""
    body = manifest.model_dump(mode="json", exclude={"config": {"prepared_dir"}})
    (folder / MANIFEST_FILE).write_text(sealed(body), encoding="ascii")


def checksums(folder: Path) -> dict[str, str | int]:
    """The SHA-256 of every file in a folder, by the name it has there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def _is_intact(folder: Path, name: str, expected: str | int | None) -> bool:
    try:
        refuse_strange_files(folder, [name])
        size_or_hash = sha256_of(folder / name) if isinstance(expected, str) else (folder / name).stat().st_size
    except OSError:
        return False
    return size_or_hash == expected
