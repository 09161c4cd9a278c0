"""Reading SQuAD files: what is kept, what is counted, and how every kind of bad file is named."""

from __future__ import annotations

import contextlib
import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidaf.data.sources import find_source, read_source, read_sources
from bidaf.data.squad import Corpus, GoldAnswer, read_squad
from bidaf.errors import DataError

CONTEXT = "The cat sat on the mat. The dog sat too."


def question(id: str = "q1", *answers: tuple[str, int], **extra: Any) -> dict[str, Any]:
    given = [{"text": text, "answer_start": start} for text, start in answers or [("cat", 4)]]
    return {"id": id, "question": "Who sat?", "answers": given, **extra}


def squad(*questions: dict[str, Any], context: str = CONTEXT) -> dict[str, Any]:
    return {"data": [{"title": "Pets", "paragraphs": [{"context": context, "qas": list(questions)}]}]}


def write(folder: Path, value: Any, name: str = "squad.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def read(folder: Path, value: Any) -> Corpus:
    return read_squad(write(folder, value))


def read_named(name: str) -> Corpus:
    return read_source(find_source(name, "train"))


def identity(name: str) -> dict[str, Any]:
    return find_source(name, "train").identity


def failure(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_squad(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_questions_come_in_file_order_and_share_their_context(tmp_path: Path) -> None:
    corpus = read(tmp_path, squad(question("b", ("cat", 4), ("The cat", 0)), question("a", ("dog", 28))))
    first, second = corpus.examples
    assert (first.id, second.id) == ("b", "a")
    assert first.answers == (GoldAnswer("cat", 4), GoldAnswer("The cat", 0))
    assert (first.question, first.context, first.title) == ("Who sat?", CONTEXT, "Pets")
    assert first.context is second.context
    assert (corpus.counts.read, corpus.counts.kept) == (2, 2)


@pytest.mark.parametrize("extra", [{"version": "1.1"}, {}])
def test_extra_keys_and_a_missing_title_are_fine(tmp_path: Path, extra: dict[str, Any]) -> None:
    value = {**squad(question(plausible_answers=None)), **extra}
    del value["data"][0]["title"]
    assert read(tmp_path, value).examples[0].title is None


def test_unanswerable_questions_are_skipped_and_counted(tmp_path: Path) -> None:
    bare = {"id": "q2", "question": "Why?", "answers": []}
    impossible = question("q3", ("cat", 4), is_impossible=True)
    corpus = read(tmp_path, squad(question("q1", is_impossible=False), bare, impossible))
    assert [example.id for example in corpus.examples] == ["q1"]
    assert (corpus.counts.read, corpus.counts.kept, corpus.counts.unanswerable) == (3, 1, 2)


@pytest.mark.parametrize(
    ("given_answer", "kept"),
    [
        (("cat", 4), GoldAnswer("cat", 4)),
        (("cat", 9), GoldAnswer("cat", 4)),
        (("dog", 10**30), GoldAnswer("dog", 28)),
        (("sat", 8), GoldAnswer("sat", 8)),
        (("sat", 7), None),
        (("bird", 4), None),
        (("", 0), None),
        ((" ", 3), None),
    ],
)
def test_an_answer_off_its_offset_is_realigned_only_where_it_occurs_once(
    tmp_path: Path, given_answer: tuple[str, int], kept: GoldAnswer | None
) -> None:
    corpus = read(tmp_path, squad(question("sure", ("mat", 19)), question("q", ("mat", 19), given_answer)))
    assert corpus.examples[1].answers == (GoldAnswer("mat", 19), *([kept] if kept else []))
    assert corpus.counts.answers_dropped == (kept is None)
    assert corpus.counts.realigned == (kept is not None and kept.start != given_answer[1])


def test_occurrences_that_overlap_are_more_than_one(tmp_path: Path) -> None:
    corpus = read(tmp_path, squad(question("q", ("aa", 2), ("aaa", 7)), context="aaa"))
    assert corpus.examples[0].answers == (GoldAnswer("aaa", 0),)


def test_questions_that_lose_every_answer_are_listed_by_reason(tmp_path: Path) -> None:
    lost = [question("q2", ("bird", 0)), question("q3", ("sat", 1), ("bird", 0)), question("q4", ("", 0))]
    counts = read(tmp_path, squad(question("q1"), *lost, question("q5", ("fish", 3)))).counts
    assert counts.dropped == {
        "answer not in context": ["q2", "q5"],
        "answer not at its offset and more than once in context": ["q3"],
        "answer is empty": ["q4"],
    }
    assert counts.read == counts.kept + counts.unanswerable + sum(map(len, counts.dropped.values())) == 5


@pytest.mark.parametrize(
    ("value", "counted"),
    [
        ({"data": []}, "of 0"),
        (squad({"id": "q", "question": "Why?", "answers": []}), "of 1; unanswerable: 1"),
        (squad(question("q", ("bird", 0))), "of 1; answer not in context: 1"),
    ],
)
def test_a_file_without_a_usable_question_is_an_error(tmp_path: Path, value: Any, counted: str) -> None:
    assert f"no question can be used ({counted})" in failure(write(tmp_path, value))


QUESTION = "data[0].paragraphs[0].qas[0]"


@pytest.mark.parametrize(
    ("steps", "value", "message"),
    [
        ("question", None, f"{QUESTION}.question: expected text, found null"),
        ("question", "", f"{QUESTION}.question: is empty"),
        ("question", " \t\n", f"{QUESTION}.question: holds only white space"),
        ("question", ["Who?"], f"{QUESTION}.question: expected text, found a list"),
        ("question", "\ud800", f"{QUESTION}.question: holds half of a surrogate pair"),
        ("id", "", f"{QUESTION}.id: is empty"),
        ("id", 7, f'{QUESTION}.id: expected text, found the number 7; ids must be text: "7"'),
        ("id", True, f"{QUESTION}.id: expected text, found true"),
        ("answers", [{"text": "\udfff", "answer_start": 0}], f"{QUESTION}.answers[0].text: holds half of a surrogate"),
        ("answers", None, f"{QUESTION}.answers: expected a list, found null"),
        ("answers", {"text": ["cat"]}, f"{QUESTION}.answers: expected a list, found an object"),
        ("answers", ["cat"], f"{QUESTION}.answers[0]: expected an object, found text"),
        ("answers", [{"text": "cat"}], f"{QUESTION}.answers[0].answer_start: missing"),
        (
            "answers",
            [{"text": "cat", "answer_start": -1}],
            f"{QUESTION}.answers[0].answer_start: expected 0 or more, found -1",
        ),
        (
            "answers",
            [{"text": "cat", "answer_start": 4.0}],
            f"{QUESTION}.answers[0].answer_start: expected a whole number, found a number",
        ),
        (
            "answers",
            [{"text": "cat", "answer_start": True}],
            f"{QUESTION}.answers[0].answer_start: expected a whole number, found true",
        ),
        (
            "answers",
            [{"text": "cat", "answer_start": "4"}],
            f"{QUESTION}.answers[0].answer_start: expected a whole number, found text",
        ),
        ("is_impossible", "no", f"{QUESTION}.is_impossible: expected true or false, found text"),
    ],
)
def test_a_bad_field_is_named_by_file_and_json_path(tmp_path: Path, steps: str, value: Any, message: str) -> None:
    assert message in failure(write(tmp_path, squad({**question(), steps: value})))


@pytest.mark.parametrize("key", ["id", "question", "answers"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    broken = question()
    del broken[key]
    assert failure(write(tmp_path, squad(broken))).endswith(f"{QUESTION}.{key}: missing")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"data": None}, "data: expected a list, found null"),
        ({"data": [3]}, "data[0]: expected an object, found a number"),
        ({"data": [{}]}, "data[0].paragraphs: missing"),
        ({"data": [{"paragraphs": [{"qas": []}]}]}, "data[0].paragraphs[0].context: missing"),
        ({"data": [{"paragraphs": [{"context": "", "qas": []}]}]}, "data[0].paragraphs[0].context: is empty"),
        ({"data": [{"title": 1, "paragraphs": []}]}, "data[0].title: expected text, found a number"),
        ([], "the top level is a list; SQuAD v1.1 is {"),
        ({"rows": []}, 'the top level is an object without "data"; SQuAD v1.1 is {'),
        ("text", "the top level is text; SQuAD v1.1 is {"),
        (None, "the top level is null; SQuAD v1.1 is {"),
    ],
)
def test_a_wrong_structure_is_named(tmp_path: Path, value: Any, message: str) -> None:
    assert message in failure(write(tmp_path, value))


def test_ten_problems_are_listed_and_the_rest_counted(tmp_path: Path) -> None:
    message = failure(write(tmp_path, squad(*({**question(f"q{n}"), "question": None} for n in range(14)))))
    assert "14 problems" in message
    assert message.count("expected text, found null") == 10
    assert "qas[9].question" in message
    assert "qas[10]" not in message
    assert message.endswith("and 4 more")


def test_a_repeated_id_is_named_with_both_places(tmp_path: Path) -> None:
    message = failure(write(tmp_path, squad(question("a"), question("b"), question("a", ("bird", 0)))))
    assert "data[0].paragraphs[0].qas[2].id: 'a' is already the id of data[0].paragraphs[0].qas[0]" in message


def test_a_nul_character_is_an_ordinary_character(tmp_path: Path) -> None:
    corpus = read(tmp_path, squad(question("q", ("\0b", 1)), context="a\0b"))
    assert corpus.examples[0].answers == (GoldAnswer("\0b", 1),)


@pytest.mark.parametrize("name", ["squad.json.gz", "squad.json"])
def test_gzip_is_recognised_by_its_content(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(json.dumps(squad(question())).encode()))
    assert read_squad(path).counts.kept == 1


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "squad.json"
    path.write_text(json.dumps(squad(question(question="Où?")), ensure_ascii=False), encoding="utf-8-sig")
    assert read_squad(path).examples[0].question == "Où?"


WHOLE = json.dumps(squad(question()))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b'{"data":\n [nope]}', "is not JSON at line 2, column 3: Expecting value"),
        (WHOLE[:-3].encode(), "it seems cut off"),
        (WHOLE[: WHOLE.index("sat")].encode(), "it seems cut off"),
        (WHOLE.encode("utf-16"), "is not UTF-8; convert it"),
        (WHOLE.encode("utf-16-le"), "is not UTF-8; convert it"),
        (WHOLE.encode("utf-32-be"), "is not UTF-8; convert it"),
        (WHOLE.replace("cat", "cät").encode("latin-1"), "is not UTF-8; convert it"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"data": ' + b"9" * 9999 + b"}", "is not usable JSON, from line 1 on"),
        (b'{"data": [], "data": []}', "one object holds 'data' twice; keep one of the two"),
        (gzip.compress(WHOLE.encode())[:-9], "is cut off or damaged gzip"),
        (gzip.compress(WHOLE.encode())[:12] + b"\xff" * 40, "is cut off or damaged gzip"),
    ],
)
def test_an_unreadable_content_is_one_message(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "squad.json"
    path.write_bytes(content)
    assert message in failure(path)


def test_ten_thousand_levels_in_a_key_nobody_reads_do_not_crash(tmp_path: Path) -> None:
    path = tmp_path / "squad.json"
    path.write_text('{"extra": ' + "[" * 10_000 + "]" * 10_000 + "," + WHOLE[1:])
    with contextlib.suppress(DataError):  # how deep is too deep differs between versions of Python
        assert read_squad(path).counts.kept == 1


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    assert failure(tmp_path).endswith("is a folder; name a file")


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, mode: str) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    path = write(tmp_path, squad(question()))
    monkeypatch.setattr(Path, "open", refuse)
    assert failure(path).endswith("cannot be read: Permission denied")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_an_impossible_path_is_one_message(tmp_path: Path, name: str) -> None:
    assert "cannot be read: " in failure(tmp_path / name)


