"""What decides the bytes of prepared data: the content of every source, each option that shapes it, and spaCy.

Everything is known by its content, never by its name or path: the key made from it leads to these features or to none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from typing import Any

from bidaf.config import DataConfig
from bidaf.data.sources import Source, find_source
from bidaf.data.vectors import VectorSource, find_vectors
from bidaf.errors import BidafError, DataError

FORMAT_VERSION = 3
ELSEWHERE = "to train on features that were prepared elsewhere: bidaf train --prepared FOLDER"
SQUAD_FILES = {"train-v1.1.json", "dev-v1.1.json"}
WHERE_SQUAD_IS = (
    "SQuAD v1.1 is train-v1.1.json and dev-v1.1.json from https://rajpurkar.github.io/SQuAD-explorer/dataset/; put the "
    "files there, or name yours with --set data.train=FILE --set data.dev=FILE (rajpurkar/squad is the hub's copy); "
)
_NO_OPTIONS = {"train", "dev", "vectors", "prepared_dir"}


@dataclass(frozen=True)
class Sources:
    """The sources of a config, each located and hashed once."""

    train: tuple[Source, ...]
    dev: tuple[Source, ...]
    vectors: VectorSource | None


def find_sources(config: DataConfig) -> Sources:
    """Locate and hash every source; named vectors are fetched where they are missing.

    Raises `DataError` naming every missing data source at once.
    """
    found = Sources(
        train=tuple(find_source(name, "train") for name in config.train),
        dev=tuple(find_source(name, "dev") for name in config.dev),
        vectors=None,
    )
    problems, hint = [], ELSEWHERE
    for source in (*found.train, *found.dev):
        try:
            _ = source.identity
        except DataError as error:
            problems.append(f"data.{source.use}: {error}")
            if PurePath(source.name).name in SQUAD_FILES:
                hint = WHERE_SQUAD_IS + ELSEWHERE
    if problems:
        raise DataError("\n".join([*problems, hint]))
    vectors = find_vectors(config.vectors) if config.vectors else None
    return Sources(found.train, found.dev, vectors)


def identify(config: DataConfig, sources: Sources) -> dict[str, Any]:
    """What the key is made from. Raises `BidafError` without spaCy: its version is part of the key."""
    try:
        spacy = version("spacy")
    except PackageNotFoundError:
        raise BidafError(f"Preparing data needs spaCy: `pip install spacy`; {ELSEWHERE}") from None
    return {
        "format": FORMAT_VERSION,
        "spacy": spacy,
        "options": _options(config),
        "sources": {
            "train": [source.identity for source in sources.train],
            "dev": [source.identity for source in sources.dev],
            "vectors": [sources.vectors.identity] if sources.vectors else [],
        },
    }


def key_of(material: dict[str, Any]) -> str:
    """16 hexadecimal digits, the name of the prepared folder."""
    canonical = json.dumps(material, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def changes(config: DataConfig, before: DataConfig, material: dict[str, Any]) -> list[str]:
    """The settings by which `config` would give other features than those of `material`, prepared with `before`.

    A source is compared by its content; one that is missing here is not compared.
    """
    ours, theirs = _options(config), _options(before)
    found = [f"data.{name}: {theirs[name]} -> {ours[name]}" for name in ours if ours[name] != theirs[name]]
    for kind, sources in _located(config):
        made_from = material["sources"][kind]
        if len(sources) != len(made_from):
            found.append(f"data.{kind}: {len(made_from)} sources -> {len(sources)}")
            continue
        for source, identity in zip(sources, made_from, strict=True):
            if source is not None and source.identity != identity:
                found.append(f"data.{kind}: the content of {source.name}")
    return found


def _located(config: DataConfig) -> Iterator[tuple[str, list[Source | VectorSource | None]]]:
    """The sources of each kind; None for one that is missing here, which is not fetched either."""

    def present(find: Any, *arguments: Any, **options: Any) -> Any:
        try:
            source = find(*arguments, **options)
            _ = source.identity
            return source
        except DataError:
            return None

    yield "train", [present(find_source, name, "train") for name in config.train]
    yield "dev", [present(find_source, name, "dev") for name in config.dev]
    yield "vectors", [present(find_vectors, config.vectors, fetch=False)] if config.vectors else []


def _options(config: DataConfig) -> dict[str, Any]:
    """The settings that shape features besides the sources."""
    return config.model_dump(mode="json", exclude=_NO_OPTIONS)
