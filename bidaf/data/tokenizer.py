"""Words as character offsets: spaCy's English rules, then the second split of Seo et al.'s released code.

Contexts and questions go through the same steps, at training and at prediction. spaCy is imported when the first
text is tokenized; everything downstream of `Tokens` works without it.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bidaf.errors import BidafError

if TYPE_CHECKING:
    from bidaf.data.squad import Example

Offsets = tuple[int, int]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

# squad/utils.py of the released code: each of these is a token of its own.
SEPARATORS = "-\u2212\u2014\u2013/~\"'\u201c\u2019\u201d\u2018\u00b0"

# The released list would also cut "'s" and "n't", which GloVe knows whole: spaCy's contractions stay as they are.
_CONTRACTION = re.compile(r"(?:n['\u2019]t|['\u2019](?:s|m|d|re|ve|ll|em))\Z", re.IGNORECASE)
_SECOND_SPLIT = re.compile(f"[{re.escape(SEPARATORS)}]|[^{re.escape(SEPARATORS)}]+")

# spaCy strips affixes one by one, quadratic in the length of a word: longer ones get plain rules instead.
_LONG_WORD = re.compile(r"[^ ]{101,}")
_PLAIN_RULES = re.compile(r"\w+|\W")

# Zero-width space, word joiner and byte order mark part words like a blank. Lone surrogates can't reach spaCy,
# which encodes its input. Every replacement is one character for one: offsets stay those of the original.
_BLANKS = {code: " " for code in range(0x3001) if chr(code).isspace()}  # no white space beyond U+3000
_BLANKS |= {0x200B: " ", 0x2060: " ", 0xFEFF: " "}
_BLANKS |= dict.fromkeys(range(0xD800, 0xE000), "\ufffd")


@cache
def _english() -> Any:
    try:
        import spacy
    except ImportError:
        raise BidafError("Tokenizing text needs spaCy: `pip install spacy`.") from None
    return spacy.blank("en").tokenizer


class Tokenizer:
    """Splits text into tokens `text[start:end]`: in order, never empty, every visible character in exactly one.

    `second_split` cuts `SEPARATORS` off and out of spaCy's tokens (but not out of contractions such as "'s" and
    "n't"); `split_questions=False` leaves it out for questions, as the released master branch does.
    """

    def __init__(self, second_split: bool = True, split_questions: bool = True) -> None:
        self.second_split = second_split
        self.split_questions = second_split and split_questions
        self._pieces: dict[tuple[int, bool], tuple[Offsets, ...]] = {}

    def tokenize(self, text: str) -> list[Offsets]:
        """Character offsets of the tokens of a context."""
        return list(self._tokens(text, self.second_split))

    def tokenize_question(self, text: str) -> list[Offsets]:
        """Character offsets of the tokens of a question."""
        return list(self._tokens(text, self.split_questions))

    def _tokens(self, text: str, split: bool) -> Iterator[Offsets]:
        blanked = text.translate(_BLANKS)
        done = 0
        for word in _LONG_WORD.finditer(blanked):
            yield from self._spacy_tokens(blanked[done : word.start()], done, split)
            # Separators are single tokens by the plain rules already.
            yield from (match.span() for match in _PLAIN_RULES.finditer(blanked, word.start(), word.end()))
            done = word.end()
        yield from self._spacy_tokens(blanked[done:], done, split)

    def _spacy_tokens(self, text: str, shift: int, split: bool) -> Iterator[Offsets]:
        if not text:
            return
        from spacy.attrs import IDX, ORTH

        doc = _english()(text)
        # A token's own split depends on its form alone: looked up by spaCy's 64-bit hash of the form.
        for index, (orth, start) in enumerate(doc.to_array([ORTH, IDX]).tolist()):
            pieces = self._pieces.get((orth, split))
            if pieces is None:
                pieces = self._pieces[orth, split] = _split_word(doc[index].text, split)
            for first, last in pieces:
                yield shift + start + first, shift + start + last


def _split_word(word: str, split: bool) -> tuple[Offsets, ...]:
    if word.isspace():
        return ()
    if not split or _CONTRACTION.match(word):
        return ((0, len(word)),)
    return tuple(match.span() for match in _SECOND_SPLIT.finditer(word))


@dataclass(frozen=True)
class Tokens:
    """A corpus, tokenized once: each token is the number of its word form, counted from 1 by first occurrence.

    Flat arrays; text i owns the tokens `offsets[i]:offsets[i+1]`. A context that several questions share is there once.
    """

    forms: list[str]
    """Distinct word forms; form n is `forms[n - 1]`, and 0 is left to padding."""
    contexts: list[str]
    context_forms: Int32
    """`[context tokens]`"""
    context_spans: Int32
    """`[context tokens, 2]`, character offsets."""
    context_offsets: Int64
    """`[contexts + 1]`"""
    question_forms: Int32
    """`[question tokens]`"""
    question_offsets: Int64
    """`[questions + 1]`"""
    question_context: Int32
    """`[questions]`, index into `contexts`."""

    def counts(self) -> Int64:
        """Occurrences of each form, `[forms + 1]`: in a context, once for every question asked on it.

        That is how the released squad/prepro.py counts.
        """
        asked = np.bincount(self.question_context, minlength=len(self.contexts))
        weights = np.repeat(asked, np.diff(self.context_offsets))
        size = len(self.forms) + 1
        in_contexts = np.bincount(self.context_forms, weights=weights, minlength=size).astype(np.int64)
        return in_contexts + np.bincount(self.question_forms, minlength=size)


def tokenize_examples(examples: Iterable[Example], tokenizer: Tokenizer) -> Tokens:
    """Tokenize every distinct context and every question. A text without any token becomes one token as a whole."""
    forms: dict[str, int] = {}
    contexts: dict[str, int] = {}
    context_forms, question_forms = array("i"), array("i")
    context_spans = array("i")
    context_offsets, question_offsets = array("q", [0]), array("q", [0])
    question_context = array("i")
    for example in examples:
        context = example.context
        if context not in contexts:
            contexts[context] = len(contexts)
            for span in tokenizer.tokenize(context) or [(0, len(context))]:
                context_spans.extend(span)
                context_forms.append(forms.setdefault(context[span[0] : span[1]], len(forms) + 1))
            context_offsets.append(len(context_forms))
        question = example.question
        for start, end in tokenizer.tokenize_question(question) or [(0, len(question))]:
            question_forms.append(forms.setdefault(question[start:end], len(forms) + 1))
        question_offsets.append(len(question_forms))
        question_context.append(contexts[context])
    return Tokens(
        forms=list(forms),
        contexts=list(contexts),
        context_forms=np.array(context_forms, dtype=np.int32),
        context_spans=np.array(context_spans, dtype=np.int32).reshape(-1, 2),
        context_offsets=np.array(context_offsets, dtype=np.int64),
        question_forms=np.array(question_forms, dtype=np.int32),
        question_offsets=np.array(question_offsets, dtype=np.int64),
        question_context=np.array(question_context, dtype=np.int32),
    )
