"""The score is the official evaluator's, to the last digit, and bad files end in one clear message."""

from __future__ import annotations

import gzip
import json
import random
import re
import string
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidaf.data.questions import ReadReport
from bidaf.errors import DataError
from bidaf.evaluation.metrics import read_gold, score_file
from bidaf.evaluation.predictions import read_predictions
from bidaf.evaluation.squad_v1 import exact_match, f1, normalize_answer, question_scores, score_answers

# A naive restatement of the official rules: one step a line, nothing shared with the code under test.


def naive_normalize(text: str) -> str:
    kept = [character for character in text.lower() if character not in set(string.punctuation)]
    words = re.sub(r"\b(a|an|the)\b", " ", "".join(kept))
    return " ".join(words.split())


def naive_f1(prediction: str, gold: str) -> float:
    predicted, wanted = naive_normalize(prediction).split(), naive_normalize(gold).split()
    common = Counter(predicted) & Counter(wanted)
    same = sum(common.values())
    if same == 0:
        return 0
    precision = 1.0 * same / len(predicted)
    recall = 1.0 * same / len(wanted)
    return (2 * precision * recall) / (precision + recall)


def naive_score(document: dict[str, Any], predictions: dict[str, str]) -> tuple[float, float]:
    total: float = 0
    matches: float = 0
    overlap: float = 0
    for article in document["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                total += 1
                if question["id"] not in predictions:
                    continue
                prediction = predictions[question["id"]]
                golds = [answer["text"] for answer in question["answers"]]
                matches += max(naive_normalize(prediction) == naive_normalize(gold) for gold in golds)
                overlap += max(naive_f1(prediction, gold) for gold in golds)
    return 100.0 * matches / total, 100.0 * overlap / total


def squad(questions: Sequence[tuple[Any, Sequence[Any]]]) -> dict[str, Any]:
    qas = [{"id": id, "question": "Q?", "answers": [{"text": text} for text in texts]} for id, texts in questions]
    pages = [{"context": "c", "qas": qas[::2]}, {"context": "d", "qas": qas[1::2]}]
    return {"version": "1.1", "data": [{"paragraphs": pages}]}


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


WORDS = st.sampled_from(
    [
        "the",
        "The",
        "a",
        "An",
        "theatre",
        "can't",
        "U.S.",
        "1,000",
        "—",
        "a\u00a0b",
        "İ",
        "ß",
        "é",
        "\u2019s",
        "_a_",
        "",
    ]
)
ANSWERS = st.one_of(
    st.text(st.characters(), max_size=30),  # every code point, lone surrogates included
    st.lists(WORDS, max_size=8).map(" ".join),
    st.text("aAnthe .,-'\t\u00a0\u200b", max_size=20),
)


@settings(max_examples=2000, deadline=None)
@given(ANSWERS, ANSWERS)
def test_every_pair_of_texts_scores_as_the_naive_restatement_does(prediction: str, gold: str) -> None:
    assert normalize_answer(prediction) == naive_normalize(prediction)
    assert exact_match(prediction, gold) == (naive_normalize(prediction) == naive_normalize(gold))
    assert f1(prediction, gold) == naive_f1(prediction, gold)


IDS = st.text(max_size=4).filter(str.strip)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(IDS, st.lists(ANSWERS, min_size=1, max_size=3)),
        min_size=1,
        max_size=12,
        unique_by=lambda question: question[0],
    ),
    st.dictionaries(IDS, ANSWERS),
    st.data(),
)
def test_whole_files_score_as_the_naive_restatement_does(
    tmp_path_factory: pytest.TempPathFactory,
    questions: list[tuple[str, list[str]]],
    predictions: dict[str, str],
    data: st.DataObject,
) -> None:
    for id, texts in questions:
        if data.draw(st.booleans()):
            predictions[id] = data.draw(st.sampled_from(texts))
    document = squad(questions)
    folder = tmp_path_factory.getbasetemp()
    score = score_file(write(folder / "data.json", document), write(folder / "predictions.json", predictions)).score
    assert (score.exact_match, score.f1) == naive_score(document, predictions)
    assert score.questions == len(questions)
    assert set(score.missing) == {id for id, _ in questions} - set(predictions)
    assert set(score.unknown) == set(predictions) - {id for id, _ in questions}


