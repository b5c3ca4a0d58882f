"""The picture of a position: everything in voxels of the full-size scan, at any resolution."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.patches import Ellipse, Rectangle

from jawloc.geometry import Grid
from jawloc.inference.crop import CropBox
from jawloc.inference.evaluate_scan import ScanError
from jawloc.inference.locator import Localisation
from jawloc.reporting.figures.location import location_picture
from jawloc.reporting.figures.style import Figure, figure_to_array

SHAPE, SMALL = (80, 40, 60), (20, 10, 15)
POINT = (62.5, 12.25, 40.0)
WINDOW = CropBox((52, 2, 30), (20, 20, 20), "centred")


def picture(spacing=None, window=WINDOW, error=None, **changes) -> Figure:
    image = np.random.default_rng(0).integers(0, 100, SMALL).astype(np.uint16)
    crop = np.random.default_rng(1).integers(0, 100, window.size_zyx).astype(np.uint16)
    mm = None if spacing is None else tuple(np.multiply(POINT, spacing))
    found = Localisation("fish", "jaw", POINT, mm, 1.5, **changes)
    return location_picture(found, Grid(SHAPE, spacing), image, crop, window, error)


def drawn(axes, kind):
    return [patch for patch in axes.patches if isinstance(patch, kind)]


def test_each_panel_has_the_point_where_it_is_on_the_full_size_scan():
    panels = picture().axes
    assert len(panels) == 6
    z, y, x = POINT
    for axes, expected in zip(panels, [(x, y), (x, z), (y, z)] * 2, strict=True):
        cross = next(line for line in axes.lines if line.get_marker() == "+")
        assert (cross.get_xdata()[0], cross.get_ydata()[0]) == expected


def test_the_scan_spans_its_own_voxels_and_the_crop_its_window():
    axial, coronal, _, close, *_ = picture().axes
    assert (axial.get_xlim(), axial.get_ylim()) == ((-0.5, 59.5), (39.5, -0.5))
    assert coronal.get_ylim() == (-0.5, 79.5)  # z points up
    assert (close.get_xlim(), close.get_ylim()) == ((29.5, 49.5), (21.5, 1.5))
    assert axial.images[0].get_extent() == [-0.5, 59.5, 39.5, -0.5]
    assert close.images[0].get_extent() == [29.5, 49.5, 21.5, 1.5]


def test_the_box_is_the_crops_and_the_ellipse_the_spread_in_full_size_voxels():
    coronal = picture().axes[1]
    (box,) = drawn(coronal, Rectangle)
    assert (box.get_xy(), box.get_width(), box.get_height()) == ((29.5, 51.5), 20, 20)
    (ellipse,) = drawn(coronal, Ellipse)
    assert (ellipse.width, ellipse.height) == pytest.approx((2 * 1.5, 2 * 1.5))


def test_a_crop_that_reaches_out_of_the_scan_is_shown_whole():
    axial = picture(window=CropBox((52, -10, 30), (20, 60, 20), "padded")).axes[0]
    assert axial.get_ylim() == (49.5, -10.5)
    (box,) = drawn(axial, Rectangle)
    assert (box.get_y(), box.get_height()) == (-10.5, 60)


def test_the_scale_is_in_mm_or_else_in_voxels():
    def bars(figure):
        return {text.get_text() for axes in figure.axes for text in axes.texts}

    assert all(text.endswith(" voxels") for text in bars(picture()))
    assert all(text.endswith(" mm") for text in bars(picture((0.1, 0.1, 0.2))))


def test_the_title_says_where_how_sure_and_how_the_crop_fits():
    said = " ".join(text.get_text() for text in picture((0.1, 0.1, 0.2), radius_voxels=7.0).texts)
    for part in (
        *("jaw in fish (ok)", "62.5, 12.2, 40.0 voxels = 6.250, 1.225, 8.000 mm"),
        *("spread 1.5 voxels, radius 7.0 voxels", "80 × 40 × 60 voxels"),
        *("0.1 × 0.1 × 0.2 mm", "crop of 20 × 20 × 20 voxels, centred"),
    ):
        assert part in said
    assert "spacing unknown" in " ".join(text.get_text() for text in picture().texts)


def test_it_can_be_drawn_of_one_grey_value():
    window = CropBox((0, 0, 0), (4, 4, 4), "shifted")
    found = Localisation("fish", "jaw", (1.0, 1.0, 1.0), None, 0.1)
    flat = np.zeros((4, 4, 4), np.uint8)
    figure = location_picture(found, Grid((4, 4, 4)), flat, flat, window)
    assert figure_to_array(figure).shape[1] == 1200


def truth(point) -> ScanError:
    """The error of a scan whose true position is this."""
    return ScanError("fish", "jaw", np.array(POINT), np.array(point, float), 1.0, 2.0, None)


def test_the_truth_is_marked_where_it_is_known():
    z, y, x = place = (60.0, 14.0, 41.0)
    for known in (truth(place), None):
        crosses = [
            (line.get_xdata()[0], line.get_ydata()[0])
            for axes in picture(error=known).axes
            for line in axes.lines
            if line.get_marker() == "x"
        ]
        assert crosses == ([] if known is None else [(x, y), (x, z), (y, z)] * 3)


def test_a_close_view_holds_position_truth_and_radius_and_is_of_what_shows_it_all():
    near, far = np.add(POINT, (0, 0, 1)), np.subtract(POINT, 25)
    for place, radius in ((near, None), (near, 30.0), (far, 2.0)):
        axial, coronal = picture(error=truth(place), radius_voxels=radius).axes[6:8]
        limits = np.sort([coronal.get_ylim(), axial.get_ylim(), axial.get_xlim()])
        for point in (POINT, place):
            assert (limits[:, 0] < point).all() and (point < limits[:, 1]).all()
        assert min(np.ptp(limits, axis=1)) >= 2 * max(radius or 0, 12)
        # of the scan, since the crop does not reach so far down
        assert axial.images[0].get_extent() == [-0.5, 59.5, 39.5, -0.5]
    wide = CropBox((2, -48, -20), (120, 120, 120), "padded")
    axial = picture(window=wide, error=truth(near)).axes[6]
    assert axial.images[0].get_extent() == [-20.5, 99.5, 71.5, -48.5]
