"""Several passages of a question are answered one by one and ranked by the scores before normalisation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from helpers_cli import DEV, Tiny, succeed, write_tiny
from torch import Tensor

import bidaf
from bidaf.data.squad import Example
from bidaf.errors import UsageError
from bidaf.evaluation.evaluator import Prediction
from bidaf.inference.predictor import Predictor
from bidaf.inference.records import answer_records

QUESTION = "Where does Dora live?"
PASSAGES = [context for context, _ in DEV]


@pytest.fixture(scope="module")
def predictor(tiny: Tiny) -> Predictor:
    predictor = bidaf.load(tiny.run, device="cpu")
    assert isinstance(predictor, Predictor)
    return predictor


def test_a_score_is_what_the_output_layer_gives_both_ends(predictor: Predictor) -> None:
    given: list[Tensor] = []
    model = predictor.loaded.model
    hooks = [
        scorer.register_forward_hook(lambda module, inputs, scores: given.append(scores))
        for scorer in (model.start_scorer, model.end_scorer)
    ]
    features = predictor.features([Example("q", QUESTION, PASSAGES[0], ())])
    answers = predictor.answer(features, 20)["q"]
    for hook in hooks:
        hook.remove()
    start, end = (scores[0].tolist() for scores in given)
    firsts, lasts = features.context_spans.T.tolist()
    assert len(answers) == 20
    for answer in answers:
        expected = start[firsts.index(answer.start)] + end[lasts.index(answer.end)]
        assert answer.score == pytest.approx(expected, abs=1e-4)


class Scripted:
    """A predictor that answers each passage as it is told to."""

    def __init__(self, answers: Sequence[list[Prediction]]) -> None:
        self.answers = answers

    def features(self, examples: Sequence[Example]) -> Sequence[Example]:
        assert len({example.id for example in examples}) == len(examples)
        return examples

    def rank(self, features: Sequence[Example], n_best: int, on_progress: Any) -> dict[str, list[Prediction]]:
        return {example.id: self.answers[int(example.context)] for example in features}


def test_there_is_no_answer_where_no_passage_has_one() -> None:
    span, rival = Prediction("a", 0, 1, 0.3, 5.0), Prediction("b", 0, 1, 0.9, 1.0)
    sure, unsure = Prediction("", 0, 0, 0.8, 2.0), Prediction("", 0, 0, 0.6, 2.0)
    scripted = cast(Predictor, Scripted([[sure, span], [unsure, rival], [rival, sure]]))
    none = Example("none", "?", "0", (), further_contexts=("1",))
    one = Example("one", "?", "0", (), further_contexts=("2",))
    assert answer_records(scripted, [none, one]) == [
        {"id": "none", "prediction_text": "", "passage": 1, "no_answer": 0.6},
        {"id": "one", "prediction_text": "a", "passage": 0, "no_answer": 0.8},
    ]
    first, second = answer_records(scripted, [none, one], 2)
    assert [answer["text"] for answer in first["answers"]] == ["", "a"]
    assert [answer["text"] for answer in second["answers"]] == ["a", "b"]


def test_an_ensemble_does_not_rank_passages() -> None:
    scripted = cast(Predictor, Scripted([[Prediction("a", 0, 1, 0.3)], [Prediction("b", 0, 1, 0.9)]]))
    with pytest.raises(UsageError, match="one passage per question"):
        answer_records(scripted, [Example("x", "?", "0", (), further_contexts=("1",))])


def test_passages_are_ranked_by_score_and_not_by_probability() -> None:
    sure, better, worse = (
        Prediction("a", 0, 1, 0.9, 1.0),
        Prediction("b", 0, 1, 0.3, 5.0),
        Prediction("c", 2, 3, 0.2, 4.0),
    )
    scripted = cast(Predictor, Scripted([[sure], [better, worse], [Prediction("d", 0, 1, 0.5, 5.0)]]))
    examples = [
        Example("1:x", "?", "0", (), further_contexts=("1", "2")),
        Example("x", "?", "1", ()),
        Example("y", "?", "0", (), further_contexts=("0",)),
    ]
    found = answer_records(scripted, examples)
    assert found == [
        {"id": "1:x", "prediction_text": "b", "passage": 1},
        {"id": "x", "prediction_text": "b"},
        {"id": "y", "prediction_text": "a", "passage": 0},
    ]
    first, second, _ = answer_records(scripted, examples, 3)
    assert [(each["text"], each["passage"], each["score"]) for each in first["answers"]] == [
        ("b", 1, 5.0),
        ("d", 2, 5.0),
        ("c", 1, 4.0),
    ]
    assert second["answers"] == [better.to_dict(), worse.to_dict()]


@pytest.mark.parametrize("key", ["context", "contexts", "passages"])
def test_the_command_answers_from_the_best_passage(tiny: Tiny, tmp_path: Path, key: str) -> None:
    (tmp_path / "q.json").write_text(json.dumps([{"id": 1, "question": QUESTION, key: PASSAGES}]))
    alone = [{"id": number, "question": QUESTION, "context": context} for number, context in enumerate(PASSAGES)]
    (tmp_path / "alone.json").write_text(json.dumps(alone))
    command = ("-m", tiny.run, "--device", "cpu")
    [record] = succeed("predict", "q.json", *command, "--n-best", 4, cwd=tmp_path).json
    singles = succeed("predict", "alone.json", *command, "--n-best", 4, cwd=tmp_path).json
    scores = [answer["score"] for answer in record["answers"]]
    assert scores == sorted(scores, reverse=True)
    for answer in record["answers"]:
        single = {name: answer[name] for name in ("text", "start", "end", "probability")}
        assert any(single == pytest.approx(each) for each in singles[answer["passage"]]["answers"])
    best = record["answers"][0]["text"]
    assert succeed("predict", "q.json", *command, cwd=tmp_path).json == {"1": best}
    succeed("predict", "q.json", *command, "-o", "a.jsonl", cwd=tmp_path)
    [line] = (tmp_path / "a.jsonl").read_text().splitlines()
    assert json.loads(line) == {"id": "1", "prediction_text": best, "passage": record["answers"][0]["passage"]}
    assert bidaf.predict(bidaf.load(tiny.run, device="cpu"), {"question": QUESTION, key: PASSAGES}) == {"0": best}


def test_questions_on_several_passages_are_scored_and_not_trained_on(tiny: Tiny, tmp_path: Path) -> None:
    write_tiny(tmp_path)
    one = {"id": "one", "question": QUESTION, "contexts": PASSAGES[:1], "answers": "Rome"}
    several = {**one, "id": "several", "contexts": PASSAGES}
    (tmp_path / "q.json").write_text(json.dumps([one, several]))
    (tmp_path / "a.json").write_text(json.dumps({"one": "Rome", "several": "Rome"}))
    assert succeed("score", "q.json", "a.json", "--json", cwd=tmp_path).json["questions"] == 2
    evaluated = succeed("eval", "-m", tiny.run, "-d", "q.json", "--json", cwd=tmp_path)
    prepared = succeed("prepare", "-c", "tiny.yaml", "--set=data.train=q.json", "--json", cwd=tmp_path)
    assert evaluated.json["questions"] == prepared.json["counts"]["train"]["kept"] == 1
    for ran in (evaluated, prepared):
        assert "has several contexts, which only predict and score take (1): [1]" in ran.err


def test_the_greatest_length_of_an_answer_can_be_chosen(tiny: Tiny, predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "q.json").write_text(json.dumps({"id": "q", "question": QUESTION, "context": PASSAGES[0]}))
    command = ("predict", "q.json", "-m", tiny.run, "--n-best", 30, "--device", "cpu")
    lengths = [
        [len(predictor.tokenizer.tokenize(answer["text"])) for answer in record["answers"]]
        for (record,) in (
            succeed(*command, cwd=tmp_path).json,
            succeed(*command, "--max-answer-tokens", 2, cwd=tmp_path).json,
        )
    ]
    assert max(lengths[0]) > 2
    assert set(lengths[1]) == {1, 2}
    short = bidaf.load(tiny.run, max_answer_tokens=1, device="cpu")
    assert all(" " not in answer.text for answer in short.ask(QUESTION, PASSAGES[0], 9))
