"""Drawing: volumes are kept, whatever the voxel size; hollow things are hollow."""

from __future__ import annotations

import numpy as np
import pytest

from jawloc.geometry import Grid
from jawloc.phantom.raster import GridSlab, draw_ellipsoids, draw_tubes
from jawloc.phantom.shapes import Ellipsoid, Tubes


def one_tube(radius: float, wall: float = np.inf, density: float = 1.0) -> Tubes:
    return Tubes(
        np.array([[2.1, 3.2, 2.4]]),
        np.array([[7.3, 5.9, 6.2]]),
        np.array([radius]),
        np.array([radius]),
        np.array([wall]),
        np.array([density]),
        np.array([1], np.uint8),
    )


def drawn(tubes: Tubes, voxel_mm: float) -> np.ndarray:
    n = round(10 / voxel_mm)
    layer = np.zeros((n, n, n), np.float32)
    draw_tubes(layer, tubes, GridSlab(Grid((n, n, n), (voxel_mm,) * 3), 0))
    return layer


LENGTH = float(np.linalg.norm([5.2, 2.7, 3.8]))


@pytest.mark.parametrize("voxel_mm", [1.0, 0.5, 0.2, 0.1])
@pytest.mark.parametrize("radius", [0.08, 0.3, 0.7])
def test_a_tubes_volume_is_kept_at_every_voxel_size(radius: float, voxel_mm: float) -> None:
    # Caps only where the tube is thicker than a voxel; thinner ones are spread by length alone.
    volume = drawn(one_tube(radius), voxel_mm).sum(dtype=float) * voxel_mm**3
    shaft = np.pi * radius**2 * LENGTH
    caps = 4 / 3 * np.pi * radius**3
    assert 0.75 * shaft < volume < 1.3 * (shaft + caps)


def test_a_fine_grid_keeps_the_exact_volume() -> None:
    volume = drawn(one_tube(0.5), 0.1).sum(dtype=float) * 0.1**3
    assert volume == pytest.approx(np.pi * 0.25 * LENGTH + 4 / 3 * np.pi * 0.125, rel=0.01)


def test_hollow_tubes_are_hollow_and_open() -> None:
    layer = drawn(one_tube(0.6, wall=0.2, density=2.0), 0.1)
    volume = layer.sum(dtype=float) * 0.1**3 / 2
    assert volume == pytest.approx(np.pi * (0.36 - 0.16) * LENGTH, rel=0.03)
    middle = ((np.array([2.1, 3.2, 2.4]) + np.array([7.3, 5.9, 6.2])) / 2 / 0.1).astype(int)
    assert layer[tuple(middle)] == 0
    assert layer.max() == pytest.approx(2.0)


def test_overlapping_tubes_are_not_added_up() -> None:
    twice = one_tube(0.5)
    twice = Tubes(*(np.concatenate([column, column]) for column in twice.columns()))
    assert np.array_equal(drawn(twice, 0.2), drawn(one_tube(0.5), 0.2))


def test_split_tubes_draw_the_same() -> None:
    whole = one_tube(0.5)
    pieces = whole.split(np.array([0.4]))
    assert len(pieces.label) == np.ceil(LENGTH / 0.4)
    assert drawn(pieces, 0.2) == pytest.approx(drawn(whole, 0.2), abs=1e-4)


def test_tubes_outside_the_grid_are_cut_off() -> None:
    tube = one_tube(0.5)
    outside = Tubes(tube.start_mm + 20, tube.end_mm + 20, *tube.columns()[2:])
    across = Tubes(tube.start_mm - 4, tube.end_mm - 4, *tube.columns()[2:])
    assert drawn(outside, 0.5).max() == 0
    assert drawn(across, 0.5).max() > 0


@pytest.mark.parametrize("voxel_mm", [0.5, 0.1])
def test_an_ellipsoid_keeps_its_volume_and_paints_over(voxel_mm: float) -> None:
    n = round(10 / voxel_mm)
    image = np.full((n, n, n), 3.0, np.float32)
    radii = np.array([3.0, 1.5, 2.0])
    turn = np.linalg.qr(np.array([[1.0, 0.3, 0], [-0.3, 1, 0.5], [0.2, -0.5, 1]]))[0]
    ball = Ellipsoid(np.array([5.1, 4.9, 5.0]), np.diag(1 / radii) @ turn, 1.0)
    draw_ellipsoids(image, [ball], GridSlab(Grid((n, n, n), (voxel_mm,) * 3), 0))
    changed = (3.0 - image).sum(dtype=float) / 2 * voxel_mm**3
    assert changed == pytest.approx(4 / 3 * np.pi * radii.prod(), rel=0.03)
    assert image.min() == pytest.approx(1.0)


def test_an_ellipsoids_wall_is_as_thick_as_it_says() -> None:
    image = np.zeros((100, 100, 100), np.float32)
    ball = Ellipsoid(np.array([5.0, 5.0, 5.0]), np.eye(3) / 3, 1.0, wall_mm=0.4)
    draw_ellipsoids(image, [ball], GridSlab(Grid((100, 100, 100), (0.1,) * 3), 0))
    assert image[50, 50, 50] == 0
    assert image[50, 50, 50:].sum() * 0.1 == pytest.approx(0.4, abs=0.03)
