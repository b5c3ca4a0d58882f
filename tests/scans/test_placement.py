"""Where scans lie in patient space: what jawloc says of a voxel is what SimpleITK says of it."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
import tifffile

from jawloc.geometry import (
    Grid,
    Placement,
    placement_from_xyz,
    placement_to_xyz,
    voxels_to_lps_mm,
)
from jawloc.scans.dicom import write_labelled_dicom
from jawloc.scans.reading import open_scan
from jawloc.scans.scan import ScanFile

SPACING_XYZ, ORIGIN_XYZ = (0.5, 0.25, 2.0), (-12.5, 30.25, 7.75)
TURNED = tuple(np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]).ravel())
FLIPPED = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
POINT_ZYX = (1.5, 2.25, 4.0)


def volume(direction=TURNED) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(np.arange(60, dtype=np.uint16).reshape(3, 4, 5))
    image.SetSpacing(SPACING_XYZ)
    image.SetOrigin(ORIGIN_XYZ)
    image.SetDirection(direction)
    return image


def lps_xyz(scan: ScanFile) -> list[float]:
    found = voxels_to_lps_mm(np.array(POINT_ZYX), scan.grid, scan.read_placement())
    assert found is not None
    return found[::-1].tolist()


def write_series(folder: Path, image: SimpleITK.Image, shear: float = 0.0) -> None:
    """Write each slice as a file, its position as SimpleITK has it (moved by shear a slice)."""
    folder.mkdir()
    direction = np.array(image.GetDirection()).reshape(3, 3)
    for number, plane in enumerate(SimpleITK.GetArrayFromImage(image)):
        ds = pydicom.Dataset()
        ds.file_meta = pydicom.dataset.FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SeriesInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
        ds.SOPInstanceUID = f"1.2.3.{number}"
        ds.Rows, ds.Columns = plane.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.PixelRepresentation = 15, 0
        position = image.TransformIndexToPhysicalPoint((0, 0, number))
        ds.ImagePositionPatient = [position[0] + shear * number, *position[1:]]
        ds.ImageOrientationPatient = [*direction[:, 0], *direction[:, 1]]
        ds.PixelSpacing = [SPACING_XYZ[1], SPACING_XYZ[0]]
        ds.PixelData = plane.tobytes()
        ds.save_as(folder / f"{9 - number}.dcm", enforce_file_format=True)


@pytest.mark.parametrize("direction", [TURNED, FLIPPED], ids=["turned", "flipped"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"])
def test_volumes_say_where_a_point_lies(tmp_path, ending, direction):
    image = volume(direction)
    SimpleITK.WriteImage(image, tmp_path / f"fish{ending}")
    expected = image.TransformContinuousIndexToPhysicalPoint(POINT_ZYX[::-1])
    assert lps_xyz(open_scan(tmp_path / f"fish{ending}")) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("direction", [TURNED, FLIPPED], ids=["turned", "flipped"])
def test_a_dicom_series_says_where_a_point_lies(tmp_path, direction):
    image = volume(direction)
    write_series(tmp_path / "series", image)
    expected = image.TransformContinuousIndexToPhysicalPoint(POINT_ZYX[::-1])
    scan = open_scan(tmp_path / "series")
    assert lps_xyz(scan) == pytest.approx(expected, abs=1e-9)
    assert pickle.loads(pickle.dumps(scan)).read_placement() == scan.read_placement()


def test_a_sheared_series_has_no_place(tmp_path):
    """Spacing and axes can't describe it, and a wrong position is worse than none."""
    write_series(tmp_path / "series", volume(), shear=0.5)
    assert open_scan(tmp_path / "series").read_placement() is None


def test_a_multi_frame_dicom_says_where_its_frames_lie(tmp_path):
    voxels = np.zeros((4, 6, 5), np.uint16)
    write_labelled_dicom(tmp_path / "a.dcm", voxels, voxels, Grid(voxels.shape, (2.0, 1.0, 0.5)))
    assert open_scan(tmp_path / "a.dcm").read_placement() == Placement()
    write_labelled_dicom(tmp_path / "b.dcm", voxels, voxels, Grid(voxels.shape))
    assert open_scan(tmp_path / "b.dcm").read_placement() is None


def test_a_header_without_a_place_has_none(tmp_path):
    (tmp_path / "a.nrrd").write_bytes(
        b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nspacings: 1 2 3\n"
        b"encoding: raw\n\n" + bytes(8)
    )
    (tmp_path / "a.mha").write_bytes(
        b"ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementSpacing = 1 2 3\n"
        b"ElementType = MET_UCHAR\nElementDataFile = LOCAL\n" + bytes(8)
    )
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 9, 5), np.uint8), photometric="minisblack")
    for ending in ("nrrd", "mha", "tif"):
        scan = open_scan(tmp_path / f"a.{ending}")
        assert scan.read_placement() is None
        assert voxels_to_lps_mm(np.zeros(3), scan.grid, scan.read_placement()) is None


def test_a_placement_is_what_it_was_made_of():
    placement = placement_from_xyz(ORIGIN_XYZ, TURNED)
    assert placement.origin_lps_mm_zyx == ORIGIN_XYZ[::-1]
    assert placement.axes_zyx[2] == pytest.approx((0.0, 0.6, 0.8))  # x grows to the left, back
    assert placement_to_xyz(placement) == (list(ORIGIN_XYZ), pytest.approx(list(TURNED)))
