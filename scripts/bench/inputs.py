"""Features to measure with: a sample of a split, or random texts of one length."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bidaf.data.features import Features

QUESTION_TOKENS = 12  # SQuAD's questions have 11.4 tokens on average


def sample(features: Features, questions: int) -> Features:
    """At most this many questions, evenly spread over the split, on its contexts."""
    chosen = np.linspace(0, len(features) - 1, min(questions, len(features))).astype(np.int64)
    offsets = features.question_offsets
    texts = [features.question_types[offsets[number] : offsets[number + 1]] for number in chosen]
    return replace(
        features,
        question_types=np.concatenate(texts),
        question_offsets=np.cumsum([0, *map(len, texts)], dtype=np.int64),
        question_context=features.question_context[chosen],
        **_without_answers(len(chosen)),
        read_texts=lambda: replace(
            features.texts,
            ids=[features.ids[number] for number in chosen],
            questions=[features.questions[number] for number in chosen],
            titles=[features.titles[number] for number in chosen],
            answers=[features.answers[number] for number in chosen],
        ),
    )


def synthetic(features: Features, questions: int, context_tokens: int) -> Features:
    """Questions of 12 tokens on contexts of `context_tokens`; words are as frequent as in `features`."""
    rng = np.random.default_rng(0)

    def texts(tokens: int) -> tuple[Any, Any]:
        forms = rng.choice(features.context_types, questions * tokens)
        return forms, np.arange(0, questions * tokens + 1, tokens, dtype=np.int64)

    context_types, context_offsets = texts(context_tokens)
    question_types, question_offsets = texts(QUESTION_TOKENS)
    return replace(
        features,
        context_types=context_types,
        context_offsets=context_offsets,
        question_types=question_types,
        question_offsets=question_offsets,
        question_context=np.arange(questions, dtype=np.int32),
        **_without_answers(questions),
        read_texts=lambda: replace(features.texts, ids=[str(number) for number in range(questions)]),
    )


def _without_answers(questions: int) -> dict[str, Any]:
    """The first token is the answer to each question: no time depends on it."""
    return {
        "answer_spans": np.zeros((questions, 2), dtype=np.int32),
        "answer_offsets": np.arange(questions + 1, dtype=np.int64),
    }
