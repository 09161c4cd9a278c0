"""A page in headless Chromium: what it logs, what it asks the network for, and whether its text can be read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)

# Text nodes that can be seen, with the contrast of their colour to what lies behind them (WCAG 2, 1.4.3).
LOW_CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
function rgba(color) {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = color;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
}
const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
function luminance(color) {
  const linear = (c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * linear(color[0]) + 0.7152 * linear(color[1]) + 0.0722 * linear(color[2]);
}
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let seen = 0;
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
  const style = getComputedStyle(element), svg = element.closest("svg");
  let behind = [255, 255, 255, 1];
  const chain = [];
  for (let each = element; each; each = each.parentElement) chain.unshift(getComputedStyle(each).backgroundColor);
  for (const color of chain) behind = over(rgba(color), behind);
  const ink = over(rgba(svg ? style.fill : style.color), behind);
  const [light, dark] = [luminance(ink), luminance(behind)].sort((a, b) => b - a);
  const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
  seen += 1;
  if ((light + 0.05) / (dark + 0.05) < (large ? 3 : 4.5)) found.push(walker.currentNode.data.trim().slice(0, 40));
}
return [seen, found];
"""


class Browser:
    """One Chromium; pages are opened from the disk, or from a server of this machine."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path | str, *, width: int = 1200, dark: bool = False) -> None:
        """Load a page in a window of this width; what earlier pages logged is forgotten."""
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get(page if isinstance(page, str) else page.resolve().as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def texts(self, selector: str) -> list[str]:
        """What stands in all elements of this kind, in order."""
        return list(self.run("return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector))

    def text(self, selector: str) -> str:
        """What stands in the first one."""
        return self.texts(selector)[0]

    def tints(self, selector: str) -> list[float]:
        """How strongly elements are tinted, 0 to 1."""
        script = "return [...document.querySelectorAll(arguments[0])].map(e => +e.style.getPropertyValue('--w'))"
        return list(self.run(script, selector))

    def click(self, selector: str) -> None:
        """Click on all elements of this kind, in order."""
        self.run("document.querySelectorAll(arguments[0]).forEach(e => e.click())", selector)

    def focus(self, selector: str) -> None:
        """Put the focus on the first one."""
        self.run("document.querySelector(arguments[0]).focus()", selector)

    def open_details(self) -> None:
        """Unfold all that can be unfolded, and wait until it is drawn."""
        self.run("document.querySelectorAll('details').forEach(e => e.open = true)")
        self.wait()

    def seconds_to_open(self, page: Path) -> float:
        """Processor time of the page's thread until it stands."""
        self.driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        self.open(page)
        metrics = self.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        return float(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))

    def wait(self, milliseconds: int = 60) -> None:
        """Let the page do what it has begun."""
        self.run("return new Promise(done => setTimeout(done, arguments[0]))", milliseconds)

    def keys(self, *keys: str) -> None:
        """Type into whatever has the focus."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def complaints(self) -> list[str]:
        """Errors and warnings of the page, refusals of its policy among them."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses that the page asked for, its own among them."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]

    def inaccessible(self) -> list[str]:
        """What axe finds, except contrast: `low_contrast` is faster and sees the text of charts too."""
        package = pytest.importorskip("axe_core_python", reason="axe is not installed: pip install -e '.[test]'")
        self.run((Path(package.__path__[0]) / "axe.min.js").read_text(encoding="utf-8"))
        found = self.run(
            "const options = { resultTypes: ['violations'], rules: { 'color-contrast': { enabled: false } } };"
            "return axe.run(options).then((results) => results.violations)"
        )
        return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found]

    def low_contrast(self) -> list[str]:
        """Texts that fail WCAG AA."""
        seen, found = self.run(LOW_CONTRAST)
        assert seen > 10
        return list(found)


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile; the test is skipped where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install -e '.[test]'")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("Chromium and its driver are not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    session = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield Browser(session)
    finally:
        session.quit()
