"""SQuAD v2.0: the official evaluator's figures and thresholds to the last digit, and the answers a threshold makes."""

from __future__ import annotations

import gzip
import json
import random
import re
import string
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from helpers_cli import fail, succeed

import bidaf
from bidaf.data.features import Features
from bidaf.errors import DataError
from bidaf.evaluation.evaluator import Prediction
from bidaf.evaluation.metrics import read_gold, score_file
from bidaf.evaluation.no_answer import choose_threshold, decide, score_predictions
from bidaf.evaluation.squad_v2 import score_answers

WORDS = ["the", "a", "An", "river", "Rhine", "in", "1815", "U.S.", "blue-green", "café", "!!", "of"]

# ---- A naive restatement of the published rules: nothing shared with the code under test.


def naive_normalize(text: str) -> str:
    kept = "".join(character for character in text.lower() if character not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def naive_f1(gold: str, prediction: str) -> float:
    wanted, predicted = naive_normalize(gold).split(), naive_normalize(prediction).split()
    if len(wanted) == 0 or len(predicted) == 0:
        return int(wanted == predicted)
    same = sum((Counter(wanted) & Counter(predicted)).values())
    if same == 0:
        return 0
    precision, recall = 1.0 * same / len(predicted), 1.0 * same / len(wanted)
    return (2 * precision * recall) / (precision + recall)


class Naive(NamedTuple):
    exact: dict[str, float]
    f1: dict[str, float]


def naive_raw(gold: dict[str, list[str]], predictions: dict[str, str]) -> Naive:
    exact, f1 = {}, {}
    for id, answers in gold.items():
        usable = [answer for answer in answers if naive_normalize(answer)]
        if not usable:
            usable = [""]
        exact[id] = max(int(naive_normalize(answer) == naive_normalize(predictions[id])) for answer in usable)
        f1[id] = max(naive_f1(answer, predictions[id]) for answer in usable)
    return Naive(cast(dict[str, float], exact), f1)


def naive_mean(values: list[float]) -> float:
    total = 0.0
    for value in values:
        total += value
    return 100.0 * total / len(values)


def naive_best(
    gold: dict[str, list[str]], predictions: dict[str, str], scores: dict[str, float], no_answer: dict[str, float]
) -> tuple[float, float]:
    current = best = float(sum(1 for answers in gold.values() if not answers))
    threshold = 0.0
    for id in sorted(no_answer, key=lambda id: no_answer[id]):
        if gold[id]:
            change = scores[id]
        elif predictions[id]:
            change = -1.0
        else:
            change = 0.0
        current += change
        if current > best:
            best, threshold = current, no_answer[id]
    return 100.0 * best / len(scores), threshold


def random_text(draw: random.Random, least: int = 0) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(draw.randint(least, 4)))


def random_task(seed: int, questions: int) -> tuple[dict[str, list[str]], dict[str, str], dict[str, float]]:
    """Gold answers, predictions and probabilities that have much in common, with ties among the probabilities."""
    draw = random.Random(seed)
    gold, predictions, no_answer = {}, {}, {}
    for number in range(questions):
        id = f"q{number}"
        gold[id] = [] if draw.random() < 0.5 else [random_text(draw, 1) for _ in range(draw.randint(1, 4))]
        kinds = [random_text(draw), "", *(gold[id] or [random_text(draw)])]
        predictions[id] = draw.choice(kinds)
        no_answer[id] = round(draw.random(), 2) if draw.random() < 0.3 else draw.random()
    return gold, predictions, no_answer


