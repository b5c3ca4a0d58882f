"""Descriptions say what was done, how well, and where to look."""

from jawloc.inference.metrics import CropCoverage
from jawloc.reporting.descriptions import add_evaluation, describe_scans, describe_training

SCANS = {"train": list("abcdef"), "validation": ["g"], "test": ["h", "i"]}
SUMMARY = {
    "run_id": "r1",
    "epochs": 12,
    "best_epoch": 10,
    "best_sigma_voxels": 1.5,
    "seconds": 300.0,
    "scans": SCANS,
    "test_scans": [{"scan": "h"}, {"scan": "i"}],
    "validation_error": {"downsampled_voxels": 1.25, "mm": 0.1},
    "test_error": {"downsampled_voxels": 1.5, "full_size_voxels": 6.0, "mm": 0.15},
    "mean_position_error": {"downsampled_voxels": 10.0, "full_size_voxels": 40.0, "mm": 1.0},
}


def described(summary=SUMMARY, page="#/experiments/1/runs/r1", files=("sigma.png", "losses.png")):
    crops = {"jaw": CropCoverage(1, 2, 0.9, 0.8), "otolith": None}
    scans = describe_scans(summary["scans"], ["jaw"], (24, 12, 12), "was trained")
    thumbnails = ["images/heatmap~val+step+2.webp"]
    return describe_training(summary, scans, crops, (20, 20, 20), page, files, thumbnails)


def test_a_training_is_described_by_scans_errors_crops_pictures_and_files():
    text = described()
    assert text.startswith(
        "**The mean error on 2 test scans is 0.15 mm, that of always predicting the mean position 1"
    )
    assert "finds the **jaw** was trained on 6 scans, downsampled to 24 × 12 × 12 voxels" in text
    assert "2 scans for the test: `h`, `i`." in text
    assert "12 epochs in 5 min 0 s; the weights are those of epoch 10 (sigma 1.5 voxels)" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows == [
        "| Mean distance from the true centre | mm | full-size voxels | downsampled voxels |",
        "| validation | 0.1 |  | 1.25 |",
        "| **test**, 2 scans | 0.15 | 6 | 1.5 |",
        "| mean position (to compare) | 1 | 40 | 10 |",
    ]
    assert (
        "Crops of 20 × 20 × 20 voxels round the found position that hold the whole jaw: "
        "**1 of 2 test scans**." in text
    )
    assert "(get-artifact?path=images%2Fheatmap~val%2Bstep%2B2.webp&run_uuid=r1)" in text
    assert "[losses.png](#/experiments/1/runs/r1/artifacts/outputs/losses.png?" in text


def test_without_spacing_there_is_no_column_of_mm_and_the_reason_is_given():
    without = {
        key: value | {"mm": None} if key.endswith("_error") else value
        for key, value in SUMMARY.items()
    }
    text = described(without)
    assert "| mm |" not in text
    assert "don't say how large a voxel is" in text


def test_a_model_that_is_no_better_than_the_mean_position_is_called_so():
    worse = SUMMARY | {"test_error": {"downsampled_voxels": 15, "full_size_voxels": 60, "mm": 1.5}}
    assert "**This model is no better than a guess" in described(worse)
    assert "is its own scan's" in described(worse)
    assert "no better than a guess" not in described()
    far = described(SUMMARY | {"validation_error": {"mm": 0.01}})
    assert "**The error on the test scans, 0.15 mm, is many times that on the validation" in far


def test_a_page_that_is_not_known_is_not_linked_to():
    assert "artifacts/" not in described(page=None)


def test_each_of_several_objects_has_its_own_row_and_pictures():
    own = {"left": {"test_error": {"mm": 0.1, "full_size_voxels": 4.0, "downsampled_voxels": 1.0}}}
    text = described(SUMMARY | {"objects": own}, files=("test_cropped_left.png",))
    assert "| **test**, 2 scans: left | 0.1 | 4 | 1 |" in text
    assert "[test_cropped_left.png](" in text


def test_only_the_last_evaluation_is_described():
    first = add_evaluation(
        "text", {"evaluation_error_mm_mean": 0.5, "evaluation_scans": 3}, "m", "p"
    )
    assert first.startswith("text\n")
    assert "`jawloc evaluate m` on 3 scans, 0 of them fair: mean error 0.5 mm." in first
    assert "[evaluation.html](p/artifacts/evaluation/evaluation.html?" in first
    numbers = {"evaluation_left_error_full_size_voxels_mean": 2.0, "evaluation_scans": 4}
    second = add_evaluation(first, numbers, "m", None)
    assert "0.5 mm" not in second
    assert "mean error of left 2 full-size voxels" in second
    numbers["evaluation_left_error_mm_mean"] = 0.1
    assert "mean error of left 0.1 mm" in add_evaluation(second, numbers, "m", None)
