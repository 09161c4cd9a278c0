"""Batches gathered from flat arrays, on the device where the model is, and the orders in which they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bidaf.data.features import Features
from bidaf.model.bidaf import Batch

# Batches that are sorted by length together: enough that neighbours are alike, few enough that epochs differ.
POOL_BATCHES = 50


# A GPU replays whole steps of a shape recorded before: widths come in few sizes.
WIDTH_BUCKET, FORMS_BUCKET = 32, 1024


class Shape(NamedTuple):
    """The sizes that a batch is padded to: tokens of its contexts and questions, distinct word forms."""

    context: int
    question: int
    forms: int


@dataclass(frozen=True)
class FlatTexts:
    """Word forms of many texts, end to end."""

    forms: Tensor  # [tokens]
    offsets: Tensor  # [texts + 1]
    lengths: NDArray[np.int64]  # [texts], on the host, where batches are planned

    @classmethod
    def on(cls, device: torch.device, forms: NDArray[np.int32], offsets: NDArray[np.int64]) -> FlatTexts:
        return cls(_tensor(forms, device), _tensor(offsets, device), np.diff(offsets))

    def gather(self, texts: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Forms [batch, width], 0 beyond the end, and lengths [batch] of the texts with these numbers."""
        begin = self.offsets[texts]
        lengths = self.offsets[texts + 1] - begin
        steps = torch.arange(width, device=texts.device)
        inside = steps < lengths.unsqueeze(1)
        positions = torch.where(inside, begin.unsqueeze(1) + steps, 0)
        return torch.where(inside, self.forms[positions], 0), lengths


class BatchSource:
    """The questions of one split on a device, any of which can be asked for as a `Batch`."""

    def __init__(self, features: Features, device: torch.device) -> None:
        self.features = features
        self.device = device
        self.contexts = FlatTexts.on(device, features.context_types, features.context_offsets)
        self.questions = FlatTexts.on(device, features.question_types, features.question_offsets)
        self.question_context = _tensor(features.question_context, device)
        self.word_rows = _tensor(features.word_rows, device)
        self.chars = _tensor(features.chars, device)
        self.context_lengths = self.contexts.lengths[features.question_context]  # of each question's context
        self.answer_spans = _tensor(features.answer_spans, device)

    def __len__(self) -> int:
        return len(self.features)

    def gather(self, indices: NDArray[np.int64]) -> Batch:
        """The questions with these numbers, padded to the longest among them. On a GPU this waits for the device."""
        questions = upload(indices, self.device)
        context, context_length = self.contexts.gather(
            self.question_context[questions], int(self.context_lengths[indices].max())
        )
        question, question_length = self.questions.gather(questions, int(self.questions.lengths[indices].max()))
        # Padding joins the distinct forms, and as form 0 it sorts first.
        tokens = torch.cat([question.new_zeros(1), context.flatten(), question.flatten()])
        forms, places = torch.unique(tokens, return_inverse=True)
        context_places, question_places = places[1:].split([context.numel(), question.numel()])
        return Batch(
            context_places.view_as(context),
            question_places.view_as(question),
            context_length,
            question_length,
            self.word_rows[forms],
            self.chars[forms],
        )

    def shape_of(self, indices: NDArray[np.int64]) -> Shape:
        """The smallest shape of the few there are that holds these questions; known without asking the device."""
        features = self.features
        seen = np.zeros(len(features.word_rows), dtype=np.bool_)
        seen[0] = True
        contexts = features.question_context[indices]
        for forms, offsets, texts in (
            (features.context_types, features.context_offsets, contexts),
            (features.question_types, features.question_offsets, indices),
        ):
            for begin, end in zip(offsets[texts].tolist(), offsets[texts + 1].tolist(), strict=True):
                seen[forms[begin:end]] = True
        return Shape(
            context=_round_up(int(self.context_lengths[indices].max()), WIDTH_BUCKET),
            question=_round_up(int(self.questions.lengths.max()), WIDTH_BUCKET),
            forms=_round_up(int(seen.sum()), FORMS_BUCKET),
        )

    def gather_padded(self, questions: Tensor, shape: Shape) -> Batch:
        """`gather` in a shape known beforehand, so that nothing waits for the device, where `questions` [batch] lie."""
        context, context_length = self.contexts.gather(self.question_context[questions], shape.context)
        question, question_length = self.questions.gather(questions, shape.question)
        # What torch.unique does, in tensors whose sizes do not depend on the data.
        tokens = torch.cat([question.new_zeros(1), context.flatten(), question.flatten()])
        seen = torch.zeros_like(self.word_rows).index_fill_(0, tokens, 1)
        places = seen.cumsum(0) - 1
        forms = tokens.new_zeros(shape.forms).scatter_(0, places[tokens], tokens)
        return Batch(
            places[context],
            places[question],
            context_length,
            question_length,
            self.word_rows[forms],
            self.chars[forms],
        )

    def gold_spans(self, answers: NDArray[np.int64] | Tensor) -> tuple[Tensor, Tensor]:
        """First and last token [batch] of the gold answers with these numbers."""
        spans = self.answer_spans[answers if isinstance(answers, Tensor) else upload(answers, self.device)]
        return spans[:, 0], spans[:, 1]