def test_random_predictions_of_thousands_of_questions_score_as_the_naive_restatement_does(tmp_path: Path) -> None:
    draw = random.Random(0)
    words = ["the", "a", "An", "Denver", "denver", "Broncos", "U.S.", "1,000", "co-op", "“x”", "\u2019s", "\u00a0", "é"]

    def text() -> str:
        return " ".join(draw.choices(words, k=draw.randint(0, 5)))

    questions = [(f"q{number}", [text() for _ in range(draw.randint(1, 4))]) for number in range(5_000)]
    predictions = {id: draw.choice([text(), draw.choice(golds)]) for id, golds in questions if draw.random() < 0.95}
    document = squad(questions)
    score = score_file(write(tmp_path / "data.json", document), write(tmp_path / "predictions.json", predictions)).score
    assert (score.exact_match, score.f1) == naive_score(document, predictions)
    assert 30 < score.f1 < 90
    assert 30 < score.exact_match < 90


@pytest.mark.parametrize(
    ("prediction", "gold", "match", "overlap"),
    [
        ("The Denver Broncos!", "denver broncos", True, 1.0),
        ("Denver", "Denver Broncos", False, 2 / 3),
        ("new new york", "new york york", False, 2 / 3),
        ("theatre", "atre", False, 0.0),
        ("1,000", "1000", True, 1.0),
        ("the", "a", True, 0.0),
        ("", "", True, 0.0),
        ("", "Denver", False, 0.0),
        ("x-y", "xy", True, 1.0),
        ("“Denver”", "Denver", False, 0.0),
        ("Denver\u00a0 Broncos\n", "denver broncos", True, 1.0),
    ],
)
def test_the_rules_hold_by_example(prediction: str, gold: str, match: bool, overlap: float) -> None:
    assert exact_match(prediction, gold) is match
    assert f1(prediction, gold) == pytest.approx(overlap, abs=1e-15)


def test_the_best_gold_answer_counts_for_each_figure() -> None:
    score = score_answers({"q": ["Denver", "the Denver Broncos team"]}, {"q": "Denver Broncos"})
    assert score.exact_match == 0.0
    assert score.f1 == pytest.approx(80.0)


def test_sums_round_as_a_plain_loop_does() -> None:
    gold = {str(i): [f"{'x ' * (i % 5)}y z w"] for i in range(500)}
    predictions = dict.fromkeys(gold, "x y")
    total = 0.0
    for texts in gold.values():
        total += naive_f1("x y", texts[0])
    assert score_answers(gold, predictions).f1 == 100.0 * total / 500


def test_missing_and_unknown_predictions_are_named_and_missing_ones_count_as_zero() -> None:
    score = score_answers({"b": ["x"], "a": ["y"], "c": ["z"]}, {"c": "z", "other": "?"})
    assert score.missing == ("b", "a")
    assert score.unknown == ("other",)
    assert score.exact_match == score.f1 == 100.0 / 3


def test_an_empty_prediction_is_not_a_missing_one() -> None:
    (score,) = question_scores({"q": ["the"]}, {"q": ""})
    assert score == ("q", True, 0.0, True)
    (score,) = question_scores({"q": ["the"]}, {})
    assert score == ("q", False, 0.0, False)


def test_the_score_is_the_mean_of_the_question_scores() -> None:
    gold = {"a": ["one two"], "b": ["three"], "c": ["four"]}
    predictions = {"a": "one", "b": "three"}
    each = question_scores(gold, predictions)
    score = score_answers(gold, predictions)
    assert [question.id for question in each] == ["a", "b", "c"]
    assert score.f1 == 100.0 * (each[0].f1 + each[1].f1 + each[2].f1) / 3
    assert score.exact_match == 100.0 * sum(question.exact_match for question in each) / 3


