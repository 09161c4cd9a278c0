"""The report and the attention page as a reader meets them, in a real browser."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from helpers_browser import Browser
from helpers_cli import DEV, TRAIN, Tiny, squad, succeed, write_tiny

from bidaf.device import choose_device
from bidaf.inference.explain import ExplainedQuestion, dev_examples, explain
from bidaf.inference.loading import load_weight_sets

# Whatever of this ran as markup or script would set `window.hacked`, log an error or ask for an address.
HOSTILE = (
    "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=2>\"'><svg onload=window.hacked=3> "
    "</style><style>*{display:none}</style><!-- ]]> {{ 7*7 }} &lt; $x^$ \u2028 http://127.0.0.1:9/x \U0001f600"
)

ALL = ".answers input[value=all]"
SEVERAL = [f"squad_released-20260101-12000{number}" for number in range(3)]
LISTED = ".questions summary > span:first-child"


@pytest.fixture(scope="module")
def report(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run of eight evaluations, of which the later ones lie close together."""
    folder = tmp_path_factory.mktemp("report")
    page = folder / "report.html"
    succeed("report", "tiny", "-o", page, cwd=tiny.folder)
    return page


@pytest.fixture(scope="module")
def explained(tiny: Tiny) -> ExplainedQuestion:
    """What the page of the first dev question has to show."""
    with contextlib.chdir(tiny.folder):
        models = load_weight_sets("tiny", None, choose_device("cpu"))
        features = models[0].dev_features()
    assert features is not None
    (found,) = explain(models, dev_examples(features, ["dev-0-0"]))
    return found


