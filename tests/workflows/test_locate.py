"""`jawloc locate`: scans in; tables, crops and pictures out, whatever happens on the way."""

from __future__ import annotations

import base64
import csv
import gc
import json
import os
import pickle
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pydicom
import pytest
import SimpleITK
import tifffile
import torch
from PIL import Image

import jawloc.workflows.locate as driver
import jawloc.workflows.locate_scan as one_scan
from jawloc.errors import DiskFullError, InputError
from jawloc.inference.calibrate import (
    HeldOutPosition,
    learn_position_reference,
    learn_scan_reference,
)
from jawloc.inference.crop_files import CROP_ENDINGS
from jawloc.inference.exports import COLUMNS
from jawloc.inference.locator import load_locator, save_locator
from jawloc.inference.out_of_distribution import image_features
from jawloc.inference.quality import Calibration
from jawloc.phantom import make_phantom, write_phantom
from jawloc.reporting.folders.run_folder import locked_output_folder
from jawloc.scans.listing import list_scans
from jawloc.scans.manifest import MANIFEST
from jawloc.scans.reading import open_scan, read_scan
from jawloc.scans.scan import scan_id_of
from tests.lab import SCAN_SHAPE, files_below, only_sentence, write_lab_dicom, write_model
from tests.scans.test_placement import write_series

CROP = (20, 10, 12)
PLAIN = ("--no-pictures", "--crop-size", "20,10,12")
RESUME = ("--resume", *PLAIN)


