"""Everything training reads, made once and kept in a folder whose name says what it was made from.

    <prepared_dir>/<key>/manifest.json  vocabulary.json  vectors.npy  train/  dev/

The key covers the content of every source and each option that shapes the arrays: a change of either leads to another
folder, never to stale features. Finding a prepared folder needs neither spaCy nor `datasets`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidaf.config import DataConfig
from bidaf.data.checks import check_rows
from bidaf.data.features import FeatureCounts, Features, Limits, index_tokens
from bidaf.data.sources import read_sources, source_identity
from bidaf.data.squad import Corpus, ReadCounts
from bidaf.data.tokenizer import Tokenizer
from bidaf.data.tokens import tokenize_examples
from bidaf.data.vectors import Vectors, read_vectors, vectors_identity
from bidaf.data.vocabulary import SPECIAL, UNK, Vocabulary, build_vocabulary, load_vectors_matrix
from bidaf.data.workers import learning, usable_cpus
from bidaf.errors import BidafError, DataError
from bidaf.files.reading import refuse_strange_files
from bidaf.progress import watched

FORMAT_VERSION = 2
WHERE_SQUAD_IS = (
    "SQuAD v1.1 is train-v1.1.json and dev-v1.1.json from https://rajpurkar.github.io/SQuAD-explorer/dataset/; put the "
    "files there, or name yours with --set data.train=FILE --set data.dev=FILE (rajpurkar/squad is the hub's copy)."
)
MANIFEST_FILE = "manifest.json"
# How the hub calls what is `train` and `dev` here.
SPLITS = {"train": "train", "dev": "validation"}


@dataclass(frozen=True)
class Prepared:
    """A complete prepared folder. Its parts are read when they are asked for."""

    folder: Path
    manifest: dict[str, Any]
    """`material` (what the key was made from), `config`, `counts` and `files` (name -> bytes)."""

    def vocabulary(self) -> Vocabulary:
        """Word rows and character ids."""
        return self._vocabulary

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary.load(self.folder)

    def vectors(self) -> NDArray[np.float32]:
        """Pre-trained rows, `[fixed words, dim]`, mapped into memory; `[0, 0]` when there are none."""
        return load_vectors_matrix(self.folder)

    def features(self, split: str) -> Features:
        """The arrays of `train` or `dev`. Raises `DataError` when they are damaged or not of this vocabulary."""
        features, vocabulary = Features.load(self.folder / split), self.vocabulary()
        words = len(vocabulary.trained_words) + len(vocabulary.fixed_words)
        try:
            check_rows(features, words, len(vocabulary.chars), vocabulary.max_word_chars)
        except ValueError as error:
            raise DataError(f"the features in {self.folder / split} don't fit its vocabulary: {error}") from None
        if split == "dev":
            # Scoring asks for them hours from now: what is wrong with them is said at once.
            _ = features.answers
        return features

    @property
    def counts(self) -> dict[str, dict[str, Any]]:
        """What became of the questions of `train` and `dev`, and the sizes of the `vocabulary`."""
        counts: dict[str, dict[str, Any]] = self.manifest["counts"]
        return counts


def find_prepared(config: DataConfig) -> Prepared | None:
    """The prepared folder of these settings, or None.

    A source that is not on this machine, and spaCy where it is not installed, can't be compared: then any folder
    will do that was prepared from a source given by the same path and agrees in all the rest.
    """
    base = Path(config.prepared_dir)
    material = _material(config)
    exact = open_prepared(base / _key(material))
    if exact or not _unknown(material) or not base.is_dir():
        return exact
    candidates = (open_prepared(folder) for folder in sorted(base.iterdir()))
    return next((found for found in candidates if found and _agree(config, material, found.manifest)), None)


def prepare(
    config: DataConfig, *, workers: int | None = None, echo: Callable[[str], None] = lambda message: None
) -> Prepared:
    """Find the prepared folder of these settings, or make it: read, tokenize, choose the vocabulary, index.

    A large corpus is tokenized by up to `workers` processes (left out: as many as there are processors), with the
    same result.

    Raises `DataError` for sources that are missing or unreadable, or hold no question to train on.
    """
    if found := find_prepared(config):
        return found
    _check_sources(config)
    corpora = {split: read_sources(getattr(config, split), name) for split, name in SPLITS.items()}
    echo(", ".join(f"{split}: {len(corpus.examples):,} questions" for split, corpus in corpora.items()))
    tokenizer = Tokenizer(config.second_split, config.split_questions)
    with learning(tokenizer, _texts(corpora), usable_cpus() if workers is None else workers):
        vectors = read_vectors(config.vectors) if config.vectors else Vectors([], np.zeros((0, 0), dtype=np.float32))
    material = _material(config)
    target = Path(config.prepared_dir) / _key(material)
    try:
        unfinished = target.with_name(f".{target.name}-{os.getpid()}")
        try:
            unfinished.mkdir(parents=True)
            counts = _build(config, corpora, tokenizer, vectors, unfinished)
            files = {
                path.relative_to(unfinished).as_posix(): path.stat().st_size
                for path in sorted(unfinished.rglob("*"))
                if path.is_file()
            }
            manifest = {"material": material, "config": _options(config), "counts": counts, "files": files}
            (unfinished / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1), encoding="ascii")
            if not open_prepared(target):
                shutil.rmtree(target, ignore_errors=True)
                unfinished.rename(target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise BidafError(f"The prepared data can't be written to {target}: {error.strerror or error}.") from None
    return Prepared(target, manifest)


def _check_sources(config: DataConfig) -> None:
    """Name every missing data source at once, before the first slow step."""
    problems = []
    for split in SPLITS:
        for source in getattr(config, split):
            try:
                source_identity(source)
            except DataError as error:
                problems.append(f"data.{split}: {error}")
    if problems:
        raise DataError("\n".join([*problems, WHERE_SQUAD_IS]))


def _texts(corpora: dict[str, Corpus]) -> Iterator[str]:
    for corpus in corpora.values():
        for example in corpus.examples:
            yield example.context
            yield example.question


def _build(
    config: DataConfig, corpora: dict[str, Corpus], tokenizer: Tokenizer, vectors: Vectors, folder: Path
) -> dict[str, Any]:
    """Write all parts but the manifest; returns the counts."""
    tokens = {
        split: tokenize_examples(watched(corpus.examples, f"tokenize {split}", "question"), tokenizer)
        for split, corpus in corpora.items()
    }
    vocabulary = build_vocabulary(
        tokens["train"].forms,
        tokens["train"].counts()[1:],
        vectors.words,
        min_word_count=config.min_word_count,
        min_char_count=config.min_char_count,
        max_word_chars=config.max_word_chars,
    )
    vocabulary.save(folder, vectors.matrix)
    limits = {"train": Limits(config.max_context_tokens, config.max_question_tokens), "dev": None}
    trained = len(vocabulary.trained_words)
    counts: dict[str, Any] = {}
    for split, corpus in watched(corpora.items(), "index", "split"):
        features, indexed = index_tokens(corpus.examples, tokens[split], vocabulary, limits[split])
        if not len(features):
            raise DataError(
                f"`data.{split}` holds no question that can be used: {corpus.counts.read:,} were read, "
                f"{_reasons(corpus.counts, indexed) or 'none was there'}."
            )
        (folder / split).mkdir()
        features.save(folder / split)
        rows = features.word_rows[1:]
        forms = {
            "forms": len(rows),
            "fixed_forms": int(np.sum(rows >= trained)),
            "trained_forms": int(np.sum((rows < trained) & (rows != UNK))),
            "unknown_forms": int(np.sum(rows == UNK)),
        }
        counts[split] = _split_counts(corpus.counts, indexed) | forms
    counts["vocabulary"] = {
        "fixed_words": len(vocabulary.fixed_words),
        "trained_words": trained - len(SPECIAL),
        "chars": len(vocabulary.chars) - len(SPECIAL),
    }
    return counts


def _split_counts(read: ReadCounts, indexed: FeatureCounts) -> dict[str, Any]:
    return {
        "read": read.read,
        "kept": indexed.kept,
        "unanswerable": read.unanswerable,
        "dropped": read.dropped | indexed.dropped,
        "realigned_answers": read.realigned,
        "answers_not_in_context": read.answers_dropped,
        "uncovered_answers": indexed.uncovered_answers,
        "beyond_answers": indexed.beyond_answers,
        "contexts": indexed.contexts,
        "truncated_contexts": indexed.truncated_contexts,
        "spans": indexed.spans,
        "exact_spans": round(indexed.exact_spans, 6),
    }


def _reasons(read: ReadCounts, indexed: FeatureCounts) -> str:
    reasons = {"unanswerable": read.unanswerable} if read.unanswerable else {}
    reasons |= {reason: len(ids) for reason, ids in (read.dropped | indexed.dropped).items()}
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())


def _options(config: DataConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude={"prepared_dir"})


def _material(config: DataConfig) -> dict[str, Any]:
    """What decides the bytes of the prepared folder; None stands for what this machine can't tell."""
    try:
        spacy: str | None = version("spacy")
    except PackageNotFoundError:
        spacy = None
    return {
        "format": FORMAT_VERSION,
        "spacy": spacy,
        "options": {name: value for name, value in _options(config).items() if name not in _sources(config)},
        "sources": {
            kind: [_identity(kind, source) for source in sources] for kind, sources in _sources(config).items()
        },
    }


