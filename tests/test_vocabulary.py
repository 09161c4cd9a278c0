"""Rows are chosen as the released code chooses them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from bidaf.data.vocabulary import PAD, UNK, Vocabulary, build_vocabulary, load_vectors_matrix
from bidaf.errors import DataError


def build(counts: dict[str, int], fixed: list[str], *, words: int = 10, chars: int = 50, width: int = 4) -> Vocabulary:
    return build_vocabulary(
        list(counts), list(counts.values()), fixed, min_word_count=words, min_char_count=chars, max_word_chars=width
    )


def test_only_frequent_words_outside_the_vectors_get_a_trained_row() -> None:
    counts = {"the": 99, "zyx": 11, "zyw": 10, "Zyv": 6, "zyv": 5}
    vocabulary = build(counts, ["the", "unseen"])
    assert vocabulary.trained_words == ["<pad>", "<unk>", "zyv", "zyx"]
    assert vocabulary.word_row("the") == 4
    assert vocabulary.word_row("unseen") == 5
    assert vocabulary.word_row("zyw") == UNK
    assert vocabulary.word_row("ZYV") == 2


@pytest.mark.parametrize(
    ("form", "fixed", "hit"),
    [
        ("Us", ["us", "Us", "US"], "Us"),
        ("Us", ["US", "us"], "us"),
        ("us", ["US", "Us"], "Us"),
        ("us", ["US"], "US"),
        ("McDonald", ["Mcdonald", "mcdonald"], "mcdonald"),
    ],
)
def test_a_word_is_looked_up_as_given_then_lower_then_capitalised_then_upper(
    form: str, fixed: list[str], hit: str
) -> None:
    vocabulary = build({form: 99}, fixed)
    assert vocabulary.trained_words == ["<pad>", "<unk>"]
    assert vocabulary.word_row(form) == 2 + fixed.index(hit)


def test_characters_are_counted_with_their_case_over_whole_words() -> None:
    vocabulary = build({"aAbbbbb": 26, "a": 26, "A": 24}, [])
    assert vocabulary.chars == ["<pad>", "<unk>", "b", "a"]
    assert vocabulary.char_ids("aAb").tolist() == [3, UNK, 2, PAD]
    assert vocabulary.char_ids("bbbbbbb").tolist() == [2, 2, 2, 2]
    assert vocabulary.char_ids("").tolist() == [PAD] * 4


def test_equal_counts_are_ordered_by_the_word() -> None:
    one = build({"d": 20, "c": 20, "e": 30}, [])
    other = build({"e": 30, "c": 20, "d": 20}, [])
    assert one == other
    assert one.trained_words[2:] == ["e", "c", "d"]


@pytest.mark.parametrize("form", ["<pad>", "<unk>", "<PAD>"])
def test_a_text_that_spells_a_special_row_does_not_get_it(form: str) -> None:
    vocabulary = build({"a": 1}, [], words=0, chars=0)
    assert vocabulary.word_row(form) == UNK
    assert PAD not in vocabulary.char_ids(form)


@given(st.lists(st.text(st.characters(), max_size=5), unique=True, max_size=8), st.data())
def test_any_string_survives_saving(
    tmp_path_factory: pytest.TempPathFactory, fixed: list[str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("vocabulary")
    counts = data.draw(st.dictionaries(st.text(st.characters(), max_size=5), st.integers(0, 99), max_size=8))
    vocabulary = build(counts, fixed, words=2, chars=2)
    vectors = np.arange(len(fixed) * 2, dtype=np.float32).reshape(-1, 2)
    vocabulary.save(folder, vectors)
    assert Vocabulary.load(folder) == vocabulary
    assert np.array_equal(load_vectors_matrix(folder), vectors)


def test_no_vectors_is_an_empty_matrix(tmp_path: Path) -> None:
    build({}, []).save(tmp_path, np.zeros((0, 0), dtype=np.float32))
    assert load_vectors_matrix(tmp_path).shape == (0, 0)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"words": []}', "\u00e9"])
def test_a_damaged_vocabulary_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "vocabulary.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"vocabulary\.json can't be read"):
        Vocabulary.load(tmp_path)


@pytest.mark.parametrize("name", ["vectors.safetensors", "vectors.npy"])
def test_missing_or_corrupted_vectors_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"vectors\.safetensors can't be read"):
        load_vectors_matrix(tmp_path)
    wrong = [b"", b"not numpy", save({"vectors": np.zeros((2, 2))}), save({"other": np.zeros((2, 2), np.float32)})]
    for content in wrong:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name} can't be read"):
            load_vectors_matrix(tmp_path)


def test_vectors_of_older_exports_are_read(tmp_path: Path) -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.save(tmp_path / "vectors.npy", vectors)
    assert np.array_equal(load_vectors_matrix(tmp_path), vectors)
