"""The page in a real browser: two raters, keys, boxes, undo, skip, Chinese, a phone's width, a server that falls."""

import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from PIL import Image

from fooddit.rating.database import open_database
from fooddit.rating.records import Settings
from fooddit.rating.store import Store
from fooddit.standards import load_standard

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs Debian's chromium and chromium-driver"),
    pytest.mark.xdist_group("browser"),
]
PHOTOS = load_standard("photos")
HOSTILE = "<img src=x onerror=\"document.title='hacked'\"> 汤"


class Server:
    """`fooddit rate serve` as a process that can be killed and started again."""

    def __init__(self, database: str):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._command = [
            sys.executable,
            "-m",
            "fooddit",
            "rate",
            "serve",
            "--database",
            database,
            "--port",
            str(self.port),
        ]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/").close()
                return
            except OSError:
                assert self._process.poll() is None and time.monotonic() < until
                time.sleep(0.1)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@pytest.fixture(scope="module")
def browser():
    """One process of the browser; a page that a test opens is its own."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-sync"):
        options.add_argument(flag)
    with pytest.MonkeyPatch.context() as patch:
        # The driver is asked over loopback, whatever proxy there is.
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        yield driver
        driver.quit()


@pytest.fixture
def place(tmp_path, url):
    """(server, store, links of two raters) of a project of three pictures for two raters each."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in "abc":
        Image.new("RGB", (300, 200), "orange").save(pictures / f"{name}.png")
    store = Store(open_database(url))
    project = store.add_project("menu", str(pictures), PHOTOS, settings=Settings(raters=2))
    store.add_items(project, [(name, [f"{name}.png"], {"caption": HOSTILE}) for name in "abc"])
    store.open_round(project)
    tokens = [store.add_rater(name) for name in ("Ana", "明")]
    server = Server(url)
    yield server, store, [f"http://127.0.0.1:{server.port}/#token={token}" for token in tokens]
    server.kill()


class Page:
    """A window of the browser, as somebody sits before it."""

    def __init__(self, browser, link: str, size: tuple[int, int] = (1200, 800)):
        self._browser = browser
        browser.switch_to.new_window("window")
        self._window = browser.current_window_handle
        browser.set_window_size(*size)
        browser.get(link)
        self.wait("#question h2, #message:not([hidden])")

    def __enter__(self):
        self._browser.switch_to.window(self._window)
        return self

    def __exit__(self, *error):
        pass

    def run(self, script: str, *arguments):
        return self._browser.execute_script(script, *arguments)

    def wait(self, selector: str, holds: str = "true", seconds: float = 20):
        """The first element of a selector for which `holds` (JavaScript of `e`) is true."""
        until = time.monotonic() + seconds
        script = f"const e = document.querySelector(arguments[0]); return e && ({holds}) ? e : null"
        while (found := self.run(script, selector)) is None:
            assert time.monotonic() < until, f"{selector}: not {holds} within {seconds} s"
            time.sleep(0.05)
        return found

    def text(self, selector: str) -> str:
        return self.wait(selector).text

    def press(self, keys: str) -> None:
        from selenium.webdriver import ActionChains

        for key in keys:
            ActionChains(self._browser, duration=0).send_keys(key).perform()

    def rate(self, level: int) -> None:
        """Every question by its key, then Enter; returns when the next picture is there."""
        before = self.text("#progress")
        self.press(str(level) * len(PHOTOS.subs))
        self.press("\ue007")
        self.wait("#progress", f"e.textContent !== {before!r}")

    def drag(self, selector: str, start: tuple[float, float], end: tuple[float, float]) -> None:
        """In shares of an element."""
        from selenium.webdriver import ActionChains

        element = self.wait(selector)
        width, height = element.size["width"], element.size["height"]
        offset = lambda place: (round((place[0] - 0.5) * width), round((place[1] - 0.5) * height))
        chain = ActionChains(self._browser, duration=50).move_to_element_with_offset(element, *offset(start))
        chain.click_and_hold().move_to_element_with_offset(element, *offset(end)).release().perform()


def said(store, round=None) -> dict:
    return {(label.key, label.rater): label for label in store.given(1, round)}


