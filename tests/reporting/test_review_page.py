"""The page of `jawloc review --sheet`, as a browser shows it and a person uses it.

The screenshot is kept in the folder that JAWLOC_SCREENSHOTS names, else in pytest's own.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jawloc.reporting.review_sheet import write_review_sheet
from jawloc.scans.points.review import Review, read_review, review_text
from tests.browser import NEEDS_BROWSER, PATIENCE, browser
from tests.reporting.test_location_text import failed, row

try:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait
except ImportError:
    pass  # the tests are skipped

pytestmark = NEEDS_BROWSER
EARLIER = Review(
    "good", "jaw", "accepted", (10.0, 10.0, 10.0), "Ana", "2026-01-02T03:04:05Z", "m", "p"
)
OTHER = replace(EARLIER, scan="other, one", position_voxels_zyx=(1.5, 2.0, 3.0))
HOSTILE = "=<img src=x onerror=alert(1)>\udce9 \"'&"


class Sheet:
    """The page in a browser."""

    def __init__(self, driver, page: Path, downloads: Path) -> None:
        self.driver, self.page, self.downloads = driver, page, downloads

    def open(self) -> None:
        self.driver.get(self.page.as_uri())

    def reopen(self) -> bool:
        """Close the page and open it again; return whether the browser has kept the test's item."""
        self.driver.get("about:blank")
        self.open()
        return self.driver.execute_script("return localStorage.getItem('of the test') === '1'")

    def press(self, *keys: str) -> None:
        """Press real keys, which go to what has the focus."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def text(self, css: str) -> str:
        return self.driver.find_element(By.CSS_SELECTOR, css).text

    @property
    def order(self) -> list[str]:
        return [found.text for found in self.driver.find_elements(By.TAG_NAME, "h2")]

    @property
    def said(self) -> list[str]:
        return [found.text for found in self.driver.find_elements(By.CLASS_NAME, "said")]

    @property
    def current(self) -> str:
        return self.text("article.current h2")

    def saved(self) -> Path:
        """Press the button, and return the file that the browser has saved."""
        self.driver.find_element(By.ID, "save").click()
        path = self.downloads / "review.csv"
        WebDriverWait(self.driver, PATIENCE, 0.05).until(lambda _: path.exists())
        return path


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for name in ("pictures", "thumbnails"):
        (folder / name).mkdir()
        Image.fromarray(np.full((24, 32, 3), 90, np.uint8)).save(folder / name / "a.png")
    rows = [
        row("good", picture_file="pictures/a.png"),
        row(HOSTILE, "uncertain", 4.0, reason="<b>wide</b>", picture_file="pictures/a.png"),
        row("lost", "not found"),
        row("fine", spread=2.0, radius_voxels=2.5, confidence=0.9, path="/d/a\rb,c.dcm"),
        failed("broken"),
    ]
    page = folder / "review.html"
    write_review_sheet(page, folder, rows, earlier=[EARLIER, OTHER], reviewer="Ana")
    return folder


@pytest.fixture(scope="module")
def opened(results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    with browser(folder) as driver:
        yield Sheet(driver, results / "review.html", folder / "downloads")


@pytest.fixture
def sheet(opened):
    """The page in a browser that has kept nothing of it, but an item of the test's own."""

    def keeps(driver):
        driver.execute_script("localStorage.clear(); localStorage.setItem('of the test', '1')")
        return opened.reopen()

    opened.open()
    WebDriverWait(opened.driver, PATIENCE, 1.0).until(keeps)
    return opened


def decide_all(sheet) -> list[str]:
    """Accept, correct, mark as absent, skip; return what the page says of each position."""
    assert sheet.order == ["broken", "lost", HOSTILE.replace("\udce9", "\ufffd"), "fine", "good"]
    assert sheet.text("#left") == "4 of 5 left"
    assert sheet.current == "broken"
    sheet.press("a")  # there is nothing to accept
    assert sheet.current == "broken"
    sheet.press("s")
    assert sheet.current == "lost"
    sheet.press("x")
    sheet.press("m")
    sheet.press("12,25", Keys.TAB)
    sheet.press("-")
    assert sheet.said[2] == "! z, y and x must be numbers from -0.5 on"
    assert sheet.text("#left") == "2 of 5 left"
    sheet.press("0", Keys.TAB)
    sheet.press("7.1234567", Keys.ENTER)
    assert sheet.current == "fine"
    sheet.press("k", "j", "a")
    assert sheet.text("#left") == "all 5 decided"
    sheet.driver.find_element(By.ID, "reviewer").send_keys(" B.")

    said = sheet.said
    assert said == [
        *("✓ skipped by Ana", "✓ not in this scan by Ana", "✓ moved by Ana"),
        *("✓ accepted by Ana", "✓ accepted by Ana"),
    ]
    return said


