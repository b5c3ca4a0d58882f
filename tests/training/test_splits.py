"""Scan ids -> specimens -> splits and folds."""

from __future__ import annotations

import numpy as np
import pytest

from jawloc.errors import InputError
from jawloc.training.splits import (
    SPECIMEN_PATTERN,
    Split,
    SplitConfig,
    check_objects,
    checked_pattern,
    choose_folds,
    choose_split,
    cross_validation_splits,
    group_by_specimen,
    specimens_of,
    warn_of_divided_specimens,
)

IDS = ["104", "101", "105", "102", "103"]  # not sorted
FISH = ["f1_a", "f1_b", "f1_c", "f2", "f3_left", "f3_right", "f4"]
SIX = Split(("a", "b", "c", "d"), ("e",), ("f",))


# --- specimens -----------------------------------------------------------------------------------


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
    found = specimens_of(ids, SPECIMEN_PATTERN)
    assert found == {"f1": "f1", "f10": "f10", "f2_a": "f2", "f2_b": "f2"}


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


# --- one split -----------------------------------------------------------------------------------


def test_by_default_all_but_the_last_two_train_the_last_but_one_validates_and_the_last_tests():
    """As the lab's script does, in sorted order."""
    split = choose_split(IDS, SplitConfig())
    assert split.train_ids == ("101", "102", "103")
    assert split.val_ids == ("104",)
    assert split.test_ids == ("105",)


@pytest.mark.parametrize(
    ("validation", "test", "expected"),
    [
        (2, 1, (["101", "102"], ["103", "104"], ["105"])),
        (1, 3, (["101"], ["102"], ["103", "104", "105"])),
        (("101",), 1, (["102", "103", "104"], ["101"], ["105"])),
        (1, ("101", "102"), (["103", "104"], ["105"], ["101", "102"])),
        (("105",), 1, (["101", "102", "103"], ["105"], ["104"])),
        (("103", "101"), ("102",), (["104", "105"], ["101", "103"], ["102"])),
        ((103,), (102, "101"), (["104", "105"], ["103"], ["101", "102"])),  # YAML reads 103 so
    ],
)
def test_counts_are_taken_from_the_end_of_what_ids_leave(validation, test, expected):
    split = choose_split(IDS, SplitConfig(validation_scans=validation, test_scans=test))
    assert [list(split.train_ids), list(split.val_ids), list(split.test_ids)] == list(expected)


@pytest.mark.parametrize("config", [SplitConfig(), SplitConfig(2, 2), SplitConfig(("104",), 1)])
def test_every_scan_is_used_for_exactly_one_purpose(config):
    split = choose_split(IDS, config)
    assert sorted(split.train_ids + split.val_ids + split.test_ids) == sorted(IDS)


@pytest.mark.parametrize(
    ("validation", "test", "says"),
    [
        (("999",), 1, ["validation_scans", "'999'", "101"]),
        (1, (999,), ["test_scans", "'999'", "101"]),
        (("101",), ("101",), ["'101'", "twice"]),
        (1, ("102", "102"), ["'102'", "twice"]),
        (1, (102, "102"), ["'102'", "twice"]),
        (2, 3, ["left to train on", "0, 2 and 3"]),
        (1, 5, ["left to train on", "0, 0 and 5"]),
        (1, 9, ["left to train on", "0, 0 and 5"]),
        (("101", "102"), ("103", "104", "105"), ["left to train on", "0, 2 and 3"]),
        ((), 1, ["one to validate", "4, 0 and 1"]),
        (1, (), ["one to test", "4, 1 and 0"]),
    ],
)
def test_a_split_that_cannot_be_is_refused_with_its_key_and_value(validation, test, says):
    with pytest.raises(InputError) as caught:
        choose_split(IDS, SplitConfig(validation_scans=validation, test_scans=test))
    assert all(part in str(caught.value) for part in says), str(caught.value)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_scans_are_refused(count):
    with pytest.raises(InputError, match=rf"at least 3 scans .*found {count}"):
        choose_split(IDS[:count], SplitConfig())


