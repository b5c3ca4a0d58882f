"""`jawloc evaluate`: labelled scans in; numbers, a report and a champion out."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pydicom
import pytest
import SimpleITK
import torch

import jawloc.inference.evaluate_scan as scan_module
from jawloc.geometry import Grid, map_points
from jawloc.inference.locator import Locator, load_locator
from jawloc.reporting.tracking import registry
from jawloc.reporting.tracking.store import tracking_uri
from jawloc.scans.dicom import open_labelled_dicom
from jawloc.scans.manifest import MANIFEST
from jawloc.scans.reading import read_scan
from jawloc.workflows.evaluate import folder_name
from tests.lab import (
    SCAN_IDS,
    SCAN_SHAPE,
    erase_labels,
    files_below,
    only_sentence,
    write_lab_dicom,
    write_model,
)
from tests.scans.test_placement import write_series

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
    monkeypatch.setattr(scan_module, "open_labelled", reading)


def model_wrong_by(path: Path, voxels: float, seed: int = 0) -> Path:
    """Write a locator that `known_errors` lets be wrong by so many voxels."""
    from jawloc.inference.locator import save_locator

    write_model(path, seed=seed)
    save_locator(replace(load_locator(path), sigma_voxels=((float(voxels),),)), path)
    return path


@pytest.fixture(scope="session")
def further_phantoms(tmp_path_factory):
    """Two phantoms that are none of the lab's."""
    from jawloc.phantom import write_phantoms

    folder = tmp_path_factory.mktemp("further")
    write_phantoms(folder, 7, SCAN_SHAPE, progress=False)
    return [folder / f"phantom_{number:03d}.dcm" for number in (5, 6)]


@pytest.fixture
def more_scans(lab, further_phantoms):
    """The lab's five scans, and two more, enough to compare models on."""
    for path in further_phantoms:
        shutil.copy(path, LAB)
    return lab


def content(folder="out"):
    return json.loads(Path(folder, "evaluation.json").read_text(encoding="utf-8"))


def client():
    return mlflow.MlflowClient(tracking_uri(Path()))


def champion():
    return client().get_model_version_by_alias("jaw_locator", "champion")


# --- images and labels in files of their own -----------------------------------------------


def write_pair(name: str, images: Path, labels: Path, *, ending: str = ".nrrd") -> None:
    """Write one of the lab's scans anew, its image and its mask in two volumes."""
    scan = read_scan(LAB / f"{name}.dcm")
    for folder, voxels, end in ((images, scan.image, ending), (labels, scan.mask, "_mask.nii")):
        folder.mkdir(exist_ok=True)
        volume = SimpleITK.GetImageFromArray(voxels)
        volume.SetSpacing(scan.grid.spacing_mm_zyx[::-1])
        SimpleITK.WriteImage(volume, folder / f"{name}{end}")


def test_images_and_labels_by_name_have_the_errors_of_their_labelled_dicoms(jawloc, lab):
    write_model(lab / "m.pth")
    names = ["phantom_001", "phantom_003"]
    for name in names:
        write_pair(name, Path("images"), Path("masks"))
    result = jawloc("evaluate", "m.pth", "images", "masks", *OPTIONS)
    assert result.exit_code == 0, result.output
    paired = {row["scan"]: row for row in content()["rows"]}
    assert set(paired) == set(names)
    files = [LAB / f"{name}.dcm" for name in names]
    assert jawloc("evaluate", "m.pth", *files, *OPTIONS).exit_code == 0
    for row in content()["rows"]:
        other = paired[row["scan"]]
        assert other["path"].endswith(f"images/{row['scan']}.nrrd")
        for key in ("true_z_voxels", "labelled_voxels_inside_crop", "share_inside_crop"):
            assert row[key] == other[key]
        assert row["error_mm"] == pytest.approx(other["error_mm"], rel=1e-6)


