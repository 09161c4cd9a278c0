"""The pictures of the README: pages of a run on the embedded corpus, as headless Chromium shows them.

    .venv/bin/python scripts/make_screenshots.py RUN

RUN is a finished run of mini.yaml, such as the quickstart's; times are left out, so that the pictures are the same on
every machine. Writes report.png, explain.png and serve.png in docs/images. Needs the test extra (selenium) and Debian's
chromium and chromium-driver.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import torch
from load_test import serving
from PIL import Image
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from bidaf.files.writing import write_text
from bidaf.inference.explain import find_questions
from bidaf.inference.loading import load_weight_sets
from bidaf.reporting.answers import read_answers
from bidaf.reporting.explain import write_explanation
from bidaf.reporting.report import report_page
from bidaf.runs.folder import MEASURED
from bidaf.runs.log import RunLog, read_run

IMAGES = Path(__file__).parents[1] / "docs" / "images"
WIDTH, MARGIN = 1100, 12
COLOURS = 256  # a palette makes the file a third as large
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars"
)


def main(run: Path) -> None:
    """Make both pages in a folder of their own and photograph them."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report = folder / "report.html"
        write_text(report, report_page([_without_times(read_run(run))]))
        models = load_weight_sets(str(run), None, torch.device("cpu"))
        (question,) = find_questions(models[0], [_changed_question(run)])
        write_explanation(models, [question], folder / "explain.html")
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for flag in (*FLAGS.split(), f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(flag)
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
        try:
            _photograph(browser, report.resolve().as_uri(), "figure:nth-of-type(2)", IMAGES / "report.png")
            _photograph(browser, (folder / "explain.html").resolve().as_uri(), "main", IMAGES / "explain.png")
            with serving(str(run), folder / "messages.txt") as server:
                fragment = urlencode({"q": question.question, "c": question.context})
                page = f"http://{server.host}:{server.port}/#{fragment}"
                _photograph(browser, page, ".explanation .readout", IMAGES / "serve.png")
        finally:
            browser.quit()


def _without_times(run: RunLog) -> RunLog:
    """The log as a deterministic run writes it."""
    untimed = dict.fromkeys(MEASURED)
    return replace(
        run,
        intervals=[each.model_copy(update=untimed) for each in run.intervals],
        evaluations=[each.model_copy(update=untimed) for each in run.evaluations],
    )


def _changed_question(run: Path) -> str:
    """A question that the average put right, or else one it changed, or else the first."""
    answers = read_answers(read_run(run))
    ranked = sorted(answers.questions, key=lambda a: (a.changed, a.answering.exact, not a.raw.exact), reverse=True)
    return answers.features.ids[ranked[0].number]


def _photograph(browser: webdriver.Chrome, page: str, last: str, output: Path) -> None:
    """The page at this address down to the element `last`, once it is there, in its light scheme."""
    metrics = {"width": WIDTH, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    light = {"name": "prefers-color-scheme", "value": "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [light]})
    browser.get(page)
    WebDriverWait(browser, 60).until(lambda browser: browser.find_elements("css selector", last))
    bottom = browser.execute_script("return document.querySelector(arguments[0]).getBoundingClientRect().bottom", last)
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": bottom + MARGIN, "scale": 1}
    taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    picture = Image.open(io.BytesIO(base64.b64decode(taken["data"]))).convert("RGB")
    reduced = picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    reduced.save(output, optimize=True)
    print(output)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
