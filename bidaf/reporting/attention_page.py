"""The attention page: one question or several, and how each weight set answers them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bidaf.data.tokenizer import Offsets
from bidaf.evaluation.evaluator import NO_ANSWER
from bidaf.evaluation.metrics import question_scores
from bidaf.inference.explain import ExplainedQuestion, Explanation
from bidaf.reporting.html import render, script_json
from bidaf.version import __version__

MOST = 65_535  # a weight of 1, as the page's script reads it
LABELS = {"raw": "raw", "ema": "shadow"}


class Tone(NamedTuple):
    """The colour of a weight set: its name in the style sheet, and its value in the light scheme."""

    name: str
    value: str


TONES = {"raw": Tone("raw", "#a84a00"), "ema": Tone("shadow", "#1d4ed8")}
OTHER_TONES = (Tone("run3", "#13702f"), Tone("run4", "#8b2fb8"), Tone("run5", "#b42366"), Tone("run6", "#54606e"))


def tones(explained: ExplainedQuestion) -> list[Tone]:
    """The colour of each weight set, in their order."""
    others = [each.weights for each in explained.explanations if each.weights not in TONES]
    further = {name: OTHER_TONES[number % len(OTHER_TONES)] for number, name in enumerate(others)}
    return [(TONES | further)[each.weights] for each in explained.explanations]


def label(weights: str) -> str:
    """What people call a weight set."""
    return LABELS.get(weights, weights)


def attention_page(explained: Sequence[ExplainedQuestion], origin: str) -> str:
    """The HTML of the page; `origin` says which checkpoint answered."""
    return render(
        "explain",
        title=explained[0].example.question if len(explained) == 1 else f"{len(explained)} questions",
        origin=origin,
        version=__version__,
        data=script_json([_question(each) for each in explained]),
    )


def verdict(explained: ExplainedQuestion) -> str:
    """One sentence: what the answers are, and whether the weight sets agree."""
    names = [label(each.weights) for each in explained.explanations]
    best = [each.answers[0] for each in explained.explanations]
    texts = [f"\u201c{_short(answer.shown)}\u201d" for answer in best]
    confidences = [f"{answer.probability:.0%}" for answer in best]
    if len(best) == 1:
        return f"The {names[0]} weights answer {texts[0]} ({confidences[0]})."
    if len({(answer.start, answer.end) for answer in best}) == 1:
        return f"The {_listed(names)} weights agree: {texts[0]} ({_listed(confidences)})."
    answers = [f"{name} {text} ({p})" for name, text, p in zip(names, texts, confidences, strict=True)]
    return f"The weight sets disagree: {_listed(answers)}."


def _question(explained: ExplainedQuestion) -> dict[str, Any]:
    """What the page's script shows of one question. Texts come in pieces, so that the script needs no offsets."""
    example = explained.example
    context, question = example.context, example.question
    gold = [answer.text for answer in example.answers]
    spans = [(answer.start, answer.start + len(answer.text)) for answer in example.answers if answer.start >= 0]
    return {
        "id": example.id,
        "question": question,
        "verdict": verdict(explained),
        "lacks": explained.lacks,
        "gold": [NO_ANSWER] if example.impossible else list(dict.fromkeys(gold)),
        "words": [context[start:end] for start, end in explained.context_words],
        "gaps": _gaps(context, explained.context_words),
        "questionWords": [question[start:end] for start, end in explained.question_words],
        "isGold": _covered(explained.context_words, spans),
        "explanations": [
            _explanation(each, tone, explained, gold)
            for each, tone in zip(explained.explanations, tones(explained), strict=True)
        ],
    }


def _explanation(explanation: Explanation, tone: Tone, explained: ExplainedQuestion, gold: list[str]) -> dict[str, Any]:
    answers = [[answer.shown, _short_float(answer.probability)] for answer in explanation.answers]
    best = explanation.answers[0]
    exact = None
    if gold or explained.example.impossible:
        (score,) = question_scores({"": gold}, {"": best.text})
        exact = score.exact_match
    return {
        "weights": explanation.weights,
        "label": label(explanation.weights),
        "tone": tone.name,
        "exact": exact,
        "answers": answers,
        "isAnswer": _covered(explained.context_words, [(best.start, best.end)]),
        # Two bytes per cell: 400 by 30 words are 32 kB of text, a third of what decimals take.
        "toQuestion": base64.b64encode(np.rint(MOST * explanation.to_question).astype("<u2").tobytes()).decode(),
        "toContext": [_short_float(value) for value in explanation.to_context.tolist()],
        "start": [_short_float(value) for value in explanation.start.tolist()],
        "end": [_short_float(value) for value in explanation.end.tolist()],
    }


def _gaps(text: str, words: Sequence[Offsets]) -> list[str]:
    """The text before each word, and after the last."""
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


def _listed(items: Sequence[str]) -> str:
    return f"{', '.join(items[:-1])} and {items[-1]}"
