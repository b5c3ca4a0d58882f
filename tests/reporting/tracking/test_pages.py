"""MLflow's pages of a small project, as a browser shows them.

The screenshots are kept in the folder that JAWLOC_SCREENSHOTS names, else in pytest's own.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from socket import socket
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from PIL import Image

from jawloc.reporting.tracking.store import tracking_uri
from jawloc.reporting.tracking.views import TRAINING

CHECKOUT = Path(__file__).parents[3]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
try:
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait
except ImportError:
    webdriver = None

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(webdriver is None, reason="selenium is not installed"),
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium with its chromedriver"),
]
PATIENCE = 60  # seconds that a page may take on a busy machine
# MLflow opens its assistant once in every new browser; here the user has closed it
CLOSED = {"mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true"}


@pytest.fixture(scope="module")
def project(make_lab, tmp_path_factory, jawloc):
    """Two trainings, one of them evaluated, and a study of three trials."""
    folder = make_lab(tmp_path_factory.mktemp("project") / "lab", num_epochs=2)
    commands = [
        ["train", "--model-name", "wide", "--set", "curriculum.shrink_factor=0.9"],
        ["train", "--model-name", "narrow", "--set", "learning_rate=0.001"],
        ["evaluate", "wide", "dicoms/labelled", "--pictures", "1"],
        ["tune", "--trials", "3", "--epochs", "1"],
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for command in commands:
            result = jawloc(*command)
            assert result.exit_code == 0, result.output
    client = MlflowClient(tracking_uri(folder))
    known = client.get_experiment_by_name("jaw_location")
    runs = client.search_runs([known.experiment_id], max_results=100)
    return SimpleNamespace(
        folder=folder,
        page=f"#/experiments/{known.experiment_id}",
        ids={run.info.run_name: run.info.run_id for run in runs},
        experiment=known,
    )


@pytest.fixture(scope="module")
def address(project):
    """The address that `jawloc ui` says, for as long as it runs."""
    with closing(socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    environment |= {"PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "jawloc", "ui", "--port", str(port)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    server = subprocess.Popen(command, cwd=project.folder, env=environment, **pipes)
    try:
        said = ""
        for line in server.stdout:
            said += line
            if found := re.search(r"http://127\.0\.0\.1:\d+/\S*", line):
                break
        else:
            pytest.fail(f"jawloc ui ended: {said}")
        yield found[0]
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        server.stdout.close()


class Pages:
    """A browser: pages are opened, read, and kept as pictures."""

    def __init__(self, driver, server: str, kept: Path):
        self.driver, self.server, self.kept = driver, server, kept

    def open(self, path: str, *expected: str) -> None:
        self.driver.get("about:blank")  # a page that differs after "#" alone is not loaded anew
        self.driver.get(self.server + path)
        self.until_shown(*expected)

    @property
    def text(self) -> str:
        return str(self.driver.execute_script("return document.body.innerText"))

    def until_shown(self, *expected: str) -> None:
        try:
            self.wait(lambda _: all(text in self.text for text in expected))
        except Exception:
            lacking = [text for text in expected if text not in self.text]
            pytest.fail(f"{lacking} are not on the page {self.driver.current_url}: {self.text}")

    def wait(self, condition):
        return WebDriverWait(self.driver, PATIENCE, 0.2).until(condition)

    def keep(self, name: str) -> None:
        picture = Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
        method, dither = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE
        picture.quantize(128, method, dither=dither).save(self.kept / f"{name}.png", optimize=True)

    def pictures(self, part: str) -> list:
        """Return the pictures on the page whose address has this part, once all are loaded."""
        script = """return [...document.images].filter(i => i.src.includes(arguments[0])
                    && i.complete && i.naturalWidth > 0)"""
        return self.wait(lambda driver: driver.execute_script(script, part))

    def is_in_view(self, picture) -> bool:
        """Return whether nothing hides a picture's middle, without scrolling."""
        script = """const box = arguments[0].getBoundingClientRect();
                    const x = box.x + box.width / 2, y = box.y + box.height / 2;
                    const top = document.elementFromPoint(x, y);
                    return top !== null && arguments[0].parentElement.contains(top)"""
        return bool(self.driver.execute_script(script, picture))


def colours(picture) -> int:
    """Return how many colours a picture has on the screen."""
    seen = Image.open(io.BytesIO(picture.screenshot_as_png)).convert("RGB")
    return len(seen.getcolors(1 << 24))


