"""Readers of scans without a mask: series, TIFFs and volumes, and what they refuse."""

from __future__ import annotations

import gzip
import logging
import os
import re
import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
import tifffile
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from jawloc.errors import InputError
from jawloc.scans import tiff
from jawloc.scans.reading import open_scan, read_scan

SHAPE = (6, 5, 4)
SHARED = Path(
    os.environ.get("JAWLOC_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data")
)


def volume(dtype: str = "uint16", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


# --- TIFF -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"byteorder": ">"},
        {"compression": "zlib"},
        {"compression": "zlib", "byteorder": ">"},
        {"volumetric": True, "tile": (2, 16, 16)},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_tiff_of_any_layout_is_read_page_by_page(tmp_path, options, dtype):
    """Guards blocks, pages, compressed pages, tiles and byte order."""
    image = volume(dtype)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack", **options)
    scan = open_scan(tmp_path / "a.tif")
    assert (scan.dtype, scan.grid.shape_zyx, scan.grid.spacing_mm_zyx) == (dtype, SHAPE, None)
    np.testing.assert_array_equal(scan.read_image(0, 6), image)
    one = scan.read_image(4, 5)
    assert (one.shape, one.dtype.isnative) == ((1, 5, 4), True)
    np.testing.assert_array_equal(one, image[4:5])


def test_tiff_of_separate_pages_is_one_volume(tmp_path):
    image = volume()
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in image:
            writer.write(page, contiguous=False, metadata=None)
    np.testing.assert_array_equal(read_scan(tmp_path / "a.tif").image, image)


def test_binary_tiff_mask_is_read(tmp_path):
    mask = volume() > 100
    tifffile.imwrite(tmp_path / "a.tif", mask, photometric="minisblack")
    np.testing.assert_array_equal(read_scan(tmp_path / "a.tif").image, mask)


@pytest.mark.parametrize(
    ("image", "options", "rule"),
    [
        (volume()[0], {}, "one volume"),
        (volume(shape=(2, 6, 5, 4)), {}, r"one volume .*\(2, 6, 5, 4\)"),
        (volume("uint8", (5, 4, 3)), {"photometric": "rgb"}, "colours"),
        (volume("uint8", (6, 5, 4, 3)), {"photometric": "rgb"}, "colours"),
        (volume().astype(np.complex64), {}, "must be numbers"),
    ],
    ids=["2-D", "4-D", "colour picture", "colour stack", "complex"],
)
def test_tiff_that_is_no_grey_volume_is_refused(tmp_path, image, options, rule):
    tifffile.imwrite(tmp_path / "a.tif", image, **({"photometric": "minisblack"} | options))
    with pytest.raises(InputError, match=rf"^a\.tif: .*{rule}"):
        open_scan(tmp_path / "a.tif")


def test_tiff_with_pages_of_two_shapes_is_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(volume(shape=(8, 8)), metadata=None)
        writer.write(volume(shape=(5, 7)), metadata=None)
    with pytest.raises(InputError, match="must form one volume"):
        open_scan(tmp_path / "a.tif")


def test_tiff_that_lost_its_last_pages_is_refused(tmp_path):
    """Guards against a shorter scan: tifffile only logs that the chain of pages breaks off."""
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for page in volume():
            writer.write(page, contiguous=False, metadata=None)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"^a\.tif: .*truncated"):
        open_scan(path)


def test_what_tifffile_logs_in_one_thread_is_no_other_threads(tmp_path, caplog):
    """Regression: while two were read at once, a sound file was refused for the broken one."""
    log = logging.getLogger("tifffile")
    with tiff._MESSAGES.collected() as own:
        with ThreadPoolExecutor(1) as other:
            other.submit(collect_one, log).result()
        log.warning("mine")
    assert own == ["mine"]
    assert caplog.messages == []
    log.warning("nobody reads a scan")
    assert caplog.messages == ["nobody reads a scan"]


def collect_one(log: logging.Logger) -> None:
    with tiff._MESSAGES.collected() as messages:
        log.warning("other's page offset")
    assert messages == ["other's page offset"]


def write_slices(folder: Path, image: np.ndarray, names: list[str]) -> None:
    folder.mkdir()
    for page, name in zip(image, names, strict=True):
        tifffile.imwrite(folder / name, page, photometric="minisblack")


