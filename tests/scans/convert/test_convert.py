"""Images and labels -> labelled DICOMs: pairing, options, skips with their reasons, exactness."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
import tifffile
from PIL import Image

from jawloc.errors import InputError
from jawloc.geometry import Grid, Placement, voxels_to_lps_mm
from jawloc.scans.convert import convert, plan_conversion
from jawloc.scans.dicom import open_labelled_dicom, read_metadata, write_labelled_dicom
from jawloc.scans.dicom.writing import refuse_too_large
from jawloc.scans.listing import list_scans
from jawloc.scans.pairs import list_pairs, open_paired
from jawloc.scans.reading import open_scan, read_scan
from jawloc.scans.scan import ScanFile

SHAPE = (6, 5, 4)
SPACING = (0.06, 0.04, 0.02)
SHARED = Path(
    os.environ.get("JAWLOC_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data")
)


def quantisation(dtype: str = "uint16", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 250, shape).astype(dtype)


def labels(dtype: str = "uint8", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(1).choice([0, 1, 2, 255], shape).astype(dtype)


def save(path: Path, array: np.ndarray, spacing: tuple[float, ...] = SPACING) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, array, photometric="minisblack")
        return
    itk = SimpleITK.GetImageFromArray(array)
    itk.SetSpacing(spacing[::-1])
    SimpleITK.WriteImage(itk, str(path))


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path, Path]:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    return tmp_path / "images", tmp_path / "labels", tmp_path / "out"


def reasons(plan) -> dict[str, str | None]:
    return {item.scan_id: item.skip_reason for item in plan}


# --- pairing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("a.nii.gz", "a.nii.gz"),
        ("a.tif", "a.nrrd"),
        ("a.b.mha", "a.b_mask.tif"),
        ("a.nii", "a_label.nii"),
        ("a.nii", "a_labels.nii"),
        ("a.nii", "a_seg.nrrd"),
        ("Fisch_\xe4.nii", "Fisch_a\u0308_mask.nii"),  # a Mac's umlaut has two characters
        ("Fisch_a\u0308.nii", "Fisch_\xe4.nii"),
    ],
)
def test_scans_pair_by_name(folders, image, label):
    images, label_folder, out = folders
    save(images / image, quantisation())
    save(label_folder / label, labels())
    (item,) = plan_conversion(images, label_folder, out)
    assert (item.image, item.label, item.skip_reason) == (
        images / image,
        label_folder / label,
        None,
    )
    assert item.target == out / f"{image.removesuffix('.gz').rsplit('.', 1)[0]}.dcm"


def test_two_images_whose_names_look_the_same_are_refused(folders):
    images, label_folder, out = folders
    for name in ("\xe4", "a\u0308"):
        save(images / f"{name}.nii", quantisation())
    save(label_folder / "\xe4.nii", labels())
    with pytest.raises(InputError, match="two images must not share a scan id"):
        plan_conversion(images, label_folder, out)


def test_one_folder_for_images_and_labels(tmp_path):
    """Guards against an image that is taken for its own label."""
    save(tmp_path / "a.nii", quantisation())
    save(tmp_path / "a_mask.nii", labels())
    (item,) = plan_conversion(tmp_path, tmp_path, tmp_path / "out")
    assert (item.image, item.label) == (tmp_path / "a.nii", tmp_path / "a_mask.nii")


def test_one_file_each(tmp_path):
    save(tmp_path / "a.nii", quantisation())
    save(tmp_path / "a_seg.nii", labels())
    (item,) = plan_conversion(tmp_path / "a.nii", tmp_path / "a_seg.nii", tmp_path / "out")
    assert item.skip_reason is None


def test_plan_is_sorted_writes_nothing_and_says_each_skip_and_why(folders):
    """Guards the dry run: every reason by name, and no file or folder made."""
    images, label_folder, out = folders
    for name in ("good", "alone", "twice", "shape", "broken"):
        save(images / f"{name}.nii", quantisation())
    for name in ("good", "orphan", "twice", "twice_seg", "broken"):
        save(label_folder / f"{name}.nii", labels())
    save(label_folder / "shape.nii", labels(shape=(6, 5, 3)))
    (images / "broken.nii").write_bytes(b"x" * 400)
    (images / "notes.txt").write_text("not a scan")
    plan = plan_conversion(images, label_folder, out)
    told = reasons(plan)
    assert list(told) == sorted(told)
    assert told["good"] is None
    assert told["alone"] == "no label for alone"
    assert told["orphan"] == "no image for orphan.nii"
    assert told["twice"] == "several labels fit twice.nii: twice.nii, twice_seg.nii"
    assert "must have its image's shape" in told["shape"]
    assert "(6, 5, 4)" in told["shape"]
    assert "(6, 5, 3)" in told["shape"]
    assert told["broken"].startswith("broken.nii: a NIfTI file must begin with")
    assert not out.exists()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float64"])
def test_an_image_over_dicoms_limit_is_skipped_in_the_plan(folders, monkeypatch, dtype):
    """Regression: the dry run listed it as fine, and it was refused once all of it was read."""
    monkeypatch.setattr("jawloc.scans.dicom.writing._LARGEST_ELEMENT", 239)
    images, label_folder, out = folders
    save(images / "a.nii", quantisation(dtype))
    save(label_folder / "a.nii", labels())
    (item,) = plan_conversion(images, label_folder, out)
    said = (
        "a.dcm: a DICOM image must be under 4 GiB (4295.0 MB); (6, 5, 4) voxels (z, y, x) are "
        "240 bytes: crop it or halve its resolution, as well as its mask's"
    )
    assert item.skip_reason == (None if dtype == "uint8" else said)
    assert convert(item).skip_reason == item.skip_reason


def test_the_slice_that_an_odd_volume_gets_counts_for_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("jawloc.scans.dicom.writing._LARGEST_ELEMENT", 8 * 15 * 2 - 1)
    path, odd = tmp_path / "a.dcm", (7, 5, 3)
    with pytest.raises(InputError, match=r"\(7, 5, 3\) voxels \(z, y, x\) are 240 bytes"):
        refuse_too_large(path, odd, np.dtype(np.uint16))
    image = np.zeros(odd, np.uint16)
    with pytest.raises(InputError, match=r"\(7, 5, 3\) voxels \(z, y, x\) are 240 bytes"):
        write_labelled_dicom(path, image, np.ones(odd, np.uint8), Grid(odd))


def test_suffixed_label_of_another_image_is_not_borrowed(folders):
    """Guards `a_seg` being an image of its own: its label must not serve `a` as well."""
    images, label_folder, out = folders
    for name in ("a", "a_seg"):
        save(images / f"{name}.nii", quantisation())
        save(label_folder / f"{name}.nii", labels())
    plan = plan_conversion(images, label_folder, out)
    assert [(item.scan_id, item.label.name) for item in plan] == [
        ("a", "a.nii"),
        ("a_seg", "a_seg.nii"),
    ]


def test_two_images_with_one_id_are_refused(folders):
    images, label_folder, out = folders
    for ending in ("nii", "nrrd"):
        save(images / f"a.{ending}", quantisation())
    save(label_folder / "a.nii", labels())
    with pytest.raises(InputError, match=r"a: two images must not share .*a\.nii and a\.nrrd"):
        plan_conversion(images, label_folder, out)


def test_nothing_to_pair_is_refused(folders):
    images, label_folder, out = folders
    save(images / "a.nii", quantisation())
    save(label_folder / "b.nii", labels())
    with pytest.raises(
        InputError, match=r"a label must be named like its image.*images \(1\), such as a$"
    ):
        plan_conversion(images, label_folder, out)


def test_folders_that_are_swapped_are_asked_about(folders):
    images, label_folder, out = folders
    save(images / "a.nii", quantisation())
    save(label_folder / "a_mask.nii", labels())
    with pytest.raises(InputError, match=r"then the labels: are the two swapped\?$"):
        plan_conversion(label_folder, images, out)


def test_empty_folder_is_refused(folders):
    images, label_folder, out = folders
    save(images / "a.nii", quantisation())
    with pytest.raises(InputError, match="labels must hold scans"):
        plan_conversion(images, label_folder, out)


def test_missing_folder_is_refused(folders):
    images, label_folder, out = folders
    with pytest.raises(InputError, match="existing folder"):
        plan_conversion(images / "nowhere", label_folder, out)


def test_target_that_is_a_file_is_refused(folders):
    images, label_folder, out = folders
    out.write_text("x")
    with pytest.raises(InputError, match="need a folder"):
        plan_conversion(images, label_folder, out)


# --- what is written --------------------------------------------------------------------------


def convert_one(folders, image, label, **options):
    images, label_folder, out = folders
    save(images / "a.nii.gz", image)
    save(label_folder / "a.nii.gz", label)
    (item,) = plan_conversion(images, label_folder, out)
    return convert(item, **options), out


@pytest.mark.parametrize("shape", [SHAPE, (5, 7, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32", "float32"])
def test_conversion_is_exact_for_every_reader(folders, shape, dtype):
    """Guards values, mask and spacing from NIfTI to jawloc, pydicom, SimpleITK and the lab."""
    image = quantisation("int16", shape).clip(0, 120).astype(dtype)
    mask = labels(shape=shape)
    done, out = convert_one(folders, image, mask)
    assert (done.skip_reason, done.notes) == (None, ())
    scan = read_scan(out / "a.dcm")
    np.testing.assert_array_equal(scan.image, image)
    np.testing.assert_array_equal(scan.mask, mask)
    assert scan.grid.spacing_mm_zyx == pytest.approx(SPACING, rel=1e-6)
    ds = pydicom.dcmread(out / "a.dcm")
    np.testing.assert_array_equal(ds.pixel_array[: shape[0]], image)
    if image.size % 2:  # the frame more that the documentation speaks of
        assert ds.pixel_array.shape[0] == shape[0] + 1
        np.testing.assert_array_equal(ds.pixel_array[-1], image[-1])
        assert not any(ds[0x00BBB001].value[image.size :])
    raw = np.frombuffer(ds[0x00BBB001].value, np.uint8)
    raw = raw.reshape(int(ds.NumberOfFrames), ds.Rows, ds.Columns)
    np.testing.assert_array_equal(raw[: shape[0]], mask)
    itk = SimpleITK.ReadImage(str(out / "a.dcm"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(itk)[: shape[0]], image)
    assert itk.GetSpacing() == pytest.approx(SPACING[::-1], rel=1e-6)
    assert read_metadata(out / "a.dcm")["image"] == "a.nii.gz"


@pytest.mark.parametrize(
    "image",
    [
        np.random.default_rng(0).normal(size=SHAPE).astype(np.float32),
        np.random.default_rng(0).normal(size=SHAPE) * 1e-7,
        np.random.default_rng(0).integers(-100_000, 100_000, SHAPE).astype(np.int32),
        np.full(SHAPE, 0.5, np.float32),
    ],
    ids=["fractions", "tiny", "wide integers", "constant"],
)
def test_other_greys_are_rescaled_to_16_bits_with_a_note(folders, image):
    """Guards the way back: slope * stored + intercept is within half a step of the original."""
    done, out = convert_one(folders, image, labels())
    assert done.skip_reason is None
    assert any("grey values became 16-bit" in note for note in done.notes)
    ds = pydicom.dcmread(out / "a.dcm")
    slope, intercept = float(ds.RescaleSlope), float(ds.RescaleIntercept)
    back = ds.pixel_array * slope + intercept
    np.testing.assert_allclose(back, image, rtol=0, atol=0.501 * slope)
    itk = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(out / "a.dcm")))
    np.testing.assert_allclose(itk, back, rtol=1e-6, atol=1e-3 * slope)


def test_folder_of_slices_becomes_one_scan(folders):
    images, label_folder, out = folders
    image, mask = quantisation(shape=(12, 5, 4)), labels(shape=(12, 5, 4))
    for n in range(12):
        save(images / "fish" / f"slice_{n}.tif", image[n])
        save(label_folder / "fish_mask" / f"{n}.tif", mask[n])
    (item,) = plan_conversion(images, label_folder, out)
    assert convert(item, spacing_mm_zyx=SPACING).notes == ()
    scan = read_scan(out / "fish.dcm")
    np.testing.assert_array_equal(scan.image, image)
    np.testing.assert_array_equal(scan.mask, mask)
    assert scan.grid.spacing_mm_zyx == SPACING


def test_slabs_join_without_a_seam(folders, monkeypatch):
    """Guards streaming: many slabs give the volume that one gives."""
    monkeypatch.setattr("jawloc.scans.scan.SLAB_BYTES", 100)
    image, mask = quantisation("float32", (11, 5, 3)), labels(shape=(11, 5, 3))
    _, out = convert_one(folders, image, mask)
    scan = read_scan(out / "a.dcm")
    np.testing.assert_array_equal(scan.image, image)
    np.testing.assert_array_equal(scan.mask, mask)


def test_labelled_dicom_as_label_gives_its_mask(folders):
    images, label_folder, out = folders
    save(images / "a.nii", quantisation())
    grid = open_scan(images / "a.nii").grid
    write_labelled_dicom(label_folder / "a.dcm", quantisation("uint8"), labels(), grid)
    (item,) = plan_conversion(images, label_folder, out)
    convert(item)
    np.testing.assert_array_equal(read_scan(out / "a.dcm").mask, labels())


# --- the place in patient space ---------------------------------------------------------------

OBLIQUE = (0.8, -0.6, 0.0, 0.48, 0.64, -0.6, 0.36, 0.48, 0.8)
PLACES = {
    "shifted": (1, 0, 0, 0, 1, 0, 0, 0, 1),
    "oblique": OBLIQUE,
    "swapped": (0, 1, 0, 1, 0, 0, 0, 0, -1),
    "left-handed": tuple(np.multiply(OBLIQUE, (1, 1, -1) * 3)),
}


def corners_lps(scan: ScanFile) -> np.ndarray:
    """Return the first and the last voxel, and a point between voxels, in mm (z, y, x)."""
    points = np.array([(0, 0, 0), np.subtract(scan.grid.shape_zyx, 1), (1.5, 2.25, 3.0)])
    found = voxels_to_lps_mm(points, scan.grid, scan.read_placement())
    assert found is not None
    return found


def convert_placed(folder: Path, name: str, direction, shape=SHAPE) -> tuple[ScanFile, ScanFile]:
    """Convert an image that lies so, and return it and its labelled DICOM."""
    (folder / "images").mkdir()
    itk = SimpleITK.GetImageFromArray(quantisation(shape=shape))
    itk.SetSpacing(SPACING[::-1])
    itk.SetOrigin((-12.5, 30.25, 1007.75))
    itk.SetDirection([float(v) for v in direction])
    mask = SimpleITK.GetImageFromArray(labels(shape=shape))
    mask.CopyInformation(itk)
    for image, file in ((itk, name), (mask, name.replace(".", "_mask."))):
        SimpleITK.WriteImage(image, str(folder / "images" / file))
    (item,) = plan_conversion(folder / "images", folder / "images", folder / "out")
    done = convert(item)
    assert (done.skip_reason, done.notes) == (None, ())
    return open_scan(folder / "images" / name), open_scan(done.target)


@pytest.mark.parametrize("shape", [SHAPE, (5, 7, 3)], ids=["even", "odd"])
@pytest.mark.parametrize("direction", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("ending", ["nii", "nrrd", "mha"])
def test_a_voxel_lies_where_it_lay_before_the_conversion(tmp_path, ending, direction, shape):
    """Regression: every labelled DICOM lay at the origin, with axes along the patient's."""
    original, written = convert_placed(tmp_path, f"a.{ending}", direction, shape)
    # NIfTI has single precision, in which axes are at right angles to seven digits
    np.testing.assert_allclose(corners_lps(written), corners_lps(original), rtol=0, atol=1e-7)


