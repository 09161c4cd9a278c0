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
from bidaf.data.questions import OnReport, read_questions, warn
from bidaf.data.squad import Example, GoldAnswer
from bidaf.data.tokenizer import Offsets
from bidaf.errors import DataError
from bidaf.evaluation.evaluator import Prediction, find_spans
from bidaf.evaluation.no_answer import decide
from bidaf.files.reading import quote
from bidaf.inference.ensemble import Ensemble, Loaded
from bidaf.inference.ensemble_predictor import predictor_for
from bidaf.inference.predictor import Answerer, Member

Float32 = NDArray[np.float32]
# What a variant's attention lacks, in words. By `model.attention`; the full network lacks nothing.
LACKS = {
    "context_to_query": "This variant has no question-to-context attention: no word of the context is tinted by it.",
    "query_to_context": "This variant has no context-to-question attention: each word of the context reads the mean of "
    "the question's words.",
    "dynamic": "This variant has no question-to-context attention: its modeling LSTM attends to the question at each "
    "of its steps, and shown is the mean of both directions.",
}
T = TypeVar("T")


@dataclass(frozen=True)
class Explanation:
    """How one weight set answers a question of J tokens on a context of T: all of it from one forward pass."""

    weights: str
    """Name of the weight set, or of a member of an ensemble."""
    to_question: Float32
    """Context-to-question attention `[T, J]`: what each context word attends to; rows add up to 1. Uniform where the
    variant has none."""
    to_context: Float32
    """Question-to-context attention `[T]`: which context words matter to the question; adds up to 1. 0 where the
    variant has none."""
    start: Float32
    """Probability `[T]` that the answer starts here."""
    end: Float32
    """Probability `[T]` that it ends here."""
    answers: list[Prediction]
    """The answer, then the other best spans, most probable first."""


@dataclass(frozen=True)
class ExplainedQuestion:
    """One question with its words, and an explanation per weight set, or per member of an ensemble."""

    example: Example
    context_words: list[Offsets]
    """Characters of the T tokens of the context."""
    question_words: list[Offsets]
    """Characters of the J tokens of the question."""
    explanations: list[Explanation]
    lacks: str = ""
    """One sentence on what the variant's attention lacks; empty for the full network."""
    ensemble: list[Prediction] | None = None
    """What the members answer together; None where they are no ensemble but weight sets of one run."""


def explain(models: Sequence[Loaded], examples: Sequence[Example], n_best: int = 5) -> Iterator[ExplainedQuestion]:
    """Explain one question after the other, as each of these weight sets of one run, or each member of an ensemble,
    answers it.

    Raises `BidafError` for a context that this machine's memory can't hold, and for weights that have diverged.
    """
    return explain_with([predictor_for(model) for model in models], examples, n_best)


def explain_with(
    predictors: Sequence[Answerer], examples: Sequence[Example], n_best: int = 5
) -> Iterator[ExplainedQuestion]:
    """`explain` for programs that keep what answers."""
    first = predictors[0].loaded
    for example in examples:
        features = predictors[0].features([example])
        members = [member for predictor in predictors for member in predictor.members(features)]
        yield ExplainedQuestion(
            example,
            [(start, end) for start, end in features.context_spans.tolist()],
            predictors[0].tokenizer.tokenize_question(example.question) or [(0, len(example.question))],
            [_explain(member, n_best) for member in members],
            _lacks(members),
            predictors[0].answer(features, n_best)[example.id] if isinstance(first, Ensemble) else None,
        )


def _lacks(members: Sequence[Member]) -> str:
    """What the attention of these models lacks; with the names of those it holds for, where their variants differ."""
    sentences = {each.name: LACKS.get(each.predictor.loaded.config.model.attention, "") for each in members}
    if len(set(sentences.values())) == 1:
        return next(iter(sentences.values()))
    return " ".join(f"{name}: {sentence}" for name, sentence in sentences.items() if sentence)


def _explain(member: Member, n_best: int) -> Explanation:
    predictor, features, loaded = member.predictor, member.features, member.predictor.loaded
    batch = BatchSource(features, predictor.device).gather(np.array([0]))
    with predictor.precision(), torch.inference_mode():
        scores, attention = loaded.model.score_and_attend(batch)
    (answers,) = find_spans(
        features,
        [0],
        scores,
        n_best,
        max_answer_tokens=loaded.config.evaluation.max_answer_tokens,
        weights=f"the {loaded.description}",
    )
    (_, context), (_, question) = batch.context.shape, batch.question.shape
    to_question, to_context = attention
    return Explanation(
        member.name,
        to_question=_filled((context, question), 1 / question) if to_question is None else _numpy(to_question),
        to_context=_filled((context,), 0.0) if to_context is None else _numpy(to_context),
        start=_numpy(scores.start.exp()),
        end=_numpy(scores.end.exp()),
        answers=decide(answers, predictor.no_answer_threshold),
    )


def _filled(shape: tuple[int, ...], value: float) -> Float32:
    return np.full(shape, value, dtype=np.float32)


def _numpy(batch_of_one: Tensor) -> Float32:
    return batch_of_one[0].float().cpu().numpy()


def find_questions(
    model: Loaded, ids: Sequence[str], data: str | None = None, *, on_report: OnReport = warn
) -> list[Example]:
    """The questions with these ids: of the file `data`, or of the dev set that the model was scored on.

    Raises `DataError` for an id that is not among them, and for an export, which has no dev set.
    """
    if data is not None:
        known = {example.id: example for example in read_questions(data, on_report=on_report)}
        return [find_id(id, known, data) for id in ids]
    if (features := model.dev_features()) is None:
        raise DataError(f"{model.origin} is an export and has no dev set; name the file of the ids with --data")
    return dev_examples(features, ids)


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
    spans = features.gold_spans(number)
    starts = features.context_spans[base + spans[:, 0], 0].tolist()
    texts = features.answers[number]
    if len(starts) != len(texts):  # some of them had no token
        starts = [-1] * len(texts)
    answers = tuple(GoldAnswer(text, start) for text, start in zip(texts, starts, strict=True))
    text, asked = features.contexts[context], features.questions[number]
    return Example(features.ids[number], asked, text, answers, impossible=not answers)
