"""Words as character offsets: spaCy's rules of a language, then the second split of Seo et al.'s released code.

Contexts and questions go through the same steps, at training and at prediction. What blanks part is tokenized by
itself: spaCy's rules stop at blanks, so a word is cut once, wherever and however often it stands. spaCy is imported
when the first word is cut; everything downstream of `Tokens` works without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from itertools import accumulate, pairwise
from typing import Any

from bidaf.errors import BidafError, UsageError

Offsets = tuple[int, int]
Cuts = tuple[int, ...]

# squad/utils.py of the released code: each of these is a separate token.
SEPARATORS = "-\u2212\u2014\u2013/~\"'\u201c\u2019\u201d\u2018\u00b0"

# The released list would also cut "'s" and "n't", which GloVe knows whole: spaCy's contractions stay as they are.
_CONTRACTION = re.compile(r"(?:n['\u2019]t|['\u2019](?:s|m|d|re|ve|ll|em))\Z", re.IGNORECASE)
_SECOND_SPLIT = re.compile(f"[{re.escape(SEPARATORS)}]|[^{re.escape(SEPARATORS)}]+")

# spaCy strips affixes one by one, quadratic in the length of a word: longer ones get plain rules instead.
_LONG_WORD = 101
# Cached words, so that a process that answers for weeks does not grow (SQuAD has about 200,000 words, but frequent ones
# come back soon). They, and what spaCy keeps of them, take up to about 70 MB.
MAX_CACHED_WORDS = 1 << 17
_PLAIN_RULES = re.compile(r"\w+|\W")

# Zero-width space, word joiner and byte order mark separate words like a blank. Every replacement is one character for
# one: offsets stay those of the original.
_BLANKS = {code: " " for code in range(0x3001) if chr(code).isspace()}  # no white space beyond U+3000
_BLANKS |= {0x200B: " ", 0x2060: " ", 0xFEFF: " "}
# Lone surrogates can't reach spaCy, which encodes its input.
_SURROGATE = re.compile("[\ud800-\udfff]")


@cache
def _rules(language: str) -> Any:
    """The tokenizer of spaCy's blank pipeline, which is part of spaCy: nothing is downloaded."""
    try:
        import spacy
    except ImportError:
        raise BidafError("Tokenizing text needs spaCy: `pip install spacy`.") from None
    try:
        return spacy.blank(language).tokenizer
    except ImportError as error:  # no such language, or one that needs another package
        raise UsageError(f"data.language: {language}: {' '.join(str(error).split())}") from None


def _strips_affixes(language: str) -> bool:
    """Whether words are split by rules for their ends, as most are; Chinese, for one, has a segmenter instead."""
    if language == "en":
        return True
    from spacy.tokenizer import Tokenizer as RuleTokenizer

    return isinstance(_rules(language), RuleTokenizer)


def split_at_blanks(text: str) -> list[str]:
    """The words of a text, an empty one between neighbouring blanks: word i starts where all before it end, each
    with one blank behind it.
    """
    return text.translate(_BLANKS).split(" ")


def cut_word(word: str, language: str = "en") -> Cuts:
    """Where spaCy's tokens of a word end: a function of the word and the language alone."""
    if len(word) >= _LONG_WORD and _strips_affixes(language):
        return tuple(match.end() for match in _PLAIN_RULES.finditer(word))
    return tuple(accumulate(len(token) for token in _rules(language)(_SURROGATE.sub("\ufffd", word))))


class Tokenizer:
    """Splits text into tokens `text[start:end]`: in order, never empty, every visible character in exactly one.

    `second_split` cuts `SEPARATORS` off and out of spaCy's tokens (but not out of contractions such as "'s" and
    "n't"); `split_questions=False` leaves it out for questions, as the released master branch does. Raises `UsageError`
    for a `language` that spaCy has no rules for, when the first word is cut.
    """

    def __init__(self, second_split: bool = True, split_questions: bool = True, language: str = "en") -> None:
        self.language = language
        self.second_split = second_split
        self.split_questions = second_split and split_questions
        self._cuts: dict[str, Cuts] = {}

    def tokenize(self, text: str) -> list[Offsets]:
        """Character offsets of the tokens of a context."""
        return self._tokens(text, self.second_split)

    def tokenize_question(self, text: str) -> list[Offsets]:
        """Character offsets of the tokens of a question."""
        return self._tokens(text, self.split_questions)

    def tokenize_word(self, word: str, second_split: bool) -> list[Offsets]:
        """Offsets in the word of the tokens of a text's part between blanks."""
        cuts = self._cuts.get(word)
        if cuts is None:
            cuts = cut_word(word, self.language)
            if len(word) < _LONG_WORD:
                self._keep(word, cuts)
        spans = pairwise((0, *cuts))
        return [piece for span in spans for piece in _split_token(word, span)] if second_split else list(spans)

    def unknown_words(self, texts: Iterable[str]) -> list[str]:
        """The distinct words of the texts that have not been cut yet, by first occurrence."""
        words: dict[str, None] = {}
        for text in texts:
            words.update(dict.fromkeys(split_at_blanks(text)))
        return [word for word in words if word not in self._cuts]

    def learn(self, words: Iterable[str], cuts: Iterable[Cuts]) -> None:
        """Store what `cut_word` returned for these words, maybe in another process."""
        self._cuts.update(zip(words, cuts, strict=True))

    def _keep(self, word: str, cuts: Cuts) -> None:
        if len(self._cuts) >= MAX_CACHED_WORDS:
            self._cuts.clear()
            _rules.cache_clear()  # spaCy keeps every word it has ever met: a new one starts from nothing
        self._cuts[word] = cuts

    def _tokens(self, text: str, second_split: bool) -> list[Offsets]:
        tokens, start = [], 0
        for word in split_at_blanks(text):
            tokens += [(start + first, start + last) for first, last in self.tokenize_word(word, second_split)]
            start += len(word) + 1
        return tokens


def _split_token(word: str, span: Offsets) -> list[Offsets]:
    """The second split of one of spaCy's tokens."""
    if _CONTRACTION.match(word[slice(*span)]):
        return [span]
    return [match.span() for match in _SECOND_SPLIT.finditer(word, *span)]
