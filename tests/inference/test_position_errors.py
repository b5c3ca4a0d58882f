"""PositionErrors: the distance between prediction and truth, in all three units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jawloc.geometry import Grid, map_points
from jawloc.inference.evaluate_scan import evaluate_positions, mean_position
from jawloc.inference.metrics import PositionErrors
from jawloc.scans.cache import Example

FULL, SIZE = (40, 30, 20), (20, 10, 5)  # 2, 3 and 4 full-size voxels make one
SPACING = (0.5, 0.1, 0.2)


def example(scan_id: str, points, spacing=SPACING, full=FULL) -> Example:
    """Return an example with objects at these points of the downsampled grid."""
    source = Grid(full, spacing)
    return Example(
        scan_id=scan_id,
        image=np.zeros(SIZE, np.uint16),
        mask=np.zeros(SIZE, np.uint8),
        points_voxels=np.asarray(points, float),
        grid=source.resized(SIZE),
        source_grid=source,
        key="key",
        source=Path(f"{scan_id}.dcm"),
    )


def off_by(*offsets):
    """Return a finder that is wrong by so many downsampled voxels."""
    return lambda example: example.points_voxels + np.asarray(offsets, float)


@pytest.mark.parametrize(
    ("offset", "small", "full", "mm"),
    [
        ((0, 0, 0), 0.0, 0.0, 0.0),
        ((1, 0, 0), 1.0, 2.0, 1.0),
        ((0, -2, 0), 2.0, 6.0, 0.6),
        ((0, 0, 1), 1.0, 4.0, 0.8),
        ((3, 4, 0), 5.0, 180**0.5, (9 + 1.44) ** 0.5),
    ],
)
def test_an_error_in_all_three_units(offset, small, full, mm):
    (error,) = evaluate_positions([example("a", [(9, 5, 2)])], off_by(offset), ["jaw"])
    assert error.error_downsampled_voxels == pytest.approx(small, abs=1e-9)
    assert error.error_full_size_voxels == pytest.approx(full, abs=1e-9)
    assert error.error_mm == pytest.approx(mm, abs=1e-9)


def test_millimetres_are_the_same_from_either_grid():
    found, truth = np.array([8.5, 3.25, 2.0]), np.array([6.0, 4.0, 2.5])
    one = example("a", [truth])
    (error,) = evaluate_positions([one], lambda _: found[None], ["jaw"])
    small_spacing = np.asarray(one.grid.spacing_mm_zyx)
    assert error.error_mm == pytest.approx(np.linalg.norm((found - truth) * small_spacing))


def test_positions_are_those_of_the_full_size_scan():
    centroid = np.array([[23.4, 11.0, 7.7]])  # of the full-size mask
    on_small = map_points(centroid, Grid(FULL), Grid(SIZE))
    (error,) = evaluate_positions([example("a", on_small)], off_by((0, 0, 1)), ["jaw"])
    np.testing.assert_allclose(error.truth_voxels, centroid[0], atol=1e-6)
    np.testing.assert_allclose(error.predicted_voxels, centroid[0] + (0, 0, 4), atol=1e-6)


def test_every_object_of_every_scan_has_its_error():
    scans = [example(name, [(9, 5, 2), (3, 3, 3)]) for name in ("a", "b")]
    errors = evaluate_positions(scans, off_by((1, 0, 0), (2, 0, 0)), ["upper", "lower"])
    assert [(e.scan_id, e.object_name, e.error_downsampled_voxels) for e in errors] == [
        ("a", "upper", 1.0),
        ("a", "lower", 2.0),
        ("b", "upper", 1.0),
        ("b", "lower", 2.0),
    ]


NAN = (np.nan,) * 3


def test_an_object_that_a_scan_lacks_has_no_error_there():
    scans = [example("a", [(9, 5, 2), NAN]), example("b", [NAN, (3, 3, 3)])]
    errors = evaluate_positions(scans, lambda _: np.full((2, 3), 3.0), ["upper", "lower"])
    result = PositionErrors(tuple(errors))
    assert [(e.scan_id, e.object_name) for e in result.errors] == [("a", "upper"), ("b", "lower")]
    lower = result.select("lower")
    assert [e.scan_id for e in lower.errors] == ["b"]
    assert lower.summary("downsampled_voxels").mean == 0
    assert result.worst().scan_id == "a"
    assert result.summary("downsampled_voxels").mean == pytest.approx(41**0.5 / 2)
    assert result.select("nothing").summary("mm") is None


def test_the_mean_position_is_that_of_the_scans_that_show_the_object():
    training = [example("a", [(2, 4, 1), NAN]), example("b", [(4, 4, 1), (6, 8, 4)])]
    np.testing.assert_allclose(mean_position(training)(training[0]), [(3, 4, 1), (6, 8, 4)])


def errors_of(offsets: dict[str, float], spacing=SPACING, **spacings):
    scans = [example(name, [(9, 5, 2)], spacings.get(name, spacing)) for name in offsets]
    errors = evaluate_positions(
        scans, lambda e: np.add(e.points_voxels, (offsets[e.scan_id], 0, 0)), ["jaw"]
    )
    return PositionErrors(tuple(errors))


@pytest.mark.parametrize(
    ("unit", "expected"), [("downsampled_voxels", 4.0), ("full_size_voxels", 8.0), ("mm", 4.0)]
)
def test_the_mean_error_in_each_unit(unit, expected):
    assert errors_of({"a": 1, "b": 2, "c": 9}).summary(unit).mean == pytest.approx(expected)


def test_one_unknown_spacing_leaves_no_mean_in_millimetres():
    result = errors_of({"a": 1, "b": 3}, b=None)
    assert [e.error_mm for e in result.errors] == [pytest.approx(1.0), None]
    assert result.summary("mm") is None
    assert result.summary("downsampled_voxels").mean == pytest.approx(2)


def test_the_worst_is_the_scan_furthest_off():
    assert errors_of({"a": 1, "b": -7, "c": 3}).worst().scan_id == "b"


def test_the_mean_position_is_that_of_the_training_scans():
    training = [example("a", [(2, 4, 1)]), example("b", [(10, 6, 3)])]
    find = mean_position(training)
    np.testing.assert_allclose(find(example("test", [(0, 0, 0)])), [(6, 5, 2)])


def test_the_mean_position_is_kept_per_object():
    training = [example("a", [(2, 4, 1), (8, 8, 4)]), example("b", [(4, 4, 1), (6, 8, 4)])]
    np.testing.assert_allclose(
        mean_position(training)(training[0]), [(3, 4, 1), (7, 8, 4)], atol=1e-9
    )


def test_the_mean_position_is_as_wrong_as_the_test_scan_is_unusual():
    training = [example("a", [(2, 5, 2)]), example("b", [(10, 5, 2)])]
    errors = evaluate_positions([example("c", [(9, 5, 2)])], mean_position(training), ["jaw"])
    result = PositionErrors(tuple(errors))
    assert result.summary("downsampled_voxels").mean == pytest.approx(3)
    assert result.summary("mm").mean == pytest.approx(3)
