"""What is shown of a scan of any size: where the values lie, and that not all of it is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jawloc.geometry import Grid
from jawloc.inference.crop import CropBox
from jawloc.scans.scan import scan_in_memory
from jawloc.viewer import blocks
from jawloc.viewer.outlines import box_edges, box_in_slice, circle_in_slice, sphere

SPACING = (2.0, 0.5, 1.0)
WINDOW = CropBox((10, 20, 30), (4, 6, 8), "centred")


def ramp(shape):
    """A scan whose grey values are where they lie along z."""
    image = np.broadcast_to(np.arange(shape[0], dtype=np.float32)[:, None, None], shape)
    return scan_in_memory(Path("ramp"), image, Grid(shape, SPACING))


def test_an_overview_spans_the_scan_on_fewer_voxels(monkeypatch):
    monkeypatch.setattr(blocks, "OVERVIEW_VOXELS", 1000)
    monkeypatch.setattr(blocks, "PROJECTED_VOXELS", 100)
    scan = ramp((80, 20, 10))
    overview = blocks.read_overview(scan)
    for block in (overview, blocks.read_projected(overview, scan)):
        where = block.start_voxels[0] + block.step_voxels[0] * np.arange(block.image.shape[0])
        # of voxels that a border cuts, the shares differ by less than that
        np.testing.assert_allclose(block.image[:, 0, 0], where, atol=0.1)
        ends = np.multiply(block.image.shape, block.step_voxels)
        np.testing.assert_allclose(ends, scan.grid.shape_zyx)
    assert overview.image.size <= 1100


def test_full_detail_is_read_near_the_point_only(monkeypatch):
    monkeypatch.setattr(blocks, "DETAIL_LENGTH", 16)
    scan, read = ramp((90, 20, 10)), []

    def noted(start, stop):
        read.extend(range(start, stop))
        return scan.read_image(start, stop)

    block = blocks.read_detail(replace(scan, read_image=noted), (50.0, 3.0, 5.0))
    assert block.image.shape == (16, 16, 10)
    assert (block.start_voxels, block.step_voxels) == ((42.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert block.image[0, 0, 0] == 42
    assert read == list(range(42, 58))


@pytest.mark.parametrize(
    ("point", "shown"),
    [
        ((50.0, 3.0, 5.0), True),  # the scan goes no further along y and x
        ((45.9, 3.0, 5.0), False),
        ((54.1, 3.0, 5.0), False),
        ((50.0, 13.0, 5.0), False),
    ],
)
def test_full_detail_is_read_anew_where_a_point_leaves_it(monkeypatch, point, shown):
    monkeypatch.setattr(blocks, "DETAIL_LENGTH", 16)
    scan = ramp((90, 20, 10))
    block = blocks.read_detail(scan, (50.0, 3.0, 5.0))
    assert blocks.shows_detail(block, scan.grid.shape_zyx, point) is shown
    again = blocks.read_detail(scan, point)
    assert blocks.shows_detail(again, scan.grid.shape_zyx, point)


def test_black_and_white_differ_in_an_image_of_one_grey():
    dark, bright = blocks.grey_limits(np.full((4, 4, 4), 7, np.uint16))
    assert dark == 7 < bright


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_ball_is_a_circle_in_a_slice_and_nothing_beside_it(axis):
    centre = np.array([10.0, 20.0, 30.0])
    at = centre[axis] + 1.5 / SPACING[axis]
    outline = circle_in_slice(centre, 2.5, SPACING, axis, at)
    assert outline is not None
    assert np.all(outline[:, axis] == at)
    away = np.linalg.norm((outline - centre) * SPACING, axis=1)
    np.testing.assert_allclose(away, 2.5)
    assert circle_in_slice(centre, 2.5, SPACING, axis, centre[axis] + 2.6 / SPACING[axis]) is None
    vertices, triangles = sphere(centre, 2.5, SPACING)
    np.testing.assert_allclose(np.linalg.norm((vertices - centre) * SPACING, axis=1), 2.5)
    assert triangles.max() == len(vertices) - 1


def test_a_box_is_a_rectangle_in_a_slice_and_has_twelve_edges():
    outline = box_in_slice(WINDOW, 1, 21.0)
    assert outline is not None
    assert outline.min(axis=0).tolist() == [9.5, 21.0, 29.5]
    assert outline.max(axis=0).tolist() == [13.5, 21.0, 37.5]
    assert box_in_slice(WINDOW, 1, 26.0) is None
    edges = {tuple(map(tuple, edge.tolist())) for edge in box_edges(WINDOW)}
    assert len(edges) == 12
    lengths = sorted(np.abs(np.subtract(*edge)).sum() for edge in edges)
    assert lengths == [4.0] * 4 + [6.0] * 4 + [8.0] * 4
