"""The main path, from the command line to the store, on scans that take a moment."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pytest
import torch
import yaml
from matplotlib.figure import Figure
from mlflow import MlflowClient
from PIL import Image

import jawloc.reporting.run_pictures as run_pictures
import jawloc.workflows.cross_validate as cross_validate
import jawloc.workflows.log_training as log_training
import jawloc.workflows.train as experiment
from jawloc.config import load_config
from jawloc.errors import InputError
from jawloc.inference.locator import load_locator
from jawloc.phantom import make_phantom
from jawloc.reporting.summary import summary_metrics
from jawloc.reporting.text_files import write_text
from jawloc.reporting.tracking.model_files import model_file
from jawloc.reporting.tracking.source import source_tags
from jawloc.reporting.tracking.store import tracking_uri
from jawloc.scans.manifest import MANIFEST
from jawloc.workflows.train_result import TrainResult
from tests.lab import (
    LAB_CONFIG,
    SCAN_IDS,
    SCAN_SHAPE,
    erase_labels,
    files_below,
    only_sentence,
    write_config,
    write_lab_dicom,
)
from tests.reporting.folders.test_folder_lock import another_process
from tests.workflows.conftest import drawing

PICTURES = {
    "train_heatmap_example.png",
    "val_heatmap_example.png",
    "losses.png",
    "metrics.png",
    "sigma.png",
    "curriculum.png",
    "train_heatmap_pred.png",
    "val_heatmap_pred.png",
    "test_heatmap.png",
    "test_centroid_downsampled.png",
    "test_centroid_truth.png",
    "test_centroid.png",
    "test_cropped.png",
    "truth_cropped.png",
}
HEATMAPS = {
    "heatmap_epoch_1_sigma_4.00.png",
    "heatmap_epoch_2_sigma_3.20.png",
    "heatmap_epoch_3_sigma_2.56.png",
}
SCORES = ("kl_nats", "dice", "mse", "mse_relative")
ERRORS = tuple(
    f"error_{unit}{part}" for unit in ("voxels", "mm") for part in ("", "_median", "_max")
)
EPOCH_COLUMNS = {"sigma_voxels", "learning_rate", "seconds"} | {
    f"{split}_{name}" for split in ("train", "val") for name in (*SCORES, *ERRORS)
}
# In the store: names that MLflow's page sorts into sections, and the columns of metrics.csv.
EPOCH_METRICS = {
    "curriculum/sigma": "sigma_voxels",
    "train/learning_rate": "learning_rate",
    "system/epoch_seconds": "seconds",
} | {
    f"{split}/{name.removesuffix('_nats')}": f"{split}_{name}"
    for split in ("train", "val")
    for name in (*SCORES, *ERRORS)
}
UNITS = ("downsampled_voxels", "full_size_voxels", "mm")
SUMMARY_METRICS = {
    "epochs",
    "best_epoch",
    "final_sigma_voxels",
    "best_sigma_voxels",
    "total_seconds",
    "validation_error_downsampled_voxels",
    "validation_error_mm",
    "mask_share",
} | {f"test/{way}error_{unit}" for way in ("", "mean_position_") for unit in UNITS}


def outputs(lab, name="locator"):
    return lab / "script_output" / "jaw_location" / name


def rows(lab, name="locator"):
    """Return metrics.csv without the times that the epochs took."""
    with (outputs(lab, name) / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in table]


def summary(lab, name="locator"):
    return json.loads((outputs(lab, name) / "summary.json").read_text(encoding="utf-8"))


def runs(lab):
    """Return a client of the lab's store and its runs, the latest first."""
    client = MlflowClient(tracking_uri(lab))
    found = client.get_experiment_by_name("jaw_location")
    return client, [] if found is None else client.search_runs([found.experiment_id])


def artifacts(run):
    return Path(mlflow.artifacts._download_artifact_from_uri(run.info.artifact_uri))


@pytest.fixture(scope="module")
def smoke(make_lab, jawloc, tmp_path_factory):
    """One run with all that belongs to it: (the lab's folder, what the command line said)."""
    lab = make_lab(tmp_path_factory.mktemp("smoke") / "a lab's projéct")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, drawing():
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(lab)
        result = jawloc("train")
    torch.set_num_threads(threads)
    assert result.exit_code == 0, result.output
    return lab, result