def test_two_files_are_a_pair_and_what_lacks_a_label_fails_alone(jawloc, lab):
    write_model(lab / "m.pth")
    for name in ("phantom_001", "phantom_003"):
        write_pair(name, Path("images"), Path("masks"))
    one = ("images/phantom_001.nrrd", "masks/phantom_001_mask.nii")
    assert jawloc("evaluate", "m.pth", *one, *OPTIONS).exit_code == 0
    assert content()["scans"] == {"evaluated": 1, "failed": 0}
    Path("masks/phantom_003_mask.nii").rename("masks/other.nii")
    result = jawloc("evaluate", "m.pth", "images", "masks", *OPTIONS)
    assert result.exit_code == 1
    assert "other.nii: there is no image for this label" in result.stderr
    assert "phantom_003.nrrd: one label must fit the image's name; none does" in result.stderr
    for name in ("phantom_003_mask.nii", "phantom_003_seg.nii"):
        shutil.copy("masks/other.nii", Path("masks", name))
    result = jawloc("evaluate", "m.pth", "images", "masks", *OPTIONS)
    assert "fit the image's name; phantom_003_mask.nii, phantom_003_seg.nii do" in result.stderr
    assert content()["scans"] == {"evaluated": 1, "failed": 1}


def test_a_mask_of_another_shape_fails_one_scan(jawloc, lab):
    write_model(lab / "m.pth")
    for name in ("phantom_001", "phantom_003"):
        write_pair(name, Path("images"), Path("masks"))
    image = SimpleITK.ReadImage("masks/phantom_001_mask.nii")
    SimpleITK.WriteImage(image[:, :, :-1], "masks/phantom_001_mask.nii")
    result = jawloc("evaluate", "m.pth", "images", "masks", *OPTIONS)
    assert result.exit_code == 1
    assert "a label must have its image's shape (z, y, x), (48, 24, 24)" in result.stderr


def test_a_mask_in_another_orientation_or_spacing_is_warned_of(jawloc, lab):
    """Regression: only `jawloc dicoms` said so; such a mask gives wrong errors in silence."""
    write_model(lab / "m.pth")
    write_pair("phantom_001", Path("images"), Path("masks"))
    image = SimpleITK.ReadImage("masks/phantom_001_mask.nii")
    image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
    image.SetSpacing([2 * mm for mm in image.GetSpacing()])
    SimpleITK.WriteImage(image, "masks/phantom_001_mask.nii")
    said = jawloc("evaluate", "m.pth", "images", "masks", *OPTIONS).stderr
    for what in ("another orientation than", "another spacing, "):
        assert f"phantom_001_mask.nii has {what}" in said


def test_a_series_is_not_named_for_labelled_dicoms(jawloc, lab):
    write_model(lab / "m.pth")
    said = only_sentence(jawloc("evaluate", "m.pth", LAB, *OPTIONS, "--series", "1.2"))
    assert said.startswith("--series: ")


def test_points_in_place_of_labels_are_refused_with_what_to_do(jawloc, lab):
    """Regression: the message was about a file that is no labelled DICOM."""
    write_model(lab / "m.pth")
    write_pair("phantom_001", Path("images"), Path("masks"))
    Path("points.csv").write_text("scan,z,y,x\nphantom_001,3,4,5\n")
    said = only_sentence(jawloc("evaluate", "m.pth", "images", "points.csv", *OPTIONS))
    assert said == (
        "points.csv: points must be brought together with their images first: jawloc dicoms images "
        "points.csv OUT, then jawloc evaluate MODEL OUT"
    )


def test_folders_of_which_no_names_fit_are_refused(jawloc, lab):
    write_model(lab / "m.pth")
    write_pair("phantom_001", Path("images"), Path("masks"))
    Path("masks/phantom_001_mask.nii").rename("masks/other.nii")
    said = only_sentence(jawloc("evaluate", "m.pth", "images", "masks", *OPTIONS))
    assert said.startswith("masks: a label must be named like its image")


def test_a_named_series_is_evaluated_and_drawn(jawloc, lab):
    write_model(lab / "m.pth")
    write_pair("phantom_001", Path("images"), Path("masks"))
    folder = Path("images/phantom_001")
    folder.mkdir()
    for number in (1, 3):
        series = Path(f"series_{number}")
        image = SimpleITK.GetImageFromArray(read_scan(LAB / f"phantom_00{number}.dcm").image)
        write_series(series, image)
        for path in series.iterdir():
            ds = pydicom.dcmread(path)
            ds.SeriesInstanceUID = f"1.2.{number}"
            ds.save_as(folder / f"{number}_{path.name}")
    Path("images/phantom_001.nrrd").unlink()
    result = jawloc("evaluate", "m.pth", "images", "masks", *OPTIONS, "--series", "1.2.1")
    assert result.exit_code == 0, result.output
    assert list(Path("out").glob("worst_01_phantom_001*.png"))


