"""The weight sets of one model as a service, used by several threads at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bidaf.data.squad import Example
from bidaf.errors import DataError, UsageError
from bidaf.evaluation.evaluator import Prediction
from bidaf.inference.ensemble import Loaded
from bidaf.inference.ensemble_predictor import predictor_for
from bidaf.inference.explain import dev_examples, explain_with
from bidaf.inference.predictor import Answerer
from bidaf.reporting.attention_page import explained_data

FOUND = 20  # dev questions of one search


@dataclass(frozen=True)
class Question:
    """What is asked, of which weight set, and how many answers are wanted."""

    question: str
    context: str
    weights: str
    n_best: int = 1


Outcome = list[Prediction] | Exception
"""What `Predictor.rank` gives for one question, maybe more answers than were wanted, or what was wrong with it."""


class Service:
    """Answers and explains with any of several weight sets of one run or export, or with an ensemble."""

    def __init__(self, models: Sequence[Loaded]) -> None:
        self.predictors = {model.weights: predictor_for(model) for model in models}
        first = self.predictors[models[0].weights]
        self.device = first.device
        for other in self.predictors.values():
            other.tokenizer = first.tokenizer  # the words that it keeps take up to 70 MB
        ranking = models[0].config.evaluation.rank_by
        self.default = ranking if ranking in self.predictors else models[0].weights
        self._dev = models[0].dev_features()
        self._dev_numbers: dict[tuple[str, str], int] = {}
        self._searched: list[str] = []
        if (dev := self._dev) is not None:
            contexts = (dev.contexts[number] for number in dev.question_context.tolist())
            self._dev_numbers = {pair: number for number, pair in enumerate(zip(dev.questions, contexts, strict=True))}
            self._searched = [f"{id} {text}".lower() for id, text in zip(dev.ids, dev.questions, strict=True)]

    @property
    def has_dev_questions(self) -> bool:
        """Whether the model came with its dev set: an export does not."""
        return self._dev is not None

    def check_weights(self, names: Sequence[str]) -> None:
        """Raise `UsageError` for a weight set that is not loaded."""
        for name in names:
            if name not in self.predictors:
                raise UsageError(f"this server has no weight set of that name, only {', '.join(self.predictors)}")

    def warm_up(self) -> None:
        """Answer once with each weight set: what is loaded on first use is loaded now, and diverged weights fail."""
        for predictor in self.predictors.values():
            predictor.ask("Where does Dora live?", "Dora lives in Rome.")

    def answer(self, asked: Sequence[Question]) -> list[Outcome]:
        """An outcome per question, in their order; one that fails takes no other with it."""
        outcomes: dict[int, Outcome] = {}
        for weights in dict.fromkeys(each.weights for each in asked):
            numbers = [number for number, each in enumerate(asked) if each.weights == weights]
            found = self._answer(self.predictors[weights], [asked[number] for number in numbers])
            outcomes.update(zip(numbers, found, strict=True))
        return [outcomes[number] for number in range(len(asked))]

    def _answer(self, predictor: Answerer, asked: Sequence[Question]) -> list[Outcome]:
        try:
            return list(self._answer_together(predictor, asked))
        except Exception as error:
            if len(asked) == 1:
                return [error]
            return [outcome for each in asked for outcome in self._answer(predictor, [each])]

    def _answer_together(self, predictor: Answerer, asked: Sequence[Question]) -> list[list[Prediction]]:
        for each in asked:
            predictor.check_texts(each.question, each.context)
        features = predictor.features(
            [Example(str(number), each.question, each.context, ()) for number, each in enumerate(asked)]
        )
        ranked = predictor.rank(features, max(each.n_best for each in asked))
        return [ranked[str(number)] for number in range(len(asked))]

    def explain(self, question: str, context: str, weights: Sequence[str]) -> dict[str, Any]:
        """What the page shows of one question; with its gold answers where it is one of the dev set.

        Raises `DataError` for a text without a word, `UsageError` for a weight set that is not loaded.
        """
        predictors = [self.predictors[name] for name in weights]
        predictors[0].check_texts(question, context)
        example = Example("", question, context, ())
        if self._dev is not None and (number := self._dev_numbers.get((question, context))) is not None:
            (example,) = dev_examples(self._dev, [self._dev.ids[number]])
        (explained,) = explain_with(predictors, [example])
        return explained_data(explained)

    def search(self, words: str) -> list[dict[str, str]]:
        """Dev questions whose text or id holds all these words: the first of them.

        Raises `DataError` for a model that has no dev questions.
        """
        if self._dev is None:
            raise DataError("this model came without a dev set")
        wanted = words.lower().split()
        found = (number for number, text in enumerate(self._searched) if all(word in text for word in wanted))
        return [
            {
                "id": self._dev.ids[number],
                "question": self._dev.questions[number],
                "context": self._dev.contexts[int(self._dev.question_context[number])],
            }
            for _, number in zip(range(FOUND), found, strict=False)
        ]
