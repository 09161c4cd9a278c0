"""A corpus to train on or to be scored on: what is kept, aligned, counted and left out, and where sources lie."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidaf.data.corpus import Corpus, read_corpus
from bidaf.data.questions import ReadReport, read_questions
from bidaf.data.sources import Use, find_source
from bidaf.data.squad import GoldAnswer, align
from bidaf.errors import DataError

CONTEXT = "The cat sat on the mat. The dog sat too."


def question(id: Any = "q1", *answers: tuple[str, Any], **extra: Any) -> dict[str, Any]:
    given = [{"text": text, "answer_start": start} for text, start in answers or [("cat", 4)]]
    return {"id": id, "question": "Who sat?", "answers": given, **extra}


def squad(*questions: Any, context: Any = CONTEXT) -> dict[str, Any]:
    return {"data": [{"title": "Pets", "paragraphs": [{"context": context, "qas": list(questions)}]}]}


def write(folder: Path, value: Any, name: str = "squad.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def silent(report: ReadReport) -> None:
    pass


def read(folder: Path, value: Any, use: Use = "train") -> Corpus:
    return read_corpus([find_source(str(write(folder, value)), use)], on_report=silent)


def read_named(name: str) -> object:
    return read_questions(find_source(name, "train"))


def identity(name: str) -> dict[str, Any]:
    return find_source(name, "train").identity


def test_questions_come_in_file_order_and_share_their_context(tmp_path: Path) -> None:
    corpus = read(tmp_path, squad(question("b", ("cat", 4), ("The cat", 0)), question("a", ("dog", 28))))
    first, second = corpus.examples
    assert (first.id, second.id) == ("b", "a")
    assert first.answers == (GoldAnswer("cat", 4), GoldAnswer("The cat", 0))
    assert (first.question, first.context, first.title) == ("Who sat?", CONTEXT, "Pets")
    assert first.context is second.context
    assert (corpus.counts.read, corpus.counts.kept) == (2, 2)


@pytest.mark.parametrize("title", [{}, {"title": None}, {"title": ""}, {"title": 3}])
def test_a_missing_title_is_none(tmp_path: Path, title: dict[str, Any]) -> None:
    value = squad(question(plausible_answers=None))
    del value["data"][0]["title"]
    value["data"][0] |= title
    assert read(tmp_path, value).examples[0].title is None


@pytest.mark.parametrize("use", ["train", "dev"])
def test_unanswerable_questions_are_left_out_and_counted_alike(tmp_path: Path, use: Use) -> None:
    bare = {"id": "q2", "question": "Why?", "answers": []}
    impossible = question("q3", ("cat", 4), is_impossible=True)
    corpus = read(tmp_path, squad(question("q1", is_impossible=False), bare, impossible), use)
    assert [example.id for example in corpus.examples] == ["q1"]
    assert (corpus.counts.read, corpus.counts.kept, corpus.counts.unanswerable) == (3, 1, 2)


LONG = "ab " + "x" * 30 + " ab, and far behind them one more ab"  # at 0, 34 and 67


@pytest.mark.parametrize(
    ("text", "start", "context", "place"),
    [
        ("cat", 4, CONTEXT, 4),
        ("cat", 9, CONTEXT, 4),
        ("cat", -1, CONTEXT, 4),
        ("dog", 10**30, CONTEXT, 28),
        ("sat", 8, CONTEXT, 8),
        ("sat", 9, CONTEXT, 8),
        ("sat", 25, CONTEXT, 32),
        ("sat", 20, CONTEXT, 8),  # as far as the other: the first
        ("ab", 14, LONG, 0),
        ("ab", 18, LONG, 34),
        ("ab", 20, LONG, 34),
        ("aa", 3, "aaa", 1),
    ],
)
def test_an_answer_goes_to_the_nearest_place_within_20_characters_or_to_the_only_one(
    text: str, start: int, context: str, place: int
) -> None:
    assert align(GoldAnswer(text, start), context) == GoldAnswer(text, place)


@pytest.mark.parametrize(
    ("text", "start", "context", "reason"),
    [
        ("sat", -1, CONTEXT, "more than once"),
        ("sat", 1000, CONTEXT, "more than once"),
        ("aa", -1, "aaa", "more than once"),
        ("bird", 4, CONTEXT, "not in context"),
        ("", 0, CONTEXT, "is empty"),
        (" ", 3, CONTEXT, "is empty"),
    ],
)
def test_an_answer_without_such_a_place_has_none(text: str, start: int, context: str, reason: str) -> None:
    assert reason in str(align(GoldAnswer(text, start), context))


def test_questions_to_train_on_lose_answers_without_a_place(tmp_path: Path) -> None:
    lost = [question("q2", ("bird", 0)), question("q3", ("sat", -1), ("bird", 0)), question("q4", ("", 0))]
    corpus = read(tmp_path, squad(question("q1", ("mat", 19), ("bird", 1), ("cat", 5)), *lost))
    assert [example.answers for example in corpus.examples] == [(GoldAnswer("mat", 19), GoldAnswer("cat", 4))]
    counts = corpus.counts
    assert counts.dropped == {
        "answer not in context": ["q2"],
        "answer not at its offset and more than once in context": ["q3"],
        "answer is empty": ["q4"],
    }
    assert (counts.answers_dropped, counts.realigned) == (1, 1)
    assert counts.read == counts.kept + sum(map(len, counts.dropped.values())) == 4


def test_questions_to_be_scored_on_keep_every_gold_text(tmp_path: Path) -> None:
    """As the official evaluator does: it knows no contexts."""
    corpus = read(tmp_path, squad(question("q1", ("mat", 19), ("bird", 1)), question("q2", ("bird", 0))), "dev")
    assert [example.answers for example in corpus.examples] == [
        (GoldAnswer("mat", 19), GoldAnswer("bird", -1)),
        (GoldAnswer("bird", -1),),
    ]
    assert (corpus.counts.kept, corpus.counts.answers_dropped, corpus.counts.dropped) == (2, 2, {})


def test_skipped_records_are_counted_by_reason_and_the_first_is_named(tmp_path: Path) -> None:
    bad = [question("a"), question("b", answers=None), question("c", answers=[{"text": 3}]), 7]
    corpus = read(tmp_path, squad(question("a"), *bad))
    place = f"{tmp_path / 'squad.json'}: data[0].paragraphs[0].qas"
    assert corpus.counts.skipped == {
        "id is already that of another question": {"count": 1, "first": f"{place}[1]"},
        "no usable answer is given": {"count": 2, "first": f"{place}[2]"},
        "expected an object, found a number": {"count": 1, "first": f"{place}[4]"},
    }
    assert (corpus.counts.read, corpus.counts.kept) == (5, 1)


@pytest.mark.parametrize(
    ("value", "counted"),
    [
        (squad({"id": "q", "question": "Why?", "answers": []}), "of 1; unanswerable: 1"),
        (squad(question("q", ("bird", 0))), "of 1; answer not in context: 1"),
    ],
)
def test_a_file_without_a_usable_question_is_an_error(tmp_path: Path, value: Any, counted: str) -> None:
    with pytest.raises(DataError, match=rf"squad\.json: no question can be used \({counted}\)"):
        read(tmp_path, value)


def test_a_nul_character_is_an_ordinary_character(tmp_path: Path) -> None:
    corpus = read(tmp_path, squad(question("q", ("\0b", 1)), context="a\0b"))
    assert corpus.examples[0].answers == (GoldAnswer("\0b", 1),)


# Sources


def test_several_sources_become_one_corpus_and_ids_of_an_earlier_one_get_a_prefix(tmp_path: Path) -> None:
    paths = [
        write(tmp_path, squad(question("a"), question("x", ("bird", 0))), "first.json"),
        write(tmp_path, squad(question("b"), question("a"), question("3:a")), "second.json"),
        write(tmp_path, squad(question("a"), question("x")), "third.json"),
    ]
    corpus = read_corpus([find_source(str(path), "train") for path in paths], on_report=silent)
    assert [example.id for example in corpus.examples] == ["a", "b", "2:a", "3:a", "3:3:a", "3:x"]
    assert (corpus.counts.read, corpus.counts.kept) == (7, 6)
    assert corpus.counts.dropped == {"answer not in context": ["x"]}


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
    "source",
    "./data data/ a/b/c /nowhere ~nobody/x x.parquet x.arrow x.csv x.tsv x.jsonl x.json.bz2 x.xz near/x".split(),
)
def test_what_looks_like_a_path_is_never_asked_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "near").mkdir()
    for look in (read_named, identity):
        with pytest.raises(DataError, match=": no such file"):
            look(source)


@pytest.mark.parametrize("source", ["", "  ", "a\0b"])
def test_a_blank_or_impossible_source_is_an_error(source: str) -> None:
    with pytest.raises(DataError, match="names no data"):
        find_source(source, "train")


@pytest.mark.parametrize(("use", "questions"), [("train", 3600), ("dev", 504)])
def test_the_embedded_corpus_is_a_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, use: Use, questions: int
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(read_questions(find_source("embedded:mini", use))) == questions
    with pytest.raises(DataError, match=r"no embedded corpus 'maxi'.*embedded:mini"):
        find_source("embedded:maxi", use)


def test_a_file_of_any_name_is_read_by_its_content(tmp_path: Path) -> None:
    assert read_named(str(write(tmp_path, squad(question()), "train")))


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
def changed_files(draw: st.DrawFn) -> Any:
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
@given(value=json_values | changed_files(), use=st.sampled_from(["train", "dev"]))
def test_any_json_either_reads_or_raises_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, value: Any, use: Use
) -> None:
    try:
        corpus = read(tmp_path_factory.getbasetemp(), value, use)
    except DataError:  # any other exception fails the test
        return
    counts = corpus.counts
    left_out = sum(entry["count"] for entry in counts.skipped.values()) + sum(map(len, counts.dropped.values()))
    assert counts.read == counts.kept + counts.unanswerable + left_out
    assert len({example.id for example in corpus.examples}) == counts.kept == len(corpus.examples)
