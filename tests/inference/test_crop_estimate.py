"""Crops hold an object if they hold all of its downsampled voxels."""

from pathlib import Path

import numpy as np
import pytest

from jawloc.geometry import Grid
from jawloc.inference.crop_estimate import HeldObjects, crop_holds, estimate_crops
from jawloc.inference.evaluate_scan import ScanError
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
    ("labelled", "point", "size", "holds"),
    [
        (LABELLED, (19.5, 19.5, 19.5), (8, 8, 8), True),  # voxels 16 to 23
        (LABELLED, (19.5, 19.5, 19.5), (8, 7, 8), False),
        (LABELLED, (19.5, 19.5, 22.5), (8, 8, 8), False),  # x from 19 to 26
        (LABELLED, (16.5, 19.5, 19.5), (8, 8, 8), False),  # z from 13 to 20
        (np.s_[0:1, 4:6, 4:6], (1, 19.5, 19.5), (8, 8, 8), True),  # at the border
        (None, (19, 19, 19), (7, 7, 7), None),
        (np.s_[0:0], (19, 19, 19), (7, 7, 7), None),  # the object is not in this scan
    ],
)
def test_a_crop_holds_what_lies_between_its_borders(labelled, point, size, holds):
    assert crop_holds(example(labelled), found(*point), None, size) is holds


def test_scans_without_a_mask_do_not_count():
    class Cached:
        def __init__(self, labelled):
            self.read = lambda: example(labelled)

    examples = {"a": Cached(LABELLED), "b": Cached(None), "c": Cached(LABELLED)}
    errors = [
        ScanError(name, "jaw", np.full(3, at), np.full(3, at), 0.0, 0.0, None)
        for name, at in (("a", 19.5), ("b", 19.5), ("c", 35.5))
    ]
    assert estimate_crops(errors, examples, {"jaw": None}, (8, 8, 8)) == {"jaw": HeldObjects(1, 2)}
