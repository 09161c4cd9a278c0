"""Questions in, answers out: one walk from text to spans for prediction and for scoring of any file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bidaf.data.batches import BatchSource
from bidaf.data.features import Features, build_features
from bidaf.data.squad import Example
from bidaf.data.tokenizer import Tokenizer
from bidaf.device import free_memory, matrix_precision
from bidaf.errors import BidafError, DataError
from bidaf.evaluation.evaluator import Answered, answer_all, answer_n_best, default_batch_tokens
from bidaf.inference.loading import LoadedModel

Tick = Callable[[int], None]

# Numbers held at once for a token of one long context, in units of d (measured: 12 kB at d = 100 in the paper's form).
NUMBERS_A_TOKEN = {"paper": 32, "released": 75}


class Predictor:
    """A loaded model that answers questions on contexts of any length."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        data = loaded.config.data
        self._tokenizer = Tokenizer(data.second_split, data.split_questions)
        self.device = loaded.model.start_scorer.flow_weight.device
        self.precision = matrix_precision(loaded.config.training.precision, self.device)

    def features(self, examples: Sequence[Example]) -> Features:
        """Tokens and word rows of all questions, none cut, none dropped.

        Raises `BidafError` for a context that this machine's memory can't hold: better now than killed later.
        """
        features = build_features(examples, self._tokenizer, self.loaded.vocabulary)[0]
        lengths = np.diff(features.context_offsets)[features.question_context]
        longest = int(lengths.argmax())
        needed = self._bytes_a_token * int(lengths[longest])
        free = free_memory(self.device)
        if free is not None and needed > free:
            raise BidafError(
                f"question {features.ids[longest]!r}: its context has {lengths[longest]:,} tokens; answering takes "
                f"about {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free; ask on parts of the context"
            )
        return features

    def ask(self, question: str, context: str, n_best: int = 1) -> list[Answered]:
        """Up to `n_best` answers to one question, most probable first.

        Raises `DataError` for a question or a context without a word.
        """
        for name, text in (("question", question), ("context", context)):
            if not self._tokenizer.tokenize(text):
                raise DataError(f"the {name} is empty")
        features = self.features([Example("", question, context, ())])
        (answers,) = self.answer_n_best(features, n_best).values()
        return answers

    def answer(self, features: Features, tick: Tick = lambda questions: None) -> dict[str, Answered]:
        """The best answer to each question, by id, in the order of the questions."""
        settings = self.loaded.config.evaluation
        with self.precision():
            return answer_all(
                self.loaded.model,
                BatchSource(features, self.device),
                batch_tokens=self._batch_tokens(),
                max_answer_tokens=settings.max_answer_tokens,
                tick=tick,
            )

    def answer_n_best(
        self, features: Features, n: int, tick: Tick = lambda questions: None
    ) -> dict[str, list[Answered]]:
        """Up to `n` best answers to each question, most probable first."""
        settings = self.loaded.config.evaluation
        with self.precision():
            return answer_n_best(
                self.loaded.model,
                BatchSource(features, self.device),
                n,
                batch_tokens=self._batch_tokens(),
                max_answer_tokens=settings.max_answer_tokens,
                tick=tick,
            )

    @property
    def _bytes_a_token(self) -> int:
        settings = self.loaded.config.model
        return 4 * NUMBERS_A_TOKEN[settings.variant] * settings.hidden_size

    def _batch_tokens(self) -> int:
        """What the model's config asks for, if half the free memory can hold it: its maker had another machine."""
        asked = self.loaded.config.evaluation.batch_tokens or default_batch_tokens(self.device)
        free = free_memory(self.device)
        return asked if free is None else max(1, min(asked, free // (2 * self._bytes_a_token)))
