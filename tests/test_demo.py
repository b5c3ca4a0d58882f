"""The demo: phantoms made once, then the same experiment as on real scans."""

import json

import pytest

from jawloc import demo
from jawloc.config import check_config
from tests.lab import SCAN_SHAPE, TINY_SETTINGS, only_sentence


@pytest.fixture
def tiny_demo(lab, monkeypatch):
    """A folder for a demo that takes a moment, without any config."""
    (lab / "userconf.yml").unlink()
    small = {k: v for k, v in TINY_SETTINGS.items() if k != "dicom_dirs"}
    monkeypatch.setattr(demo, "DEMO_SCANS", 5)
    monkeypatch.setattr(demo, "DEMO_SHAPE", SCAN_SHAPE)
    monkeypatch.setattr(demo, "DEMO_SETTINGS", small | {"num_epochs": 1})
    return lab


def test_the_demos_own_settings_are_valid_and_fit_its_scans(tmp_path):
    config = check_config(demo.DEMO_SETTINGS, base=tmp_path, source="--demo")
    split = config.split
    assert split.validation_scans + split.test_scans < demo.DEMO_SCANS
    for small, full in zip(config.cache.downsampled_dicom_size, demo.DEMO_SHAPE, strict=True):
        assert small < full


def test_the_demo_makes_phantoms_and_says_what_needs_no_network(tiny_demo, jawloc, no_pictures):
    result = jawloc("train", "--demo")
    assert result.exit_code == 0, result.output
    scans = sorted((tiny_demo / "dicoms" / "demo").iterdir())
    assert [path.name for path in scans] == [f"phantom_{n:03d}.dcm" for n in range(5)]
    summary = json.loads(
        (tiny_demo / "script_output" / "jaw_location" / "demo" / "summary.json").read_text()
    )
    for name in ("jawloc", "mean position", "brightest spot"):
        (line,) = [line for line in result.stdout.splitlines() if f"  {name}  " in line]
        assert "downsampled voxels" in line
        assert " mm" in line
    assert summary["brightest_spot_error"]["downsampled_voxels"] > 0
    assert "jawloc ui" in result.stdout
    assert str(tiny_demo / "script_output") in result.stdout

    # the second time it replaces its own outputs and reuses phantoms and cache
    made = {path: path.stat().st_mtime_ns for path in tiny_demo.glob("dicoms/d*/**/*.dcm")}
    assert len(made) == 10
    assert jawloc("train", "--demo").exit_code == 0
    assert {p: p.stat().st_mtime_ns for p in tiny_demo.glob("dicoms/d*/**/*.dcm")} == made


def test_settings_of_the_demo_can_be_set(tiny_demo, jawloc, no_pictures):
    result = jawloc("train", "--demo", "--model-name", "mine", "--set", "test_scans=2")
    assert result.exit_code == 0, result.output
    assert "Mean radial error on 2 test scans" in result.stdout
    assert (tiny_demo / "script_output" / "jaw_location" / "mine" / "mine.pth").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model-name", "../x"], "--model-name: a model's name is a folder's name"),
        (["--model-name", "taken"], "--model-name: 'taken' is taken"),
        (["--resume"], "--resume: "),
        (["--set", "sead=1"], "--set: unknown key 'sead'"),
        (["--set", "downsampled_dicom_size=[4, 4]"], "--set: downsampled_dicom_size must be"),
        (["--experiment", "e.yml"], "--demo has settings of its own"),
    ],
)
def test_a_bad_request_is_refused_before_phantoms_are_made(tiny_demo, jawloc, arguments, said):
    """Regression: forty phantoms were drawn before the model's name was looked at."""
    (tiny_demo / "script_output" / "jaw_location" / "taken").mkdir(parents=True)
    assert only_sentence(jawloc("train", "--demo", *arguments)).startswith(said)
    assert not (tiny_demo / "dicoms" / "demo").exists()