@pytest.mark.parametrize("direction", list(PLACES.values())[:3], ids=list(PLACES)[:3])
def test_another_program_finds_a_labelled_dicom_where_its_image_lies(tmp_path, direction):
    original, written = convert_placed(tmp_path, "a.nrrd", direction)
    one, other = (SimpleITK.ReadImage(str(scan.path)) for scan in (original, written))
    for voxel in ((0, 0, 0), (3, 4, 5)):
        here, there = (itk.TransformIndexToPhysicalPoint(voxel) for itk in (one, other))
        assert there == pytest.approx(here, abs=1e-5)


def test_a_labelled_dicom_of_another_one_lies_where_that_lies(tmp_path):
    """Guards the way from DICOM to DICOM, in which the padding is left out and made anew."""
    _, written = convert_placed(tmp_path, "a.nrrd", OBLIQUE, (5, 7, 3))
    (item,) = plan_conversion(written.path, tmp_path / "images" / "a_mask.nrrd", tmp_path / "again")
    again = open_scan(convert(item).target)
    np.testing.assert_allclose(corners_lps(again), corners_lps(written), rtol=0, atol=1e-9)


def test_an_image_without_a_place_is_written_at_the_origin(folders):
    """Guards the voxel size, which other readers take from a file with positions only."""
    images, label_folder, out = folders
    save(images / "a.tif", quantisation())
    save(label_folder / "a.tif", labels())
    (item,) = plan_conversion(images, label_folder, out)
    convert(item, spacing_mm_zyx=SPACING)
    assert open_scan(out / "a.dcm").read_placement() == Placement()
    itk = SimpleITK.ReadImage(str(out / "a.dcm"))
    assert itk.GetSpacing() == pytest.approx(SPACING[::-1], rel=1e-6)


