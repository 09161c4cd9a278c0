"""The attention of one question as a picture: bands of context words, raw weights to the left of the shadow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bidaf.data.tokenizer import Offsets
from bidaf.errors import BidafError
from bidaf.inference.attention import Explained, Reading
from bidaf.reporting.explain import NAMES, verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WORDS_A_BAND = 40
LABEL = 14  # characters of a word
MAX_WORDS = 800  # context words in a picture; of a longer context, those around the answers
TONES = {"raw": ("Oranges", "#a84a00"), "ema": ("Blues", "#1d4ed8")}
START, END = "#0b6b83", "#93209b"


def write_picture(explained: Explained, path: Path) -> None:
    """Write a PNG of the context-to-question attention, the start and end probabilities and the answers.

    Raises `BidafError` when it can't be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    readings = explained.readings
    first, last = _window(explained)
    size = -(-(last - first) // -(-(last - first) // WORDS_A_BAND))  # bands of equal length, the last maybe shorter
    bands = range(first, last, size)
    rows = len(explained.question_words)
    width = len(readings) * (1.4 + 0.2 * size)
    height = 1.1 + len(bands) * (1.75 + 0.2 * rows)
    with matplotlib.rc_context({"text.parse_math": False, "font.size": 8, "font.family": "sans-serif"}):
        figure = Figure(figsize=(max(width, 7), height), layout="constrained", dpi=120)
        figure.suptitle(f"{explained.example.question}\n{verdict(explained)}", fontsize=11, wrap=True)
        columns = figure.subfigures(1, len(readings), squeeze=False)[0]
        for column, reading in zip(columns, readings, strict=True):
            column.suptitle(f"{NAMES[reading.weights]} weights", color=TONES[reading.weights][1], fontsize=10)
            axes = column.subplots(2 * len(bands), 1, squeeze=False, height_ratios=[1.6, rows] * len(bands))[:, 0]
            for band, begin in enumerate(bands):
                words = slice(begin, min(begin + size, last))
                _draw_probabilities(axes[2 * band], reading, words)
                _draw_attention(axes[2 * band + 1], explained, reading, words)
                for each in axes[2 * band : 2 * band + 2]:
                    each.set_xlim(-0.5, size - 0.5)
            axes[0].legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, ncols=2, fontsize=7)
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            figure.savefig(beside, format="png")
            beside.replace(path)
        except (OSError, ValueError) as error:
            raise BidafError(f"{path} can't be written: {getattr(error, 'strerror', None) or error}") from None
        finally:
            beside.unlink(missing_ok=True)


def _window(explained: Explained) -> tuple[int, int]:
    """The context words to draw: all, or as many as fit around the first answer."""
    count = len(explained.context_words)
    if count <= MAX_WORDS:
        return 0, count
    start = explained.readings[0].answers[0].start
    middle = next(number for number, (_, end) in enumerate(explained.context_words) if end > start)
    first = min(max(0, middle - MAX_WORDS // 2), count - MAX_WORDS)
    return first, first + MAX_WORDS


def _draw_probabilities(axes: Axes, reading: Reading, words: slice) -> None:
    start, end = reading.start[words], reading.end[words]
    places = np.arange(len(start))
    axes.bar(places - 0.2, start, 0.4, color=START, label="start")
    axes.bar(places + 0.2, end, 0.4, color=END, label="end")
    axes.set(ylim=(0, 1), xticks=[], yticks=[0, 1], ylabel="p")
    axes.spines[["top", "right"]].set_visible(False)


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
