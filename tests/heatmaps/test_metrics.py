"""Radial errors: the one number that the lab's script never computed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from jawloc.geometry import Grid
from jawloc.heatmaps.metrics import (
    HeatmapSample,
    radial_errors_mm,
    radial_errors_voxels,
    summarise,
)

GRID = Grid((20, 20, 20), (2.0, 1.0, 0.5))


def sample(offsets, grid: Grid = GRID, kl: float = 0.0, dice: float = 0.0, mse: float = 0.0):
    """Return one scan whose objects are found so far from the truth; those of None it lacks."""
    truth = np.array([[np.nan if offset is None else 8.0] * 3 for offset in offsets])
    found = 8.0 + np.array([offset or (0, 0, 0) for offset in offsets], float)
    kls, dices, mses = (np.full(len(offsets), value) for value in (kl, dice, mse))
    return HeatmapSample(kls, dices, mses, 2 * mses, found, truth, grid)


@pytest.mark.parametrize(
    ("offset", "voxels", "mm"),
    [
        ((0, 0, 0), 0.0, 0.0),
        ((1, 0, 0), 1.0, 2.0),
        ((0, -3, 0), 3.0, 3.0),
        ((0, 3, -8), 73**0.5, 5.0),
        ((0.5, 0.5, 0.5), 0.75**0.5, (1 + 0.25 + 0.0625) ** 0.5),
    ],
)
def test_the_radial_error_is_the_distance_in_voxels_and_in_mm(offset, voxels, mm):
    truth = np.array([[4.0, 5.0, 9.0]])
    assert radial_errors_voxels(truth + offset, truth) == pytest.approx([voxels])
    assert radial_errors_mm(truth + offset, truth, GRID) == pytest.approx([mm])


def test_errors_are_kept_per_object():
    errors = radial_errors_voxels(np.zeros((2, 3, 3)), np.ones((2, 3, 3)))
    np.testing.assert_allclose(errors, np.full((2, 3), 3**0.5))


def test_without_spacing_there_are_no_millimetres():
    assert radial_errors_mm(np.zeros((1, 3)), np.ones((1, 3)), Grid((5, 5, 5))) is None


def test_a_split_has_mean_median_and_worst_error():
    result = summarise([sample([(0, 0, d)]) for d in (1, 2, 9)])
    voxels = (result.error_voxels, result.error_voxels_median, result.error_voxels_max)
    assert voxels == pytest.approx((4, 2, 9))
    mm = (result.error_mm, result.error_mm_median, result.error_mm_max)
    assert mm == pytest.approx((2, 1, 4.5))


def test_every_object_weighs_the_same():
    result = summarise([sample([(0, 0, 1), (0, 0, 3)]), sample([(0, 0, 5), (0, 0, 7)])])
    assert result.error_voxels == pytest.approx(4)
    assert result.error_voxels_max == pytest.approx(7)


def test_scores_are_means_over_scans():
    result = summarise(
        [sample([(0, 0, 0)], kl=1, dice=0.2, mse=3), sample([(0, 0, 0)], kl=2, dice=0.6, mse=5)]
    )
    assert (result.kl_nats, result.dice, result.mse) == pytest.approx((1.5, 0.4, 4))


def test_each_scan_is_measured_with_its_own_spacing():
    fine = Grid((20, 20, 20), (0.1, 0.1, 0.1))
    result = summarise([sample([(0, 0, 4)]), sample([(0, 0, 4)], fine)])
    assert result.error_mm == pytest.approx((2.0 + 0.4) / 2)


def test_one_unknown_spacing_leaves_no_mean_in_mm():
    """A mean over the other scans would look like one over all."""
    result = summarise([sample([(0, 0, 4)]), sample([(0, 0, 4)], Grid((20, 20, 20)))])
    assert (result.error_mm, result.error_mm_median, result.error_mm_max) == (None, None, None)
    assert result.error_voxels == pytest.approx(4)


def test_numbers_are_plain_floats():
    """Checkpoints hold them and load without running code, which NumPy's types would need."""
    result = summarise([sample([(0, 0, 4)])])
    assert {type(value) for key, value in vars(result).items() if key != "by_object"} == {float}
    assert result.by_object == {}


# --- several objects -------------------------------------------------------------------------


def test_a_missing_object_counts_for_nothing():
    """A scan without an object must neither spoil a mean with NaN nor count as found exactly."""
    both = sample([(0, 0, 1), (0, 0, 3)], kl=1, dice=0.5, mse=2)
    one = sample([(0, 0, 5), None], kl=4, dice=0.2, mse=8)
    result = summarise([both, one], ["upper", "lower"])
    assert result.error_voxels == pytest.approx(3)
    assert result.error_mm == pytest.approx(1.5)
    assert (result.kl_nats, result.dice, result.mse) == pytest.approx((2, 0.4, 4))
    upper, lower = result.by_object["upper"], result.by_object["lower"]
    assert (upper.error_voxels, upper.error_voxels_max, upper.kl_nats) == pytest.approx((3, 5, 2.5))
    assert (lower.error_voxels, lower.error_voxels_max, lower.kl_nats) == pytest.approx((3, 3, 1))


def test_a_prediction_for_a_missing_object_changes_nothing():
    known = sample([(0, 0, 1), None])
    lost = replace(
        known, kl_nats=np.array([0.0, np.nan]), predicted=np.add(known.predicted, [[0], [9]])
    )
    assert summarise([known], "ab") == summarise([lost], "ab")


def test_an_object_that_no_scan_shows_has_no_metrics():
    assert list(summarise([sample([(0, 0, 1), None])], ["upper", "lower"]).by_object) == ["upper"]


def test_one_object_has_no_metrics_but_those_of_all():
    one = summarise([sample([(0, 0, 4)])], ["jaw"])
    assert one == summarise([sample([(0, 0, 4)])])
    assert list(one.flat()) == [key for key in vars(one) if key != "by_object"]


def test_each_objects_metrics_have_its_name_in_theirs():
    flat = summarise([sample([(0, 0, 1), (0, 0, 3)], dice=0.5)], ["upper", "lower jaw"]).flat()
    assert flat["error_voxels"] == pytest.approx(2)
    assert flat["error_upper_voxels"] == pytest.approx(1)
    assert flat["error_lower jaw_mm_max"] == pytest.approx(1.5)
    assert flat["dice_upper"] == pytest.approx(0.5)
    assert flat["kl_upper_nats"] == pytest.approx(0)
    without = summarise([sample([(0, 0, 1), (0, 0, 3)], Grid((20, 20, 20)))], ["a", "b"]).flat()
    assert not [key for key in without if "mm" in key]