def test_a_missing_file_names_the_place_and_the_nearest_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, squad(question()), "train-v1.1.json")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        read_named("train-v11.json")
    assert str(caught.value) == f"{tmp_path / 'train-v11.json'}: no such file; did you mean train-v1.1.json?"
    with pytest.raises(DataError, match=r"train\.json: no such file; the folder .*elsewhere does not exist"):
        read_named("elsewhere/train.json")
    with pytest.raises(DataError, match="no such file"):
        read_named("train-v1.1.json/inside.json")


@pytest.mark.parametrize(
    "source", ["./data", "data/", "a/b/c", "/nowhere", "~nobody/x", "x.parquet", "x.arrow", "near/x"]
)
def test_what_looks_like_a_path_is_never_asked_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "near").mkdir()
    for look in (lambda: read_named(source), lambda: identity(source)):
        with pytest.raises(DataError, match=": no such file"):
            look()


@pytest.mark.parametrize("source", ["", "  ", "a\0b"])
def test_a_blank_or_impossible_source_is_an_error(source: str) -> None:
    with pytest.raises(DataError, match="names no data"):
        read_named(source)


def test_a_file_of_any_name_is_read_as_json(tmp_path: Path) -> None:
    assert read_named(str(write(tmp_path, squad(question()), "train"))).counts.kept == 1