def test_the_message_on_an_unknown_id_does_not_list_hundreds_of_scans():
    with pytest.raises(InputError) as caught:
        choose_split([f"{i:03d}" for i in range(400)], SplitConfig(test_scans=("x",)))
    assert "399 (400 in all)" in str(caught.value)
    assert len(str(caught.value)) < 200


SIDES = ["fish07", "fish08_left", "fish08_right", "fish09_left", "fish09_right"]


@pytest.mark.parametrize(
    ("ids", "validation", "test", "expected"),
    [
        # regression: fish09_left validated and fish09_right tested
        (SIDES, 1, 1, ("fish07", "fish08_left fish08_right", "fish09_left fish09_right")),
        (FISH, 1, 1, ("f1_a f1_b f1_c f2", "f3_left f3_right", "f4")),
        # whole specimens until there are at least so many
        (FISH, 1, 2, ("f1_a f1_b f1_c", "f2", "f3_left f3_right f4")),
        (FISH, 2, 1, ("f1_a f1_b f1_c f2", "f3_left f3_right", "f4")),
        (FISH, 3, 1, ("f1_a f1_b f1_c", "f2 f3_left f3_right", "f4")),
        # the last scan tests, wherever its specimen's name would stand
        (["10b", "10", "10_x", "100", "101"], 1, 1, ("100", "101", "10 10_x 10b")),
        (["9", "10", "10b", "100"], 1, 1, ("100", "10 10b", "9")),
        # lists are taken as they are, and numbers leave alone what they name
        (FISH, 1, ("f4", "f2"), ("f1_a f1_b f1_c", "f3_left f3_right", "f2 f4")),
        (SIDES, ("fish08_left", "fish08_right"), 1, ("fish07", *("fish08", "fish09"))),
        (FISH, 1, ("f4", "f3_left"), ("f1_a f1_b f1_c f3_right", "f2", "f3_left f4")),
        (FISH, ("f3_right",), 1, ("f1_a f1_b f1_c f2 f3_left", "f3_right", "f4")),
        (SIDES, ("fish09_left",), ("fish09_right",), (" ".join(SIDES[:3]), *SIDES[3:])),
    ],
)
def test_specimens_stay_whole_wherever_a_number_decides(ids, validation, test, expected):
    split = choose_split(ids, SplitConfig(validation, test))
    both = {name: f"{name}_left {name}_right" for name in ("fish08", "fish09")}
    assert [" ".join(part) for part in vars(split).values()] == [both.get(e, e) for e in expected]


@pytest.mark.parametrize(
    ("ids", "validation", "test", "says"),
    [
        (SIDES[1:], 1, 1, "at least 3 specimens .*; found 2 specimens in 4 scans .specimen_pat"),
        (["scan_a", "scan_b", "scan_c"], 1, 1, "found 1 specimen in 3 scans .specimen_pattern"),
        (SIDES, 1, 3, r"of 3 specimens in 5 scans \(specimen_pattern .* leave 0, 1 and 4"),
        (SIDES[1:], 1, ("fish09_left", "fish09_right"), "these leave 0, 2 and 2"),
        (SIDES, 1, ("fish07", "fish08_left", "fish09_left"), "these leave 2, 0 and 3"),
        (FISH, 4, ("f1_a",), None),
        (FISH, 5, ("f1_a",), "validation_scans: 5 scans must be of .*there are 4 .specimen_pat"),
        (["x1", "y1", "z2"], 1, 1, None),
    ],
)
def test_too_few_specimens_are_refused_with_the_setting(ids, validation, test, says):
    if says is None:
        choose_split(ids, SplitConfig(validation, test))
        return
    with pytest.raises(InputError, match=says):
        choose_split(ids, SplitConfig(validation, test))


def test_a_lab_can_say_otherwise():
    split = choose_split(["scan_a", "scan_b", "scan_c"], SplitConfig(specimen_pattern="(.+)"))
    assert split == Split(("scan_a",), ("scan_b",), ("scan_c",))
    with pytest.raises(InputError, match=r"specimen_pattern: .*'101'"):
        choose_split(IDS, SplitConfig(specimen_pattern="(fish)"))


