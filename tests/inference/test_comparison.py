"""Champion against challenger: the paired test, and when it can't tell."""

from __future__ import annotations

import numpy as np
import pytest

from jawloc.inference.comparison import TEST, compare, p_value
from tests.inference.evaluated import evaluated


def twins(errors):
    """Two scans of each specimen, wrong in the same way."""
    return [
        evaluated(f"s{n}{side}", (e, 0, 0), specimen=f"s{n}")
        for n, e in enumerate(errors)
        for side in "lr"
    ]


def scans(errors, **about):
    return [evaluated(f"s{n}", (e, 0, 0), **about) for n, e in enumerate(errors)]


def test_lower_in_every_one_of_six_scans_is_better():
    said = compare(scans([1, 2, 3, 4, 5, 6]), scans([2, 4, 6, 8, 10, 12]))
    assert said.p_value == pytest.approx(1 / 2**6)  # one of 64 ways to share out six signs
    assert said.challenger_wins
    assert (said.scans, said.better, said.equal, said.worse) == (6, 6, 0, 0)
    assert (said.unit, said.test) == ("full_size_voxels", TEST)
    assert (said.challenger_mean, said.champion_mean) == (3.5, 7.0)
    assert "the new model is better" in said.sentence()
    assert "p = 0.0156" in said.sentence()


def test_scans_of_one_specimen_are_one_pair():
    """Six scans of three fish say as little as three."""
    said = compare(twins([1, 2, 3]), twins([2, 4, 6]))
    assert (said.scans, said.specimens, said.p_value) == (6, 3, None)
    assert "6 scans of 3 specimens" in said.sentence()
    said = compare(twins([1, 2, 3, 4, 5, 6]), twins([2, 4, 6, 8, 10, 12]))
    assert (said.scans, said.specimens, said.better) == (12, 6, 6)
    assert said.p_value == pytest.approx(1 / 2**6)  # by scans it would be 1 / 2**12


def test_the_other_way_round_the_champion_stays():
    said = compare(scans([2, 4, 6, 8, 10, 12]), scans([1, 2, 3, 4, 5, 6]))
    assert said.p_value == pytest.approx(1.0)
    assert not said.challenger_wins
    assert "the champion stays" in said.sentence()


@pytest.mark.parametrize("n", [0, 1, 5])
def test_few_scans_cannot_tell(n):
    said = compare(scans([1.0] * n), scans(np.arange(n) + 2.0))
    assert said.p_value is None
    assert not said.challenger_wins
    assert "at least 6 specimens are needed" in said.sentence()


def test_equal_scans_say_nothing():
    assert p_value(np.ones(9), np.ones(9)) == 1.0
    with_ties = np.array([1, 2, 3, 4, 5, 6, 7.0])
    other = np.array([2, 4, 6, 8, 10, 12, 7.0])
    assert p_value(with_ties, other) == p_value(with_ties[:-1], other[:-1])


def test_only_scans_that_both_were_tried_on_count_and_in_any_order():
    mine, theirs = scans([1, 2, 3, 4, 5, 6, 100]), scans([2, 4, 6, 8, 10, 12])
    said = compare(mine, theirs[::-1])
    assert (said.scans, said.challenger_mean) == (6, 3.5)


def test_millimetres_only_where_every_scan_has_them():
    spacing = (0.5, 0.5, 0.5)
    assert compare(scans([1], spacing=spacing), scans([2], spacing=spacing)).unit == "mm"
    assert compare(scans([1], spacing=spacing), scans([2])).unit == "full_size_voxels"


def test_objects_of_one_scan_are_one_pair():
    mine = [m for name in "ab" for m in scans([1, 2, 3, 4, 5, 6], name=name)]
    theirs = [m for name in "ab" for m in scans([2, 4, 6, 8, 10, 12], name=name)]
    said = compare(mine, theirs)
    assert (said.scans, said.objects) == (6, ("a", "b"))
    assert said.p_value == pytest.approx(1 / 2**6)
