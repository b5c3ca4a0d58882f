"""Points in place of masks, from a table to a trained, tested and evaluated model."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from jawloc.inference.locator import load_locator
from jawloc.inference.mask_share import NO_MASK
from jawloc.scans.dicom import open_labelled_dicom
from tests.lab import SCAN_IDS, only_sentence, write_config

OBJECTS = {"left": 1, "right": 2}


def centroids(path: Path) -> dict[int, np.ndarray]:
    scan = open_labelled_dicom(path)
    assert scan.read_mask is not None
    mask = scan.read_mask(0, scan.grid.shape_zyx[0])
    return {label: np.argwhere(mask == label).mean(axis=0) for label in (1, 2)}


@pytest.fixture
def table(lab) -> Path:
    """The centroids of the lab's masks, as if somebody had clicked exactly there."""
    names = {1: "left", 2: "right"}
    lines = ["scan,object,z,y,x"]
    for scan in SCAN_IDS:
        for label, at in centroids(lab / "dicoms" / "labelled" / f"{scan}.dcm").items():
            lines.append(f"{scan},{names[label]},{','.join(map(repr, at.tolist()))}")
    path = lab / "clicked.csv"
    path.write_text("\n".join(lines))
    return path


def convert(jawloc, table: Path, out: str = "dicoms/clicked") -> None:
    result = jawloc("dicoms", "dicoms/labelled", table, out)
    assert result.exit_code == 0, result.output
    assert f"5 labelled DICOMs written to {out}, 0 skipped" in result.stdout


def train(jawloc, lab: Path, name: str, **settings) -> tuple[dict, list[dict]]:
    """Train; return summary.json and the rows of metrics.csv."""
    # points don't teach outlines
    write_config(lab, objects=OBJECTS, num_epochs=2, mask_supervision=False, **settings)
    result = jawloc("train", "--model-name", name)
    assert result.exit_code == 0, result.output
    folder = lab / "script_output" / "jaw_location" / name
    with (folder / "metrics.csv").open() as file:
        rows = [
            {k: float(v) for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)
        ]
    said = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    numbers = [{k: float(v) for k, v in row.items() if k != "seconds"} for row in rows]
    return said | {"stderr": result.stderr}, numbers


def test_points_teach_what_their_masks_would(lab, jawloc, table, no_pictures):
    """Masks, their centroids as points, and a mix of both: the same epochs and errors."""
    convert(jawloc, table)
    masked, expected = train(jawloc, lab, "masks")
    clicked, rows = train(jawloc, lab, "points", dicom_dirs=["dicoms/clicked"])
    for number in (0, 2, 4):
        (lab / "dicoms" / "clicked" / f"{SCAN_IDS[number]}.dcm").unlink()
    for number in (1, 3):
        (lab / "dicoms" / "labelled" / f"{SCAN_IDS[number]}.dcm").unlink()
    mixed, mixed_rows = train(jawloc, lab, "mix", dicom_dirs=["dicoms/clicked", "dicoms/labelled"])
    for said, found in ((clicked, rows), (mixed, mixed_rows)):
        assert len(found) == len(expected) == 2
        for row, wanted in zip(found, expected, strict=True):
            assert row == pytest.approx(wanted, rel=1e-5)
        errors = [row["error_full_size_voxels"] for row in said["test_scans"]]
        wanted = [row["error_full_size_voxels"] for row in masked["test_scans"]]
        assert errors == pytest.approx(wanted, rel=1e-4)
    outputs = lab / "script_output" / "jaw_location"
    # only where some extent is known is there a presence classifier
    for name, networks in (("masks", 1), ("points", 0), ("mix", 1)):
        locator = load_locator(outputs / name / f"{name}.pth")
        assert len(locator.presence_classifiers) == networks
    assert "no training scan has a mask" in clicked["stderr"]
    assert "no training scan has a mask" not in mixed["stderr"]


def test_folds_of_which_some_have_no_mask_make_one_model(lab, jawloc, table, no_pictures):
    """Regression: after all folds were trained, their model's file could not be read."""
    convert(jawloc, table)
    (lab / "dicoms" / "clicked" / f"{SCAN_IDS[0]}.dcm").unlink()
    for scan in SCAN_IDS[1:]:
        (lab / "dicoms" / "labelled" / f"{scan}.dcm").unlink()
    folders = ["dicoms/clicked", "dicoms/labelled"]
    write_config(lab, objects=OBJECTS, num_epochs=1, dicom_dirs=folders, mask_supervision=True)
    result = jawloc("train", "--folds", "3", "--model-name", "mix")
    assert result.exit_code == 0, result.output
    outputs = lab / "script_output" / "jaw_location" / "mix"
    locator = load_locator(outputs / "mix.pth")
    silent = [network.head.bias[2:].tolist() == [NO_MASK, NO_MASK] for network in locator.networks]
    assert sorted(silent) == [False, True, True]  # the masked scan trains one fold
    found = jawloc("locate", "mix", *(f"dicoms/clicked/{scan}.dcm" for scan in SCAN_IDS[1:3]))
    assert found.exit_code == 0, found.output


