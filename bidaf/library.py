"""BiDAF from Python: what `import bidaf` offers.

Nothing heavy is imported before a function is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from bidaf.errors import UsageError

if TYPE_CHECKING:
    from bidaf.data.squad import Example
    from bidaf.evaluation.ensemble import Rule
    from bidaf.evaluation.metrics import Score
    from bidaf.inference.evaluate import Evaluation
    from bidaf.inference.explain import ExplainedQuestion
    from bidaf.inference.predictor import Answerer

Questions = str | Path | Mapping[str, Any] | Iterable[Mapping[str, Any]]
"""A file, one question, several, or a pandas data frame of them."""
OnProgress = Callable[[int], None]


def load(
    model: str | Path | Sequence[str | Path] | None = None,
    *,
    weights: str | None = None,
    at: int | None = None,
    allow_error: bool = False,
    rule: Rule | None = None,
    max_answer_tokens: int | None = None,
    device: str = "auto",
) -> Answerer:
    """A model that answers: of an export folder, a run (its best checkpoint) or a checkpoint; None is the newest run.

    The folder of an ensemble, and several names in a list, are an ensemble, which is used like one model; in a list the
    folder of an experiment stands for its runs. `rule` says how a list answers: `sum` (the paper's, the default) or
    `product`.

    `weights` names the weight set, `raw` for one; None is the one that an export holds, or else the moving average
    where there is one. Other averages of a run, such as `half-life:1000`, are synthesised from its snapshots; one whose
    predicted error is above 5 % raises `UsageError`, unless `allow_error`. `at` takes the run's checkpoint of that
    step. `max_answer_tokens` is the greatest length of an answer; None is the model's own setting. Raises `DataError`
    for a folder that is missing or corrupted, or lacks the weights asked for.
    """
    from bidaf.device import choose_device
    from bidaf.inference.ensemble import load_named
    from bidaf.inference.ensemble_predictor import predictor_for

    name = model if model is None else str(model) if isinstance(model, str | Path) else [str(each) for each in model]
    chosen = choose_device(device)
    loaded = load_named(name, weights=weights, at=at, allow_error=allow_error, rule=rule, device=chosen)
    return predictor_for(loaded, max_answer_tokens=max_answer_tokens)


@overload
def predict(
    model: Answerer, questions: Questions, *, n_best: None = None, on_progress: OnProgress = ...
) -> dict[str, str]: ...
@overload
def predict(
    model: Answerer, questions: Questions, *, n_best: int, on_progress: OnProgress = ...
) -> list[dict[str, Any]]: ...
def predict(
    model: Answerer,
    questions: Questions,
    *,
    n_best: int | None = None,
    on_progress: OnProgress = lambda questions: None,
) -> dict[str, str] | list[dict[str, Any]]:
    """`{id: answer}`, or with `n_best` a record per question with its answers, both in the order of the questions.

    `questions` is a file of any schema that `bidaf predict` reads, or `{"context", "question"}`, with an `"id"` or
    without: one, a list, or the rows of a pandas data frame. A context may be a list of passages, from the best of
    which the answer is taken. `on_progress` gets the number of passages of each batch that is done. A model that knows
    "no answer" answers with the empty text, and its records hold the probability of `no_answer`. Raises `DataError`
    for anything that is not a question.
    """
    from bidaf.data.questions import as_examples, read_questions

    _check_model(model)
    examples = read_questions(questions, passages=True) if isinstance(questions, str | Path) else as_examples(questions)
    return predict_examples(model, examples, n_best=n_best, on_progress=on_progress)


def predict_examples(
    model: Answerer, examples: Sequence[Example], *, n_best: int | None, on_progress: OnProgress
) -> dict[str, str] | list[dict[str, Any]]:
    """What `predict` returns, for questions that were read already."""
    from bidaf.inference.records import answer_records

    records = answer_records(model, examples, n_best, on_progress)
    return {record["id"]: record["prediction_text"] for record in records} if n_best is None else records


def evaluate(model: Answerer, data: str | Path | None = None) -> Evaluation:
    """The official score of a model on a SQuAD file, a data set of the hub, or (None) the dev set of its run.

    Raises `DataError` for data that can't be read.
    """
    from bidaf.inference.evaluate import evaluate

    _check_model(model)
    return evaluate([model.loaded], None if data is None else str(data))[0]


def explain(model: Answerer, question: str, context: str, n_best: int = 5) -> ExplainedQuestion:
    """Attention and probabilities over the words of one question and its context, and the answers they lead to.

    Raises `DataError` for a question or a context without a word.
    """
    from bidaf.data.squad import Example
    from bidaf.inference.explain import explain

    _check_model(model)
    model.check_texts(question, context)
    (explained,) = explain([model.loaded], [Example("", question, context, ())], n_best)
    return explained


def score(data: str | Path | Mapping[str, Sequence[str]], predictions: str | Path | Mapping[str, str]) -> Score:
    """Exact match and F1, in percent, as the official SQuAD evaluator counts them: v2.0 where any question has no
    answer, else v1.1.

    `data` is a SQuAD file or `{id: gold answers}`, `predictions` a file of `{id: answer}` or that itself. Raises
    `DataError` for anything else.
    """
    from bidaf.evaluation.metrics import check_gold, read_gold, score_answers
    from bidaf.evaluation.predictions import check_predictions, read_predictions

    gold = read_gold(data) if isinstance(data, str | Path) else check_gold(data, "the data")
    if isinstance(predictions, str | Path):
        return score_answers(gold, read_predictions(Path(predictions)))
    return score_answers(gold, check_predictions(predictions, "the predictions"))


def _check_model(model: object) -> None:
    from bidaf.inference.predictor import Answerer

    if not isinstance(model, Answerer):
        raise UsageError(f"expected a model, found {type(model).__name__}; load one first: bidaf.load(PATH)")
