"""Which words and characters have an embedding row, chosen as in the released code of Seo et al. (squad/read_data.py).

A word of the pre-trained vectors keeps its fixed row, seen in training or not. Other words that are frequent in
training get a trained row, as do padding (row 0) and the unknown word (row 1).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from bidaf.data.format2 import load_array
from bidaf.errors import DataError
from bidaf.files.reading import refuse_strange_files

PAD, UNK = 0, 1
SPECIAL = ["<pad>", "<unk>"]

VOCABULARY_FILE = "vocabulary.json"
VECTORS_FILE, OLD_VECTORS_FILE = "vectors.safetensors", "vectors.npy"  # vectors.npy: format 2 and older exports
_VECTORS = "vectors"  # the one tensor of the file

# Character ids are stored as int16; the rarest beyond that are unknown.
MAX_CHARS = np.iinfo(np.int16).max


def _variants(word: str) -> tuple[str, ...]:
    return word, word.lower(), word.capitalize(), word.upper()


@dataclass(frozen=True)
class Vocabulary:
    """Word rows and character ids. A word row below `len(trained_words)` is one of the trained table; what is left
    after subtracting that is a row of the fixed vectors.
    """

    trained_words: list[str]
    """Lower-cased; `SPECIAL` first."""
    fixed_words: list[str]
    """Words of the vectors file, in its order."""
    chars: list[str]
    """Characters, case kept; `SPECIAL` first."""
    max_word_chars: int
    """Number of characters read per word."""

    @cached_property
    def _fixed_rows(self) -> dict[str, int]:
        return {word: row for row, word in enumerate(self.fixed_words, len(self.trained_words))}

    @cached_property
    def _trained_rows(self) -> dict[str, int]:
        # By position: the text "<pad>" is not padding.
        return {word: row for row, word in enumerate(self.trained_words) if row >= len(SPECIAL)}

    @cached_property
    def _char_ids(self) -> dict[str, int]:
        return {char: index for index, char in enumerate(self.chars)}

    def word_row(self, word: str) -> int:
        """The row of a word: fixed (as given, lower, Capitalised, UPPER; first hit), else trained, else `UNK`."""
        for variant in _variants(word):
            if (row := self._fixed_rows.get(variant)) is not None:
                return row
        return self._trained_rows.get(word.lower(), UNK)

    def char_ids(self, word: str) -> NDArray[np.int16]:
        """`[max_word_chars]`, cut or padded with 0."""
        ids = np.full(self.max_word_chars, PAD, dtype=np.int16)
        known = [self._char_ids.get(char, UNK) for char in word[: self.max_word_chars]]
        ids[: len(known)] = known
        return ids

    def save(self, folder: Path, vectors: NDArray[np.float32]) -> None:
        """Write the vocabulary and the matrix of its fixed words, `[fixed words, dim]`, into an existing folder."""
        # ASCII only: escapes carry any string, lone surrogates too.
        (folder / VOCABULARY_FILE).write_text(json.dumps(asdict(self)), encoding="ascii")
        (folder / VECTORS_FILE).write_bytes(save({_VECTORS: np.ascontiguousarray(vectors)}))

    @classmethod
    def load(cls, folder: Path) -> Vocabulary:
        """Read what `save` wrote. Raises `DataError` when it is missing or corrupted."""
        path = folder / VOCABULARY_FILE
        try:
            refuse_strange_files(folder, [VOCABULARY_FILE])
            vocabulary = cls(**json.loads(path.read_text(encoding="ascii")))
            for words in (vocabulary.trained_words, vocabulary.fixed_words, vocabulary.chars):
                if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                    raise TypeError("its words and characters must be lists of text")
            if not vocabulary.trained_words[:2] == vocabulary.chars[:2] == SPECIAL:
                raise ValueError(f"its words and characters must begin with {' and '.join(SPECIAL)}")
            if len(vocabulary.chars) > MAX_CHARS:
                raise ValueError(f"it has more than {MAX_CHARS:,} characters")
            if type(vocabulary.max_word_chars) is not int or vocabulary.max_word_chars < 1:
                raise TypeError("max_word_chars must be a whole number, 1 or more")
            return vocabulary
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise DataError(f"{path} can't be read: {error}.") from None


def load_vectors_matrix(folder: Path) -> NDArray[np.float32]:
    """The matrix of the fixed words, `[fixed words, dim]`, from `VECTORS_FILE` or else the older file.

    Raises `DataError` when it is missing or corrupted.
    """
    path = folder / VECTORS_FILE
    try:
        if not path.exists() and (old := folder / OLD_VECTORS_FILE).exists():
            path = old
            return load_array(path, np.float32, 2)
        refuse_strange_files(folder, [VECTORS_FILE])
        matrix: NDArray[np.float32] = load_file(path)[_VECTORS]
        if matrix.dtype != np.float32 or matrix.ndim != 2:
            raise ValueError(f"expected float32 of 2 dimensions, found {matrix.dtype} of {matrix.ndim}")
        return matrix
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise DataError(f"{path} can't be read: {error}.") from None


def build_vocabulary(
    types: Sequence[str],
    counts: Sequence[int] | NDArray[np.int64],
    fixed_words: Sequence[str],
    *,
    min_word_count: int,
    min_char_count: int,
    max_word_chars: int,
) -> Vocabulary:
    """Choose the rows from the word types of the training text and how often each occurs, `[types]`.

    Words are counted lower-cased, characters as they stand; both must occur more often than their minimum.
    Equal counts are ordered by the word, so that the same text gives the same rows.
    """
    fixed = set(fixed_words)
    words: Counter[str] = Counter()
    chars: Counter[str] = Counter()
    uncovered: set[str] = set()
    for word, occurrences in zip(types, map(int, counts), strict=True):
        words[word.lower()] += occurrences
        for char in word:
            chars[char] += occurrences
        if fixed.isdisjoint(_variants(word)):
            uncovered.add(word.lower())
    trained = [word for word in _by_count(words, min_word_count) if word in uncovered]
    return Vocabulary(
        trained_words=SPECIAL + trained,
        fixed_words=list(fixed_words),
        chars=(SPECIAL + _by_count(chars, min_char_count))[:MAX_CHARS],
        max_word_chars=max_word_chars,
    )


def _by_count(counter: Counter[str], minimum: int) -> list[str]:
    """Keys that occur more often than `minimum`, most frequent first."""
    frequent = [(-occurrences, key) for key, occurrences in counter.items() if occurrences > minimum]
    return [key for _, key in sorted(frequent)]