class EpochOrder:
    """Which questions make which batch: a pure function of the seed and the epoch, so that a run resumes anywhere.

    `plain` order is a permutation. `bucketed` cuts the permutation into pools, sorts a pool by context length and
    shuffles the batches. One gold answer a question is drawn each epoch, as in the released code (basic/model.py).
    """

    def __init__(self, source: BatchSource, batch_size: int, *, seed: int, bucketed: bool, reshuffle: bool) -> None:
        self.source = source
        self.batch_size = batch_size
        self.seed = seed
        self.bucketed = bucketed
        self.reshuffle = reshuffle
        self.batches_per_epoch = -(-len(source) // batch_size)
        self._epoch = -1
        self._batches: list[NDArray[np.int64]] = []
        self._answers: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def batch(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Question numbers and gold answer numbers [batch] of the run's batch `number`, counted over all epochs."""
        epoch, place = divmod(number, self.batches_per_epoch)
        if epoch != self._epoch:
            self._arrange(epoch)
        questions = self._batches[place]
        return questions, self._answers[questions]

    def _arrange(self, epoch: int) -> None:
        offsets = self.source.features.answer_offsets
        draw = np.random.default_rng([self.seed, epoch, 1]).random(len(self.source))
        self._answers = offsets[:-1] + (draw * np.diff(offsets)).astype(np.int64)
        rng = np.random.default_rng([self.seed, epoch if self.reshuffle else 0, 0])
        order = rng.permutation(len(self.source))
        if self.bucketed:
            order = _bucketed(order, self.source.context_lengths, self.batch_size, rng)
        self._batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        self._epoch = epoch


def _bucketed(
    order: NDArray[np.int64], lengths: NDArray[np.int64], batch_size: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    pool_size = POOL_BATCHES * batch_size
    pools = [order[i : i + pool_size] for i in range(0, len(order), pool_size)]
    order = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
    full = len(order) // batch_size * batch_size
    batches = rng.permutation(order[:full].reshape(-1, batch_size), axis=0)
    return np.concatenate([batches.reshape(-1), order[full:]])


def batches_by_length(lengths: Sequence[int] | NDArray[np.int64], batch_tokens: int) -> Iterator[NDArray[np.int64]]:
    """All questions, longest context first, in batches of at most `batch_tokens` padded tokens (or of one question)."""
    order = np.argsort(-np.asarray(lengths), kind="stable")
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // int(lengths[order[start]]))
        yield order[start : start + size]
        start += size


def upload(numbers: NDArray[np.int64], device: torch.device) -> Tensor:
    """Numbers of questions or answers on the device. To a GPU they go from pinned memory, so that the host need not
    wait.
    """
    if device.type == "cuda":
        return torch.from_numpy(numbers).pin_memory().to(device, non_blocking=True)
    return _tensor(numbers, device)


def _round_up(size: int, bucket: int) -> int:
    return -(-size // bucket) * bucket


def _tensor(values: NDArray[np.integer], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64)).to(device)
