"""Flat arrays, gold spans and limits, and the files that keep a split."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from bidaf.data.features import ARRAYS, ARRAYS_FILE, Features
from bidaf.data.indexing import Limits, build_features
from bidaf.data.squad import Example, GoldAnswer
from bidaf.data.tokenizer import Tokenizer
from bidaf.data.vocabulary import UNK, Vocabulary
from bidaf.errors import DataError

TOKENIZER = Tokenizer()
VOCABULARY = Vocabulary(["<pad>", "<unk>", "zyx"], ["the", "cat", "."], ["<pad>", "<unk>", "c", "a", "t"], 4)


def ask(context: str, *answers: tuple[str, int], question: str = "What?", name: str = "q") -> Example:
    return Example(name, question, context, tuple(GoldAnswer(text, start) for text, start in answers))


def build(*examples: Example, limits: Limits | None = None) -> Features:
    return build_features(examples, TOKENIZER, VOCABULARY, limits)[0]


def test_forms_are_numbered_by_first_occurrence_and_tables_hold_no_others() -> None:
    features = build(ask("The cat.", question="zyx cat"))
    assert features.context_types.tolist() == [1, 2, 3]
    assert features.question_types.tolist() == [4, 2]
    assert features.word_rows.tolist() == [0, 3, 4, 5, 2]
    assert features.chars.tolist() == [[0] * 4, [1, 1, 1, 0], [2, 3, 4, 0], [1, 0, 0, 0], [1, 1, 1, 0]]
    assert features.context_spans.tolist() == [[0, 3], [4, 7], [7, 8]]


def test_the_arrays_have_the_promised_types() -> None:
    features = build(ask("The cat.", ("cat", 4)))
    offsets = {"context_offsets", "question_offsets", "answer_offsets"}
    for name in ARRAYS:
        expected = np.int64 if name in offsets else np.int16 if name == "chars" else np.int32
        assert getattr(features, name).dtype == expected, name


@pytest.mark.parametrize(
    ("context", "answer", "start", "span"),
    [
        ("The black cat sat.", "black cat", 4, [1, 2]),
        ("The black cat sat.", "ack ca", 6, [1, 2]),
        ("The black cat sat.", " black ", 3, [1, 1]),
        ("The black cat sat.", ".", 17, [4, 4]),
        ("The black cat sat.", "The", 0, [0, 0]),
        ("in 1990-1991", "1991", 8, [3, 3]),
        ("a  b", "b", 3, [1, 1]),
    ],
)
def test_a_gold_span_is_every_token_that_overlaps_the_answer(
    context: str, answer: str, start: int, span: list[int]
) -> None:
    assert build(ask(context, (answer, start))).answer_spans.tolist() == [span]


@pytest.mark.parametrize("answer", [(" ", 1), ("", 3), ("a", -1)])
def test_an_answer_without_tokens_is_counted_and_drops_only_a_training_question(answer: tuple[str, int]) -> None:
    example = ask("a cat", answer)
    features, counts = build_features([example], TOKENIZER, VOCABULARY)
    assert len(features) == 1
    assert features.answer_offsets.tolist() == [0, 0]
    assert features.answers == [[answer[0]]]
    assert counts.uncovered_answers == 1
    features, counts = build_features([example], TOKENIZER, VOCABULARY, Limits())
    assert len(features) == 0
    assert counts.dropped == {"answer without tokens": ["q"]}


def test_training_limits_cut_contexts_and_drop_questions() -> None:
    context = "zero one two three four five"
    examples = [
        ask(context, ("two", 9), name="inside"),
        ask(context, ("two three", 9), name="over the edge"),
        ask(context, ("four", 19), ("one", 5), name="another is inside"),
        ask(context, ("one", 5), question="a b c d e", name="long"),
        ask("only here four", ("four", 10), question="a b c d e", name="alone"),
        ask("short one", ("one", 6), question="a b c d", name="short"),
    ]
    limits = Limits(max_context_tokens=3, max_question_tokens=4)
    features, counts = build_features(examples, TOKENIZER, VOCABULARY, limits)
    assert features.ids == ["inside", "another is inside", "short"]
    assert features.answer_spans.tolist() == [[2, 2], [1, 1], [1, 1]]
    assert features.answers[1] == ["four", "one"]
    assert features.contexts == [context, "short one"]
    assert features.context_offsets.tolist() == [0, 3, 5]
    assert features.question_context.tolist() == [0, 0, 1]
    assert features.question_offsets.tolist() == [0, 2, 4, 8]
    assert counts.dropped == {
        "answer beyond 3 tokens": ["over the edge"],
        "question longer than 4 tokens": ["long", "alone"],
    }
    assert (counts.read, counts.kept, counts.contexts, counts.truncated_contexts) == (6, 3, 2, 1)
    assert (counts.beyond_answers, counts.spans) == (2, 3)
    assert len(features.word_rows) == 1 + len(set(features.context_types) | set(features.question_types))


def test_without_limits_nothing_is_cut_or_dropped() -> None:
    context = "word " * 500
    features, counts = build_features([ask(context, ("word", 2495), question="why " * 40)], TOKENIZER, VOCABULARY)
    assert features.context_offsets.tolist() == [0, 500]
    assert features.question_offsets.tolist() == [0, 40]
    assert features.answer_spans.tolist() == [[499, 499]]
    assert counts.dropped == {}
    assert counts.truncated_contexts == 0


def test_exact_spans_is_the_share_that_gives_back_the_answer() -> None:
    context = "The cats sat."
    counts = build_features([ask(context, ("cat", 4), ("cats", 4), ("sat", 9), ("sat.", 9))], TOKENIZER, VOCABULARY)[1]
    assert counts.exact_spans == 0.75


@pytest.mark.parametrize("text", ["\u200b", " \u2060 "])
def test_texts_without_tokens_become_one_unknown_token(text: str) -> None:
    features = build(ask(text, ("x", 0), question=text))
    assert features.context_spans.tolist() == [[0, len(text)]]
    assert features.word_rows[features.context_types].tolist() == [UNK]
    assert features.question_offsets.tolist() == [0, 1]


def test_no_questions_at_all_is_a_split_of_length_zero() -> None:
    features = build()
    assert len(features) == 0
    assert features.chars.shape == (1, 4)
    assert features.answer_spans.shape == (0, 2)


def test_features_survive_saving_and_corruption_is_named(tmp_path: Path) -> None:
    features = build(ask("The \ud800 cat.", ("cat", 6)), ask("zyx", name="é\x00"))
    features.save(tmp_path)
    again = Features.load(tmp_path)
    for name in ARRAYS:
        assert np.array_equal(getattr(again, name), getattr(features, name)), name
    assert again.texts == features.texts
    for corrupted in (b"", b"{"):
        for path in sorted(tmp_path.iterdir()):
            whole = path.read_bytes()
            path.write_bytes(corrupted)
            with pytest.raises(DataError, match="can't be read"):
                _ = Features.load(tmp_path).ids
            path.write_bytes(whole)
    assert len(Features.load(tmp_path)) == 2


def test_texts_are_read_only_when_asked_for(tmp_path: Path) -> None:
    build(ask("The cat.", ("cat", 4))).save(tmp_path)
    features = Features.load(tmp_path)
    texts = (tmp_path / "texts.json").rename(tmp_path / "away.json")
    assert len(features) == 1
    assert features.context_types.tolist() == [1, 2, 3]
    with pytest.raises(DataError, match=r"can't be read: .*texts\.json"):
        _ = features.contexts
    texts.rename(tmp_path / "texts.json")
    assert features.contexts == ["The cat."]


def test_each_question_carries_the_title_of_its_article(tmp_path: Path) -> None:
    examples = [replace(ask("The cat."), title="Pets"), ask("The cat.")]
    build(*examples).save(tmp_path)
    assert Features.load(tmp_path).titles == ["Pets", None]


@pytest.mark.parametrize(
    "change",
    [
        {"titles": ["a"]},
        {"titles": [1, None]},
        {"ids": None},
        {"answers": [["cat"], "cat"]},
        {"answers": [["cat"], [1]]},
        {"contexts": {}},
    ],
)
def test_texts_of_another_kind_or_number_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    build(ask("The cat.", ("cat", 4)), ask("zyx")).save(tmp_path)
    texts = json.loads((tmp_path / "texts.json").read_text()) | change
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    with pytest.raises(DataError, match=next(iter(change))):
        _ = Features.load(tmp_path).texts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": np.zeros(1, np.int32)}, "holds .*extra"),
        ({"word_rows": np.zeros(3, np.int64)}, "word_rows must be int32"),
        ({"chars": np.zeros(4, np.int16)}, "chars must be int16 of 2 dimensions"),
        ({"answer_spans": np.zeros((1, 3), np.int32)}, "answer_spans holds no pairs"),
        ({"context_offsets": np.zeros(0, np.int64)}, "context_offsets"),
    ],
)
def test_arrays_of_another_kind_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    build(ask("The cat.", ("cat", 4))).save(tmp_path)
    (tmp_path / ARRAYS_FILE).write_bytes(save(load_file(tmp_path / ARRAYS_FILE) | change))
    with pytest.raises(DataError, match=message):
        Features.load(tmp_path)
