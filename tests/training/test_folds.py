"""Cross-validation: scan ids -> folds."""

import pytest

from jawloc.errors import InputError
from jawloc.training.dataset import SplitConfig
from jawloc.training.folds import cross_validation_splits

FISH = ["f1_a", "f1_b", "f1_c", "f2", "f3_left", "f3_right", "f4"]


def parts(ids, folds, **settings):
    """Return each fold's scans: those tested, those that validate, those trained on."""
    splits = cross_validation_splits(ids, folds, SplitConfig(**settings))
    return [(list(s.test_ids), list(s.val_ids), list(s.train_ids)) for s in splits]


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