# by a model without calibration
DOUBTFUL = "2 scans located (2 not to be trusted: see status and reason)"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a model, three scans (one with a place in patient space), and no config."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "m.pth")
    for name, seed in (("a", 0), ("b", 1)):
        (tmp_path / name).mkdir()
        write_phantom(tmp_path / name / "fish.dcm", seed, SCAN_SHAPE)
    image = SimpleITK.GetImageFromArray(make_phantom(2, SCAN_SHAPE).image)
    image.SetSpacing((0.5, 0.25, 2.0))
    image.SetOrigin((-12.5, 30.0, 7.75))
    image.SetDirection((0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, tmp_path / "c.nii.gz")
    return tmp_path


@pytest.fixture
def locate(jawloc, here):
    """Return a function that runs `jawloc locate` with small crops into `out`."""

    def run(*scans, model="m.pth", options=PLAIN):
        return jawloc("locate", model, *scans, "--output-dir", "out", *options)

    return run


def table(folder: Path = Path("out")) -> list[dict[str, str]]:
    with (folder / "locations.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def numbers(row, *columns) -> list[float]:
    return [float(row[column]) for column in columns]


def point(row) -> list[float]:
    return numbers(row, "z_voxels", "y_voxels", "x_voxels")


def test_a_model_of_few_held_out_scans_is_said_to_find_little_unusual(locate, jawloc, here):
    locator = load_locator(here / "m.pth")
    scans = [open_scan(here / name / "fish.dcm") for name in "ab"]
    images = [locator.downsample(scan) for scan in scans]
    features = [(image_features(i), s.grid) for i, s in zip(images, scans, strict=True)]
    predicted = [locator.predict(image).ood_scores[0] for image in images]
    held_out = [HeldOutPosition(str(n), 1.0, 2.0, own) for n, own in enumerate(predicted)]
    reference = {"jaw": learn_position_reference(held_out)}
    known = Calibration(learn_scan_reference(features), reference)
    save_locator(replace(locator, calibration=known), here / "few.pth")
    note = "`ok` says little about the positions"
    assert f"note: few.pth: jaw: {note}" in locate("a", model="few.pth").stderr
    assert note not in locate("a", options=("--overwrite", *PLAIN)).stderr  # it knows nothing
    assert f"status of the jaw  {note}" in jawloc("info", "few.pth").stdout


# --- what is written -------------------------------------------------------------------


def test_positions_are_the_locators_in_every_table(locate, here):
    result = locate("a/fish.dcm", "c.nii.gz")
    assert result.exit_code == 0, result.output
    heading, *found, last = result.stdout.splitlines()
    assert heading.split() == ["scan", "z", "y", "x", "spread", "status"]
    assert [line.split()[0] for line in found] == ["fish", "c"]
    assert last == f"{DOUBTFUL}: out/locations.csv"
    fish, c = table()
    assert list(fish) == list(COLUMNS)
    locator = load_locator(here / "m.pth")
    for row, path in ((fish, "a/fish.dcm"), (c, "c.nii.gz")):
        (found,) = locator.locate(here / path)
        assert point(row) == pytest.approx(found.point_voxels, abs=1e-6)
        assert numbers(row, "z_mm", "y_mm", "x_mm") == pytest.approx(found.point_mm, abs=1e-6)
        assert numbers(row, "spread_voxels") == pytest.approx([found.spread_voxels], abs=1e-6)
        assert (row["object"], row["status"], row["path"]) == ("jaw", "uncertain", str(here / path))
        assert float(row["seconds"]) > 0
    as_json = json.loads(Path("out/locations.json").read_text(encoding="utf-8"))
    assert [row["scan"] for row in as_json] == ["fish", "c"]
    assert [row["z_voxels"] for row in as_json] == [point(fish)[0], point(c)[0]]
    assert as_json[0]["radius_mm"] is None
    with Path("out/napari_points.csv").open() as file:
        points = list(csv.DictReader(file))
    assert [[float(p[f"axis-{n}"]) for n in range(3)] for p in points] == [point(fish), point(c)]


def test_the_place_in_patient_space_is_simpleitks(locate, here):
    assert locate("c.nii.gz").exit_code == 0
    (row,) = table()
    image = SimpleITK.ReadImage(here / "c.nii.gz")
    expected = image.TransformContinuousIndexToPhysicalPoint(point(row)[::-1])
    assert numbers(row, "x_lps_mm", "y_lps_mm", "z_lps_mm") == pytest.approx(expected, abs=1e-5)
    markups = json.loads(Path("out/markups/c.mrk.json").read_text(encoding="utf-8"))["markups"][0]
    assert markups["controlPoints"][0]["position"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("crop_format", CROP_ENDINGS)
def test_a_point_in_a_crop_maps_back_to_the_full_size_voxel(locate, here, crop_format):
    """By the table's crop origin for every format, and by the file's own place where it has one."""
    options = (*PLAIN, "--crop-format", crop_format)
    assert locate("c.nii.gz", "a/fish.dcm", options=options).exit_code == 0
    for row in table():
        full = read_scan(Path(row["path"])).image
        path = Path("out") / row["crop_file"]
        assert path.name == row["scan"] + CROP_ENDINGS[crop_format]
        crop = read_scan(path).image
        start = np.array(numbers(row, "crop_z", "crop_y", "crop_x"), int)
        assert crop.shape == CROP
        z, y, x = (slice(s, s + n) for s, n in zip(start, CROP, strict=True))
        np.testing.assert_array_equal(crop, full[z, y, x])
        assert row["crop_fit"] in ("centred", "shifted")
        assert ((start <= point(row)) & (point(row) <= start + CROP)).all()
    if crop_format in ("nrrd", "nii.gz"):
        whole = SimpleITK.ReadImage(here / "c.nii.gz")
        cut = SimpleITK.ReadImage(f"out/imgs/c.{crop_format}")
        index = cut.TransformPhysicalPointToContinuousIndex(
            whole.TransformIndexToPhysicalPoint((11, 9, 30))
        )
        origin = numbers(table()[0], "crop_x", "crop_y", "crop_z")
        assert np.add(index, origin) == pytest.approx((11, 9, 30), abs=1e-4)


def test_a_crop_larger_than_the_scan_is_padded_and_the_table_says_so(locate):
    options = ("--no-pictures", "--crop-size", "20,40,12")
    assert locate("c.nii.gz", options=options).exit_code == 0
    (row,) = table()
    assert row["crop_fit"] == "padded"
    start = np.array(numbers(row, "crop_z", "crop_y", "crop_x"), int)
    assert start[1] < 0
    crop, full = tifffile.imread("out/imgs/c.tif"), read_scan(Path("c.nii.gz")).image
    assert crop.shape == (20, 40, 12)
    voxel = np.array([5, 20, 6])
    assert crop[tuple(voxel)] == full[tuple(voxel + start)]


def test_every_object_has_a_row_and_files_of_its_own(locate, here):
    write_model(here / "two.pth", ("upper jaw", "otolith"))
    assert locate("c.nii.gz", model="two.pth").exit_code == 0
    assert [row["object"] for row in table()] == ["upper jaw", "otolith"]
    assert [row["crop_file"] for row in table()] == ["imgs/c_upper jaw.tif", "imgs/c_otolith.tif"]
    markups = json.loads(Path("out/markups/c.mrk.json").read_text(encoding="utf-8"))["markups"][0]
    assert [p["label"] for p in markups["controlPoints"]] == ["upper jaw", "otolith"]


def write_with_units(path: Path, after: str, field: str) -> None:
    """Write a phantom of 21 micrometres, in these, with a field that says so after another one."""
    image = SimpleITK.GetImageFromArray(make_phantom(4, SCAN_SHAPE).image)
    image.SetSpacing((21.0, 21.0, 21.0))
    image.SetOrigin((100.0, 200.0, 300.0))
    SimpleITK.WriteImage(image, path)
    header, line, voxels = path.read_bytes().partition(f"{after}\n".encode())
    path.write_bytes(header + line + f"{field}\n".encode() + voxels)


@pytest.mark.parametrize(
    "name", ["c.nii.gz", "own.dcm", "mm.mha", "plain.tif", "microns.nrrd", "microns.mha"]
)
def test_a_scene_opens_scan_point_and_crop_box_together(locate, here, name):
    """ITK, with which 3D Slicer reads volumes, has the point and the box at the table's voxels.

    Regression: it ignores the unit of a NRRD or MetaImage, so the point lay beside the scan.
    """
    write_phantom(here / "own.dcm", 3, SCAN_SHAPE)
    write_with_units(here / "mm.mha", "NDims = 3", "DistanceUnits = mm")
    write_with_units(here / "microns.mha", "NDims = 3", "DistanceUnits = um")
    units = 'space units: "um" "um" "um"'
    write_with_units(here / "microns.nrrd", "space: left-posterior-superior", units)
    tifffile.imwrite(here / "plain.tif", read_scan(here / "c.nii.gz").image)
    write_model(here / "two.pth", ("upper jaw", "otolith"))
    options = (*PLAIN, "--crop-format", "nrrd")
    assert locate(name, model="two.pth", options=options).exit_code == 0
    scan = scan_id_of(Path(name))
    scene = ElementTree.parse(f"out/scenes/{scan}.mrml").getroot()
    files = {
        node.get("id"): Path("out", "scenes", unquote(node.get("fileName")))
        for node in scene
        if node.tag.endswith("Storage")
    }
    volume, points, *boxes = files.values()
    cropped = name == "plain.tif" or name.startswith("microns")
    own = Path(f"out/imgs/{scan}_upper jaw.nrrd") if cropped else here / name
    assert volume.resolve() == own.resolve()
    image = SimpleITK.ReadImage(volume)
    (positions,) = json.loads(points.read_text(encoding="utf-8"))["markups"]
    shift = np.array(numbers(table()[0], "crop_x", "crop_y", "crop_z"))
    for row, box, given in zip(table(), boxes, positions["controlPoints"], strict=True):
        (roi,) = json.loads(box.read_text(encoding="utf-8"))["markups"]
        origin = shift if cropped else np.zeros(3)
        voxel = image.TransformPhysicalPointToContinuousIndex(given["position"]) + origin
        assert voxel == pytest.approx(point(row)[::-1], abs=1e-4)
        start = np.array(numbers(row, "crop_x", "crop_y", "crop_z"))
        middle = image.TransformPhysicalPointToContinuousIndex(roi["center"]) + origin
        assert middle == pytest.approx(start + (np.array(CROP[::-1]) - 1) / 2, abs=1e-4)
        assert roi["size"] == pytest.approx(np.array(CROP[::-1]) * image.GetSpacing())
        assert np.abs(roi["orientation"]) == pytest.approx(np.abs(image.GetDirection()), abs=1e-6)


def test_without_a_volume_that_slicer_places_there_is_no_scene(locate, here):
    """ITK doesn't know the voxel size in a TIFF; its default crop is a TIFF, too."""
    tifffile.imwrite(here / "plain.tif", read_scan(here / "c.nii.gz").image)
    assert locate("plain.tif", options=PLAIN).exit_code == 0
    assert not Path("out/scenes").exists()
    crops = ("--overwrite", "--crop-format", "nrrd", *PLAIN)
    assert locate("plain.tif", options=crops).exit_code == 0
    assert len([*Path("out/scenes").iterdir()]) == 2
    assert locate("plain.tif", options=("--overwrite", *PLAIN)).exit_code == 0
    assert [*Path("out/scenes").iterdir()] == []  # no scene of earlier boxes


def test_two_objects_whose_names_meet_keep_their_own_files(locate, here):
    """Regression: the crop of scan `a_b` and object `c` was that of scan `a` and object `b_c`."""
    write_model(here / "two.pth", ("c", "b_c"))
    for name, seed in (("a", 0), ("a_b", 1)):
        write_phantom(here / f"{name}.dcm", seed, SCAN_SHAPE)
    assert locate("a.dcm", "a_b.dcm", model="two.pth").exit_code == 0
    files = [row["crop_file"] for row in table()]
    assert files == [f"imgs/{name}.tif" for name in ("a@c", "a@b_c", "a_b@c", "a_b@b_c")]
    assert len({Path("out", file).read_bytes() for file in files}) == 4


def test_a_later_commands_object_does_not_take_an_earlier_scans_file(locate, here):
    """Regression: object `b` of scan `a` replaced the crop of scan `a_b`."""
    write_model(here / "two.pth", ("c", "b"))
    for name, seed in (("a", 0), ("a_b", 1)):
        write_phantom(here / f"{name}.dcm", seed, SCAN_SHAPE)
    one = (*PLAIN, "--object", "c")
    assert locate("a_b.dcm", model="two.pth", options=one).exit_code == 0
    before = Path("out/imgs/a_b.tif").read_bytes()
    assert locate("a.dcm", model="two.pth", options=RESUME).exit_code == 0
    files = [row["crop_file"] for row in table()]
    assert files == ["imgs/a_b.tif", "imgs/a_c.tif", "imgs/a@b.tif"]
    assert Path("out/imgs/a_b.tif").read_bytes() == before
    assert all(Path("out", file).is_file() for file in files)


def test_one_object_of_several_can_be_asked_for(locate, here):
    write_model(here / "two.pth", ("upper jaw", "otolith"))
    assert locate("c.nii.gz", model="two.pth", options=("--object", "otolith")).exit_code == 0
    (row,) = table()
    assert (row["object"], row["crop_file"]) == ("otolith", "imgs/c.tif")


def test_what_an_earlier_model_left_goes_with_its_rows(locate, here):
    """Regression: crops of a replaced model lay among those of the new one."""
    write_model(here / "two.pth", ("left", "right"))
    drawn = ("--crop-size", "20,10,12")
    assert locate("a", "c.nii.gz", model="two.pth", options=drawn).exit_code == 0
    mine = Path("out/imgs/mine.tif")
    mine.touch()
    kept = (*drawn, "--object", "left", "--overwrite")
    assert locate("c.nii.gz", model="two.pth", options=kept).exit_code == 0
    assert [row["scan"] for row in table()] == ["c"]
    left = {p.relative_to("out").as_posix() for p in Path("out").rglob("*") if p.is_file()}
    assert {name for name in left if name.startswith(("imgs", "pictures", "thumb", "markups"))} == {
        *("imgs/c.tif", "imgs/mine.tif", "pictures/c.png", "thumbnails/c.png"),
        "markups/c.mrk.json",
    }
    assert not [name for name in left if name.startswith("scenes/fish")]


def test_only_the_scenes_of_replaced_rows_go(locate, here):
    """Regression: the scene of `c.2` went with scan `c`; another object's box stayed."""
    write_model(here / "two.pth", ("left", "right"))
    shutil.copy("c.nii.gz", "c.2.nii.gz")
    assert locate("c.nii.gz", model="two.pth").exit_code == 0
    left = ("--object", "left", "--overwrite", *PLAIN)
    assert locate("c.nii.gz", "c.2.nii.gz", model="two.pth", options=left).exit_code == 0
    both = ["c.2.box1.mrk.json", "c.2.mrml", "c.box1.mrk.json", "c.mrml"]
    assert sorted(path.name for path in Path("out/scenes").iterdir()) == both
    assert locate("c.2.nii.gz", model="two.pth", options=left).exit_code == 0
    assert sorted(path.name for path in Path("out/scenes").iterdir()) == both[:2]


def test_results_of_an_object_that_is_not_asked_for_are_not_dropped(locate, here):
    """Regression: `--resume --object right` replaced the rows of `left`."""
    write_model(here / "two.pth", ("left", "right"))
    left, right = (("--object", name, *RESUME) for name in ("left", "right"))
    assert locate("a", "c.nii.gz", model="two.pth", options=left).exit_code == 0
    before = files_below(here)
    assert only_sentence(locate("c.nii.gz", model="two.pth", options=right)) == (
        "--resume: out has left of c, and a scan's results are replaced as a whole; received "
        "right: name all of them, or another --output-dir"
    )
    assert files_below(here) == before
    assert locate("b", model="two.pth", options=right).exit_code == 0  # another scan
    assert locate("c.nii.gz", model="two.pth", options=RESUME).exit_code == 0
    rows = [("fish", "left"), ("c", "left"), ("c", "right"), ("b_fish", "right")]
    assert [(row["scan"], row["object"]) for row in table()] == rows


@pytest.mark.parametrize("way", ["--resume", "--overwrite"])
def test_points_that_were_moved_in_slicer_are_not_replaced(locate, here, way):
    """Regression: what a person had dragged and saved there was gone after the next command."""
    assert locate("a", "c.nii.gz").exit_code == 0
    markups = Path("out/markups/c.mrk.json")
    content = json.loads(markups.read_text(encoding="utf-8"))
    (point,) = content["markups"][0]["controlPoints"]
    point["orientation"] = [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0]  # 3D Slicer saved it
    markups.write_text(json.dumps(content), encoding="utf-8")
    assert locate("c.nii.gz", options=(way, *PLAIN, "--crop-size", "22")).exit_code == 0
    point["orientation"], point["position"][1] = [1.0] * 9, point["position"][1] + 0.5
    markups.write_text(json.dumps(content), encoding="utf-8")
    before = files_below(here)
    again = (way, "--crop-size", "24", *PLAIN[:1])
    assert only_sentence(locate("c.nii.gz", options=again)) == (
        "--output-dir: out/markups/c.mrk.json was changed in 3D Slicer, and would be replaced; it "
        "is kept: move it away first, or choose another folder"
    )
    assert files_below(here) == before
    if way == "--resume":  # of what is done already, and of another scan
        done = ("--resume", "--no-pictures", "--crop-size", "22")
        assert locate("b", "c.nii.gz", options=done).exit_code == 0
        assert json.loads(markups.read_text(encoding="utf-8")) == content


def test_a_picture_a_scan(locate, here):
    tifffile.imwrite("t.tif", make_phantom(3, SCAN_SHAPE).image, photometric="minisblack")
    assert locate("c.nii.gz", "t.tif", options=("--crop-size", "30")).exit_code == 0
    for row in table():
        with Image.open(Path("out") / row["picture_file"]) as picture:
            assert picture.width == 1200
    assert {p.name for p in Path("out/pictures").iterdir()} == {"c.png", "t.png"}


def test_the_contact_sheet_shows_every_scan_also_those_that_were_done_before(locate, here):
    options = ("--crop-size", "12", "--no-crops")
    assert locate("c.nii.gz", options=options).exit_code == 0
    result = locate("c.nii.gz", "a/fish.dcm", "gone.tif", options=("--resume", *options))
    assert result.stdout.splitlines()[-1].endswith("first: out/contact_sheet.html")
    page = Path("out/contact_sheet.html").read_text(encoding="utf-8")
    assert page.index("<h2>gone</h2>") < min(page.index(f"<h2>{n}</h2>") for n in ("c", "fish"))
    for name in ("c", "fish"):
        small = Path(f"out/thumbnails/{name}.png").read_bytes()
        assert base64.b64encode(small).decode() in page
        with Image.open(f"out/thumbnails/{name}.png") as picture:
            assert picture.height <= 241


def test_without_crops_and_pictures_there_are_tables_only(locate):
    assert locate("c.nii.gz", options=("--no-crops", "--no-pictures")).exit_code == 0
    assert {p.name for p in Path("out").iterdir()} == {
        MANIFEST,
        *("locations.csv", "locations.json", "napari_points.csv", "markups", "scenes"),
    }
    (row,) = table()
    assert row["crop_file"] == row["picture_file"] == ""
    assert row["crop_fit"] == "padded"  # where the crop of 192 would be


def test_the_configs_crop_size_and_a_model_by_its_name(locate, here):
    write_model(here / "script_output" / "jaw_location" / "mine" / "mine.pth")
    (here / "userconf.yml").write_text("jaw_loc_config:\n  crop_size: [8, 9, 10]\n")
    assert locate("c.nii.gz", model="mine", options=("--no-pictures",)).exit_code == 0
    assert tifffile.imread("out/imgs/c.tif").shape == (8, 9, 10)


def test_the_crop_is_as_large_as_the_model_says_unless_the_user_says_otherwise(locate, here):
    path = write_model(here / "own.pth")
    save_locator(replace(load_locator(path), crop_size=(7, 6, 5)), path)
    (here / "userconf.yml").write_text("jaw_loc_config:\n  crop_size: [8, 9, 10]\n")
    for options, size in (((), (7, 6, 5)), (("--crop-size", "4,3,2", "--overwrite"), (4, 3, 2))):
        result = locate("c.nii.gz", model=path, options=("--no-pictures", *options))
        assert result.exit_code == 0, result.output
        assert tifffile.imread("out/imgs/c.tif").shape == size


# --- scans of every kind -----------------------------------------------------------------


def test_files_series_slices_folders_and_lists_are_all_scans(locate, here):
    image = make_phantom(4, SCAN_SHAPE).image
    write_series(here / "series", SimpleITK.GetImageFromArray(image))
    (here / "slices").mkdir()
    for number, plane in enumerate(image):
        tifffile.imwrite(here / "slices" / f"{number}.tif", plane)
    write_lab_dicom(here / "b" / "lab.dcm", image, np.zeros_like(image))
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(image), here / "n.nrrd")
    (here / "list.txt").write_text("# mine\nslices  # 2-D\nn.nrrd\n")
    result = locate("series", "list.txt", "b")
    assert result.exit_code == 0, result.output
    assert [row["scan"] for row in table()] == ["series", "slices", "n", "fish", "lab"]
    points = [point(row) for row in table() if row["scan"] != "fish"]
    assert all(p == pytest.approx(points[0], abs=1e-3) for p in points)


def test_of_a_folder_of_several_series_the_named_one_is_located(locate, here):
    """A folder that isn't clear is one row; naming a series is another request to --resume."""
    (here / "both").mkdir()
    for name, seed in (("one", 3), ("two", 4)):
        image = SimpleITK.GetImageFromArray(make_phantom(seed, SCAN_SHAPE).image)
        write_series(here / name, image)
        for path in (here / name).iterdir():
            ds = pydicom.dcmread(path)
            ds.SeriesInstanceUID = f"1.2.{seed}"
            ds.save_as(here / "both" / f"{name}_{path.name}")
    result = locate("both")
    assert result.exit_code == 1
    (row,) = table()
    assert row["status"] == "failed"
    assert "1.2.3 (no description, 48 slices), 1.2.4 (no description, 48 sl" in row["reason"]
    for uid, alone in (("1.2.3", "one"), ("1.2.4", "two")):
        options = ("--series", uid, *RESUME)
        assert "1 scan located" in locate("both", options=options).stdout
        assert "1 done before" in locate("both", options=options).stdout
        (found,) = load_locator(here / "m.pth").locate(here / alone)
        assert point(table()[0]) == pytest.approx(found.point_voxels, abs=1e-6)


def test_a_model_that_is_not_there_is_named_before_old_results_are(locate, here):
    """Regression: who mistyped a model was sent to look at an old folder first."""
    assert locate("c.nii.gz").exit_code == 0
    said = only_sentence(locate("c.nii.gz", model="nosuch"))
    assert said.startswith("nosuch: no model of this name")


def test_scans_of_one_name_do_not_overwrite_each_other(locate):
    assert locate("a", "b").exit_code == 0
    assert [row["scan"] for row in table()] == ["a_fish", "b_fish"]
    assert {p.name for p in Path("out/imgs").iterdir()} == {"a_fish.tif", "b_fish.tif"}
    first, second = (tifffile.imread(f"out/imgs/{n}_fish.tif") for n in "ab")
    assert not np.array_equal(first, second)


# --- failures ------------------------------------------------------------------------------


def test_scans_that_fail_are_rows_and_the_others_are_located(locate, here):
    (here / "junk.tif").write_bytes(b"junk")
    tifffile.imwrite(here / "flat.tif", np.zeros((20, 30), np.uint8))
    tifffile.imwrite(here / "4d.tif", np.zeros((3, 20, 9, 9), np.uint16), imagej=True)
    tifffile.imwrite(here / "small.tif", np.zeros((10, 9, 9), np.uint16), photometric="minisblack")
    (here / "notes.pdf").touch()
    (here / "link.tif").symlink_to("nowhere")
    bad = ["junk.tif", "flat.tif", "4d.tif", "small.tif", "notes.pdf", "gone.nii.gz", "link.tif"]
    result = locate(*bad[:3], "a/fish.dcm", *bad[3:], "c.nii.gz")
    assert result.exit_code == 1
    last = result.stdout.splitlines()[-1]
    assert last == f"{DOUBTFUL}, 7 failed (the table says why): out/locations.csv"
    rows = {row["scan"]: row for row in table()}
    assert [name for name, row in rows.items() if row["status"] == "uncertain"] == [
        "fish",
        "c",
    ]
    for path, said in zip(
        bad,
        [
            *("can't be read", "must be one volume", "must be one volume"),
            *("no larger than the scan", "ending must be one of"),
            *("there is none at", "there is none at"),
        ],
        strict=True,
    ):
        row = rows[path.split(".")[0] if path != "notes.pdf" else path]
        assert (row["status"], row["object"], row["z_voxels"]) == ("failed", "", "")
        assert row["reason"].startswith(f"{path}: ")
        assert said in row["reason"]
        assert f"failed: {row['reason']}\n" in result.stderr  # which names the file
    assert len(json.loads(Path("out/locations.json").read_text(encoding="utf-8"))) == 9
    assert {p.name for p in Path("out/imgs").iterdir()} == {"fish.tif", "c.tif"}
    assert {p.name for p in Path("out/markups").iterdir()} == {"fish.mrk.json", "c.mrk.json"}


def test_an_error_that_nobody_thought_of_fails_one_scan(locate, monkeypatch):
    read = one_scan.open_scan

    def broken(path, **how):
        if path.parent.name == "a":
            raise ZeroDivisionError("by zero")
        return read(path, **how)

    monkeypatch.setattr(one_scan, "open_scan", broken)
    assert locate("a", "b").exit_code == 1
    assert [row["status"] for row in table()] == ["failed", "uncertain"]
    said = "jawloc failed unexpectedly (ZeroDivisionError); please report this scan"
    assert table()[0]["reason"].endswith(f": {said}")


@pytest.mark.parametrize("object_name", ["otolith", "o" * 80])
def test_a_very_long_name_does_not_end_the_work(locate, here, object_name):
    """Regression: all scans behind one whose files' names were too long were never located."""
    write_model(here / "m.pth", ("jaw", object_name))
    (here / "a" / "fish.dcm").rename(here / "a" / f"{'l' * 240}.dcm")
    result = locate("a", "c.nii.gz")
    rows = table()
    assert rows[-1]["scan"] == "c"
    long = [row for row in rows if row["scan"].startswith("lll")]
    if len(object_name) < 40:
        assert result.exit_code == 0, result.output
        assert all(Path("out", row["crop_file"]).is_file() for row in long)
    else:
        assert result.exit_code == 1
        assert [row["status"] for row in long] == ["failed"]
        assert long[0]["reason"].startswith("the names of a scan's results must not be too long")
        assert not [p for p in Path("out").rglob("*") if "lll" in p.name]


def test_a_disk_that_fills_up_ends_the_work_with_what_was_done(locate, monkeypatch):
    write = one_scan.write_crop

    def full(path, *arguments):
        if path.name == "b_fish.tif":
            raise OSError(28, "No space left on device")
        write(path, *arguments)

    monkeypatch.setattr(one_scan, "write_crop", full)
    said = only_sentence(locate("a", "b", "c.nii.gz"))
    assert said == (
        "out: results can't be written (No space left on device); 1 of 3 scans are done; the same "
        "command with --resume goes on once they can"
    )
    assert [row["scan"] for row in table()] == ["a_fish"]
    assert {p.name for p in Path("out/imgs").iterdir()} == {"a_fish.tif"}
    monkeypatch.setattr(one_scan, "write_crop", write)
    result = locate("a", "b", "c.nii.gz", options=RESUME)
    assert result.stdout.splitlines()[-1].startswith(f"{DOUBTFUL}, 1 done before")


def test_a_full_disk_names_the_folder_and_what_it_needs(locate, monkeypatch):
    """Regression: the list of files could not be shortened, and nothing else was said."""

    def full(path, *_):
        raise DiskFullError(path, 2_500_000, 0)

    def no_room(folder, _):
        raise DiskFullError(folder / MANIFEST, 4096, 0)

    monkeypatch.setattr(one_scan, "write_crop", full)
    monkeypatch.setattr("jawloc.reporting.location_files.forget_files", no_room)
    assert only_sentence(locate("a", "b")) == (
        "out: results can't be written (out/imgs: the disk is full; a_fish.tif needs 2.5 MB, and 0 "
        "bytes are free); 0 of 2 scans are done; the same command with --resume goes on once they "
        "can"
    )


# --- going on ------------------------------------------------------------------------------


@pytest.fixture
def located(monkeypatch):
    """Return the list of the scans that are looked at from now on."""
    seen = []
    read = driver.read_downsampled

    def watched(search, scan):
        seen.append(scan.name)
        return read(search, scan)

    monkeypatch.setattr(driver, "read_downsampled", watched)
    return seen


def test_the_next_scan_is_read_while_this_one_is_worked_on(locate, monkeypatch, located):
    seen = []
    find = one_scan.find_objects

    def watched(search, scan, read):
        until = time.monotonic() + 60
        while len(located) < min(len(seen) + 2, 3) and time.monotonic() < until:
            time.sleep(0.01)
        seen.append((scan.name, list(located)))
        return find(search, scan, read)

    monkeypatch.setattr(one_scan, "find_objects", watched)
    assert locate("a", "c.nii.gz", "b").exit_code == 0
    every = ["a_fish", "c", "b_fish"]
    assert seen == [("a_fish", every[:2]), ("c", every), ("b_fish", every)]
    assert [row["scan"] for row in table()] == every


def test_ctrl_c_loses_nothing_and_resume_goes_on(locate, monkeypatch, located):
    with monkeypatch.context() as patch:

        def interrupted(search, scan, read):
            if scan.name == "c":
                raise KeyboardInterrupt
            return look(search, scan, read)

        look = one_scan.find_objects
        patch.setattr(one_scan, "find_objects", interrupted)
        result = locate("a", "c.nii.gz", "b")
    assert result.exit_code == 130
    assert result.stderr == (
        "Error: interrupted; 1 of 3 scans are done; the same command with --resume goes on\n"
    )
    before = table()
    assert [row["scan"] for row in before] == ["a_fish"]
    located.clear()
    result = locate("a", "c.nii.gz", "b", options=RESUME)
    assert result.stdout.splitlines()[-1] == f"{DOUBTFUL}, 1 done before: out/locations.csv"
    assert located == ["c", "b_fish"]
    assert table()[0] == before[0]
    assert [row["scan"] for row in table()] == ["a_fish", "c", "b_fish"]
    del result
    gc.collect()  # the unpacked scan of the interrupted command, before another test sees it go


def test_what_has_changed_is_done_again(locate, here, located):
    assert locate("a/fish.dcm", "c.nii.gz").exit_code == 0
    located.clear()
    assert locate("a/fish.dcm", "c.nii.gz", options=RESUME).exit_code == 0
    assert located == []
    write_phantom(here / "a" / "fish.dcm", 5, SCAN_SHAPE)  # another scan of the same name
    locate("a/fish.dcm", "c.nii.gz", options=RESUME)
    assert located == ["fish"]
    Path("out/imgs/c.tif").unlink()  # an output is gone
    locate("a/fish.dcm", "c.nii.gz", options=RESUME)
    assert located == ["fish", "c"]
    write_model(here / "m.pth", seed=9)  # another model of the same name
    locate("a/fish.dcm", "c.nii.gz", options=RESUME)
    assert located == ["fish", "c", "fish", "c"]
    locate("c.nii.gz", options=("--resume", "--no-pictures", "--crop-size", "9"))  # other crops
    assert located == ["fish", "c", "fish", "c", "c"]
    assert tifffile.imread("out/imgs/c.tif").shape == (9, 9, 9)
    assert [row["scan"] for row in table()] == ["fish", "c"]


def test_what_failed_is_tried_again_and_new_scans_are_added(locate, here, located):
    (here / "x.tif").write_bytes(b"junk")
    assert locate("x.tif").exit_code == 1
    tifffile.imwrite("x.tif", make_phantom(3, SCAN_SHAPE).image, photometric="minisblack")
    assert locate("x.tif", "c.nii.gz", options=RESUME).exit_code == 0
    assert locate("a/fish.dcm", options=RESUME).exit_code == 0
    assert locate("b/fish.dcm", options=RESUME).exit_code == 0
    assert located == ["x", "x", "c", "fish", "b_fish"]
    assert [row["scan"] for row in table()] == ["x", "c", "fish", "b_fish"]
    assert {row["status"] for row in table()} == {"uncertain"}


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("scan", "../../stray"),
        ("scan", ".."),
        ("crop_file", "../stray.tif"),
        ("crop_file", "/stray.tif"),
        ("picture_file", "imgs/c.tif"),
    ],
)
def test_a_table_that_names_files_elsewhere_is_refused(locate, here, column, text):
    """Regression: a scan's name in the table was a path that crops were written to."""
    assert locate("c.nii.gz").exit_code == 0
    rows = table()
    rows[0][column] = text
    with Path("out/locations.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    before = files_below(here)
    sentence = only_sentence(locate("c.nii.gz", options=RESUME))
    assert sentence.startswith("out/locations.csv: --resume needs the table as jawloc wrote it")
    assert sentence.endswith(repr(text))
    assert files_below(here) == before


@pytest.mark.parametrize("name", ["imgs", "markups", "pictures", "scenes", "thumbnails"])
def test_a_link_in_the_output_folder_is_not_written_through(locate, here, name):
    """Regression: crops went wherever a link `imgs` led to."""
    (here / "elsewhere").mkdir()
    (here / "out").mkdir()
    (here / "out" / name).symlink_to(here / "elsewhere")
    sentence = only_sentence(locate("c.nii.gz", options=()))
    assert sentence.startswith(f"--output-dir: out/{name} is a link")
    assert list((here / "elsewhere").iterdir()) == []


def test_results_are_not_replaced_unless_asked_to(locate, here):
    assert locate("c.nii.gz").exit_code == 0
    before = files_below(here)
    said = only_sentence(locate("a/fish.dcm"))
    assert said.startswith("--output-dir: out has results already; --resume goes on with them")
    assert files_below(here) == before
    assert locate("a/fish.dcm", options=("--overwrite", *PLAIN)).exit_code == 0
    assert [row["scan"] for row in table()] == ["fish"]


# --- refused before any work ---------------------------------------------------------------


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


@pytest.fixture
def refused(jawloc, here, monkeypatch):
    """Return a function that sees that a command is refused in a sentence and leaves no trace."""
    monkeypatch.setattr(driver, "read_downsampled", lambda *_: pytest.fail("the work began"))

    def run(*arguments):
        before = files_below(here)
        said = only_sentence(jawloc("locate", *arguments, "--output-dir", "out"))
        assert files_below(here) == before
        assert not Path("out").exists()
        return said

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nobody"], "nobody: no model of this name below"),
        (["gone.pth"], "gone.pth: no such model file"),
        (["models:/jaw@champion"], "models:/jaw@champion: there are no runs in"),
        (["code.pth"], "code.pth: not a model file of plain weights"),
        (["c.nii.gz"], "c.nii.gz: not a model file"),
        (["lab.pth"], "lab.pth: bare weights don't say which network and grid they need"),
        (["m.pth", "--downsampled-size", "512,128,128"], "m.pth: --downsampled-size asks for"),
        (["m.pth", "--downsampled-size", "5,5"], "--downsampled-size: one positive whole"),
        (["m.pth", "--network", "attention-unet"], "m.pth: --network asks for attention-unet"),
        (["m.pth", "--object", "otolith"], "m.pth: --object must name what the model finds (jaw)"),
        (["m.pth", "--crop-size", "0"], "--crop-size: one positive whole number or three"),
        (["m.pth", "--crop-size", "100000"], "--crop-size: a crop must fit into this machine's"),
        (["m.pth", "--crop-size", f"1,1,{10**400}"], "--crop-size: a crop must fit into this"),
        (["m.pth", "--device", "abacus"], "device: must be auto, cpu, cuda or cuda:N"),
        (["m.pth", "--resume", "--overwrite"], "--resume adds to the tables and --overwrite"),
        (["m.pth", "--config", "none.yml"], "none.yml: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_command_is_refused(refused, monkeypatch, arguments, said):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("code.pth").write_bytes(pickle.dumps({"weight": Bomb()}))
    torch.save({"weight": torch.zeros(1)}, "lab.pth")
    model, *options = arguments
    assert refused(model, "c.nii.gz", *options).startswith(said)
    assert not Path("exploded").exists()


def test_an_empty_list_or_folder_is_refused(refused):
    Path("list.txt").write_text("# none yet\n")
    Path("empty").mkdir()
    assert (
        refused("m.pth", "list.txt")
        == "list.txt: a list must name at least one scan; it names none"
    )
    assert (
        refused("m.pth", "empty") == "empty: a folder of scans must hold at least one; it has none"
    )


@pytest.mark.parametrize("place", ["gone", "gone.tif", "gone.txt", "c.nii.gz/gone", "x" * 300])
def test_something_that_is_named_must_exist(refused, monkeypatch, place):
    """Regression: the folder of results was made, and the corrected command was refused."""
    monkeypatch.setattr("jawloc.inference.models.load_model", lambda *_: pytest.fail("too late"))
    said = "a file or folder of scans must exist; "
    assert refused("m.pth", place).startswith(f"{place}: {said}")


@pytest.mark.parametrize("crop_format", CROP_ENDINGS)
def test_crops_of_earlier_results_are_no_scans_unless_they_are_named(locate, jawloc, crop_format):
    """Regression: in a project's folder, they were located as if they were scans."""
    options = ("--output-dir", "results/first", "--crop-format", crop_format, *PLAIN)
    assert jawloc("locate", "m.pth", "a", "c.nii.gz", *options).exit_code == 0
    shutil.copy("b/fish.dcm", "results/first/imgs/mine.dcm")
    listed = [scan.path.relative_to(Path.cwd()).as_posix() for scan in list_scans([Path()])]
    assert listed == ["a/fish.dcm", "b/fish.dcm", "c.nii.gz", "results/first/imgs/mine.dcm"]
    assert len(list_scans([Path("results/first/imgs")])) == 3
    assert len(list_scans([Path("results/first")])) == 3


def test_folders_that_were_made_for_nothing_are_removed(jawloc, here):
    Path("empty").mkdir()
    assert only_sentence(jawloc("locate", "m.pth", "empty")).startswith("empty: a folder of scans")
    assert not Path("script_output").exists()


def test_a_folder_that_cannot_be_written_to_is_refused(locate, here):
    (here / "out").write_text("a file")
    said = only_sentence(locate("c.nii.gz"))
    assert said.startswith("--output-dir: out must be a folder that can be written to; ")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_no_permission_to_write(locate, here):
    (here / "out").mkdir(mode=0o500)
    said = only_sentence(locate("c.nii.gz"))
    assert said == "--output-dir: out must be a folder that can be written to; Permission denied"


def test_a_full_disk_is_refused(locate, monkeypatch):
    monkeypatch.setattr("jawloc.reporting.location_files.free_bytes", lambda _: 0)
    said = only_sentence(locate("c.nii.gz"))
    assert said == (
        "--output-dir: out needs room for at least one scan's results, 4 MB; its disk has 0 MB left"
    )
    assert not Path("out").exists()


def test_memory_is_not_spent_on_the_scan(locate, here, monkeypatch):
    """Slabs and the crop's slices are read, never the whole."""
    read, most = one_scan.open_scan, []

    def watched(path, **how):
        from dataclasses import replace

        scan = read(path, **how)

        def slices(start, stop):
            most.append(stop - start)
            return scan.read_image(start, stop)

        return replace(scan, read_image=slices)

    monkeypatch.setattr(one_scan, "open_scan", watched)
    monkeypatch.setattr("jawloc.scans.scan.SLAB_BYTES", 2000)
    assert locate("c.nii.gz").exit_code == 0
    assert max(most) == 1
    assert len(most) == SCAN_SHAPE[0] + CROP[0]


def test_a_folder_that_cannot_be_read_fails_one_scan(locate, here, monkeypatch):
    """Which happens to a network drive that has gone away; root can't see permissions."""
    (here / "gone").mkdir()
    tifffile.imwrite("gone/1.tif", np.zeros((4, 4), np.uint16))
    real = Path.iterdir

    def iterdir(path):
        if path.name == "gone":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert locate("gone", "a/fish.dcm").exit_code in (1, 2)
    (here / "both.txt").write_text("gone\na/fish.dcm\n")
    result = locate("both.txt", options=("--overwrite",))
    assert result.exit_code == 1, result.output
    assert [row["status"] for row in table()] == ["failed", "uncertain"]


def test_a_name_that_is_not_utf_8_is_kept(locate, here):
    name = os.fsdecode(b"fi\xffsh.tif")
    try:
        tifffile.imwrite(here / name, make_phantom(3, SCAN_SHAPE).image, photometric="minisblack")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert locate(name).exit_code == 0
    with (here / "out" / "locations.csv").open(encoding="utf-8", errors="surrogateescape") as file:
        (row,) = csv.DictReader(file)
    assert row["scan"] == name.removesuffix(".tif")


# --- whose files they are ----------------------------------------------------------------


def test_a_users_file_is_neither_overwritten_nor_removed(locate, here, located):
    """Regression: of a scan that failed, the user's own `imgs/a_fish.tif` was deleted."""
    for name in ("imgs/c.tif", "markups/c.mrk.json", "locations.json"):
        Path("out", name).parent.mkdir(parents=True, exist_ok=True)
        Path("out", name).write_text("mine")
        before = files_below(here)
        assert only_sentence(locate("c.nii.gz")) == (
            f"--output-dir: out holds {name}, which jawloc didn't write and would overwrite; "
            "move it away first"
        )
        assert files_below(here) == before
        Path("out", name).unlink()
    assert located == []
    Path("out/imgs/mine.tif").write_text("mine")
    Path("broken.nii.gz").write_bytes(b"broken")
    assert locate("c.nii.gz", "broken.nii.gz").exit_code == 1
    assert {path.name for path in Path("out/imgs").iterdir()} == {"mine.tif", "c.tif"}


def test_a_scan_that_fails_later_loses_jawlocs_files_only(locate, here):
    assert locate("a", "c.nii.gz").exit_code == 0
    Path("c.nii.gz").write_bytes(b"broken")
    Path("out/imgs/c.png").write_text("mine")
    assert locate("c.nii.gz", options=(*PLAIN, "--overwrite")).exit_code == 1
    left = files_below(Path("out"))
    assert "imgs/c.png" in left
    assert not {"imgs/c.tif", "markups/c.mrk.json"} & left.keys()
    Path("out/imgs/c.tif").write_text("mine")  # since then it is the user's
    words = (*PLAIN, "--overwrite")
    assert "holds imgs/c.tif, which" in only_sentence(locate("c.nii.gz", options=words))


@pytest.mark.parametrize("header", ["c.mhd", "c.nhdr"])
def test_resume_sees_that_voxels_in_another_file_changed(locate, here, header):
    """Regression: only files that are called like the header were looked at."""
    voxels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage("c.nii.gz")).astype("<u2")
    Path("other.raw").write_bytes(voxels.tobytes())
    z, y, x = voxels.shape
    texts = {
        "c.mhd": f"NDims = 3\nDimSize = {x} {y} {z}\nElementType = MET_USHORT\n"
        "ElementDataFile = other.raw\n",
        "c.nhdr": f"NRRD0004\ntype: uint16\ndimension: 3\nsizes: {x} {y} {z}\nendian: little\n"
        "encoding: raw\ndata file: other.raw\n",
    }
    Path(header).write_text(texts[header])
    assert locate(header).exit_code == 0
    assert "1 done before" in locate(header, options=RESUME).stdout
    Path("other.raw").write_bytes(voxels[::-1].tobytes())
    assert "done before" not in locate(header, options=RESUME).stdout


@pytest.mark.parametrize("way", ["--resume", "--overwrite"])
def test_results_of_0_1_0_are_gone_on_with_and_replaced(locate, here, way):
    assert locate("a", "c.nii.gz").exit_code == 0
    Path("out", MANIFEST).unlink()  # which 0.1.0 didn't write, nor scenes and two of the columns
    shutil.rmtree("out/scenes")
    with Path("out/locations.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = [name for name in rows[0] if name not in ("radius_note", "heatmap_width_voxels")]
    assert len(columns) == len(rows[0]) - 2
    with Path("out/locations.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    result = locate("a", "c.nii.gz", "b", options=(*PLAIN, way))
    assert result.exit_code == 0, result.output
    assert ("2 done before" in result.stdout) is (way == "--resume")


def test_two_searches_into_one_folder_at_once_are_refused(locate, here):
    from tests.reporting.folders.test_folder_lock import another_process

    with another_process(Path("out").resolve() / ".jawloc") as other:
        said = only_sentence(locate("c.nii.gz"))
        assert said.startswith(f"--output-dir: out is in use by process {other.pid} on ")
    assert locate("c.nii.gz").exit_code == 0


@pytest.mark.parametrize("options", [PLAIN, RESUME], ids=["new", "resumed"])
def test_no_other_command_adds_results_from_when_the_table_is_read(locate, monkeypatch, options):
    """Regression: rows that were added while scans were looked for were overwritten."""
    refused = []

    def enter():
        try:
            with locked_output_folder(Path("out")):
                pass
        except InputError as error:
            refused.append(str(error))

    def listed(*arguments, **named):
        other = threading.Thread(target=enter)
        other.start()
        other.join()
        return list_scans(*arguments, **named)

    if "--resume" in options:
        assert locate("c.nii.gz").exit_code == 0
    monkeypatch.setattr("jawloc.scans.listing.list_scans", listed)
    assert locate("a", options=options).exit_code == 0
    (said,) = refused
    assert said.startswith("--output-dir: out is in use by process")
    assert table()[-1]["scan"] == "fish"
