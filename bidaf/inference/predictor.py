"""Questions in, answers out: one way from text to spans, for prediction and for the score of any file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from bidaf.data.batches import BatchSource
from bidaf.data.features import Features
from bidaf.data.indexing import build_features
from bidaf.data.squad import Example
from bidaf.data.tokenizer import Tokenizer, split_at_blanks
from bidaf.device import free_memory, matrix_precision
from bidaf.errors import BidafError, DataError, UsageError
from bidaf.evaluation.evaluator import Prediction, default_batch_tokens, predict_spans
from bidaf.evaluation.no_answer import choose_threshold, decide
from bidaf.inference.ensemble import Loaded
from bidaf.inference.loading import LoadedModel
from bidaf.messages import say

OnProgress = Callable[[int], None]
"""Gets the number of questions of each batch that is done."""

MOST_ANSWERS = 1_000
"""Answers per question; the memory for finding them grows with their number times the length of the context."""

# Numbers held at once per token of one long context, in units of d (measured: 12 kB at d = 100, paper variant).
NUMBERS_PER_TOKEN = {"paper": 32, "released": 75}


class Member(NamedTuple):
    """One model that takes part in an answer."""

    name: str
    predictor: Predictor
    features: Features
    """The questions, in the rows of its vocabulary."""


class Answerer(ABC):
    """What answers questions on contexts of any length: a model, or an ensemble of models.

    `max_answer_tokens` is the greatest length of an answer, in tokens; None is the model's own setting.
    """

    loaded: Loaded
    device: torch.device

    def __init__(self, loaded: Loaded, max_answer_tokens: int | None = None) -> None:
        self.max_answer_tokens = max_answer_tokens or loaded.config.evaluation.max_answer_tokens
        data = loaded.config.data
        self.tokenizer = Tokenizer(data.second_split, data.split_questions, data.language)

    @abstractmethod
    def features(self, examples: Sequence[Example]) -> Features:
        """Tokens and word rows of all questions, none cut, none dropped.

        Raises `BidafError` for a context that this machine's memory can't hold: better now than killed later.
        """

    @abstractmethod
    def members(self, features: Features) -> list[Member]:
        """The models that answer these questions; one model is its own only member."""

    @abstractmethod
    def predict(
        self, features: Features, n: int = 1, on_progress: OnProgress = lambda questions: None
    ) -> dict[str, list[Prediction]]:
        """The `n` best spans of each question, most probable first, by id, in the order of the questions.

        What knows "no answer" gives that besides, in its place by its probability; no threshold is applied.
        """

    def ask(self, question: str, context: str, n_best: int = 1) -> list[Prediction]:
        """Up to `n_best` answers to one question, most probable first.

        Raises `DataError` for a question or a context that is not text or has no word in it.
        """
        self.check_texts(question, context)
        (answers,) = self.answer(self.features([Example("", question, context, ())]), n_best).values()
        return answers

    def check_texts(self, question: str, context: str) -> None:
        """Raise `DataError` for a question or a context that is not text or has no word in it."""
        for name, text in (("question", question), ("context", context)):
            if not isinstance(text, str):
                raise DataError(f"the {name} must be text, found {type(text).__name__}")
            if not any(split_at_blanks(text)):
                raise DataError(f"the {name} is empty")

    def answer(
        self, features: Features, n_best: int = 1, on_progress: OnProgress = lambda questions: None
    ) -> dict[str, list[Prediction]]:
        """Up to `n_best` answers to each question by id, in the order of the questions: the answer, then others.

        Raises as `rank`.
        """
        return {id: each[:n_best] for id, each in self.rank(features, n_best, on_progress).items()}

    def rank(
        self, features: Features, n_best: int = 1, on_progress: OnProgress = lambda questions: None
    ) -> dict[str, list[Prediction]]:
        """What `predict` gives, with the answer in the first place: "no answer" where it is above its threshold.

        Raises `UsageError` for an `n_best` that is out of range, `BidafError` for weights that have diverged.
        """
        if not 1 <= n_best <= MOST_ANSWERS:
            raise UsageError(f"n_best must be from 1 to {MOST_ANSWERS:,}, not {n_best:,}")
        predictions = self.predict(features, n_best, on_progress)
        return {id: decide(each, self.no_answer_threshold) for id, each in predictions.items()}

    @cached_property
    def no_answer_threshold(self) -> float | None:
        """The probability of no answer above which that is the answer; None for a model that always has one.

        A weight set that was never scored, such as one that was synthesised, gets its own here, on the dev questions.
        """
        loaded = self.loaded
        if not loaded.config.model.no_answer or loaded.no_answer_threshold is not None:
            return loaded.no_answer_threshold
        if (dev := loaded.dev_features()) is None:
            return None
        say(f"choosing the no-answer threshold of the {loaded.description} on {len(dev):,} dev questions")
        return choose_threshold(dev, self.predict(dev))


class Predictor(Answerer):
    """A loaded model that answers."""

    def __init__(self, loaded: LoadedModel, max_answer_tokens: int | None = None) -> None:
        super().__init__(loaded, max_answer_tokens)
        self.loaded: LoadedModel = loaded
        self.device = loaded.model.start_scorer.flow_weight.device
        self.precision = matrix_precision(loaded.config.training.precision, self.device)

    def features(self, examples: Sequence[Example]) -> Features:
        features = build_features(examples, self.tokenizer, self.loaded.vocabulary)[0]
        lengths = np.diff(features.context_offsets)[features.question_context]
        longest = int(lengths.argmax())
        needed = self._bytes_per_token * int(lengths[longest])
        free = free_memory(self.device)
        if free is not None and needed > free:
            raise BidafError(
                f"question {features.ids[longest]!r}: its context has {lengths[longest]:,} tokens; answering takes "
                f"about {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free; ask on parts of the context"
            )
        return features

    def members(self, features: Features) -> list[Member]:
        return [Member(self.loaded.weights, self, features)]

    def predict(
        self, features: Features, n: int = 1, on_progress: OnProgress = lambda questions: None
    ) -> dict[str, list[Prediction]]:
        with self.precision():
            return predict_spans(
                self.loaded.model,
                BatchSource(features, self.device),
                n,
                batch_tokens=self._batch_tokens,
                max_answer_tokens=self.max_answer_tokens,
                weights=f"the {self.loaded.description}",
                on_progress=on_progress,
            )

    @property
    def _bytes_per_token(self) -> int:
        settings = self.loaded.config.model
        return 4 * NUMBERS_PER_TOKEN[settings.variant] * settings.hidden_size

    @property
    def _batch_tokens(self) -> int:
        """What the model's config asks for, if half the free memory can hold it: it was made for another machine."""
        asked = self.loaded.config.evaluation.batch_tokens or default_batch_tokens(self.device)
        free = free_memory(self.device)
        return asked if free is None else max(1, min(asked, free // (2 * self._bytes_per_token)))