def test_questions_without_an_answer_are_left_out_and_counted(tmp_path: Path) -> None:
    data = write(tmp_path / "data.json", squad([("a", ["x"]), ("none", [])]))
    gold = read_gold(data)
    assert gold == {"a": ["x"], "none": []}
    score = score_answers(gold, {"a": "x", "none": ""})
    assert (score.exact_match, score.questions, score.unanswerable, score.unknown) == (100.0, 1, 1, ())


def test_gold_is_what_the_file_says_whatever_the_offsets_say(tmp_path: Path) -> None:
    answers = [{"text": " Not there ", "answer_start": -5}, {"text": ""}]
    qas = [{"id": "q", "question": "Q?", "answers": answers, "extra": 1}]
    data = write(tmp_path / "data.json", {"data": [{"paragraphs": [{"context": "c", "qas": qas}]}]})
    assert read_gold(data) == {"q": [" Not there ", ""]}


def test_an_impossible_question_is_left_out_whatever_its_answers(tmp_path: Path) -> None:
    document = squad([("a", ["x"]), ("imp", ["y"])])
    document["data"][0]["paragraphs"][1]["qas"][0]["is_impossible"] = True
    assert read_gold(write(tmp_path / "data.json", document)) == {"a": ["x"], "imp": []}


def test_a_byte_order_mark_and_lone_surrogates_are_read(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    path.write_bytes(b'\xef\xbb\xbf{"q": "the \\ud800 Denver"}')
    predictions = read_predictions(path)
    assert score_answers({"q": ["\ud800 denver"]}, predictions).exact_match == 100.0


def test_gzip_is_read(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json.gz"
    path.write_bytes(gzip.compress(b'{"q": "x"}'))
    assert read_predictions(path) == {"q": "x"}


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(DataError, match="no question"):
        score_answers({}, {"a": "x"})


UNREADABLE = [
    (b"", "is empty"),
    (b" \n", "is empty"),
    (b'{"data": [', "is not JSON at line 1, column 11: .*; it seems cut off"),
    ('{"data": []}'.encode("utf-16"), "is not UTF-8"),
    (b"[" * 100_000, "is nested too deeply"),
    (b'{"a": ' + b"9" * 5000 + b"}", "is not usable JSON"),
]


@pytest.mark.parametrize("read", [read_gold, read_predictions])
@pytest.mark.parametrize(("content", "message"), UNREADABLE)
def test_an_unreadable_file_ends_in_one_message_with_its_name(
    tmp_path: Path, read: Any, content: bytes, message: str
) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("read", [read_gold, read_predictions])
def test_a_missing_file_and_a_folder_end_in_one_message(tmp_path: Path, read: Any) -> None:
    for path, message in ((tmp_path / "missing.json", "no such file"), (tmp_path, "is a folder|as a data set")):
        with pytest.raises(DataError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_records_that_score_nothing_are_skipped_and_named(tmp_path: Path) -> None:
    document = squad([("a", ["x"]), ("b", ["y"]), (["c"], ["z"])])
    reports: list[ReadReport] = []
    gold = read_gold(write(tmp_path / "data.json", document), on_report=reports.append)
    assert gold == {"a": ["x"], "b": ["y"]}
    assert reports[0].skipped == {"id is a list, not text": ["data[0].paragraphs[0].qas[1]"]}
    with pytest.raises(DataError, match="1 of 3 can't be used"):
        read_gold(tmp_path / "data.json", strict=True)


@pytest.mark.parametrize("document", [{"data": []}, [], {"version": "1.1"}])
def test_data_without_a_question_is_one_message(tmp_path: Path, document: Any) -> None:
    with pytest.raises(DataError, match=r"data\.json: (no question can be used|has no known schema)"):
        read_gold(write(tmp_path / "data.json", document))


PREDICTED = {"a": "x", "7": "y", "none": ""}


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (json.dumps(PREDICTED), "p.json"),
        (json.dumps(PREDICTED, indent=2), "p.json"),
        (json.dumps([{"id": id, "prediction_text": text} for id, text in PREDICTED.items()]), "p.json"),
        (
            json.dumps(
                [
                    {"id": "a", "question": "?", "answers": [{"text": "x", "start": 0}, {"text": "z", "start": 4}]},
                    {"id": 7, "answers": [{"text": "y"}]},
                    {"id": "none", "answers": []},
                ]
            ),
            "p.json",
        ),
        (
            "\n".join(json.dumps({"id": id, "prediction_text": text}) for id, text in PREDICTED.items()),
            "p.jsonl",
        ),
    ],
)
def test_every_schema_of_predictions_is_read(tmp_path: Path, content: str, name: str) -> None:
    for pack in (bytes, gzip.compress):
        (tmp_path / name).write_bytes(pack(content.encode()))
        assert read_predictions(tmp_path / name) == PREDICTED


def test_one_record_alone_is_no_mapping_of_ids(tmp_path: Path) -> None:
    assert read_predictions(write(tmp_path / "p.json", {"id": "a", "prediction_text": "x"})) == {"a": "x"}
    assert read_predictions(write(tmp_path / "p.json", {"id": "x"})) == {"id": "x"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('["x"]', "[0]: expected {id: text}"),
        ("3", "expected {id: text}, [{"),
        ('{"q": null}', "the answer to 'q' must be text, found null"),
        ('{"q": true}', "must be text, found true"),
        ('{"q": 1.5}', "must be text, found a number"),
        ('{"q": ["x"]}', "must be text, found a list"),
        ('{"q": {"text": "x"}}', "must be text, found an object"),
        ('{"p": "y", "q": "x", "q": "x"}', "one object holds 'q' twice; keep one of the two"),
        (r'{"\ud800\u001b": 1}', r"'\ud800\x1b' must be text"),
        ('[{"id": "q"}]', "[0]: the answer to 'q' must be text, found null"),
        ('[{"prediction_text": "x"}]', "[0]: expected {id: text}"),
        ('[{"id": true, "prediction_text": "x"}]', "[0]: expected {id: text}"),
        ('[{"id": "q", "answers": [3]}]', "the answer to 'q' must be text"),
        ('[{"id": "q", "answers": [{"text": 3}]}]', "the answer to 'q' must be text, found a number"),
        ('[{"id": 1, "prediction_text": "x"}, {"id": "1", "prediction_text": "x"}]', "[1]: '1' is already answered"),
        ('{"id": "q", "prediction_text": "x"}\n{"id": "p"', "line 2: is not JSON"),
    ],
)
def test_a_wrong_prediction_file_is_named_by_its_id_or_place(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "predictions.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        read_predictions(path)
    str(caught.value).encode("utf-8")  # fit to be printed


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", "", "is empty"),
        ("p.csv", 'id,prediction_text\na,x\nb,"y\nc,z\n', "row 2: opens a quote"),
        ("p.csv", "id,prediction_text\na,x, and y\n", "row 1: has more cells than columns"),
        ("p.csv", "id;prediction_text\na;x\n", "the first row names one column"),
    ],
)
def test_predictions_that_would_be_read_in_part_are_refused(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_predictions(tmp_path / name)


def test_a_message_does_not_repeat_an_endless_id(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_predictions(write(tmp_path / "predictions.json", {"x" * 10_000: None}))
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_scoring_needs_the_standard_library_alone() -> None:
    heavy = "numpy", "torch", "spacy", "datasets", "pydantic"
    code = f"import sys, bidaf.evaluation.squad_v1; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
