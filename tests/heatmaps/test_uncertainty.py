"""A radius that holds the truth as often as it says, and numbers that are told from usual ones."""

import numpy as np
import pytest

from jawloc.heatmaps.uncertainty import Conformal, UsualRange, calibrate_radius, usual_range


@pytest.mark.parametrize(
    ("errors", "confidence", "expected"),
    [
        (range(1, 10), 0.9, Conformal(9.0, 0.9, 9)),  # ninth of nine: ceil(10 * 0.9)
        (range(1, 20), 0.9, Conformal(18.0, 0.9, 19)),
        (range(1, 20), 0.5, Conformal(10.0, 0.5, 19)),
        (range(1, 9), 0.9, Conformal(8.0, 8 / 9, 8)),  # too few: the widest, and what it supports
        ([2.0], 0.9, Conformal(2.0, 0.5, 1)),
        ([], 0.9, None),
    ],
)
def test_rank_of_the_error_that_sets_the_radius(errors, confidence, expected):
    assert calibrate_radius(list(errors), [1.0] * len(errors), confidence) == expected


def test_the_radius_grows_with_the_spread():
    ball = calibrate_radius([1.0, 4.0, 9.0], [1.0, 2.0, 3.0], 0.75)
    assert ball == Conformal(3.0, 0.75, 3)
    assert ball.radius(2.0) == 6.0


@pytest.mark.parametrize("scans", [5, 19, 60])
def test_coverage_over_many_calibrations(scans):
    """Whatever the errors' distribution: here one with a heavy tail, its width unknown."""
    random = np.random.default_rng(0)
    held = confident = 0.0
    for _ in range(4000):
        spreads = random.uniform(1, 3, scans + 1)
        errors = spreads * random.lognormal(0, 1.5, scans + 1)
        ball = calibrate_radius(errors[:-1], spreads[:-1], 0.9)
        held += errors[-1] <= ball.radius(spreads[-1])
        confident = ball.confidence
    assert held / 4000 == pytest.approx(confident, abs=0.02)


def test_a_usual_range_is_the_t_distributions():
    usual = usual_range([1.0, 2.0, 3.0, 4.0, 5.0])
    assert usual == UsualRange(3.0, pytest.approx(1.5811, abs=1e-4), 5)
    # 2.776 is the 97.5 % point of Student's t with 4 degrees of freedom
    assert usual.surprise(3 + 2.7764 * 1.5811 * (1 + 1 / 5) ** 0.5) == pytest.approx(0.05, abs=1e-4)
    assert usual.surprise(3.0) == 1.0


def test_few_scans_make_nothing_odd():
    assert usual_range([2.0]).surprise(1e6) == 1.0
    assert usual_range([]).surprise(0.0) == 1.0
    assert usual_range([2.0, float("nan")]) == UsualRange(2.0, 0.0, 1)
    assert usual_range([1.0, 2.0]).surprise(float("inf")) == 0.0


def test_scans_that_agree_to_a_digit_vary_by_the_least_deviation():
    assert usual_range([5.0, 5.0, 5.0]).surprise(5.001) == 0.0
    assert usual_range([5.0, 5.0, 5.0], least_deviation=0.1).surprise(5.001) > 0.9


@pytest.mark.parametrize("chance", [0.001, 0.05, 0.2])
@pytest.mark.parametrize("count", [3, 12, 100])
def test_a_widened_range_holds_what_it_was_widened_for(count, chance):
    values = np.random.default_rng(count).standard_t(1.5, count).tolist()
    usual = usual_range(values)
    wide = usual.widened(values, chance)
    assert min(wide.surprise(value) for value in values) >= chance * (1 - 1e-6)
    assert wide.deviation >= usual.deviation


def test_a_range_that_is_wide_enough_stays():
    usual = usual_range([1.0, 2.0, 3.0])
    assert usual.widened([1.0, 2.0, 3.0], 0.001) == usual
    assert usual.widened([], 0.001) == usual
    assert usual_range([1.0]).widened([5.0], 0.001) == usual_range([1.0])
