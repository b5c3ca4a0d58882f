"""The built documentation, as a browser shows it."""

import os
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.browser import NEEDS_BROWSER, PATIENCE, browser

CHECKOUT = Path(__file__).parents[1]
pytestmark = [
    *NEEDS_BROWSER,
    pytest.mark.skipif(find_spec("material") is None, reason="mkdocs-material is not installed"),
]


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and does not say so."""

    def log_message(self, *_):
        pass


@pytest.fixture
def site(tmp_path):
    """The address of the built pages, served as any web server would."""
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", tmp_path / "site"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    subprocess.run(command, cwd=CHECKOUT, env=environment, check=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "site"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_the_search_box_finds_a_term_and_leads_to_its_page(site, tmp_path):
    from selenium.webdriver.support.ui import WebDriverWait

    with browser(tmp_path) as driver:
        wait = WebDriverWait(driver, PATIENCE)
        driver.get(f"{site}/index.html")
        box = driver.find_element("css selector", "input.md-search__input")
        box.click()
        box.send_keys("sigma")
        found = "a.md-search-result__link"
        wait.until(lambda d: d.find_elements("css selector", found))
        links = [link.get_attribute("href") for link in driver.find_elements("css selector", found)]
        assert any("/method.html" in link for link in links)
        driver.get(links[0])
        page = driver.find_element("tag name", "article").text
        assert "sigma" in page.lower()
        loaded = driver.execute_script("return performance.getEntries().map(e => e.name)")
        assert all(name.startswith(site) for name in loaded if "://" in name)