# --- options ----------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [[1], [2, 255]])
def test_only_the_wanted_label_values_stay(folders, keep):
    done, out = convert_one(folders, quantisation(), labels(), label_values=keep)
    assert done.skip_reason is None
    expected = np.where(np.isin(labels(), keep), labels(), 0)
    np.testing.assert_array_equal(read_scan(out / "a.dcm").mask, expected)
    assert read_metadata(out / "a.dcm")["label_values"] == keep


@pytest.mark.parametrize("keep", [[], [0], [256], [-1], [1.5]])
def test_impossible_label_values_are_refused(folders, keep):
    with pytest.raises(InputError, match="label values: must be whole numbers 1 to 255"):
        convert_one(folders, quantisation(), labels(), label_values=keep)


@pytest.mark.parametrize("spacing", [(1, 1), (0, 1, 1), (1, -1, 1), (1, 1, float("nan"))])
def test_impossible_spacing_is_refused(folders, spacing):
    with pytest.raises(InputError, match="spacing: must be three positive numbers"):
        convert_one(folders, quantisation(), labels(), spacing_mm_zyx=spacing)


@pytest.mark.parametrize(
    ("image", "label", "given", "expected", "note"),
    [
        ("a.tif", "a.tif", None, None, None),
        ("a.tif", "a.tif", (0.1, 0.2, 0.3), (0.1, 0.2, 0.3), None),
        ("a.mha", "a.tif", None, SPACING, None),
        ("a.mha", "a.mha", SPACING, SPACING, None),
        ("a.mha", "a.mha", (0.1, 0.2, 0.3), (0.1, 0.2, 0.3), "replaces the image's"),
        ("a.tif", "a.mha", None, SPACING, "is that of the label, a.mha; the image has none"),
    ],
)
def test_spacing_comes_from_the_option_the_image_or_the_label(
    folders, image, label, given, expected, note
):
    images, label_folder, out = folders
    save(images / image, quantisation())
    save(label_folder / label, labels())
    (item,) = plan_conversion(images, label_folder, out)
    done = convert(item, spacing_mm_zyx=given)
    assert open_labelled_dicom(out / "a.dcm").grid.spacing_mm_zyx == expected
    assert len(done.notes) == (note is not None)
    assert note is None or note in done.notes[0]


