"""Scan ids -> specimens."""

import pytest

from jawloc.errors import InputError
from jawloc.training.specimens import SPECIMEN_PATTERN, checked_pattern, group_by_specimen


@pytest.mark.parametrize(
    ("scan_id", "specimen"),
    [
        ("fish12", "fish12"),
        # a side, a letter, a scan, a repeat
        ("fish12_a", "fish12"),
        ("fish12-B", "fish12"),
        ("fish12b", "fish12"),
        ("131a", "131"),
        ("fish12_left", "fish12"),
        ("fish12_R", "fish12"),
        ("fish 12 Right", "fish 12"),
        ("fishA_left", "fishA"),
        ("fish12_scan2", "fish12"),
        ("fish12_scan_02", "fish12"),
        ("fish12_rescan2", "fish12"),
        ("fish12_rescan", "fish12"),
        ("fish12_rep1", "fish12"),
        ("fish12_repeat-3", "fish12"),
        ("sub-01_ses-02_run-1", "sub-01"),
        # several
        ("fish12_left_scan2", "fish12"),
        ("fish12_a_left", "fish12"),
        # what names a specimen itself
        ("131", "131"),
        ("phantom_003", "phantom_003"),
        ("hippocampus_017", "hippocampus_017"),
        ("fish12_2", "fish12_2"),
        ("1.2.840.113", "1.2.840.113"),
        ("scan_002", "scan_002"),
        ("scan2", "scan2"),
        ("left", "left"),
        ("a", "a"),
        ("wt_mutant", "wt_mutant"),
        ("zf_s12", "zf_s12"),
    ],
)
def test_what_is_in_front_of_a_side_a_letter_or_a_repeat_is_the_specimen(scan_id, specimen):
    assert group_by_specimen([scan_id], SPECIMEN_PATTERN) == {specimen: [scan_id]}


def test_specimens_and_their_scans_are_sorted():
    ids = ["f2_b", "f10", "f2_a", "f1"]
    found = group_by_specimen(ids, SPECIMEN_PATTERN)
    assert list(found.items()) == [("f1", ["f1"]), ("f10", ["f10"]), ("f2", ["f2_a", "f2_b"])]


def test_a_lab_can_say_it_itself():
    assert group_by_specimen(["wt_1_x", "wt_1_y", "wt_2_x"], r"(\w+?_\d+)") == {
        "wt_1": ["wt_1_x", "wt_1_y"],
        "wt_2": ["wt_2_x"],
    }


@pytest.mark.parametrize("pattern", [r"(fish\d+)", r"x(\d*)", r"y|(fish)"])
def test_a_pattern_that_finds_no_specimen_in_a_scan_is_refused_with_the_scan(pattern):
    """Else such scans would count as specimens of their own, and errors be too good unnoticed."""
    with pytest.raises(InputError, match=r"^specimen_pattern: .*'xray'"):
        group_by_specimen(["xray"], pattern)


@pytest.mark.parametrize("pattern", ["(", "fish", "(a)(b)"])
def test_a_pattern_has_one_group(pattern):
    with pytest.raises(ValueError, match=r"group|regular expression"):
        checked_pattern(pattern)