def test_several_sources_become_one_corpus(tmp_path: Path) -> None:
    first = write(tmp_path, squad(question("a"), question("x", ("bird", 0))), "first.json")
    second = write(tmp_path, squad(question("b", ("cat", 0)), question("y", ("fish", 0))), "second.json")
    corpus = read_sources([find_source(str(path), "train") for path in (first, second)])
    assert [example.id for example in corpus.examples] == ["a", "b"]
    assert (corpus.counts.read, corpus.counts.kept, corpus.counts.realigned) == (4, 2, 1)
    assert corpus.counts.dropped == {"answer not in context": ["x", "y"]}


def test_an_id_in_two_sources_names_both(tmp_path: Path) -> None:
    names = [str(write(tmp_path, squad(question("a")), name)) for name in ("first.json", "second.json")]
    with pytest.raises(DataError) as caught:
        read_sources([find_source(name, "train") for name in names])
    assert f"the id 'a' is in both {names[0]} and {names[1]}" in str(caught.value)


def test_the_identity_is_the_content_and_not_the_path(tmp_path: Path) -> None:
    one, same = (write(tmp_path, squad(question()), name) for name in ("one.json", "same.json"))
    other = write(tmp_path, squad(question("other")), "other.json")
    assert identity(str(one)) == identity(str(same)) != identity(str(other))
    assert identity(str(one))["bytes"] == one.stat().st_size
    assert identity("rajpurkar/squad@train") == {"hub": "rajpurkar/squad@train"}