@pytest.fixture
def copied(smoke, tmp_path, monkeypatch):
    """A lab whose first run is over, for one test to go on with."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copytree(smoke[0], tmp_path / "lab")
    monkeypatch.chdir(tmp_path / "lab")
    return tmp_path / "lab"


# --- the smoke run: its files --------------------------------------------------------------------


def test_without_a_name_the_model_is_called_locator_and_every_file_has_its_name(smoke):
    lab, _ = smoke
    names = {path.name for path in outputs(lab).iterdir()}
    files = {"locator.pth", "config.yml", "metrics.csv", "summary.json", "labels.html"}
    # no checkpoint, no temporary file
    assert names == PICTURES | HEATMAPS | files | {MANIFEST}
    assert [path.name for path in outputs(lab).parent.iterdir()] == ["locator"]


@pytest.mark.parametrize("name", sorted(PICTURES | HEATMAPS))
def test_every_picture_opens_and_shows_something(smoke, name):
    with Image.open(outputs(smoke[0]) / name) as picture:
        assert min(picture.size) > 200
        counts = [count for count, _ in picture.convert("RGB").getcolors(1 << 24)]
    assert len(counts) > 50
    assert max(counts) < 0.97 * sum(counts)


def test_the_labels_of_all_scans_are_on_one_page_that_the_terminal_names(smoke):
    lab, result = smoke
    page = (outputs(lab) / "labels.html").read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?)</h2>", page) == SCAN_IDS
    assert f"{Path('script_output', 'jaw_location', 'locator', 'labels.html')} shows" in (
        result.stderr
    )


def test_the_crops_show_the_jaw_in_red(smoke):
    with Image.open(outputs(smoke[0]) / "truth_cropped.png") as picture:
        red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB")).astype(int), -1, 0)
    assert np.count_nonzero((red > green + 80) & (red > blue + 80)) > 200


def test_the_summary_says_how_good_the_locator_is(smoke):
    lab, _ = smoke
    said = summary(lab)
    assert list(said) == [
        "name",
        "scans",
        "specimens",
        "epochs",
        "best_epoch",
        "final_sigma_voxels",
        "best_sigma_voxels",
        "seconds",
        "validation_error",
        "test_error",
        "mean_position_error",
        "radius",
        "test_scans",
        "mask_share",
        "run_id",
        "warnings",
    ]
    assert said["name"] == "locator"
    told = [line for line in smoke[1].stdout.splitlines() if line.startswith("WARNING")]
    assert told == [f"WARNING: {warning}" for warning in said["warnings"]]
    assert 0 <= said["mask_share"]["jaw"] <= 1
    # all but the last two train, the last but one validates, the last tests
    split = {"train": SCAN_IDS[:3], "validation": SCAN_IDS[3:4], "test": SCAN_IDS[4:]}
    assert said["scans"] == split
    assert (said["epochs"], said["final_sigma_voxels"]) == (3, pytest.approx(2.56))
    assert 0 < said["seconds"] < 600
    table = rows(lab)
    best = min(table, key=lambda row: row["val_error_voxels"])
    assert said["best_epoch"] == best["epoch"]
    assert said["best_sigma_voxels"] == best["sigma_voxels"]
    assert said["validation_error"]["downsampled_voxels"] == best["val_error_voxels"]
    (scan,) = said["test_scans"]
    assert (scan["scan"], scan["object"]) == (SCAN_IDS[4], "jaw")
    offset = np.subtract(scan["predicted_voxels_zyx"], scan["truth_voxels_zyx"])
    assert scan["error_full_size_voxels"] == pytest.approx(np.linalg.norm(offset))
    assert scan["error_downsampled_voxels"] == pytest.approx(np.linalg.norm(offset / 2))
    assert scan["error_mm"] > 0
    for unit in UNITS:
        assert said["test_error"][unit] == scan[f"error_{unit}"]
        assert said["mean_position_error"][unit] > 0


def test_the_truth_is_the_full_size_masks_centroid(smoke):
    """Regression: the lab's script took it from the decimated mask."""
    mask = make_phantom(4, SCAN_SHAPE, arch_labels=True).mask
    truth = summary(smoke[0])["test_scans"][0]["truth_voxels_zyx"]
    np.testing.assert_allclose(truth, np.argwhere(mask).mean(axis=0), atol=1e-6)


def test_the_table_has_a_row_an_epoch_and_every_metric(smoke):
    table = rows(smoke[0])
    assert [row["epoch"] for row in table] == [1, 2, 3]
    assert set(table[0]) == EPOCH_COLUMNS - {"seconds"} | {"epoch"}
    assert [row["sigma_voxels"] for row in table] == pytest.approx([4, 3.2, 2.56])
    assert all(np.isfinite(list(row.values())).all() for row in table)


def test_the_terminal_says_how_good_beside_the_mean_position_and_where_to_look(smoke):
    lab, result = smoke
    said, numbers = result.stdout, summary(lab)
    assert "Mean radial error on 1 test scan (not seen in training):" in said
    for name, key in (("jawloc", "test_error"), ("mean position", "mean_position_error")):
        (line,) = [line for line in said.splitlines() if line.split("  ")[1:2] == [name]]
        errors = numbers[key]
        shown = f"{errors['downsampled_voxels']:.2f}", f"{errors['full_size_voxels']:.2f}"
        assert line.split()[-3:] == [*shown, f"{errors['mm']:.3f}"]
    assert str(outputs(lab).relative_to(lab)) in said
    assert "jawloc ui" in said


def test_the_kept_config_says_what_the_run_did(smoke):
    lab, _ = smoke
    kept = yaml.safe_load((outputs(lab) / "config.yml").read_text(encoding="utf-8"))
    config = load_config(lab / "userconf.yml")
    assert kept == yaml.safe_load(config.as_yaml())


def test_the_model_file_knows_all_that_using_it_needs(smoke):
    lab, _ = smoke
    content = torch.load(outputs(lab) / "locator.pth", weights_only=True)
    assert all(t.device.type == "cpu" for t in content["state_dicts"][0].values())
    locator = load_locator(outputs(lab) / "locator.pth")
    assert locator.downsampled_size == (24, 12, 12)
    assert locator.network_config.channels == (4, 8)
    assert dict(locator.objects) == {"jaw": None}
    assert locator.sigma_voxels == ((summary(lab)["best_sigma_voxels"],),)
    assert locator.flipped_axes == ("y", "x")
    assert (
        locator.calibration.objects["jaw"].conformal is None
    )  # one test scan says nothing of errors
    assert locator.calibration.objects["jaw"].ranges["spread"].scans == 2  # validation's too
    assert locator.calibration.scans.ranges["grey_median"].scans == 5
    (found,) = locator.locate(lab / "dicoms" / "labelled" / f"{SCAN_IDS[4]}.dcm")
    (tested,) = summary(lab)["test_scans"]
    np.testing.assert_allclose(found.point_voxels, tested["predicted_voxels_zyx"], atol=1e-3)


def test_the_cache_lies_beside_the_config_and_mirrors_the_sources(smoke):
    folder = smoke[0] / "dicoms" / "downsampled_dicoms" / "24x12x12" / "labelled"
    assert sorted(path.stem for path in folder.glob("*.dcm")) == SCAN_IDS


# --- the smoke run: its record in MLflow ---------------------------------------------------------


@pytest.fixture(scope="module")
def record(smoke):
    """The smoke run as the store has it: client, run, folder of its artifacts."""
    client, (run,) = runs(smoke[0])
    return SimpleNamespace(client=client, run=run, id=run.info.run_id, folder=artifacts(run))


def test_the_run_is_named_like_the_model_and_over(record):
    assert record.run.info.run_name == "locator"
    assert record.run.info.status == "FINISHED"
    assert record.run.info.end_time > record.run.info.start_time


