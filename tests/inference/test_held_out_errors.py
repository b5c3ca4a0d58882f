"""A model's own errors in its file."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jawloc.inference.held_out_errors import held_out_errors
from jawloc.inference.locator import load_locator, save_locator
from tests.lab import write_model

MM, VOXELS = {"mm": 0.1, "full_size_voxels": 5.0}, {"mm": None, "full_size_voxels": 5.0}


def summary(own, mean, how="test"):
    scans = [{"scan": "a"}, {"scan": "b"}, {"scan": "b"}]
    return {f"{how}_error": own, "mean_position_error": mean, f"{how}_scans": scans}


@pytest.mark.parametrize(
    ("own", "mean", "useful", "warning"),
    [
        (MM, MM | {"mm": 0.2}, True, ""),
        (MM, MM | {"mm": 0.12}, True, "this model is hardly better than a guess"),
        # as good as a guess is no better than one
        (MM, MM | {"mm": 0.1}, False, "this model is no better than a guess"),
        (MM, MM | {"mm": 0.2, "full_size_voxels": 1.0}, True, ""),  # in the unit that is shown
        (VOXELS, VOXELS | {"full_size_voxels": 4.0}, False, "this model is no better than a guess"),
    ],
)
def test_a_model_is_useful_if_it_is_better_than_the_mean_position(own, mean, useful, warning):
    known = held_out_errors(summary(own, mean))
    assert known is not None
    assert known.is_useful is useful
    assert known.warning().partition(",")[0] == warning


@pytest.mark.parametrize(
    ("own", "mean", "validation", "number"),
    [  # the first two of experiments/log.md; validation errors as they might have been
        (0.078, 3.492, 0.075, 0),  # the demo
        (1.269, 1.29, 1.1, 1),  # 4 hippocampi
        (1.189, 1.303, 1.1, 1),  # 8
        (0.638, 1.488, 0.66, 0),  # 160, by folds
        (1.058, 1.55, 1.0, 0),  # the posterior part of it
        (0.258, 3.267, 0.08, 0),  # 4 skulls; one validation scan may be so much better
        (0.9, 3.4, 0.1, 1),
        (2.75, 2.27, 0.14, 2),  # points of test scans exchanged: no better, and many times worse
    ],
)
def test_a_bad_training_is_told_in_at_most_two_sentences(own, mean, validation, number):
    said = summary(MM | {"mm": own}, MM | {"mm": mean}) | {"validation_error": {"mm": validation}}
    known = held_out_errors(said)
    assert known is not None
    warnings = known.warnings()
    assert len(warnings) == number
    assert all("; check" in warning and "labels.html" in warning for warning in warnings)


def test_without_mm_test_and_validation_are_compared_in_downsampled_voxels():
    own = VOXELS | {"downsampled_voxels": 9.0}
    mean = {"mm": None, "full_size_voxels": 50.0}
    validation = {"mm": None, "downsampled_voxels": 1.0}
    known = held_out_errors(summary(own, mean) | {"validation_error": validation})
    assert known is not None
    (warning,) = known.warnings()
    assert warning.startswith(
        "the error on the test scans, 9 downsampled voxels, is many times that on the validation "
        "scans, 1; check"
    )
    folds = held_out_errors(summary(own, mean, "out_of_fold"))
    assert folds is not None
    assert folds.warnings() == []  # validation scans of one fold are test scans of another


def test_the_sentence_names_scans_unit_and_both_errors():
    known = held_out_errors(summary(MM, MM | {"mm": 0.25}))
    assert known is not None
    assert known.sentence() == (
        "the mean error on 2 test scans is 0.1 mm, that of always predicting the mean position 0.25"
    )
    folds = held_out_errors(summary(VOXELS, VOXELS, "out_of_fold"))
    assert folds is not None
    assert "on 2 scans out of fold is 5 full-size voxels" in folds.sentence()


def test_a_summary_without_errors_has_none():
    assert held_out_errors({"name": "a"}) is None


def test_the_models_file_keeps_them(tmp_path):
    path = write_model(tmp_path / "m.pth")
    assert load_locator(path).errors is None
    known = held_out_errors(summary(MM, VOXELS))
    save_locator(replace(load_locator(path), errors=known), path)
    assert load_locator(path).errors == known