def test_two_raters_at_once_differ_are_asked_again_and_agree(browser, place):
    server, store, links = place
    pages = [Page(browser, link) for link in links]
    for level, page in zip((1, 3), pages):
        with page:
            for _ in range(3):
                page.rate(level)
            assert page.wait("#message:not([hidden])").text
            page.run("localStorage.clear()")
    assert len(said(store)) == 6
    from fooddit.rating.protocol import ratings_of, to_ask_again

    why = to_ask_again(ratings_of(store.given(1), tuple(PHOTOS.subs)), 1)
    assert store.open_round(1, "again", why) == 2
    for link in links:
        with Page(browser, link) as page:
            assert (
                "1, 3" in page.text("#why")
                and page.run("return document.querySelectorAll('#overview .asks').length") == 17
            )
            for _ in range(3):
                page.rate(2)
    assert to_ask_again(ratings_of(store.given(1), tuple(PHOTOS.subs)), 0) == {} and len(store.given(1)) == 12


def test_boxes_undo_skip_and_hostile_texts(browser, place):
    server, store, links = place
    with Page(browser, links[0]) as page:
        page.wait(".frame img", "e.complete && e.naturalWidth === 300")
        assert page.text("#caption") == HOSTILE and page.run("return document.title") == "fooddit rate"
        page.run("document.querySelector('#anomalies').open = true")
        page.wait(".kinds button").click()
        page.drag(".frame", (0.25, 0.2), (0.75, 0.6))
        page.wait("#anomalies input").send_keys("watermark")
        page.run("document.activeElement.blur()")
        page.rate(3)
        [label] = said(store).values()
        [box] = label.values["boxes"]
        assert box["anomaly"] == "text" and box["note"] == "watermark"
        assert box["box"] == pytest.approx([0.25, 0.2, 0.75, 0.6], abs=0.02)
        # Undo brings picture, levels and boxes back; nothing of it counts meanwhile.
        page.press("u")
        page.wait("#overview .given")
        page.wait(".frame .box")
        assert said(store) == {}
        page.press("2\ue007")
        page.wait("#progress", "e.textContent.includes('1 of 3')")
        [label] = said(store).values()
        assert label.revision == 3 and label.values["levels"]["form.whole"] == 2 and label.values["boxes"] == [box]
        # A reason is needed.
        page.press("s")
        page.wait("#reason[open] input").send_keys("not a dish\ue007")
        page.wait("#progress", "e.textContent.includes('2 of 3')")
        assert sorted(label.kind for label in said(store).values()) == ["levels", "skip"]


def test_chinese_at_a_phones_width(browser, place):
    server, store, links = place
    with Page(browser, links[1], (390, 844)) as page:
        page.run("localStorage.setItem('language', 'zh')")
        page._browser.refresh()
        page.wait("#question h2", "e.textContent === '完整'")
        assert page.text("#skip") == "跳过" and page.run("return document.documentElement.lang") == "zh"
        assert page.run("return document.documentElement.scrollWidth <= innerWidth")
        # All by touch: the question is on the screen, its levels are as large as a thumb.
        for _ in PHOTOS.subs:
            button = page.wait(".levels button:nth-child(2)")
            assert button.size["height"] >= 40
            page.run("arguments[0].click()", button)
        page.wait("#submit:not([disabled])").click()
        page.wait("#progress", "e.textContent.includes('1 / 3')")
        page.run("localStorage.clear()")
    [label] = said(store).values()
    assert set(label.values["levels"].values()) == {2} and label.rater == "明"


def test_a_server_that_falls_loses_no_confirmed_label_and_gets_the_one_on_its_way(browser, place):
    server, store, links = place
    with Page(browser, links[0]) as page:
        page.rate(2)
        server.kill()
        page.press("3" * len(PHOTOS.subs) + "\ue007")
        page.wait("#toast.wrong:not([hidden])")
        server.start()
        page.wait("#progress", "e.textContent.includes('2 of 3')")
        assert page.run("return localStorage.getItem('unsent')") is None
    assert sorted(label.values["levels"]["form.whole"] for label in said(store).values()) == [2, 3]
