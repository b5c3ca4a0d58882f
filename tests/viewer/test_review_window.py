"""The window of `jawloc review`, with real keys and the mouse of an X display (xdotool).

One window serves all tests, since napari takes seconds to open; each begins with a session of its
own. Screenshots are kept in the folder that JAWLOC_SCREENSHOTS names, else in pytest's own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from jawloc.geometry import Grid
from jawloc.inference.exports import csv_text
from jawloc.scans.dicom import write_labelled_dicom
from jawloc.scans.points.review import read_review
from jawloc.viewer.availability import has_display
from jawloc.workflows.review_session import ReviewSession
from tests.reporting.test_location_text import failed, row

napari = pytest.importorskip("napari", reason="napari isn't installed (pip install '.[napari]')")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not has_display(), reason="there is no display (xvfb-run gives one)"),
    pytest.mark.skipif(shutil.which("xdotool") is None, reason="xdotool, which presses real keys"),
]
SHAPE, SPACING = (60, 40, 50), (0.5, 0.25, 0.25)
JAW = (40, 12, 30)
PATIENCE_SECONDS = 60.0


def heatmap(scan, name):
    found = np.zeros((6, 4, 5), np.float32)
    found[4, 1, 3] = 1
    return found


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two scans with a bright cube, whose position is wrong in the more doubtful one."""
    folder = tmp_path_factory.mktemp("results")
    image = np.random.default_rng(0).integers(0, 50, SHAPE).astype(np.uint16)
    image[37:44, 9:16, 27:34] += 200
    mask = (image > 150).astype(np.uint8)
    for name in "ab":
        write_labelled_dicom(folder / f"{name}.dcm", image, mask, Grid(SHAPE, SPACING))
    (folder / "imgs").mkdir()
    tifffile.imwrite(folder / "imgs" / "crop.tif", image[:24, :20, :28])
    about = {"radius_voxels": 6.0, "radius_mm": 2.0, "crop_file": "imgs/crop.tif"}
    where = dict(zip(("z_voxels", "y_voxels", "x_voxels"), map(float, JAW), strict=True))
    wrong = {"z_voxels": 40.0, "y_voxels": 24.0, "x_voxels": 20.0}
    rows = [
        row("a", path=str(folder / "a.dcm"), **where, **about),
        row("b", "uncertain", 3.0, path=str(folder / "b.dcm"), **wrong, **about),
        failed("c"),
    ]
    (folder / "locations.csv").write_text(csv_text(rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def only_window(results):
    from jawloc.viewer.review import ReviewWindow

    window = ReviewWindow(ReviewSession(results, "Ana"), heatmap)
    window.viewer.window._qt_window.resize(1000, 700)
    yield window
    window.close()
    window.viewer.close()


@pytest.fixture
def window(only_window, results):
    """The window with a session that begins anew."""
    (results / "review.csv").unlink(missing_ok=True)
    only_window.session = ReviewSession(results, "Ana")
    only_window.refresh()
    settle(only_window)
    return only_window


def settle(window) -> None:
    """Let Qt work until everything has been read and drawn."""
    wait_until(window, lambda: not window.is_reading)


def wait_until(window, condition: Callable[[], object]) -> None:
    from qtpy.QtCore import QEventLoop

    # not QApplication.processEvents: PySide6 6.12 loses a reference to None at each call
    events, end = QEventLoop(), time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, window.bar.said.text()
        events.processEvents()
        time.sleep(0.005)
    events.processEvents()


def press(window, key: str) -> None:
    """Press a real key, which the X server sends to the window with the focus."""
    frame = window.viewer.window._qt_window
    place = window.session.place, window.session.decision, window.bar.said.text()
    shown = str(int(frame.winId()))
    subprocess.run(["xdotool", "windowfocus", "--sync", shown, "key", key], check=True)
    end = time.monotonic() + 10
    wait_until(
        window,
        lambda: (
            place != (window.session.place, window.session.decision, window.bar.said.text())
            or time.monotonic() > end
        ),
    )
    settle(window)


def on_disk(results: Path) -> list[tuple]:
    path = results / "review.csv"
    found = read_review(path) if path.exists() else ()
    return [(r.scan, r.verdict) for r in found]


def on_screen(window, number: int, voxels) -> tuple[int, int]:
    """Return where a position of a slice view is on the screen, in pixels."""
    from qtpy.QtCore import QPoint

    model, canvas = window.views.slices[number], window.views._canvases[number].canvas
    axes = list(model.dims.displayed)
    world = np.asarray(voxels) * SPACING
    away = (world[axes] - np.asarray(model.camera.center)[1:]) * model.camera.zoom
    height, width = canvas.size
    inside = QPoint(round(width / 2 + away[1]), round(height / 2 + away[0]))
    found = canvas.native.mapToGlobal(inside)
    return found.x(), found.y()


def mouse(window, *steps: object) -> None:
    """Move and press the mouse for real."""
    for step in steps:
        words = ["mousemove", *map(str, step)] if isinstance(step, tuple) else [str(step), "1"]
        subprocess.run(["xdotool", *words], check=True)
        end = time.monotonic() + 0.1
        wait_until(window, lambda end=end: time.monotonic() > end)


def keep_screenshot(window, tmp_path: Path, name: str) -> np.ndarray:
    folder = Path(os.environ.get("JAWLOC_SCREENSHOTS") or tmp_path)
    return window.viewer.screenshot(str(folder / f"{name}.png"), canvas_only=False, flash=False)


def test_keys_decide_and_each_decision_is_on_disk_at_once(window, results):
    assert window.session.row.scan == "c"  # which can't be shown, and may be decided about
    assert "it can't be shown: " in window.bar.said.text()
    press(window, "a")
    assert "a position must be found to be accepted" in window.bar.said.text()
    press(window, "x")
    assert on_disk(results) == [("c", "absent")]
    assert (window.session.row.scan, window.bar.progress.text()) == ("b", "2 of 3 left")
    press(window, "s")
    assert on_disk(results) == [("b", "skipped"), ("c", "absent")]
    press(window, "u")
    assert (window.session.row.scan, on_disk(results)) == ("b", [("c", "absent")])
    press(window, "n")
    press(window, "a")
    assert on_disk(results) == [("a", "accepted"), ("c", "absent")]
    assert "b · jaw · uncertain" in window.bar.title.text()
    assert "radius 6 voxels, 2.00 mm" in window.bar.title.text()
    press(window, "b")
    assert window.bar.title.text() == "c · failed · a.tif: not a TIFF · decided: absent"


def test_four_views_show_the_scan_the_position_its_radius_and_the_crop(window, tmp_path):
    press(window, "n")
    views = window.views
    for axis, model in enumerate(views.slices):
        assert model.dims.order[0] == axis
        assert model.dims.point[axis] == pytest.approx((40, 24, 20)[axis] * SPACING[axis])
        names = [layer.name for layer in model.layers]
        assert names == ["scan", "full detail", "radius and crop", "position"]
        box, circle = model.layers["radius and crop"].data
        lengths = np.delete(np.ptp(box, axis=0), axis).tolist()
        assert lengths == [n for n in (24, 20, 28) if n != (24, 20, 28)[axis]]
        away = (circle - (40, 24, 20)) * np.array(SPACING)
        np.testing.assert_allclose(np.linalg.norm(away, axis=1), 2.0, atol=1e-6)
    assert views.space.dims.ndisplay == 3
    assert len(views.space.layers["radius and crop"].data) == 12
    picture = keep_screenshot(window, tmp_path, "four_views")
    yellow = np.abs(picture[..., :3] - np.array([240, 228, 66])).sum(axis=-1) < 60
    width = yellow.shape[1]
    assert yellow[:, : 2 * width // 3].sum() > 100  # circles, in the views across z and x
    assert yellow[:, 2 * width // 3 :].sum() > 50  # and across y
    press(window, "h")
    settle(window)
    assert "heatmap" in views.slices[0].layers
    assert "heatmap" in views.space.layers
    keep_screenshot(window, tmp_path, "heatmap")


def test_a_position_is_dragged_or_clicked_and_taken_back(window, results, tmp_path):
    press(window, "n")
    start, end = on_screen(window, 0, (40, 24, 20)), on_screen(window, 0, JAW)
    middle = tuple((a + b) // 2 for a, b in zip(start, end, strict=True))
    mouse(window, start, "mousedown", middle, end, "mouseup")
    wait_until(window, lambda: window.session.decision is not None)
    (moved,) = read_review(results / "review.csv")
    assert moved.verdict == "moved"
    assert moved.position_voxels_zyx == pytest.approx(JAW, abs=1.0)
    assert window.views.slices[1].dims.point[1] == pytest.approx(12 * SPACING[1], abs=0.5)
    keep_screenshot(window, tmp_path, "dragged")
    press(window, "u")
    assert on_disk(results) == []
    press(window, "m")
    assert "click where it is" in window.bar.said.text()
    mouse(window, on_screen(window, 1, (44, 24, 33)), "mousedown", "mouseup")
    wait_until(window, lambda: window.session.decision is not None)
    (clicked,) = read_review(results / "review.csv")
    assert clicked.position_voxels_zyx == pytest.approx((44, 24, 33), abs=1.0)
    press(window, "a")  # what was moved is right
    assert on_disk(results) == [("b", "moved")]
    assert window.session.row.scan == "a"
    pans = [model.camera.mouse_pan for model in window.views.slices]
    assert pans == [True] * 3
