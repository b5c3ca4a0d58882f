"""Images and points -> labelled DICOMs with points in place of a mask, and examples of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK

from jawloc.errors import InputError
from jawloc.geometry import Grid
from jawloc.scans.cache import CacheConfig, ExampleFile, build_cache, open_example
from jawloc.scans.cache.upkeep import verify_cache
from jawloc.scans.convert.points import convert_points, holds_points, plan_point_conversion
from jawloc.scans.dicom import open_labelled_dicom, write_labelled_dicom
from jawloc.scans.dicom.writing import write_labelled_dicom_slabs
from jawloc.scans.labelled import open_labelled
from jawloc.scans.pairs import open_pair
from jawloc.scans.scan import ScanPoint
from tests.scans.convert.test_convert import save

SHAPE, SMALL = (12, 10, 9), (6, 4, 3)
SPACING = (0.06, 0.04, 0.02)
ANY = {"jaw": None}


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 999, SHAPE).astype(np.uint16)


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    for name in ("a", "b", "c"):
        save(tmp_path / "images" / f"{name}.nrrd", image())
    (tmp_path / "points").mkdir()
    return tmp_path / "images", tmp_path / "out"


def table(folder: Path, *rows: str, columns: str = "scan,object,z,y,x") -> Path:
    path = folder / "clicked.csv"
    path.write_text("\n".join([columns, *rows]) + "\n", encoding="utf-8")
    return path


def write_points(path: Path, *points: ScanPoint, seed: int = 0, spacing=SPACING) -> Path:
    """Write a labelled DICOM with points, one that is an image of random numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    slabs = [(image(seed), None)]
    write_labelled_dicom_slabs(path, slabs, Grid(SHAPE, spacing), np.dtype("u2"), points=points)
    return path


def cached(config: CacheConfig, base: Path) -> list[ExampleFile]:
    scans = sorted((base / "dicoms").glob("*.dcm"))
    report = build_cache(scans, config, base=base, progress=False)
    return [open_example(path, config.objects) for path in report.cached]


# --- pairing ----------------------------------------------------------------------------------


def test_a_labelled_dicom_with_points_is_no_mask(tmp_path):
    """Regression: where it has 8 bits, all its grey values became a mask."""
    save(tmp_path / "a.nrrd", image())
    label = write_points(tmp_path / "labels" / "a.dcm", ScanPoint("jaw", (1.0, 2.0, 3.0)))
    with pytest.raises(InputError, match=r"^a\.dcm: a label must have a mask; it has points"):
        open_pair(tmp_path / "a.nrrd", label)


def test_a_table_says_which_scan_each_point_is_of(tmp_path, folders):
    """Guards the plan: one sentence for each scan without a point, and each name without a scan."""
    images, out = folders
    points = table(tmp_path, "a,jaw,1,2,3", "a.nrrd,eye,4,5,6", "b,jaw,12,2,3", "d,jaw,1,2,3")
    plan = plan_point_conversion(images, points, out)
    assert {item.scan_id: item.skip_reason for item in plan} == {
        "a": None,
        "b": "clicked.csv, line 4: a point must lie in its scan, which has (12, 10, 9) voxels "
        "(z, y, x), numbered from 0; 'jaw' is at (12, 2, 3)",
        "c": "no point for c",
        "d": "no image for d (clicked.csv, line 5)",
    }
    assert not out.exists()
    done = convert_points(plan[0])
    assert (done.skip_reason, done.notes) == (None, ())
    scan = open_labelled_dicom(out / "a.dcm")
    assert scan.points == (ScanPoint("jaw", (1, 2, 3)), ScanPoint("eye", (4, 5, 6)))
    assert scan.read_mask is None
    np.testing.assert_array_equal(scan.read_image(0, 12), image())
    assert scan.grid.spacing_mm_zyx == pytest.approx(SPACING)
    assert convert_points(plan[0]).skip_reason == "a.dcm exists"


def test_a_spacing_that_was_forgotten_is_named(tmp_path, folders):
    """Regression: points in voxels are the same ones, but the labelled DICOM lacks the spacing."""
    images, out = folders
    points = table(tmp_path, "a,jaw,1,2,3")
    convert_points(plan_point_conversion(images, points, out)[0])
    said = [
        plan_point_conversion(images, points, out, spacing_mm_zyx=given)[0].skip_reason
        for given in (SPACING, (0.5, 0.5, 0.5))
    ]
    assert said[0] == "a.dcm exists"
    assert said[1] == (
        f"a.dcm exists, with the spacing {SPACING} mm instead of (0.5, 0.5, 0.5) mm: to convert "
        f"the scan anew, move a.dcm away"
    )


