"""The conformal radius holds the truth as often as stated; p-values come from reference ranges."""

import numpy as np
import pytest

from jawloc.inference.calibrate import reference_range
from jawloc.inference.conformal import Conformal, calibrate_radius, ensemble_error_ratio
from jawloc.inference.quality import ReferenceRange


@pytest.mark.parametrize(
    ("errors", "confidence", "expected"),
    [
        (range(1, 10), 0.9, Conformal(9.0, 0.9, 9)),  # ninth of nine: ceil(10 * 0.9)
        (range(1, 20), 0.9, Conformal(18.0, 0.9, 19)),
        (range(1, 20), 0.5, Conformal(10.0, 0.5, 19)),
        (range(1, 9), 0.9, Conformal(8.0, 8 / 9, 8)),  # too few: the widest, and what it supports
        (range(1, 7), 0.9, Conformal(6.0, 6 / 7, 6)),
        # too few: the largest of one is exceeded by half of all others
        (range(1, 6), 0.9, None),
        ([2.0], 0.9, None),
        ([], 0.9, None),
    ],
)
def test_rank_of_the_error_that_sets_the_radius(errors, confidence, expected):
    assert calibrate_radius(list(errors), [1.0] * len(errors), confidence) == expected


def test_the_radius_grows_with_the_spread():
    errors, widths = [1.0, 4.0, 9.0, 0.1, 0.1, 0.1, 0.1], [1.0, 2.0, 3.0, 1, 1, 1, 1]
    conformal = calibrate_radius(errors, widths, 0.875)
    assert conformal == Conformal(3.0, 0.875, 7)
    assert conformal.radius(2.0) == 6.0


def test_each_specimen_counts_once_by_its_worst_scan():
    errors, specimens = [1, 9, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6], list("aabbccddeeff")
    known = calibrate_radius([float(e) for e in errors], [1.0] * 12, 0.9, specimens)
    assert known == Conformal(9.0, 6 / 7, 6)  # not of twelve
    assert calibrate_radius([1.0] * 12, [1.0] * 12, 0.9, list("aaabbbcccddd")) is None


def test_coverage_where_every_specimen_has_two_scans_with_nearly_one_error():
    """By scans, the radius would hold the truth in fewer specimens than stated."""
    random = np.random.default_rng(0)
    held = 0
    for _ in range(4000):
        of_specimen = random.lognormal(0, 1.5, 11)
        errors = (of_specimen[:, None] * random.uniform(0.9, 1.1, (11, 2))).ravel()
        names = np.repeat(np.arange(11), 2).astype(str)
        known = calibrate_radius(errors[:-2], np.ones(20), 0.9, names[:-2])
        held += errors[-2:].max() <= known.radius(1.0)
    assert held / 4000 == pytest.approx(0.91, abs=0.015)  # the tenth of ten: 10 / 11


@pytest.mark.parametrize("shared", [0.0, 0.5, 0.9])
def test_how_much_averaging_helps_is_learned_from_two_networks(shared):
    """Errors of which a share is common to all networks, the rest each network's own."""
    random, networks, scans = np.random.default_rng(1), 5, 3000
    common = random.normal(size=(scans, 3)) * shared**0.5
    own = random.normal(size=(networks, scans, 3)) * (1 - shared) ** 0.5
    errors = common + own
    truth = np.square(errors.mean(axis=0)).sum(-1).mean() / np.square(errors).sum(-1).mean()
    names = [str(i) for i in range(scans)]
    ratio = ensemble_error_ratio(errors[0], errors[1], networks, names)
    assert truth**0.5 <= ratio < truth**0.5 + 0.06
    assert ensemble_error_ratio(errors[0][:5], errors[1][:5], networks, names[:5]) == 1.0


@pytest.mark.parametrize("scans", [6, 19, 60])
def test_coverage_over_many_calibrations(scans):
    """Whatever the errors' distribution: here one with a heavy tail, its width unknown."""
    random = np.random.default_rng(0)
    held = confident = 0.0
    for _ in range(4000):
        spreads = random.uniform(1, 3, scans + 1)
        errors = spreads * random.lognormal(0, 1.5, scans + 1)
        conformal = calibrate_radius(errors[:-1], spreads[:-1], 0.9)
        held += errors[-1] <= conformal.radius(spreads[-1])
        confident = conformal.confidence
    assert held / 4000 == pytest.approx(confident, abs=0.02)


def test_a_p_value_is_the_t_distributions():
    reference = reference_range([1.0, 2.0, 3.0, 4.0, 5.0])
    assert reference == ReferenceRange(3.0, pytest.approx(1.5811, abs=1e-4), 5)
    # 2.776 is the 97.5 % point of Student's t with 4 degrees of freedom
    assert reference.p_value(3 + 2.7764 * 1.5811 * (1 + 1 / 5) ** 0.5) == pytest.approx(
        0.05, abs=1e-4
    )
    assert reference.p_value(3.0) == 1.0


def test_one_scan_makes_nothing_extreme():
    assert reference_range([2.0]).p_value(1e6) == 1.0
    assert reference_range([]).p_value(0.0) == 1.0
    assert reference_range([2.0, float("nan")]) == ReferenceRange(2.0, 0.0, 1)
    assert reference_range([1.0, 2.0]).p_value(float("inf")) == 0.0


def test_scans_that_agree_to_a_digit_vary_by_the_least_deviation():
    assert reference_range([5.0, 5.0, 5.0]).p_value(5.001) == 0.0
    assert reference_range([5.0, 5.0, 5.0], least_deviation=0.1).p_value(5.001) > 0.9


@pytest.mark.parametrize("p_value", [0.001, 0.05, 0.2])
@pytest.mark.parametrize("count", [3, 12, 100])
def test_a_widened_range_holds_what_it_was_widened_for(count, p_value):
    values = np.random.default_rng(count).standard_t(1.5, count).tolist()
    reference = reference_range(values)
    wide = reference.widened(values, p_value)
    assert min(wide.p_value(value) for value in values) >= p_value * (1 - 1e-6)
    assert wide.deviation >= reference.deviation


def test_a_range_that_is_wide_enough_stays():
    reference = reference_range([1.0, 2.0, 3.0])
    assert reference.widened([1.0, 2.0, 3.0], 0.001) == reference
    assert reference.widened([], 0.001) == reference
    assert reference_range([1.0]).widened([5.0], 0.001) == reference_range([1.0])
