"""One split of a corpus as flat integer arrays: what batches are gathered from, and the file that keeps it.

Tokens are numbers of word types; the row and the characters of a word type stand in a table, once. Type 0 is padding.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from bidaf.data.format2 import load_arrays
from bidaf.data.tokens import Int32, Int64
from bidaf.errors import DataError
from bidaf.files.reading import refuse_strange_files

ARRAYS_FILE, TEXTS_FILE = "features.safetensors", "texts.json"
NO_ANSWER = -1
"""First and last token of the gold answer to a question that has none."""


@dataclass(frozen=True)
class Texts:
    """What people read of a split."""

    ids: list[str]
    questions: list[str]
    titles: list[str | None]
    """The article of each question; None where its source names none."""
    contexts: list[str]
    """Whole texts, even where the tokens were cut: spans are offsets into these."""
    answers: list[list[str]]
    """Every gold text of each question, as evaluation wants them; none of a question that has no answer."""


@dataclass(frozen=True)
class Features:
    """One split. Flat arrays; item i of a kind owns the elements `offsets[i]:offsets[i+1]`."""

    word_rows: Int32
    """`[word types]`, row in the vocabulary's tables."""
    chars: NDArray[np.int16]
    """`[word types, max_word_chars]`"""
    context_types: Int32
    """`[context tokens]`"""
    context_offsets: Int64
    """`[contexts + 1]`"""
    context_spans: Int32
    """`[context tokens, 2]`, character offsets of each token in its context."""
    question_types: Int32
    """`[question tokens]`"""
    question_offsets: Int64
    """`[questions + 1]`"""
    question_context: Int32
    """`[questions]`, index of the context asked about."""
    answer_spans: Int32
    """`[answers, 2]`, first and last token of each gold answer; `NO_ANSWER` twice where the question has none."""
    answer_offsets: Int64
    """`[questions + 1]`"""
    read_texts: Callable[[], Texts]
    """Called when a text is first asked for: training needs none."""

    def __len__(self) -> int:
        """Number of questions."""
        return len(self.question_context)

    def gold_spans(self, question: int) -> Int32:
        """`[spans, 2]`, first and last token of each gold answer to a question; none where it has no answer."""
        spans = self.answer_spans[self.answer_offsets[question] : self.answer_offsets[question + 1]]
        return spans[~is_no_answer(spans)]

    @cached_property
    def texts(self) -> Texts:
        """Everything that is no number. Raises `DataError` when the file of the texts can't be used."""
        return self.read_texts()

    @property
    def ids(self) -> list[str]:
        """`[questions]`"""
        return self.texts.ids

    @property
    def questions(self) -> list[str]:
        """`[questions]`"""
        return self.texts.questions

    @property
    def titles(self) -> list[str | None]:
        """`[questions]`"""
        return self.texts.titles

    @property
    def contexts(self) -> list[str]:
        """`[contexts]`"""
        return self.texts.contexts

    @property
    def answers(self) -> list[list[str]]:
        """`[questions]`, every gold text of each."""
        return self.texts.answers

    def save(self, folder: Path) -> None:
        """Write arrays and texts into an existing folder."""
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in ARRAYS}
        (folder / ARRAYS_FILE).write_bytes(save(arrays))
        # ASCII only: escapes carry any string, lone surrogates too.
        (folder / TEXTS_FILE).write_text(json.dumps(asdict(self.texts)), encoding="ascii")

    @classmethod
    def load(cls, folder: Path) -> Features:
        """Read the arrays that `save` (or format 2) wrote. Raises `DataError` when they are missing or corrupted."""
        with _reading(folder):
            if (folder / ARRAYS_FILE).exists():
                refuse_strange_files(folder, [ARRAYS_FILE])
                arrays = _typed(load_file(folder / ARRAYS_FILE))
            else:
                arrays = load_arrays(folder, ARRAYS)
            questions, contexts = len(arrays["question_context"]), len(arrays["context_offsets"]) - 1
            features = cls(**arrays, read_texts=lambda: _read_texts(folder, questions, contexts))
            check_arrays(features)
        return features


ARRAYS: dict[str, tuple[type[np.generic], int]] = {
    "word_rows": (np.int32, 1),
    "chars": (np.int16, 2),
    "context_types": (np.int32, 1),
    "context_offsets": (np.int64, 1),
    "context_spans": (np.int32, 2),
    "question_types": (np.int32, 1),
    "question_offsets": (np.int64, 1),
    "question_context": (np.int32, 1),
    "answer_spans": (np.int32, 2),
    "answer_offsets": (np.int64, 1),
}
"""Type and number of dimensions of each array."""