def test_the_settings_to_compare_by_are_params_and_no_others(smoke, record):
    """Regression: MLflow's page lists all params above each picture: 48 hid the picture."""
    config = load_config(smoke[0] / "userconf.yml")
    assert record.run.data.params == {k: str(v) for k, v in config.compared_params().items()}
    assert len(record.run.data.params) < 12
    for key, value in {
        "curriculum.threshold": "100.0",
        "curriculum.minimum_sigma": "1.5",
        "learning_rate": "0.003",
        "initial_kernel_size": "4.0",
        "network.channels": "[4, 8]",
    }.items():
        assert record.run.data.params[key] == value


@pytest.mark.parametrize("name", sorted(EPOCH_METRICS))
def test_every_metric_of_an_epoch_is_logged_by_step(smoke, record, name):
    history = record.client.get_metric_history(record.id, name)
    assert [metric.step for metric in history] == [1, 2, 3]
    if (column := EPOCH_METRICS[name]) != "seconds":
        assert [metric.value for metric in history] == [row[column] for row in rows(smoke[0])]


def test_the_summarys_numbers_are_metrics_and_there_are_no_others(smoke, record):
    metrics = record.run.data.metrics
    assert set(metrics) == EPOCH_METRICS.keys() | SUMMARY_METRICS
    said = summary(smoke[0])
    assert metrics["total_seconds"] == said["seconds"]
    assert metrics["test/error_downsampled_voxels"] == said["test_error"]["downsampled_voxels"]
    assert metrics["test/mean_position_error_mm"] == said["mean_position_error"]["mm"]


def test_the_page_says_how_good_it_is_and_shows_the_last_heatmaps(record):
    """Regression: it said "No description", and had no tags."""
    tags = record.run.data.tags
    assert "mean error on 1 test scan is" in tags["mlflow.note.content"]
    assert tags["mlflow.note.content"].count("%2Bstep%2B3%2Btimestamp") == 2
    assert (tags["kind"], tags["objects"], tags["grid"]) == ("training", "jaw", "24×12×12")
    assert tags["jawloc_version"] and len(tags["dataset"]) == 8


def test_heatmaps_are_on_the_image_grid_at_each_sigma(record):
    names = [path.name for path in (record.folder / "images").glob("*.png")]
    found = sorted((name.split("+")[0], int(name.split("+")[2])) for name in names)
    # and at step 0, where MLflow's page opens the grid
    assert found == [(f"heatmap~{s}", step) for s in ("train", "val") for step in (0, 1, 2, 3)]
    assert record.run.data.tags["mlflow.loggedImages"] == "True"
    for path in (record.folder / "images").glob("*.png"):
        with Image.open(path) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 50


def test_every_file_is_an_artifact(smoke, record):
    lab, _ = smoke
    kept = files_below(outputs(lab))
    del kept[MANIFEST]
    assert files_below(record.folder / "outputs") == kept
    split = json.loads((record.folder / "split.json").read_text(encoding="utf-8"))
    assert split == {"train": SCAN_IDS[:3], "val": SCAN_IDS[3:4], "test": SCAN_IDS[4:]}


def test_the_data_are_recorded_by_id_and_cache_key(record):
    content = json.loads((record.folder / "dataset.json").read_text(encoding="utf-8"))
    assert {name: list(keys) for name, keys in content.items()} == {
        "train": SCAN_IDS[:3],
        "val": SCAN_IDS[3:4],
        "test": SCAN_IDS[4:],
    }
    keys = [key for part in content.values() for key in part.values()]
    assert len(set(keys)) == len(SCAN_IDS)
    assert all(len(key) == 64 for key in keys)
    inputs = record.run.inputs.dataset_inputs
    assert {i.dataset.name for i in inputs} == {"train scans", "val scans", "test scans"}


def test_the_tags_say_which_code_and_whose_run(record):
    tags = record.run.data.tags
    assert tags["mlflow.source.name"] == "jawloc"
    assert tags["mlflow.user"]
    commit = source_tags().get("mlflow.source.git.commit")
    assert tags.get("mlflow.source.git.commit") == commit


def test_the_logged_model_takes_scan_paths(smoke, record):
    lab, _ = smoke
    (output,) = record.run.outputs.model_outputs
    logged = record.client.get_logged_model(output.model_id)
    assert str(logged.status) == "READY"
    assert logged.params == record.run.data.params
    assert {m.key for m in logged.metrics} == SUMMARY_METRICS
    model = mlflow.pyfunc.load_model(logged.artifact_location)
    table = model.predict([str(lab / "dicoms" / "labelled" / f"{SCAN_IDS[4]}.dcm")])
    (tested,) = summary(lab)["test_scans"]
    position = table[["z_voxels", "y_voxels", "x_voxels"]].to_numpy()[0]
    np.testing.assert_allclose(position, tested["predicted_voxels_zyx"], atol=1e-3)
    assert list(table["object"]) == ["jaw"]


# --- later runs ----------------------------------------------------------------------------------


def test_a_full_cache_stands_for_the_scans_and_one_seed_gives_the_same_numbers(
    copied, jawloc, no_pictures, one_thread
):
    """Only the pictures of the test scan need full-size pixels: the others are made useless."""
    for scan_id in SCAN_IDS[:4]:
        path = copied / "dicoms" / "labelled" / f"{scan_id}.dcm"
        stat = path.stat()
        path.write_bytes(b"\0" * stat.st_size)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    result = jawloc("train", "--model-name", "again")
    assert result.exit_code == 0, result.output
    assert rows(copied, "again") == rows(copied)
    numbers = [
        {k: v for k, v in summary(copied, name).items() if k not in ("name", "seconds", "run_id")}
        for name in ("again", "locator")
    ]
    assert numbers[0] == numbers[1]
    weights = [load_locator(outputs(copied, n) / f"{n}.pth") for n in ("again", "locator")]
    for a, b in zip(*(w.networks[0].state_dict().values() for w in weights), strict=True):
        assert torch.equal(a, b)
    _, found = runs(copied)
    assert [run.info.run_name for run in found] == ["again", "locator"]


