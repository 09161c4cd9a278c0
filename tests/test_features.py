"""Flat arrays, gold spans, limits, and the prepared folder that keeps them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bidaf.config import DataConfig
from bidaf.data.features import Features, Limits, build_features
from bidaf.data.prepare import find_prepared, prepare
from bidaf.data.squad import Example, GoldAnswer
from bidaf.data.tokenizer import Tokenizer
from bidaf.data.vocabulary import UNK, Vocabulary
from bidaf.errors import BidafError, DataError

TOKENIZER = Tokenizer()
VOCABULARY = Vocabulary(["<pad>", "<unk>", "zyx"], ["the", "cat", "."], ["<pad>", "<unk>", "c", "a", "t"], 4)


def ask(context: str, *answers: tuple[str, int], question: str = "What?", name: str = "q") -> Example:
    return Example(name, question, context, tuple(GoldAnswer(text, start) for text, start in answers))


def build(*examples: Example, limits: Limits | None = None) -> Features:
    return build_features(examples, TOKENIZER, VOCABULARY, limits)[0]


def test_forms_are_numbered_by_first_occurrence_and_tables_hold_no_others() -> None:
    features = build(ask("The cat.", question="zyx cat"))
    assert features.context_forms.tolist() == [1, 2, 3]
    assert features.question_forms.tolist() == [4, 2]
    assert features.word_rows.tolist() == [0, 3, 4, 5, 2]
    assert features.chars.tolist() == [[0] * 4, [1, 1, 1, 0], [2, 3, 4, 0], [1, 0, 0, 0], [1, 1, 1, 0]]
    assert features.context_spans.tolist() == [[0, 3], [4, 7], [7, 8]]


def test_the_arrays_have_the_promised_types() -> None:
    features = build(ask("The cat.", ("cat", 4)))
    offsets = {"context_offsets", "question_offsets", "answer_offsets"}
    for entry in fields(features):
        value = getattr(features, entry.name)
        if isinstance(value, np.ndarray):
            expected = np.int64 if entry.name in offsets else np.int16 if entry.name == "chars" else np.int32
            assert value.dtype == expected, entry.name


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
    assert len(features.word_rows) == 1 + len(set(features.context_forms) | set(features.question_forms))


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
    assert features.word_rows[features.context_forms].tolist() == [UNK]
    assert features.question_offsets.tolist() == [0, 1]


def test_no_questions_at_all_is_a_split_of_length_zero() -> None:
    features = build()
    assert len(features) == 0
    assert features.chars.shape == (1, 4)
    assert features.answer_spans.shape == (0, 2)


def test_features_survive_saving_and_damage_is_named(tmp_path: Path) -> None:
    features = build(ask("The \ud800 cat.", ("cat", 6)), ask("zyx", name="é\x00"))
    features.save(tmp_path)
    again = Features.load(tmp_path)
    for entry in fields(features):
        assert np.array_equal(getattr(again, entry.name), getattr(features, entry.name)) or getattr(
            again, entry.name
        ) == getattr(features, entry.name)
    for damage in (b"", b"{"):
        for path in sorted(tmp_path.iterdir()):
            whole = path.read_bytes()
            path.write_bytes(damage)
            with pytest.raises(DataError, match="can't be read"):
                _ = Features.load(tmp_path).ids
            path.write_bytes(whole)
    assert len(Features.load(tmp_path)) == 2


def test_texts_are_read_only_when_asked_for(tmp_path: Path) -> None:
    build(ask("The cat.", ("cat", 4))).save(tmp_path)
    features = Features.load(tmp_path)
    texts = (tmp_path / "texts.json").rename(tmp_path / "away.json")
    assert len(features) == 1
    assert features.context_forms.tolist() == [1, 2, 3]
    with pytest.raises(DataError, match=r"can't be read: .*texts\.json"):
        _ = features.contexts
    texts.rename(tmp_path / "texts.json")
    assert features.contexts == ["The cat."]
    with pytest.raises(AttributeError, match="no titles"):
        _ = features.titles


def test_damaged_texts_of_the_dev_set_are_met_before_training(tmp_path: Path) -> None:
    made = prepare(settings(tmp_path))
    texts = made.folder / "dev" / "texts.json"
    texts.write_text("{" + " " * (texts.stat().st_size - 1))
    found = find_prepared(settings(tmp_path))
    assert found is not None
    assert len(found.features("train")) == 2
    with pytest.raises(DataError, match="can't be read"):
        found.features("dev")


def write_squad(path: Path, word: str, *, context: str = "") -> str:
    context = context or f"The {word} cat sat on 1970s-80s mats in McAllen's house, don't you know?"
    answer = {"text": word, "answer_start": context.index(word)}
    questions = [
        {"id": f"{word}-1", "question": "What sat on 1970s-80s mats?", "answers": [answer]},
        {"id": f"{word}-2", "question": "Who?", "answers": [answer]},
    ]
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": [{"context": context, "qas": questions}]}]}))
    return str(path)


def settings(folder: Path, **options: Any) -> DataConfig:
    folder.mkdir(exist_ok=True)
    vectors = folder / "v.txt"
    vectors.write_text("the 1 2\ncat 3 4\nsat 5 6\n")
    values = {
        "train": write_squad(folder / "train.json", "black"),
        "dev": write_squad(folder / "dev.json", "white"),
        "vectors": str(vectors),
        "prepared_dir": str(folder / "prepared"),
        "min_word_count": 1,
        "min_char_count": 1,
    }
    return DataConfig.model_validate(values | options)


def test_preparing_writes_everything_once_and_then_finds_it(tmp_path: Path) -> None:
    config = settings(tmp_path)
    assert find_prepared(config) is None
    messages: list[str] = []
    made = prepare(config, echo=messages.append)
    assert messages == ["train: 2 questions, dev: 2 questions"]
    before = made.folder.stat().st_mtime_ns
    for again in (prepare(config, echo=messages.append), find_prepared(config)):
        assert again is not None
        assert (again.folder, again.manifest) == (made.folder, made.manifest)
    assert len(messages) == 1
    assert made.folder.stat().st_mtime_ns == before
    assert [path.name for path in (tmp_path / "prepared").iterdir()] == [made.folder.name]
    assert made.vocabulary().fixed_words == ["the", "cat", "sat"]
    assert made.vectors().tolist() == [[1, 2], [3, 4], [5, 6]]
    assert made.features("train").ids == ["black-1", "black-2"]
    assert made.features("dev").ids == ["white-1", "white-2"]
    assert made.counts["train"]["read"] == made.counts["train"]["kept"] == 2
    assert made.counts["train"]["exact_spans"] == 1.0
    forms = made.counts["dev"]
    assert forms["fixed_forms"] + forms["trained_forms"] + forms["unknown_forms"] == forms["forms"]
    assert made.counts["vocabulary"]["fixed_words"] == 3


def test_two_builds_are_equal_to_the_byte(tmp_path: Path) -> None:
    one, other = (prepare(settings(tmp_path, prepared_dir=str(tmp_path / name))).folder for name in ("a", "b"))
    files = [path.relative_to(one) for path in sorted(one.rglob("*")) if path.is_file()]
    assert len(files) == 25
    assert files == [path.relative_to(other) for path in sorted(other.rglob("*")) if path.is_file()]
    for name in files:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


CHANGES: dict[str, Any] = {
    "train": "other.json",
    "dev": "other.json",
    "vectors": None,
    "second_split": False,
    "split_questions": False,
    "max_context_tokens": 5,
    "max_question_tokens": 4,
    "min_word_count": 2,
    "min_char_count": 2,
    "max_word_chars": 7,
}


def test_every_option_but_the_folder_has_a_change_to_test() -> None:
    assert set(CHANGES) == set(DataConfig.model_fields) - {"prepared_dir"}


@pytest.mark.parametrize("option", CHANGES)
def test_a_changed_option_meets_no_stale_cache_and_changes_the_bytes(tmp_path: Path, option: str) -> None:
    config = settings(tmp_path)
    made = prepare(config)
    value = CHANGES[option]
    if value == "other.json":
        value = (write_squad(tmp_path / value, "brown"),)
    changed = config.model_copy(update={option: value})
    assert find_prepared(changed) is None
    other = prepare(changed)
    assert other.folder != made.folder
    assert other.manifest["files"] != made.manifest["files"] or any(
        (other.folder / name).read_bytes() != (made.folder / name).read_bytes() for name in made.manifest["files"]
    )
    found = find_prepared(config)
    assert found is not None
    assert found.folder == made.folder


@pytest.mark.parametrize("name", ["train.json", "dev.json", "v.txt"])
def test_changed_content_under_the_same_name_meets_no_stale_cache(tmp_path: Path, name: str) -> None:
    config = settings(tmp_path)
    prepare(config)
    text = (tmp_path / name).read_text()
    (tmp_path / name).write_text(text.replace("sat", "sut"))
    assert find_prepared(config) is None


def test_moved_sources_still_find_what_was_prepared(tmp_path: Path) -> None:
    made = prepare(settings(tmp_path))
    moved = settings(tmp_path / "moved", prepared_dir=str(tmp_path / "prepared"))
    found = find_prepared(moved)
    assert found is not None
    assert found.folder == made.folder


@pytest.mark.parametrize("gone", ["train.json", "dev.json", "v.txt", "spacy"])
def test_what_this_machine_lacks_is_no_obstacle_to_prepared_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    config = settings(tmp_path)
    made = prepare(config)
    (made.folder.parent / "other-folder").mkdir()
    if gone == "spacy":
        hide_spacy(monkeypatch)
    else:
        (tmp_path / gone).unlink()
    found = find_prepared(config)
    assert found is not None
    assert found.folder == made.folder
    assert find_prepared(config.model_copy(update={"max_word_chars": 9})) is None
    elsewhere = {"train": (str(tmp_path / "elsewhere.json"),), "dev": (str(tmp_path / "elsewhere.json"),)}
    assert find_prepared(config.model_copy(update=elsewhere)) is None


def hide_spacy(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("bidaf.data.prepare.version", version)


def test_another_spacy_prepares_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(tmp_path)
    prepare(config)
    monkeypatch.setattr("bidaf.data.prepare.version", lambda name: "0.0.1")
    assert find_prepared(config) is None


def lose_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def cut_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"files": ')


def lose_array(folder: Path) -> None:
    (folder / "train" / "chars.npy").unlink()


def cut_array(folder: Path) -> None:
    (folder / "vectors.npy").write_bytes((folder / "vectors.npy").read_bytes()[:-1])


@pytest.mark.parametrize("damage", [lose_manifest, cut_manifest, lose_array, cut_array])
def test_a_damaged_folder_is_built_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    config = settings(tmp_path)
    made = prepare(config)
    damage(made.folder)
    assert find_prepared(config) is None
    again = prepare(config)
    assert again.manifest == made.manifest
    assert again.features("train").ids == ["black-1", "black-2"]
    assert find_prepared(config) is not None


def test_a_build_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Features, "save", full)
    with pytest.raises(BidafError, match=r"can't be written to .*: No space left on device"):
        prepare(settings(tmp_path))
    assert list((tmp_path / "prepared").iterdir()) == []


def test_a_split_without_a_usable_question_is_refused_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`data\.train` holds no question .*: 2 were read, 2 question longer than 1"):
        prepare(settings(tmp_path, max_question_tokens=1))
    assert list((tmp_path / "prepared").iterdir()) == []


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    for option, name in (("train", "no.json"), ("dev", "no.json"), ("vectors", "no.txt")):
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            prepare(settings(tmp_path, **{option: str(tmp_path / name)}))


def test_finding_and_loading_import_neither_spacy_nor_datasets_nor_torch(tmp_path: Path) -> None:
    config = settings(tmp_path)
    prepare(config)
    code = (
        "import sys, bidaf.config, bidaf.data.prepare as p\n"
        "found = p.find_prepared(bidaf.config.DataConfig.model_validate_json(sys.argv[1]))\n"
        "assert len(found.features('train')) == 2 and found.vocabulary() and found.vectors() is not None\n"
        "print(*sorted({'spacy', 'datasets', 'torch'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, config.model_dump_json()]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