@pytest.mark.parametrize(("seed", "questions"), [(0, 4000), (1, 4000), (2, 1), (3, 2), (4, 30)])
@pytest.mark.parametrize("threshold", [1.0, 0.5, 0.0])
def test_every_figure_is_that_of_the_published_rules_to_the_last_digit(
    seed: int, questions: int, threshold: float
) -> None:
    gold, predictions, no_answer = random_task(seed, questions)
    score = score_answers(gold, predictions, no_answer, threshold)
    raw = naive_raw(gold, predictions)
    exact, f1 = (
        {id: (float(not gold[id]) if no_answer[id] > threshold else value) for id, value in values.items()}
        for values in raw
    )
    assert score.all == (naive_mean([*exact.values()]), naive_mean([*f1.values()]), questions)
    for part, ids in (
        (score.answerable, [id for id in gold if gold[id]]),
        (score.unanswerable, [id for id in gold if not gold[id]]),
    ):
        expected = (
            (naive_mean([exact[id] for id in ids]), naive_mean([f1[id] for id in ids]), len(ids)) if ids else None
        )
        assert part == expected
    assert score.best_exact_match == naive_best(gold, predictions, raw.exact, no_answer)
    assert score.best_f1 == naive_best(gold, predictions, raw.f1, no_answer)
    assert score.best_exact_match is not None
    for name, best in (("exact_match", score.best_exact_match), ("f1", score.best_f1)):
        assert (score.metrics[f"best_{name}"], score.metrics[f"best_{name}_threshold"]) == best


def test_the_empty_answer_is_right_where_there_is_none_and_wrong_elsewhere() -> None:
    score = score_answers({"has": ["Rhine"], "none": [], "hollow": ["the!"]}, {"has": "", "none": "", "hollow": "an"})
    assert (score.exact_match, score.f1, score.questions) == (100 * 2 / 3, 100 * 2 / 3, 3)
    assert score.answerable == (50.0, 50.0, 2)  # what normalizes to nothing is answered by nothing
    assert score.unanswerable == (100.0, 100.0, 1)
    assert score.best_f1 is None


def test_the_library_scores_by_v2_where_a_question_has_no_gold_answer() -> None:
    score = bidaf.score({"a": ["Rome"], "b": []}, {"a": "Rome", "b": "Rome"})
    assert (score.f1, score.metrics["unanswerable_f1"]) == (50.0, 0.0)


def test_missing_predictions_score_0_and_are_named() -> None:
    score = score_answers({"a": ["x"], "b": []}, {"c": ""}, {"a": 0.9, "b": 0.9}, 0.5)
    assert (score.f1, score.missing, score.unknown) == (0.0, ("a", "b"), ("c",))
    with pytest.raises(DataError, match="no question"):
        score_answers({}, {})


# ---- What a threshold makes of a model's predictions


def features_of(gold: dict[str, list[str]], titles: list[str | None]) -> Features:
    """Only what scoring asks for."""

    class Stub:
        ids, answers = list(gold), list(gold.values())

    Stub.titles = titles  # type: ignore[attr-defined]
    return cast(Features, Stub())


def predictions_of(spans: dict[str, str], no_answer: dict[str, float]) -> dict[str, list[Prediction]]:
    """As `predict_spans` gives them: by probability, the empty one in its place."""
    ranked = {id: [Prediction(text, 1, 2, 0.3), Prediction("other", 5, 6, 0.1)] for id, text in spans.items()}
    for id, each in ranked.items():
        each.append(Prediction("", 0, 0, no_answer[id]))
        each.sort(key=lambda prediction: -prediction.probability)
    return ranked


def test_the_chosen_threshold_is_the_best_one_and_gives_the_metrics() -> None:
    draw = random.Random(5)
    gold = {f"q{number}": ["Rhine"] if number % 3 else [] for number in range(300)}
    spans = {id: "Rhine" if draw.random() < 0.7 else "blue" for id in gold}
    no_answer = {id: draw.random() * (0.6 if gold[id] else 1.0) for id in gold}
    features = features_of(gold, [f"article {number % 7}" for number in range(300)])
    scored = score_predictions(features, predictions_of(spans, no_answer))
    best = score_answers(gold, spans, no_answer).best_f1
    assert best is not None
    assert (
        scored.metrics["no_answer_threshold"]
        == best.threshold
        == choose_threshold(features, predictions_of(spans, no_answer))
    )
    assert scored.metrics["f1"] == pytest.approx(best.score)
    texts = {id: answers[0].text for id, answers in scored.answers.items()}
    assert texts == {id: "" if no_answer[id] > best.threshold else spans[id] for id in gold}
    again = score_answers(gold, texts)
    assert (again.exact_match, again.f1) == (scored.metrics["exact_match"], scored.metrics["f1"])
    assert 100 * sum(each.f1 for each in scored.questions) / 300 == pytest.approx(again.f1)
    # Chosen elsewhere, the threshold can't be better.
    assert best.score - 5 < scored.metrics["cross_fitted_f1"] <= best.score


