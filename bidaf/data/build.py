"""From sources to prepared data in one straight pass: read, tokenize, choose the vocabulary, index, write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bidaf.config import DataConfig
from bidaf.data.corpus import Corpus, ReadCounts, read_corpus
from bidaf.data.features import Features
from bidaf.data.identity import Sources
from bidaf.data.indexing import FeatureCounts, Limits, index_tokens
from bidaf.data.questions import ReadReport
from bidaf.data.tokenizer import Tokenizer
from bidaf.data.tokens import tokenize_examples
from bidaf.data.vectors import Vectors, read_vectors
from bidaf.data.vocabulary import SPECIAL, UNK, Vocabulary, build_vocabulary
from bidaf.data.workers import learning
from bidaf.errors import DataError
from bidaf.progress import watched


def build(
    config: DataConfig, sources: Sources, folder: Path, *, workers: int, echo: Callable[[str], None]
) -> dict[str, Any]:
    """Write vocabulary, vectors and the features of both splits into an existing folder; returns the counts.

    Raises `DataError` for sources that are unreadable or leave no question of a split, `OSError` for a full disk.
    """

    def report(read: ReadReport) -> None:
        for message in read.messages():
            echo(message)

    tokenizer = Tokenizer(config.second_split, config.split_questions, config.language)
    if config.language != "en":
        tokenizer.tokenize("a")  # a language that spaCy does not have is refused before anything is read
    corpora = {
        split: read_corpus(each, unanswerable=config.unanswerable, on_report=report)
        for split, each in (("train", sources.train), ("dev", sources.dev))
    }
    echo(", ".join(f"{split}: {len(corpus.examples):,} questions" for split, corpus in corpora.items()))
    with learning(tokenizer, _texts(corpora), workers):
        vectors = read_vectors(sources.vectors) if sources.vectors else Vectors([], np.zeros((0, 0), dtype=np.float32))
    tokens = {
        split: tokenize_examples(watched(corpus.examples, f"tokenize {split}", "question"), tokenizer)
        for split, corpus in corpora.items()
    }
    vocabulary = build_vocabulary(
        tokens["train"].types,
        tokens["train"].counts()[1:],
        vectors.words,
        min_word_count=config.min_word_count,
        min_char_count=config.min_char_count,
        max_word_chars=config.max_word_chars,
    )
    vocabulary.save(folder, vectors.matrix)
    limits = {"train": Limits(config.max_context_tokens, config.max_question_tokens), "dev": None}
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
        counts[split] = _split_counts(corpus.counts, indexed) | _type_counts(features, vocabulary)
    counts["vocabulary"] = {
        "fixed_words": len(vocabulary.fixed_words),
        "trained_words": len(vocabulary.trained_words) - len(SPECIAL),
        "chars": len(vocabulary.chars) - len(SPECIAL),
    }
    return counts


def _texts(corpora: dict[str, Corpus]) -> Iterator[str]:
    for corpus in corpora.values():
        for example in corpus.examples:
            yield example.context
            yield example.question


def _split_counts(read: ReadCounts, indexed: FeatureCounts) -> dict[str, Any]:
    return {
        "read": read.read,
        "kept": indexed.kept,
        "unanswerable": read.unanswerable,
        **({"kept_unanswerable": indexed.unanswerable} if indexed.unanswerable else {}),
        "skipped": read.skipped,
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


def _type_counts(features: Features, vocabulary: Vocabulary) -> dict[str, int]:
    rows, trained = features.word_rows[1:], len(vocabulary.trained_words)
    return {
        "forms": len(rows),
        "fixed_forms": int(np.sum(rows >= trained)),
        "trained_forms": int(np.sum((rows < trained) & (rows != UNK))),
        "unknown_forms": int(np.sum(rows == UNK)),
    }


def _reasons(read: ReadCounts, indexed: FeatureCounts) -> str:
    reasons = {"unanswerable": read.unanswerable} if read.unanswerable else {}
    reasons |= {reason: len(ids) for reason, ids in (read.dropped | indexed.dropped).items()}
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
