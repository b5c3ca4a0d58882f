"""The demo: phantoms made once, then the same experiment as on real scans."""

import json

import numpy as np
import pytest

from jawloc.config import check_config
from jawloc.phantom import brightest_spot
from jawloc.scans.cache import open_example
from jawloc.workflows import demo
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
        (tiny_demo / "script_output" / "jaw_location" / "demo" / "summary.json").read_text(
            encoding="utf-8"
        )
    )
    for name in ("jawloc", "mean position", "brightest spot"):
        (line,) = [line for line in result.stdout.splitlines() if f"  {name}  " in line]
        errors = summary[f"{name.replace('jawloc', 'test').replace(' ', '_')}_error"]
        shown = f"{errors['downsampled_voxels']:.2f}", f"{errors['full_size_voxels']:.2f}"
        assert line.split()[-3:] == [*shown, f"{errors['mm']:.3f}"]
    (cached,) = (tiny_demo / "dicoms" / "downsampled_dicoms").rglob("phantom_004.dcm")
    example = open_example(cached, {"jaw": None}).read()
    away = np.linalg.norm(brightest_spot(example.image) - example.points_voxels[0])
    assert summary["brightest_spot_error"]["downsampled_voxels"] == pytest.approx(away)
    assert "jawloc ui" in result.stdout
    assert "Pictures, tables and the model: script_output/jaw_location/demo\n" in result.stdout

    # the second time it replaces its own outputs and reuses phantoms and cache
    made = {path: path.stat().st_mtime_ns for path in tiny_demo.glob("dicoms/d*/**/*.dcm")}
    assert len(made) == 10
    assert jawloc("train", "--demo").exit_code == 0
    assert {p: p.stat().st_mtime_ns for p in tiny_demo.glob("dicoms/d*/**/*.dcm")} == made


@pytest.mark.slow
def test_a_shortened_demo_finds_the_jaw(lab, jawloc, no_pictures, monkeypatch):
    """The whole demo takes minutes, and is off by 0.2 voxels of a grid twice as fine.

    Half as many scans on half the grid, 16 epochs, a narrower network with coarser heatmaps: with
    seeds 0 to 4, the mean error was 1.5 voxels. A network that learned nothing is no better than
    the mean position.
    """
    half = {
        "downsampled_dicom_size": [n // 2 for n in demo.DEMO_SETTINGS["downsampled_dicom_size"]],
        "crop_size": [n // 2 for n in demo.DEMO_SETTINGS["crop_size"]],
        "initial_kernel_size": 3.0,
        "validation_scans": 3,
        "num_epochs": 16,
        "network": {"channels": [8, 16, 32], "stride": 2},
        "presence_classifier": {"steps": 2},
    }
    monkeypatch.setattr(demo, "DEMO_SETTINGS", demo.DEMO_SETTINGS | half)
    monkeypatch.setattr(demo, "DEMO_SHAPE", tuple(n // 2 for n in demo.DEMO_SHAPE))
    monkeypatch.setattr(demo, "DEMO_SCANS", 24)
    result = jawloc("train", "--demo")
    assert result.exit_code == 0, result.output
    folder = lab / "script_output" / "jaw_location" / "demo"
    said = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    ways = ("test", "mean_position", "brightest_spot")
    found, mean, brightest = (said[f"{way}_error"]["downsampled_voxels"] for way in ways)
    assert found < 2.0
    # these two are the same every time
    assert mean == pytest.approx(4.71, abs=0.05)
    assert brightest == pytest.approx(6.98, abs=0.05)


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
        (["--model-name", "taken", "--resume"], "--resume: "),
        (["--set", "sead=1"], "--set: unknown key 'sead'"),
        (["--set", "downsampled_dicom_size=[4, 4]"], "--set: downsampled_dicom_size must be"),
        (["--experiment", "e.yml"], "--demo has settings of its own"),
    ],
)
def test_a_bad_request_is_refused_before_phantoms_are_made(tiny_demo, jawloc, arguments, said):
    """Regression: forty phantoms were drawn before the model's name was looked at."""
    taken = tiny_demo / "script_output" / "jaw_location" / "taken"
    taken.mkdir(parents=True)
    (taken / "notes.txt").touch()  # an empty folder is what a killed run leaves
    assert only_sentence(jawloc("train", "--demo", *arguments)).startswith(said)
    assert not (tiny_demo / "dicoms" / "demo").exists()
