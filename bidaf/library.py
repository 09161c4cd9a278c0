"""BiDAF from Python: what `import bidaf` offers, each a step of the command of its name.

Nothing heavy is imported before a function is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from bidaf.data.squad import Example
    from bidaf.evaluation.squad_v1 import Score
    from bidaf.inference.predictor import Predictor

Questions = str | Path | Sequence[Mapping[str, Any]]
Tick = Callable[[int], None]


def load(model: str | Path | None = None, *, use_ema: bool | None = None, device: str = "auto") -> Predictor:
    """A model that answers: of an export folder, a run (its best checkpoint) or a checkpoint; None is the newest run.

    `use_ema`: the shadow weights, or the raw ones; None for those that an export holds, and else the shadow.
    Raises `DataError` for a folder that is missing or damaged, or lacks the weights asked for.
    """
    from bidaf.device import choose_device
    from bidaf.inference.loading import load_model
    from bidaf.inference.predictor import Predictor

    name = None if model is None else str(model)
    return Predictor(load_model(name, use_ema=use_ema, device=choose_device(device)))


@overload
def predict(model: Predictor, questions: Questions, *, n_best: None = None, tick: Tick = ...) -> dict[str, str]: ...
@overload
def predict(model: Predictor, questions: Questions, *, n_best: int, tick: Tick = ...) -> list[dict[str, Any]]: ...
def predict(
    model: Predictor, questions: Questions, *, n_best: int | None = None, tick: Tick = lambda questions: None
) -> dict[str, str] | list[dict[str, Any]]:
    """`{id: answer}`, or with `n_best` a record a question with its answers, both in the order of the questions.

    `questions` is a file in any of the forms that `bidaf predict` reads, or a list of `{"context", "question"}`, with
    an `"id"` or without. `tick` hears of each batch done. Raises `DataError` for anything that is not a question.
    """
    from bidaf.data.questions import as_examples, read_questions

    examples = read_questions(questions) if isinstance(questions, str | Path) else as_examples(questions)
    return predict_examples(model, examples, n_best=n_best, tick=tick)


def predict_examples(
    model: Predictor, examples: Sequence[Example], *, n_best: int | None, tick: Tick
) -> dict[str, str] | list[dict[str, Any]]:
    """What `predict` returns, for questions that were read already."""
    features = model.features(examples)
    if n_best is None:
        return {id: answer.text for id, answer in model.answer(features, tick).items()}
    answers = model.answer_n_best(features, n_best, tick)
    return [
        {"id": example.id, "question": example.question, "answers": [best._asdict() for best in answers[example.id]]}
        for example in examples
    ]


def score(data: str | Path | Mapping[str, Sequence[str]], predictions: str | Path | Mapping[str, str]) -> Score:
    """Exact match and F1, in percent, as the official SQuAD v1.1 evaluator counts them.

    `data` is a SQuAD file or `{id: gold answers}`, `predictions` a file of `{id: answer}` or that itself.
    """
    from bidaf.evaluation.squad_v1 import read_gold, read_predictions, score_answers

    gold = read_gold(Path(data)) if isinstance(data, str | Path) else data
    answers = read_predictions(Path(predictions)) if isinstance(predictions, str | Path) else predictions
    return score_answers(gold, answers)
