"""Everything that training reads, made once and found again by its key."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bidaf.config import DataConfig
from bidaf.data.build import build
from bidaf.data.cache import Counts, Manifest, Prepared, checksums, open_by_key, open_prepared, write_manifest
from bidaf.data.counts import SPLITS, remarks
from bidaf.data.identity import Sources, changes, find_sources, identify, key_of
from bidaf.data.workers import usable_cpus
from bidaf.errors import BidafError, DataError, UsageError
from bidaf.files.writing import claim_folder, put_folder, remove

Echo = Callable[[str], None]


def prepare(
    config: DataConfig,
    *,
    key: str | None = None,
    strict: bool = False,
    workers: int | None = None,
    echo: Echo = lambda message: None,
) -> Prepared:
    """The prepared data of these settings and of the content of their sources, verified; made where it is missing.

    With a `key`, as a run has kept it, the data of that key: where it is intact no source is needed. Corrupted data is
    made again. A large corpus is tokenized by up to `workers` processes (default: the number of processors), with the
    same result.

    Raises `DataError` for sources that are missing, unreadable or without a question to train on, for settings or
    sources that do not give the data of `key`, and with `strict` for records that were skipped.
    """
    prepared = _find_or_make(config, key, workers, echo)
    problems = [
        f"data.{split}: {entry['count']:,} {reason}, first {entry['first']}"
        for split in SPLITS
        for reason, entry in prepared.counts[split]["skipped"].items()
    ]
    if strict and problems:
        raise DataError("records can't be used:\n  " + "\n  ".join(problems))
    for remark in remarks(prepared.counts, config.language):
        echo(remark)
    return prepared


def _find_or_make(config: DataConfig, key: str | None, workers: int | None, echo: Echo) -> Prepared:
    if key and (found := _find(config, key, echo)):
        if changed := changes(config, found.manifest.config, found.manifest.material):
            raise DataError(f"the data changed since the run began: {'; '.join(changed)}")
        return found
    try:
        sources = find_sources(config)
    except DataError as error:
        if key is None:
            raise
        folder = Path(config.prepared_dir, key).absolute()
        raise DataError(f"there is no intact prepared data in {folder}, and it can't be made again: {error}") from None
    material = identify(config, sources)
    made_of = key_of(material)
    if key and key != made_of:
        raise DataError(
            f"the data changed since the run began, or an older version prepared it: the run's features are {key}, now "
            f"its sources give {made_of}; name the folder that holds {key}: --set data.prepared_dir=FOLDER"
        )
    if not key and (found := _find(config, made_of, echo)):
        return found
    return _make(config, sources, material, usable_cpus() if workers is None else workers, echo)


def use_prepared(config: DataConfig, folder: Path) -> tuple[DataConfig, str]:
    """The settings to train on a prepared folder that was named, and the key to give to `prepare`.

    Raises `DataError` where there is no prepared data, `UsageError` where it was made with other settings or from
    other sources; a source that is missing here is not compared.
    """
    prepared = open_prepared(folder)
    if changed := changes(config, prepared.manifest.config, prepared.manifest.material):
        raise UsageError(
            f"{folder} was prepared with other settings; these differ:\n  "
            + "\n  ".join(changed)
            + "\nChange them, or leave out --prepared to prepare the data again."
        )
    if folder.absolute().name != prepared.key:
        raise UsageError(f"{folder} must have the name {prepared.key}, by which the run finds it again; rename it")
    return config.model_copy(update={"prepared_dir": str(folder.absolute().parent)}), prepared.key


def _find(config: DataConfig, key: str, echo: Echo) -> Prepared | None:
    """The intact prepared data of a key, or None."""
    if not os.path.lexists(Path(config.prepared_dir, key)):
        return None
    try:
        prepared = open_by_key(config.prepared_dir, key)
        prepared.verify()
    except DataError as error:
        echo(f"prepared data can't be used: {error}")
        return None
    return prepared


def _make(config: DataConfig, sources: Sources, material: dict[str, Any], workers: int, echo: Echo) -> Prepared:
    target = Path(config.prepared_dir, key_of(material))
    try:
        with claim_folder(target) as unfinished:
            counts = build(config, sources, unfinished, workers=workers, echo=echo)
            files = checksums(unfinished)
            manifest = Manifest(material=material, config=config, counts=Counts.model_validate(counts), files=files)
            write_manifest(unfinished, manifest)
            if not put_folder(unfinished, target):
                if found := _find(config, target.name, lambda message: None):  # another process was faster
                    return found
                remove(target)  # corrupted: it was made again
                put_folder(unfinished, target)
    except OSError as error:
        raise BidafError(f"The prepared data can't be written to {target}: {error.strerror or error}.") from None
    return open_prepared(target)
