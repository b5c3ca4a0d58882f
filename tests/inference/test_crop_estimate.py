"""Crops hold the downsampled voxels that lie whole in them."""

from pathlib import Path

import numpy as np
import pytest

from jawloc.geometry import Grid
from jawloc.inference.crop_estimate import estimate_crops, share_inside
from jawloc.inference.evaluate_scan import ScanError
from jawloc.inference.metrics import CropCoverage
from jawloc.scans.cache import Example

FULL, SMALL = Grid((40, 40, 40)), Grid((10, 10, 10))  # 4 voxels become one


def example(labelled):
    """An example whose downsampled mask is 1 in this part; None: without a mask."""
    mask = None
    if labelled is not None:
        mask = np.zeros(SMALL.shape_zyx, np.uint8)
        mask[labelled] = 1
    points = np.full((1, 3), 4.0)
    image = np.zeros(SMALL.shape_zyx)
    return Example("s", image, mask, points, SMALL, FULL, "key", Path("s.dcm"))


def found(*point):
    point = np.asarray(point, float)
    return ScanError("s", "jaw", point, point, 0.0, 0.0, None)


# downsampled voxels 4 and 5 are the full-size voxels 16 to 23
LABELLED = np.s_[4:6, 4:6, 4:6]


@pytest.mark.parametrize(
    ("labelled", "point", "size", "share"),
    [
        (LABELLED, (19.5, 19.5, 19.5), (8, 8, 8), 1.0),  # voxels 16 to 23
        (LABELLED, (19.5, 19.5, 19.5), (8, 7, 8), 0.5),
        (LABELLED, (19.5, 19.5, 22.5), (8, 8, 8), 0.5),  # x from 19 to 26
        (LABELLED, (16.5, 19.5, 19.5), (8, 8, 8), 0.5),  # z from 13 to 20
        (np.s_[0:1, 4:6, 4:6], (1, 19.5, 19.5), (8, 8, 8), 1.0),  # at the border
        (None, (19, 19, 19), (7, 7, 7), None),
        (np.s_[0:0], (19, 19, 19), (7, 7, 7), None),  # the object is not in this scan
    ],
)
def test_a_crop_holds_what_lies_between_its_borders(labelled, point, size, share):
    assert share_inside(example(labelled), found(*point), None, size) == share


def test_scans_without_a_mask_do_not_count():
    class Cached:
        def __init__(self, labelled):
            self.read = lambda: example(labelled)

    examples = {"a": Cached(LABELLED), "b": Cached(None), "c": Cached(LABELLED)}
    errors = [
        ScanError(name, "jaw", np.full(3, at), np.full(3, at), 0.0, 0.0, None)
        for name, at in (("a", 19.5), ("b", 19.5), ("c", 35.5))
    ]
    assert estimate_crops(errors, examples, {"jaw": None}, (8, 8, 8)) == {
        "jaw": CropCoverage(whole=1, scans=2, mean_share=0.5, least_share=0.0)
    }


def test_a_voxel_on_the_scans_last_face_is_inside_despite_rounding():
    """Regression: 41 voxels on 46 map the last face to a rounding beyond it."""
    small, full = Grid((41, 41, 41)), Grid((46, 46, 46))
    mask = np.zeros(small.shape_zyx, np.uint8)
    mask[38:, 38:, 38:] = 1
    at_the_end = Example("s", mask, mask, np.full((1, 3), 39.0), small, full, "key", Path("s.dcm"))
    assert share_inside(at_the_end, found(45, 45, 45), None, (8, 8, 8)) == 1.0