# --- what is written ----------------------------------------------------------------------


def test_the_numbers_of_a_model_whose_errors_are_known(jawloc, lab, known_errors):
    model_wrong_by(lab / "m.pth", 3)
    result = jawloc("evaluate", "m.pth", LAB, *OPTIONS, "--radius", 0.01, "--radius", 1000)
    assert result.exit_code == 0, result.output
    said = content()
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("  jaw  ")]
    assert line.split()[1:3] == ["5", f"{said['objects']['jaw']['errors']['mm']['mean']:.3f}"]
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
    page = Path("out/evaluation.html").read_text(encoding="utf-8")
    links = Links()
    links.feed(page)
    assert len(links.found) == 4  # three figures and the worst scan
    assert all(link.startswith("data:image/png;base64,") for link in links.found)
    assert not {"script", "link", "iframe"} & set(links.tags)
    assert "http:" not in page and "https:" not in page and "url(" not in page
    ranked = [row["scan"] for row in content()["rows"]]
    table = page[page.index("Every scan, the worst first") :]
    places = [table.index(f">{scan}<") for scan in ranked]
    assert places == sorted(places)
    assert {p.name for p in Path("out").iterdir()} == {
        MANIFEST,
        *("evaluation.json", "evaluation.csv", "evaluation.html"),
        *("success.png", "trust.png", "bias.png", f"worst_01_{ranked[0]}.png"),
    }


def test_names_are_escaped_in_the_report(jawloc, lab):
    write_model(lab / "m.pth")
    shutil.move(LAB / "phantom_000.dcm", LAB / "<b>&.dcm")
    assert jawloc("evaluate", "m.pth", LAB / "<b>&.dcm", *OPTIONS).exit_code == 0
    page = Path("out/evaluation.html").read_text(encoding="utf-8")
    assert "<b>" not in page
    assert "&lt;b&gt;&amp;" in page


@pytest.mark.slow
def test_every_object_on_its_own_and_no_row_where_a_scan_lacks_it(jawloc, lab):
    from jawloc.inference.locator import save_locator

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
    Path("gone.dcm").symlink_to("nowhere")
    result = jawloc("evaluate", "m.pth", LAB, "gone.dcm", *OPTIONS)
    assert result.exit_code == 1
    said = content()
    assert said["scans"] == {"evaluated": 5, "failed": 4}
    reasons = {f["scan"]: f["reason"] for f in said["failed"]}
    assert set(reasons) == {"unlabelled", "empty", "junk", "gone"}
    page = Path("out/evaluation.html").read_text(encoding="utf-8")
    assert all(f">{name}<" in page for name in reasons)
    assert "4 scans failed, so the exit code is 1:" in result.stdout
    for failure in said["failed"]:  # why, not only how many
        assert " ".join(failure["reason"].split()) in result.stdout


def numbers_in_the_store():
    experiments = [one.experiment_id for one in client().search_experiments()]
    return {run.info.run_id: run.data.metrics for run in client().search_runs(experiments)}


def test_where_nothing_can_be_evaluated_the_earlier_evaluation_stays(jawloc, lab):
    """Regression: its report and pictures were gone, and its numbers in MLflow became NaN."""
    write_model(lab / "m.pth")
    assert jawloc("evaluate", "m.pth", LAB, *OPTIONS).exit_code == 0
    before, logged = files_below(Path("out")), numbers_in_the_store()
    assert any("evaluation" in name for numbers in logged.values() for name in numbers)
    Path("bad").mkdir()
    Path("bad/junk.dcm").write_bytes(b"junk")
    said = "a file or folder of scans must exist; No such file or directory"
    assert only_sentence(jawloc("evaluate", "m.pth", "gone", *OPTIONS)) == f"gone: {said}"
    missing = jawloc("evaluate", "m.pth", LAB, *"abcde", *OPTIONS)
    assert only_sentence(missing) == f"a, b, c and 2 more: {said}"
    result = jawloc("evaluate", "m.pth", "bad", *OPTIONS, "--promote")
    assert result.exit_code == 2
    failed, error = result.stderr.splitlines()
    assert failed.startswith("failed: junk.dcm: ")
    assert error == (
        "Error: m.pth: an evaluation needs at least one scan that can be evaluated; none of the "
        "scans (1) can, and an earlier evaluation stays"
    )
    assert (files_below(Path("out")), numbers_in_the_store()) == (before, logged)
    assert client().search_model_versions("name = 'jaw_locator'") == []
    new = ("--output-dir", "new/folder")
    assert jawloc("evaluate", "m.pth", "bad", *new).exit_code == 2
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["m.pth"], "name at least one scan"),
        (["m.pth", "empty"], "empty: a folder of scans must hold at least one"),
        (["none", LAB], "none: no model of this name"),
        (["m.pth", LAB, "--radius", "0"], "--radius: must be above 0"),
        (["m.pth", LAB, "--crop-size", "x"], "--crop-size: one positive whole number"),
        (["m.pth", LAB, "--crop-size", "100000"], "--crop-size: a crop must fit into this mach"),
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
    assert folder_name("models:/jaw_locator@champion") == "jaw_locator@champion"
    assert folder_name("runs:/abc/locator") == "abc_locator"
    assert folder_name("some/where/mine.pth") == folder_name("mine") == "mine"
    for leading_out in ("models:/..", "..", "x/..", "...pth"):
        assert folder_name(leading_out) == "model"