@pytest.mark.parametrize(
    ("spacing", "known"),
    [((1, 1, 1), False), ((1, 25.4 / 96, 25.4 / 96), False), ((2, 1, 1), True)],
    ids=["1 mm", "pixels per inch", "stated"],
)
def test_a_spacing_that_a_program_made_up_for_the_label_stays_unknown(folders, spacing, known):
    """Regression: a TIFF's mask that 3D Slicer saved gave the scan voxels of 1 mm."""
    images, label_folder, out = folders
    save(images / "a.tif", quantisation())
    save(label_folder / "a.nrrd", labels(), spacing)
    (item,) = plan_conversion(images, label_folder, out)
    (note,) = convert(item).notes
    assert ("the image has none" if known else "may be made up: it counts as unknown") in note
    written = open_scan(out / "a.dcm").grid
    assert written.spacing_mm_zyx == (spacing if known else None)
    with pytest.warns(UserWarning, match=f"^a.tif: {re.escape(note)}$"):
        paired = open_paired(list_pairs(images, label_folder)[0])
    assert paired.grid == written


NO_SPACING = {
    "a.nrrd": b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 5 4 6\nencoding: raw\n\n",
    "a.mha": b"NDims = 3\nDimSize = 5 4 6\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n",
    "a.nii": b"",
    "a.nii.gz": b"",
    "a.tif": b"",
}