@pytest.mark.slow
def test_of_the_test_scan_only_the_pictures_read_full_size_pixels(
    copied, jawloc, monkeypatch, no_epoch_pictures
):
    from jawloc.scans import dicom

    opened, read = [], dicom.read_slices

    def counted(layout, frames, start, stop):
        opened.append(layout.path)
        return read(layout, frames, start, stop)

    monkeypatch.setattr(dicom, "read_slices", counted)
    result = jawloc("train", "--model-name", "again", "--set", "num_epochs=1")
    assert result.exit_code == 0, result.output
    assert opened  # or nothing was counted
    full_size = {path.name for path in opened if "downsampled_dicoms" not in str(path)}
    assert full_size == {f"{SCAN_IDS[4]}.dcm"}


def test_another_seed_gives_other_numbers(copied, jawloc, no_pictures, one_thread):
    result = jawloc("train", "--model-name", "b", "--set", "seed=1", "--set", "num_epochs=1")
    assert result.exit_code == 0, result.output
    assert rows(copied, "b")[0]["train_kl_nats"] != rows(copied)[0]["train_kl_nats"]


def test_several_objects_and_several_scans_to_validate_and_test(
    lab, jawloc, no_epoch_pictures, monkeypatch
):
    shown = []
    monkeypatch.setattr(
        run_pictures, "write_test_pictures", lambda *given: shown.append((given[2], given[3]))
    )
    write_config(
        lab,
        objects={"left": [1], "right": [2]},
        validation_scans=[SCAN_IDS[0]],
        test_scans=2,
        num_epochs=1,
    )
    result = jawloc("train")
    assert result.exit_code == 0, result.output
    said = summary(lab)
    split = {"train": SCAN_IDS[1:3], "validation": SCAN_IDS[:1], "test": SCAN_IDS[3:]}
    assert said["scans"] == split
    found = [(row["scan"], row["object"]) for row in said["test_scans"]]
    assert found == [(scan, name) for scan in SCAN_IDS[3:] for name in ("left", "right")]
    masks = [make_phantom(n, SCAN_SHAPE, arch_labels=True).mask for n in (3, 4)]
    truth = [np.argwhere(mask == value).mean(axis=0) for mask in masks for value in (1, 2)]
    np.testing.assert_allclose([r["truth_voxels_zyx"] for r in said["test_scans"]], truth)
    errors = [row["error_mm"] for row in said["test_scans"]]
    assert said["test_error"]["mm"] == pytest.approx(np.mean(errors))
    assert "Mean radial error on 2 test scans" in result.stdout
    # of several test scans the pictures show, for each object, the one that is worth looking at
    for name, (example, error) in zip(("left", "right"), shown, strict=True):
        own = [row for row in said["test_scans"] if row["object"] == name]
        worst = max(own, key=lambda row: row["error_downsampled_voxels"])
        assert (error.scan_id, error.object_name) == (worst["scan"], name)
        assert example.scan_id == worst["scan"]
    assert load_locator(outputs(lab) / "locator.pth").objects == {"left": [1], "right": [2]}


def test_specimens_stay_together_unless_lists_of_scans_divide_them(lab, jawloc, no_pictures):
    """Regression: fish3_left validated and fish3_right tested."""
    names = ["fish1", "fish2_left", "fish2_right", "fish3_left", "fish3_right"]
    for scan_id, name in zip(SCAN_IDS, names, strict=True):
        path = lab / "dicoms" / "labelled" / f"{scan_id}.dcm"
        path.rename(path.with_name(f"{name}.dcm"))
    result = jawloc("train", "--set", "num_epochs=1")
    assert result.exit_code == 0, result.output
    split = {"train": names[:1], "validation": names[1:3], "test": names[3:]}
    assert summary(lab)["scans"] == split
    assert summary(lab)["specimens"] == {"train": 1, "validation": 1, "test": 1}
    assert "on 2 test scans of 1 specimen (not seen" in result.stdout
    assert "warning" not in result.stderr
    write_config(lab, num_epochs=1, validation_scans=names[1:2], test_scans=names[3:4])
    result = jawloc("train", "--overwrite")
    assert result.exit_code == 0, result.output
    assert summary(lab)["specimens"] == {"train": 3, "validation": 1, "test": 1}
    (warning,) = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert "fish2 (training: fish2_right; validation: fish2_left)" in warning
    assert "fish3 (training: fish3_right; test: fish3_left)" in warning


@pytest.mark.slow
def test_scans_that_lack_an_object_train_and_test_the_others(lab, jawloc):
    """The whole path, its pictures too: a training and a test scan lack one of the two."""
    for number, label in ((0, 1), (3, 2)):
        erase_labels(lab / "dicoms" / "labelled" / f"{SCAN_IDS[number]}.dcm", label)
    write_config(
        lab,
        objects={"left": 1, "right": 2},
        test_scans=2,
        num_epochs=2,
    )
    result = jawloc("train")
    assert result.exit_code == 0, result.output
    said, folder = summary(lab), outputs(lab)
    found = [(row["scan"], row["object"]) for row in said["test_scans"]]
    assert found == [(SCAN_IDS[3], "left"), (SCAN_IDS[4], "left"), (SCAN_IDS[4], "right")]
    assert {name: own["test_scans"] for name, own in said["objects"].items()} == {
        "left": 2,
        "right": 1,
    }
    errors = [row["error_mm"] for row in said["test_scans"]]
    assert said["test_error"]["mm"] == pytest.approx(np.mean(errors))
    assert said["objects"]["left"]["test_error"]["mm"] == pytest.approx(np.mean(errors[:2]))
    for words in ("left ", "right (1 scan) "):
        assert sum(line.startswith(f"    {words}") for line in result.stdout.splitlines()) == 2
    for row in rows(lab):
        assert all(np.isfinite(value) for value in row.values())
        val = row["val_error_left_voxels"], row["val_error_right_voxels"]
        assert row["val_error_voxels"] == pytest.approx(sum(val) / 2)
    written = {path.name for path in folder.glob("*.png")}
    of_each = {name.replace(".png", f"_{o}.png") for name in PICTURES for o in ("left", "right")}
    several = {name for name in of_each if name.startswith(("test_", "truth_"))}
    whole = {name for name in PICTURES if not name.startswith(("test_", "truth_"))}
    assert several | whole <= written
    _, (run,) = runs(lab)
    own = said["objects"]["right"]
    assert run.data.metrics["test/error_right_mm"] == pytest.approx(own["test_error"]["mm"])
    assert run.data.metrics["val/error_right_voxels"] == rows(lab)[-1]["val_error_right_voxels"]
    # the model has a row an object, whether a scan shows it or not
    mlflow.set_tracking_uri(tracking_uri(lab))
    model = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/locator")
    table = model.predict([str(lab / "dicoms" / "labelled" / f"{SCAN_IDS[3]}.dcm")])
    assert list(table["object"]) == ["left", "right"]
    assert table["z_voxels"].notna().all()