@pytest.fixture(scope="module")
def attention(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("explain") / "explain.html"
    succeed("explain", "dev-0-0", "dev-1-1", "-m", "tiny", "-o", page, cwd=tiny.folder)
    return page


@pytest.fixture(scope="module")
def comparison(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("comparison") / "comparison.html"
    succeed("compare", "tiny", "-o", page, cwd=tiny.folder)
    return page


@pytest.fixture(scope="module")
def several(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs with the names that runs get by default."""
    folder = tmp_path_factory.mktemp("several")
    for name in SEVERAL:
        shutil.copytree(tiny.run, folder / name, symlinks=True)
    succeed("report", *(folder / name for name in SEVERAL), "-o", folder / "report.html", cwd=tiny.folder)
    return folder / "report.html"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on texts, ids, titles and a folder name that try to be something else."""
    folder = tmp_path_factory.mktemp("hostile")
    write_tiny(folder)
    for name, pages in (("train", TRAIN), ("dev", DEV)):
        data = squad(pages, name)
        for paragraph in data["data"][0]["paragraphs"]:
            paragraph["context"] += f" {HOSTILE}"
            for asked in paragraph["qas"]:
                asked["question"] = f"{HOSTILE} {asked['question']}"
                asked["id"] += HOSTILE
                asked["answers"].append({"text": HOSTILE, "answer_start": paragraph["context"].index(HOSTILE)})
        data["data"][0]["title"] = HOSTILE
        (folder / f"{name}.json").write_text(json.dumps(data), encoding="utf-8")
    run = folder / "runs" / "<img src=x onerror=window.hacked=4> $x^$ \"'&lt;"
    succeed("train", "-c", "tiny.yaml", "--run-dir", run, "-s", "data.max_question_tokens=99", cwd=folder)
    return run


def show_everything(browser: Browser) -> None:
    """List all questions, unfold all that folds, choose words of context and question."""
    browser.click(f"{ALL}, .words span, .strip button")
    browser.open_details()


# Report


def test_the_report_shows_its_charts_and_asks_for_nothing(browser: Browser, report: Path, tiny: Tiny) -> None:
    browser.open(report)
    assert browser.run("return document.querySelector('h1').textContent") == "tiny"
    charts = browser.run(
        "return [...document.querySelectorAll('svg.chart')].map(e => [e.getAttribute('aria-label'), "
        "e.getBoundingClientRect().width, e.getBoundingClientRect().height, e.textContent])"
    )
    labels = [label for label, *_ in charts]
    for name in ("F1 of raw", "EM of raw", "shadow minus", "Distance", "looks back", "loss", "throughput", "memory"):
        assert any(name in label for label in labels), name
    for _, width, height, text in charts:
        assert width > 300
        assert height > 150
        assert "training step" in text
    assert f"best checkpoint: {tiny.last_scores()['ema']['f1']:.1f} at step 20" in charts[0][3]
    show_everything(browser)
    assert not browser.run("return document.body.innerText.match(/\\d\\.\\d{5,}/)")
    assert browser.complaints() == []
    assert browser.requests() == [report.as_uri()]


def test_without_scripts_all_but_the_list_of_questions_is_there(browser: Browser, report: Path) -> None:
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(report)
        page = browser.run("return document.body.innerText")
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "What was kept, cut and dropped" in page
    assert "The list of questions needs JavaScript" in page


def test_questions_are_filtered_searched_and_opened_by_the_keyboard_alone(
    browser: Browser, report: Path, tiny: Tiny
) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(report)
    browser.click(ALL)
    browser.focus(ALL)
    asked = {each["id"]: each for part in squad(DEV, "dev")["data"][0]["paragraphs"] for each in part["qas"]}
    assert browser.texts(LISTED) == [each["question"] for each in asked.values()]
    shadow = json.loads((tiny.run / "predictions" / "step-000020.ema.json").read_text())
    wrong = [
        each["question"] for id, each in asked.items() if shadow[id] not in [gold["text"] for gold in each["answers"]]
    ]
    browser.keys(Keys.ARROW_RIGHT)
    assert browser.texts(LISTED) == wrong
    assert browser.text(".answers [role=status]") == f"{len(wrong)} of {len(wrong)} questions"
    browser.keys(Keys.ARROW_LEFT)
    browser.focus(".answers input[type=search]")
    browser.keys("DORA live?")
    assert browser.texts(LISTED) == ["Where does Dora live?"]
    browser.keys(Keys.TAB, Keys.ENTER)
    browser.wait()
    assert browser.text("details[open] .passage") == DEV[0][0]
    assert "".join(browser.texts("details[open] mark.span-shadow")) == shadow["dev-0-0"]
    assert "".join(browser.texts("details[open] mark.span-gold")) == "in Rome"
    assert "bidaf explain dev-0-0 --model" in browser.text("details[open]")
    browser.focus(".answers input[type=search]")
    browser.keys("zebra")
    assert browser.text(".answers [role=status]") == "No question matches."
    assert browser.complaints() == []


def test_a_page_of_a_run_that_goes_on_reloads_itself_until_it_is_read(
    browser: Browser, report: Path, tmp_path: Path
) -> None:
    text = report.read_text(encoding="utf-8")
    assert 'id="reload"' not in text
    going_on = tmp_path / "report.html"
    mark = '<input type="checkbox" id="reload" data-seconds="0.5" checked>'
    going_on.write_text(text.replace("<main>", f"{mark}<main>"), encoding="utf-8")
    browser.open(going_on)
    loaded = browser.run("return performance.timeOrigin")
    deadline = time.monotonic() + 20
    while (loaded_again := browser.run("return performance.timeOrigin")) == loaded:
        assert time.monotonic() < deadline
    begin = "document.querySelector('.questions details').open = true; return performance.timeOrigin"
    reading = browser.run(begin)
    assert reading >= loaded_again
    time.sleep(1.2)
    assert browser.run("return performance.timeOrigin") == reading
    assert not browser.run("return document.querySelector('#reload').checked")


# Explain


def test_the_attention_page_tells_what_each_word_attends_to(
    browser: Browser, attention: Path, explained: ExplainedQuestion
) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(attention)
    assert browser.complaints() == []
    assert browser.requests() == [attention.as_uri()]
    words = browser.texts("[data-weights=ema] .words span")
    context = explained.example.context
    assert words == [context[start:end] for start, end in explained.context_words]
    browser.focus("[data-weights=ema] .words")
    browser.keys(*[Keys.ARROW_RIGHT] * 4)
    for weights, reading in zip(("raw", "ema"), explained.explanations, strict=True):
        row = reading.to_question[3]
        start, end = explained.question_words[int(row.argmax())]
        told = re.match("“(.*?)” attends to “(.*?)” ([0-9.]+)%", browser.text(f"[data-weights={weights}] .readout"))
        assert told is not None
        assert told.group(1, 2) == (words[3], explained.example.question[start:end])
        assert float(told[3]) == pytest.approx(100 * row.max(), abs=0.51)
        tints = browser.tints(f"[data-weights={weights}] .strip button")
        assert tints == pytest.approx((row / row.max()).tolist(), abs=0.02)
    browser.keys(Keys.ESCAPE)
    assert browser.texts(".chosen") == []


def test_a_word_of_the_question_tints_the_words_that_attend_to_it(
    browser: Browser, attention: Path, explained: ExplainedQuestion
) -> None:
    browser.open(attention)
    words = "[data-weights=raw] .words span"
    reading = explained.explanations[0]
    assert browser.tints(words) == pytest.approx((reading.to_context / reading.to_context.max()).tolist(), abs=0.01)
    browser.click("[data-weights=ema] .strip button:nth-child(2)")
    assert browser.tints(words) == pytest.approx(reading.to_question[:, 1].tolist(), abs=0.01)
    browser.click("[data-weights=ema] .strip button:nth-child(2)")
    assert browser.tints(words)[0] == pytest.approx(reading.to_context[0] / reading.to_context.max(), abs=0.01)


def test_the_heat_map_paints_the_attention_and_answers_a_tap(
    browser: Browser, attention: Path, explained: ExplainedQuestion
) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    browser.open(attention)
    browser.run("document.querySelector('[data-weights=raw] .map').scrollLeft = 0")
    reading = explained.explanations[0]
    cells = browser.run(
        """
        const canvas = document.querySelector('[data-weights=raw] canvas'), [rows, columns] = arguments;
        const cell = Math.min(40, Math.max(17, (canvas.clientWidth - 84) / columns)), found = [];
        for (let column = 0; column < Math.min(columns, 8); column++) {
          for (let row = 0; row < rows; row++) {
            const [x, y] = [84 + (column + 0.5) * cell, 78 + (row + 0.5) * 19];
            found.push(canvas.getContext('2d').getImageData(x, y, 1, 1).data[3] / 255);
          }
        }
        return found;
        """,
        len(explained.question_words),
        len(explained.context_words),
    )
    assert cells == pytest.approx(reading.to_question[:8].flatten().tolist(), abs=0.02)
    canvas = browser.driver.find_element("css selector", "[data-weights=raw] canvas")
    left = 84 + 20 - canvas.size["width"] // 2
    ActionChains(browser.driver).move_to_element_with_offset(
        canvas, left, 78 + 5 - canvas.size["height"] // 2
    ).click().perform()
    assert browser.text("[data-weights=ema] .words .chosen") == "Dora"
    assert browser.text("[data-weights=ema] .strip [aria-pressed=true]") == "Where"


def test_paper_has_the_whole_heat_map_and_the_question(browser: Browser, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(" ".join(DEV[number % 3][0] for number in range(9)), encoding="utf-8")
    asked = ("-c", tmp_path / "long.txt", "-q", "Where does Dora live?", "-q", "Who paid?", "-m", tiny.run)
    page = tmp_path / "explain.html"
    succeed("explain", *asked, "-o", page, cwd=tiny.folder)
    browser.open(page)
    words = browser.texts("[data-weights=ema] .words span")
    assert len(words) > 60
    browser.run(
        """
        addEventListener("beforeprint", () => {
          const maps = [...document.querySelectorAll(".paper svg")];
          window.printed = {
            labels: [...document.querySelectorAll(".paper text[transform]")].map((label) => label.textContent),
            widths: maps.map((map) => map.viewBox.baseVal.width),
            heading: document.querySelector("h2.paper").textContent,
          };
        });
        """
    )
    browser.driver.execute_cdp_cmd("Page.printToPDF", {})
    printed = browser.run("return window.printed")
    clipped = [word if len(word) <= 12 else f"{word[:11]}\N{HORIZONTAL ELLIPSIS}" for word in words]
    assert printed["labels"] == clipped * 2  # of each weight set, all words
    assert max(printed["widths"]) < 720  # of A4 and Letter, between the margins
    assert printed["heading"] == "Where does Dora live?"
    assert browser.texts(".paper svg") == []  # the screen is as it was
    assert browser.complaints() == []


def test_another_question_is_chosen_from_the_list(browser: Browser, attention: Path) -> None:
    browser.open(attention)
    browser.run(
        "const choice = document.querySelector('#choice'); choice.value = 1; choice.dispatchEvent(new Event('change'))"
    )
    assert browser.text(".words") == DEV[1][0]
    assert browser.complaints() == []


def test_a_context_of_400_words_stays_smooth(browser: Browser, tiny: Tiny, tmp_path: Path) -> None:
    words = " ".join(f"{DEV[number % 3][0]}" for number in range(45))
    (tmp_path / "long.txt").write_text(words, encoding="utf-8")
    question = " ".join(["Where does Dora live and who paid for it"] * 3) + "?"
    page = tmp_path / "explain.html"
    succeed("explain", "-c", tmp_path / "long.txt", "-q", question, "-m", tiny.run, "-o", page, cwd=tiny.folder)
    browser.open(page)
    count, milliseconds = browser.run(
        """
        const words = document.querySelectorAll('[data-weights=raw] .words span'), began = performance.now();
        for (let number = 0; number < 50; number++) {
          words[number].click();
          document.body.getBoundingClientRect();
        }
        return [words.length, (performance.now() - began) / 50];
        """
    )
    assert count > 400
    assert milliseconds < 100


# Both


PAGES = ["report", "several", "comparison", "attention"]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", PAGES)
def test_everybody_can_read_and_use_a_page(
    browser: Browser, name: str, dark: bool, request: pytest.FixtureRequest
) -> None:
    browser.open(request.getfixturevalue(name), dark=dark, width=390 if dark else 1200)
    show_everything(browser)
    assert browser.inaccessible() == []
    assert browser.low_contrast() == []
    paper = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is not dark


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_shows_the_page_without_scrolling_sideways(
    browser: Browser, name: str, request: pytest.FixtureRequest
) -> None:
    browser.open(request.getfixturevalue(name), width=360)
    show_everything(browser)
    assert browser.run("return document.documentElement.scrollWidth") <= 360


def test_data_never_becomes_markup_or_script(browser: Browser, hostile: Path, tmp_path: Path) -> None:
    attention, several = tmp_path / "explain.html", tmp_path / "several.html"
    ids = json.loads(max((hostile / "predictions").glob("*.n_best.json")).read_text())["answers"]["raw"]
    succeed("explain", *ids, "-m", hostile, "-o", attention, cwd=hostile.parents[1])
    succeed("report", hostile, hostile, "-o", several, cwd=hostile.parents[1])
    for page in (hostile / "report.html", several, attention):
        browser.open(page)
        show_everything(browser)
        assert browser.run("return window.hacked") is None
        assert browser.run("return document.querySelectorAll('img, body style, iframe, object').length") == 0
        assert browser.run("return getComputedStyle(document.body).display") == "block"
        assert HOSTILE.split("\u2028")[0] in browser.run("return document.body.textContent")
        assert browser.complaints() == []
        assert browser.requests() == [page.resolve().as_uri()]
    assert hostile.name in browser.text(".kicker")


def test_the_policy_stops_a_script_and_a_request_that_slipped_through(
    browser: Browser, report: Path, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    slipped = "<script>window.hacked=1</script><img src='http://127.0.0.1:9/x.png' onerror='window.hacked=2'>"
    page.write_text(report.read_text(encoding="utf-8").replace("<main>", f"<main>{slipped}"), encoding="utf-8")
    browser.open(page)
    browser.wait()
    assert browser.run("return window.hacked") is None
    complaints = browser.complaints()
    assert any("script" in each and "Content Security Policy" in each for each in complaints)
    assert any("x.png" in each and "Content Security Policy" in each for each in complaints)


# Charts


def test_a_chart_tells_its_values_to_pointer_and_keyboard(browser: Browser, report: Path, tiny: Tiny) -> None:
    browser.open(report)
    browser.run("document.querySelector('svg.chart .values circle').focus()")
    first = browser.text("output.value")
    assert first.startswith("step ")
    from selenium.webdriver.common.keys import Keys

    browser.keys(Keys.END)
    score = tiny.last_scores()["ema"]["f1"]
    assert f"{score:.4g}" in browser.text("output.value")
    browser.run("document.activeElement.blur()")
    assert browser.text("output.value").strip() == ""
    browser.run(
        "const dot = document.querySelector('svg.chart .values circle').getBoundingClientRect();"
        "document.querySelector('svg.chart').dispatchEvent(new PointerEvent('pointermove', "
        "{clientX: dot.x + 3, clientY: dot.y + 3, bubbles: true}))"
    )
    assert browser.text("output.value") == first
    stops = browser.run(
        "return [...document.querySelectorAll('svg.chart')].map("
        "chart => chart.querySelectorAll('.values circle[tabindex=\"0\"]').length)"
    )
    assert set(stops) == {1}


def test_every_evaluation_is_in_a_table_that_can_be_saved_as_csv(browser: Browser, report: Path, tiny: Tiny) -> None:
    browser.open(report)
    browser.run(
        "URL.createObjectURL = (blob) => { blob.text().then((text) => { window.saved = text; }); return 'data:,'; };"
        "document.querySelector('button[data-csv]').click()"
    )
    browser.wait()
    saved = browser.run("return window.saved")
    header, *rows = saved.splitlines()
    assert header == "step,epoch,raw EM,raw F1,ema EM,ema F1,best"
    assert float(rows[-1].split(",")[5]) == tiny.last_scores()["ema"]["f1"]


def test_a_comparison_tells_its_values(browser: Browser, comparison: Path) -> None:
    browser.open(comparison)
    browser.focus("svg.chart .values circle")
    label, difference = browser.text("output.value").split(": F1 ")
    rows = browser.run(
        "return [...document.querySelectorAll('tbody tr')].map(e => [...e.children].map(c => c.innerText))"
    )
    assert [label, difference] in [[row[0], row[4]] for row in rows]


def test_legends_show_default_run_names_and_hide_no_line(browser: Browser, several: Path) -> None:
    browser.open(several)
    charts: list[dict[str, Any]] = browser.run(
        """
        return [...document.querySelectorAll("svg.chart")].map((chart) => {
          const frame = chart.getBoundingClientRect();
          const named = [...chart.querySelectorAll("text")].filter((text) => text.textContent.startsWith("squad_"));
          const boxes = named.map((text) => text.getBoundingClientRect());
          const dots = [...chart.querySelectorAll(".values circle")].map((dot) => dot.getBoundingClientRect());
          return {
            names: named.map((text) => text.textContent),
            spare: frame.right - Math.max(...boxes.map((box) => box.right)),
            gap: Math.min(...dots.map((dot) => dot.y + dot.height / 2)) - Math.max(...boxes.map((box) => box.bottom)),
          };
        });
        """
    )
    assert len(charts) >= 5
    for chart in charts:
        assert chart["names"] == SEVERAL
        assert chart["spare"] > 0
        assert chart["gap"] > 0