def test_tiff_folder_is_in_natural_order(tmp_path):
    """Guards slice_2 before slice_10, which plain sorting gets wrong."""
    image = volume(shape=(12, 5, 4))
    write_slices(tmp_path / "fish", image, [f"slice_{n}.tif" for n in range(12)])
    scan = open_scan(tmp_path / "fish")
    assert (scan.scan_id, scan.grid.shape_zyx) == ("fish", (12, 5, 4))
    np.testing.assert_array_equal(scan.read_image(0, 12), image)
    np.testing.assert_array_equal(scan.read_image(9, 11), image[9:11])


def test_other_files_beside_slices_are_left_out(tmp_path):
    image = volume()
    write_slices(tmp_path / "fish", image, [f"{n}.TIFF" for n in range(6)])
    (tmp_path / "fish" / "log.txt").write_text("x")
    (tmp_path / "fish" / "._0.TIFF").write_text("x")
    np.testing.assert_array_equal(read_scan(tmp_path / "fish").image, image)


def test_tiff_folder_with_unlike_slices_is_refused(tmp_path):
    write_slices(tmp_path / "fish", volume(), [f"{n}.tif" for n in range(6)])
    tifffile.imwrite(tmp_path / "fish" / "6.tif", volume()[0, :4])
    with pytest.raises(InputError, match=r"^fish: slices must be alike; 0\.tif .*6\.tif"):
        open_scan(tmp_path / "fish")


def test_tiff_folder_of_3d_files_is_refused(tmp_path):
    write_slices(tmp_path / "fish", np.stack([volume(), volume()]), ["a.tif", "b.tif"])
    with pytest.raises(InputError, match=r"^fish: its slices must be 2-D"):
        open_scan(tmp_path / "fish")


def test_tiff_folder_of_one_slice_is_refused(tmp_path):
    write_slices(tmp_path / "fish", volume()[:1], ["a.tif"])
    with pytest.raises(InputError, match=r"^fish: .*at least two slices; it has 1"):
        open_scan(tmp_path / "fish")


def test_folder_without_slices_is_refused(tmp_path):
    (tmp_path / "fish").mkdir()
    (tmp_path / "fish" / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"^fish: .*2-D TIFFs, BMPs, PNGs or a DICOM"):
        open_scan(tmp_path / "fish")


# --- DICOM series -----------------------------------------------------------------------------