def test_one_warning_names_the_specimens_that_lists_divide():
    split = choose_split(FISH, SplitConfig(("f1_b",), ("f3_left", "f1_c")))
    with pytest.warns(UserWarning) as warned:
        warn_of_divided_specimens(split, SPECIMEN_PATTERN)
    (said,) = [str(warning.message) for warning in warned]
    assert "f1 (training: f1_a; validation: f1_b; test: f1_c)" in said
    assert "f3 (training: f3_right; test: f3_left)" in said
    assert "f2" not in said and "f4" not in said
    assert "specimen_pattern" in said


@pytest.mark.parametrize("config", [SplitConfig(), SplitConfig(("f2",), ("f3_left", "f3_right"))])
def test_whole_specimens_need_no_warning(config, recwarn):
    warn_of_divided_specimens(choose_split(FISH, config), SPECIMEN_PATTERN)
    assert [str(warning.message) for warning in recwarn] == []


def many_ids(seed):
    """Return ids of 6 to 30 specimens with up to four scans each, in no order."""
    rng = np.random.default_rng(seed)
    kinds = (["", "_left", "_right"], ["_scan1", "_scan2", "_rescan"], ["", "b", "c", "d"], [""])
    ids = []
    for number in rng.choice(300, rng.integers(6, 31), replace=False):
        ends = kinds[rng.integers(len(kinds))]
        # some names are longer than others, so that ids and names sort differently
        name = f"{number}" if rng.random() < 0.5 else f"fish{number:03d}"
        ids += [name + end for end in rng.permutation(ends)[: rng.integers(1, len(ends) + 1)]]
    return [str(i) for i in rng.permutation(ids)]


def parts_of(split):
    return [split.train_ids, split.val_ids, split.test_ids]


def assert_whole(split, ids):
    """Every scan has one use, and the scans of a specimen have the same."""
    assert sorted(i for part in parts_of(split) for i in part) == sorted(ids)
    used = [set(specimens_of(part, SPECIMEN_PATTERN).values()) for part in parts_of(split)]
    assert all(used)
    assert sum(map(len, used)) == len(group_by_specimen(ids, SPECIMEN_PATTERN))


@pytest.mark.parametrize("seed", range(20))
def test_no_way_of_dividing_scans_divides_a_specimen(seed):
    ids = many_ids(seed)
    specimens = group_by_specimen(ids, SPECIMEN_PATTERN)
    largest = max(map(len, specimens.values()))
    assert largest > 1
    for validation, test in ((1, 1), (2, 1), (2, 3)):
        config = SplitConfig(validation, test)
        split = choose_split(ids, config)
        assert_whole(split, ids)
        assert sorted(ids)[-1] in split.test_ids
        assert validation <= len(split.val_ids) < validation + largest
        assert test <= len(split.test_ids) < test + largest
        for folds in (2, 3):
            tuned = choose_folds(split, folds, SPECIMEN_PATTERN)
            assert {fold.test_ids for fold in tuned} == {split.test_ids}
            validated = [i for fold in tuned for i in fold.val_ids]
            assert sorted(validated) == sorted(split.train_ids + split.val_ids)
            crossed = cross_validation_splits(ids, folds, config)
            assert sorted(i for fold in crossed for i in fold.test_ids) == sorted(ids)
            assert all(len(fold.val_ids) >= validation for fold in crossed)
            for every in ([f.val_ids for f in tuned], [f.test_ids for f in crossed]):
                assert max(map(len, every)) - min(map(len, every)) <= largest
            for fold in (*tuned, *crossed):
                assert_whole(fold, ids)


