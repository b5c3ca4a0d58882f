"""`jawloc evaluate`: labelled scans in; numbers, a report and a champion out."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pytest
import torch

import jawloc.evaluate_model as evaluate_model
import jawloc.locating.measuring as measuring
from jawloc.evaluate_model import plain_name, used_scans
from jawloc.geometry import Grid, map_points
from jawloc.locating.locator import Locator, load_locator
from jawloc.reporting.store import tracking_uri
from jawloc.scans.dicom import open_labelled_dicom
from tests.lab import SCAN_IDS, erase_labels, only_sentence, write_lab_dicom, write_model

OPTIONS = ("--crop-size", "20", "--pictures", "1", "--output-dir", "out")
LAB = Path("dicoms/labelled")


@pytest.fixture
def known_errors(monkeypatch):
    """Let locators be wrong by as many full-size voxels along z as their sigma says."""
    predict = Locator.predict

    def off(self, image):
        said = predict(self, image)
        return replace(
            said, points_voxels=self.truth + np.array([self.sigma_voxels[0][-1] / 2, 0, 0])
        )

    def reading(path):
        scan = open_labelled_dicom(path)
        mask = scan.read_mask(0, scan.grid.shape_zyx[0])
        small = map_points(np.argwhere(mask).mean(axis=0), scan.grid, Grid((24, 12, 12)))
        monkeypatch.setattr(Locator, "truth", small[None], raising=False)
        return scan

    monkeypatch.setattr(Locator, "predict", off)
    monkeypatch.setattr(measuring, "open_labelled", reading)


def model_wrong_by(path: Path, voxels: float, seed: int = 0) -> Path:
    """Write a locator that `known_errors` lets be wrong by so many voxels."""
    from jawloc.locating.locator import save_locator

    write_model(path, seed=seed)
    save_locator(replace(load_locator(path), sigma_voxels=((float(voxels),),)), path)
    return path


@pytest.fixture
def more_scans(lab):
    """The lab's five scans, and two more, enough to compare models on."""
    for number in (5, 6):
        shutil.copy(LAB / "phantom_000.dcm", LAB / f"phantom_{number:03d}.dcm")
    return lab


def content(folder="out"):
    return json.loads(Path(folder, "evaluation.json").read_text())


def client():
    return mlflow.MlflowClient(tracking_uri(Path()))


def champion():
    return client().get_model_version_by_alias("jaw_locator", "champion")


# --- what is written ----------------------------------------------------------------------


