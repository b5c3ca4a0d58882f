"""A browser without a window, for tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
try:
    from selenium import webdriver
except ImportError:
    webdriver = None

NEEDS_BROWSER = [
    pytest.mark.slow,
    pytest.mark.skipif(webdriver is None, reason="selenium is not installed"),
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium with its chromedriver"),
]
PATIENCE = 60  # seconds that a page may take on a busy machine
OPTIONS = (
    *("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "disable-quic"),
    *("no-first-run", "disable-background-networking", "disable-component-update", "disable-sync"),
    *("window-size=1280,1000", "hide-scrollbars"),
)


@contextmanager
def browser(folder: Path) -> Iterator:
    """Start Chromium with a profile in a folder, and `downloads` in it; yield its driver."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*OPTIONS, f"user-data-dir={folder / 'profile'}"):
        options.add_argument(f"--{argument}")
    downloads = {"download.default_directory": str(folder / "downloads")}
    options.add_experimental_option("prefs", downloads)
    service = webdriver.ChromeService(executable_path=DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(PATIENCE)
    try:
        yield driver
    finally:
        driver.quit()
