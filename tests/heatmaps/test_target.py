"""Targets: analytic Gaussians that sum to one and peak where the point is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from jawloc.heatmaps.target import are_present, gaussian_factors, render, with_stand_ins

SHAPE = (14, 11, 8)
INSIDE = (6.3, 5.0, 3.6)
CORNER = (0.0, 0.0, 0.0)
EDGE = (13.0, 5.2, 0.0)
FACE = (-0.5, 10.5, 7.5)
OUTSIDE = (-3.0, 5.0, 3.0)


def _one(point: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(point)[None, None]


@pytest.mark.parametrize("point", [INSIDE, CORNER, EDGE, FACE, OUTSIDE])
@pytest.mark.parametrize("sigma", [0.05, 0.5, 1.0, 3.0, 50.0])
def test_a_heatmap_sums_to_one_wherever_its_point_is(point, sigma):
    assert render(_one(point), SHAPE, sigma).sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0, 8.0])
@pytest.mark.parametrize(
    "voxel", [(0, 0, 0), (13, 10, 7), (0, 5, 4), (6, 10, 0), (1, 1, 1), (12, 5, 6)]
)
def test_the_peak_stays_at_its_voxel_beside_an_edge(voxel, sigma):
    """Filtering a delta with reflecting borders moves it (see the next test)."""
    heatmap = render(_one(voxel), SHAPE, sigma)[0, 0]
    assert np.unravel_index(int(heatmap.argmax()), SHAPE) == voxel


def test_filtering_a_delta_would_have_moved_the_peak_though_it_sums_to_one():
    """Shows that the test above can fail."""
    delta = np.zeros(14)
    delta[2] = 1
    filtered = ndimage.gaussian_filter1d(delta, 3.0, mode="reflect")
    assert filtered.sum() == pytest.approx(1)
    assert filtered.argmax() == 0


@pytest.mark.parametrize("point", [INSIDE, EDGE, FACE])
def test_values_are_those_of_the_gaussian_formula(point):
    sigma = 1.7
    axes = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    square = sum((axis - centre) ** 2 for axis, centre in zip(axes, point, strict=True))
    expected = np.exp(-square / (2 * sigma**2))
    np.testing.assert_allclose(
        render(_one(point), SHAPE, sigma)[0, 0], expected / expected.sum(), atol=1e-7
    )


def test_factors_multiply_to_the_dense_render_for_every_scan_and_object():
    points = torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(0)) * 8
    z, y, x = gaussian_factors(points, SHAPE, 2.0)
    assert [tuple(f.shape) for f in (z, y, x)] == [(2, 3, n) for n in SHAPE]
    product = torch.einsum("boz,boy,box->bozyx", z, y, x)
    torch.testing.assert_close(render(points, SHAPE, 2.0), product)


def test_a_wider_sigma_lowers_the_peak():
    peaks = [render(_one(INSIDE), SHAPE, sigma).max().item() for sigma in (1.0, 1.5, 3.0, 8.0)]
    assert peaks == sorted(peaks, reverse=True)


@pytest.mark.parametrize("sigma", [0.3, 0.01, 1e-5])
def test_a_sigma_far_below_a_voxel_is_one_voxel_and_no_nan(sigma):
    heatmap = render(_one((6.3, 5.0, 3.6)), SHAPE, sigma)
    assert torch.isfinite(heatmap).all()
    assert np.unravel_index(int(heatmap.argmax()), SHAPE) == (6, 5, 4)


def test_missing_objects_are_told_from_present_ones_and_stood_in_for():
    nan = float("nan")
    points = torch.tensor(
        [
            [(1.0, 2.0, 3.0), (nan, nan, nan), (3.0, 2.0, 1.0)],
            [(nan, nan, nan), (nan, nan, nan), (nan, nan, nan)],
            [(4.0, 5.0, 6.0), (7.0, 8.0, 9.0), (1.0, 1.0, 1.0)],
        ]
    )
    assert are_present(points).tolist() == [[True, False, True], [False] * 3, [True] * 3]
    filled = with_stand_ins(points)
    assert filled[0, 1].tolist() == [2, 2, 2]  # amid the others
    assert filled[1].isfinite().all()
    present = are_present(points)
    assert torch.equal(filled[present], points[present])
