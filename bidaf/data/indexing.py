"""From tokens to features: which questions and tokens are kept, the gold spans, the tables of word types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bidaf.data.features import NO_ANSWER, Features, Texts, is_no_answer
from bidaf.data.tokenizer import Tokenizer
from bidaf.data.tokens import Int32, Int64, Tokens, tokenize_examples
from bidaf.data.vocabulary import PAD, Vocabulary
from bidaf.errors import DataError
from bidaf.files.reading import quote
from bidaf.progress import watched

if TYPE_CHECKING:
    from bidaf.data.squad import Example, GoldAnswer


@dataclass(frozen=True)
class Limits:
    """Lengths beyond which training questions are cut or dropped; the defaults are the released code's."""

    max_context_tokens: int = 400
    max_question_tokens: int = 30


@dataclass
class FeatureCounts:
    """What became of a corpus; questions, unless said otherwise."""

    read: int
    kept: int = 0
    unanswerable: int = 0
    """Of the kept questions, those that have no answer."""
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
    used, context_types, question_types = _renumber(
        tokens.context_types[context_mask], tokens.question_types[question_mask]
    )
    word_rows, chars = _tables([tokens.types[number - 1] for number in used.tolist()], vocabulary)
    questions = [examples[index] for index in kept]
    texts = Texts(
        ids=[example.id for example in questions],
        questions=[example.question for example in questions],
        titles=[example.title for example in questions],
        contexts=[tokens.contexts[index] for index in kept_contexts.tolist()],
        answers=[[answer.text for answer in example.answers] for example in questions],
    )
    features = Features(
        word_rows=word_rows,
        chars=chars,
        context_types=context_types,
        context_offsets=_offsets(tokens.context_offsets, kept_contexts, context_mask),
        context_spans=tokens.context_spans[context_mask],
        question_types=question_types,
        question_offsets=_offsets(tokens.question_offsets, kept, question_mask),
        question_context=question_context.astype(np.int32),
        answer_spans=answer_spans,
        answer_offsets=answer_offsets,
        read_texts=lambda: texts,
    )
    counts.unanswerable = int(is_no_answer(answer_spans).sum())
    counts.kept, counts.contexts = len(kept), len(kept_contexts)
    counts.spans = len(answer_spans) - counts.unanswerable
    counts.truncated_contexts = int(
        np.sum(np.diff(features.context_offsets) < np.diff(tokens.context_offsets)[kept_contexts])
    )
    return features, counts


def with_vocabulary(features: Features, tokenizer: Tokenizer, vocabulary: Vocabulary) -> Features:
    """The same tokens, which this tokenizer made, with the rows and characters of another vocabulary.

    Raises `DataError` where the tokenizer now splits a question differently.
    """
    words: dict[int, str] = {}
    types, places = np.unique(features.context_types, return_index=True)
    owners = np.searchsorted(features.context_offsets, places, side="right") - 1
    for number, place, owner in zip(types.tolist(), places.tolist(), owners.tolist(), strict=True):
        start, end = features.context_spans[place].tolist()
        words[number] = features.contexts[owner][start:end]
    bounds = features.question_offsets.tolist()
    for question, first, last in zip(features.questions, bounds, bounds[1:], strict=False):
        own = features.question_types[first:last].tolist()
        if words.keys() >= set(own):
            continue
        spans = tokenizer.tokenize_question(question) or [(0, len(question))]
        if len(spans) != len(own):
            raise DataError(
                f"the question {quote(question)} had {len(own)} words when it was prepared and has {len(spans)} now: "
                "another version of spaCy prepared it; name the questions with --data"
            )
        words.update(zip(own, (question[start:end] for start, end in spans), strict=True))
    listed = [words.get(number, "") for number in range(1, len(features.word_rows))]
    word_rows, chars = _tables(listed, vocabulary)
    return replace(features, word_rows=word_rows, chars=chars)


def _tables(words: Sequence[str], vocabulary: Vocabulary) -> tuple[Int32, NDArray[np.int16]]:
    """Row and characters of word types 1, 2, ...; those of padding come first."""
    chars = np.full((len(words) + 1, vocabulary.max_word_chars), PAD, dtype=np.int16)
    for index, word in enumerate(words, 1):
        chars[index] = vocabulary.char_ids(word)
    return np.array([PAD, *map(vocabulary.word_row, words)], dtype=np.int32), chars


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
        if example.impossible:
            kept.append(index)
            spans.append((NO_ANSWER, NO_ANSWER))
            offsets.append(offsets[-1] + 1)
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
    """The word types that occur, by first occurrence, and both arrays in the numbers 1, 2, ... of those."""
    types, first, inverse = np.unique(np.concatenate([contexts, questions]), return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(types), dtype=np.int32)
    rank[order] = np.arange(1, len(types) + 1, dtype=np.int32)
    numbers = rank[inverse]
    return types[order], numbers[: len(contexts)], numbers[len(contexts) :]
