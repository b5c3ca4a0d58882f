"""review.csv on the way into a training: copies, held-out scans, folds, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import SimpleITK as sitk

from jawloc.config import load_config
from jawloc.errors import InputError
from jawloc.inference.locator import load_locator, save_locator
from jawloc.scans.dicom import open_labelled_dicom, write_labelled_dicom
from jawloc.scans.points.review import write_review
from jawloc.training.changed_scans import tell_changed_scans
from jawloc.workflows.compare_models import find_earlier_model
from jawloc.workflows.cross_validate import log_folds
from jawloc.workflows.prepare_data import prepare_data, prepare_folds
from jawloc.workflows.train_folds import CrossValidation
from tests.lab import SCAN_IDS, only_sentence, write_config, write_model
from tests.scans.points.test_corrections import decided

AT = (30.0, 11.0, 12.0)
SMALL = [(value + 0.5) / 2 - 0.5 for value in AT]  # on the downsampled grid


def reviewed(scan_id: str, path: Path | None = None, verdict="moved", **others):
    path = path or Path("dicoms/labelled", f"{scan_id}.dcm").resolve()
    given = {"position_voxels_zyx": AT} if verdict in ("moved", "accepted") else {}
    return decided(scan_id, verdict, path=str(path), **given, **others)


def config_of(lab: Path, *reviews, **settings):
    """Write a review, and return settings that train on it."""
    write_review(lab / "review.csv", reviews)
    return load_config(write_config(lab, corrections="review.csv", **settings))


def copied(scan_id: str, name: str) -> Path:
    """Write a labelled DICOM's image as another file of another format."""
    scan = open_labelled_dicom(Path("dicoms/labelled", f"{scan_id}.dcm"))
    image = sitk.GetImageFromArray(scan.read_image(0, scan.grid.shape_zyx[0]))
    assert scan.grid.spacing_mm_zyx is not None
    image.SetSpacing(scan.grid.spacing_mm_zyx[::-1])
    path = Path(name).resolve()
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("name", [None, "fish.nii.gz"], ids=["itself", "a copy of another name"])
def test_a_scan_and_its_copy_train_once_with_the_corrected_label(lab, name, capsys):
    path = None if name is None else copied("phantom_001", name)
    scan_id = "phantom_001" if name is None else "fish"
    data = prepare_data(config_of(lab, reviewed(scan_id, path)))
    assert data.split.train_ids == tuple(sorted(["phantom_000", scan_id, "phantom_002"]))
    assert data.split.test_ids == ("phantom_004",)
    np.testing.assert_allclose(data.examples[scan_id].points_voxels, [SMALL], atol=1e-5)
    assert len(data.examples) == len(SCAN_IDS)
    said = capsys.readouterr().err
    assert "corrections: 1 position in 1 scan train: 1 corrected\n" in said
    # the labelled DICOM is as it was
    assert open_labelled_dicom(Path("dicoms/labelled/phantom_001.dcm")).read_mask is not None


def test_another_position_is_another_training(lab):
    def fingerprint(**others):
        changed = {"position_voxels_zyx": AT, **others}
        row = decided("phantom_000", path=str(Path("dicoms/labelled/phantom_000.dcm").resolve()))
        write_review(lab / "review.csv", [row.__class__(**{**vars(row), **changed})])
        config = load_config(write_config(lab, corrections="review.csv"))
        return prepare_data(config).fingerprint()

    first = fingerprint()
    assert first["corrected_positions"].startswith("1 (")
    assert fingerprint() == first
    assert fingerprint(position_voxels_zyx=(31.0, 11.0, 12.0)) != first
    assert fingerprint(reviewer="Ben")["corrected_positions"] != first["corrected_positions"]


def draw_eye(scan_id: str, at: int) -> None:
    """Write a labelled DICOM anew, with one voxel of another label in this slice."""
    path = Path("dicoms/labelled", f"{scan_id}.dcm")
    scan = open_labelled_dicom(path)
    assert scan.read_mask is not None
    slices = (0, scan.grid.shape_zyx[0])
    image, mask = scan.read_image(*slices), scan.read_mask(*slices)
    mask[mask == 9] = 0
    mask[at, 2, 2] = 9
    write_labelled_dicom(path, image, mask, scan.grid)