def test_points_that_were_put_right_since_are_named(tmp_path, folders):
    """Regression: a corrected point was skipped like any scan that exists; others are no news."""
    images, out = folders
    for item in plan_point_conversion(images, table(tmp_path, "a,jaw,1,2,3", "b,jaw,1,2,3"), out):
        convert_points(item)
    points = table(tmp_path, "b,jaw,1,2,3", "a,jaw,1,2,4", "c,jaw,1,2,3")
    plan = plan_point_conversion(images, points, out)
    assert {item.scan_id: item.skip_reason for item in plan} == {
        "a": "a.dcm exists, with other labels than clicked.csv, line 3: to convert the scan anew, "
        "move a.dcm away",
        "b": "b.dcm exists",
        "c": None,
    }


def test_a_table_may_write_an_umlaut_in_another_form(tmp_path):
    """Regression: a Mac's file names have it as a letter and its dots."""
    save(tmp_path / "images" / "Fisch_a\u0308.nrrd", image())
    (item,) = plan_point_conversion(
        tmp_path / "images", table(tmp_path, "Fisch_\xe4,jaw,1,2,3"), tmp_path / "out"
    )
    assert (item.scan_id, item.skip_reason) == ("Fisch_a\u0308", None)


def test_a_folder_of_files_named_like_the_scans(tmp_path, folders):
    images, out = folders
    points = tmp_path / "points"
    control = [{"label": "jaw", "position": [0.02, 0.08, 0.36]}]
    lists = {"markups": [{"type": "Fiducial", "controlPoints": control}]}
    (points / "a.mrk.json").write_text(json.dumps(lists))
    (points / "b_points.csv").write_text("z,y,x\n1,2,3\n")
    (points / "notes.txt").write_text("not points")
    (points / ".hidden.csv").write_text("")
    plan = plan_point_conversion(images, points, out)
    assert [item.skip_reason for item in plan] == [None, None, "no point for c"]
    assert [convert_points(item).skip_reason for item in plan[:2]] == [None, None]
    assert open_labelled_dicom(out / "b.dcm").points == (ScanPoint(1, (1, 2, 3)),)
    (jaw,) = open_labelled_dicom(out / "a.dcm").points
    np.testing.assert_allclose(jaw.voxels_zyx, (6, 2, 1), atol=1e-9)


def test_rows_that_were_not_found_are_skipped_and_named(tmp_path, folders):
    images, out = folders
    points = table(
        tmp_path,
        *("a,jaw,ok,1,2,3", "a,eye,not found,1,2,3", "b,jaw,not found,1,2,3", "c,,failed,,,"),
        columns="scan,object,status,z_voxels,y_voxels,x_voxels",
    )
    plan = plan_point_conversion(images, points, out)
    assert [item.skip_reason for item in plan] == [
        None,
        "no point for b: 'jaw' is 'not found' in clicked.csv, line 4",
        "no point for c: the point is 'failed' in clicked.csv, line 5",
    ]
    done = convert_points(plan[0])
    assert done.left_out == ("'eye' is 'not found' in clicked.csv, line 3",)


def test_points_take_the_place_of_the_labels_in_a_labelled_dicom(tmp_path):
    mask = np.ones(SHAPE, np.uint8)
    (tmp_path / "in").mkdir()
    write_labelled_dicom(tmp_path / "in" / "a.dcm", image(), mask, Grid(SHAPE))
    (item,) = plan_point_conversion(tmp_path / "in", table(tmp_path, "a,,1,2,3"), tmp_path / "out")
    done = convert_points(item, spacing_mm_zyx=SPACING)
    assert done.notes == ("the labels in a.dcm were left out: points take their place",)
    scan = open_labelled_dicom(tmp_path / "out" / "a.dcm")
    assert (scan.points, scan.read_mask) == ((ScanPoint(1, (1, 2, 3)),), None)
    assert scan.grid.spacing_mm_zyx == pytest.approx(SPACING)


