"""`jawloc info` and `jawloc doctor`: what they find, and what they say is to be done."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from jawloc.inference.held_out_errors import HeldOutErrors
from jawloc.inference.locator import load_locator, save_locator
from jawloc.reporting.tracking.store import store_database
from jawloc.training.provenance import (
    FINGERPRINT_SHAPE,
    NetworkRecord,
    Provenance,
    ScanIdentity,
)
from jawloc.workflows import doctor
from tests.lab import LAB_CONFIG, only_sentence, write_config, write_model

MM = {"mm": 0.1, "full_size_voxels": 5.0, "downsampled_voxels": 1.25}
WORSE = {"mm": 0.7, "full_size_voxels": 35.0, "downsampled_voxels": 8.75}


@pytest.fixture
def model(tmp_path, monkeypatch):
    """The path of a model whose file knows how it was made and how good it is."""
    monkeypatch.chdir(tmp_path)
    path = write_model(tmp_path / "m.pth")
    image, ids = np.zeros(FINGERPRINT_SHAPE, np.uint8), tuple(f"fish_{n}" for n in range(8))
    scans = {name: ScanIdentity(name, name, name, image) for name in ids}
    record = Provenance(scans, (NetworkRecord({"train": ids}, (2.0,)),), r"(fish_\d+)", "abc123")
    errors = HeldOutErrors("test", 3, MM, WORSE, MM)
    save_locator(replace(load_locator(path), provenance=record, errors=errors), path)
    return path


def test_a_model_is_described_from_its_file(jawloc, model):
    result = jawloc("info", "m.pth")
    assert result.exit_code == 0, result.output
    said = result.stdout
    for words in (
        "run abc123",
        "24×12×12 downsampled voxels",
        "1 unet of 1 stage",
        "2.00 downsampled voxels at its weights' epoch",
        "fish_0, fish_1, fish_2, fish_3, fish_4, fish_5 and 2 more",
        "radius  unknown",
    ):
        assert words in said
    rows = {line.split("  ")[0]: line.split()[-3:] for line in said.splitlines()}
    assert rows["the model (3 test scans)"] == ["0.100", "5.000", "1.250"]
    assert rows["mean position (the same scans)"] == ["0.700", "35.000", "8.750"]
    assert "WARNING" not in said


def test_a_model_that_is_no_better_than_a_guess_is_called_so(jawloc, model):
    errors = HeldOutErrors("test", 3, WORSE, MM, {})
    save_locator(replace(load_locator(model), errors=errors), model)
    assert "WARNING: this model is no better than a guess" in jawloc("info", "m.pth").stdout
    found = jawloc("locate", "m.pth", "m.pth", "--no-pictures", "--crop-size", "4,4,4")
    assert "this model is no better than a guess" in found.stderr


def test_bare_weights_and_models_that_are_not_there(jawloc, model, tmp_path):
    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "bare.pth")
    said = jawloc("info", "bare.pth").stdout
    assert "bare weights" in said
    assert "gone.pth" in only_sentence(jawloc("info", "gone.pth"))


def test_the_errors_of_an_older_file_are_those_of_the_summary_beside_it(jawloc, model):
    save_locator(replace(load_locator(model), errors=None), model)
    assert "errors  unknown" in jawloc("info", "m.pth").stdout
    summary = {"name": "m", "test_error": MM, "mean_position_error": WORSE, "test_scans": []}
    model.with_name("summary.json").write_text(json.dumps(summary), encoding="utf-8")
    assert "the model (0 test scans)" in jawloc("info", "m.pth").stdout


# --- doctor --------------------------------------------------------------------------------------


def findings(result):
    """Return what is to be done, by check."""
    lines = result.stdout.partition("What to do:\n")[2].splitlines()
    return dict(line.removeprefix("- ").split(": ", 1) for line in lines)


def test_all_is_well_in_a_healthy_folder(jawloc, lab):
    result = jawloc("doctor")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "All is well."
    for words in ("5 labelled DICOMs", "0 of 5 scans at 24×12×12", "mlflow.db: 0 runs", "torch "):
        assert words in result.stdout


def test_each_fault_is_found_and_has_its_remedy(jawloc, lab, monkeypatch):
    (lab / "dicoms" / "labelled" / "phantom_002.dcm").write_bytes(b"junk")
    with closing(sqlite3.connect(store_database(lab))) as database:
        database.execute("DROP TABLE runs")
        database.commit()
    little = SimpleNamespace(total=8e9, available=1e9)
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: little)
    write_config(lab, device="cuda")
    result = jawloc("doctor")
    assert result.exit_code == 1
    to_do = findings(result)
    assert set(to_do) == {"device", "memory", "scans", "store"}
    assert "phantom_002.dcm" in result.stdout
    assert "device: auto" in to_do["device"]
    assert "memory_budget_gb to 0.5" in to_do["memory"]


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ("cuda:1", "device cuda:1 is set, and there is none; H100"),
        ("gpu", "device: must be auto, cpu, cuda or cuda:N; received 'gpu'"),
    ],
)
def test_a_device_that_training_would_not_use_is_found(jawloc, lab, monkeypatch, device, text):
    """Regression: with any GPU, all was well."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "H100")
    write_config(lab, device=device)
    result = jawloc("doctor")
    assert text in result.stdout
    assert "device: auto" in findings(result)["device"]
    write_config(lab, device="cuda:0")
    assert "device" not in findings(jawloc("doctor"))


def test_a_gpu_whose_driver_is_too_old_is_none(jawloc, lab, monkeypatch):
    """Regression: PyTorch counts it, and its name can't be asked for."""

    def too_old(_):
        raise RuntimeError("The NVIDIA driver on your system is too old")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", too_old)
    result = jawloc("doctor")
    assert "no GPU, so networks run on the CPU" in result.stdout
    write_config(lab, device="cuda")
    assert "the GPU's driver" in findings(jawloc("doctor"))["device"]


def test_scans_that_are_too_small_are_not_to_be_moved_away(jawloc, lab):
    """Regression: the remedy is another size."""
    write_config(lab, downsampled_dicom_size=[64, 12, 12])
    to_do = findings(jawloc("doctor"))
    assert to_do == {
        "scans": "set downsampled_dicom_size to [48, 12, 12], or to auto, which fits all scans"
    }


def test_a_wrong_or_missing_config_is_one_finding_among_others(jawloc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "settings" in findings(jawloc("doctor"))
    (tmp_path / "userconf.yml").write_text(LAB_CONFIG, encoding="utf-8")
    to_do = findings(jawloc("doctor"))
    assert "scans" in to_do  # the lab's folders are not here
    assert "settings" not in to_do
    (tmp_path / "userconf.yml").write_text("jaw_loc_config: {num_epoch: 3}", encoding="utf-8")
    result = jawloc("doctor")
    assert "num_epoch" in result.stdout
    assert "versions" in result.stdout


def test_a_server_that_does_not_answer_is_named(jawloc, lab, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert "MLFLOW_TRACKING_URI" in findings(jawloc("doctor"))["store"]