def test_the_numbers_of_a_model_whose_errors_are_known(jawloc, lab, known_errors):
    model_wrong_by(lab / "m.pth", 3)
    result = jawloc("evaluate", "m.pth", LAB, *OPTIONS, "--radius", 0.01, "--radius", 1000)
    assert result.exit_code == 0, result.output
    assert "jaw: mean radial error" in result.stdout
    said = content()
    assert said["scans"] == {"evaluated": 5, "failed": 0}
    assert said["radius_unit"] == "mm"
    jaw = said["objects"]["jaw"]
    for key in ("mean", "median", "percentile_95", "worst"):
        assert jaw["errors"]["full_size_voxels"][key] == pytest.approx(3, abs=1e-4)
        assert jaw["errors"]["downsampled_voxels"][key] == pytest.approx(1.5, abs=1e-4)
    assert [(r["radius"], r["share"]) for r in jaw["success"]] == [(0.01, 0.0), (1000.0, 1.0)]
    bias = jaw["bias"]["full_size_voxels"]
    assert [bias[axis]["mean"] for axis in "zyx"] == pytest.approx([3, 0, 0], abs=1e-4)
    spacing = open_labelled_dicom(LAB / "phantom_000.dcm").grid.spacing_mm_zyx
    row = next(r for r in said["rows"] if r["scan"] == "phantom_000")
    assert row["error_mm"] == pytest.approx(3 * spacing[0], rel=1e-4)
    assert jaw["coverage"] is None
    assert jaw["statuses"]["uncertain"]["scans"] == 5
    with Path("out/evaluation.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [r["scan"] for r in table] == [r["scan"] for r in said["rows"]]
    assert [int(r["rank"]) for r in table] == [1, 2, 3, 4, 5]
    errors = [float(r["error_mm"]) for r in table]
    assert errors == sorted(errors, reverse=True)


class Links(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self):
        super().__init__()
        self.found, self.tags = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.found += [value for key, value in attributes if key in ("src", "href")]


def test_the_report_is_one_file_that_needs_no_other(jawloc, lab):
    write_model(lab / "m.pth")
    assert jawloc("evaluate", "m.pth", LAB, *OPTIONS).exit_code == 0
    page = Path("out/evaluation.html").read_text()
    links = Links()
    links.feed(page)
    assert len(links.found) == 4  # three figures and the worst scan
    assert all(link.startswith("data:image/png;base64,") for link in links.found)
    assert not {"script", "link", "iframe"} & set(links.tags)
    assert "http" not in page and "url(" not in page
    ranked = [row["scan"] for row in content()["rows"]]
    table = page[page.index("Every scan, the worst first") :]
    places = [table.index(f">{scan}<") for scan in ranked]
    assert places == sorted(places)
    assert {p.name for p in Path("out").iterdir()} == {
        *("evaluation.json", "evaluation.csv", "evaluation.html"),
        *("success.png", "trust.png", "bias.png", f"worst_01_{ranked[0]}.png"),
    }


def test_names_are_escaped_in_the_report(jawloc, lab):
    write_model(lab / "m.pth")
    shutil.move(LAB / "phantom_000.dcm", LAB / "<b>&.dcm")
    assert jawloc("evaluate", "m.pth", LAB / "<b>&.dcm", *OPTIONS).exit_code == 0
    page = Path("out/evaluation.html").read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;&amp;" in page


def test_every_object_on_its_own_and_no_row_where_a_scan_lacks_it(jawloc, lab):
    from jawloc.locating.locator import save_locator

    two = load_locator(write_model(lab / "m.pth", ("upper", "lower")))
    save_locator(replace(two, objects={"upper": [1], "lower": [2]}), lab / "m.pth")
    erase_labels(LAB / "phantom_001.dcm", 2)
    assert jawloc("evaluate", "m.pth", LAB, *OPTIONS).exit_code == 0
    said = content()
    assert {name: s["scans"] for name, s in said["objects"].items()} == {"upper": 5, "lower": 4}
    lower = [r["scan"] for r in said["rows"] if r["object"] == "lower"]
    assert sorted(lower) == [scan for scan in SCAN_IDS if scan != "phantom_001"]
    assert Path("out/trust_lower.png").exists()
    assert jawloc("evaluate", "m.pth", LAB, *OPTIONS, "--object", "lower").exit_code == 1
    said = content()
    assert (list(said["objects"]), [f["scan"] for f in said["failed"]]) == (
        ["lower"],
        [SCAN_IDS[1]],
    )


def test_without_spacing_everything_is_in_voxels(jawloc, lab):
    write_model(lab / "m.pth")
    scan = open_labelled_dicom(LAB / "phantom_000.dcm")
    n = scan.grid.shape_zyx[0]
    write_lab_dicom(LAB / "bare.dcm", scan.read_image(0, n), scan.read_mask(0, n))
    assert jawloc("evaluate", "m.pth", LAB, *OPTIONS).exit_code == 0
    said = content()
    assert said["radius_unit"] == "full_size_voxels"
    assert "don't say how large a voxel is" in said["why_no_mm"]
    assert "mm" not in said["objects"]["jaw"]["errors"]
    by_name = {row["scan"]: row["error_mm"] for row in said["rows"]}
    assert by_name["bare"] is None
    assert by_name["phantom_001"] > 0


# --- failures --------------------------------------------------------------------------------


def test_scans_that_fail_are_named_and_the_others_evaluated(jawloc, lab):
    write_model(lab / "m.pth")
    image = np.zeros((48, 24, 24), np.uint16)
    write_lab_dicom(LAB / "unlabelled.dcm", image, None)
    write_lab_dicom(LAB / "empty.dcm", image, np.zeros_like(image))
    (LAB / "junk.dcm").write_bytes(b"junk")
    result = jawloc("evaluate", "m.pth", LAB, "gone.dcm", *OPTIONS)
    assert result.exit_code == 1
    said = content()
    assert said["scans"] == {"evaluated": 5, "failed": 4}
    reasons = {f["scan"]: f["reason"] for f in said["failed"]}
    assert set(reasons) == {"unlabelled", "empty", "junk", "gone"}
    page = Path("out/evaluation.html").read_text()
    assert all(f">{name}<" in page for name in reasons)
    assert "4 scans failed" in result.stdout


def test_a_report_even_if_every_scan_failed_and_nothing_is_promoted(jawloc, lab):
    write_model(lab / "m.pth")
    assert jawloc("evaluate", "m.pth", "gone.dcm", *OPTIONS, "--promote").exit_code == 1
    assert content()["scans"] == {"evaluated": 0, "failed": 1}
    assert client().search_model_versions("name = 'jaw_locator'") == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["m.pth"], "name at least one scan"),
        (["m.pth", "empty"], "empty: a folder of scans must hold at least one"),
        (["none", LAB], "none: no model of this name"),
        (["m.pth", LAB, "--radius", "0"], "--radius: must be above 0"),
        (["m.pth", LAB, "--crop-size", "x"], "--crop-size: one positive whole number"),
        (["m.pth", LAB, "--object", "tail"], "m.pth: --object must name what the model finds"),
        (["m.pth", LAB, "--output-dir", "m.pth"], "--output-dir: m.pth must be a folder"),
        (
            ["lab.pth", LAB, "--promote", "--network", "attention-unet"],
            "lab.pth: bare weights don't say which network and grid",
        ),
    ],
    ids=str,
)
def test_a_bad_command_is_refused(jawloc, lab, arguments, said):
    write_model(lab / "m.pth")
    torch.save({"weight": torch.zeros(1)}, "lab.pth")
    Path("empty").mkdir()
    assert only_sentence(jawloc("evaluate", *arguments)).startswith(said)


