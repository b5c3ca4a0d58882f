"""One function opens every kind of scan, and everything else is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jawloc.errors import InputError
from jawloc.geometry import Grid
from jawloc.scans.dicom import write_labelled_dicom
from jawloc.scans.reading import open_scan, read_scan
from jawloc.scans.scan import SCAN_ENDINGS, scan_ending, scan_id_of

SHAPE = (7, 6, 5)
SPACING = (0.3, 0.0215, 0.0217)


def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 60_000, SHAPE).astype(np.uint16)


def write(path: Path) -> None:
    image = volume()
    if path.name.endswith((".dcm", ".dicom")):
        write_labelled_dicom(path, image, (image > 30_000).astype(np.uint8), Grid(SHAPE, SPACING))
    elif path.name.endswith((".tif", ".tiff")):
        import tifffile

        tifffile.imwrite(path, image, photometric="minisblack")
    else:
        import SimpleITK

        itk = SimpleITK.GetImageFromArray(image)
        itk.SetSpacing(SPACING[::-1])
        SimpleITK.WriteImage(itk, str(path))


@pytest.mark.parametrize("ending", SCAN_ENDINGS)
def test_every_ending_gives_the_same_volume(tmp_path, ending):
    """Guards axis order, spacing order, scan ids and bit-exact values, whole and in slabs."""
    path = tmp_path / f"fish.01{ending}"
    write(path)
    scan = open_scan(path)
    spacing = None if ending in (".tif", ".tiff") else SPACING
    assert (scan.scan_id, scan.path) == ("fish.01", path)
    assert scan.grid.shape_zyx == SHAPE
    if spacing is None:
        assert scan.grid.spacing_mm_zyx is None
    else:
        assert scan.grid.spacing_mm_zyx == pytest.approx(spacing, rel=1e-6)
    assert (scan.read_mask is not None) == (ending in (".dcm", ".dicom"))
    for start, stop in [(0, 1), (2, 2), (2, 6), (0, 7)]:
        slab = scan.read_image(start, stop)
        assert slab.dtype == scan.dtype == np.uint16
        np.testing.assert_array_equal(slab, volume()[start:stop])


def test_whole_scan_has_mask_and_grid(tmp_path):
    write(tmp_path / "a.dcm")
    scan = read_scan(tmp_path / "a.dcm")
    assert (scan.scan_id, scan.grid) == ("a", Grid(SHAPE, SPACING))
    np.testing.assert_array_equal(scan.image, volume())
    np.testing.assert_array_equal(scan.mask, volume() > 30_000)


def test_scan_without_mask_says_none(tmp_path):
    write(tmp_path / "a.mha")
    assert read_scan(tmp_path / "a.mha").mask is None


@pytest.mark.parametrize(
    ("name", "ending", "scan_id"),
    [
        ("a.nii.gz", ".nii.gz", "a"),
        ("a.NII.GZ", ".nii.gz", "a"),
        ("a.b.nii", ".nii", "a.b"),
        ("131.DCM", ".dcm", "131"),
        ("x.tiff", ".tiff", "x"),
        ("x.png", None, "x.png"),
        ("x.gz", None, "x.gz"),
        ("x", None, "x"),
    ],
)
def test_endings_and_scan_ids(name, ending, scan_id):
    assert scan_ending(Path(name)) == ending
    assert scan_id_of(Path(name)) == scan_id


def test_folder_keeps_its_whole_name_as_id(tmp_path):
    (tmp_path / "fish.tif").mkdir()
    assert scan_id_of(tmp_path / "fish.tif") == "fish.tif"


def test_unsupported_ending_is_refused(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match=r"^a\.png: .*ending must be one of .*\.nii\.gz"):
        open_scan(tmp_path / "a.png")


def test_missing_path_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"^a\.nii: .*there is none"):
        open_scan(tmp_path / "a.nii")


@pytest.mark.parametrize("ending", SCAN_ENDINGS)
@pytest.mark.parametrize("content", [b"", b"no scan at all\n" * 50])
def test_file_that_is_not_what_its_name_says_is_refused(tmp_path, ending, content):
    """Guards against crashes in the libraries on foreign content."""
    path = tmp_path / f"a{ending}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"^a\.") as refusal:
        read_scan(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("ending", [e for e in SCAN_ENDINGS if e != ".nhdr" and e != ".mhd"])
def test_truncated_file_is_refused(tmp_path, ending):
    """Guards against zeros where the file has ended (SimpleITK's way with NIfTI)."""
    path = tmp_path / f"a{ending}"
    write(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"^a\."):
        read_scan(path)