def write_series(folder: Path, image: np.ndarray, **change) -> None:
    """One file a slice, along an oblique normal, named and numbered against their order."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.array([1, 0, 0, 0, 0.8, -0.6])
    normal = np.cross(rows[:3], rows[3:])
    series = generate_uid()
    for number, page in enumerate(image):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
        ds.SeriesInstanceUID, ds.SeriesDescription = series, "head"
        ds.InstanceNumber = 100 - number
        ds.PixelSpacing, ds.SliceThickness = [0.02, 0.03], 5
        ds.RescaleSlope, ds.RescaleIntercept = 2, -1000
        ds.ImageOrientationPatient = list(rows)
        ds.ImagePositionPatient = [round(float(v), 6) for v in number * 0.5 * normal]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.Rows, ds.Columns = page.shape
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.PixelRepresentation = 15, 0
        ds.PixelData = page.tobytes()
        for keyword, value in change.items():
            given = value(number) if callable(value) else value
            if given is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, given)
        ds.save_as(folder / f"{(number * 7 + 3) % len(image):03d}.dcm", enforce_file_format=True)


@pytest.fixture
def image() -> np.ndarray:
    return volume()


def test_series_is_sorted_by_position_and_spaced_by_it(tmp_path, image):
    """Guards sorting by name or number, and spacing from the thickness."""
    write_series(tmp_path / "fish", image)
    scan = read_scan(tmp_path / "fish")
    assert scan.scan_id == "fish"
    assert scan.grid.spacing_mm_zyx == pytest.approx((0.5, 0.02, 0.03), rel=1e-5)
    np.testing.assert_array_equal(scan.image, 2.0 * image - 1000)


def test_series_without_endings_is_read(tmp_path, image):
    write_series(tmp_path / "fish", image)
    for path in (tmp_path / "fish").iterdir():
        path.rename(path.with_suffix(""))
    (tmp_path / "fish" / "notes").write_text("x" * 500)
    np.testing.assert_array_equal(read_scan(tmp_path / "fish").image, 2.0 * image - 1000)


def test_series_without_positions_goes_by_number_without_spacing(tmp_path, image):
    write_series(tmp_path / "fish", image, ImagePositionPatient=None)
    scan = read_scan(tmp_path / "fish")
    assert scan.grid.spacing_mm_zyx is None
    np.testing.assert_array_equal(scan.image, 2.0 * image[::-1] - 1000)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"SeriesInstanceUID": lambda n: f"1.2.{n // 3}"}, r"one DICOM series; .*1\.2\.0.*1\.2\.1"),
        ({"ImagePositionPatient": lambda n: [0, 0, n**2]}, "evenly spaced"),
        ({"ImagePositionPatient": [0, 0, 0]}, "evenly spaced"),
        ({"PixelSpacing": lambda n: [1 + n, 1]}, "one PixelSpacing"),
        (
            {"ImageOrientationPatient": lambda n: [1, 0, 0, 0, 1 - n % 2, n % 2]},
            "one ImageOrientationPatient",
        ),
        ({"PixelRepresentation": lambda n: n % 2}, "slices must be alike"),
        ({"PixelSpacing": [0, 1]}, "positive and finite"),
        ({"PixelSpacing": ["NaN", 1]}, "positive and finite"),
        (
            {"PhotometricInterpretation": lambda n: f"MONOCHROME{1 + n % 2}"},
            "slices must be alike; .*MONOCHROME1",
        ),
        ({"ImagePositionPatient": None, "InstanceNumber": 1}, "InstanceNumber each"),
        (
            {"ImagePositionPatient": None, "InstanceNumber": lambda n: n + (n > 2)},
            r"must rise in even steps; \d+\.dcm has 2, the next, \d+\.dcm, 4",
        ),
    ],
)
def test_series_that_is_not_one_volume_is_refused(tmp_path, image, change, rule):
    write_series(tmp_path / "fish", image, **change)
    with pytest.raises(InputError, match=rf"{rule}"):
        open_scan(tmp_path / "fish")


def test_series_of_one_slice_is_refused(tmp_path, image):
    write_series(tmp_path / "fish", image[:1])
    with pytest.raises(InputError, match=r"^fish: .*at least two slices; it has 1"):
        open_scan(tmp_path / "fish")


def test_folder_with_dicoms_and_tiffs_is_refused(tmp_path, image):
    write_series(tmp_path / "fish", image)
    tifffile.imwrite(tmp_path / "fish" / "a.tif", image[0])
    with pytest.raises(InputError, match=r"^fish: .*not both"):
        open_scan(tmp_path / "fish")


@pytest.mark.filterwarnings("ignore")
def test_odd_real_folders_open_or_are_refused():
    """Guards against crashes: pydicom's own folders of unrelated and partial series."""
    root = Path(pydicom.__file__).parent / "data"
    folders = [path for path in root.rglob("*") if path.is_dir()]
    assert len(folders) > 10
    for folder in folders:
        try:
            read_scan(folder)
        except InputError as error:
            assert "\n" not in str(error)


@pytest.mark.skipif(not (SHARED / "dicom_series").is_dir(), reason="needs shared/data/dicom_series")
@pytest.mark.parametrize("name", ["Study1_12-T1post-05670", "Study1_13_HCropVolume"])
def test_real_series_agree_with_simpleitk(name):
    """Guards order and spacing against an independent reader, on scans nobody here made."""
    folder = SHARED / "dicom_series" / name
    scan = read_scan(folder)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    itk = reader.Execute()
    np.testing.assert_array_equal(scan.image, SimpleITK.GetArrayFromImage(itk))
    assert scan.grid.spacing_mm_zyx == pytest.approx(itk.GetSpacing()[::-1], rel=1e-5)


# --- NIfTI, NRRD, MetaImage -------------------------------------------------------------------


def write_volume(path: Path, image: np.ndarray, *, compressed: bool = False) -> None:
    itk = SimpleITK.GetImageFromArray(image, isVector=False)
    itk.SetSpacing([0.02 * (n + 1) for n in range(image.ndim)])
    SimpleITK.WriteImage(itk, str(path), compressed)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.mhd"])
@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("compressed", [False, True])
def test_volumes_keep_type_values_and_spacing(tmp_path, name, dtype, compressed):
    image = volume(dtype)
    write_volume(tmp_path / name, image, compressed=compressed)
    scan = open_scan(tmp_path / name)
    assert scan.dtype == dtype
    assert scan.grid.spacing_mm_zyx == pytest.approx((0.06, 0.04, 0.02), rel=1e-6)
    slab = scan.read_image(2, 5)
    assert slab.dtype == dtype
    np.testing.assert_array_equal(slab, image[2:5])