def test_mm_points_are_of_the_same_voxel_before_and_after_the_conversion(tmp_path):
    """Regression: the labelled DICOM lay at the origin, and mm of the original missed it."""
    (tmp_path / "images").mkdir()
    itk = SimpleITK.GetImageFromArray(image())
    itk.SetSpacing(SPACING[::-1])
    itk.SetOrigin((-12.5, 30.25, 7.75))
    itk.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, -1))
    SimpleITK.WriteImage(itk, tmp_path / "images" / "a.nrrd")
    mm = ",".join(map(repr, itk.TransformIndexToPhysicalPoint((3, 2, 1))))
    points = table(tmp_path, f"a,jaw,{mm}", columns="scan,object,x_mm,y_mm,z_mm")
    for source, target in (("images", "once"), ("once", "twice")):
        (item,) = plan_point_conversion(tmp_path / source, points, tmp_path / target)
        assert convert_points(item).skip_reason is None
        (jaw,) = open_labelled_dicom(tmp_path / target / "a.dcm").points
        np.testing.assert_allclose(jaw.voxels_zyx, (1, 2, 3), atol=1e-6)


def test_an_image_over_dicoms_limit_is_skipped_in_the_plan(tmp_path, folders, monkeypatch):
    monkeypatch.setattr("jawloc.scans.dicom.writing._LARGEST_ELEMENT", 2159)
    images, out = folders
    plan = plan_point_conversion(images, table(tmp_path, "a,jaw,1,2,3"), out)
    assert plan[0].skip_reason.startswith("a.dcm: a DICOM image must be under 4 GiB")


def test_points_of_no_image_are_refused(tmp_path, folders):
    images, out = folders
    points = table(tmp_path, "x,jaw,1,2,3", "y,jaw,1,2,3")
    with pytest.raises(InputError, match=r"no image in .* is called x, y"):
        plan_point_conversion(images, points, out)
    unnamed = table(tmp_path, "a,1,2,3", "b,1,2,3", columns="name,z,y,x")
    said = (
        r"clicked.csv: the column with the scans' names must be called scan, .*the columns "
        r"name, z, y, x, and no image in .* is called clicked"
    )
    with pytest.raises(InputError, match=said):
        plan_point_conversion(images, unnamed, out)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="need a folder; this is a file"):
        plan_point_conversion(images, points, tmp_path / "file")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["a,j,2,3,11", "b,j,3,4,10", "c,j,4,3,2"], ["a", "b"]),  # x up to 11, of 9 voxels
        (["a,j,2,3,11", "b,j,3,4,3", "c,j,4,3,2"], []),
        (["a,j,2,3,11", "b,j,3,11,3", "c,j,4,3,2"], []),
    ],
    ids=["exchanged", "one scan", "outside in any case"],
)
def test_z_and_x_that_seem_to_be_exchanged_are_told(tmp_path, folders, rows, told):
    images, out = folders
    plan = plan_point_conversion(images, table(tmp_path, *rows), out)
    hint = "; with z and x exchanged, the points of all 2 such scans would lie inside"
    assert [item.scan_id for item in plan if (item.skip_reason or "").endswith(hint)] == told


def test_what_counts_as_points(tmp_path, folders):
    images, _ = folders
    points = tmp_path / "points"
    assert not holds_points(images, points)
    (points / "a.csv").write_text("z,y,x\n1,2,3\n")
    assert holds_points(images, points)
    assert holds_points(images, points / "a.csv")
    assert not holds_points(images, tmp_path / "none")
    assert not holds_points(images, images / "a.nrrd")
    save(points / "b_mask.nrrd", image())
    assert not holds_points(images, points)  # as ever: beside masks, a table may be about anything
    (points / "a.fcsv").write_text("")
    with pytest.raises(InputError, match=r"folders of their own; it has b_mask.nrrd and a.fcsv"):
        holds_points(images, points)
    (images / "a.mrk.json").write_text("{}")
    assert holds_points(images, images)  # 3D Slicer saves points beside the scan


# --- the element ------------------------------------------------------------------------------


def test_points_are_json_in_an_element_beside_the_masks(tmp_path):
    """Other programs read it without jawloc; the lab's reader looks only at (00BB,B001)."""
    points = ScanPoint("Kiefer ö", (1.5, 2.25, 1 / 3)), ScanPoint(2, (0.0, 0.0, 0.0))
    path = write_points(tmp_path / "a.dcm", *points)
    ds = pydicom.dcmread(path)
    assert json.loads(ds[0x00BBB002].value) == [
        {"object": "Kiefer ö", "z": 1.5, "y": 2.25, "x": 1 / 3},
        {"object": 2, "z": 0.0, "y": 0.0, "x": 0.0},
    ]
    assert ds[0x00BB00B0].value == "LabelData"
    assert 0x00BBB001 not in ds
    assert open_labelled_dicom(path).points == points
    assert open_labelled(path).points == points
    read = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    np.testing.assert_array_equal(read, image())


