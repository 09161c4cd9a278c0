"""The attention page: one question or several, and how each weight set answers them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from bidaf.data.tokenizer import Offsets
from bidaf.evaluation.evaluator import NO_ANSWER_LABEL
from bidaf.evaluation.metrics import question_scores
from bidaf.inference.explain import ExplainedQuestion, Explanation
from bidaf.reporting.html import render, script_json
from bidaf.version import __version__

COMPONENTS = ("attention.js",)
MAX_WORDS = 2_000  # context words on a page; of a longer context, those around the answer
MAX_CHARACTERS = 500  # of an answer in the table: weights that know little can take half the context for one
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
        shares=COMPONENTS,
        inline_styles=False,
        title=explained[0].example.question if len(explained) == 1 else f"{len(explained)} questions",
        origin=origin,
        version=__version__,
        data=script_json([explained_data(each) for each in explained]),
    )


def title_of(explained: ExplainedQuestion, weights: str) -> str:
    """The heading of what one weight set, or one member of an ensemble, answers."""
    return f"{label(weights)} weights" if explained.ensemble is None else weights


def verdict(explained: ExplainedQuestion) -> str:
    """What the answers are, and whether the weight sets, or the members of the ensemble, agree."""
    if explained.ensemble is not None:
        answer = explained.ensemble[0]
        agree = sum(each.answers[0].text == answer.text for each in explained.explanations)
        return (
            f"The ensemble answers \u201c{_short(answer.shown)}\u201d ({answer.probability:.0%}), as {agree} of its "
            f"{len(explained.explanations)} members do."
        )
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


def word_window(explained: ExplainedQuestion, most: int) -> tuple[int, int]:
    """The context words to show, first and beyond the last: all, or `most` around the first answer."""
    count = len(explained.context_words)
    if count <= most:
        return 0, count
    start = explained.explanations[0].answers[0].start
    middle = next(number for number, (_, end) in enumerate(explained.context_words) if end > start)
    first = min(max(0, middle - most // 2), count - most)
    return first, first + most


def explained_data(explained: ExplainedQuestion) -> dict[str, Any]:
    """What `attention.js` shows of one question. Texts are split into words: the script needs no offsets."""
    example = explained.example
    context, question = example.context, example.question
    gold = [answer.text for answer in example.answers]
    spans = [(answer.start, answer.start + len(answer.text)) for answer in example.answers if answer.start >= 0]
    first, last = word_window(explained, MAX_WORDS)
    count, words = len(explained.context_words), explained.context_words[first:last]
    cut = f"Words {first + 1:,} to {last:,} of {count:,} are shown, around the answer." if len(words) < count else ""
    return {
        "id": example.id,
        "question": question,
        "verdict": verdict(explained),
        "lacks": explained.lacks,
        "cut": cut,
        "gold": [NO_ANSWER_LABEL] if example.impossible else list(dict.fromkeys(gold)),
        "words": [context[start:end] for start, end in words],
        "gaps": _gaps(context, words, (first > 0, last < count)),
        "questionWords": [question[start:end] for start, end in explained.question_words],
        "isGold": _covered(words, spans),
        "explanations": [
            _explanation(each, tone, explained, slice(first, last))
            for each, tone in zip(explained.explanations, tones(explained), strict=True)
        ],
    }


def _explanation(explanation: Explanation, tone: Tone, explained: ExplainedQuestion, shown: slice) -> dict[str, Any]:
    example, words = explained.example, explained.context_words[shown]
    answers = [[_cut(answer.shown), _short_float(answer.probability)] for answer in explanation.answers]
    best = explanation.answers[0]
    exact = None
    if example.answers or example.impossible:
        (score,) = question_scores({"": [answer.text for answer in example.answers]}, {"": best.text})
        exact = score.exact_match
    return {
        "weights": explanation.weights,
        "label": title_of(explained, explanation.weights),
        "tone": tone.name,
        "exact": exact,
        "answers": answers,
        "isAnswer": _covered(words, [(best.start, best.end)]),
        # Two bytes per cell: 400 by 30 words are 32 kB of text, a third of what decimals take.
        "toQuestion": base64.b64encode(np.rint(MOST * explanation.to_question[shown]).astype("<u2").tobytes()).decode(),
        "toContext": [_short_float(value) for value in explanation.to_context[shown].tolist()],
        "start": [_short_float(value) for value in explanation.start[shown].tolist()],
        "end": [_short_float(value) for value in explanation.end[shown].tolist()],
    }


def _gaps(text: str, words: Sequence[Offsets], cut: tuple[bool, bool]) -> list[str]:
    """The text before each word, and after the last; an ellipsis in place of what is cut before and after the words."""
    before, after = text[: words[0][0]], text[words[-1][1] :]
    between = [text[end:start] for (_, end), (start, _) in pairwise(words)]
    return ["\u2026 " if cut[0] else before, *between, " \u2026" if cut[1] else after]


def _covered(words: Sequence[Offsets], spans: Sequence[Offsets]) -> list[int]:
    """Numbers of the words that any of the spans touches."""
    return [
        number
        for number, (start, end) in enumerate(words)
        if any(start < span_end and span_start < end for span_start, span_end in spans)
    ]


def _short_float(value: float) -> float:
    return float(f"{value:.3g}")


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 1]}\u2026"


def _short(text: str, most: int = 80) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}\u2026"


def _listed(items: Sequence[str]) -> str:
    return f"{', '.join(items[:-1])} and {items[-1]}"
