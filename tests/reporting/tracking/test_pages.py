"""MLflow's pages of a small project, as a browser shows them.

The screenshots are kept in the folder that JAWLOC_SCREENSHOTS names, else in pytest's own.
"""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from socket import socket
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient
from PIL import Image

from jawloc.reporting.tracking.runs import tracked_run
from jawloc.reporting.tracking.store import tracking_uri
from jawloc.reporting.tracking.views import TRAINING
from jawloc.workflows import log_training
from jawloc.workflows.tune import study_report
from tests.browser import NEEDS_BROWSER, PATIENCE, browser

CHECKOUT = Path(__file__).parents[3]
try:
    from selenium.common.exceptions import TimeoutException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait
except ImportError:
    pass  # the tests are skipped

pytestmark = NEEDS_BROWSER
# MLflow opens its assistant once in every new browser; here the user has closed it
CLOSED = {"mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true"}


@pytest.fixture(scope="module")
def project(make_lab, tmp_path_factory, jawloc):
    """A training that is evaluated, one that ran elsewhere, and a study of two trials."""
    folder = make_lab(tmp_path_factory.mktemp("project") / "lab", num_epochs=1)
    commands = [
        ["train", "--model-name", "wide", "--set", "learning_rate=0.01"],
        ["evaluate", "wide", "dicoms/labelled", "--pictures", "0"],
        ["tune", "--trials", "2", "--epochs", "1"],
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        # no page that is opened here shows these, and they take most of the time
        patch.setattr(log_training, "target_picture", lambda *_: Figure(figsize=(0.1, 0.1)))
        patch.setattr(log_training, "write_pictures", lambda *_, **__: None)
        patch.setattr(study_report, "PLOTS", dict(list(study_report.PLOTS.items())[:1]))
        for command in commands:
            if command[0] == "tune":
                patch.setattr(
                    log_training, "heatmap_tiles", lambda *_: {"": Figure(figsize=(0.1, 0.1))}
                )
            result = jawloc(*command)
            assert result.exit_code == 0, result.output
    client = MlflowClient(tracking_uri(folder))
    known = client.get_experiment_by_name("jaw_location")
    runs = client.search_runs([known.experiment_id])
    (wide,) = (run.data for run in runs if run.info.run_name == "wide")
    with tracked_run(folder, "narrow", params=wide.params | {"learning_rate": 0.001}) as narrow:
        narrow.log_summary({"test/error_mm": 2.5, "curriculum/sigma": 1.5})
    return SimpleNamespace(
        folder=folder,
        page=f"#/experiments/{known.experiment_id}",
        experiment=known.experiment_id,
        ids={run.info.run_name: run.info.run_id for run in runs} | {"narrow": narrow.run_id},
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
    # in the background of a script Ctrl-C is ignored, also by what is started there
    pipes["preexec_fn"] = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
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
        server.wait(60)
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
        return " ".join(self.driver.execute_script("return document.body.innerText").split())

    def until_shown(self, *expected: str) -> None:
        try:
            self.wait(lambda _: all(text in self.text for text in expected))
        except TimeoutException:
            lacking = [text for text in expected if text not in self.text]
            pytest.fail(f"{lacking} are not on the page {self.driver.current_url}: {self.text}")

    def wait(self, condition):
        return WebDriverWait(self.driver, PATIENCE, 0.2).until(condition)

    def keep(self, name: str) -> None:
        self.driver.save_screenshot(str(self.kept / f"{name}.png"))

    def pictures(self, part: str, number: int = 1) -> list:
        """Return the pictures on the page whose address has this part, once so many are loaded."""
        script = """return [...document.images].filter(i => i.src.includes(arguments[0])
                    && i.complete && i.naturalWidth > 0)"""

        def enough(driver):
            loaded = driver.execute_script(script, part)
            return loaded if len(loaded) >= number else None

        return self.wait(enough)

    def named(self, text: str):
        """Return the element that has this text alone, once there is one."""
        script = """return [...document.querySelectorAll("*")].find(
                    e => e.children.length === 0 && e.innerText === arguments[0])"""
        return self.wait(lambda driver: driver.execute_script(script, text))

    def left_edge(self, text: str) -> float:
        return float(self.named(text).rect["x"])

    def shows(self, picture) -> bool:
        """Return whether the middle of a picture's upper panels, where the point is, is in sight.

        How much of them is depends on how wide the machine's letters are: params stand above.
        """
        script = """const box = arguments[0].getBoundingClientRect();
                    const x = box.x + box.width / 2, y = box.y + 0.3 * box.height;
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
    with browser(tmp_path_factory.mktemp("browser")) as driver:
        opened = Pages(driver, address.partition("#")[0], kept)
        driver.get(opened.server + "health")
        for key, value in CLOSED.items():
            driver.execute_script("localStorage.setItem(...arguments)", key, value)
        print(f"screenshots: {kept}")
        yield opened


def test_the_experiment_is_among_the_others(pages):
    pages.open("#/experiments", "jaw_location")
    assert "Experiments" in pages.text
    pages.keep("experiments")


def test_the_address_of_jawloc_ui_opens_the_table_of_runs(pages, address):
    """Regression: the experiment opened on pages for language models, without runs."""
    pages.open(f"#{address.partition('#')[2]}", "wide", "narrow", "curriculum", "test/error_mm")
    for absent in ("Judges", "Prompts"):
        assert absent not in pages.text
    columns = ("test/error_mm", "curriculum.minimum_sigma")
    assert pages.left_edge(columns[0]) < pages.left_edge(columns[1])
    pages.keep("runs")


def test_a_runs_page_says_what_was_trained_and_how_well(pages, project):
    """Regression: the page said "No description", and had no tags."""
    page = f"{project.page}/runs/{project.ids['wide']}?{TRAINING}"
    pages.open(page, "the mean error on 1 test scan is", "mean position", "About this run")
    assert "No description" not in pages.text
    for text in (
        *("A network that finds the jaw was trained on 3 scans", "of 1 test scan"),
        *("validation", "What to look at", "jawloc evaluate wide"),
        *("grid : 24×12×12", "objects : jaw", "dataset : ", "jawloc_version : "),
    ):
        assert text in pages.text
    drawn = pages.pictures("heatmap~", 2)
    pages.keep("run")
    for picture in drawn:
        assert colours(picture) > 50


def test_metrics_are_in_sections_and_the_image_grid_shows_heatmaps_step_by_step(pages, project):
    """Regression: all metrics were in one section. The grid's tiles were blank, because they open
    at step 0, where there was no picture; elsewhere, 48 params pushed the picture out of sight.
    """
    path = f"{project.page}/runs/{project.ids['wide']}/model-metrics?{TRAINING}"
    sections = ["curriculum (1)", "heatmap (2)", "test (6)", "train (11)", "val (10)"]
    pages.open(path, *sections, "Model metrics (")
    assert sorted(sections, key=pages.text.index) == sections
    pages.keep("metrics")
    # to the top: MLflow draws only what is in sight
    pages.driver.execute_script("arguments[0].scrollIntoView()", pages.named("heatmap"))
    for picture in pages.pictures("step%2B0%2B", 2):
        assert pages.shows(picture)
        assert colours(picture) > 50
    for slider in pages.driver.find_elements(By.CSS_SELECTOR, "[role=slider]"):
        slider.send_keys(Keys.ARROW_RIGHT)
    drawn = pages.pictures("step%2B1%2B", 2)
    assert "No image logged at this step" not in pages.text
    pages.keep("image_grid")
    for picture in drawn:
        assert pages.shows(picture)
        assert colours(picture) > 50


def test_the_view_of_heatmaps_shows_them_side_by_side(pages, project):
    path = f"{project.page}/runs?compareRunsMode=CHART&viewStateShareKey=heatmaps&{TRAINING}"
    pages.open(path, "heatmap/val", "heatmap/train")
    drawn = pages.pictures("heatmap~")
    assert pages.shows(drawn[0])
    assert colours(drawn[0]) > 50
    pages.keep("heatmaps")


def test_two_runs_are_compared_by_the_settings_that_differ(pages, project):
    """Regression: the comparison began with where files lie and how large crops are."""
    ids = f'["{project.ids["wide"]}","{project.ids["narrow"]}"]'
    path = f'#/compare-runs?runs={ids}&experiments=["{project.experiment}"]&{TRAINING}'
    pages.open(path, "Comparing 2 Runs", "Parameters: learning_rate Metrics:")
    for absent in ("dicom_dirs", "crop_size", "downsampled_dicom_size"):
        assert absent not in pages.text
    pages.keep("compare")


def test_a_studys_page_says_what_won_and_leads_to_all_trials_in_parallel_coordinates(
    pages, project
):
    """Regression: trials were called "curriculum 0"; the view's name was hidden as a secret."""
    page = f"{project.page}/runs/{project.ids['curriculum']}?{TRAINING}"
    pages.open(page, "with a validation error of", "2 trials", "jawloc-train --model-name")
    assert "curriculum.minimum_sigma 1 to 4" in pages.text
    pages.keep("study")
    link = pages.named("all trials in parallel coordinates").get_attribute("href")
    axes = ("curriculum.threshold", "curriculum.minimum_sigma", "objective_error_voxels")
    pages.open(
        link.removeprefix(pages.server), "curriculum trial 0: threshold", "Trials (1)", *axes
    )
    pages.wait(lambda driver: driver.find_elements(By.CSS_SELECTOR, ".parcoords, svg .dimension"))
    pages.keep("trials")


@pytest.mark.parametrize(
    ("run", "path", "expected"),
    [
        ("wide", "evaluation/evaluation.html", "How well wide finds the jaw"),
        ("curriculum", "study.html", "Validation error of each trial, and the best so far"),
    ],
)
def test_reports_open_among_the_artifacts(pages, project, run, path, expected):
    page = f"{project.page}/runs/{project.ids[run]}/artifacts/{path}?{TRAINING}"
    pages.open(page, Path(path).name)
    frame = pages.wait(lambda driver: driver.find_elements(By.TAG_NAME, "iframe"))[0]
    pages.driver.switch_to.frame(frame)
    try:
        pages.until_shown(expected)
        assert "Traceback" not in pages.text
    finally:
        pages.driver.switch_to.default_content()
    pages.keep(Path(path).name.replace(".", "_"))