@pytest.mark.parametrize("name", NO_SPACING)
def test_spacing_that_no_file_states_stays_unknown(folders, name):
    """Guards a labelled DICOM against a spacing of 1 mm, the default of other readers."""
    images, label_folder, out = folders
    grey = np.arange(120, dtype=np.uint8)
    voxels = {images: grey, label_folder: grey // 60}
    for folder, values in voxels.items():
        values = values.reshape(6, 4, 5)
        if NO_SPACING[name]:
            (folder / name).write_bytes(NO_SPACING[name] + values.tobytes())
        else:
            save(folder / name, values)
        if ".nii" in name:
            content = bytearray(content_of(folder / name))
            content[80:92] = bytes(12)  # pixdim
            content[252:256] = bytes(4)  # the codes of qform and sform
            packed = gzip.compress(content, mtime=0) if name.endswith(".gz") else content
            (folder / name).write_bytes(packed)
    (item,) = plan_conversion(images, label_folder, out)
    assert convert(item).notes == ()
    written = open_scan(out / "a.dcm")
    assert (written.grid.spacing_mm_zyx, written.read_placement()) == (None, None)
    np.testing.assert_array_equal(written.read_image(0, 6).ravel(), voxels[images])
    header = str(pydicom.dcmread(out / "a.dcm", stop_before_pixels=True))
    for keyword in ("Pixel Spacing", "Slice Thickness", "Spacing Between Slices", "Pixel Measures"):
        assert keyword not in header


def content_of(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


@pytest.mark.parametrize("turned", [False, True])
def test_label_in_another_orientation_is_noted(folders, turned):
    """Guards against labels stored mirrored: voxels are paired by index."""
    images, label_folder, out = folders
    save(images / "a.mha", quantisation())
    itk = SimpleITK.GetImageFromArray(labels())
    if turned:
        itk.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
    SimpleITK.WriteImage(itk, str(label_folder / "a.mha"))
    (item,) = plan_conversion(images, label_folder, out)
    assert any("another orientation" in note for note in convert(item).notes) is turned


@pytest.mark.parametrize("differs", [False, True])
def test_a_label_of_another_spacing_is_noted(folders, differs):
    """Regression: the label's spacing was not looked at where the image has one."""
    images, label_folder, out = folders
    for folder, voxels, mm in ((images, quantisation(), 0.05), (label_folder, labels(), 0.06)):
        itk = SimpleITK.GetImageFromArray(voxels)
        itk.SetSpacing((0.05, 0.05, mm if differs else 0.05))
        SimpleITK.WriteImage(itk, str(folder / "a.mha"))
    (item,) = plan_conversion(images, label_folder, out)
    notes = convert(item).notes
    assert any("another spacing, (0.06, 0.05, 0.05) mm" in note for note in notes) is differs


@pytest.mark.parametrize("direction", [PLACES["shifted"], OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize(("voxels", "noted"), [(0.0, False), (0.4, False), (0.6, True), (9, True)])
def test_a_label_that_lies_elsewhere_is_noted(folders, direction, voxels, noted):
    """Regression: the mask of another scan of the same shape was used without a line."""
    images, label_folder, out = folders
    for folder, array, index in ((images, quantisation(), 0.0), (label_folder, labels(), voxels)):
        itk = SimpleITK.GetImageFromArray(array)
        itk.SetSpacing((0.05, 0.04, 0.03))
        itk.SetDirection([float(v) for v in direction])
        itk.SetOrigin((1.0, 2.0, 3.0))
        itk.SetOrigin(itk.TransformContinuousIndexToPhysicalPoint((0.0, index, 0.0)))
        SimpleITK.WriteImage(itk, str(folder / "a.mha"))
    (item,) = plan_conversion(images, label_folder, out)
    said = f"a.mha lies elsewhere than a.mha, {0.04 * voxels:.3g} mm away: check that they match"
    assert convert(item).notes == ((said,) if noted else ())


# --- skips while converting; nothing half-made --------------------------------------------------


def test_empty_mask_is_skipped_by_name(folders):
    done, out = convert_one(folders, quantisation(), np.zeros(SHAPE, np.uint8))
    assert done.skip_reason.startswith("a.nii.gz: the mask is empty; ")
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("mask", "label_values", "refused"),
    [
        (np.where(labels() == 2, 2, 1), None, True),  # the background is 1
        (np.where(labels() == 2, 2, 1), [2], False),
        (quantisation() + 1, None, True),  # the image again
    ],
)
def test_a_mask_without_background_is_skipped(folders, mask, label_values, refused):
    """Regression: the centroid of such a mask, the scan's centre, was taken for the object's."""
    values = {} if label_values is None else {"label_values": label_values}
    done, out = convert_one(folders, quantisation() + 1, mask.astype(np.uint8), **values)
    assert (done.skip_reason or "").startswith("a.nii.gz: a mask needs voxels of bac") is refused
    assert (list(out.iterdir()) == []) is refused


def test_mask_without_the_wanted_values_is_skipped(folders):
    done, out = convert_one(folders, quantisation(), labels(), label_values=[7])
    assert "the mask is empty with the label values [7]" in done.skip_reason
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "keep", "fine"),
    [
        (2.0, None, True),
        (1.5, None, False),
        (300, None, False),
        (-1, None, False),
        (300, [1], True),
    ],
)
def test_label_values_must_be_whole_and_fit_a_byte(folders, value, keep, fine):
    """Guards float labels (fine if whole) and values that would wrap to another label."""
    mask = np.ones(SHAPE, np.float32)
    mask[2], mask[3] = 0, value
    done, out = convert_one(folders, quantisation(), mask, label_values=keep)
    if fine:
        assert done.skip_reason is None
    else:
        assert f"whole numbers 0 to 255; one is {value}" in done.skip_reason
        assert list(out.iterdir()) == []


def test_label_that_breaks_off_is_skipped(folders):
    images, label_folder, out = folders
    save(images / "a.nii", quantisation())
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(labels()), label_folder / "a.mha", True)
    content = (label_folder / "a.mha").read_bytes()
    (label_folder / "a.mha").write_bytes(content[:-6])
    (item,) = plan_conversion(images, label_folder, out)
    assert convert(item).skip_reason.startswith("a.mha: ")
    assert list(out.iterdir()) == []


