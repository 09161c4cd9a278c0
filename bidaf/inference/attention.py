"""Why a model answers what it answers: its attention and its probabilities over the words of one question."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bidaf.data.batches import BatchSource
from bidaf.data.features import Features
from bidaf.data.squad import Answer, Example
from bidaf.data.tokenizer import Offsets, Tokenizer
from bidaf.errors import DataError
from bidaf.evaluation.evaluator import Answered
from bidaf.files.reading import quote
from bidaf.inference.loading import LoadedModel
from bidaf.inference.predictor import Predictor

Float32 = NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class Reading:
    """How one set of weights reads a context of T tokens for a question of J."""

    weights: str
    """`raw` or `ema`."""
    to_question: Float32
    """Context-to-question attention `[T, J]`: what each context word attends to; rows add up to 1."""
    to_context: Float32
    """Question-to-context attention `[T]`: which context words matter to the question; adds up to 1."""
    start: Float32
    """Probability `[T]` that the answer starts here."""
    end: Float32
    """Probability `[T]` that it ends here."""
    answers: list[Answered]
    """The best spans, most probable first."""


@dataclass(frozen=True)
class Explained:
    """One question with its words, and a reading of each set of weights."""

    example: Example
    context_words: list[Offsets]
    """Characters of the T tokens of the context."""
    question_words: list[Offsets]
    """Characters of the J tokens of the question."""
    readings: list[Reading]


def explain(models: Sequence[LoadedModel], examples: Sequence[Example], n_best: int = 5) -> Iterator[Explained]:
    """Explain one question after the other, as each model of the same run answers it.

    Raises `BidafError` for a context that this machine's memory can't hold.
    """
    predictors = [Predictor(model) for model in models]
    data = models[0].config.data
    tokenizer = Tokenizer(data.second_split, data.split_questions)
    for example in examples:
        yield Explained(
            example,
            tokenizer.tokenize(example.context) or [(0, len(example.context))],
            tokenizer.tokenize_question(example.question) or [(0, len(example.question))],
            [_read(predictor, example, n_best) for predictor in predictors],
        )


def _read(predictor: Predictor, example: Example, n_best: int) -> Reading:
    features = predictor.features([example])
    loaded = predictor.loaded
    source = BatchSource(features, predictor.device)
    with predictor.precision():
        (answers,) = predictor.answer_n_best(features, n_best).values()
        with torch.inference_mode():
            (start, end), (to_question, to_context) = loaded.model.score_and_attend(source.gather(np.array([0])))
    assert to_question is not None
    assert to_context is not None
    return Reading(
        loaded.weights,
        to_question=_numpy(to_question),
        to_context=_numpy(to_context),
        start=_numpy(start.exp()),
        end=_numpy(end.exp()),
        answers=answers,
    )


def _numpy(batch_of_one: Tensor) -> Float32:
    return batch_of_one[0].float().cpu().numpy()


def dev_examples(features: Features, ids: Sequence[str]) -> list[Example]:
    """Questions of prepared features by id, their gold answers at the offsets of their tokens.

    Raises `DataError` for an id that is not among them.
    """
    numbers = {id: number for number, id in enumerate(features.ids)}
    return [_dev_example(features, find_id(id, numbers, "the dev set")) for id in ids]


def find_id(id: str, known: Mapping[str, T], where: str) -> T:
    """What stands under this id. Raises `DataError`, with the nearest id there is, for an unknown one."""
    if id in known:
        return known[id]
    close = difflib.get_close_matches(id, known, n=1)
    hint = f"did you mean {quote(close[0])}?" if close else f"one of them is {quote(next(iter(known)))}"
    raise DataError(f"{where} has no question with the id {quote(id)}; {hint}")


def _dev_example(features: Features, number: int) -> Example:
    context = int(features.question_context[number])
    base = int(features.context_offsets[context])
    spans = features.answer_spans[features.answer_offsets[number] : features.answer_offsets[number + 1]]
    starts = features.context_spans[base + spans[:, 0], 0].tolist()
    texts = features.answers[number]
    if len(starts) != len(texts):  # some of them had no token
        starts = [-1] * len(texts)
    answers = tuple(Answer(text, start) for text, start in zip(texts, starts, strict=True))
    return Example(features.ids[number], features.questions[number], features.contexts[context], answers)
