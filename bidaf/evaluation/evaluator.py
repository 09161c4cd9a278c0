"""A model's predictions for the questions of a split: spans of their contexts, each with its probability."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from bidaf.data.batches import BatchSource, batches_by_length
from bidaf.data.features import Features
from bidaf.errors import BidafError
from bidaf.files.reading import quote
from bidaf.model.bidaf import SpanScores
from bidaf.model.spans import Span, top_spans
from bidaf.threads import map_on_threads

ALL = slice(None)
ANY_WEIGHTS = "the model's weights"
NO_ANSWER_LABEL = "(no answer)"


def default_batch_tokens(device: torch.device) -> int:
    """Padded context tokens per batch when `evaluation.batch_tokens` is not set: enough to fill the device.

    More would pad few questions of different lengths to the longest of them, for no gain.
    """
    return 60_000 if device.type == "cuda" else 4_000


class NonfiniteScores(BidafError):
    """The weights give a question no probabilities but NaN: they have diverged."""


class Prediction(NamedTuple):
    """A span of one question's context: its text, character offsets, probability p1[start] * p2[end] and score.

    "No answer" is the empty text at (0, 0), with its own probability and score.
    """

    text: str
    start: int
    end: int
    probability: float
    score: float | None = None
    """Log of the probability before it is normalised over the context, and so comparable between passages. None where
    that is not known: ensembles join probabilities."""

    def to_dict(self) -> dict[str, Any]:
        """What users see, for JSON."""
        return {name: value for name, value in self._asdict().items() if name != "score"}

    @property
    def is_empty(self) -> bool:
        """Whether it says that there is no answer."""
        return not self.text

    @property
    def shown(self) -> str:
        """What people read."""
        return self.text or NO_ANSWER_LABEL


def predict_spans(
    model: nn.Module,
    source: BatchSource,
    n: int = 1,
    *,
    batch_tokens: int | None,
    max_answer_tokens: int | None,
    weights: str = ANY_WEIGHTS,
    on_progress: Callable[[int], None] = lambda questions: None,
    shard: slice = ALL,
    questions: Sequence[int] | None = None,
) -> dict[str, list[Prediction]]:
    """Up to `n` best spans of every question (or of a shard of the batches), most probable first, by id.

    A model that knows "no answer" gives the empty answer too, ranked among them by its probability.
    `questions` are numbers of some, instead of all. The ids are in data set order. `on_progress` gets the number of
    questions of each batch that is done. Raises `NonfiniteScores` calling the model's weights `weights`.
    """
    found: dict[int, list[Prediction]] = {}
    for indices, scores in score_batches(model, source, batch_tokens, shard=shard, questions=questions):
        spans = find_spans(source.features, indices, scores, n, max_answer_tokens=max_answer_tokens, weights=weights)
        found.update(zip(indices, spans, strict=True))
        on_progress(len(indices))
    return {source.features.ids[question]: found[question] for question in sorted(found)}


def score_batches(
    model: nn.Module,
    source: BatchSource,
    batch_tokens: int | None,
    *,
    shard: slice = ALL,
    questions: Sequence[int] | None = None,
) -> Iterator[tuple[list[int], SpanScores]]:
    """Question numbers with their scores [batch, T], for all questions of `source`, some of them, or a shard.

    `batch_tokens` None stands for the device's default.

    Runs in evaluation mode without gradients and leaves the model's mode as it was.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            asked = np.arange(len(source)) if questions is None else np.asarray(questions)
            tokens = batch_tokens or default_batch_tokens(source.device)
            places = list(batches_by_length(source.context_lengths[asked], tokens))[shard]
            batches = [asked[each] for each in places]
            found = map_on_threads(lambda indices: model(source.gather(indices)), batches, source.device)
            for indices, scores in zip(batches, found, strict=True):
                yield indices.tolist(), scores
    finally:
        model.train(was_training)


def find_spans(
    features: Features,
    questions: Sequence[int],
    scores: SpanScores,
    n: int,
    *,
    max_answer_tokens: int | None,
    weights: str = ANY_WEIGHTS,
) -> list[list[Prediction]]:
    """Up to `n` best spans of the questions with these numbers, cut from their contexts, and the empty answer.

    Raises `NonfiniteScores`: finite weights can diverge so far that all scores are NaN, and then no span is the best.
    """
    found = top_spans(scores.start, scores.end, n, max_answer_tokens)
    for question, spans in zip(questions, found, strict=True):
        if not spans:
            raise NonfiniteScores(
                f"{weights} diverged: the scores of question {quote(features.ids[question])} are not finite; use an "
                "earlier checkpoint, or train with a lower training.optimizer.lr"
            )
    totals = [0.0] * len(found) if scores.log_total is None else scores.log_total.tolist()
    answers = [
        [cut_answer(features, question, span, log_total) for span in spans]
        for question, spans, log_total in zip(questions, found, totals, strict=True)
    ]
    if scores.no_answer is not None:
        for ranked, log_probability, log_total in zip(answers, scores.no_answer.tolist(), totals, strict=True):
            ranked.append(Prediction("", 0, 0, math.exp(log_probability), log_probability + log_total))
            ranked.sort(key=lambda each: -each.probability)
    return answers


def cut_answer(features: Features, question: int, span: Span, log_total: float) -> Prediction:
    """The text of a span of a question's context; `log_total` is that of the question's `SpanScores`."""
    context = int(features.question_context[question])
    base = int(features.context_offsets[context])
    start = int(features.context_spans[base + span.start, 0])
    end = int(features.context_spans[base + span.end, 1])
    text = features.contexts[context][start:end]
    return Prediction(text, start, end, math.exp(span.score), span.score + log_total)
