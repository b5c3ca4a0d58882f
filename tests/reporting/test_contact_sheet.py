"""The page of all located scans, and its thumbnails."""

from __future__ import annotations

import base64
import html
import re

import numpy as np
import pytest

from jawloc.geometry import Grid
from jawloc.inference.crop import CropBox
from jawloc.inference.locator import Localisation
from jawloc.reporting.contact_sheet import write_contact_sheet
from jawloc.reporting.figures.thumbnail import GAP, ROOM, thumbnail
from jawloc.scans.orthogonal_slices import silhouettes
from tests.reporting.test_location_text import failed, row

YELLOW, ORANGE = (0xF0, 0xE4, 0x42), (0xE6, 0x9F, 0x00)


def test_the_page_has_every_scan_the_most_doubtful_first(tmp_path):
    (tmp_path / "thumbnails").mkdir()
    (tmp_path / "thumbnails" / "a b.png").write_bytes(b"small")
    rows = [
        row("good", picture_file="pictures/good.png"),
        row("<b>", "uncertain", reason="wide", picture_file="pictures/a b.png"),
        failed("broken"),
    ]
    path = write_contact_sheet(tmp_path, rows, "m.pth")
    page = path.read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?)</h2>", page) == ["broken", "&lt;b&gt;", "good"]
    assert re.findall('<article class="(.*?)">', page) == ["failed", "uncertain", "ok"]
    assert base64.b64encode(b"small").decode() in page
    assert re.findall('href="(.*?)"', page) == ["pictures/a%20b.png", "pictures/good.png"]
    assert "1 failed, 1 uncertain, 1 ok" in page
    assert "http:" not in page  # nothing that needs a network
    assert "default-src 'none'" in html.unescape(page)
    assert "style=" not in page  # which the policy forbids


def test_each_position_has_its_radius_or_says_that_none_is_known(tmp_path):
    rows = [
        row("a", radius_voxels=3.0, confidence=0.9),
        row("b", radius_voxels=None, radius_note="unknown: few scans"),
    ]
    page = write_contact_sheet(tmp_path, rows, "m").read_text(encoding="utf-8")
    said = re.findall("<dt>radius</dt><dd>(.*?)</dd>", page)
    assert sorted(said) == ["3.0 voxels (90 %)", "unknown: few scans"]


def test_a_picture_whose_name_is_not_utf_8_is_linked_to(tmp_path):
    """Regression: the page was not written, after all scans had been located."""
    page = write_contact_sheet(tmp_path, [row("a", picture_file="pictures/\udce9.png")], "m")
    assert 'href="pictures/%E9.png"' in page.read_text(encoding="utf-8")


def drawn(shape, point, window, spacing=None, radius=None):
    image = np.zeros(shape, np.uint16)
    image[tuple(np.array(shape) // 2)] = 9
    found = Localisation("a", "jaw", point, None, 1.0, radius_voxels=radius)
    return thumbnail(found, Grid(shape, spacing), silhouettes(image), window)


@pytest.mark.parametrize("shape", [(512, 64, 64), (32, 300, 300), (6, 6, 400), (1, 1, 1)])
def test_a_small_picture_fits_into_its_room_at_any_aspect(shape):
    picture = drawn(shape, (0.0, 0.0, 0.0), CropBox((0, 0, 0), (4, 4, 4), "shifted"))
    rows, columns, _ = picture.shape
    assert rows <= ROOM[1] + 1
    assert columns <= ROOM[0] + 3 * 12  # thin views are widened, to be seen at all
    assert picture.dtype == np.uint8


def near(picture, colour):
    return np.argwhere(np.abs(picture.astype(int) - colour).sum(axis=2) < 30)


def test_cross_and_box_lie_where_they_are_in_the_scan():
    shape, point = (80, 40, 40), (59.5, 9.5, 19.5)
    picture = drawn(shape, point, CropBox((50, 0, 10), (20, 20, 20), "centred"))
    scale = (ROOM[0] - 2 * GAP) / 120  # pixels a voxel: three views, each 40 voxels wide
    wide = round(40 * scale)
    for first, (across, down) in (
        (0, (20, 20)),  # coronal: x, and z upward
        (wide + GAP, (10, 20)),  # sagittal: y, and z upward
        (2 * (wide + GAP), (20, 10)),  # axial: x, and y downward
    ):
        view = picture[:, first : first + wide]
        cross = near(view, YELLOW).mean(axis=0)
        np.testing.assert_allclose(cross, (scale * down, scale * across), atol=2)
        box = near(view, ORANGE)
        np.testing.assert_allclose(np.ptp(box, axis=0), 20 * scale, atol=2)


def test_the_cross_of_a_long_thin_scan_lies_on_it():
    """Regression: views that are widened to be seen had their marks where they were narrow."""
    shape = (2400, 60, 60)
    picture = drawn(shape, (1200.0, 30.0, 30.0), CropBox((1199, 29, 29), (1, 1, 1), "centred"))
    cross = near(picture[:, :12], YELLOW)
    assert np.mean(cross[:, 1]) == pytest.approx(5.5, abs=1)


def test_voxels_keep_their_proportions():
    picture = drawn((40, 40, 40), (1, 1, 1), CropBox((0, 0, 0), (4, 4, 4), "centred"), (2, 1, 1))
    rows, columns, _ = picture.shape
    assert (columns - 2 * GAP) / 3 == pytest.approx(rows / 2, abs=1)
