"""An ensemble that answers, with the methods of a single model."""

from __future__ import annotations

from collections.abc import Sequence

from bidaf.data.features import Features
from bidaf.data.indexing import with_vocabulary
from bidaf.data.squad import Example
from bidaf.evaluation.ensemble import CANDIDATES, Candidates, combine, first_spans
from bidaf.evaluation.evaluator import Prediction
from bidaf.inference.ensemble import Ensemble, Loaded
from bidaf.inference.predictor import Answerer, Member, OnProgress, Predictor


def predictor_for(loaded: Loaded, max_answer_tokens: int | None = None) -> Answerer:
    """What answers with a model or an ensemble; `max_answer_tokens` is that of `Answerer`."""
    if isinstance(loaded, Ensemble):
        return EnsemblePredictor(loaded, max_answer_tokens)
    return Predictor(loaded, max_answer_tokens)


class EnsemblePredictor(Answerer):
    """An ensemble that answers: each member by itself, then the rule."""

    def __init__(self, loaded: Ensemble, max_answer_tokens: int | None = None) -> None:
        super().__init__(loaded, max_answer_tokens)
        self.loaded: Ensemble = loaded
        self._predictors = [Predictor(member, max_answer_tokens) for member in loaded.members]
        self.device = self._predictors[0].device

    def features(self, examples: Sequence[Example]) -> Features:
        return self._predictors[0].features(examples)

    def members(self, features: Features) -> list[Member]:
        found = []
        for name, predictor in zip(self.loaded.names, self._predictors, strict=True):
            own = with_vocabulary(features, self.tokenizer, predictor.loaded.vocabulary)
            found.append(Member(name, predictor, own))
        return found

    def predict(
        self, features: Features, n: int = 1, on_progress: OnProgress = lambda questions: None
    ) -> dict[str, list[Prediction]]:
        answers = self.candidates(features, max(n, CANDIDATES), on_progress)
        rule = self.loaded.rule
        return {id: first_spans(combine([each[id] for each in answers], rule), n) for id in features.ids}

    def candidates(
        self, features: Features, n: int = CANDIDATES, on_progress: OnProgress = lambda questions: None
    ) -> list[Candidates]:
        """The `n` most probable answers of each member; `on_progress` gets each question once."""
        progress = _Shared(on_progress, len(self._predictors))
        return [member.predictor.predict(member.features, n, progress) for member in self.members(features)]


class _Shared:
    """Reports a question when all members, or as many answers of several questions, are done with it."""

    def __init__(self, report: OnProgress, members: int) -> None:
        self._report, self._members = report, members
        self._answers = 0

    def __call__(self, questions: int) -> None:
        before = self._answers // self._members
        self._answers += questions
        self._report(self._answers // self._members - before)
