"""A corpus as flat arrays of tokens, each word type numbered."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bidaf.data.tokenizer import Tokenizer, split_at_blanks

if TYPE_CHECKING:
    from bidaf.data.squad import Example

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Tokens:
    """A corpus, tokenized once: each token is the number of its word type, counted from 1 by first occurrence.

    Flat arrays; text i owns the tokens `offsets[i]:offsets[i+1]`. A context that several questions share is there once.
    """

    types: list[str]
    """Distinct word types; type n is `types[n - 1]`, and 0 is left to padding."""
    contexts: list[str]
    context_types: Int32
    """`[context tokens]`"""
    context_spans: Int32
    """`[context tokens, 2]`, character offsets."""
    context_offsets: Int64
    """`[contexts + 1]`"""
    question_types: Int32
    """`[question tokens]`"""
    question_offsets: Int64
    """`[questions + 1]`"""
    question_context: Int32
    """`[questions]`, index into `contexts`."""

    def counts(self) -> Int64:
        """Occurrences of each word type, `[types + 1]`: in a context, once per question on it.

        That is how the released squad/prepro.py counts.
        """
        asked = np.bincount(self.question_context, minlength=len(self.contexts))
        weights = np.repeat(asked, np.diff(self.context_offsets))
        size = len(self.types) + 1
        in_contexts = np.bincount(self.context_types, weights=weights, minlength=size).astype(np.int64)
        return in_contexts + np.bincount(self.question_types, minlength=size)


class _Words(dict[str, int]):
    """Numbers the words between blanks as they are met, and keeps what tokens each is made of."""

    def __init__(self, tokenizer: Tokenizer, second_split: bool, types: dict[str, int]) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._second_split = second_split
        self._types = types
        self.lengths = array("q")  # characters of each word
        self.token_types, self.token_spans = array("i"), array("i")
        self.offsets = array("q", [0])

    def __missing__(self, word: str) -> int:
        return self._add(word, word, self._tokenizer.tokenize_word(word, self._second_split))

    def of(self, text: str) -> list[int]:
        """Numbers of the words of a text; a text without any token is one word, and that one token."""
        words = split_at_blanks(text)
        if any(words):
            return [self[word] for word in words]
        key = f" {text}"  # other than any word: those hold no blanks
        return [self[key] if key in self else self._add(key, text, [(0, len(text))])]

    def _add(self, key: str, word: str, tokens: list[tuple[int, int]]) -> int:
        for start, end in tokens:
            self.token_types.append(self._types.setdefault(word[start:end], len(self._types) + 1))
            self.token_spans.extend((start, end))
        self.offsets.append(len(self.token_types))
        self.lengths.append(len(word))
        self[key] = number = len(self)
        return number


class _Texts:
    """Texts end to end, as numbers of their words."""

    def __init__(self, words: _Words) -> None:
        self._words = words
        self._numbers = array("i")
        self._offsets = array("q", [0])

    def add(self, text: str) -> None:
        self._numbers.extend(self._words.of(text))
        self._offsets.append(len(self._numbers))

    def tokens(self) -> tuple[Int32, Int32, Int64]:
        """Forms `[tokens]`, character offsets `[tokens, 2]`, and the first token of each text `[texts + 1]`."""
        words = self._words
        numbers, texts = np.array(self._numbers, dtype=np.int64), np.array(self._offsets, dtype=np.int64)
        first = np.array(words.offsets, dtype=np.int64)
        counts = np.diff(first)[numbers]
        token_ends, word_ends = np.cumsum(counts), np.cumsum(np.array(words.lengths, dtype=np.int64)[numbers] + 1)
        # Counted from the first text's begin; less the begin of their own text they are offsets into that.
        starts = np.concatenate([[0], word_ends])
        starts = starts[:-1] - np.repeat(starts[texts[:-1]], np.diff(texts))
        places = np.arange(counts.sum()) + np.repeat(first[numbers] - (token_ends - counts), counts)
        spans = np.array(words.token_spans, dtype=np.int32).reshape(-1, 2)[places]
        spans += np.repeat(starts, counts).astype(np.int32)[:, None]
        return (
            np.array(words.token_types, dtype=np.int32)[places],
            spans,
            np.concatenate([[0], token_ends])[texts].astype(np.int64),
        )


def tokenize_examples(examples: Iterable[Example], tokenizer: Tokenizer) -> Tokens:
    """Tokenize every distinct context and every question. A text without any token becomes one token as a whole."""
    types: dict[str, int] = {}
    words = {split: _Words(tokenizer, split, types) for split in (tokenizer.second_split, tokenizer.split_questions)}
    context_texts, question_texts = _Texts(words[tokenizer.second_split]), _Texts(words[tokenizer.split_questions])
    contexts: dict[str, int] = {}
    question_context = array("i")
    for example in examples:
        if example.context not in contexts:
            contexts[example.context] = len(contexts)
            context_texts.add(example.context)
        question_texts.add(example.question)
        question_context.append(contexts[example.context])
    context_types, context_spans, context_offsets = context_texts.tokens()
    question_types, _, question_offsets = question_texts.tokens()
    return Tokens(
        types=list(types),
        contexts=list(contexts),
        context_types=context_types,
        context_spans=context_spans,
        context_offsets=context_offsets,
        question_types=question_types,
        question_offsets=question_offsets,
        question_context=np.array(question_context, dtype=np.int32),
    )