def test_the_cross_fitted_f1_takes_each_threshold_from_the_other_articles() -> None:
    gold = {"a1": ["x"], "a2": [], "b1": ["x"], "b2": []}
    features = features_of(gold, ["a", "a", "b", "b"])
    spans = dict.fromkeys(gold, "x")
    # Article a is parted by 0.2, article b by 0.6: each other's threshold is wrong for one question.
    scored = score_predictions(features, predictions_of(spans, {"a1": 0.2, "a2": 0.4, "b1": 0.6, "b2": 0.8}))
    assert scored.metrics["f1"] == 75.0
    assert scored.metrics["cross_fitted_f1"] == 50.0
    one = features_of(gold, [None] * 4)
    assert "cross_fitted_f1" not in score_predictions(one, predictions_of(spans, dict.fromkeys(gold, 0.5))).metrics


def test_a_given_threshold_is_applied_and_not_chosen() -> None:
    gold: dict[str, list[str]] = {"a": ["x"], "b": []}
    predictions = predictions_of({"a": "x", "b": "x"}, {"a": 0.1, "b": 0.2})
    scored = score_predictions(features_of(gold, ["a", "b"]), predictions, 0.2)
    assert scored.metrics == {
        "exact_match": 50.0,
        "f1": 50.0,
        "answerable_exact_match": 100.0,
        "answerable_f1": 100.0,
        "unanswerable_f1": 0.0,
        "no_answer_threshold": 0.2,
    }


def test_the_answer_comes_first_and_the_others_keep_their_order() -> None:
    first, second, empty = Prediction("x", 0, 1, 0.5), Prediction("y", 2, 3, 0.2), Prediction("", 0, 0, 0.3)
    ranked = [first, empty, second]
    assert decide(ranked, 0.3) == [first, empty, second]
    assert decide(ranked, 0.29) == [empty, first, second]
    assert decide([empty, first], 0.9) == [first, empty]
    assert decide([empty, first], None) == [empty, first]
    assert decide([first, second], 0.0) == [first, second]


# ---- bidaf score

SCORE = ("score", "data.json", "predictions.json")


