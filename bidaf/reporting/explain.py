"""The attention page: one question or several, and how raw and shadow weights read them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from bidaf.data.tokenizer import Offsets
from bidaf.evaluation.squad_v1 import question_scores
from bidaf.inference.attention import Explained, Reading
from bidaf.reporting.html import render, script_json
from bidaf.version import __version__

MOST = 65_535  # a weight of 1, as the page's script reads it
NAMES = {"raw": "raw", "ema": "shadow"}


def explain_page(explained: Sequence[Explained], origin: str) -> str:
    """The HTML of the page; `origin` says which checkpoint answered."""
    return render(
        "explain",
        title=explained[0].example.question if len(explained) == 1 else f"{len(explained)} questions",
        origin=origin,
        version=__version__,
        data=script_json([_question(each) for each in explained]),
    )


def verdict(explained: Explained) -> str:
    """One sentence: what the answers are, and whether the sets of weights agree."""
    best = [reading.answers[0] for reading in explained.readings]
    shown = [f"\u201c{_short(answer.text)}\u201d ({answer.probability:.0%})" for answer in best]
    if len(best) == 1:
        return f"The {NAMES[explained.readings[0].weights]} weights answer {shown[0]}."
    if best[0][:3] == best[1][:3]:
        return f"Raw and shadow weights agree: {shown[0]} and {best[1].probability:.0%}."
    return f"The average changed the answer: raw weights say {shown[0]}, the shadow {shown[1]}."


def _question(explained: Explained) -> dict[str, Any]:
    """What the page's script shows of one question. Texts come in pieces: no offset has to survive the journey."""
    example = explained.example
    context, question = example.context, example.question
    gold = [answer.text for answer in example.answers]
    spans = [(answer.start, answer.start + len(answer.text)) for answer in example.answers if answer.start >= 0]
    return {
        "id": example.id,
        "question": question,
        "verdict": verdict(explained),
        "gold": list(dict.fromkeys(gold)),
        "words": [context[start:end] for start, end in explained.context_words],
        "gaps": _gaps(context, explained.context_words),
        "questionWords": [question[start:end] for start, end in explained.question_words],
        "isGold": _covered(explained.context_words, spans),
        "readings": [_reading(reading, explained, gold) for reading in explained.readings],
    }


def _reading(reading: Reading, explained: Explained, gold: list[str]) -> dict[str, Any]:
    answers = [[answer.text, _short_float(answer.probability)] for answer in reading.answers]
    best = reading.answers[0]
    exact = None
    if gold:
        (score,) = question_scores({"": gold}, {"": best.text})
        exact = score.exact_match
    return {
        "weights": NAMES[reading.weights],
        "exact": exact,
        "answers": answers,
        "isAnswer": _covered(explained.context_words, [(best.start, best.end)]),
        # Two bytes a cell: 400 by 30 words are 32 kB of text, a third of what decimals take.
        "toQuestion": base64.b64encode(np.rint(MOST * reading.to_question).astype("<u2").tobytes()).decode(),
        "toContext": [_short_float(value) for value in reading.to_context.tolist()],
        "start": [_short_float(value) for value in reading.start.tolist()],
        "end": [_short_float(value) for value in reading.end.tolist()],
    }


def _gaps(text: str, words: Sequence[Offsets]) -> list[str]:
    """What stands before each word, and after the last."""
    starts = [start for start, _ in words] + [len(text)]
    ends = [0] + [end for _, end in words]
    return [text[end:start] for end, start in zip(ends, starts, strict=True)]


def _covered(words: Sequence[Offsets], spans: Sequence[Offsets]) -> list[int]:
    """Numbers of the words that any of the spans touches."""
    return [
        number
        for number, (start, end) in enumerate(words)
        if any(start < span_end and span_start < end for span_start, span_end in spans)
    ]


def _short_float(value: float) -> float:
    return float(f"{value:.3g}")


def _short(text: str, most: int = 80) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}\u2026"