def test_a_gpu_that_is_not_there_is_warned_of_once(lab, jawloc, monkeypatch, no_pictures):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    result = jawloc("train", "--set", "device=cuda", "--set", "num_epochs=1")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("using the CPU") == 1


def test_the_labs_own_files_and_settings_work_unchanged(
    lab, jawloc, monkeypatch, no_epoch_pictures
):
    """Legacy DICOMs, the lab's userconf.yml word for word; only --set makes it small."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    shutil.rmtree(lab / "dicoms")
    for folder in ("dicoms/Training set 2", "more"):
        (lab / folder).mkdir(parents=True)
    (lab / "userconf.yml").write_text(LAB_CONFIG.replace("/data/dicoms", str(lab / "more")))
    for seed, name in enumerate(["131", "247", "90", "351", "218"]):
        scan = make_phantom(seed, SCAN_SHAPE)
        place = lab / ("more" if seed > 2 else "dicoms/Training set 2")
        write_lab_dicom(place / f"{name}.dcm", scan.image, scan.mask)
    small = ["downsampled_dicom_size=[24, 12, 12]", "num_epochs=2", "network.channels=[4, 8]"]
    small += ["presence_classifier.steps=5"]
    result = jawloc("train", "--model-name", "LAB_1", *[a for s in small for a in ("--set", s)])
    assert result.exit_code == 0, result.output
    assert "warning: device 'cuda' is set, but this machine has no CUDA GPUs" in result.stderr

    said = summary(lab, "LAB_1")
    assert said["scans"] == {
        "train": ["131", "218", "247"],
        "validation": ["351"],
        "test": ["90"],  # ids sort as text, as the lab's do
    }
    assert said["test_error"]["downsampled_voxels"] > 0
    # the lab's layout has no spacing: no mm is invented, and it is said why there is none
    assert said["test_error"]["mm"] is said["test_scans"][0]["error_mm"] is None
    assert " mm\n" not in result.stdout
    assert "no mm: the scans' files don't say how large a voxel is" in result.stdout
    _, (run,) = runs(lab)
    assert not [name for name in run.data.metrics if "mm" in name]
    assert (run.data.tags["device"], run.data.tags["grid"]) == ("cpu", "24×12×12")
    assert (PICTURES - {p.name for p in outputs(lab, "LAB_1").iterdir()}) == set()


# --- runs that end early -------------------------------------------------------------------------


class Breaking(torch.nn.Module):
    """Gives NaN from some training step on."""

    def __init__(self, network, good_steps):
        super().__init__()
        self.network, self.good_steps = network, good_steps

    def forward(self, images):
        if self.training:
            self.good_steps -= 1
        return self.network(images) * (1 if self.good_steps >= 0 else float("nan"))


@pytest.mark.parametrize(("good_steps", "epoch"), [(0, 1), (1, 2)])
def test_a_loss_that_is_not_finite_ends_the_run_failed(
    lab, jawloc, monkeypatch, no_pictures, good_steps, epoch
):
    build = experiment.build_network
    for module in (experiment, log_training):
        monkeypatch.setattr(
            module, "build_network", lambda *given: Breaking(build(*given), good_steps)
        )
    result = jawloc("train", "--set", "mask_supervision=false")
    assert result.exit_code == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(f"Error: epoch {epoch}: the loss must stay a finite number, but is nan")
    assert any(scan_id in last for scan_id in SCAN_IDS[:3])
    _, (run,) = runs(lab)
    assert run.info.status == "FAILED"
    assert "val/kl" in run.data.metrics or epoch == 1
    # a run that finished an epoch can be gone on with; of one that didn't, nothing is left
    left = {"checkpoint.pt"} if epoch > 1 else set()
    present = outputs(lab).iterdir() if outputs(lab).exists() else []
    names = {path.name for path in present}
    assert left <= names
    assert bool(names) == bool(left)
    assert not [name for name in names if name.endswith(".pth")]


def test_an_interruption_before_the_first_epoch_leaves_the_name_free(
    lab, jawloc, monkeypatch, no_pictures
):
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "train", interrupted_at_once)
        result = jawloc("train")
    assert result.exit_code == 130
    assert result.stderr.strip().splitlines()[-1] == (
        "Error: interrupted before the end of the first epoch; nothing is kept of this run, and "
        "the same command begins it again"
    )
    assert not outputs(lab).exists()
    _, (run,) = runs(lab)
    assert run.info.status == "KILLED"
    assert jawloc("train", "--set", "num_epochs=1").exit_code == 0


def interrupted_at_once(*_, **__):
    raise KeyboardInterrupt
    yield


def test_a_store_that_cannot_be_opened_costs_no_model(copied, jawloc, monkeypatch):
    """Regression guard: --overwrite removes the old model only once the new run has begun."""
    before = files_below(outputs(copied))

    def unreachable(*_, **__):
        raise OSError("the store can't be reached")

    monkeypatch.setattr(experiment, "tracked_run", unreachable)
    result = jawloc("train", "--overwrite")
    assert only_sentence(result) == "the store can't be reached"
    assert files_below(outputs(copied)) == before


def test_resume_sends_what_waits_of_a_run_that_is_over(copied, jawloc, monkeypatch):
    """Its store did not answer, so that the rest of its log waits beside its results."""
    _, (run,) = runs(copied)
    calls = [
        {"run_id": run.info.run_id},
        {"call": "tags", "content": {"values": {"sent": "later"}}},
        {"call": "file", "content": {"path": "config.yml", "folder": "late"}},
        {"call": "file", "content": {"path": "no_longer_there.txt", "folder": "late"}},
    ]
    unsent = outputs(copied) / "unsent.jsonl"
    write_text(unsent, "\n".join(map(json.dumps, calls)))
    monkeypatch.setattr(experiment, "prepare_data", None)  # nothing is trained
    result = jawloc("train", "--resume")
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(TrainResult(outputs(copied), summary(copied)))
    assert not unsent.exists()
    client, (run,) = runs(copied)
    assert run.data.tags["sent"] == "later"
    assert [f.path for f in client.list_artifacts(run.info.run_id, "late")] == ["late/config.yml"]


@pytest.mark.parametrize("words", [(), ("--folds", "2")], ids=["one", "folds"])
def test_overwriting_first_sends_what_waits_of_the_old_run(copied, jawloc, monkeypatch, words):
    """Regression: it went with the old run's files."""
    _, (run,) = runs(copied)

    def wait(run_id, folder):
        call = {"call": "tags", "content": {"values": {f"of {folder.name}": "sent"}}}
        write_text(folder / "unsent.jsonl", f"{json.dumps({'run_id': run_id})}\n{json.dumps(call)}")

    def enough(*_, **__):
        raise InputError("nothing is to be trained")

    for module in (experiment, cross_validate):
        monkeypatch.setattr(module, "find_earlier_model", enough)
    wait(run.info.run_id, outputs(copied))
    (outputs(copied) / "fold_1").mkdir()
    wait("0123" * 8, outputs(copied) / "fold_1")
    lost = outputs(copied) / "fold_1" / "unsent.jsonl"
    refused = jawloc("train", "--overwrite", *words)
    assert refused.exit_code == 2
    sent, said = refused.stderr.strip().splitlines()
    assert sent.endswith("all that waited for it has been sent")
    assert said.startswith(
        f"Error: {lost}: what waits here for the store of the runs must be sent before another run "
    )
    assert said.endswith(f"Run with id={'0123' * 8} not found")
    assert lost.is_file()
    lost.unlink()
    assert only_sentence(jawloc("train", "--overwrite", *words)) == "nothing is to be trained"
    assert not (outputs(copied) / "unsent.jsonl").exists()
    _, (run,) = runs(copied)
    assert run.data.tags["of locator"] == "sent"


