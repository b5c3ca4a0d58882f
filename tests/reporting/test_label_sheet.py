"""The page of all labelled scans."""

from __future__ import annotations

import base64
import html
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jawloc.errors import InputError
from jawloc.geometry import Grid
from jawloc.reporting.figures.thumbnail import GAP, ROOM, label_thumbnail
from jawloc.reporting.folders.own_files import run_names
from jawloc.reporting.label_sheet import LABEL_SHEET, write_label_sheet
from jawloc.scans.cache import Example, ExampleFile
from jawloc.scans.orthogonal_slices import orthogonal_slices
from tests.reporting.test_contact_sheet import YELLOW, near

FULL, SMALL = Grid((80, 40, 40)), Grid((40, 20, 20))


class Cached(ExampleFile):
    """A scan whose cached file need not exist: one bright voxel at its first point."""

    def read(self) -> Example:
        """Return the voxels."""
        image = np.zeros(self.grid.shape_zyx, np.float32)
        image[tuple(np.rint(self.points_voxels[0]).astype(int))] = 1
        where = (self.points_voxels, self.grid, self.source_grid, self.key, self.source)
        return Example(self.scan_id, image, None, *where)


def cached(scan_id, *points, **more):
    at = np.array(points, float)
    return Cached(Path("a.dcm"), scan_id, at, SMALL, FULL, "key", Path("b.dcm"), **more)


def test_the_page_has_every_labelled_object_of_every_scan(tmp_path):
    names = {"object_names": ("upper", "lower")}
    scans = [
        cached("<b>", (10, 5, 6), (12, 5, 6), **names),
        cached("z", (10, 5, 6), (np.nan,) * 3, has_mask=False, **names),
    ]
    page = write_label_sheet(tmp_path, scans).read_text(encoding="utf-8")
    shown = ["&lt;b&gt;, upper", "&lt;b&gt;, lower", "z, upper"]
    assert re.findall("<h2>(.*?)</h2>", page) == shown
    assert "<h1>Labels of 2 scans</h1>" in page
    # of the full-size scan
    assert re.findall("<dt>z, y, x</dt><dd>(.*?)</dd>", page)[1] == "24.5, 10.5, 12.5 voxels"
    assert re.findall("<dt>of</dt><dd>(.*?)</dd>", page)[0] == "80 × 40 × 40"
    assert re.findall("<dt>from</dt><dd>(.*?)</dd>", page) == ["a mask", "a mask", "a point"]
    assert "default-src 'none'" in html.unescape(page)
    assert "style=" not in page  # which the policy forbids
    pictures = re.findall(r"data:image/jpeg;base64,([^\"]*)", page)
    assert len(pictures) == len(shown)
    for encoded in pictures:
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
            assert len(near(np.asarray(picture.convert("RGB")), YELLOW)) > 20  # the cross


def test_a_damaged_scan_of_the_cache_is_named(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"no DICOM")
    lost = ExampleFile(tmp_path / "a.dcm", "a", np.zeros((1, 3)), SMALL, FULL, "k", Path("b.dcm"))
    with pytest.raises(InputError, match=r"^a\.dcm"):
        write_label_sheet(tmp_path, [lost])


def test_a_page_is_a_file_of_the_run():
    assert run_names("locator", ["jaw"])(LABEL_SHEET)


def test_the_cross_is_on_what_the_slices_show_and_z_points_up():
    image = np.zeros(FULL.shape_zyx, np.float32)
    image[54:66, 4:16, 14:26] = 1
    scale = (ROOM[0] - 2 * GAP) / 120  # pixels a voxel: three views, each 40 voxels wide

    def coronal(point):
        picture = label_thumbnail(point, FULL, orthogonal_slices(image, point))
        return picture[15:-15, : round(40 * scale)]  # without the letters

    right = coronal((59.5, 9.5, 19.5))
    where = (20 * scale - 15, 20 * scale)
    np.testing.assert_allclose(near(right, YELLOW).mean(axis=0), where, atol=2)
    np.testing.assert_allclose(near(right, (255,) * 3).mean(axis=0), where, atol=2)
    exchanged = coronal((19.5, 9.5, 59.5))
    assert not len(near(exchanged, YELLOW))  # outside
    beside = coronal((19.5, 30.0, 19.5))
    assert len(near(beside, YELLOW)) > 20
    assert not len(near(beside, (255,) * 3))  # the slice shows no object
