"""The official score of a model's weight sets, on its own dev set or on any other data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bidaf.data.corpus import Corpus, read_corpus
from bidaf.data.questions import OnReport, warn
from bidaf.data.sources import find_source
from bidaf.errors import DataError
from bidaf.evaluation.metrics import V1, V2
from bidaf.evaluation.no_answer import score_predictions
from bidaf.evaluation.squad_v2 import NO_ANSWER_THRESHOLD
from bidaf.inference.ensemble import Loaded
from bidaf.inference.ensemble_predictor import predictor_for
from bidaf.progress import bar


@dataclass(frozen=True)
class Evaluation:
    """What one weight set scored, and the answers that were scored."""

    weights: str
    """Name of the weight set."""
    scores: dict[str, float]
    """Metric -> percent; of a model that knows "no answer", the threshold too."""
    questions: int
    unanswerable: int
    """Questions without an answer that were left out, as the model can't say so."""
    model: str
    """The folder of the checkpoint or export."""
    data: list[str]
    """The sources of the questions."""
    predictions: dict[str, str]
    """Question id -> answer."""

    @property
    def rule(self) -> str:
        """The official evaluation that was used: v2.0 for a model that knows "no answer"."""
        return V2 if NO_ANSWER_THRESHOLD in self.scores else V1


def evaluate(
    models: Sequence[Loaded], data: str | None = None, *, strict: bool = False, on_report: OnReport = warn
) -> list[Evaluation]:
    """Score weight sets of one run, or an ensemble, on the dev set of its training, or on `data` (a file, a folder or
    a hub name).

    The questions are read and tokenized once for all sets; `strict` and `on_report` as for `read_questions`. Raises
    `DataError` for data that can't be read, `BidafError` for weights that have diverged.
    """
    predictors = [predictor_for(model) for model in models]
    sources = [data] if data is not None else list(models[0].config.data.dev)
    features, unanswerable = models[0].dev_features() if data is None else None, 0
    if features is None:
        keep = models[0].config.model.no_answer
        corpus = _read(sources, named=data is not None, unanswerable=keep, strict=strict, on_report=on_report)
        features, unanswerable = predictors[0].features(corpus.examples), corpus.counts.unanswerable
    evaluations = []
    with bar("answer", "question", len(features) * len(models)) as shown:
        for predictor in predictors:
            # On its dev set a weight set's threshold is chosen, and on other data it is applied.
            threshold = None if data is None else predictor.no_answer_threshold
            scored = score_predictions(features, predictor.predict(features, on_progress=shown.update), threshold)
            evaluations.append(
                Evaluation(
                    weights=predictor.loaded.weights,
                    scores=scored.metrics,
                    questions=len(scored.questions),
                    unanswerable=unanswerable,
                    model=str(predictor.loaded.origin),
                    data=sources,
                    predictions={id: best.text for id, (best, *_) in scored.answers.items()},
                )
            )
    return evaluations


def _read(sources: list[str], *, named: bool, unanswerable: bool, strict: bool, on_report: OnReport) -> Corpus:
    try:
        found = [find_source(source, "dev") for source in sources]
        return read_corpus(found, unanswerable=unanswerable, strict=strict, on_report=on_report)
    except DataError as error:
        hint = "" if named else "\nThat is the dev set the model was trained with; name another one with --data."
        raise DataError(f"{error}{hint}") from None