def write_task(folder: Path) -> None:
    gold, predictions, no_answer = random_task(7, 50)
    paragraphs = [
        {
            "context": "c",
            "qas": [
                {
                    "id": id,
                    "question": "q?",
                    "answers": [{"text": text, "answer_start": 0} for text in answers],
                    "is_impossible": not answers,
                }
            ],
        }
        for id, answers in gold.items()
    ]
    for name, value in (
        ("data.json", {"version": "v2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}),
        ("predictions.json", predictions),
        ("no_answer.json", no_answer),
    ):
        (folder / name).write_text(json.dumps(value), encoding="utf-8")


def test_the_command_scores_by_v2_where_a_question_has_no_answer(tmp_path: Path) -> None:
    write_task(tmp_path)
    gold, predictions, no_answer = random_task(7, 50)
    ran = succeed(*SCORE, "--no-answer", "no_answer.json", "--threshold", 0.5, "--json", cwd=tmp_path)
    assert "scored by the rule of SQuAD v2.0" in ran.err
    expected = score_answers(gold, predictions, no_answer, 0.5)
    assert {name: ran.json[name] for name in expected.metrics} == expected.metrics
    assert (ran.json["rule"], ran.json["questions"], ran.json["unanswerable"]) == ("SQuAD v2.0", 50, 0)
    table = succeed(*SCORE, cwd=tmp_path).out
    assert all(label in table for label in ("EM", "F1", "HasAns EM", "HasAns F1", "NoAns"))


def test_probabilities_are_read_from_every_file_of_records(tmp_path: Path) -> None:
    write_task(tmp_path)
    _, predictions, no_answer = random_task(7, 50)
    records = [{"id": id, "prediction_text": predictions[id], "no_answer": no_answer[id]} for id in no_answer]
    (tmp_path / "lines.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in records))
    (tmp_path / "list.json.gz").write_bytes(gzip.compress(json.dumps(records).encode()))
    expected = succeed(*SCORE, "--no-answer", "no_answer.json", "--json", cwd=tmp_path).json
    for name in ("lines.jsonl", "list.json.gz"):
        assert succeed(*SCORE, "--no-answer", name, "--json", cwd=tmp_path).json == expected


def test_the_best_thresholds_of_an_n_best_file_are_those_of_its_spans(tmp_path: Path) -> None:
    write_task(tmp_path)
    gold, predictions, no_answer = random_task(7, 50)
    spans = {id: predictions.get(id) or "span" for id in gold}
    records = [
        {"id": id, "no_answer": p, "answers": [{"text": ""}, {"text": spans[id]}][:: -1 if p < 0.2 else 1]}
        for id, p in no_answer.items()
    ]
    (tmp_path / "n_best.json").write_text(json.dumps(records))
    scored = score_file(tmp_path / "data.json", tmp_path / "n_best.json", no_answer=tmp_path / "n_best.json").score
    assert scored.metrics["f1"] == score_answers(gold, spans, no_answer, 0.2).f1
    best = score_answers(gold, spans, no_answer)
    assert {name: scored.metrics[name] for name in best.metrics if name.startswith("best")} == {
        name: value for name, value in best.metrics.items() if name.startswith("best")
    }
    records[0]["answers"] = [{"text": ""}]
    (tmp_path / "n_best.json").write_text(json.dumps(records))
    command = ("score", "data.json", "n_best.json", "--no-answer", "n_best.json")
    assert "--n-best 2" in fail(3, *command, cwd=tmp_path)


def test_answerable_questions_alone_are_scored_by_v1(tmp_path: Path) -> None:
    write_task(tmp_path)
    ran = succeed("score", "data.json", "predictions.json", "--answerable-only", "--json", cwd=tmp_path)
    gold = {id: answers for id, answers in read_gold(tmp_path / "data.json").items() if answers}
    assert "scored by the rule of SQuAD v1.1" in ran.err
    assert f"{50 - len(gold)} unanswerable questions are left out" in ran.err
    assert (ran.json["questions"], ran.json["unanswerable"]) == (len(gold), 50 - len(gold))
    scored = score_file(tmp_path / "data.json", tmp_path / "predictions.json", answerable_only=True)
    assert scored.score.metrics == {name: ran.json[name] for name in ("exact_match", "f1")}


def test_options_and_probabilities_that_do_not_fit_are_one_message(tmp_path: Path) -> None:
    write_task(tmp_path)
    assert "--no-answer FILE" in fail(2, *SCORE, "--threshold", 0.5, cwd=tmp_path)
    options: tuple[Any, ...] = ("--no-answer", "no_answer.json")
    assert "SQuAD v2.0" in fail(2, *SCORE, "--answerable-only", *options, cwd=tmp_path)
    problems = {"3": "expected {id: probability", "[]": "found none", "{}": "found none", '{"q0": 2}': "'q0'"}
    for content, problem in problems.items():
        (tmp_path / "no_answer.json").write_text(content)
        assert problem in fail(3, *SCORE, *options, cwd=tmp_path).replace('"q0"', "'q0'")