@pytest.fixture(scope="module")
def pages(address, tmp_path_factory):
    kept = Path(os.environ.get("JAWLOC_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    kept.mkdir(parents=True, exist_ok=True)
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
        options.add_argument(f"--{argument}")
    options.add_argument("--window-size=1600,1000")
    service = webdriver.ChromeService(executable_path=DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(PATIENCE)
    try:
        opened = Pages(driver, address.partition("#")[0], kept)
        driver.get(opened.server + "health")
        for key, value in CLOSED.items():
            driver.execute_script("localStorage.setItem(...arguments)", key, value)
        print(f"screenshots: {kept}")
        yield opened
    finally:
        driver.quit()


def test_the_experiment_is_among_the_others(pages):
    pages.open("#/experiments", "jaw_location")
    pages.keep("experiments")


def test_the_address_of_jawloc_ui_opens_the_table_of_runs(pages, address):
    """Regression: the experiment opened on pages for language models, without runs."""
    pages.open(f"#{address.partition('#')[2]}", "wide", "narrow", "curriculum")
    for absent in ("Judges", "Prompts"):
        assert absent not in pages.text
    for column in ("test/error_mm", "curriculum.minimum_sigma"):
        assert column in pages.text
    pages.keep("runs")


def test_a_runs_page_says_what_was_trained_and_how_well(pages, project):
    """Regression: the page said "No description", and had no tags."""
    page = f"{project.page}/runs/{project.ids['wide']}?{TRAINING}"
    pages.open(page, "A network that finds the jaw was trained on 3 scans", "mean position")
    for text in ("validation", "1 of 1", "24×12×12", "jawloc_version", "jawloc evaluate wide"):
        assert text in pages.text
    assert "No description" not in pages.text
    drawn = pages.pictures("sigma.png")
    assert colours(drawn[0]) > 20
    pages.keep("run")


def test_metrics_are_in_sections(pages, project):
    """Regression: all metrics were in one section."""
    path = f"{project.page}/runs/{project.ids['wide']}/model-metrics?{TRAINING}"
    pages.open(path, "curriculum (", "heatmap (2)", "test (", "train (", "val (")
    pages.keep("metrics")


def test_the_image_grid_shows_heatmaps_where_it_opens(pages, project):
    """Regression: its tiles were blank, because they open at step 0, where there was no picture."""
    path = f"{project.page}/runs/{project.ids['wide']}/model-metrics?{TRAINING}"
    pages.open(path, "heatmap (2)")
    assert "No image logged at this step" not in pages.text
    drawn = pages.pictures("heatmap~")
    assert len(drawn) >= 2
    for picture in drawn:
        assert colours(picture) > 50


def test_the_view_of_heatmaps_shows_them_side_by_side(pages, project):
    path = f"{project.page}/runs?compareRunsMode=CHART&viewStateShareKey=heatmaps&{TRAINING}"
    pages.open(path, "heatmap/val", "heatmap/train")
    drawn = pages.pictures("heatmap~")
    assert pages.is_in_view(drawn[0])
    assert colours(drawn[0]) > 50
    pages.keep("heatmaps")


def test_two_runs_are_compared_by_the_settings_that_differ(pages, project):
    ids = f'["{project.ids["wide"]}","{project.ids["narrow"]}"]'
    number = project.experiment.experiment_id
    path = f'#/compare-runs?runs={ids}&experiments=["{number}"]&{TRAINING}'
    pages.open(path, "Comparing 2 Runs", "curriculum.shrink_factor", "learning_rate")
    assert "dicom_dirs" not in pages.text
    pages.keep("compare")


def test_a_studys_trials_are_shown_in_parallel_coordinates(pages, project):
    """Regression: trials were called "curriculum 0"."""
    view = (
        f"{project.page}/runs?compareRunsMode=CHART&viewStateShareKey=study-curriculum&{TRAINING}"
    )
    pages.open(view, "curriculum trial 0: threshold", "curriculum.minimum_sigma")
    lines = ".parcoords, .js-plotly-plot, svg g.dimension"
    assert pages.wait(lambda driver: driver.find_elements(By.CSS_SELECTOR, lines))
    pages.keep("trials")


def test_a_studys_page_says_what_won(pages, project):
    page = f"{project.page}/runs/{project.ids['curriculum']}?{TRAINING}"
    pages.open(page, "3 trials", "curriculum.minimum_sigma", "jawloc-train --model-name")
    pages.keep("study")


@pytest.mark.parametrize(
    ("run", "path", "expected"),
    [
        ("wide", "evaluation/evaluation.html", "fair"),
        ("curriculum", "study.html", "Validation error"),
    ],
)
def test_reports_open_among_the_artifacts(pages, project, run, path, expected):
    pages.open(
        f"{project.page}/runs/{project.ids[run]}/artifacts/{path}?{TRAINING}", Path(path).name
    )
    frame = pages.wait(lambda driver: driver.find_elements(By.TAG_NAME, "iframe"))[0]
    pages.driver.switch_to.frame(frame)
    try:
        pages.until_shown(expected)
        time.sleep(0.5)
    finally:
        pages.driver.switch_to.default_content()
    pages.keep(Path(path).stem)