def test_an_odd_number_of_voxels_is_padded_as_with_a_mask(tmp_path):
    odd = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    points = [ScanPoint("jaw", (2.5, 2.5, 2.5))]
    path, grid = tmp_path / "a.dcm", Grid((3, 3, 3))
    write_labelled_dicom_slabs(path, [(odd, None)], grid, odd.dtype, points=points)
    scan = open_labelled_dicom(path)
    assert scan.points == tuple(points)
    np.testing.assert_array_equal(scan.read_image(0, 3), odd)


POINT = {"object": "jaw", "z": 1, "y": 2, "x": 3}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "its points must be JSON"),
        ("[]", "its points must be a list of at least one; got []"),
        ('{"jaw": 1}', "its points must be a list of at least one"),
        ([POINT | {"object": 0}], "a name or a label value 1 to 255 under object"),
        ([POINT | {"object": ""}], "a name or a label value 1 to 255 under object"),
        ([POINT | {"z": "1"}], "numbers under z, y and x; got "),
        ([POINT | {"z": float("nan")}], "numbers under z, y and x; got "),
        ([POINT | {"z": 10**400}], "numbers under z, y and x; got "),
        ("[" * 100_000, "its points must be JSON"),
        ([POINT | {"z": 13}], "a point must lie in its scan"),
        ([POINT, POINT], "an object has one point in a scan; 'jaw' has (1, 2, 3) and (1, 2, 3)"),
    ],
)
def test_an_element_that_is_refused(tmp_path, text, said):
    path = write_points(tmp_path / "a.dcm", ScanPoint("jaw", (1, 2, 3)))
    ds = pydicom.dcmread(path)
    ds[0x00BBB002].value = text if isinstance(text, str) else json.dumps(text)
    ds.save_as(path)
    with pytest.raises(InputError) as error:
        open_labelled_dicom(path)
    assert str(error.value).startswith("a.dcm: ")
    assert said in str(error.value)


def test_an_element_whose_text_is_damaged_is_refused(tmp_path):
    """Regression: pydicom raised while the value was taken, where nothing turned its errors."""
    path = write_points(tmp_path / "a.dcm", ScanPoint("jaw", (1, 2, 3)))
    content = path.read_bytes()
    element = bytes.fromhex("bb0002b0") + b"UT"
    assert content.count(element) == 1
    path.write_bytes(content.replace(element, element[:4] + b"SV"))
    with pytest.raises(InputError, match=r"^a\.dcm: "):
        open_labelled_dicom(path)


def test_a_mask_and_points_are_refused_and_anothers_element_is_left_alone(tmp_path):
    path = write_points(tmp_path / "a.dcm", ScanPoint("jaw", (1, 2, 3)))
    ds = pydicom.dcmread(path)
    ds.add_new(0x00BBB001, "OB", bytes(int(np.prod(SHAPE))))
    ds.save_as(path)
    with pytest.raises(InputError, match=r"has a mask or points; it has a mask and 1 point$"):
        open_labelled_dicom(path)
    ds[0x00BB00B0].value = "Somebody else"
    ds.save_as(path)
    assert open_labelled_dicom(path).points == ()


def test_a_writer_gets_a_mask_or_points(tmp_path):
    grid, points = Grid(SHAPE), [ScanPoint("jaw", (1, 2, 3))]
    for mask, given in ((None, ()), (np.ones(SHAPE, np.uint8), points)):
        with pytest.raises(ValueError, match="a mask or points, and not both"):
            write_labelled_dicom_slabs(
                tmp_path / "a.dcm", [(image(), mask)], grid, np.dtype("u2"), points=given
            )
    assert not (tmp_path / "a.dcm").exists()


# --- examples ---------------------------------------------------------------------------------


