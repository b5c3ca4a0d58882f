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
    ("own", "mean", "useful"),
    [
        (MM, MM | {"mm": 0.2}, True),
        (MM, MM | {"mm": 0.1}, False),  # as good as a guess is no better than one
        (MM, MM | {"mm": 0.2, "full_size_voxels": 1.0}, True),  # in the unit that is shown
        (VOXELS, VOXELS | {"full_size_voxels": 4.0}, False),
    ],
)
def test_a_model_is_useful_if_it_is_better_than_the_mean_position(own, mean, useful):
    known = held_out_errors(summary(own, mean))
    assert known is not None
    assert known.is_useful is useful
    assert bool(known.warning()) is not useful


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