# --- whose files they are ---------------------------------------------------------------------

USERS = ("bias_notes.png", "worst_case.png", "trust.txt", "success_story.png", "worst_01_my.png")


@pytest.mark.slow
def test_a_users_own_pictures_survive_evaluations_and_earlier_ones_of_jawloc_go(jawloc, lab):
    """Regression: bias*.png, worst_*.png, trust*.png and success*.png were all deleted."""
    write_model(lab / "m.pth")
    Path("out").mkdir()
    for name in USERS:
        Path("out", name).write_text("mine")
    made = []
    for scan in SCAN_IDS[:2]:
        result = jawloc("evaluate", "m.pth", LAB / f"{scan}.dcm", *OPTIONS)
        assert result.exit_code == 0, result.output
        made.append({path.name for path in Path("out").iterdir()} - {*USERS, MANIFEST})
        assert [Path("out", name).read_text(encoding="utf-8") for name in USERS] == ["mine"] * len(
            USERS
        )
    usual = {f"evaluation.{kind}" for kind in ("json", "csv", "html")}
    usual |= {"success.png", "trust.png", "bias.png"}
    assert made == [{*usual, f"worst_01_{scan}.png"} for scan in SCAN_IDS[:2]]
    (run,) = client().search_runs([client().get_experiment_by_name("jaw_location").experiment_id])
    logged = {file.path for file in client().list_artifacts(run.info.run_id, "evaluation")}
    assert logged  # else the next line says nothing
    assert not logged & {f"evaluation/{name}" for name in USERS}


@pytest.mark.slow
def test_the_pictures_of_an_evaluation_by_0_1_0_go_and_others_stay(jawloc, lab):
    write_model(lab / "m.pth")
    assert jawloc("evaluate", "m.pth", LAB / f"{SCAN_IDS[0]}.dcm", *OPTIONS).exit_code == 0
    Path("out", MANIFEST).unlink()  # which 0.1.0 didn't write
    for name in USERS:
        Path("out", name).write_text("mine")
    assert jawloc("evaluate", "m.pth", LAB / f"{SCAN_IDS[1]}.dcm", *OPTIONS).exit_code == 0
    left = {path.name for path in Path("out").glob("*.png")}
    pictures = {"success.png", "trust.png", "bias.png", f"worst_01_{SCAN_IDS[1]}.png"}
    assert left == {name for name in USERS if name.endswith(".png")} | pictures


@pytest.mark.parametrize("name", ["bias.png", "evaluation.json", f"worst_03_{SCAN_IDS[4]}.png"])
def test_a_users_file_that_would_be_overwritten_is_refused_before_slow_work(
    jawloc, lab, monkeypatch, name
):
    def too_late(*_, **__):
        raise AssertionError("slow work began")

    monkeypatch.setattr("jawloc.workflows.evaluate_scans.evaluate_scan", too_late)
    write_model(lab / "m.pth")
    Path("out").mkdir()
    Path("out", name).write_text("mine")
    before = files_below(lab)
    assert only_sentence(jawloc("evaluate", "m.pth", LAB, *OPTIONS)) == (
        f"--output-dir: out holds {name}, which jawloc didn't write and would overwrite; "
        "move it away first"
    )
    assert files_below(lab) == before