def _typed(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    _check(arrays.keys() == ARRAYS.keys(), f"it holds {', '.join(sorted(arrays)) or 'no array'}")
    for name, (dtype, dimensions) in ARRAYS.items():
        found = arrays[name]
        expected = f"{name} must be {np.dtype(dtype)} of {dimensions} dimensions"
        _check(found.dtype == dtype and found.ndim == dimensions, f"{expected}, found {found.dtype} of {found.ndim}")
    return arrays


def _read_texts(folder: Path, questions: int, contexts: int) -> Texts:
    with _reading(folder):
        refuse_strange_files(folder, [TEXTS_FILE])
        found = json.loads((folder / TEXTS_FILE).read_text(encoding="ascii"))
        found.setdefault("titles", [None] * questions)  # format 2 has none
        texts = Texts(**{field.name: found[field.name] for field in fields(Texts)})
        check_texts(texts, questions=questions, contexts=contexts)
        return texts


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, SafetensorError) as error:
        raise DataError(f"The features in {folder} can't be read: {error}.") from None


# Checksums find what broke by itself; these checks find what somebody made so. A number that leads out of its array
# ends in a message: a GPU reads beyond an array without one.


def check_arrays(features: Features) -> None:
    """Raise `ValueError` saying which array does not fit the others."""
    contexts, questions = len(features.context_offsets) - 1, len(features.question_context)
    types = len(features.word_rows)
    _check(len(features.chars) == types, "chars and word_rows are of different lengths")
    _check(len(features.context_spans) == len(features.context_types), "not every token of a context has a span")
    for name in ("context_spans", "answer_spans"):
        _check(getattr(features, name).shape[1] == 2, f"{name} holds no pairs")
    _check_offsets("context_offsets", features.context_offsets, contexts, len(features.context_types))
    _check_offsets("question_offsets", features.question_offsets, questions, len(features.question_types))
    _check_offsets("answer_offsets", features.answer_offsets, questions, len(features.answer_spans))
    _check_range("context_types", features.context_types, types)
    _check_range("question_types", features.question_types, types)
    _check_range("question_context", features.question_context, contexts)
    lengths = np.diff(features.context_offsets)
    _check(bool((lengths > 0).all()), "a context has no token")
    _check(bool((np.diff(features.question_offsets) > 0).all()), "a question has no token")
    tokens = np.repeat(lengths[features.question_context], np.diff(features.answer_offsets))
    answered = ~is_no_answer(features.answer_spans)
    _check_range("answer_spans", features.answer_spans[answered], tokens[answered, None])


def is_no_answer(answer_spans: Int32) -> NDArray[np.bool_]:
    """`[answers]`, which of the gold answers say that there is none."""
    absent: NDArray[np.bool_] = (answer_spans == NO_ANSWER).all(axis=1)
    return absent


def check_texts(texts: Texts, *, questions: int, contexts: int) -> None:
    """Raise `ValueError` unless there is a text for each of this number of questions and contexts."""
    for name, value in vars(texts).items():
        count = contexts if name == "contexts" else questions
        lists = value if name == "answers" and isinstance(value, list) else [value]
        _check(isinstance(value, list) and all(isinstance(each, list) for each in lists), f"{name} is no list of text")
        optional = (str, type(None)) if name == "titles" else str
        _check(all(isinstance(text, optional) for each in lists for text in each), f"{name} is no list of text")
        _check(len(value) == count, f"there are {len(value):,} {name} for {count:,}")


def check_rows(features: Features, words: int, chars: int, max_word_chars: int) -> None:
    """Raise `ValueError` unless all word rows and characters are among this number of rows of a vocabulary."""
    _check(features.chars.shape[1] == max_word_chars, f"words are not of {max_word_chars} characters")
    _check_range("word_rows", features.word_rows, words)
    _check_range("chars", features.chars, chars)


def _check(holds: bool, problem: str) -> None:
    if not holds:
        raise ValueError(problem)


def _check_offsets(name: str, offsets: Any, items: int, elements: int) -> None:
    bounds = items >= 0 and len(offsets) == items + 1 and offsets[0] == 0 and offsets[-1] == elements
    _check(bool(bounds and (np.diff(offsets) >= 0).all()), f"{name} does not divide its elements")


def _check_range(name: str, numbers: Any, limit: Any) -> None:
    _check(bool(((numbers >= 0) & (numbers < limit)).all()), f"{name} holds a number out of range")
