"""Questions in, records out: what `bidaf predict` writes for each question, on one passage or on several.

Several passages of a question are answered one by one, and their answers are ranked by the unnormalised scores of
their spans. Probabilities can't rank them: they add up to 1 in every passage, also in one that has nothing to do with
the question. Training normalises scores within a passage, too, so that they are comparable but not calibrated between
passages (Clark and Gardner, 2018).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any

from bidaf.data.squad import Example
from bidaf.errors import UsageError
from bidaf.evaluation.evaluator import Prediction
from bidaf.inference.predictor import Answerer, OnProgress

Record = dict[str, Any]


def answer_records(
    answerer: Answerer,
    examples: Sequence[Example],
    n_best: int | None = None,
    on_progress: OnProgress = lambda passages: None,
) -> list[Record]:
    """A record per question, in their order: `{"id", "prediction_text"}`, or with `n_best` the answers with offsets.

    A model that knows "no answer" adds its probability as `no_answer`. An answer to a question on several passages has
    the number of its passage, from 0, and with `n_best` the score that it was ranked by. `on_progress` gets the number
    of passages of each batch that is done. Raises as `Answerer.rank`, and `UsageError` for several passages and an
    ensemble.
    """
    passages = _one_by_one(examples)
    found = iter(answerer.rank(answerer.features(passages), 1 if n_best is None else n_best, on_progress).values())
    return [_record(example, list(islice(found, len(example.passages))), n_best) for example in examples]


def _one_by_one(examples: Sequence[Example]) -> Sequence[Example]:
    """Each question on each of its passages; the ids are new, and distinct, where a question has several."""
    if not any(example.further_contexts for example in examples):
        return examples
    return [
        replace(example, id=f"{number}:{example.id}", context=context, further_contexts=())
        for example in examples
        for number, context in enumerate(example.passages)
    ]


def n_best_record(id: str, question: str, answers: Sequence[Prediction], n_best: int) -> Record:
    """A record of an n-best file, of ranked answers."""
    shown = [answer.to_dict() for answer in answers[:n_best]]
    return {"id": id, "question": question, "answers": shown, **_no_answer(answers)}


def _no_answer(answers: Iterable[Prediction]) -> dict[str, float]:
    """The probability that there is no answer; nothing where that is no choice."""
    empty = [answer.probability for answer in answers if answer.is_empty]
    return {"no_answer": min(empty)} if empty else {}


def _record(example: Example, found: Sequence[Sequence[Prediction]], n_best: int | None) -> Record:
    if len(found) == 1 and n_best is not None:
        return n_best_record(example.id, example.question, found[0], n_best)
    no_answer = _no_answer(chain.from_iterable(found))
    if len(found) == 1:
        return {"id": example.id, "prediction_text": found[0][0].text, **no_answer}
    ranked = _rank(found)
    if n_best is None:
        passage, best = ranked[0]
        return {"id": example.id, "prediction_text": best.text, "passage": passage, **no_answer}
    answers = [{**answer.to_dict(), "passage": passage, "score": answer.score} for passage, answer in ranked[:n_best]]
    return {"id": example.id, "question": example.question, "answers": answers, **no_answer}


def _rank(found: Sequence[Sequence[Prediction]]) -> list[tuple[int, Prediction]]:
    """The answers of all passages with the numbers of these, the best first; of equal scores the earlier passage's.

    There is no answer where no passage has one; that is then the answer, as sure as the passage that is least sure.
    """
    ranked = [(number, answer) for number, answers in enumerate(found) for answer in answers]
    spans = sorted((each for each in ranked if not each[1].is_empty), key=lambda each: -_score(each[1]))
    if any(not answers[0].is_empty for answers in found):
        return spans
    return [min((each for each in ranked if each[1].is_empty), key=lambda each: each[1].probability), *spans]


def _score(answer: Prediction) -> float:
    if answer.score is None:
        raise UsageError(
            "an ensemble joins probabilities, which do not rank the passages of a question: ask one model, or one "
            "passage per question"
        )
    return answer.score
