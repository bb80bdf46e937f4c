"""The page in headless Chromium, driven through its DevTools pipe."""

import base64
import itertools
import json
import os
import shutil
import subprocess

import pytest

from data_tools.formats.reader import open_dataset
from data_tools.view.page import render_page
from data_tools.view.sheets import Labelled
from data_tools.writer import EpisodeWriter

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
EVIL = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='o'\">"

pytestmark = pytest.mark.skipif(
    not BROWSER, reason="no chromium here: `make browser` installs Debian's, as CI does"
)


class Browser:
    """A headless Chromium that answers DevTools commands; keeps what it was told in `events`."""

    def __init__(self, profile):
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        self._process = subprocess.Popen(
            [
                "bash", "-c", 'exec "$@" 3<&"$IN" 4>&"$OUT"', "bash", BROWSER, "--headless=new",
                "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                f"--user-data-dir={profile}", "--window-size=1280,1600", "--remote-debugging-pipe",
            ],
            env=os.environ | {"IN": str(to_browser), "OUT": str(from_browser)},
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self._ids, self._buffer, self._session = itertools.count(1), b"", None
        self.events: list[dict] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == number:
                assert "error" not in told, told
                return told["result"]
            self.events.append(told)

    def open(self, url):
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def js(self, expression):
        told = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def close(self):
        self._process.terminate()
        self._process.wait(20)
        os.close(self._write)
        os.close(self._read)

    def _next(self):
        while b"\0" not in self._buffer:
            data = os.read(self._read, 1 << 20)
            assert data, "the browser closed its pipe"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def page(browser, tmp_path, conventions, make_episode):
    """Opens the page of three episodes, the second one of which has a hostile instruction."""
    with EpisodeWriter(tmp_path / "demos.hdf5", conventions) as writer:
        for seed, instruction in enumerate(("push the red block", EVIL, "lift it")):
            writer.add(**make_episode(seed, instruction=instruction))
    dataset = open_dataset(tmp_path / "demos.hdf5")
    shown = [Labelled(place, dataset[place]) for place in range(3)]
    html = tmp_path / "page.html"
    html.write_text(render_page(dataset, "demos", shown, ["front", "wrist"], findings=[]))
    browser.open(html.as_uri())
    return browser


def test_the_page_loads_without_an_error_and_asks_no_network(page):
    requests = [e for e in page.events if e.get("method") == "Network.requestWillBeSent"]
    urls = [event["params"]["request"]["url"] for event in requests]
    assert [url for url in urls if not url.startswith("data:")] == urls[:1]
    assert urls[0].startswith("file://")
    bad = ("Runtime.exceptionThrown", "Log.entryAdded")
    assert [event for event in page.events if event.get("method") in bad] == []


def test_an_instruction_with_a_script_is_shown_as_text(page):
    assert page.js("document.title") == "demos"
    assert page.js("document.querySelectorAll('.player h3')[1].textContent") == f"1. {EVIL}"
    assert page.js("document.querySelectorAll('script').length") == 4


def test_the_policy_of_the_page_blocks_any_other_script(page):
    page.js("const s = document.createElement('script'); s.textContent = 'document.title = 1';"
            "document.body.append(s)")  # fmt: skip
    assert page.js("document.title") == "demos"


def test_moving_the_slider_moves_frames_cursor_and_values(page):
    page.js("window.p = document.querySelector('.player');"
            "window.before = p.querySelector('img').src;"
            "p.querySelector('input').value = 12;"
            "p.querySelector('input').dispatchEvent(new Event('input'))")  # fmt: skip
    assert page.js("p.querySelector('.when').textContent") == "step 12, 1.20 s"
    assert page.js("p.querySelector('img').src !== before")
    assert (
        page.js(
            "(async () => { const i = p.querySelector('img');"
            "await i.decode(); return i.naturalWidth })()"
        )
        == 48
    )
    x = float(page.js("p.querySelector('.cursor').getAttribute('x1')"))
    assert x == pytest.approx(300 * 12 / 19)
    shown = float(page.js("p.querySelector('.now').textContent"))
    data = page.js("JSON.parse(p.querySelector('script').textContent).values[12][0]")
    assert shown == data


def test_a_click_into_a_curve_goes_to_that_step(page):
    box = page.js("(() => { const b = document.querySelectorAll('.plot svg')[1];"
                  "b.scrollIntoView({block: 'center'}); const r = b.getBoundingClientRect();"
                  "return [r.left, r.top, r.width, r.height] })()")  # fmt: skip
    place = {"x": box[0] + box[2] * 0.5, "y": box[1] + box[3] / 2, "button": "left"}
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, clickCount=1, **place)
    assert page.js("document.querySelector('.when').textContent") in (
        "step 9, 0.90 s", "step 10, 1.00 s",
    )  # fmt: skip


def test_play_runs_to_the_end_and_stops(page):
    page.js("window.p = document.querySelectorAll('.player')[2]; p.querySelector('button').click()")
    assert page.js("p.querySelector('button').textContent") == "Pause"
    ended = page.js(
        "new Promise(done => { const t = setInterval(() => {"
        "if (p.querySelector('button').textContent === 'Play') { clearInterval(t); done("
        "p.querySelector('.when').textContent) } }, 20) })"
    )
    assert ended == "step 19, 1.90 s"


@pytest.mark.parametrize("width", [1280, 420])
def test_nothing_is_wider_than_the_window(page, width):
    page.call("Emulation.setDeviceMetricsOverride",
              width=width, height=900, deviceScaleFactor=1, mobile=False)  # fmt: skip
    assert page.js("document.documentElement.scrollWidth") <= width
    shot = base64.b64decode(page.call("Page.captureScreenshot", format="png")["data"])
    assert shot.startswith(b"\x89PNG")
    page.call("Emulation.clearDeviceMetricsOverride")