@pytest.mark.slow
def test_the_names_to_be_written_carry_the_object_where_there_are_several(jawloc, lab):
    write_model(lab / "m.pth", ("upper", "lower"))
    Path("out").mkdir()
    Path("out", "trust.png").write_text("mine")  # of one object, this would be jawloc's
    Path("out", "trust_lower.png").write_text("mine")
    assert "out holds trust_lower.png" in only_sentence(jawloc("evaluate", "m.pth", LAB, *OPTIONS))
    Path("out", "trust_lower.png").unlink()
    # these phantoms have labels of both objects, any value of which counts here
    assert jawloc("evaluate", "m.pth", LAB, *OPTIONS).exit_code == 0
    assert Path("out", "trust.png").read_text(encoding="utf-8") == "mine"
    assert Path("out", "trust_lower.png").is_file()


def test_two_evaluations_into_one_folder_at_once_are_refused(jawloc, lab):
    from tests.reporting.folders.test_folder_lock import another_process

    write_model(lab / "m.pth")
    with another_process(Path("out").resolve() / ".jawloc") as other:
        said = only_sentence(jawloc("evaluate", "m.pth", LAB, *OPTIONS))
        assert said.startswith(f"--output-dir: out is in use by process {other.pid} on ")
    assert jawloc("evaluate", "m.pth", LAB, *OPTIONS).exit_code == 0


# --- MLflow -----------------------------------------------------------------------------------


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_trained_model_is_logged_to_its_run_and_its_scans_are_named(
    jawloc, lab, no_epoch_pictures
):
    assert jawloc("train", "--model-name", "mine", "--set", "num_epochs=1").exit_code == 0
    result = jawloc("evaluate", "mine", LAB, "--pictures", 0, "--register")
    assert result.exit_code == 0, result.output
    folder = "script_output/evaluations/mine"
    said = content(folder)
    made = json.loads(
        Path("script_output/jaw_location/mine/summary.json").read_text(encoding="utf-8")
    )["run_id"]
    assert said["run_id"] == made
    assert said["crop_size_voxels_zyx"] == [20, 20, 20]
    assert {k: sorted(v) for k, v in said["seen_scans"].items()} == {
        "trained on": SCAN_IDS[:3],
        "validated on": SCAN_IDS[3:4],
        "radius calibrated on": SCAN_IDS[4:],
    }
    assert "trained on" in Path(folder, "evaluation.html").read_text(encoding="utf-8")
    assert said["objects"]["jaw"]["coverage"] is None  # one test scan supports no radius
    assert "give more test scans" in said["rows"][0]["radius_note"]
    run = client().get_run(made)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["evaluation_fair_scans"] == 1
    assert run.data.metrics["test/error_mm"] > 0  # what was there stays
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


@pytest.mark.slow
def test_a_champion_is_beaten_only_by_a_better_model(jawloc, more_scans, known_errors):
    def attempt(voxels):
        model = model_wrong_by(more_scans / f"by_{voxels}.pth", voxels)
        result = jawloc("evaluate", model, LAB, *OPTIONS, "--promote")
        assert result.exit_code == 0, result.output
        return SimpleNamespace(**content()["registry"]), result.stdout

    first, said = attempt(4)
    assert (first.version, first.promoted, first.champion_before) == ("1", True, None)
    assert "there was no champion" in said
    worse, said = attempt(5)
    assert (worse.version, worse.promoted, worse.champion_before) == ("2", False, "1")
    assert worse.comparison["p_value"] == pytest.approx(1.0)
    assert "Wilcoxon signed-rank test" in said and "p = 1" in said
    assert str(champion().version) == "1"
    better, said = attempt(2)
    assert (better.version, better.promoted, better.champion_before) == ("3", True, "1")
    assert better.comparison["p_value"] < 0.05
    assert better.comparison["scans"] == 7
    assert str(champion().version) == "3"
    tags = champion().tags
    assert "Wilcoxon" in tags["evaluation.test"]
    assert float(tags["evaluation.p_value"]) == pytest.approx(
        better.comparison["p_value"], rel=1e-4
    )
    assert "Wilcoxon" in Path("out/evaluation.html").read_text(encoding="utf-8")
    again, said = attempt(2)
    assert (again.version, again.promoted) == ("3", False)
    assert "it is the champion already" in said