def test_another_label_of_what_was_not_corrected_is_another_training(lab):
    """Regression: an eye keeps its mask where the jaw was corrected; a run resumed on another."""
    for scan_id in SCAN_IDS:
        draw_eye(scan_id, 5)
    objects = {"jaw": [*range(1, 9)], "eye": 9}
    row = reviewed("phantom_001", copied("phantom_001", "a.nii"))
    config = config_of(lab, row, objects=objects)
    first = prepare_data(config).fingerprint()
    assert prepare_data(config).fingerprint() == first
    draw_eye("phantom_001", 9)
    assert tell_changed_scans(first, prepare_data(config).fingerprint()) == (
        "scans changed: phantom_001"
    )


def test_a_review_of_held_out_scans_alone_is_refused_before_training(lab, jawloc):
    write_review(lab / "review.csv", [reviewed("phantom_004"), reviewed("phantom_003")])
    result = jawloc("train", "--corrections", "review.csv", "--compare-with", "nobody")
    assert "nobody: no model of this name" in only_sentence(result)
    result = jawloc("train", "--corrections", "review.csv")
    assert result.exit_code == 2
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "Error: corrections: at least one position must be of a scan that may train; phantom_003 "
        "is kept out of training: it is a validation scan, which keeps its label; phantom_004 is"
    )
    assert not (lab / "script_output" / "jaw_location" / "locator").exists()


def test_another_scan_with_the_name_of_a_labelled_one_is_refused(lab):
    path = copied("phantom_001", "phantom_000.nii.gz")
    with pytest.raises(InputError, match=r"two scans must not share an id.*phantom_000.nii.gz is"):
        prepare_data(config_of(lab, reviewed("phantom_000", path)))


def test_a_scan_that_was_reviewed_under_two_names_is_refused(lab):
    rows = [reviewed(name, copied("phantom_001", f"{name}.nii.gz")) for name in "ab"]
    with pytest.raises(InputError, match="a scan must be reviewed under one name"):
        prepare_data(config_of(lab, *rows))


def test_a_corrected_scan_trains_in_every_fold_but_the_one_that_tests_it(lab, capsys):
    new = reviewed("new", copied("phantom_004", "new.nii.gz"))
    Path("dicoms/labelled/phantom_004.dcm").unlink()
    folds = prepare_folds(config_of(lab, reviewed("phantom_002"), new), 2)
    trains = []
    for data in folds:
        assert "new" in data.split.train_ids
        corrected = np.allclose(data.examples["phantom_002"].points_voxels, [SMALL], atol=1e-5)
        trains.append("phantom_002" in data.split.train_ids)
        assert corrected == trains[-1]
        held = {*data.split.test_ids, *data.split.val_ids}
        assert held.isdisjoint(data.split.train_ids)
    assert sorted(trains) == [False, True]
    assert {i for data in folds for i in data.split.test_ids} == {*SCAN_IDS[:4]}
    assert "2 positions in 2 scans train" in capsys.readouterr().err


@pytest.mark.parametrize("name", [None, "fish.nii.gz"], ids=["itself", "a copy of another name"])
def test_folds_log_the_scans_that_they_test_and_not_their_corrected_copies(lab, name):
    """Regression: keys were those of the first fold, where a corrected copy may train instead."""
    plain = prepare_folds(load_config(write_config(lab)), 2)
    tested = [data.select(data.split.test_ids) for data in plain]
    corrected = plain[0].split.train_ids[0]
    path = None if name is None else copied(corrected, name)
    config = config_of(lab, reviewed(corrected if name is None else "fish", path))
    folds = prepare_folds(config, 2)
    run, logged = Mock(), lab / "logged"
    logged.mkdir()
    log_folds(run, CrossValidation("cv", config, folds, {}, logged, {}))
    parts, keys = run.log_dataset.call_args.args
    assert [*parts.values()] == [tuple(file.scan_id for file in files) for files in tested]
    assert keys == {file.scan_id: file.key for files in tested for file in files}


def test_corrected_scans_are_no_scans_of_dicom_dirs(lab):
    config = config_of(lab, reviewed("phantom_000"), dicom_dirs=["."])
    for _ in range(2):
        assert "phantom_000" in prepare_data(config).split.train_ids