@pytest.mark.parametrize(
    ("shape", "rule"),
    [((5, 4), "must be 3-D"), ((2, 6, 5, 4), "must be 3-D"), ((1, 5, 4), "two slices")],
)
def test_volume_of_wrong_dimensions_is_refused(tmp_path, shape, rule):
    write_volume(tmp_path / "a.nii", volume(shape=shape))
    with pytest.raises(InputError, match=rf"^a\.nii: .*{rule}"):
        open_scan(tmp_path / "a.nii")


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_colour_volume_is_refused(tmp_path, name):
    itk = SimpleITK.GetImageFromArray(volume("uint8", (6, 5, 4, 3)), isVector=True)
    SimpleITK.WriteImage(itk, str(tmp_path / name))
    with pytest.raises(InputError, match="one grey value each"):
        open_scan(tmp_path / name)


def nifti_with_pixdim(path: Path, x: float, y: float, z: float, *, sform: bool = True) -> None:
    write_volume(path.with_name("plain.nii"), volume())
    content = bytearray(path.with_name("plain.nii").read_bytes())
    struct.pack_into("<3f", content, 80, x, y, z)
    if not sform:
        struct.pack_into("<h", content, 254, 0)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_with_nan_spacing_is_refused(tmp_path, name):
    """Guards against the 1.0 that SimpleITK makes of it."""
    nifti_with_pixdim(tmp_path / name, 0.02, float("nan"), 0.06)
    with pytest.raises(InputError, match=r"positive and finite.*nan"):
        open_scan(tmp_path / name)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_with_zero_spacing_is_of_unknown_spacing(tmp_path, name):
    nifti_with_pixdim(tmp_path / name, 0, 0, 0, sform=False)
    assert open_scan(tmp_path / name).grid.spacing_mm_zyx is None


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_with_zero_spacing_has_that_of_its_sform(tmp_path, name):
    nifti_with_pixdim(tmp_path / name, 0.02, 0, 0.06)
    found = open_scan(tmp_path / name).grid.spacing_mm_zyx
    assert found == pytest.approx((0.06, 0.04, 0.02), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "line"), [("a.mha", "ElementSpacing"), ("a.nrrd", "space directions")]
)
@pytest.mark.parametrize("known", [None, "nan"])
def test_volume_header_without_usable_spacing(tmp_path, name, line, known):
    """Guards against the 1.0 that SimpleITK makes up: absent is unknown, NaN is refused."""
    write_volume(tmp_path / name, volume())
    lines = (tmp_path / name).read_bytes().split(b"\n")
    (at,) = [n for n, text in enumerate(lines) if text.startswith(line.encode())]
    if known is None:
        del lines[at]
    else:
        lines[at] = re.sub(rb"0\.059+8", b"nan", lines[at])
        assert b"nan" in lines[at]
    if name.endswith(".nrrd"):  # an orientation without directions would be an error of its own
        lines = [t for t in lines if known or not t.startswith((b"space:", b"space origin"))]
    (tmp_path / name).write_bytes(b"\n".join(lines))
    if known is None:
        assert open_scan(tmp_path / name).grid.spacing_mm_zyx is None
    else:
        with pytest.raises(InputError, match=rf"^{name}: "):
            open_scan(tmp_path / name)


def test_packed_nifti_that_is_short_inside_is_refused(tmp_path):
    """Guards against zeros for what a whole .gz of a truncated NIfTI lacks."""
    write_volume(tmp_path / "plain.nii", volume())
    (tmp_path / "a.nii.gz").write_bytes(
        gzip.compress((tmp_path / "plain.nii").read_bytes()[:-9], mtime=0)
    )
    with pytest.raises(InputError, match=r"^a\.nii\.gz: the file is truncated"):
        read_scan(tmp_path / "a.nii.gz")


def test_unpacked_copy_goes_with_the_scan(tmp_path, monkeypatch):
    """Guards against temporary files of 1.4 GB that pile up."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    write_volume(tmp_path / "a.nii.gz", volume())
    scan = open_scan(tmp_path / "a.nii.gz")
    scan.read_image(0, 2)
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    del scan
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("kind", ["tif", "folder", "series", "mha", "nii"])
def test_a_slab_costs_a_slab(tmp_path, kind):
    """Guards memory: reading two slices must not bring the whole volume in."""
    image = volume(shape=(100, 60, 60))
    path = tmp_path / ("fish" if kind in ("folder", "series") else f"a.{kind}")
    if kind == "tif":
        tifffile.imwrite(path, image, photometric="minisblack")
    elif kind == "folder":
        write_slices(path, image, [f"{n}.tif" for n in range(100)])
    elif kind == "series":
        write_series(path, image)
    else:
        write_volume(path, image)
    scan = open_scan(path)
    scan.read_image(0, 2)  # what a first call imports does not count
    tracemalloc.start()
    slab = scan.read_image(50, 52)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(slab, image[50:52])
    assert peak < image.nbytes / 4