def test_a_champion_that_another_command_made_meanwhile_stays(
    jawloc, lab, known_errors, monkeypatch
):
    """Regression: the later of two took its place without a comparison."""
    register = registry.register
    other = write_model(lab / "other.pth", seed=9)

    def register_slowly(base, known):
        version = register(base, known)
        found = registry.log_evaluation(base, registry.find_model(base, "o", other, None), {}, [])
        registry.make_champion(base, register(base, found))
        return version

    monkeypatch.setattr(registry, "register", register_slowly)
    said = promote(jawloc, model_wrong_by(lab / "by_4.pth", 4))
    assert (said.version, said.promoted, said.champion_before) == ("1", False, "2")
    assert "the champion, version 2, stays: it became that during this evaluation" in said.reason
    assert str(champion().version) == "2"
    tags = client().get_model_version("jaw_locator", "1").tags
    assert tags["evaluation.promoted"] == "false"


def learned_from(path: Path, *scan_ids: str) -> Path:
    """Let a model's record say that it was trained on these scans, as they are now."""
    from jawloc.inference.locator import save_locator
    from jawloc.scans.downsample import downsample
    from jawloc.training.provenance import NetworkRecord, identify

    locator, scans = load_locator(path), {}
    for scan_id in scan_ids:
        small = downsample(open_labelled_dicom(LAB / f"{scan_id}.dcm"), locator.downsampled_size)
        scans[scan_id] = identify(scan_id, small.content_hash, small.image)
    network = NetworkRecord({"train": scan_ids}, (1.0,))
    record = replace(locator.provenance, scans=scans, networks=(network,))
    save_locator(replace(locator, provenance=record), path)
    return path


def promote(jawloc, model, *scans):
    """Try to make a model the champion; return what became of it."""
    result = jawloc("evaluate", model, *(scans or (LAB,)), *OPTIONS, "--promote")
    assert result.exit_code == 0, result.output
    return SimpleNamespace(**content()["registry"])


@pytest.mark.slow
def test_scans_that_either_learned_from_are_left_out(jawloc, more_scans, known_errors):
    """With its own training scans in the comparison, whoever overfits most would win."""
    first = learned_from(model_wrong_by(more_scans / "by_4.pth", 4), "phantom_000")
    assert "(trained on: 1)" in promote(jawloc, first).reason
    second = learned_from(model_wrong_by(more_scans / "by_2.pth", 2), "phantom_001")
    said = promote(jawloc, second)
    assert not said.promoted
    assert "only 5 scans of 5 specimens; give scans of at least 1 more specimen" in said.reason
    third = learned_from(model_wrong_by(more_scans / "by_1.pth", 1), "phantom_000")
    said = promote(jawloc, third)
    assert said.promoted and said.comparison["scans"] == said.comparison["specimens"] == 6
    assert "left out: 1 scan that one of the two had learned from" in said.reason


def test_a_model_that_knows_the_scans_by_heart_is_not_promoted(jawloc, more_scans, known_errors):
    promote(jawloc, model_wrong_by(more_scans / "by_4.pth", 4))
    ids = [f"phantom_{n:03d}" for n in range(5)]
    said = promote(jawloc, learned_from(model_wrong_by(more_scans / "by_0.pth", 0.5), *ids))
    assert (said.promoted, said.comparison) == (False, None)
    assert "only 2 scans of 2 specimens; give scans of at least 4 more specimens" in said.reason
    assert str(champion().version) == "1"


@pytest.mark.slow
def test_a_model_of_unknown_provenance_is_marked_and_not_promoted(jawloc, more_scans, known_errors):
    from jawloc.inference.locator import save_locator

    old = model_wrong_by(more_scans / "old.pth", 4)
    save_locator(replace(load_locator(old), provenance=None), old)
    assert "unknown provenance" in promote(jawloc, old).reason  # there is nothing to be fair to
    assert content()["provenance"] == "unknown"
    # an old champion can be replaced: what it knows was to its advantage
    said = promote(jawloc, model_wrong_by(more_scans / "by_2.pth", 2))
    assert said.promoted and "learned from is unknown" in said.reason
    newer = model_wrong_by(more_scans / "newer.pth", 1)
    save_locator(replace(load_locator(newer), provenance=None), newer)
    said = promote(jawloc, newer)
    assert not said.promoted and "which scans the new model learned from is unknown" in said.reason