def test_the_folder_is_named_after_the_model():
    assert plain_name("models:/jaw_locator@champion") == "jaw_locator@champion"
    assert plain_name("runs:/abc/locator") == "abc_locator"
    assert plain_name("some/where/mine.pth") == plain_name("mine") == "mine"


# --- MLflow -----------------------------------------------------------------------------------


def test_a_bare_file_gets_a_run_once(jawloc, lab):
    write_model(lab / "m.pth")
    for _ in range(2):
        assert jawloc("evaluate", "m.pth", LAB, *OPTIONS).exit_code == 0
    experiment = client().get_experiment_by_name("jaw_location")
    (run,) = client().search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("m", "FINISHED")
    said = content()
    assert said["run_id"] == run.info.run_id
    mean = said["objects"]["jaw"]["errors"]["mm"]["mean"]
    assert run.data.metrics["evaluation_error_mm_mean"] == pytest.approx(mean)
    assert run.data.metrics["evaluation_scans"] == 5
    files = {f.path for f in client().list_artifacts(run.info.run_id, "evaluation")}
    assert files >= {f"evaluation/evaluation.{kind}" for kind in ("json", "csv", "html")}


def test_a_trained_model_is_logged_to_its_run_and_its_scans_are_named(
    jawloc, lab, no_epoch_pictures
):
    assert jawloc("train", "--model-name", "mine", "--set", "num_epochs=1").exit_code == 0
    result = jawloc("evaluate", "mine", LAB, "--pictures", 0, "--register")
    assert result.exit_code == 0, result.output
    folder = "script_output/evaluations/mine"
    said = content(folder)
    made = json.loads(Path("script_output/jaw_location/mine/summary.json").read_text())["run_id"]
    assert said["run_id"] == made
    assert said["crop_size_voxels_zyx"] == [20, 20, 20]
    assert {k: sorted(v) for k, v in said["seen_scans"].items()} == {
        "trained on": SCAN_IDS[:3],
        "weights chosen by": SCAN_IDS[3:4],
        "radius calibrated on": SCAN_IDS[4:],
    }
    assert "trained on" in Path(folder, "evaluation.html").read_text()
    assert said["objects"]["jaw"]["coverage"]["stated"] == 0.5  # of one scan
    run = client().get_run(made)
    assert run.info.status == "FINISHED"
    assert "evaluation_coverage" in run.data.metrics
    assert run.data.metrics["test_error_mm"] > 0  # what was there stays
    # the logged model is a version, once, by whatever name it is called
    uris = [f"runs:/{made}/locator", "models:/jaw_locator/1"]
    for model in ("mine", *uris):
        again = jawloc("evaluate", model, LAB, "--pictures", 0, "--register", "--output-dir", "o")
        assert again.exit_code == 0, again.output
        assert content("o")["run_id"] == made
        assert content("o")["registry"]["version"] == "1"
    (version,) = client().search_model_versions("name = 'jaw_locator'")
    assert version.run_id == made
    found = jawloc("locate", "models:/jaw_locator/1", LAB / "phantom_000.dcm", "--no-pictures")
    assert found.exit_code == 0, found.output


