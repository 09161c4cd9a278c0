"""Answers of a model to all questions of a split, and their official score."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bidaf.data.batches import BatchSource, batches_by_length
from bidaf.data.features import Features
from bidaf.model.spans import best_spans, top_spans
from bidaf.threads import map_on_threads

ALL = slice(None)


def default_batch_tokens(device: torch.device) -> int:
    """Padded context tokens per batch when `evaluation.batch_tokens` is not set: enough to fill the device."""
    return 60_000 if device.type == "cuda" else 12_000


class Answered(NamedTuple):
    """A span of one question's context: its text, character offsets and probability p1[start] * p2[end]."""

    text: str
    start: int
    end: int
    probability: float


def cut_answer(features: Features, question: int, first: int, last: int, log_probability: float) -> Answered:
    """The original context's text from token `first` to token `last`, both included."""
    context = int(features.question_context[question])
    base = int(features.context_offsets[context])
    start = int(features.context_spans[base + first, 0])
    end = int(features.context_spans[base + last, 1])
    return Answered(features.contexts[context][start:end], start, end, math.exp(log_probability))


def score_batches(
    model: nn.Module,
    source: BatchSource,
    batch_tokens: int | None,
    *,
    tick: Callable[[int], None] = lambda questions: None,
    shard: slice = ALL,
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Question numbers with their log-probabilities start and end [batch, T], for all questions of `source`, or those
    of a shard of the batches.

    `batch_tokens` None stands for the device's default.

    Runs in evaluation mode without gradients and leaves the model's mode as it was. `tick` hears of each batch done.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            tokens = batch_tokens or default_batch_tokens(source.device)
            batches = list(batches_by_length(source.context_lengths, tokens))[shard]
            found = map_on_threads(lambda indices: model(source.gather(indices)), batches, source.device)
            for indices, scores in zip(batches, found, strict=True):
                yield indices.tolist(), scores.start, scores.end
                tick(len(indices))
    finally:
        model.train(was_training)


def answer_all(
    model: nn.Module,
    source: BatchSource,
    *,
    batch_tokens: int | None,
    max_answer_tokens: int | None,
    tick: Callable[[int], None] = lambda questions: None,
    shard: slice = ALL,
) -> dict[str, Answered]:
    """The best span of every question (in a shard of the batches), by id, in data set order."""
    answers: dict[int, Answered] = {}
    for indices, start, end in score_batches(model, source, batch_tokens, tick=tick, shard=shard):
        spans = best_spans(start, end, max_answer_tokens)
        rows = zip(indices, spans.start.tolist(), spans.end.tolist(), spans.score.tolist(), strict=True)
        for question, first, last, score in rows:
            answers[question] = cut_answer(source.features, question, first, last, score)
    return {source.features.ids[question]: answers[question] for question in sorted(answers)}


def answer_n_best(
    model: nn.Module,
    source: BatchSource,
    n: int,
    *,
    batch_tokens: int | None,
    max_answer_tokens: int | None,
    tick: Callable[[int], None] = lambda questions: None,
    shard: slice = ALL,
) -> dict[str, list[Answered]]:
    """Up to `n` best spans of every question (in a shard of the batches), most probable first, by id.

    The first of them is what `answer_all` gives.
    """
    answers: dict[int, list[Answered]] = {}
    for indices, start, end in score_batches(model, source, batch_tokens, tick=tick, shard=shard):
        for question, spans in zip(indices, top_spans(start, end, n, max_answer_tokens), strict=True):
            answers[question] = [cut_answer(source.features, question, *span) for span in spans]
    return {source.features.ids[question]: answers[question] for question in sorted(answers)}