def test_resume_shows_a_finished_run_again_unless_other_settings_are_asked_for(
    copied, jawloc, monkeypatch
):
    """Its process may have been ended after its last work, but before it said so."""
    monkeypatch.setattr(experiment, "prepare_data", None)  # nothing is trained
    result = jawloc("train", "--resume")
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(TrainResult(outputs(copied), summary(copied)))
    refused = jawloc("train", "--resume", "--set", "seed=5", "--set", "num_epochs=99")
    assert refused.exit_code == 2
    (sentence,) = refused.stderr.strip().splitlines()
    assert "is finished, with other settings than these: " in sentence
    assert "seed was 0 and is now 5" in sentence
    assert "is now 99" in sentence


def test_overwriting_replaces_the_models_files_and_leaves_others_alone(copied, jawloc, no_pictures):
    (outputs(copied) / "notes.txt").write_text("mine")
    assert jawloc("train", "--overwrite", "--set", "num_epochs=1").exit_code == 0
    names = {path.name for path in outputs(copied).iterdir()}
    assert "notes.txt" in names
    assert not names & {"heatmap_epoch_2_sigma_3.20.png", "losses.png"}
    assert summary(copied)["epochs"] == 1
    _, found = runs(copied)
    assert [run.info.run_name for run in found] == ["locator", "locator"]  # both can be compared


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--overwrite",),
        ("--resume",),
        ("--folds", "2", "--overwrite"),
        ("--demo", "--model-name", "locator", "--overwrite"),
    ],
    ids=" ".join,
)
def test_a_second_training_of_one_name_is_refused_before_slow_work(lab, jawloc, monkeypatch, words):
    """Regression: two with --overwrite wrote into one folder for minutes."""

    def too_late(*_, **__):
        raise AssertionError("slow work began")

    monkeypatch.setattr("jawloc.workflows.prepare_data.build_cache", too_late)
    monkeypatch.setattr("jawloc.workflows.demo.write_phantoms", too_late)
    place = outputs(lab).parent / ".locks" / "locator"
    with another_process(place) as first:
        outputs(lab).mkdir()
        (outputs(lab) / "checkpoint.pt").write_text("of the first")
        before = files_below(lab)
        said = only_sentence(jawloc("train", *words))
        assert said.startswith(
            f"--model-name: 'locator' ({outputs(lab)}) is in use by process {first.pid} on "
        )
        assert files_below(lab) == before


@pytest.mark.slow
def test_a_killed_training_leaves_its_name_to_the_next(lab, jawloc, no_pictures):
    """A real one, killed in its first epoch."""
    script = (
        "import os, signal, jawloc.workflows.train as experiment\n"
        "experiment.train = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from jawloc.cli import train; train(['--set', 'num_epochs=1'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", script], env=environment).returncode == -9
    assert (outputs(lab) / "config.yml").is_file()
    assert (outputs(lab).parent / ".locks" / "locator.lease").is_file()
    result = jawloc("train", "--set", "num_epochs=1")
    assert result.exit_code == 0, result.output
    assert [path.name for path in outputs(lab).parent.iterdir()] == ["locator"]


def test_only_what_a_run_wrote_is_logged_as_its_outputs(copied, jawloc, no_pictures):
    """Regression: whatever lay in its folder was."""
    (outputs(copied) / "notes.txt").write_text("mine")
    (outputs(copied) / "bias_notes.png").write_text("mine")
    assert jawloc("train", "--overwrite", "--set", "num_epochs=1").exit_code == 0
    assert (outputs(copied) / "notes.txt").read_text(encoding="utf-8") == "mine"
    client, (run, _) = runs(copied)
    logged = {file.path for file in client.list_artifacts(run.info.run_id, "outputs")}
    assert "outputs/locator.pth" in logged
    assert not logged & {"outputs/notes.txt", "outputs/bias_notes.png", f"outputs/{MANIFEST}"}


