"""Proportions and words of a picture of three slices."""

import numpy as np
import pytest

from jawloc.reporting.figures.fitted_text import draw_title, fit_title
from jawloc.reporting.figures.panels import scale_bar_mm
from jawloc.reporting.figures.slices import crop_verdict, lay_out, title_lines
from jawloc.reporting.figures.style import blank_chart, figure_to_array
from jawloc.scans.orthogonal_slices import orthogonal_slices

EXTENTS = [
    (2000, 600, 600),  # a whole fish
    (192, 192, 192),  # a crop
    (35, 50, 36),
    (20, 512, 512),  # a flat stack
    (600, 100, 100),
    (10, 10, 400),
]


@pytest.mark.parametrize("extent", EXTENTS)
@pytest.mark.parametrize("colour_bar", [False, True])
def test_panels_have_the_scans_proportions_and_nothing_overlaps(extent, colour_bar):
    layout = lay_out(extent, 2, 3, colour_bar)
    boxes = np.array([*layout.panels, layout.legend, *([layout.colour_bar] * colour_bar)])
    boxes *= np.tile(layout.size, 2)
    depth, height, width = extent
    shapes = ((width, height), (width, depth), (height, depth))
    for (_, _, w, h), (across, up) in zip(boxes[:3], shapes, strict=True):
        assert w / h == pytest.approx(across / up)
    assert boxes[1, 2] / width == pytest.approx(boxes[2, 2] / height)  # one scale upright
    assert boxes[0, 2] / width >= boxes[1, 2] / width - 1e-9  # the axial view never the smaller
    lower, upper = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    assert (lower >= 0).all()
    assert (upper <= layout.size).all()
    for i, j in zip(*np.triu_indices(len(boxes), 1), strict=True):
        assert ((upper[i] <= lower[j] + 1e-9) | (upper[j] <= lower[i] + 1e-9)).any(), (i, j)


def test_a_tall_scans_axial_view_is_not_tiny():
    layout = lay_out((2000, 600, 600), 2, 3)
    assert layout.panels[0][2] > 1.5 * layout.panels[1][2]
    assert layout.size[1] < 10


@pytest.mark.parametrize(
    ("width_mm", "bar"),
    [(12.7, 2), (15, 5), (35, 10), (3.84, 1), (0.9, 0.2), (600, 200), (0.3, 0.1), (0.03, 0.01)],
)
def test_scale_bar_is_a_round_length_within_a_third_of_the_width(width_mm, bar):
    assert scale_bar_mm(width_mm) == pytest.approx(bar)


def test_the_title_ends_with_the_size_and_the_spacing():
    planes = orthogonal_slices(np.zeros((4, 3, 2)), (0, 0, 0))
    lines = title_lines("first\nsecond", planes, (0.5, 0.25, 0.125))
    assert lines[:2] == ["first", "second"]
    assert lines[-1] == "4 × 3 × 2 voxels (z, y, x) of 0.5 × 0.25 × 0.125 mm"
    assert title_lines("t", planes, None)[-1] == "4 × 3 × 2 voxels (z, y, x), spacing unknown"


@pytest.mark.parametrize(
    ("voxels", "said"),
    [
        ([(2, 2, 2)], "does not touch"),
        ([(0, 2, 2)], "at low z: it may be cut off"),
        ([(2, 4, 2), (2, 2, 0)], "at high y, low x: it may be cut off"),
        ([], "no labelled voxel"),
    ],
)
def test_crop_verdict_names_the_faces_that_the_jaw_touches(voxels, said):
    mask = np.zeros((5, 5, 5), np.uint8)
    for voxel in voxels:
        mask[voxel] = 2
    assert said in crop_verdict(mask)


def test_without_a_mask_the_verdict_is_unknown():
    assert "unknown whether the crop holds all of the eye" in crop_verdict(None, "eye")


def test_a_title_shows_a_name_that_is_not_utf_8():
    """Regression: a scan with such a name failed, since its picture could not be drawn."""
    drawn = []
    for name in ("lat\udcefn-1", "lat?n-1"):
        figure = blank_chart(1.0, 3.0)
        draw_title(figure, fit_title([f"jaw in {name}", "below"]))
        drawn.append(figure_to_array(figure))
    assert drawn[0].min() == 0
    np.testing.assert_array_equal(*drawn)
