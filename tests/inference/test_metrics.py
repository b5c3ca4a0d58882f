"""ObjectMetrics: each number on cases that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from jawloc.inference.metrics import common_unit, object_metrics, ranked, success_rates
from tests.inference.evaluated import evaluated

SPACING = (0.5, 0.25, 0.1)


def along_z(errors, **about):
    return [evaluated(f"s{n}", (e, 0, 0), **about) for n, e in enumerate(errors)]


def test_errors_in_every_unit():
    of = object_metrics(along_z([1, 2, 3, 10], spacing=SPACING)).errors
    voxels = of["full_size_voxels"]
    assert (voxels.mean, voxels.median, voxels.worst) == (4.0, 2.5, 10.0)
    assert voxels.percentile_95 == pytest.approx(3 + 0.85 * 7)  # rank 2.85 of 0 ... 3
    assert (of["mm"].mean, of["mm"].worst) == (2.0, 5.0)
    assert of["downsampled_voxels"].mean == 2.0


def test_the_success_rate_counts_errors_of_exactly_the_radius():
    rates = success_rates(np.array([0.5, 1.0, 2.0, 3.0]), (2, 1, 0.1, 2))
    assert [(r.radius, r.scans, r.share) for r in rates] == [(0.1, 0, 0), (1, 2, 0.5), (2, 3, 0.75)]


def test_radii_are_in_mm_where_every_scan_has_spacing_else_in_voxels():
    with_mm = along_z([1, 2], spacing=SPACING)
    of = object_metrics(with_mm, (0.5,))
    assert (of.success_unit, of.success[0].share) == ("mm", 0.5)
    mixed = [*with_mm, evaluated("other", (3, 0, 0))]
    of = object_metrics(mixed, (2,))
    assert (of.success_unit, of.success[0].share) == ("full_size_voxels", 2 / 3)
    assert set(of.errors) == {"downsampled_voxels", "full_size_voxels"}
    assert set(of.bias) == {"full_size_voxels"}
    assert common_unit(mixed) == "full_size_voxels"


def test_crops_that_hold_all_of_it():
    crops = object_metrics(
        [evaluated("a"), evaluated("b", inside=99), evaluated("c", inside=0)]
    ).crops
    assert (crops.whole, crops.scans, crops.least_share) == (1, 3, 0.0)
    assert crops.mean_share == pytest.approx(1.99 / 3)


def test_crops_of_scans_without_a_mask_are_not_counted():
    clicked = evaluated("d", inside=None)
    crops = object_metrics([evaluated("a"), evaluated("b", inside=50), clicked]).crops
    assert (crops.whole, crops.scans, crops.mean_share, crops.least_share) == (1, 2, 0.75, 0.5)
    assert object_metrics([clicked]).crops is None


def test_coverage_beside_what_is_stated():
    trust = {"radius_voxels": 2.0, "confidence": 0.9}
    of = object_metrics(along_z([1, 2, 2.1, 0], **trust)).coverage
    assert (of.inside, of.scans, of.share, of.stated) == (3, 4, 0.75, 0.9)
    assert of.lowest == pytest.approx(0.194, abs=1e-3)  # Clopper-Pearson, 3 of 4
    assert of.highest == pytest.approx(0.994, abs=1e-3)
    assert object_metrics(along_z([1, 2])).coverage is None


def test_coverage_and_bias_count_specimens_not_scans():
    """Left and right of one fish are wrong in the same way: twelve scans of six are six."""
    trust = {"radius_voxels": 2.0, "confidence": 0.9}
    errors = [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3]
    fish = [f"fish{n // 2}" for n in range(12)]
    twice = [
        evaluated(f"s{n}", (e, 0, 0), specimen=name, **trust)
        for n, (e, name) in enumerate(zip(errors, fish, strict=True))
    ]
    once = object_metrics(twice[::2])
    of = object_metrics(twice)
    assert (of.scans, of.specimens, of.coverage.inside, of.coverage.specimens) == (12, 6, 10, 6)
    assert of.coverage.share == pytest.approx(10 / 12)
    assert (of.coverage.lowest, of.coverage.highest) == pytest.approx(
        (once.coverage.lowest, once.coverage.highest)
    )
    assert of.coverage.lowest == pytest.approx(0.359, abs=1e-3)  # Clopper-Pearson, 5 of 6
    bias = of.bias["full_size_voxels"]["z"]
    assert (bias.mean, bias.standard_error) == pytest.approx((8 / 6, np.sqrt(4 / 6 / 6)))
    assert bias == once.bias["full_size_voxels"]["z"]
    # a specimen that is half inside counts by half
    half = object_metrics(
        [*twice[:11], evaluated("s11", (1, 0, 0), specimen="fish5", **trust)]
    ).coverage
    assert once.coverage.lowest < half.lowest < 0.6


def test_bias_is_signed_and_has_a_standard_error():
    scans = [
        evaluated("a", (1, -2, 0), spacing=SPACING),
        evaluated("b", (3, -2, 0), spacing=SPACING),
    ]
    bias = object_metrics(scans).bias
    voxels, mm = bias["full_size_voxels"], bias["mm"]
    assert (voxels["z"].mean, voxels["y"].mean, voxels["x"].mean) == (2.0, -2.0, 0.0)
    assert voxels["z"].standard_error == pytest.approx(1.0)  # sd sqrt(2) over sqrt(2)
    assert voxels["y"].standard_error == 0.0
    assert (mm["z"].mean, mm["y"].mean) == (1.0, -0.5)
    assert object_metrics(scans[:1]).bias["mm"]["z"].standard_error is None


def test_flagged_scans_and_their_errors():
    scans = [evaluated("a", (1, 0, 0)), evaluated("b", (5, 0, 0), status="uncertain")]
    of = object_metrics([*scans, evaluated("c", (7, 0, 0), status="uncertain")]).statuses
    assert {name: s.scans for name, s in of.items()} == {"ok": 1, "uncertain": 2}
    assert of["uncertain"].mean_error == {"full_size_voxels": 6.0}
    assert of["uncertain"].worst_error == {"full_size_voxels": 7.0}


def test_the_correlation_of_spread_and_error():
    scans = [evaluated(f"s{n}", (n, 0, 0), spread=n**2 + 1.0) for n in range(4)]
    assert object_metrics(scans).spread_correlation == pytest.approx(1.0)
    assert object_metrics(scans[:2]).spread_correlation is None
    assert object_metrics(along_z([1, 2, 3])).spread_correlation is None  # all spreads are the same


def test_the_worst_comes_first():
    scans = along_z([1, 3, 2])
    assert [m.scan_id for m in ranked(scans)] == ["s1", "s2", "s0"]
    # in mm another one is the worst
    a, b = (
        evaluated("a", (3, 0, 0), spacing=(0.1,) * 3),
        evaluated("b", (2, 0, 0), spacing=(1.0,) * 3),
    )
    assert [m.scan_id for m in ranked([a, b])] == ["b", "a"]
