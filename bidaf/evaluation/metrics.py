"""The official rule for a set of questions, SQuAD v2.0 where any has no answer, else v1.1; and how metrics are shown.

Only the standard library is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bidaf.data.questions import OnReport, read_questions, warn
from bidaf.errors import DataError, UsageError
from bidaf.evaluation import squad_v1, squad_v2
from bidaf.evaluation.predictions import read_predictions, read_probabilities, read_spans
from bidaf.evaluation.squad_v1 import Gold, QuestionScore
from bidaf.files.reading import kind_of, quote

Score = squad_v1.Score | squad_v2.Score
V1, V2 = "SQuAD v1.1", "SQuAD v2.0"

METRIC_LABELS = {
    "exact_match": "EM",
    "f1": "F1",
    "cross_fitted_f1": "F1, cross-fitted",
    "answerable_exact_match": "HasAns EM",
    "answerable_f1": "HasAns F1",
    "unanswerable_f1": "NoAns",
    "no_answer_threshold": "threshold",
    "best_exact_match": "best EM",
    "best_exact_match_threshold": "at threshold",
    "best_f1": "best F1",
    "best_f1_threshold": "at threshold",
}
"""Name of each metric -> its label in tables."""


def show_metric(name: str, value: float) -> str:
    """Percent with two decimals; a threshold, which is a probability, with four."""
    return f"{value:.4f}" if name.endswith("threshold") else f"{value:.2f}"


def show_metrics(metrics: Mapping[str, float]) -> str:
    """All of them on a line, such as `EM 67.70  F1 77.30`."""
    return "  ".join(f"{METRIC_LABELS.get(name, name)} {show_metric(name, value)}" for name, value in metrics.items())


def has_unanswerable(gold: Gold) -> bool:
    """Whether any of the questions has no answer: then SQuAD v2.0 is the rule."""
    return not all(gold.values())


def question_scores(gold: Gold, predictions: Mapping[str, str]) -> list[QuestionScore]:
    """Score every question by the rule, in data set order."""
    if has_unanswerable(gold):
        return squad_v2.question_scores(gold, predictions)
    return squad_v1.question_scores(gold, predictions)


def score_answers(gold: Gold, predictions: Mapping[str, str]) -> Score:
    """The official score by the rule. Raises `DataError` when there is no question to score."""
    if has_unanswerable(gold):
        return squad_v2.score_answers(gold, predictions)
    return squad_v1.score_answers(gold, predictions)


@dataclass(frozen=True)
class FileScore:
    """The score of a prediction file, and the rule that was used."""

    rule: str
    """`V1` or `V2`."""
    score: Score
    left_out: int
    """Questions without an answer that v1.1 has no score for."""


def score_file(
    data: Path | str,
    predictions: Path,
    *,
    answerable_only: bool = False,
    no_answer: Path | None = None,
    threshold: float | None = None,
    strict: bool = False,
    on_report: OnReport = warn,
) -> FileScore:
    """Score a prediction file on a data set of any known schema; by v1.1 with `answerable_only`, or else by the rule.

    `no_answer` is a file of probabilities for v2.0: above the threshold (default: 1) an answer counts as empty. The
    best thresholds are those of an n-best file's spans, also where its first answer is the empty one. Raises
    `DataError` for what is wrong with a file, `UsageError` for options that do not go together.
    """
    if threshold is not None and no_answer is None:
        raise UsageError("--threshold is for probabilities: name them with --no-answer FILE")
    gold, answers = read_gold(data, strict=strict, on_report=on_report), read_predictions(predictions)
    if answerable_only or not has_unanswerable(gold):
        if no_answer is not None:
            raise UsageError("--no-answer is for SQuAD v2.0, and every question that is scored here has an answer")
        score = squad_v1.score_answers(gold, answers)
        return FileScore(V1, score, score.unanswerable)
    if no_answer is None:
        return FileScore(V2, squad_v2.score_answers(gold, answers), 0)
    given = read_probabilities(no_answer, gold)
    found = squad_v2.score_answers(gold, answers, given, squad_v2.NEVER if threshold is None else threshold)
    of_spans = squad_v2.score_answers(gold, read_spans(predictions), given)
    with_best = replace(found, best_exact_match=of_spans.best_exact_match, best_f1=of_spans.best_f1)
    return FileScore(V2, with_best, 0)


def read_gold(source: Path | str, *, strict: bool = False, on_report: OnReport = warn) -> dict[str, list[str]]:
    """The gold answers of all questions of a data set, none aligned, cut or dropped; as `read_questions`.

    A question without an answer has an empty list. Raises `DataError` for a data set that can't be read.
    """
    examples = read_questions(source, need_answers=True, passages=True, strict=strict, on_report=on_report)
    return {example.id: [answer.text for answer in example.answers] for example in examples}


def check_gold(gold: Any, where: str) -> dict[str, list[str]]:
    """Raise `DataError` unless these are `{id: gold answers}`."""
    if not isinstance(gold, Mapping):
        raise DataError(f"{where}: expected {{id: list of gold answers}}, found {kind_of(gold)}")
    for id, answers in gold.items():
        if isinstance(answers, str) or not isinstance(answers, Sequence):
            raise DataError(f"{where}: the gold answers to {quote(str(id))} must be a list of texts")
        if not all(isinstance(answer, str) for answer in answers):
            raise DataError(f"{where}: the gold answers to {quote(str(id))} must be texts")
    return {id: list(answers) for id, answers in gold.items()}
