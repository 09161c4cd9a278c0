"""Explanations on disk: a page of all questions, and an image of the first one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bidaf.data.squad import Example
from bidaf.files.writing import write_output
from bidaf.inference.ensemble import Loaded
from bidaf.inference.explain import explain
from bidaf.reporting.attention_image import attention_image
from bidaf.reporting.attention_page import attention_page


def write_explanation(
    models: Sequence[Loaded], examples: Sequence[Example], page: Path, image: Path | None = None
) -> None:
    """Explain these questions as weight sets of one run, or an ensemble, answer them: in an HTML page, and the first
    one in a PNG image.

    Raises `BidafError` for weights that have diverged, and when a file can't be written.
    """
    explained = list(explain(models, examples))
    write_output(page, attention_page(explained, str(models[0].origin)))
    if image is not None:
        write_output(image, attention_image(explained[0]))