def test_a_renamed_copy_is_the_same_scan_and_another_scan_of_the_name_is_new(jawloc, more_scans):
    model = learned_from(write_model(more_scans / "m.pth"), "phantom_000", "phantom_001")
    shutil.copy(LAB / "phantom_000.dcm", LAB / "copy.dcm")
    (LAB / "phantom_001.dcm").replace(LAB / "moved.dcm")
    shutil.copy(LAB / "phantom_002.dcm", LAB / "phantom_001.dcm")
    # the same image with another mask and without spacing
    scan = open_labelled_dicom(LAB / "phantom_000.dcm")
    n = scan.grid.shape_zyx[0]
    mask = np.roll(scan.read_mask(0, n), 1, axis=0)
    write_lab_dicom(LAB / "relabelled.dcm", scan.read_image(0, n), mask)
    result = jawloc("evaluate", model, LAB, *OPTIONS)
    assert result.exit_code == 0, result.output
    seen = {row["scan"]: row["model_has_seen"] for row in content()["rows"]}
    known = ("copy", "moved", "phantom_000", "relabelled")
    assert [name for name, what in sorted(seen.items()) if what == "trained on"] == list(known)
    assert seen["phantom_001"] is None
    assert "other scans of the same name as phantom_001" in result.stdout
    # a copy is no second specimen: there are seven images
    assert content()["objects"]["jaw"]["scans"] == len(seen) == 10
    assert content()["objects"]["jaw"]["specimens"] == 7


def test_another_scan_of_a_specimen_that_it_learned_from_is_not_fair(jawloc, more_scans):
    shutil.move(LAB / "phantom_000.dcm", LAB / "fish1_left.dcm")
    shutil.move(LAB / "phantom_001.dcm", LAB / "fish1_right.dcm")
    model = learned_from(write_model(more_scans / "m.pth"), "fish1_left")
    assert jawloc("evaluate", model, LAB, *OPTIONS).exit_code == 0
    rows = {row["scan"]: row for row in content()["rows"]}
    assert rows["fish1_right"]["model_has_seen"] == "of a specimen learned from"
    assert (rows["fish1_right"]["fair"], rows["phantom_002"]["fair"]) == (False, True)
    assert content()["fair_scans"] == 5


@pytest.mark.slow
def test_a_fold_knows_what_it_was_trained_on(jawloc, lab, no_pictures):
    """Its summary has another name than its file, and the run of all folds is not its own."""
    words = ("train", "--model-name", "m", "--folds", 2, "--set", "num_epochs=1")
    assert jawloc(*words).exit_code == 0
    folder = Path("script_output/jaw_location/m")
    own = json.loads((folder / "fold_1" / "summary.json").read_text(encoding="utf-8"))
    shutil.copy(folder / "fold_1" / "fold_1.pth", lab / "elsewhere.pth")
    for model in (folder / "fold_1" / "fold_1.pth", "elsewhere.pth"):
        result = jawloc("evaluate", model, LAB, *OPTIONS)
        assert result.exit_code == 0, result.output
        seen = {k: sorted(v) for k, v in content()["seen_scans"].items()}
        assert seen == {
            "trained on": own["scans"]["train"],
            "validated on": own["scans"]["validation"],
            "radius calibrated on": own["scans"]["test"],
        }
        assert content()["run_id"] == own["run_id"]
        assert "its errors there are optimistic" in result.stdout
    # of two folds' networks, each was trained on or chosen by every scan that the other tested
    assert jawloc("evaluate", "m", LAB, *OPTIONS).exit_code == 0
    both = json.loads((folder / "fold_2" / "summary.json").read_text(encoding="utf-8"))["scans"]
    trained = sorted({*own["scans"]["train"], *both["train"]})
    chosen_by = sorted({*own["scans"]["validation"], *both["validation"]} - {*trained})
    assert {k: sorted(v) for k, v in content()["seen_scans"].items()} == {
        "trained on": trained,
        "validated on": chosen_by,
    }
    assert sorted([*trained, *chosen_by]) == SCAN_IDS
    assert content()["fair_scans"] == 0


@pytest.mark.slow
def test_few_scans_keep_the_champion(jawloc, lab, known_errors):
    for voxels, kept in ((4, True), (1, False)):
        said = promote(jawloc, model_wrong_by(lab / f"by_{voxels}.pth", voxels))
        assert said.promoted is kept
    assert "only 5 scans of 5 specimens; give scans of at least 1 more specimen" in said.reason
    assert str(champion().version) == "1"
