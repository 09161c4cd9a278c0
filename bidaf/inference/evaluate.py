"""The official score of a model's weight sets, on its own dev set or on any other data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bidaf.data.features import Features
from bidaf.data.questions import read_questions
from bidaf.data.sources import find_source, read_sources
from bidaf.data.squad import Example
from bidaf.errors import DataError
from bidaf.evaluation.squad_v1 import Gold, read_gold, score_answers
from bidaf.inference.loading import LoadedModel
from bidaf.inference.predictor import Predictor
from bidaf.progress import bar


@dataclass(frozen=True)
class Evaluation:
    """What one weight set scored, and the answers that were scored."""

    weights: str
    """Name of the weight set."""
    scores: dict[str, float]
    """Metric -> percent."""
    questions: int
    unanswerable: int
    """Questions without an answer, which no metric counts."""
    model: str
    """The folder of the checkpoint or export."""
    data: list[str]
    """The sources of the questions."""
    predictions: dict[str, str]
    """Question id -> answer."""


def evaluate(models: Sequence[LoadedModel], data: str | None = None) -> list[Evaluation]:
    """Score weight sets of one run on the dev set it was trained with, or on `data` (a SQuAD file or a hub name).

    The questions are read and tokenized once for all sets. Raises `DataError` for data that can't be read, `BidafError`
    for weights that have diverged.
    """
    predictors = [Predictor(model) for model in models]
    features, gold = _questions(predictors[0], data)
    sources = [data] if data is not None else list(models[0].config.data.dev)
    evaluations = []
    with bar("answer", "question", len(features) * len(models)) as shown:
        for predictor in predictors:
            answers = predictor.answer(features, on_progress=shown.update)
            predictions = {id: best.text for id, (best, *_) in answers.items()}
            score = score_answers(gold, predictions)
            evaluations.append(
                Evaluation(
                    weights=predictor.loaded.weights,
                    scores=score.metrics,
                    questions=score.questions,
                    unanswerable=score.unanswerable,
                    model=str(predictor.loaded.origin),
                    data=sources,
                    predictions=predictions,
                )
            )
    return evaluations


def _questions(predictor: Predictor, data: str | None) -> tuple[Features, Gold | dict[str, list[str]]]:
    """The questions as features, with their gold answers."""
    model = predictor.loaded
    if data is not None:
        examples, gold = _read([data])
    elif (features := model.dev_features()) is not None:
        return features, dict(zip(features.ids, features.answers, strict=True))
    else:
        try:
            examples, gold = _read(list(model.config.data.dev))
        except DataError as error:
            hint = "That is the dev set the model was trained with; name another one with --data."
            raise DataError(f"{error}\n{hint}") from None
    return predictor.features(examples), gold


def _read(sources: list[str]) -> tuple[list[Example], Gold | dict[str, list[str]]]:
    """Questions with their gold answers. In a JSON file every question counts, as for the official evaluator."""
    if len(sources) == 1 and sources[0].endswith((".json", ".json.gz")):
        return read_questions(sources[0]), read_gold(Path(sources[0]))
    examples = read_sources([find_source(source, "dev") for source in sources]).examples
    return examples, {example.id: [answer.text for answer in example.answers] for example in examples}