def test_centroids_given_as_points_make_the_same_examples_as_their_masks(tmp_path):
    """The heart of it: what the network is taught does not depend on how a position was given."""
    rng = np.random.default_rng(0)
    for number in range(4):
        mask = np.zeros(SHAPE, np.uint8)
        places = rng.integers((2, 2, 2), (9, 7, 6), (2, 3))
        for label, (z, y, x) in enumerate(places, 1):
            mask[z : z + 3, y : y + 2, x : x + 2] = label
        masked = tmp_path / "masks" / "dicoms" / f"{number}.dcm"
        masked.parent.mkdir(parents=True, exist_ok=True)
        write_labelled_dicom(masked, image(number), mask, Grid(SHAPE, SPACING))
        names = {1: "left", 2: 2}  # by name and by label value
        points = [
            ScanPoint(names[label], tuple(np.argwhere(mask == label).mean(axis=0).tolist()))
            for label in (2, 1)
            if (mask == label).any()
        ]
        write_points(tmp_path / "points" / "dicoms" / f"{number}.dcm", *points, seed=number)
    config = CacheConfig(downsampled_dicom_size=SMALL, objects={"left": (1,), "right": (2,)})
    from_masks, from_points = (cached(config, tmp_path / name) for name in ("masks", "points"))
    for a, b in zip(from_masks, from_points, strict=True):
        np.testing.assert_allclose(a.points_voxels, b.points_voxels, rtol=0, atol=1e-6)
        first, second = a.read(), b.read()
        np.testing.assert_array_equal(first.image, second.image)
        assert (a.grid, a.source_grid, a.scan_id) == (b.grid, b.source_grid, b.scan_id)
        assert first.mask is not None
        assert second.mask is None
        assert (a.has_mask, b.has_mask) == (True, False)


def test_a_cached_scan_with_points_is_reused_verified_and_made_again(tmp_path):
    config = CacheConfig(downsampled_dicom_size=SMALL, dicom_dirs=("dicoms",))
    source = write_points(tmp_path / "dicoms" / "a.dcm", ScanPoint("jaw", (11.5, 9.5, 8.5)))
    (first,) = cached(config, tmp_path)
    np.testing.assert_allclose(first.points_voxels, [[5.5, 3.5, 2.5]])
    assert build_cache([source], config, base=tmp_path, progress=False).reused == 1
    assert [status.status for status in verify_cache(config, base=tmp_path)] == ["ok"]
    write_points(source, ScanPoint("jaw", (0, 0, 0)))
    assert [status.status for status in verify_cache(config, base=tmp_path)] == ["stale"]
    (second,) = cached(config, tmp_path)
    np.testing.assert_allclose(second.points_voxels[0], 0.5 * np.array(SMALL) / SHAPE - 0.5)
    assert second.key != first.key


@pytest.mark.parametrize("in_cache", [False, True])
@pytest.mark.parametrize(
    ("points", "objects", "said"),
    [
        (
            [ScanPoint("eye", (1, 2, 3))],
            ANY,
            "a.dcm: every scan must show the object; it has no point of 'jaw' (label values any), "
            "but points of 'eye'",
        ),
        (
            [ScanPoint("eye", (1, 2, 3)), ScanPoint(4, (1, 2, 3))],
            {"jaw": (1,), "ear": (2,)},
            "it has no point of 'jaw' (label values [1]) or 'ear' (label values [2]), but points "
            "of 'eye' and the label values [4]",
        ),
        (
            [ScanPoint(1, (1, 2, 3)), ScanPoint(2, (1, 2, 3))],
            ANY,
            "a.dcm: an object has one point in a scan; 'jaw' has 2, those of label value 1 and "
            "label value 2",
        ),
        (
            [ScanPoint("jaw", (1, 2, 3)), ScanPoint(2, (1, 2, 3))],
            {"jaw": (2,)},
            "'jaw' has 2, those of 'jaw' and label value 2",
        ),
    ],
)
def test_points_of_no_object_or_of_one_twice_are_refused(tmp_path, points, objects, said, in_cache):
    """Guards against a training on the wrong points; also where the objects change later."""
    path = write_points(tmp_path / "dicoms" / "a.dcm", *points)
    config = CacheConfig(downsampled_dicom_size=SMALL, objects=objects)
    if in_cache:
        every = {str(p.object): (p.object,) for p in points if not isinstance(p.object, str)}
        every |= {p.object: (9,) for p in points if isinstance(p.object, str)}
        build_cache([path], replace(config, objects=every), base=tmp_path, progress=False)
    with pytest.raises(InputError) as error:
        build_cache([path], config, base=tmp_path, progress=False)
    assert said in str(error.value)


def test_a_scan_may_lack_some_points(tmp_path):
    write_points(tmp_path / "dicoms" / "a.dcm", ScanPoint("right", (1, 2, 3)))
    config = CacheConfig(downsampled_dicom_size=SMALL, objects={"left": (1,), "right": (2,)})
    (example,) = cached(config, tmp_path)
    assert np.isnan(example.points_voxels).tolist() == [[True] * 3, [False] * 3]
