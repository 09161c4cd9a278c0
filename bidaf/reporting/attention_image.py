"""The attention of one question as a picture: bands of context words, raw weights to the left of the shadow."""

from __future__ import annotations

import textwrap
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bidaf.data.tokenizer import Offsets
from bidaf.files.writing import write_output
from bidaf.inference.attention import Explained, Reading
from bidaf.reporting.explain import NAMES, verdict
from bidaf.reporting.svg import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WORDS_A_BAND = 40
MAX_WORDS = 400  # context words in a picture; of a longer context, those around the answer
LABEL = 14  # characters of a word
TONES = {"raw": ("Oranges", "#a84a00"), "ema": ("Blues", "#1d4ed8")}
START, END = "#0b6b83", "#93209b"
# Inches. Places are given, not found by a layout engine, which takes seconds over a hundred axes.
CELL, LEFT, TOP, PROBABILITIES, GAP, BELOW, MARGIN = 0.2, 1.05, 1.15, 0.4, 0.08, 1.05, 0.15


def write_picture(explained: Explained, path: Path) -> None:
    """Write a PNG of the context-to-question attention, the start and end probabilities and the answers.

    Raises `BidafError` when it can't be written.
    """
    from matplotlib.figure import Figure

    first, last = _window(explained)
    size = -(-(last - first) // -(-(last - first) // WORDS_A_BAND))  # bands of equal length, the last maybe shorter
    bands = [slice(begin, min(begin + size, last)) for begin in range(first, last, size)]
    tall = CELL * len(explained.question_words)
    column, row = LEFT + CELL * size + MARGIN, PROBABILITIES + GAP + tall + BELOW
    width, height = max(7.0, column * len(explained.readings)), TOP + row * len(bands)
    with drawing({"font.size": 8, "font.family": "sans-serif"}):
        figure = Figure(figsize=(width, height), dpi=120)

        def axes_at(left: float, top: float, words: slice, tall: float) -> Axes:
            wide = CELL * (words.stop - words.start)
            return figure.add_axes((left / width, 1 - (top + tall) / height, wide / width, tall / height))

        title = "\n".join(textwrap.wrap(" ".join(explained.example.question.split()), int(14 * width), max_lines=2))
        figure.text(0.5, 1 - 0.1 / height, f"{title}\n{verdict(explained)}", fontsize=10, ha="center", va="top")
        for number, reading in enumerate(explained.readings):
            left = number * column + LEFT
            name = f"{NAMES[reading.weights]} weights"
            figure.text(left / width, 1 - (TOP - 0.2) / height, name, color=TONES[reading.weights][1], fontsize=10)
            for band, words in enumerate(bands):
                top = TOP + band * row
                _draw_probabilities(axes_at(left, top, words, PROBABILITIES), reading, words, named=band == 0)
                _draw_attention(axes_at(left, top + PROBABILITIES + GAP, words, tall), explained, reading, words)
        picture = BytesIO()
        figure.savefig(picture, format="png")
    write_output(path, picture.getvalue())


def _window(explained: Explained) -> tuple[int, int]:
    """The context words to draw: all, or as many as fit around the first answer."""
    count = len(explained.context_words)
    if count <= MAX_WORDS:
        return 0, count
    start = explained.readings[0].answers[0].start
    middle = next(number for number, (_, end) in enumerate(explained.context_words) if end > start)
    first = min(max(0, middle - MAX_WORDS // 2), count - MAX_WORDS)
    return first, first + MAX_WORDS


def _draw_probabilities(axes: Axes, reading: Reading, words: slice, *, named: bool) -> None:
    start, end = reading.start[words], reading.end[words]
    places = np.arange(len(start))
    axes.bar(places - 0.2, start, 0.4, color=START, label="start")
    axes.bar(places + 0.2, end, 0.4, color=END, label="end")
    axes.set(xlim=(-0.5, len(start) - 0.5), ylim=(0, 1), xticks=[], yticks=[0, 1], ylabel="p")
    axes.spines[["top", "right"]].set_visible(False)
    if named:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, ncols=2, fontsize=7, borderaxespad=0)


def _draw_attention(axes: Axes, explained: Explained, reading: Reading, words: slice) -> None:
    weights, colours = reading.to_question[words].T, TONES[reading.weights][0]
    axes.imshow(weights, cmap=colours, vmin=0, vmax=1, aspect="auto", interpolation="none")
    context, question = explained.example.context, explained.example.question
    across = [_label(context, span) for span in explained.context_words[words]]
    down = [_label(question, span) for span in explained.question_words]
    axes.set_xticks(range(len(across)), across, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(down)), down)
    axes.tick_params(length=0)
    # Question to context: the words that matter most stand out.
    for label, weight in zip(axes.get_xticklabels(), reading.to_context[words], strict=True):
        label.set_fontweight("bold" if weight > 0.5 * reading.to_context.max() else "normal")


def _label(text: str, span: Offsets) -> str:
    return text[span[0] : span[1]][:LABEL]
