"""Questions to predict: every form they come in, their ids, and how a bad one is named."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidaf.data.questions import read_questions
from bidaf.data.squad import GoldAnswer
from bidaf.errors import DataError

ONE = {"context": "The cat sat.", "question": "Who sat?"}


def ask(folder: Path, content: str, name: str = "questions.json") -> list[Any]:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return read_questions(path)


def failure(folder: Path, content: str, name: str = "questions.json") -> str:
    with pytest.raises(DataError) as caught:
        ask(folder, content, name)
    assert str(folder / name) in str(caught.value)
    return str(caught.value)


def squad(*questions: Any) -> str:
    return json.dumps({"data": [{"title": "Pets", "paragraphs": [{"context": ONE["context"], "qas": questions}]}]})


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (json.dumps(ONE), "one.json"),
        (json.dumps(ONE, indent=2), "pretty.json"),
        (json.dumps([ONE]), "list.json"),
        (json.dumps(ONE), "lines.jsonl"),
        ("\n" + json.dumps(ONE) + "\n \n", "lines.jsonl"),
        (squad({"question": "Who sat?"}), "squad.json"),
        (squad({"question": "Who sat?", "answers": []}), "squad.json"),
    ],
)
def test_every_form_gives_the_same_question(tmp_path: Path, content: str, name: str) -> None:
    (example,) = ask(tmp_path, content, name)
    assert (example.id, example.question, example.context) == ("0", "Who sat?", "The cat sat.")
    assert example.answers == ()


@pytest.mark.parametrize("name", ["questions.jsonl", "questions.txt"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\n\n"])
def test_json_lines_are_known_by_name_or_by_content(tmp_path: Path, name: str, newline: str) -> None:
    lines = [{**ONE, "question": f"Who\u2028sat {n}?"} for n in range(3)]
    examples = ask(tmp_path, newline.join(json.dumps(line, ensure_ascii=False) for line in lines), name)
    assert [(example.id, example.question) for example in examples] == [
        (str(n), f"Who\u2028sat {n}?") for n in range(3)
    ]


@pytest.mark.parametrize("path", [None, "-", Path("-")])
def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch, path: Any) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\xef\xbb\xbf" + json.dumps(ONE).encode())))
    assert read_questions(path)[0].question == "Who sat?"
    with pytest.raises(DataError, match="standard input: is empty"):
        read_questions(path)


def test_gzip_is_read(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl.gz"
    path.write_bytes(gzip.compress(f"{json.dumps(ONE)}\n{json.dumps(ONE)}".encode()))
    assert len(read_questions(path)) == 2


def test_unanswerable_questions_are_asked_all_the_same(tmp_path: Path) -> None:
    examples = ask(tmp_path, squad({"id": "a", "question": "Why?", "answers": [], "is_impossible": True}))
    assert [(example.id, example.title) for example in examples] == [("a", "Pets")]


@pytest.mark.parametrize(
    ("given_ids", "ids"),
    [
        ([None, None, None], ["0", "1", "2"]),
        (["a", None, "b"], ["a", "1", "b"]),
        ([7, "x", 2.5], ["7", "x", "2.5"]),
        (["1", None, "1_", None], ["1", "1__", "1_", "3"]),
    ],
)
def test_missing_ids_are_positions_that_meet_no_given_id(tmp_path: Path, given_ids: list[Any], ids: list[str]) -> None:
    items = [{**ONE, "id": id} for id in given_ids]
    assert [example.id for example in ask(tmp_path, json.dumps(items))] == ids
    del_null = [{key: value for key, value in item.items() if value is not None} for item in items]
    assert [example.id for example in ask(tmp_path, json.dumps(del_null))] == ids


def test_a_repeated_id_is_named_with_both_places(tmp_path: Path) -> None:
    message = failure(tmp_path, json.dumps([{**ONE, "id": 7}, ONE, {**ONE, "id": "7"}]))
    assert "[2].id: '7' is already the id of [0]" in message


@pytest.mark.parametrize(
    ("answers", "kept"),
    [
        ([{"text": "cat", "answer_start": 4}], (GoldAnswer("cat", 4),)),
        ([{"text": "dog", "answer_start": 99}], (GoldAnswer("dog", 99),)),
        ([{"text": "cat", "answer_start": "here"}, {"text": "cat"}], (GoldAnswer("cat", -1), GoldAnswer("cat", -1))),
        ({"text": ["cat", "sat"], "answer_start": [4, 8]}, (GoldAnswer("cat", 4), GoldAnswer("sat", 8))),
        ({"text": ["cat", "sat"], "answer_start": [4]}, (GoldAnswer("cat", -1), GoldAnswer("sat", -1))),
        (None, ()),
    ],
)
def test_answers_are_kept_as_given(tmp_path: Path, answers: Any, kept: tuple[GoldAnswer, ...]) -> None:
    assert ask(tmp_path, json.dumps({**ONE, "answers": answers}))[0].answers == kept


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps({**ONE, "question": ""}), "question: is empty"),
        (json.dumps({**ONE, "question": " "}), "question: holds only white space"),
        (json.dumps({**ONE, "context": "\n"}), "context: holds only white space"),
        (json.dumps({"question": "Who?"}), "context: missing"),
        (json.dumps([ONE, {**ONE, "context": ""}]), "[1].context: is empty"),
        (json.dumps([ONE, "Who?"]), "[1]: expected an object, found text"),
        (json.dumps([{**ONE, "id": ""}]), "[0].id: is empty"),
        (json.dumps([{**ONE, "id": ["a"]}]), "[0].id: expected text, found a list"),
        (json.dumps([{**ONE, "id": True}]), "[0].id: expected text, found true"),
        (json.dumps([{**ONE, "answers": "cat"}]), "[0].answers: expected a list, found text"),
        (json.dumps([{**ONE, "answers": [{"text": 3}]}]), "[0].answers[0].text: expected text, found a number"),
        (squad({"question": "Who?"}, {"question": ""}), "data[0].paragraphs[0].qas[1].question: is empty"),
        ('{"question": "\\ud800", "context": "x"}', "question: holds half of a surrogate pair"),
        ("[]", "holds no question; expected SQuAD JSON"),
        ('{"data": []}', "holds no question; expected SQuAD JSON"),
        ("3", "the top level is a number; expected SQuAD JSON"),
        ("", "is empty"),
        (" \n", "is empty"),
        ('{"context": "a"', "is not JSON at line 1, column 16: Expecting ',' delimiter; it seems cut off"),
        ("Who sat?", "is not JSON at line 1, column 1"),
    ],
)
def test_a_bad_question_is_named_by_its_place(tmp_path: Path, content: str, message: str) -> None:
    assert message in failure(tmp_path, content)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"context": "a"', "is not JSON at line 4, column 16"),
        ('{"context": "a"}', "line 4.question: missing"),
        ("[]", "line 4: expected an object, found a list"),
        ("[" * 100_000, "is nested too deeply to be read, from line 4 on"),
        ('{"context": "a", "context": "b"}', "is not usable JSON, from line 4 on: one object holds 'context' twice"),
    ],
)
@pytest.mark.parametrize("name", ["questions.jsonl", "questions.json"])
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: str, message: str, name: str) -> None:
    content = "\n".join([json.dumps(ONE), "", json.dumps(ONE), line, json.dumps(ONE)])
    assert message in failure(tmp_path, content, name)


def test_a_json_lines_file_of_blank_lines_holds_no_question(tmp_path: Path) -> None:
    assert "holds no question" in failure(tmp_path, "\n\n", "questions.jsonl")


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_questions(tmp_path / "questions.json")


def test_a_context_of_ten_megabytes_is_read(tmp_path: Path) -> None:
    context = "cat " * 2_500_000
    assert ask(tmp_path, json.dumps({**ONE, "context": context}))[0].context == context


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "paragraphs", "context", "qas", "id", "question", "answers", "text"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)
askable = st.fixed_dictionaries(
    {"context": st.text(min_size=1), "question": st.text(min_size=1)},
    optional={"id": json_values, "answers": json_values, "title": st.text()},
)


@settings(max_examples=150, deadline=None)
@given(value=json_values | st.lists(askable | json_values, max_size=4), lines=st.booleans())
def test_any_json_either_reads_or_raises_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, value: Any, lines: bool
) -> None:
    content = "\n".join(map(json.dumps, value)) if lines and isinstance(value, list) else json.dumps(value)
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(content, encoding="utf-8")
    try:
        examples = read_questions(path)
    except DataError:  # any other exception fails the test
        return
    assert examples
    assert len({example.id for example in examples}) == len(examples)
    assert all(example.question.strip() and example.context.strip() for example in examples)