def test_existing_file_is_left_alone(folders):
    """Guards a second run: it converts nothing again, and says so."""
    done, out = convert_one(folders, quantisation(), labels())
    before = (out / "a.dcm").read_bytes()
    again = plan_conversion(*folders[:2], out)
    assert reasons(again) == {"a": "a.dcm exists"}
    assert convert(again[0]) == again[0]
    assert convert(done).skip_reason == "a.dcm exists"  # made since it was planned
    assert (out / "a.dcm").read_bytes() == before


@pytest.mark.parametrize("changed", ["images", "labels"])
def test_a_file_that_was_put_right_since_is_named(folders, changed):
    """Regression: a corrected mask was skipped like any scan that exists."""
    _, out = convert_one(folders, quantisation(), labels())
    (file,) = (folders[0].parent / changed).iterdir()
    made = (out / "a.dcm").stat().st_mtime_ns
    os.utime(file, ns=(made, made + 1))
    assert reasons(plan_conversion(*folders[:2], out)) == {
        "a": f"a.dcm exists, and {file.name} is newer: to convert the scan anew, move a.dcm away"
    }


@pytest.mark.parametrize(
    ("before", "now", "what"),
    [
        ({}, {"spacing_mm_zyx": SPACING}, ""),
        ({}, {"spacing_mm_zyx": (0.1, 0.1, 0.2)}, f"the spacing {SPACING} mm instead of (0.1, "),
        ({"label_values": [2, 1]}, {"label_values": [1, 2, 2]}, ""),
        ({"label_values": [2, 1]}, {}, "the label values 1, 2 instead of all label values"),
        ({}, {"label_values": [1]}, "all label values instead of the label values 1"),
        ({"spacing_mm_zyx": (0.1, 0.1, 0.2)}, {}, ""),  # the first time, somebody knew it
    ],
)
def test_what_was_made_with_other_options_is_named(folders, before, now, what):
    """Regression: a second run, with the spacing that was forgotten, changed nothing in silence."""
    _, out = convert_one(folders, quantisation(), labels(), **before)
    (item,) = plan_conversion(*folders[:2], out, **now)
    assert item.skip_reason is not None
    assert item.skip_reason.startswith(f"a.dcm exists, with {what}" if what else "a.dcm exists")
    assert item.skip_reason.endswith("move a.dcm away" if what else "a.dcm exists")


