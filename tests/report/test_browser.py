"""The pages in a real browser: drawn without a request to anywhere and without an error.

Chromium is spoken to through a pipe, in the words of its DevTools protocol; its DNS leads nowhere.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alexnet_pl.report.claims import write_claims
from alexnet_pl.report.outputs import write_report
from tests.helpers.reports import lrn_run, make_run, rows, settings

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(not PROGRAM, reason="Chromium is not installed")]


class Browser:
    """Headless Chromium with one empty page."""

    def __init__(self, profile: Path) -> None:
        assert PROGRAM
        to_it, self.out = os.pipe()
        self.into, from_it = os.pipe()
        # It reads what it is told from descriptor 3 and answers on 4.
        flags = [
            "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1100,900",
            "--remote-debugging-pipe", f"--user-data-dir={profile}",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking", "--disable-component-update",
        ]  # fmt: skip
        command = ["bash", "-c", f'exec "$@" 3<&{to_it} 4>&{from_it}', "-", PROGRAM, *flags]
        self.process = subprocess.Popen(
            command, pass_fds=(to_it, from_it), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_it)
        os.close(from_it)
        self.events: list[dict[str, Any]] = []
        self.number, self.rest, self.session = 0, b"", ""
        page = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> Any:
        """The result of a command; events that come before it are kept."""
        self.number += 1
        said = {"id": self.number, "method": method, "params": params}
        os.write(self.out, json.dumps(said | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                more = os.read(self.into, 1 << 20)
                assert more, "the browser has ended"
                self.rest += more
            message, _, self.rest = self.rest.partition(b"\0")
            answer = json.loads(message)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def value(self, expression: str) -> Any:
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def open(self, file: Path) -> None:
        """Load a page and wait until it is drawn."""
        self.events = []
        self.ask("Page.navigate", url=file.as_uri())
        end = time.monotonic() + 60
        while self.value("document.readyState") != "complete" or self.value("location.protocol") != "file:":
            assert time.monotonic() < end, "the page is not there after a minute"
            time.sleep(0.1)
        time.sleep(1)  # for what a script might ask for later
        self.ask("Runtime.evaluate", expression="0")

    @property
    def requests(self) -> list[str]:
        """What was asked for, pieces that the page itself holds left out."""
        sent = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [url for one in sent if not (url := one["request"]["url"]).startswith(("data:", "blob:"))]

    @property
    def errors(self) -> list[Any]:
        return [
            event["params"]
            for event in self.events
            if event["method"] == "Runtime.exceptionThrown"
            or (event["method"] == "Runtime.consoleAPICalled" and event["params"]["type"] in ("error", "assert"))
            or (event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error")
        ]

    def screenshot(self, file: Path) -> None:
        """What the page looks like, from top to bottom."""
        png = self.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(png))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.process.kill()
    browser.process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports of a figure and of a sweep, and the claims that both are about."""
    root = tmp_path_factory.mktemp("runs")
    for seed in (1, 2):
        make_run(
            root / "figure1" / f"r{seed}", settings("relu", seed), rows(2 + seed / 10, 5), overrides=["sweep=figure1"]
        )
        make_run(root / "figure1" / f"t{seed}", settings("tanh", seed), rows(9 + seed, 14), overrides=["sweep=figure1"])
        for lrn, val in (("off", 0.14), ("on", 0.12)):
            lrn_run(root / "lrn", lrn, seed, val + seed / 1000, {"val/top5_error": val / 2})
    write_report(root / "figure1")
    write_report(root / "lrn")
    write_claims(root)
    return root


@pytest.mark.parametrize(("page", "lines"), [("figure1/report.html", 2), ("lrn/report.html", 2), ("claims.html", 0)])
def test_a_page_asks_for_nothing_and_fails_at_nothing(browser: Browser, folder: Path, page: str, lines: int) -> None:
    browser.open(folder / page)
    assert browser.requests == [(folder / page).as_uri()]
    assert browser.errors == []
    assert browser.value("document.querySelectorAll('.legend .traces').length") == lines
    assert browser.value("document.querySelectorAll('table').length") > 0


def test_the_browser_would_tell(browser: Browser, tmp_path: Path) -> None:
    """Requests and errors are seen where there are some."""
    (tmp_path / "bad.html").write_text("<script src='https://example.org/a.js'></script><script>nothing()</script>")
    browser.open(tmp_path / "bad.html")
    assert "https://example.org/a.js" in browser.requests
    assert len(browser.errors) >= 2


def test_a_click_on_a_name_hides_its_line_on_both_sides(browser: Browser, folder: Path) -> None:
    browser.open(folder / "lrn" / "report.html")
    x, y = browser.value(
        "(() => { const at = document.querySelectorAll('.legendtoggle')[1].getBoundingClientRect();"
        " return [at.x, at.y] })()"
    )
    for kind in ("mousePressed", "mouseReleased"):
        browser.ask("Input.dispatchMouseEvent", type=kind, x=x + 20, y=y + 8, button="left", clickCount=1)
    time.sleep(1)  # until it cannot be a double click
    hidden = "document.querySelector('.js-plotly-plot').data.filter(t => t.visible === 'legendonly').map(t => t.xaxis)"
    assert sorted(set(browser.value(hidden))) == ["x", "x2"]


def test_each_menu_changes_its_side_alone(browser: Browser, folder: Path) -> None:
    browser.open(folder / "lrn" / "report.html")
    shown = (
        "document.querySelector('.js-plotly-plot').data.filter(t => t.visible === true && t.hovertemplate)"
        ".map(t => [t.xaxis, t.y.length])"
    )
    before = browser.value(shown)
    assert before == [["x", 16], ["x", 16], ["x2", 4], ["x2", 4]]  # windows of four epochs; an error after each
    press = (
        "(() => {{ const plot = document.querySelector('.js-plotly-plot'), [menu] = plot.layout.updatemenus.slice({0}),"
        " button = menu.buttons[{1}]; return Plotly.update(plot, ...button.args) && 0; }})()"
    )
    browser.value(press.format(0, 2))  # the training subset: a point an epoch
    assert browser.value(shown) == [["x", 4], ["x", 4], ["x2", 4], ["x2", 4]]
    browser.value(press.format(1, 1))
    top5 = (
        "document.querySelector('.js-plotly-plot').data.filter(t => t.visible === true && t.xaxis === 'x2')[0].y.at(-1)"
    )
    assert browser.value(top5) == pytest.approx(0.07)
