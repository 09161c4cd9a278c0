"""Features that were read are looked through: a number that leads out of its array ends in a message, not in a crash.

Checksums find what broke by itself; this finds what somebody made so. A GPU reads beyond an array without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bidaf.data.features import Features


def check_arrays(features: Features) -> None:
    """Raise `ValueError` saying which array does not belong to the others."""
    contexts, questions = len(features.context_offsets) - 1, len(features.question_context)
    forms = len(features.word_rows)
    _check(len(features.chars) == forms, "chars and word_rows are of different lengths")
    _check(len(features.context_spans) == len(features.context_forms), "not every token of a context has a span")
    for name in ("context_spans", "answer_spans"):
        _check(getattr(features, name).shape[1] == 2, f"{name} holds no pairs")
    _check_offsets("context_offsets", features.context_offsets, contexts, len(features.context_forms))
    _check_offsets("question_offsets", features.question_offsets, questions, len(features.question_forms))
    _check_offsets("answer_offsets", features.answer_offsets, questions, len(features.answer_spans))
    _check_range("context_forms", features.context_forms, forms)
    _check_range("question_forms", features.question_forms, forms)
    _check_range("question_context", features.question_context, contexts)
    lengths = np.diff(features.context_offsets)
    _check(bool((lengths > 0).all()), "a context has no token")
    _check(bool((np.diff(features.question_offsets) > 0).all()), "a question has no token")
    tokens = np.repeat(lengths[features.question_context], np.diff(features.answer_offsets))
    _check_range("answer_spans", features.answer_spans, tokens[:, None])


def check_texts(texts: dict[str, Any], *, questions: int, contexts: int) -> None:
    """Raise `ValueError` unless there are texts, one for each of so many questions and contexts."""
    for name, count in (("ids", questions), ("questions", questions), ("contexts", contexts), ("answers", questions)):
        lists = texts[name] if name == "answers" else [texts[name]]
        sound = isinstance(texts[name], list) and all(isinstance(each, list) for each in lists)
        _check(sound and all(isinstance(text, str) for each in lists for text in each), f"{name} is no list of text")
        _check(len(texts[name]) == count, f"there are {len(texts[name]):,} {name} for {count:,}")


def check_rows(features: Features, words: int, chars: int, max_word_chars: int) -> None:
    """Raise `ValueError` unless all word rows and characters are among so many of a vocabulary."""
    _check(features.chars.shape[1] == max_word_chars, f"words are not of {max_word_chars} characters")
    _check_range("word_rows", features.word_rows, words)
    _check_range("chars", features.chars, chars)


def _check(holds: bool, problem: str) -> None:
    if not holds:
        raise ValueError(problem)


def _check_offsets(name: str, offsets: Any, items: int, elements: int) -> None:
    parts = len(offsets) == items + 1 and offsets[0] == 0 and offsets[-1] == elements
    _check(bool(parts and (np.diff(offsets) >= 0).all()), f"{name} does not part its elements")


def _check_range(name: str, numbers: Any, limit: Any) -> None:
    _check(bool(((numbers >= 0) & (numbers < limit)).all()), f"{name} holds a number out of range")
