"""Questions, contexts and answer spans as flat integer arrays: what batches are gathered from.

Tokens are numbers of word forms; a form's word row and characters stand in a table, once. Form 0 is padding.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bidaf.data.arrays import load_array, save_array
from bidaf.data.checks import check_arrays, check_texts
from bidaf.data.tokenizer import Tokenizer
from bidaf.data.tokens import Int32, Int64, Tokens, tokenize_examples
from bidaf.data.vocabulary import PAD, Vocabulary
from bidaf.errors import DataError
from bidaf.files.reading import refuse_strange_files
from bidaf.progress import watched

if TYPE_CHECKING:
    from bidaf.data.squad import Example, GoldAnswer

TEXTS_FILE = "texts.json"
_TEXTS = ("ids", "questions", "contexts", "answers")


@dataclass(frozen=True)
class Limits:
    """Lengths beyond which training questions are cut or dropped; the defaults are the released code's."""

    max_context_tokens: int = 400
    max_question_tokens: int = 30


@dataclass(frozen=True)
class Features:
    """One split. Flat arrays; item i of a kind owns the elements `offsets[i]:offsets[i+1]`."""

    word_rows: Int32
    """`[forms]`, row in the vocabulary's tables."""
    chars: NDArray[np.int16]
    """`[forms, max_word_chars]`"""
    context_forms: Int32
    """`[context tokens]`"""
    context_offsets: Int64
    """`[contexts + 1]`"""
    context_spans: Int32
    """`[context tokens, 2]`, character offsets of each token in its context."""
    question_forms: Int32
    """`[question tokens]`"""
    question_offsets: Int64
    """`[questions + 1]`"""
    question_context: Int32
    """`[questions]`, index of the context asked about."""
    answer_spans: Int32
    """`[answers, 2]`, first and last token of each gold answer."""
    answer_offsets: Int64
    """`[questions + 1]`"""
    ids: list[str]
    questions: list[str]
    contexts: list[str]
    """Whole texts, even where the tokens were cut: spans are offsets into these."""
    answers: list[list[str]]
    """Every gold text of each question, as evaluation wants them."""

    def __len__(self) -> int:
        """Number of questions."""
        return len(self.question_context)

    def save(self, folder: Path) -> None:
        """Write an `.npy` file an array and `texts.json` into an existing folder."""
        for name in _ARRAYS:
            save_array(folder / f"{name}.npy", getattr(self, name))
        texts = {name: getattr(self, name) for name in _TEXTS}
        (folder / TEXTS_FILE).write_text(json.dumps(texts), encoding="ascii")

    @classmethod
    def load(cls, folder: Path) -> Features:
        """Read the arrays that `save` wrote. Raises `DataError` when they are missing or damaged.

        The texts are read when one of them is first asked for, and raise the same: training needs none.
        """
        with _reading(folder):
            arrays = {name: load_array(folder / f"{name}.npy", *form) for name, form in _ARRAYS.items()}
            features = object.__new__(cls)
            vars(features).update(arrays, _folder=folder)
            check_arrays(features)
        return features

    def __getattr__(self, name: str) -> Any:
        # Python comes here for what is not there: the texts of loaded features, the first time.
        if name not in _TEXTS:
            raise AttributeError(f"Features have no {name}")
        with _reading(self._folder):
            refuse_strange_files(self._folder, [TEXTS_FILE])
            texts = json.loads((self._folder / TEXTS_FILE).read_text(encoding="ascii"))
            found = {kind: texts[kind] for kind in _TEXTS}
            check_texts(found, questions=len(self.question_context), contexts=len(self.context_offsets) - 1)
            vars(self).update(found)
        return vars(self)[name]


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"The features in {folder} can't be read: {error}.") from None


_ARRAYS: dict[str, tuple[type[np.generic], int]] = {
    "word_rows": (np.int32, 1),
    "chars": (np.int16, 2),
    "context_forms": (np.int32, 1),
    "context_offsets": (np.int64, 1),
    "context_spans": (np.int32, 2),
    "question_forms": (np.int32, 1),
    "question_offsets": (np.int64, 1),
    "question_context": (np.int32, 1),
    "answer_spans": (np.int32, 2),
    "answer_offsets": (np.int64, 1),
}
"""Type and dimensions of each array's file."""


