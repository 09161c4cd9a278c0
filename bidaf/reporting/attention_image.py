"""The attention of one question as an image: rows of context words, the weight sets side by side."""

from __future__ import annotations

import textwrap
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from bidaf.data.tokenizer import Offsets
from bidaf.inference.explain import ExplainedQuestion, Explanation
from bidaf.reporting.attention_page import Tone, title_of, tones, verdict, word_window
from bidaf.reporting.svg import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WORDS_PER_ROW = 40
MAX_WORDS = 400  # context words in an image; of a longer context, those around the answer
LABEL = 14  # characters of a word
START, END = "#0b6b83", "#93209b"
# Inches. Fixed places: a layout engine takes seconds for a hundred axes.
CELL, LEFT, TOP, PROBABILITIES, GAP, BELOW, MARGIN, KEY = 0.2, 1.05, 1.15, 0.4, 0.08, 1.05, 0.15, 0.7
MEANINGS = (
    "Shade: how much a word of the context (across) attends to a word of the question (down), from 0 to 1. "
    "Outlined: the answer. "
    "Bold: the words that matter most to the question (more than half of the greatest question-to-context attention). "
    "Bars: the probability that the answer starts, or ends, at a word."
)


def attention_image(explained: ExplainedQuestion) -> bytes:
    """A PNG of the context-to-question attention, the start and end probabilities and the answers."""
    from matplotlib.figure import Figure

    first, last = word_window(explained, MAX_WORDS)
    size = -(-(last - first) // -(-(last - first) // WORDS_PER_ROW))  # rows of equal length, the last maybe shorter
    rows = [slice(begin, min(begin + size, last)) for begin in range(first, last, size)]
    map_height = CELL * len(explained.question_words)
    column, row = LEFT + CELL * size + MARGIN, PROBABILITIES + GAP + map_height + BELOW
    width, height = max(7.0, column * len(explained.explanations)), TOP + row * len(rows) + KEY
    with drawing({"font.size": 8, "font.family": "sans-serif"}):
        figure = Figure(figsize=(width, height), dpi=120)

        def axes_at(left: float, top: float, words: slice, tall: float) -> Axes:
            wide = CELL * (words.stop - words.start)
            return figure.add_axes((left / width, 1 - (top + tall) / height, wide / width, tall / height))

        question = " ".join(explained.example.question.split())
        title = "\n".join(textwrap.wrap(question, int(14 * width), max_lines=2))
        figure.text(0.5, 1 - 0.1 / height, f"{title}\n{verdict(explained)}", fontsize=10, ha="center", va="top")
        for number, (explanation, tone) in enumerate(zip(explained.explanations, tones(explained), strict=True)):
            left = number * column + LEFT
            name = title_of(explained, explanation.weights)
            figure.text(left / width, 1 - (TOP - 0.2) / height, name, color=tone.value, fontsize=10)
            for place, words in enumerate(rows):
                top = TOP + place * row
                _draw_probabilities(axes_at(left, top, words, PROBABILITIES), explanation, words, named=place == 0)
                axes = axes_at(left, top + PROBABILITIES + GAP, words, map_height)
                _draw_attention(axes, explained, explanation, words, tone)
        shown, count = last - first, len(explained.context_words)
        cut = f" {shown:,} of the {count:,} words of the context are shown." if shown < count else ""
        lacks = f" {explained.lacks}" if explained.lacks else ""
        key = "\n".join(textwrap.wrap(MEANINGS + cut + lacks, int(16 * width)))
        figure.text(0.1 / width, 0.1 / height, key, fontsize=8, ha="left", va="bottom", color="#444444")
        image = BytesIO()
        figure.savefig(image, format="png")
    return image.getvalue()


def _draw_probabilities(axes: Axes, explanation: Explanation, words: slice, *, named: bool) -> None:
    start, end = explanation.start[words], explanation.end[words]
    places = np.arange(len(start))
    axes.bar(places - 0.2, start, 0.4, color=START, label="start")
    axes.bar(places + 0.2, end, 0.4, color=END, label="end")
    axes.set(xlim=(-0.5, len(start) - 0.5), ylim=(0, 1), xticks=[], yticks=[0, 1], ylabel="p")
    axes.spines[["top", "right"]].set_visible(False)
    if named:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, ncols=2, fontsize=7, borderaxespad=0)


def _draw_attention(
    axes: Axes, explained: ExplainedQuestion, explanation: Explanation, words: slice, tone: Tone
) -> None:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    shades = LinearSegmentedColormap.from_list(tone.name, ["white", tone.value])
    axes.imshow(explanation.to_question[words].T, cmap=shades, vmin=0, vmax=1, aspect="auto", interpolation="none")
    context, question = explained.example.context, explained.example.question
    shown = explained.context_words[words]
    across = [_label(context, span) for span in shown]
    down = [_label(question, span) for span in explained.question_words]
    axes.set_xticks(range(len(across)), across, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(down)), down)
    axes.tick_params(length=0)
    best = explanation.answers[0]
    answer = [number for number, (start, end) in enumerate(shown) if start < best.end and best.start < end]
    if answer:
        corner, size = (answer[0] - 0.5, -0.5), (len(answer), len(down))
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor="black", linewidth=1.2, clip_on=False))
    for tick, weight in zip(axes.get_xticklabels(), explanation.to_context[words], strict=True):
        tick.set_fontweight("bold" if weight > 0.5 * explanation.to_context.max() else "normal")


def _label(text: str, span: Offsets) -> str:
    return text[span[0] : span[1]][:LABEL]
