"""Grids and points: one rule for resampling and mapping, millimetres only where they are known."""

from __future__ import annotations

import numpy as np
import pytest

from jawloc.geometry import Grid, map_points, voxels_to_mm

FULL, SMALL = Grid((2000, 600, 600)), Grid((512, 128, 128))


@pytest.mark.parametrize("source", [(2000, 600, 600), (512, 128, 128), (7, 5, 3), (1, 1, 1)])
@pytest.mark.parametrize("target", [(512, 128, 128), (1999, 601, 600), (3, 4, 96), (1, 1, 1)])
def test_a_round_trip_of_any_point_is_exact(source, target):
    points = np.random.default_rng(0).uniform(-0.5, np.asarray(source) - 0.5, (4, 50, 3))
    back = map_points(map_points(points, Grid(source), Grid(target)), Grid(target), Grid(source))
    np.testing.assert_allclose(back, points, atol=1e-6)


def test_voxel_1500_of_2000_comes_back_as_1500():
    """The lab's script resampled corner to corner, scaled by ratio, and said 1497.8."""
    point = np.array([1500.0, 300.0, 300.0])
    np.testing.assert_allclose(
        map_points(map_points(point, FULL, SMALL), SMALL, FULL), point, atol=1e-6
    )


@pytest.mark.parametrize(
    ("sizes", "voxel", "expected"),
    [
        ((4, 2), -0.5, -0.5),  # the faces of the volume stay its faces
        ((4, 2), 3.5, 1.5),
        ((4, 2), 0.0, -0.25),
        ((4, 2), 0.5, 0.0),  # the middle of the first two voxels is the first coarse voxel
        ((2, 4), 1.0, 2.5),
        ((2000, 512), 999.5, 255.5),  # the middle stays the middle
        ((3, 3), 1.25, 1.25),
    ],
)
def test_points_follow_the_rule_of_voxel_centres(sizes, voxel, expected):
    source, target = (Grid((1, n, 1)) for n in sizes)
    assert map_points(np.array([0, voxel, 0]), source, target)[1] == pytest.approx(expected)


def test_mapping_agrees_with_area_averaging():
    """A bright block and its average lie at the same place: resampling shares the points' rule."""
    line = np.zeros(12)
    line[6:9] = 1
    averaged = line.reshape(4, 3).mean(1)
    centre = (averaged * np.arange(4)).sum() / averaged.sum()
    mapped = map_points(np.array([7.0, 0, 0]), Grid((12, 1, 1)), Grid((4, 1, 1)))
    assert mapped[0] == pytest.approx(centre)


def test_axes_keep_their_order():
    mapped = map_points(np.array([9.5, 9.5, 9.5]), Grid((20, 20, 20)), Grid((20, 40, 10)))
    np.testing.assert_allclose(mapped, [9.5, 19.5, 4.5])


def test_a_resized_grid_spans_the_same_millimetres():
    grid = Grid((2000, 600, 500), (0.021, 0.021, 0.03)).resized((512, 128, 128))
    assert grid.shape_zyx == (512, 128, 128)
    assert grid.spacing_mm_zyx is not None
    extent = np.multiply(grid.shape_zyx, grid.spacing_mm_zyx)
    np.testing.assert_allclose(extent, [42.0, 12.6, 15.0])


def test_unknown_spacing_stays_unknown():
    """It must never become 1.0."""
    grid = FULL.resized((512, 128, 128))
    assert grid == Grid((512, 128, 128), None)
    assert voxels_to_mm(np.ones((2, 3)), grid) is None


def test_millimetres_are_voxels_times_spacing_axis_by_axis():
    grid = Grid((10, 10, 10), (2.5, 1.0, 0.5))
    offsets = np.array([[2.0, 3.0, 4.0], [0.0, 0.0, -1.0]])
    np.testing.assert_allclose(voxels_to_mm(offsets, grid), [[5.0, 3.0, 2.0], [0.0, 0.0, -0.5]])
