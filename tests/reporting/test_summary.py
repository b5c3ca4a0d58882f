"""A run in numbers and sentences, with mm only where the spacing is known."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jawloc.heatmaps.metrics import HeatmapMetrics
from jawloc.inference.evaluate_scan import ScanError
from jawloc.inference.metrics import PositionErrors
from jawloc.reporting.run_text import describe_run
from jawloc.reporting.summary import (
    flatten,
    radius_summary,
    summarise_run,
    summary_metrics,
)
from jawloc.training.records import EpochRecord, StageRecord
from jawloc.training.splits import Split

SPLIT = Split(("a", "b"), ("c",), ("d", "e"))
SPECIMENS = {scan_id: scan_id for scan_id in "abcde"}


def evaluation(*errors, mm=True):
    return PositionErrors(
        tuple(
            ScanError(
                scan_id=scan_id,
                object_name="jaw",
                predicted_voxels=np.array([1.0, 2.0, 3.0]),
                truth_voxels=np.array([1.0, 2.0, 4.0]),
                error_downsampled_voxels=error,
                error_full_size_voxels=4 * error,
                error_mm=error / 10 if mm else None,
            )
            for scan_id, error in zip("de", errors, strict=True)
        )
    )


def summarised(mm=True, specimens=SPECIMENS, **others):
    """Three epochs, the second the best, at sigmas 8, 6 and 5."""
    state = SimpleNamespace(best_epoch=2, records=[])
    for epoch, sigma, error in ((1, 8.0, 4.0), (2, 6.0, 1.5), (3, 5.0, 2.0)):
        in_mm = (error / 10,) * 3 if mm else (None,) * 3
        metrics = HeatmapMetrics(1.0, 0.5, 1e-6, error, error, error, *in_mm)
        state.records.append(EpochRecord(epoch, sigma, 1e-3, metrics, metrics, 2.0))
    found = {"test": evaluation(1.0, 2.0, mm=mm), "mean_position": evaluation(8.0, 12.0, mm=mm)}
    return summarise_run("blue", SPLIT, state, {**found, **others}, 12.345, specimens)


def test_every_field_says_what_its_name_says():
    summary = summarised()
    first, second = summary.pop("test_scans")
    assert summary == {
        "name": "blue",
        "scans": {"train": ["a", "b"], "validation": ["c"], "test": ["d", "e"]},
        "specimens": {"train": 2, "validation": 1, "test": 2},
        "epochs": 3,
        "best_epoch": 2,
        "final_sigma_voxels": 5.0,
        "best_sigma_voxels": 6.0,  # of the weights that are kept
        "seconds": 12.3,
        "validation_error": {"downsampled_voxels": 1.5, "mm": 0.15},
        "test_error": {
            "downsampled_voxels": 1.5,
            "full_size_voxels": 6.0,
            "mm": pytest.approx(0.15),
        },
        "mean_position_error": {"downsampled_voxels": 10.0, "full_size_voxels": 40.0, "mm": 1.0},
        "radius": {},
    }
    assert first == {
        "scan": "d",
        "object": "jaw",
        "error_downsampled_voxels": 1.0,
        "error_full_size_voxels": 4.0,
        "error_mm": 0.1,
        "predicted_voxels_zyx": [1.0, 2.0, 3.0],
        "truth_voxels_zyx": [1.0, 2.0, 4.0],
    }
    assert (second["scan"], second["error_mm"]) == ("e", 0.2)
    json.dumps(summarised(mm=False), allow_nan=False)  # null, never NaN


def test_the_summary_says_what_the_radius_rests_on_or_how_many_scans_it_takes():
    from jawloc.inference.conformal import Conformal
    from jawloc.inference.quality import PositionReference

    known = {
        "jaw": PositionReference(Conformal(1.0, 0.9, 12), {}, 12),
        "gill": PositionReference(None, {}, 1),
    }
    said = radius_summary(SimpleNamespace(objects=known))
    assert said["jaw"] == {"confidence": 0.9, "specimens": 12, "note": ""}
    assert (said["gill"]["confidence"], said["gill"]["specimens"]) == (None, 1)
    text = describe_run(summarised() | {"radius": said}, Path("x"))
    assert "radius of the jaw stated with a confidence of 90 %, from 12 specimens" in text
    assert "radius of the gill unknown: give more test scans" in text


def test_two_stages_have_a_sigma_each():
    state = SimpleNamespace(best_epoch=1, records=[])
    metrics = HeatmapMetrics(1.0, 0.5, 1e-6, 2.0, 2.0, 2.0, None, None, None)
    for epoch, coarse, fine in ((1, 8.0, 4.0), (2, 6.4, 3.2)):
        earlier = (StageRecord("coarse", coarse, metrics, metrics),)
        state.records.append(EpochRecord(epoch, fine, 1e-3, metrics, metrics, 2.0, earlier))
    summary = summarise_run("blue", SPLIT, state, {"test": evaluation(1.0, 2.0)}, 1.0, SPECIMENS)
    sigmas = {key: value for key, value in summary.items() if "sigma" in key}
    assert sigmas == {
        "final_sigma_voxels": 3.2,
        "best_sigma_voxels": 4.0,
        "final_sigma_coarse_voxels": 6.4,
        "best_sigma_coarse_voxels": 8.0,
    }
    assert sigmas.items() <= summary_metrics(summary).items()


def test_one_scan_without_spacing_leaves_no_mean_in_mm():
    known, unknown = evaluation(1.0, 3.0).errors[0], evaluation(1.0, 3.0, mm=False).errors[1]
    summary = summarised(test=PositionErrors((known, unknown)))
    assert summary["test_error"] == {
        "downsampled_voxels": 2.0,
        "full_size_voxels": 8.0,
        "mm": None,
    }


def test_summary_metrics_are_what_runs_are_compared_by():
    numbers = summary_metrics(summarised(brightest_spot=evaluation(5.0, 7.0)))
    expected = {
        "epochs": 3,
        "best_epoch": 2,
        "final_sigma_voxels": 5.0,
        "best_sigma_voxels": 6.0,
        "total_seconds": 12.3,
        "validation_error_downsampled_voxels": 1.5,
        "validation_error_mm": 0.15,
        "test/error_downsampled_voxels": 1.5,
        "test/error_full_size_voxels": 6.0,
        "test/error_mm": pytest.approx(0.15),
        "test/mean_position_error_downsampled_voxels": 10.0,
        "test/mean_position_error_full_size_voxels": 40.0,
        "test/mean_position_error_mm": 1.0,
        "test/brightest_spot_error_downsampled_voxels": 6.0,
        "test/brightest_spot_error_full_size_voxels": 24.0,
        "test/brightest_spot_error_mm": pytest.approx(0.6),
    }
    assert numbers == expected
    assert not [name for name in summary_metrics(summarised(mm=False)) if "mm" in name]


def test_a_runs_length_is_not_taken_for_an_epochs():
    """Regression: both were logged as `seconds`, and the run's was lost among the epochs'."""
    state = summarised()
    assert "seconds" in state
    assert "seconds" not in summary_metrics(state)


def test_the_terminal_shows_every_way_to_find_the_jaw(tmp_path):
    said = describe_run(summarised(brightest_spot=evaluation(5.0, 7.0)), tmp_path).splitlines()
    assert said == [
        "Mean radial error on 2 test scans (not seen in training):",
        "                  downsampled voxels  full-size voxels     mm",
        "  jawloc                        1.50              6.00  0.150",
        "  mean position                10.00             40.00  1.000",
        "  brightest spot                6.00             24.00  0.600",
        "  3 epochs in 12 s; the weights are those of epoch 2, at sigma 6.00 "
        "(validation 1.50 voxels)",
        f"Pictures, tables and the model: {tmp_path}",
        "Compare runs in the browser: jawloc ui",
    ]


def test_a_folder_below_the_current_one_is_named_as_it_would_be_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = describe_run(summarised(), tmp_path / "out" / "m")
    assert "Pictures, tables and the model: out/m\n" in said


def test_test_scans_of_one_specimen_are_said_to_be_of_one(tmp_path):
    summary = summarised(specimens={**SPECIMENS, "e": "d"})
    assert summary["specimens"] == {"train": 2, "validation": 1, "test": 1}
    first, *_ = describe_run(summary, tmp_path).splitlines()
    assert first == "Mean radial error on 2 test scans of 1 specimen (not seen in training):"


def test_without_spacing_the_terminal_says_why_there_are_no_mm(tmp_path):
    said = describe_run(summarised(mm=False), tmp_path).splitlines()
    assert said[1] == "                 downsampled voxels  full-size voxels"
    assert said[2] == "  jawloc                       1.50              6.00"
    assert said[4] == "  (no mm: the scans' files don't say how large a voxel is)"


# --- several objects -----------------------------------------------------------------------------


def of_two(mm=True):
    """Two test scans, the second without the lower jaw."""

    def found(*errors):
        keys = (("d", "upper"), ("d", "lower"), ("e", "upper"))
        point = np.zeros(3)
        return PositionErrors(
            tuple(
                ScanError(scan, name, point, point, e, 4 * e, e / 10 if mm else None)
                for (scan, name), e in zip(keys, errors, strict=True)
            )
        )

    in_mm = (0.2,) * 3 if mm else (None,) * 3
    own = {name: HeatmapMetrics(1.0, 0.5, 1e-6, e, e, e, *in_mm) for name, e in NAMED.items()}
    metrics = HeatmapMetrics(1.0, 0.5, 1e-6, 2.0, 2.0, 2.0, *in_mm, by_object=own)
    state = SimpleNamespace(
        best_epoch=1, records=[EpochRecord(1, 8.0, 1e-3, metrics, metrics, 2.0)]
    )
    evaluations = {"test": found(1.0, 5.0, 3.0), "mean_position": found(10.0, 20.0, 30.0)}
    return summarise_run("two", SPLIT, state, evaluations, 1.0, SPECIMENS)


NAMED = {"upper": 1.5, "lower": 2.5}


def test_every_object_has_its_own_errors():
    summary = of_two()
    assert summary["test_error"]["downsampled_voxels"] == 3.0  # every object of every scan
    assert summary["objects"] == {
        "upper": {
            "test_scans": 2,
            "validation_error": {"downsampled_voxels": 1.5, "mm": 0.2},
            "test_error": {
                "downsampled_voxels": 2.0,
                "full_size_voxels": 8.0,
                "mm": pytest.approx(0.2),
            },
            "mean_position_error": {
                "downsampled_voxels": 20.0,
                "full_size_voxels": 80.0,
                "mm": pytest.approx(2.0),
            },
        },
        "lower": {
            "test_scans": 1,
            "validation_error": {"downsampled_voxels": 2.5, "mm": 0.2},
            "test_error": {"downsampled_voxels": 5.0, "full_size_voxels": 20.0, "mm": 0.5},
            "mean_position_error": {
                "downsampled_voxels": 20.0,
                "full_size_voxels": 80.0,
                "mm": 2.0,
            },
        },
    }
    assert [(row["scan"], row["object"]) for row in summary["test_scans"]] == [
        ("d", "upper"),
        ("d", "lower"),
        ("e", "upper"),
    ]
    json.dumps(of_two(mm=False), allow_nan=False)


def test_summary_metrics_name_the_object():
    numbers = summary_metrics(of_two())
    assert numbers["test/error_downsampled_voxels"] == 3.0
    assert numbers["test/error_lower_mm"] == 0.5
    assert numbers["validation_error_upper_downsampled_voxels"] == 1.5
    assert numbers["test/mean_position_error_upper_full_size_voxels"] == 80.0
    assert not [name for name in summary_metrics(of_two(mm=False)) if "mm" in name]


def test_the_terminal_names_each_objects_error_and_how_few_scans_show_it(tmp_path):
    said = describe_run(of_two(), tmp_path).splitlines()
    assert said[:8] == [
        "Mean radial error on 2 test scans (not seen in training):",
        "                    downsampled voxels  full-size voxels     mm",
        "  jawloc                          3.00             12.00  0.300",
        "    upper                         2.00              8.00  0.200",
        "    lower (1 scan)                5.00             20.00  0.500",
        "  mean position                  20.00             80.00  2.000",
        "    upper                        20.00             80.00  2.000",
        "    lower (1 scan)               20.00             80.00  2.000",
    ]


def test_a_model_that_is_no_better_than_the_mean_position_is_called_so(tmp_path):
    """Regression: nothing said so, and each of its scans may have the status ok."""
    lost = summarised() | {"test_error": summarised()["mean_position_error"]}
    said = describe_run(lost, tmp_path)
    assert "WARNING: this model is no better than a guess, whatever a scan's status" in said
    assert "its own scan's (labels.html of the training shows them)" in said
    assert "WARNING" not in describe_run(summarised(), tmp_path)


def test_a_test_error_many_times_the_validation_error_is_told(tmp_path):
    """Regression: nothing said that the test scans had the masks of others."""
    lost = summarised() | {"validation_error": {"downsampled_voxels": 0.1, "mm": 0.01}}
    said = describe_run(lost, tmp_path)
    assert "WARNING: the error on the test scans, 0.15 mm, is many times that on the" in said


def test_keys_are_joined_and_what_is_unknown_is_left_out():
    nested = {"error": {"": 2, "mm": {"a": 3}, "b": None}, "coverage": None, "": {"rows": 4}}
    assert flatten(nested) == {"error": 2.0, "error_mm_a": 3.0, "rows": 4.0}