def test_target_that_cannot_be_written_is_skipped(folders):
    images, label_folder, out = folders
    save(images / "a.nii", quantisation())
    save(label_folder / "a.nii", labels())
    (item,) = plan_conversion(images, label_folder, out)
    out.write_text("a file where the folder should be")
    assert convert(item).skip_reason.startswith("a.dcm: can't be written")


@pytest.mark.skipif(not (SHARED / "hippocampus").is_dir(), reason="needs shared/data/hippocampus")
def test_real_pairs_convert(tmp_path):
    """Guards the real data set's mixture of types: whole and fractional greys, float labels."""
    root = SHARED / "hippocampus"
    plan = plan_conversion(root / "images", root / "labels", tmp_path)
    assert len(plan) == 200
    for item in plan[::25]:
        assert convert(item).skip_reason is None
        scan = read_scan(item.target)
        np.testing.assert_array_equal(scan.mask, read_scan(item.label).image)
        assert scan.grid == open_scan(item.image).grid


# --- what people confuse ----------------------------------------------------------------------


def test_labels_and_images_the_wrong_way_round_are_refused(folders):
    """Regression: an 8-bit image was taken for a mask, and every voxel of it for the jaw."""
    images, label_folder, out = folders
    save(images / "a.nii", labels())
    save(label_folder / "a.nii", quantisation("uint8"))
    (item,) = plan_conversion(images, label_folder, out)
    done = convert(item)
    assert done.skip_reason is not None
    assert done.skip_reason.startswith("a.nii: a mask has fewer values than its image; in ")
    assert done.skip_reason.endswith("images come first, then labels")
    assert not out.exists() or not list(out.iterdir())