def test_an_evaluation_of_the_old_model_goes_with_it(copied, jawloc, no_pictures):
    folder = outputs(copied)
    scan = copied / "dicoms" / "labelled" / f"{SCAN_IDS[4]}.dcm"
    words = ("evaluate", "locator", scan, "--output-dir", folder, "--pictures", "1")
    assert jawloc(*words).exit_code == 0
    of_evaluation = {"evaluation.json", "bias.png", f"worst_01_{SCAN_IDS[4]}.png"}
    assert of_evaluation <= {path.name for path in folder.iterdir()}
    assert jawloc(*words).exit_code == 0  # the model and its files stay where they are
    assert {"locator.pth", "losses.png"} <= {path.name for path in folder.iterdir()}
    before = files_below(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "train", interrupted_at_once)
        assert jawloc("train", "--overwrite").exit_code == 130
    assert files_below(folder) == before
    assert jawloc("train", "--overwrite", "--set", "num_epochs=1").exit_code == 0
    assert not of_evaluation & {path.name for path in folder.iterdir()}


def test_going_on_repeats_the_uninterrupted_run_with_dropout_too(
    copied, jawloc, monkeypatch, no_pictures, one_thread
):
    """Regression: what the pictures drew from the random numbers was forgotten in between, and an
    epoch of which the process was ended between its saving and its logging was missing.

    The second part is asked for more epochs, and has the first part's last one to log.
    """
    settings = ["network=attention-unet", "batch_size=2", "learning_rate=0.001"]
    arguments = ["train", *[a for s in settings for a in ("--set", s)]]
    longer, shorter = (("--set", f"num_epochs={n}", "--model-name") for n in (3, 2))
    monkeypatch.setattr("jawloc.training.network.LAB_CHANNELS", (2, 2, 2, 2, 2))
    monkeypatch.setattr(log_training, "heatmap_tiles", drawing_picture)
    assert jawloc(*arguments, *longer, "whole").exit_code == 0

    saved = experiment.save_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "save_checkpoint", interrupted_after(saved, epochs=1))
        result = jawloc(*arguments, *shorter, "parts")
    assert result.exit_code == 130
    client, _ = runs(copied)
    run_id = torch.load(outputs(copied, "parts") / "checkpoint.pt", weights_only=True)["run_id"]
    assert not client.get_metric_history(run_id, "val/kl")
    assert jawloc(*arguments, *longer, "parts", "--resume").exit_code == 0
    assert [m.step for m in client.get_metric_history(run_id, "val/kl")] == [1, 2, 3]
    assert rows(copied, "parts") == rows(copied, "whole")
    assert summary(copied, "parts")["epochs"] == 3
    assert 1000 < summary(copied, "parts")["seconds"] < 2000  # both parts together


def drawing_picture(*arguments):
    if len(arguments) == 5:  # with a locator, for which a network is built
        torch.rand(3)
    return {"": Figure(figsize=(0.1, 0.1))}


def interrupted_after(save, epochs):
    def interrupting(path, state, *rest):
        # as if the epochs had been long
        state.records[-1] = replace(state.records[-1], seconds=1000.0)
        save(path, state, *rest)
        if len(state.records) == epochs:
            raise KeyboardInterrupt

    return interrupting


def test_a_run_stopped_at_its_end_keeps_its_time_but_not_the_results_of_fewer_epochs(
    lab, jawloc, monkeypatch, no_pictures
):
    """Regression: with more epochs, MLflow kept the first ones' errors, time and model."""
    stop_at_the_end = ("jawloc.workflows.finish_training.describe_finished", interrupted)
    with monkeypatch.context() as patch:
        patch.setattr(*stop_at_the_end)
        assert jawloc("train", "--set", "num_epochs=1").exit_code == 130
    client, (run,) = runs(lab)
    client.log_metric(run.info.run_id, "total_seconds", 5000.0)
    with monkeypatch.context() as patch:
        patch.setattr(*stop_at_the_end)
        assert jawloc("train", "--resume", "--set", "num_epochs=1").exit_code == 130
    assert summary(lab)["seconds"] == 5000
    assert jawloc("train", "--resume", "--set", "num_epochs=2").exit_code == 0
    _, (run,) = runs(lab)
    assert summary(lab)["epochs"] == 2
    assert summary(lab)["seconds"] < 5000
    wanted = summary_metrics(summary(lab))
    found = {key: run.data.metrics[key] for key in wanted}
    assert found == wanted | {"total_seconds": pytest.approx(wanted["total_seconds"], abs=1)}
    with model_file(f"runs:/{run.info.run_id}/locator", lab) as logged:
        assert logged.read_bytes() == (outputs(lab) / "locator.pth").read_bytes()


def interrupted(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("folds", [(), ("--folds", "3")], ids=["one", "folds"])
def test_resume_says_that_a_run_begins_and_which_others_are_unfinished(lab, jawloc, folds):
    """Regression: a mistyped name began a new training with a line that named no other run."""
    runs = lab / "script_output" / "jaw_location"
    (lab / "dicoms" / "labelled" / "bad.dcm").write_bytes(b"junk")  # so that nothing is trained
    begins = "--resume: there is no run 'blu' to go on with, so it begins now"
    command = ("train", "--resume", "--model-name", "blu", *folds)
    assert begins in jawloc(*command).stderr.splitlines()
    for name in ("a", "b", "c", "blue", "red"):
        (runs / name).mkdir(parents=True)
        (runs / name / "checkpoint.pt").touch()
    said = f"{begins}; unfinished runs: blue, b, a and 2 more"
    assert said in jawloc(*command).stderr.splitlines()


def test_a_resumed_run_must_have_the_settings_that_it_began_with(
    lab, jawloc, monkeypatch, no_pictures
):
    saved = experiment.save_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "save_checkpoint", interrupted_after(saved, epochs=1))
        assert jawloc("train").exit_code == 130
    before = files_below(outputs(lab))
    result = jawloc("train", "--resume", "--set", "learning_rate=0.01")
    assert result.exit_code == 2
    assert result.stderr.strip().splitlines()[-1] == (
        "Error: checkpoint.pt: a run goes on only with the settings and scans that it began with; "
        "learning_rate was 0.003 and is now 0.01"
    )
    assert files_below(outputs(lab)) == before
    refused = jawloc("train")
    assert "--resume goes on with its interrupted run" in refused.stderr