@pytest.mark.slow
def test_from_points_to_a_report_with_all_pictures(lab, jawloc, table):
    convert(jawloc, table)
    settings = {
        "dicom_dirs": ["dicoms/clicked"],
        "presence_classifier": {"steps": 2, "object_radius_mm": 0.5},
    }
    said, _ = train(jawloc, lab, "clicked", **settings)
    assert "no training scan has a mask" not in said["stderr"]
    folder = lab / "script_output" / "jaw_location" / "clicked"
    assert len(load_locator(folder / "clicked.pth").presence_classifiers) == 1
    for name in ("test_centroid_left", "test_cropped_right", "truth_cropped_left"):
        assert (folder / f"{name}.png").exists()

    result = jawloc("evaluate", "clicked", "dicoms/clicked", "--output-dir", "out")
    assert result.exit_code == 0, result.output
    # for each object, in all scans and in those that the model did not learn from
    assert result.stdout.count("unknown, without masks") == 4
    report = json.loads((lab / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert report["objects"]["left"]["crops"] is None
    assert len(report["rows"]) == 2 * len(SCAN_IDS)
    of_masks = jawloc("evaluate", "clicked", "dicoms/labelled", "--output-dir", "masks")
    assert of_masks.exit_code == 0, of_masks.output
    masked = json.loads((lab / "masks" / "evaluation.json").read_text(encoding="utf-8"))
    for row, other in zip(report["rows"], masked["rows"], strict=True):
        assert row["scan"] == other["scan"]
        assert row["error_mm"] == pytest.approx(other["error_mm"], abs=1e-5)
        assert (row["fair"], row["model_has_seen"]) == (other["fair"], other["model_has_seen"])

    result = jawloc("locate", "clicked", "dicoms/clicked", "--output-dir", "found")
    assert result.exit_code == 0, result.output
    with (lab / "found" / "locations.csv").open() as file:
        found = list(csv.DictReader(file))
    assert len(found) == 2 * len(SCAN_IDS)

    # what was found can be taught in turn, but for what was not found
    result = jawloc("dicoms", "dicoms/labelled", "found/locations.csv", "dicoms/again")
    lost = [row for row in found if row["status"] == "not found"]
    left = {row["scan"] for row in found if row["status"] != "not found"}
    assert len([*(lab / "dicoms").glob("again/*.dcm")]) == len(left)
    assert result.output.count("is 'not found' in locations.csv") == len(lost)


@pytest.mark.slow
def test_folds_of_scans_with_points(lab, jawloc, table, no_pictures):
    convert(jawloc, table)
    write_config(lab, objects=OBJECTS, num_epochs=1, dicom_dirs=["dicoms/clicked"])
    result = jawloc("train", "--model-name", "m", "--folds", 2)
    assert result.exit_code == 0, result.output
    assert "crops that hold all of the left: unknown, as no scan has a mask" in result.stdout
    summary = lab / "script_output" / "jaw_location" / "m" / "summary.json"
    assert json.loads(summary.read_text(encoding="utf-8"))["crops"] == {"left": None, "right": None}


def test_points_that_can_not_be_used_are_refused_in_a_sentence(lab, jawloc, table):
    """Before any slow work, and with the exit codes of masks."""
    result = jawloc("dicoms", "dicoms/labelled", table, "out", "--label-values", 1)
    assert only_sentence(result) == f"--label-values: chooses from masks; {table} holds points"
    table.write_text("scan,z,y,x\nphantom_000,1,2,a\n")
    result = jawloc("dicoms", "dicoms/labelled", table, "out")
    assert only_sentence(result) == "clicked.csv, line 2: x must be a number; it is 'a'"
    rows = "phantom_000,left,1,2,3", *(f"phantom_00{n},left,,," for n in range(5))
    table.write_text("\n".join(["scan,object,z,y,x", *rows]))
    result = jawloc("dicoms", "dicoms/labelled", table, "out", "--dry-run")
    assert result.exit_code == 0
    said = result.stdout.splitlines()
    without = "'left' is without a position in clicked.csv, line"
    assert said[1] == f"skipped a point of phantom_000: {without} 3"
    assert said[2] == f"skipped phantom_001: no point for phantom_001: {without} 4"
    table.write_text("scan,z,y,x\nphantom_000,99,2,3\nphantom_009,1,2,3\n")
    result = jawloc("dicoms", "dicoms/labelled", table, "out", "--dry-run")
    assert result.exit_code == 1
    said = result.stdout.splitlines()
    assert said[0].startswith("skipped phantom_000: clicked.csv, line 2: a point must lie in its")
    assert said[1:5] == [f"skipped {scan}: no point for {scan}" for scan in SCAN_IDS[1:]]
    assert said[5] == "skipped phantom_009: no image for phantom_009 (clicked.csv, line 3)"
    assert not (lab / "out").exists()


def test_points_of_other_objects_than_the_settings_are_refused(lab, jawloc, table):
    convert(jawloc, table)
    write_config(lab, dicom_dirs=["dicoms/clicked"])
    lines = jawloc("train").stderr.strip().splitlines()
    assert lines[0] == (
        "Error: phantom_000.dcm: every scan must show the object; it has no point of 'jaw' (label "
        "values any), but points of 'left', 'right'"
    )
    assert len(lines) == len(SCAN_IDS)