@pytest.mark.parametrize("count", [5, 46, 200])
def test_where_every_specimen_has_one_scan_all_is_as_it_was_before_specimens_counted(count):
    """As in results that are published: the last test, the folds are dealt one by one."""
    ids = [f"phantom_{n:03d}" for n in range(count)]
    split = choose_split(ids, SplitConfig(1, 2))
    assert split == Split(tuple(ids[:-3]), (ids[-3],), tuple(ids[-2:]))
    tuned = choose_folds(split, 2, SPECIMEN_PATTERN)
    assert [fold.val_ids for fold in tuned] == [tuple(ids[:-2][k::2]) for k in range(2)]
    crossed = cross_validation_splits(ids, 5, SplitConfig())
    assert [fold.test_ids for fold in crossed] == [tuple(ids[k::5]) for k in range(5)]


# --- the folds of a tuning -----------------------------------------------------------------------


def test_the_folds_of_a_tuning_keep_siblings_together():
    """Regression: 14 of 15 validation scans had a sibling among the training scans."""
    ids = [f"fish{n:02d}_{side}" for n in range(8) for side in ("left", "right")]
    split = choose_split(ids, SplitConfig())
    assert split.test_ids == ("fish07_left", "fish07_right")
    folds = choose_folds(split, 3, SPECIMEN_PATTERN)
    assert sorted(len(fold.val_ids) for fold in folds) == [4, 4, 6]
    for fold in folds:
        assert_whole(fold, ids)


def test_folds_leave_a_test_list_as_it_is():
    split = choose_split(FISH, SplitConfig(("f1_a",), ("f3_left",)))
    folds = choose_folds(split, 2, SPECIMEN_PATTERN)
    assert [fold.val_ids for fold in folds] == [("f1_a", "f1_b", "f1_c"), ("f2", "f3_right", "f4")]
    assert {fold.test_ids for fold in folds} == {("f3_left",)}


@pytest.mark.parametrize(
    ("folds", "says"),
    [
        (1, "--folds: at least 2.*received 1"),
        (3, r"received 3 for 2 specimens in 3 scans \(specimen_pattern"),
        (9, "received 9 for 2 specimens in 3 scans"),
    ],
)
def test_more_folds_than_specimens_are_refused(folds, says):
    split = choose_split(SIDES, SplitConfig())
    with pytest.raises(InputError, match=says):
        choose_folds(split, folds, SPECIMEN_PATTERN)


# --- cross-validation ----------------------------------------------------------------------------


def parts(ids, folds, **settings):
    """Return each fold's scans: those tested, those that validate, those trained on."""
    splits = cross_validation_splits(ids, folds, SplitConfig(**settings))
    return [(list(s.test_ids), list(s.val_ids), list(s.train_ids)) for s in splits]


@pytest.mark.parametrize(
    ("specimens", "validating", "way"),
    [(3, 1, "in every fold; take more folds"), (5, 3, "; 3 scans to validate with leave none")],
)
def test_folds_that_leave_nothing_to_train_on_say_what_helps(specimens, validating, way):
    """Regression: of three specimens in two folds, it was the least number of validation scans."""
    ids = [f"fish{number}" for number in range(specimens)]
    with pytest.raises(InputError, match=way):
        cross_validation_splits(ids, 2, SplitConfig(validation_scans=validating))


@pytest.mark.parametrize(
    ("ids", "folds", "expected"),
    [
        # tested, validating, training
        (["3", "1", "2"], 3, [("1", "2", "3"), ("2", "3", "1"), ("3", "1", "2")]),
        (["1", "2", "3", "4"], 2, [("1 3", "2", "4"), ("2 4", "1", "3")]),
        # the largest specimen first, each to the smallest part
        (
            FISH,
            2,
            [
                ("f1_a f1_b f1_c f4", "f2", "f3_left f3_right"),
                ("f2 f3_left f3_right", "f4", "f1_a f1_b f1_c"),
            ],
        ),
        (
            FISH,
            3,
            [
                ("f1_a f1_b f1_c", "f3_left f3_right", "f2 f4"),
                ("f3_left f3_right", "f2", "f1_a f1_b f1_c f4"),
                ("f2 f4", "f1_a f1_b f1_c", "f3_left f3_right"),
            ],
        ),
    ],
)
def test_each_specimen_is_tested_once_and_the_next_part_validates(ids, folds, expected):
    assert parts(ids, folds) == [tuple(text.split() for text in fold) for fold in expected]