def test_an_earlier_model_that_is_gone_is_said_and_a_named_one_must_be_there(lab, capsys):
    config = config_of(lab, reviewed("phantom_000"))
    assert find_earlier_model(config) is None
    assert "note: no comparison with an earlier model; old: no model" in capsys.readouterr().err
    write_model(lab / "named.pth", objects=["eye"])
    named = load_config(write_config(lab, compare_with=str(lab / "named.pth")))
    with pytest.raises(InputError, match="it doesn't find jaw"):
        find_earlier_model(named)
    assert find_earlier_model(named, resumed=lab / "run") is None


@pytest.mark.parametrize("how", [[], ["--folds", "2"]], ids=["training", "folds"])
def test_an_earlier_model_whose_grid_no_scan_fills_is_told_before_training(
    lab, jawloc, monkeypatch, how
):
    """Regression: its test failed, after all epochs."""
    folder = lab / "script_output/jaw_location/old"
    write_model(folder / "old.pth")
    small = load_locator(folder / "old.pth")
    save_locator(replace(small, downsampled_size=(64, 32, 32)), folder / "old.pth")
    began = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr("jawloc.workflows.train.train_and_test", began)
    monkeypatch.setattr("jawloc.workflows.train_folds.train_and_test", began)
    said = (
        "old: a model to compare with must have a grid no larger than any test scan; it has "
        f"[64, 32, 32], and phantom_00{0 if how else 4} [48, 24, 24]"
    )
    assert only_sentence(jawloc("train", "--compare-with", "old", *how)) == said
    began.assert_not_called()
    write_review(lab / "review.csv", [reviewed("phantom_002")])
    result = jawloc("train", "--corrections", "review.csv", *how)
    assert f"note: no comparison with an earlier model; {said}\n" in result.stderr
    began.assert_called_once()


@pytest.mark.parametrize("how", [[], ["--folds", "2"]], ids=["training", "folds"])
def test_a_resumed_run_is_not_compared_with_its_own_model(lab, jawloc, monkeypatch, how):
    """Regression: interrupted after its model had replaced the earlier one of its name."""
    folder = lab / "script_output/jaw_location/locator"
    write_model(folder / "locator.pth")
    assert find_earlier_model(load_config(write_config(lab, compare_with="locator"))) is not None
    (folder / "checkpoint.pt").touch()
    goes_on = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr("jawloc.workflows.train.check_settings", Mock())
    monkeypatch.setattr("jawloc.workflows.train.train_and_test", goes_on)
    monkeypatch.setattr("jawloc.workflows.cross_validate.load_folds_checkpoint", Mock())
    monkeypatch.setattr("jawloc.workflows.cross_validate._extend", goes_on)
    result = jawloc("train", "--resume", *how)
    assert result.exit_code == 130, result.output
    said = "locator: it was replaced by the model of this run"
    assert f"note: no comparison with an earlier model; {said}\n" in result.stderr
    assert not goes_on.call_args.args[0].baselines


@pytest.mark.slow
def test_a_training_says_whose_corrections_it_used_and_compares_the_earlier_model(lab, jawloc):
    write_model(lab / "script_output/jaw_location/old/old.pth")
    new = reviewed("new", copied("phantom_004", "new.nii.gz"), verdict="accepted")
    Path("dicoms/labelled/phantom_004.dcm").unlink()
    write_review(lab / "review.csv", [reviewed("phantom_000"), new, reviewed("phantom_003")])
    how = ["--corrections", "review.csv", "--set", "accepted_weight=0.5", "--model-name", "second"]
    result = jawloc("train", *how)
    assert result.exit_code == 0, result.output
    assert "  earlier model  " in result.stdout
    assert "trained on 1 corrected position and 1 accepted one in 2 scans, by Ana" in result.stdout
    assert "earlier model: old; the new one is closer in" in result.stdout
    folder = lab / "script_output/jaw_location/second"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["corrections"]["scans"] == ["new", "phantom_000"]
    assert "phantom_003 is kept out" in summary["corrections"]["kept_out"][0]
    assert summary["earlier_model_error"]["mm"] > 0
    assert summary["earlier_model"]["name"] == "old"
    record = load_locator(folder / "second.pth").provenance
    assert record is not None
    assert [(one.scan_id, one.weight) for one in record.corrections] == [
        ("new", 0.5),
        ("phantom_000", 1.0),
    ]
    shown = jawloc("info", "second").stdout
    assert "phantom_000, jaw  corrected" in shown
