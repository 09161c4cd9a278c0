"""Answer questions with this folder alone: onnxruntime, NumPy and spaCy, without PyTorch and without bidaf.

    pip install onnxruntime numpy spacy
    python answer.py --context passage.txt --question "Who wrote it?" --question "When?"

prints one line per question: probability, a tab, the answer. `Reader` does the same for programs.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import spacy
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

# How text becomes words: spaCy's English rules, then a split at these. The same as in training, so leave them alone.
SEPARATORS = "-\u2212\u2014\u2013/~\"'\u201c\u2019\u201d\u2018\u00b0"
CONTRACTION = re.compile(r"(?:n['\u2019]t|['\u2019](?:s|m|d|re|ve|ll|em))\Z", re.IGNORECASE)
PIECES = re.compile(f"[{re.escape(SEPARATORS)}]|[^{re.escape(SEPARATORS)}]+")
LONG_WORD = 100  # characters; on longer ones spaCy's rules, which are quadratic, give way to plain ones
PLAIN_RULES = re.compile(r"\w+|\W")
BLANKS = {code: " " for code in range(0x3001) if chr(code).isspace()} | {0x200B: " ", 0x2060: " ", 0xFEFF: " "}
BLANKS |= dict.fromkeys(range(0xD800, 0xE000), "\ufffd")  # character for character: offsets stay those of the text

PAD, UNK, SPECIAL = 0, 1, 2


class Answer(NamedTuple):
    """A span of the context: its text, character offsets, and probability p1[first] * p2[last].

    "No answer", of a model that knows it, is the empty text at (0, 0).
    """

    text: str
    start: int
    end: int
    probability: float


class Reader:
    """The graph with its vocabulary."""

    def __init__(self, folder: Path) -> None:
        vocabulary = json.loads((folder / "vocabulary.json").read_text(encoding="ascii"))
        self.reading = json.loads((folder / "export.json").read_text(encoding="utf-8"))["reading"]
        trained: list[str] = vocabulary["trained_words"]
        self.trained_rows = {word: row for row, word in enumerate(trained) if row >= SPECIAL}
        self.fixed_rows = {word: row for row, word in enumerate(vocabulary["fixed_words"], len(trained))}
        self.char_ids = {char: number for number, char in enumerate(vocabulary["chars"])}
        self.word_chars: int = vocabulary["max_word_chars"]
        self.rules = spacy.blank(self.reading["language"]).tokenizer
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])

    def answer(self, context: str, questions: list[str]) -> list[Answer]:
        """The best span of the context for each question, or no answer; all in one batch."""
        tokens = list(self.tokens(context, self.reading["second_split"]))
        asked = [
            [question[a:b] for a, b in self.tokens(question, self.reading["split_questions"])] for question in questions
        ]
        if not tokens or not all(asked):
            raise ValueError("context and questions must not be empty")
        context_words, context_chars = self.encode([[context[a:b] for a, b in tokens]] * len(questions))
        question_words, question_chars = self.encode(asked)
        inputs = {
            "context_words": context_words,
            "context_chars": context_chars,
            "question_words": question_words,
            "question_chars": question_chars,
        }
        answers = []
        for first_scores, last_scores, *no_answer in zip(*self.session.run(None, inputs), strict=True):
            first, last, score = best_span(first_scores, last_scores, self.reading["max_answer_tokens"])
            begin, end = tokens[first][0], tokens[last][1]
            best = Answer(context[begin:end], begin, end, float(np.exp(score)))
            empty = [Answer("", 0, 0, float(np.exp(score))) for score in no_answer]
            threshold = self.reading["no_answer_threshold"]
            answers.append(empty[0] if empty and empty[0].probability > threshold else best)
        return answers

    def encode(self, texts: list[list[str]]) -> tuple[Int64, Int64]:
        """Word rows [batch, longest] and characters [batch, longest, word_chars]; 0 beyond a text's end."""
        words = np.full((len(texts), max(map(len, texts))), PAD, dtype=np.int64)
        chars = np.full((*words.shape, self.word_chars), PAD, dtype=np.int64)
        for row, text in enumerate(texts):
            for place, word in enumerate(text):
                words[row, place] = self.word_row(word)
                ids = [self.char_ids.get(char, UNK) for char in word[: self.word_chars]]
                chars[row, place, : len(ids)] = ids
        return words, chars

    def word_row(self, word: str) -> int:
        """As the vectors write it, else in lower case among the trained words, else unknown."""
        for variant in (word, word.lower(), word.capitalize(), word.upper()):
            if variant in self.fixed_rows:
                return self.fixed_rows[variant]
        return self.trained_rows.get(word.lower(), UNK)

    def tokens(self, text: str, split: bool) -> Iterator[tuple[int, int]]:
        """Character offsets of the tokens of a text: each part between blanks is cut on its own."""
        start = 0
        for word in text.translate(BLANKS).split(" "):
            for begin, end in self.word_tokens(word, split) if word else ():
                yield start + begin, start + end
            start += len(word) + 1

    def word_tokens(self, word: str, split: bool) -> Iterator[tuple[int, int]]:
        """Offsets in the word of its tokens."""
        if len(word) > LONG_WORD:
            yield from (match.span() for match in PLAIN_RULES.finditer(word))
            return
        for token in self.rules(word):
            if not split or CONTRACTION.match(token.text):
                yield token.idx, token.idx + len(token.text)
            else:
                yield from (match.span() for match in PIECES.finditer(word, token.idx, token.idx + len(token.text)))


def best_span(
    start: NDArray[np.float32], end: NDArray[np.float32], max_tokens: int | None
) -> tuple[int, int, np.float32]:
    """First token, last token and log-probability of the best span; of equal ones, the smaller end, then start.

    `start`, `end` [context]; a span may have `max_tokens` tokens, or any number for None.
    """
    scores = np.tril(np.ones((len(end), len(start)), dtype=bool))  # [last, first]
    if max_tokens is not None:
        scores &= ~np.tril(scores, -max_tokens)
    totals = np.where(scores, end[:, None] + start[None, :], -np.inf)
    last, first = divmod(int(totals.argmax()), len(start))
    return first, last, totals[last, first]


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer questions on a text by the model in this folder.")
    parser.add_argument("--context", type=Path, required=True, help="a UTF-8 text file")
    parser.add_argument("--question", action="append", required=True, help="repeatable")
    arguments = parser.parse_args()
    context = arguments.context.read_text(encoding="utf-8")
    for answer in Reader(Path(__file__).parent).answer(context, arguments.question):
        print(f"{answer.probability:.4f}\t{' '.join(answer.text.split()) or '(no answer)'}")


if __name__ == "__main__":
    main()