@pytest.mark.parametrize(
    ("validation", "expected"),
    [(1, 1), (3, 3), (5, 5), (("a", "b"), 2), (("1",), 1), ((), 1)],
)
def test_as_many_scans_validate_as_the_setting_says(validation, expected):
    ids = [str(n) for n in range(10, 22)]
    for _, val, train in parts(ids, 4, validation_scans=validation, test_scans=9):
        assert len(val) == expected
        assert len(train) == 9 - expected


@pytest.mark.parametrize("folds", [2, 3, 5, 7])
def test_every_scan_is_tested_once_and_no_specimen_is_in_two_parts(folds):
    ids = [f"fish{n}_{letter}" for n in range(1, 8) for letter in "abcd"[: 1 + n % 4]]
    splits = cross_validation_splits(ids, folds, SplitConfig(validation_scans=2))
    assert sorted(i for split in splits for i in split.test_ids) == sorted(ids)
    for split in splits:
        every = [split.train_ids, split.val_ids, split.test_ids]
        assert sorted(i for part in every for i in part) == sorted(ids)
        specimens = [{i.split("_")[0] for i in part} for part in every]
        assert sum(map(len, specimens)) == 7
        assert len(split.val_ids) >= 2
    sizes = [len(split.test_ids) for split in splits]
    assert max(sizes) - min(sizes) <= 4


@pytest.mark.parametrize(
    ("ids", "folds", "says"),
    [
        ("123", 1, "--folds: at least 2"),
        ("123", 0, "--folds: at least 2"),
        ("123", 4, "received 4 for 3 specimens in 3 scans"),
        ("12", 2, "received 2 for 2 specimens in 2 scans"),
        (["f1_a", "f1_b", "f2_a", "f2_b"], 3, "received 3 for 2 specimens in 4 scans"),
        ("", 2, "received 2 for 0 specimens in 0 scans"),
    ],
)
def test_what_cannot_be_is_refused(ids, folds, says):
    with pytest.raises(InputError, match=says):
        cross_validation_splits(list(ids), folds, SplitConfig())


def test_validation_that_leaves_nothing_to_train_on_is_refused():
    with pytest.raises(InputError, match="validation_scans: with --folds"):
        cross_validation_splits(list("12345"), 5, SplitConfig(validation_scans=4))


# --- which objects the scans show ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("lower_in", "fold", "says"),
    [
        ("ef", False, "'lower' is in no training scan"),
        ("af", False, "'lower' is in no validation scan"),
        ("be", False, "'lower' is in no test scan"),
        ("f", False, "'lower' is in no training and no validation scan"),
        ("", False, "'lower' is in no scan at all"),
        ("ef", True, "'lower' is in no training scan"),
        ("aef", False, None),
        ("d", True, None),
    ],
)
def test_an_object_that_cannot_be_learned_judged_or_tested_is_refused(lower_in, fold, says):
    shown = {i: {"upper"} | ({"lower"} if i in lower_in else set()) for i in "abcdef"}
    if says is None:
        check_objects(SIX, shown, ["upper", "lower"], fold=fold)
        return
    with pytest.raises(InputError) as caught:
        check_objects(SIX, shown, ["upper", "lower"], fold=fold)
    needed = "training scan of each fold" if fold else "training, validation and test scan"
    assert str(caught.value) == f"objects: each must be in at least one {needed}; {says}"


def test_every_object_that_is_refused_is_named_in_one_sentence():
    shown = {i: {"upper"} if i in "abef" else {"lower"} for i in "abcdef"}
    with pytest.raises(InputError) as caught:
        check_objects(SIX, shown, ["upper", "lower", "otolith"])
    assert str(caught.value).endswith(
        "; 'lower' is in no validation and no test scan, 'otolith' is in no scan at all"
    )