def test_a_resumed_run_must_have_the_scans_that_it_began_with(
    lab, jawloc, monkeypatch, no_pictures
):
    """Regression guard: with other scans, some that it trained on would become test scans."""
    saved = experiment.save_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "save_checkpoint", interrupted_after(saved, epochs=1))
        assert jawloc("train").exit_code == 130
    scans = (lab / "dicoms").rglob("phantom_*.dcm")
    first = next(path for path in scans if "downsampled_dicoms" not in path.parts)
    shutil.copy(first, first.with_name("zebra.dcm"))
    result = jawloc("train", "--resume")
    assert result.exit_code == 2
    assert "the settings and scans that it began with; scans new: zebra" in result.stderr


# --- coarse and close looks ----------------------------------------------------------------------


def test_looking_twice_from_the_scans_to_a_position_with_scans_in_memory_or_not(
    lab, jawloc, no_pictures, one_thread
):
    """Past the memory budget, scans are read from the cache, and every number stays the same."""
    twice = ("--set", "network.coarse=2", "--set", "network.window=[16,16,16]")
    for name, budget in (("held", 4.0), ("read", 0.0)):
        words = ("train", "--model-name", name, *twice, "--set", f"memory_budget_gb={budget}")
        result = jawloc(*words)
        assert result.exit_code == 0, result.output
    assert rows(lab, "held") == rows(lab, "read")
    assert [e["error_mm"] for e in summary(lab, "held")["test_scans"]] == [
        e["error_mm"] for e in summary(lab, "read")["test_scans"]
    ]
    locator = load_locator(outputs(lab, "read") / "read.pth")
    assert len(locator.network_config.stages()) == 2
    (found,) = locator.locate(lab / "dicoms" / "labelled" / f"{SCAN_IDS[-1]}.dcm")
    (tested,) = summary(lab, "read")["test_scans"]
    assert found.point_voxels == pytest.approx(tested["predicted_voxels_zyx"], abs=1e-3)
    assert found.width_voxels > 0


# --- two stages ----------------------------------------------------------------------------------

TWO_STAGES = {
    "network": {"channels": [4, 8], "coarse": 2, "stride": 1, "window": [16, 16, 16]},
    "curriculum": {
        "threshold": 100.0,
        "minimum_sigma": 1.0,
        "coarse_minimum_sigma": 3.5,
        "fine_initial_sigma": 2.0,
    },
}


@pytest.mark.slow
def test_two_stages_leave_a_record_of_each_that_agrees_with_the_pictures(lab, jawloc):
    write_config(lab, **TWO_STAGES)
    result = jawloc("train")
    assert result.exit_code == 0, result.output
    coarse, fine = [4, 3.5, 3.5], [2, 1.6, 1.28]
    table = rows(lab)
    assert [row["sigma_coarse_voxels"] for row in table] == pytest.approx(coarse)
    assert [row["sigma_fine_voxels"] for row in table] == pytest.approx(fine)
    assert [row["sigma_voxels"] for row in table] == pytest.approx(fine)
    names = {path.name for path in outputs(lab).glob("*heatmap_e*")}
    assert names == {
        "train_heatmap_example.png",
        "train_heatmap_example_fine.png",
        "val_heatmap_example.png",
        "val_heatmap_example_fine.png",
        "heatmap_epoch_1_coarse_sigma_4.00.png",
        "heatmap_epoch_1_fine_sigma_2.00.png",
        "heatmap_epoch_2_coarse_sigma_3.50.png",
        "heatmap_epoch_2_fine_sigma_1.60.png",
        "heatmap_epoch_3_fine_sigma_1.28.png",
    }
    best = summary(lab)["best_epoch"] - 1
    locator = load_locator(outputs(lab) / "locator.pth")
    assert locator.sigma_voxels == (pytest.approx((coarse[best], fine[best])),)
    said = {key: value for key, value in summary(lab).items() if "sigma" in key}
    assert said == {
        "final_sigma_voxels": pytest.approx(1.28),
        "final_sigma_coarse_voxels": 3.5,
        "best_sigma_voxels": pytest.approx(fine[best]),
        "best_sigma_coarse_voxels": coarse[best],
    }
    _, (run,) = runs(lab)
    images = [path.name for path in (artifacts(run) / "images").glob("*.png")]
    shown = sorted((name.split("+")[0], int(name.split("+")[2])) for name in images)
    assert shown == [
        (f"heatmap~{name}", step)
        for name in ("train", "train_coarse", "val", "val_coarse")
        for step in (0, 1, 2, 3)
    ]
    config = yaml.safe_load((outputs(lab) / "config.yml").read_text(encoding="utf-8"))
    assert config["jaw_loc_config"]["curriculum"]["coarse_initial_sigma"] == 4.0
    assert "note: sigmas" not in result.stderr  # every one is the user's own


@pytest.mark.slow
def test_a_sigma_that_a_stage_begins_at_instead_is_said_once(lab, jawloc, no_pictures):
    write_config(lab, network=TWO_STAGES["network"])
    result = jawloc("train", "--set", "num_epochs=1", "--folds", "2")
    assert result.exit_code == 0, result.output
    notes = [line for line in result.stderr.splitlines() if line.startswith("note: sig")]
    assert notes == [
        "note: sigmas, in downsampled voxels: curriculum.fine_initial_sigma is 1.5 instead of "
        "initial_kernel_size 4 (the fine stage's window is 16 long)"
    ]
    kept = yaml.safe_load((outputs(lab) / "config.yml").read_text(encoding="utf-8"))[
        "jaw_loc_config"
    ]
    assert kept["curriculum"]["fine_initial_sigma"] == 1.5
    for fold in summary(lab)["fold_results"]:
        assert (fold["best_sigma_voxels"], fold["best_sigma_coarse_voxels"]) == (1.5, 4)