def test_an_image_of_few_grey_values_still_has_its_mask(folders):
    images, label_folder, out = folders
    save(images / "a.nii", quantisation() // 60)
    save(label_folder / "a.nii", np.arange(120, dtype=np.uint8).reshape(SHAPE) % 7)
    assert convert(*plan_conversion(images, label_folder, out)).skip_reason is None


@pytest.mark.parametrize("kind", ["png", "dcm"])
def test_a_folder_of_slices_given_by_itself_is_one_scan(folders, kind):
    """Regression: only the folder above it was accepted."""
    images, label_folder, out = folders
    folder = images / "fish"
    image = quantisation()
    folder.mkdir()
    if kind == "png":
        for number, plane in enumerate(image):
            Image.fromarray(plane.astype(np.uint8)).save(folder / f"s{number:03}.png")
    else:
        itk = SimpleITK.GetImageFromArray(image)
        for number in range(len(image)):
            plane = itk[:, :, number]
            tags = {"0020|000e": "1.2.3", "0020|0013": str(number + 1), "0008|0060": "CT"}
            tags["0020|0032"] = f"0\\0\\{number}"
            for key, value in tags.items():
                plane.SetMetaData(key, value)
            writer = SimpleITK.ImageFileWriter()
            writer.KeepOriginalImageUIDOn()
            writer.SetFileName(str(folder / f"s{number:03}.dcm"))
            writer.Execute(plane)
    save(label_folder / "fish.nii", labels())
    (item,) = plan_conversion(folder, label_folder, out)
    assert (item.scan_id, item.image, item.skip_reason) == ("fish", folder, None)
    assert convert(item).skip_reason is None
    assert (out / "fish.dcm").is_file()


def test_a_folder_of_slices_is_named_after_itself_where_it_is_the_current_one(folders, monkeypatch):
    images, label_folder, out = folders
    folder = images / "fish"
    folder.mkdir()
    for number, plane in enumerate(quantisation("uint8")):
        Image.fromarray(plane).save(folder / f"s{number:03}.png")
    save(label_folder / "fish.nii", labels())
    monkeypatch.chdir(folder)
    (item,) = plan_conversion(Path(), label_folder, out)
    assert (item.scan_id, item.skip_reason) == ("fish", None)


def test_previews_beside_volumes_are_no_scan(folders):
    """Regression: the folder was taken for a stack of slices, and its volumes were not found."""
    images, label_folder, out = folders
    for name in "ab":
        save(images / f"{name}.nii", quantisation())
        save(label_folder / f"{name}.nii", labels())
        Image.fromarray(quantisation("uint8")[0]).save(images / f"{name}.png")
    assert reasons(plan_conversion(images, label_folder, out)) == {"a": None, "b": None}
    assert [scan.name for scan in list_scans([images])] == ["a", "b"]