def test_a_person_decides_by_keys_and_saves_what_python_reads(sheet):
    """Decide, close the page, open it again, and save."""
    said = decide_all(sheet)
    if (
        not sheet.reopen()
    ):  # seen on a busy machine: the browser has lost what isn't the page's, too
        decide_all(sheet)
        assert sheet.reopen()
    assert sheet.said == said
    assert sheet.driver.find_element(By.ID, "reviewer").get_attribute("value") == "Ana B."
    kept = Path(os.environ.get("JAWLOC_SCREENSHOTS") or sheet.downloads.parent)
    sheet.driver.save_screenshot(str(kept / "review.png"))

    saved = sheet.saved()
    good, hostile, lost, fine, broken, other = reviews = read_review(saved)
    assert (good, other) == (EARLIER, OTHER)
    assert (hostile.scan, hostile.verdict) == (HOSTILE, "moved")
    assert hostile.position_voxels_zyx == (12.25, 0.0, 7.123457)
    assert (lost.verdict, lost.position_voxels_zyx) == ("absent", None)
    assert (fine.verdict, fine.position_voxels_zyx) == ("accepted", (10.0, 10.0, 10.0))
    assert (fine.path, fine.model, fine.reviewer) == ("/d/a\rb,c.dcm", "m", "Ana")
    assert (broken.object, broken.verdict) == (None, "skipped")
    assert saved.read_bytes() == review_text(reviews).encode("utf-8", "surrogateescape")


def test_the_pages_policy_refuses_nothing_of_its_own_and_decisions_can_be_undone(sheet):
    sheet.press("k", "j", "s", "u")
    assert sheet.said[1] == ""
    assert sheet.current == "lost"
    sheet.driver.find_elements(By.CSS_SELECTOR, "input[value=absent]")[0].click()
    assert sheet.said[0] == "✓ not in this scan by Ana"
    sheet.driver.find_elements(By.CSS_SELECTOR, "[data-axis='1']")[-1].send_keys("5")
    assert sheet.said[-1] == "✓ moved by Ana"
    sheet.driver.find_elements(By.CSS_SELECTOR, "input[value=accepted]")[-1].click()
    assert sheet.said[-1] == "✓ accepted by Ana"
    size = "return getComputedStyle(document.querySelector('header')).position"
    assert sheet.driver.execute_script(size) == "sticky"  # its style is in use
    assert [entry["message"] for entry in sheet.driver.get_log("browser")] == []


def test_undo_takes_back_the_last_decision_and_not_one_of_the_card_it_led_to(sheet):
    """Regression: u deleted the decision of the next card, perhaps another person's."""
    sheet.press("u")  # nothing has been decided here
    assert sheet.said == ["", "", "", "", "✓ accepted by Ana"]
    sheet.press("s", "x", "j", "a")  # which leads to a card that has a decision
    assert sheet.current == "good"
    sheet.press("s", "u")
    assert sheet.said[4] == "✓ accepted by Ana"
    sheet.press("u")
    assert sheet.current == "fine"
    assert sheet.said[3:] == ["", "✓ accepted by Ana"]
    sheet.press("k", "m")
    sheet.press("1")
    sheet.press("2", Keys.ESCAPE)
    sheet.press("u")  # of all that was typed
    assert sheet.said == [
        *("✓ skipped by Ana", "✓ not in this scan by Ana", "", "", "✓ accepted by Ana")
    ]
    sheet.press("u", "u", "u")
    assert sheet.current == "broken"
    assert sheet.text("#left") == "4 of 5 left"


def test_what_is_undone_stays_so_until_review_csv_has_a_later_decision(sheet, results):
    """Regression: an undone decision hid all that review.csv said of the position, for ever."""
    rows = [row("lost", "not found"), row("good", picture_file="pictures/a.png")]
    made = replace(EARLIER, scan="lost", verdict="absent", position_voxels_zyx=None)
    page = results / "again.html"

    def open_with(*earlier: Review) -> list[str]:
        write_review_sheet(page, results, rows, earlier=earlier)
        sheet.driver.get(page.as_uri())
        return sheet.said

    assert open_with() == ["", ""]
    sheet.press("k", "j", "k", "x")
    (kept,) = sheet.driver.execute_script(
        "return Object.values(localStorage).filter((item) => item.includes('absent'))"
    )
    saved = replace(made, time=json.loads(kept)["time"])
    sheet.press("u")
    assert open_with(saved) == ["", ""]  # it was saved before it was undone
    later = replace(made, reviewer="Ben", time="2199-01-02T03:04:05Z")
    assert open_with(later) == ["✓ not in this scan by Ben", ""]
