"""The page of `bidaf serve` as a visitor meets it, in a real browser."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from helpers_browser import Browser
from helpers_cli import DEV
from helpers_serve import Running, running

from bidaf.serve.limits import Limits
from bidaf.serve.service import Service

CONTEXT, QUESTION = DEV[0][0], "Where does Dora live?"
WIDTHS = (1400, 800, 390)
HOSTILE = (
    "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=2>\"'><svg onload=window.hacked=3> "
    "</textarea><style>*{display:none}</style> {{ 7*7 }} &lt; http://127.0.0.1:9/x \U0001f600"
)


@pytest.fixture
def page(browser: Browser, server: Running) -> Iterator[Browser]:
    """The page, just opened, with no history."""
    browser.open(server.address)
    browser.run("sessionStorage.clear()")
    browser.open(f"{server.address}?")  # another address, or a fragment would be all that changes
    yield browser
    assert browser.run("return window.hacked") is None
    assert browser.complaints() == []
    assert {each.partition("/")[0] for each in _elsewhere(browser, server)} == set()


def _elsewhere(browser: Browser, server: Running) -> list[str]:
    return [each for each in browser.requests() if not each.startswith((server.address, "data:"))]


def fill(page: Browser, context: str, question: str) -> None:
    script = "document.getElementById('context').value = arguments[0];"
    page.run(f"{script} document.getElementById('question').value = arguments[1]", context, question)


def ask(page: Browser, context: str = CONTEXT, question: str = QUESTION) -> None:
    """Fill both fields, ask and wait until there is something to read."""
    fill(page, context, question)
    page.click("#ask .primary")
    settle(page)


def settle(page: Browser, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while page.run("return document.getElementById('status').textContent"):
        assert time.monotonic() < deadline
        page.wait(20)


def shown_sets(page: Browser) -> list[str]:
    return list(page.run("return [...document.querySelectorAll('.explanation')].map(each => each.dataset.weights)"))


def best(service: Service, weights: str, context: str = CONTEXT, question: str = QUESTION) -> str:
    return service.predictors[weights].ask(question, context)[0].text


@pytest.mark.parametrize("width", WIDTHS)
def test_a_question_is_answered_at_every_width(page: Browser, server: Running, service: Service, width: int) -> None:
    page.open(f"{server.address}?{width}", width=width)
    ask(page)
    assert shown_sets(page) == ["raw", "ema"]
    for weights in ("raw", "ema"):
        answer = best(service, weights)
        marked = page.texts(f"[data-weights={weights}] .words .in-answer")
        assert "".join(marked) == "".join(answer.split())
        rows = page.texts(f"[data-weights={weights}] tbody tr")
        assert rows[0].startswith(answer)
        assert rows[0].endswith("%")
        assert len(rows) == 5
    assert page.run("return document.documentElement.scrollWidth") <= width
    small = page.run(
        """
        const targets = [...document.querySelectorAll("button, input:not([type=checkbox]), textarea, summary")];
        return targets.filter((each) => each.checkVisibility() && each.getBoundingClientRect().height < 24).length;
        """
    )
    assert small == 0  # WCAG 2.2, 2.5.8


@pytest.mark.parametrize("dark", [False, True])
def test_everybody_can_read_and_use_the_pages(page: Browser, server: Running, dark: bool) -> None:
    for path in ("?dark", "api"):
        page.open(f"{server.address}{path}", dark=dark)
        if path != "api":
            ask(page)
            page.click("#dev summary")
            page.wait(300)
            ask(page, " ")
        assert page.inaccessible() == []
        assert page.low_contrast() == []
        paper = page.run("return getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") is not dark


def test_assistive_technology_can_use_both_pages(page: Browser, server: Running) -> None:
    ask(page)
    page.click("#dev summary")
    page.wait(300)
    assert page.inaccessible() == []
    page.open(f"{server.address}api")
    assert page.inaccessible() == []


def test_weight_sets_are_switched_and_at_least_one_is_asked(page: Browser) -> None:
    ask(page)
    page.click("input[value=raw]")
    settle(page)
    assert shown_sets(page) == ["ema"]
    page.click("input[value=ema]")
    settle(page)
    assert "weight set" in page.text("#problem")
    page.click("input[value=raw]")
    settle(page)
    assert shown_sets(page) == ["raw"]
    assert page.text("#problem") == ""


def test_all_is_done_by_the_keyboard(page: Browser) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    assert page.run("return document.activeElement.id") == "context"
    page.keys(CONTEXT, Keys.TAB, QUESTION, Keys.ENTER)
    settle(page)
    assert shown_sets(page) == ["raw", "ema"]
    page.focus("[data-weights=ema] .words")
    page.keys(*[Keys.ARROW_RIGHT] * 2)
    assert page.text("[data-weights=raw] .readout").startswith(f"“{CONTEXT.split()[1]}” attends to “")
    page.focus("#context")
    page.run("document.getElementById('question').value = 'How many?'")
    ActionChains(page.driver).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    settle(page)
    assert "".join(page.texts("h2.paper")) == "How many?"


def test_a_chosen_word_shows_what_it_attends_to(page: Browser, service: Service) -> None:
    ask(page)
    page.click("[data-weights=raw] .words span:nth-child(3)")
    assert page.text("[data-weights=ema] .words .chosen") == page.text("[data-weights=raw] .words .chosen")
    assert "%" in page.text("[data-weights=ema] .readout")
    assert max(page.tints("[data-weights=ema] .strip button")) == pytest.approx(1)


def test_an_empty_text_is_an_error_that_goes_away(page: Browser) -> None:
    ask(page, " \n ")
    assert "passage is empty" in page.text("#problem")
    assert page.run("return document.getElementById('context').ariaInvalid") == "true"
    ask(page, CONTEXT, "")
    assert "question is empty" in page.text("#problem")
    assert shown_sets(page) == []
    ask(page, "\u200b")  # blank to the model, though not to the page
    assert "context is empty" in page.text("#problem")
    ask(page)
    assert page.text("#problem") == ""
    assert shown_sets(page) == ["raw", "ema"]
    page.driver.get_log("browser")  # Chromium reports the refused request


def test_what_the_server_refuses_is_shown(browser: Browser, service: Service) -> None:
    with running(service, Limits(body_bytes=1000)) as server:
        browser.open(server.address)
        ask(browser, "long " * 1000)
        assert "larger than 1,000 bytes" in browser.text("#problem")
        ask(browser)
        assert shown_sets(browser) == ["raw", "ema"]
    ask(browser)
    assert "still running" in browser.text("#problem")
    assert shown_sets(browser) == []


def test_a_text_of_300_000_characters_is_answered_and_shown_around_the_answer(page: Browser) -> None:
    sentence = f"{CONTEXT} In 1815 the blue ship came to Kiel. "
    page.click("input[value=ema]")
    ask(page, sentence * (300_000 // len(sentence)))
    assert shown_sets(page) == ["raw"]
    assert page.text("#cut").startswith("Words ")
    assert len(page.texts(".words span")) == 2_000
    assert page.texts(".words .in-answer")
    page.click(".words span:nth-child(5)")
    assert "attends to" in page.text(".readout")
    assert page.run("return document.getElementById('history').checkVisibility()")


def test_markup_in_a_text_stays_text(page: Browser, server: Running) -> None:
    context = f"{HOSTILE} {CONTEXT}"
    ask(page, context, f"{QUESTION} {HOSTILE}")
    assert page.text("[data-weights=raw] .words") == context
    assert page.run("return document.querySelectorAll('main img, main style, main script').length") == 0
    page.driver.refresh()
    settle(page)
    assert page.text("[data-weights=raw] .words") == context
    page.open(f"{server.address}dev?search={HOSTILE}")
    assert page.run("return document.querySelectorAll('img, script').length") == 0


def test_the_address_restores_the_question_and_back_the_one_before(page: Browser, server: Running) -> None:
    page.click("input[value=raw]")
    ask(page)
    first = page.driver.current_url
    ask(page, DEV[1][0], "Where?")
    page.driver.back()
    page.wait(200)
    settle(page)
    assert page.run("return document.getElementById('question').value") == QUESTION
    page.open(f"{server.address}api")
    page.open(first)
    settle(page)
    assert page.run("return document.getElementById('context').value") == CONTEXT
    assert shown_sets(page) == ["ema"]
    assert not [each for each in page.requests() if "Dora" in each.partition("#")[0]]  # no server learns it from a link


def test_earlier_questions_are_asked_again_and_forgotten(page: Browser) -> None:
    ask(page)
    ask(page, DEV[1][0], "Where?")
    ask(page)
    assert page.texts("#history button span:first-child")[:2] == [QUESTION, "Where?"]
    page.click("#history li:nth-child(2) button")
    settle(page)
    assert page.text(".words") == DEV[1][0]
    page.click("#clear")
    assert not page.run("return document.getElementById('history').checkVisibility()")


def test_a_question_of_the_dev_set_is_found_and_compared_with_its_gold_answers(page: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    page.click("#dev summary")
    page.focus("#search")
    page.keys("DORA live")
    page.wait(500)
    assert page.texts("#choices button span:first-child") == [QUESTION]
    page.click("#choices button")
    settle(page)
    assert page.text(".words") == CONTEXT
    assert "".join(page.texts("[data-weights=raw] .in-gold")) == "inRome"
    page.focus("#search")
    page.keys("zebra", Keys.TAB)
    page.wait(500)
    assert page.text("#found") == "No question matches."


def test_the_last_question_wins(page: Browser) -> None:
    fill(page, f"{CONTEXT} " * 800, QUESTION)
    page.click("#ask .primary")
    ask(page, DEV[1][0], "Where?")
    page.wait(500)
    assert page.text(".words") == DEV[1][0]
    assert page.text("#problem") == ""