def _sources(config: DataConfig) -> dict[str, tuple[str, ...]]:
    return {
        "train": config.train,
        "dev": config.dev,
        "vectors": (config.vectors,) if config.vectors else (),
    }


def _identity(kind: str, source: str) -> dict[str, Any] | None:
    try:
        return vectors_identity(source) if kind == "vectors" else source_identity(source)
    except DataError:
        return None


def _unknown(material: dict[str, Any]) -> bool:
    return material["spacy"] is None or any(None in identities for identities in material["sources"].values())


def _agree(config: DataConfig, material: dict[str, Any], manifest: dict[str, Any]) -> bool:
    """Whether a folder was made from this material, as far as this machine can tell."""
    made = manifest["material"]
    if any(material[part] != made[part] for part in ("format", "options")):
        return False
    if material["spacy"] not in (None, made["spacy"]):
        return False
    ours = _named_identities(config, material)
    theirs = _named_identities(DataConfig.model_validate(manifest["config"]), made)
    return len(ours) == len(theirs) and all(
        kind == their_kind and (identity == their_identity if identity else name == their_name)
        for (kind, name, identity), (their_kind, their_name, their_identity) in zip(ours, theirs, strict=True)
    )


def _named_identities(config: DataConfig, material: dict[str, Any]) -> list[tuple[str, str, Any]]:
    return [
        (kind, Path(source).name, identity)
        for kind, sources in _sources(config).items()
        for source, identity in zip(sources, material["sources"][kind], strict=True)
    ]


def _key(material: dict[str, Any]) -> str:
    canonical = json.dumps(material, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def open_prepared(folder: Path) -> Prepared | None:
    """The folder, if it is complete: its manifest, written last, names every file with its size."""
    try:
        refuse_strange_files(folder, [MANIFEST_FILE])
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="ascii"))
        refuse_strange_files(folder, manifest["files"])
        complete = all((folder / name).stat().st_size == size for name, size in manifest["files"].items())
        return Prepared(folder, manifest) if complete and _key(manifest["material"]) == folder.name else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, DataError):
        return None