def test_a_champion_is_beaten_only_by_a_better_model(jawloc, more_scans, known_errors):
    def promote(voxels):
        model = model_wrong_by(more_scans / f"by_{voxels}.pth", voxels)
        result = jawloc("evaluate", model, LAB, *OPTIONS, "--promote")
        assert result.exit_code == 0, result.output
        return SimpleNamespace(**content()["registry"]), result.stdout

    first, said = promote(4)
    assert (first.version, first.promoted, first.champion_before) == ("1", True, None)
    assert "there was no champion" in said
    worse, said = promote(5)
    assert (worse.version, worse.promoted, worse.champion_before) == ("2", False, "1")
    assert worse.comparison["p_value"] == pytest.approx(1.0)
    assert "Wilcoxon signed-rank test" in said and "p = 1" in said
    assert str(champion().version) == "1"
    better, said = promote(2)
    assert (better.version, better.promoted, better.champion_before) == ("3", True, "1")
    assert better.comparison["p_value"] < 0.05
    assert better.comparison["scans"] == 7
    assert str(champion().version) == "3"
    tags = champion().tags
    assert "Wilcoxon" in tags["evaluation.test"]
    assert float(tags["evaluation.p_value"]) == pytest.approx(
        better.comparison["p_value"], rel=1e-4
    )
    assert "Wilcoxon" in Path("out/evaluation.html").read_text()
    again, said = promote(2)
    assert (again.version, again.promoted) == ("3", False)
    assert "it is the champion already" in said


def test_scans_that_either_learned_from_are_left_out_where_enough_others_are_left(
    jawloc, more_scans, known_errors, monkeypatch
):
    """With its own training scans in the comparison, whoever overfits most would win."""
    for number in (7, 8):
        shutil.copy(LAB / "phantom_000.dcm", LAB / f"phantom_{number:03d}.dcm")
    own = {"by_4": ("phantom_000",), "by_2": ("phantom_001", "phantom_002"), "by_1": SCAN_IDS}
    find = evaluate_model.find_model

    def known(root, model, weights):
        found = find(root, model, weights)
        return replace(found, splits={"train": own[found.name]})

    monkeypatch.setattr(evaluate_model, "find_model", known)
    said = {}
    for voxels in (4, 2, 1):
        model = model_wrong_by(more_scans / f"by_{voxels}.pth", voxels)
        result = jawloc("evaluate", model, LAB, *OPTIONS, "--promote")
        assert result.exit_code == 0, result.output
        said[voxels] = SimpleNamespace(**content()["registry"])
    assert "the model has used 1 trained on" in said[4].reason
    assert said[2].promoted and said[2].comparison["scans"] == 6
    assert "3 scans that one of the two had learned from were left out" in said[2].reason
    assert said[1].promoted and said[1].comparison["scans"] == 9
    assert "not a fair comparison: one of the two had learned from 5" in said[1].reason


def test_what_folds_were_tested_on_their_networks_were_trained_on(tmp_path):
    locator = load_locator(write_model(tmp_path / "m.pth"))
    calibration = SimpleNamespace(scan_ids=("a", "b"))
    one = replace(locator, calibration=calibration)
    known = SimpleNamespace(splits={"train": ("c",)})
    assert used_scans(one, known) == {"a": "calibration", "b": "calibration", "c": "train"}
    two = replace(one, networks=one.networks * 2, sigma_voxels=((1.0,), (1.0,)))
    assert set(used_scans(two, SimpleNamespace(splits={})).values()) == {"train"}


def test_few_scans_keep_the_champion(jawloc, lab, known_errors):
    for voxels, kept in ((4, True), (1, False)):
        model = model_wrong_by(lab / f"by_{voxels}.pth", voxels)
        result = jawloc("evaluate", model, LAB, *OPTIONS, "--promote")
        assert result.exit_code == 0, result.output
        assert content()["registry"]["promoted"] is kept
    assert re.search(r"on 5 scans .*at least 6 are needed", result.stdout)
    assert str(champion().version) == "1"