@dataclass
class FeatureCounts:
    """What became of a corpus; questions, unless said otherwise."""

    read: int
    kept: int = 0
    dropped: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> question ids."""
    contexts: int = 0
    truncated_contexts: int = 0
    """Contexts that lost tokens to `Limits.max_context_tokens`."""
    uncovered_answers: int = 0
    """Answers without any token under them."""
    beyond_answers: int = 0
    """Answers that end beyond `Limits.max_context_tokens`."""
    spans: int = 0
    """Gold spans."""
    exact: int = 0
    """Gold spans whose text, cut out of the context, is the gold answer to the letter."""

    @property
    def exact_spans(self) -> float:
        """Share of the gold spans that give back exactly their answer; the rest bound what a model can reach."""
        return self.exact / self.spans if self.spans else 1.0

    def drop(self, reason: str, question: str) -> None:
        """Note a question that was left out."""
        self.dropped.setdefault(reason, []).append(question)


def build_features(
    examples: Sequence[Example], tokenizer: Tokenizer, vocabulary: Vocabulary, limits: Limits | None = None
) -> tuple[Features, FeatureCounts]:
    """Tokenize and index. Without `limits`, as for scoring and prediction, nothing is cut or dropped: a question
    whose answers have no tokens stays, without gold spans.
    """
    # Nobody waits for one question; its bar would come with the second that the tokenizer takes to start.
    shown = watched(examples, "tokenize", "question", delay=1) if len(examples) > 1 else examples
    return index_tokens(examples, tokenize_examples(shown, tokenizer), vocabulary, limits)


def index_tokens(
    examples: Sequence[Example], tokens: Tokens, vocabulary: Vocabulary, limits: Limits | None = None
) -> tuple[Features, FeatureCounts]:
    """`build_features` for examples that are tokenized already."""
    counts = FeatureCounts(read=len(examples))
    kept, answer_spans, answer_offsets = _gold_spans(examples, tokens, limits, counts)
    kept_contexts, question_context = np.unique(tokens.question_context[kept], return_inverse=True)
    context_mask = _mask(tokens.context_offsets, kept_contexts, limits.max_context_tokens if limits else None)
    question_mask = _mask(tokens.question_offsets, kept, None)
    used, context_forms, question_forms = _renumber(
        tokens.context_forms[context_mask], tokens.question_forms[question_mask]
    )
    words = [tokens.forms[form - 1] for form in used.tolist()]
    chars = np.full((len(words) + 1, vocabulary.max_word_chars), PAD, dtype=np.int16)
    for index, word in enumerate(words, 1):
        chars[index] = vocabulary.char_ids(word)
    questions = [examples[index] for index in kept]
    features = Features(
        word_rows=np.array([PAD, *map(vocabulary.word_row, words)], dtype=np.int32),
        chars=chars,
        context_forms=context_forms,
        context_offsets=_offsets(tokens.context_offsets, kept_contexts, context_mask),
        context_spans=tokens.context_spans[context_mask],
        question_forms=question_forms,
        question_offsets=_offsets(tokens.question_offsets, kept, question_mask),
        question_context=question_context.astype(np.int32),
        answer_spans=answer_spans,
        answer_offsets=answer_offsets,
        ids=[example.id for example in questions],
        questions=[example.question for example in questions],
        contexts=[tokens.contexts[index] for index in kept_contexts.tolist()],
        answers=[[answer.text for answer in example.answers] for example in questions],
    )
    counts.kept, counts.contexts, counts.spans = len(kept), len(kept_contexts), len(answer_spans)
    counts.truncated_contexts = int(
        np.sum(np.diff(features.context_offsets) < np.diff(tokens.context_offsets)[kept_contexts])
    )
    return features, counts


def _gold_spans(
    examples: Sequence[Example], tokens: Tokens, limits: Limits | None, counts: FeatureCounts
) -> tuple[Int64, Int32, Int64]:
    """Indices of the questions that stay, and their gold spans."""
    kept: list[int] = []
    spans: list[tuple[int, int]] = []
    offsets = [0]
    lengths = np.diff(tokens.question_offsets).tolist()
    for index, example in enumerate(examples):
        if limits and lengths[index] > limits.max_question_tokens:
            counts.drop(f"question longer than {limits.max_question_tokens} tokens", example.id)
            continue
        context = tokens.question_context[index]
        bounds = tokens.context_spans[tokens.context_offsets[context] : tokens.context_offsets[context + 1]]
        found = [(answer, span) for answer in example.answers if (span := _span(answer, bounds))]
        counts.uncovered_answers += len(example.answers) - len(found)
        inside = [pair for pair in found if not limits or pair[1][1] < limits.max_context_tokens]
        counts.beyond_answers += len(found) - len(inside)
        if limits and not inside:
            reason = f"answer beyond {limits.max_context_tokens} tokens" if found else "answer without tokens"
            counts.drop(reason, example.id)
            continue
        kept.append(index)
        offsets.append(offsets[-1] + len(inside))
        for answer, (first, last) in inside:
            spans.append((first, last))
            counts.exact += example.context[bounds[first, 0] : bounds[last, 1]] == answer.text
    return (
        np.array(kept, dtype=np.int64),
        np.array(spans, dtype=np.int32).reshape(-1, 2),
        np.array(offsets, dtype=np.int64),
    )


def _span(answer: GoldAnswer, bounds: Int32) -> tuple[int, int] | None:
    """First and last of the tokens that overlap the answer's characters (squad/utils.py get_word_span)."""
    if answer.start < 0 or not answer.text:
        return None
    first = int(np.searchsorted(bounds[:, 1], answer.start, side="right"))
    last = int(np.searchsorted(bounds[:, 0], answer.start + len(answer.text), side="left")) - 1
    return (first, last) if first <= last else None


def _mask(offsets: Int64, items: Int64 | Int32, longest: int | None) -> NDArray[np.bool_]:
    """Which elements belong to these items, at most the first `longest` of each."""
    lengths = np.diff(offsets)
    taken = np.zeros_like(lengths)
    taken[items] = lengths[items] if longest is None else np.minimum(lengths[items], longest)
    position = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    mask: NDArray[np.bool_] = position < np.repeat(taken, lengths)
    return mask


def _offsets(offsets: Int64, items: Int64 | Int32, mask: NDArray[np.bool_]) -> Int64:
    """Offsets of these items among the elements that the mask leaves."""
    left = np.concatenate([[0], np.cumsum(mask)])
    ends = left[offsets[1:]][items]
    return np.concatenate([[0], ends]).astype(np.int64)


def _renumber(contexts: Int32, questions: Int32) -> tuple[Int32, Int32, Int32]:
    """The forms that occur, by first occurrence, and both arrays in the numbers 1, 2, ... of those."""
    forms, first, inverse = np.unique(np.concatenate([contexts, questions]), return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(forms), dtype=np.int32)
    rank[order] = np.arange(1, len(forms) + 1, dtype=np.int32)
    numbers = rank[inverse]
    return forms[order], numbers[: len(contexts)], numbers[len(contexts) :]
