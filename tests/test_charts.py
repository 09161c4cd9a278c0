"""The charts of the pages: their values, their legends and what stands below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from helpers_browser import Browser
from markupsafe import Markup
from test_report import log_of
from test_sweep import EMA, RAW, WIDE, a_sweep, swept

from bidaf.evaluation.sweep import SweptSet
from bidaf.experiments.page import band_chart
from bidaf.experiments.results import Results, SeedResult, VariantResult
from bidaf.reporting.report import report_page, write_report
from bidaf.runs.folder import Run
from bidaf.runs.log import RunLog, read_run
from bidaf.runs.sweeps import write_sweep

UNIFORM = swept("tail:25%", set(range(0, 24, 2)), 12.0)


def run_with_map(folder: Path, scores: Sequence[Sequence[float | None]], *sets: SweptSet) -> RunLog:
    """A run that scored averages of half-lives 10, 32 and 100 every 100 steps, and a sweep of these weight sets."""
    log_of(folder, [40, 60], [10, 61], total=200, config={"ema": {"decay": 0.99}})
    for number, each in enumerate(scores, 1):
        Run(folder).log_event(
            event="map", step=100 * number, half_lives=[10.0, 32.0, 100.0], predicted_error=[0.0] * 3,
            exact_match=each, f1=each, questions=10,
        )  # fmt: skip
    write_sweep(folder, a_sweep(RAW, EMA, *sets))
    return read_run(folder)


def hover(browser: Browser, chart: str, across: float, up: float) -> str:
    """What a chart shows where the pointer is: at these shares of the width and height of its dots."""
    browser.run(
        """
        const chart = document.querySelector(`svg[aria-label^="${arguments[0]}"]`);
        const dots = [...chart.querySelectorAll(".values circle")].map((dot) => dot.getBoundingClientRect());
        const place = (low, high, share) => low + share * (high - low);
        const [xs, ys] = [dots.map((dot) => dot.x + dot.width / 2), dots.map((dot) => dot.y + dot.height / 2)];
        chart.dispatchEvent(new PointerEvent("pointermove", { bubbles: true,
          clientX: place(Math.min(...xs), Math.max(...xs), arguments[1]),
          clientY: place(Math.max(...ys), Math.min(...ys), arguments[2]) }));
        """,
        chart,
        across,
        up,
    )
    return str(browser.text(f"svg[aria-label^='{chart}'] + output"))


def test_map_and_sweep_tell_their_values(browser: Browser, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    run = run_with_map(tmp_path / "run", [[None, 40, 30], [50, 61, 60]], WIDE)
    browser.open(write_report([run.folder]))
    chart = "F1 of averages of every width over"
    browser.focus(f"svg[aria-label^='{chart}'] .values circle")
    assert browser.text(f"svg[aria-label^='{chart}'] + output") == "step 100, half-life 32: F1 40.0"
    browser.keys(Keys.END)
    assert browser.text(f"svg[aria-label^='{chart}'] + output") == "step 200, half-life 100: F1 60.0"
    assert hover(browser, chart, 0.9, 0.05) == "step 200, half-life 10: F1 50.0"
    assert hover(browser, chart, 0.55, 0.95) == "step 200, half-life 100: F1 60.0"  # left in its cell
    assert hover(browser, "F1 of averages of every width minus", 0, 1).startswith("half-life:50: F1 ")


def test_captions_say_only_what_applies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("svg", "sweep"):  # charts are laid out, not drawn
        monkeypatch.setattr(
            f"bidaf.reporting.{module}.to_svg", lambda figure, title, values: Markup(f"<svg>{title}</svg>")
        )
    plain = report_page([run_with_map(tmp_path / "plain", [[40, 40, 40]], WIDE)])
    other = report_page([run_with_map(tmp_path / "other", [[None, 40, 40]], UNIFORM)])
    for remark in ("Blank: ", "not exponential"):
        assert remark not in plain
        assert remark in other
    steady = log_of(tmp_path / "steady", [40, 60], [39, 60.1], total=200)
    early = log_of(tmp_path / "early", [40, 60, 70], [1, 61, 70.1], total=300)
    assert "bars are clipped" not in report_page([steady])
    assert "bars are clipped" in report_page([early])
    assert "warm-up" not in report_page([steady])
    raw = report_page([log_of(tmp_path / "raw", [40, 60], None, total=200)])
    assert "shadow" not in raw.split("<main>")[1].split("</main>")[0]


def test_the_newest_column_of_a_long_map_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bidaf.reporting.width_map.MOST_COLUMNS", 2)
    page = report_page([run_with_map(tmp_path / "run", [[40, 40, 40]] * 3 + [[50, 50, 50]])])
    assert "step 400, half-life 10: F1 50.0" in page
    assert "step 300, half-life" not in page


def test_seeds_without_an_evaluation_in_common_have_no_band(tmp_path: Path) -> None:
    log = log_of(tmp_path / "run", [40, 60], [10, 61], total=200)
    seeds = [SeedResult(seed, replace(log, evaluations=[each]), best=each) for seed, each in enumerate(log.evaluations)]
    apart, alone = (VariantResult("full", {}, None, some, None) for some in (seeds, seeds[:1]))
    assert band_chart(cast(Results, SimpleNamespace(variants=[apart])), "f1") == ""
    assert band_chart(cast(Results, SimpleNamespace(variants=[apart, alone])), "f1") != ""
