"""Tokens are character offsets into the untouched text."""

from __future__ import annotations

import sys
import time

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st

from bidaf.data import tokenizer
from bidaf.data.questions import read_questions
from bidaf.data.squad import Example
from bidaf.data.tokenizer import SEPARATORS, Tokenizer
from bidaf.data.tokens import tokenize_examples
from bidaf.errors import BidafError, UsageError

BLANK = "\u200b\u2060\ufeff"
SPLIT, WHOLE = Tokenizer(), Tokenizer(second_split=False)


def words(text: str, tokenizer: Tokenizer = SPLIT) -> list[str]:
    return [text[start:end] for start, end in tokenizer.tokenize(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1990-1991", ["1990", "-", "1991"]),
        ("and/or", ["and", "/", "or"]),
        ("a~b", ["a", "~", "b"]),
        ("20°C", ["20", "°", "C"]),
        ("O'Brien's", ["O", "'", "Brien", "'s"]),
        ("“Oh”–yes", ["“", "Oh", "”", "–", "yes"]),
        ("they don't, we'll", ["they", "do", "n't", ",", "we", "'ll"]),
        ("it’s", ["it", "’s"]),
        ("--", ["-", "-"]),
        ("$5 (10%).", ["$", "5", "(", "10", "%", ")", "."]),
    ],
)
def test_the_second_split_parts_separators_but_not_contractions(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_every_separator_of_the_released_code_becomes_a_token() -> None:
    assert len(SEPARATORS) == 13
    for separator in SEPARATORS:
        assert words(f"abc{separator}xyz") == ["abc", separator, "xyz"]


def test_without_the_second_split_tokens_are_those_of_spacy() -> None:
    assert words("the 1970s-80s O'Brien", WHOLE) == ["the", "1970s-80s", "O'Brien"]


def test_questions_can_be_left_out_of_the_second_split() -> None:
    tokenizer = Tokenizer(second_split=True, split_questions=False)
    assert len(tokenizer.tokenize("1970s-80s")) == 3
    assert len(tokenizer.tokenize_question("1970s-80s")) == 1
    assert len(SPLIT.tokenize_question("1970s-80s")) == 3
    assert len(Tokenizer(False, split_questions=True).tokenize_question("1970s-80s")) == 1


@pytest.mark.parametrize(
    "gap", [" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u200b", "\ufeff", " \u2060 ", "\x1f"]
)
def test_white_space_of_any_kind_parts_words_and_is_no_token(gap: str) -> None:
    assert words(f"{gap}red{gap}car{gap}") == ["red", "car"]


@pytest.mark.parametrize("text", ["", " ", "\n\t", BLANK])
def test_blank_text_has_no_tokens(text: str) -> None:
    assert words(text) == []


def test_odd_characters_keep_their_offsets() -> None:
    assert words("a \ud800 b \U0001f600 \x00 e\u0301") == ["a", "\ud800", "b", "\U0001f600", "\x00", "e\u0301"]


@settings(max_examples=150, deadline=None)
@given(
    st.text(st.sampled_from("ab'’n-–/\"“ \u00a0\u200b\n.,(:@é°\ud800") | st.characters(), max_size=40), st.booleans()
)
def test_every_visible_character_is_in_exactly_one_token(text: str, split: bool) -> None:
    offsets = (SPLIT if split else WHOLE).tokenize(text)
    covered = [index for start, end in offsets for index in range(start, end)]
    assert covered == [index for index, char in enumerate(text) if not (char.isspace() or char in BLANK)]
    assert all(start < end for start, end in offsets)


@given(st.text(st.sampled_from("ab-. (\u00a0"), min_size=90, max_size=300))
@settings(max_examples=50, deadline=None)
def test_long_words_are_covered_too(text: str) -> None:
    covered = [index for start, end in SPLIT.tokenize(text) for index in range(start, end)]
    assert covered == [index for index, char in enumerate(text) if not char.isspace()]


@pytest.mark.parametrize("word", ["x", "(", "'", "a.", "-", "1,"])
def test_a_word_of_a_hundred_thousand_characters_is_no_trouble(word: str) -> None:
    text = f"before {word * 50_000} after"
    started = time.perf_counter()
    offsets = SPLIT.tokenize(text)
    assert time.perf_counter() - started < 5
    assert text[slice(*offsets[0])] == "before"
    assert text[slice(*offsets[-1])] == "after"


def test_words_cut_one_by_one_are_the_tokens_spacy_finds_in_the_whole_text() -> None:
    examples = read_questions("embedded:mini")
    whole = spacy.blank("en").tokenizer
    for text in {text for example in examples for text in (example.context, example.question)}:
        assert words(text, WHOLE) == [token.text for token in whole(text)]


TEXT = st.text(st.sampled_from("ab'-.\u00e9 \u00a0\u200b\ud800"), max_size=12)


@pytest.mark.parametrize("split_questions", [True, False])
@given(asked=st.lists(st.tuples(TEXT, TEXT), max_size=6))
@settings(max_examples=50, deadline=None)
def test_a_corpus_has_the_tokens_of_its_texts(split_questions: bool, asked: list[tuple[str, str]]) -> None:
    tokenizer = Tokenizer(split_questions=split_questions)
    tokens = tokenize_examples([Example("q", question, context, ()) for context, question in asked], tokenizer)
    assert tokens.contexts == list(dict.fromkeys(context for context, _ in asked))
    for number, context in enumerate(tokens.contexts):
        place = slice(*tokens.context_offsets[number : number + 2])
        expected = tokenizer.tokenize(context) or [(0, len(context))]
        assert list(map(tuple, tokens.context_spans[place].tolist())) == expected
        words = [tokens.types[number - 1] for number in tokens.context_types[place]]
        assert words == [context[start:end] for start, end in expected]
    for number, (context, question) in enumerate(asked):
        assert tokens.contexts[tokens.question_context[number]] == context
        place = slice(*tokens.question_offsets[number : number + 2])
        words = [tokens.types[number - 1] for number in tokens.question_types[place]]
        expected = tokenizer.tokenize_question(question) or [(0, len(question))]
        assert words == [question[start:end] for start, end in expected]


def test_a_shared_context_is_tokenized_once_and_counted_for_each_question() -> None:
    examples = [
        Example("1", "Who ran?", "Ann ran.", ()),
        Example("2", "Ann?", "Ann ran.", ()),
        Example("3", "Why?", "Bob.", ()),
    ]
    tokens = tokenize_examples(examples, SPLIT)
    assert tokens.contexts == ["Ann ran.", "Bob."]
    assert tokens.question_context.tolist() == [0, 0, 1]
    assert tokens.types == ["Ann", "ran", ".", "Who", "?", "Bob", "Why"]
    assert tokens.context_types.tolist() == [1, 2, 3, 6, 3]
    assert tokens.context_spans.tolist() == [[0, 3], [4, 7], [7, 8], [0, 3], [3, 4]]
    assert tokens.counts().tolist() == [0, 3, 3, 3, 1, 3, 1, 1]


def test_a_text_without_tokens_is_one_token_as_a_whole() -> None:
    tokens = tokenize_examples([Example("1", BLANK, "\u200b \u200b", ())], SPLIT)
    assert tokens.context_spans.tolist() == [[0, 3]]
    assert tokens.context_offsets.tolist() == [0, 1]
    assert tokens.question_offsets.tolist() == [0, 1]


def test_the_cache_is_bounded_and_changes_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "MAX_CACHED_WORDS", 10)
    texts = [" ".join(f"it's-{number}x" for number in range(start, start + 7)) for start in range(0, 60, 3)]
    small, spacy_before = Tokenizer(), tokenizer._rules("en")
    for text in texts:
        assert small.tokenize(text) == SPLIT.tokenize(text)
        assert len(small._cuts) <= 10
    assert tokenizer._rules("en") is not spacy_before  # its own memory of words is bounded with ours
    small.tokenize("y" * 200)
    assert "y" * 200 not in small._cuts


def test_a_missing_spacy_is_one_clear_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(BidafError, match="needs spaCy"):
        tokenizer._rules.__wrapped__("en")


CHINESE = "\u5f20\u4e09\u4f4f\u5728\u5317\u4eac\u3002" * 20  # no blank anywhere


def test_each_language_has_its_own_words() -> None:
    chinese = Tokenizer(language="zh")
    assert words(CHINESE, chinese) == list(CHINESE)
    assert len(words(CHINESE, SPLIT)) < len(CHINESE) / 2
    assert words("l'eau", Tokenizer(language="fr", second_split=False)) == ["l'", "eau"]


@pytest.mark.parametrize(("language", "reason"), [("qq", "qq"), ("ja", "sudachipy")])
def test_a_language_that_spacy_lacks_is_one_clear_message(language: str, reason: str) -> None:
    with pytest.raises(UsageError, match=rf"data\.language: {language}: .*{reason}"):
        Tokenizer(language=language).tokenize("a")