def test_the_identity_of_a_folder_changes_with_any_file_in_it(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name / "deep").mkdir(parents=True)
        write(tmp_path / name / "deep", squad(question()))
    here, there = (identity(str(tmp_path / name)) for name in ("here", "there"))
    assert here == there
    assert list(here["files"]) == ["deep/squad.json"]
    write(tmp_path / "there", squad(question()), "more.json")
    assert identity(str(tmp_path / "there")) != here
    assert identity(f"{tmp_path / 'here'}@train") != here


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["data", "paragraphs", "context", "qas", "id", "question", "answers", "text", "answer_start"]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@st.composite
def damaged_files(draw: st.DrawFn) -> Any:
    """A good file with one value at any depth replaced by any other."""
    value = copy.deepcopy(squad(question("a"), question("b", ("dog", 2))))
    node: Any = value
    while True:
        key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        if not isinstance(node[key], (dict, list)) or not node[key] or draw(st.booleans()):
            node[key] = draw(json_values)
            return value
        node = node[key]


@settings(max_examples=150, deadline=None)
@given(value=json_values | damaged_files())
def test_any_json_either_reads_or_raises_a_data_error(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = write(tmp_path_factory.getbasetemp(), value, "any.json")
    try:
        corpus = read_squad(path)
    except DataError:  # any other exception fails the test
        return
    counts = corpus.counts
    assert counts.read == counts.kept + counts.unanswerable + sum(map(len, counts.dropped.values()))
    for example in corpus.examples:
        assert example.answers
        assert all(example.context.startswith(answer.text, answer.start) for answer in example.answers)
