"""NIfTI: places against SimpleITK, values against nibabel, and files that SimpleITK refuses."""

from __future__ import annotations

import gzip
import struct
import warnings
from itertools import product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from jawloc.errors import InputError
from jawloc.geometry import placement_to_xyz
from jawloc.scans.reading import open_scan, read_scan
from jawloc.scans.volumes import open_volume

VOXELS = np.random.default_rng(0).integers(-500, 500, (3, 4, 5)).astype(np.int16)
PLAIN = np.diag([0.5, 0.25, 2.0, 1.0])
TURNED = np.array(
    [[0.4, -0.15, 0.0, 7.0], [0.3, 0.2, 0.0, -8.5], [0.0, 0.0, 2.0, 9.0], [0.0, 0.0, 0.0, 1.0]]
)


def write_nifti(
    path: Path,
    qform: tuple[np.ndarray, int] = (PLAIN, 1),
    sform: tuple[np.ndarray, int] = (PLAIN, 1),
    *,
    kind=nibabel.Nifti1Image,
    voxels: np.ndarray = VOXELS,
    **fields,
) -> Path:
    """Write a file by nibabel, whose header's fields are then changed by name."""
    image = kind(voxels.T, None)
    image.header["pixdim"][1:4] = 0.5, 0.25, 2.0
    image.header.set_qform(*qform)
    image.header.set_sform(*sform)
    content = bytearray(image.to_bytes())
    size = len(image.header.binaryblock)
    header = kind.header_class(content[:size], check=False)
    for name, value in fields.items():
        header[name] = value
    content[:size] = header.binaryblock
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize(("qcode", "scode"), list(product((0, 1, 2, 4), repeat=2)))
@pytest.mark.parametrize("equal", [False, True])
def test_places_are_those_of_simpleitk_for_every_pair_of_codes(tmp_path, qcode, scode, equal):
    path = write_nifti(tmp_path / "a.nii", (TURNED, qcode), (TURNED if equal else PLAIN, scode))
    scan, itk = open_scan(path), SimpleITK.ReadImage(str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        placement = scan.read_placement()
    assert scan.grid.spacing_mm_zyx == pytest.approx(itk.GetSpacing()[::-1])
    if qcode == scode == 0:  # SimpleITK makes a place up
        assert placement is None
        return
    origin, direction = placement_to_xyz(placement)
    assert origin == pytest.approx(itk.GetOrigin(), abs=1e-6)
    assert direction == pytest.approx(itk.GetDirection(), abs=1e-6)


@pytest.mark.parametrize(
    ("qform", "sform", "warned"),
    [
        ((TURNED, 1), (PLAIN, 2), True),
        ((TURNED, 1), (PLAIN, 1), False),  # the sform, which others take as well
        ((TURNED, 1), (TURNED, 2), False),
        ((TURNED, 1), (PLAIN, 0), False),
        ((TURNED, 0), (PLAIN, 1), False),
        ((PLAIN, 0), (PLAIN * 3, 1), True),  # its voxels are not of pixdim
    ],
)
def test_transforms_that_disagree_are_warned_of_in_one_line(tmp_path, qform, sform, warned):
    scan = open_scan(write_nifti(tmp_path / "a.nii", qform, sform))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            scan.read_placement()
            open_scan(scan.path).read_placement()
    assert len(caught) == warned
    if warned:
        message = str(caught[0].message)
        assert message.startswith("a.nii: qform, sform and pixdim disagree by up to ")
        assert "\n" not in message


@pytest.mark.parametrize(
    ("code", "millimetres"), [(0, 1), (1, 1000), (2, 1), (3, 1e-3), (2 | 8, 1)]
)
def test_units_are_those_of_simpleitk(tmp_path, code, millimetres):
    path = write_nifti(tmp_path / "a.nii", (TURNED, 1), (TURNED, 1), xyzt_units=code)
    scan, itk = open_scan(path), SimpleITK.ReadImage(str(path))
    assert scan.grid.spacing_mm_zyx == pytest.approx([v * millimetres for v in (2, 0.25, 0.5)])
    assert scan.grid.spacing_mm_zyx == pytest.approx(itk.GetSpacing()[::-1])
    assert scan.read_placement().origin_lps_mm_zyx == pytest.approx(itk.GetOrigin()[::-1])


@pytest.mark.parametrize("shear", [1e-5, 1e-4, 5e-4])
def test_axes_that_are_nearly_at_right_angles_are_read(tmp_path, shear):
    """Regression: SimpleITK refused the file, over the last digits of a transform."""
    near = PLAIN.copy()
    near[0, 1] = shear * 0.25
    scan = open_scan(write_nifti(tmp_path / "a.nii", (PLAIN, 0), (near, 1)))
    np.testing.assert_array_equal(scan.read_image(0, 3), VOXELS)
    axes = np.array(scan.read_placement().axes_zyx)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.abs(axes), np.eye(3), atol=shear)


def test_sheared_axes_cost_the_place_only(tmp_path):
    sheared = PLAIN.copy()
    sheared[0, 1] = 0.1
    scan = open_scan(write_nifti(tmp_path / "a.nii", (PLAIN, 0), (sheared, 1)))
    assert scan.read_placement() is None
    assert scan.grid.spacing_mm_zyx == (2.0, 0.25, 0.5)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_versions_are_read_whatever_the_name_says(tmp_path, name, kind, packed, order):
    """Guards `.nii` that is gzip, and `.nii.gz` that isn't."""
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.int16)
    image = kind(VOXELS.T, PLAIN, header)
    content = image.to_bytes()
    assert content[:4] == len(image.header.binaryblock).to_bytes(
        4, {"<": "little", ">": "big"}[order]
    )
    (tmp_path / name).write_bytes(gzip.compress(content, mtime=0) if packed else content)
    scan = open_scan(tmp_path / name)
    assert (scan.scan_id, scan.grid.shape_zyx) == ("a", (3, 4, 5))
    assert scan.grid.spacing_mm_zyx == (2.0, 0.25, 0.5)
    assert scan.dtype == np.int16
    np.testing.assert_array_equal(scan.read_image(1, 3), VOXELS[1:3])


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize(
    ("slope", "intercept"),
    [(0.5, -3.0), (1.0, 7.0), (0.0, 5.0), (np.nan, 5.0), (np.nan, np.nan), (1.0, 0.0)],
)
def test_grey_values_have_the_scale_slope_and_intercept(tmp_path, dtype, slope, intercept):
    voxels = np.abs(VOXELS // 2).astype(dtype)
    path = write_nifti(tmp_path / "a.nii", voxels=voxels, scl_slope=slope, scl_inter=intercept)
    scan = read_scan(path)
    expected = np.asanyarray(nibabel.load(path).dataobj).T
    np.testing.assert_allclose(scan.image, expected, rtol=1e-6)
    assert scan.image.dtype.itemsize <= max(4, np.dtype(dtype).itemsize)


def test_values_that_are_no_numbers_are_read_as_they_are(tmp_path):
    """What becomes of them is one rule for all formats (`jawloc.scans.padding`)."""
    voxels = VOXELS.astype(np.float32)
    voxels[1, 2, 3], voxels[2, 0, 0] = np.nan, np.inf
    scan = open_volume(write_nifti(tmp_path / "a.nii", voxels=voxels))
    np.testing.assert_array_equal(scan.read_image(0, scan.grid.shape_zyx[0]), voxels)


def test_pixdim_0_with_a_good_sform_and_negative_pixdim_are_read(tmp_path):
    zero = write_nifti(tmp_path / "a.nii", pixdim=[1, 0, 0, 0, 1, 1, 1, 1])
    scan = open_scan(zero)
    assert scan.grid.spacing_mm_zyx == (2.0, 0.25, 0.5)
    assert scan.read_placement() is not None
    negative = write_nifti(tmp_path / "b.nii", pixdim=[1, 0.5, -0.25, 2, 1, 1, 1, 1])
    assert open_scan(negative).grid.spacing_mm_zyx == (2.0, 0.25, 0.5)


@pytest.mark.parametrize("sform", [(PLAIN, 0), (PLAIN * 0, 1), (PLAIN * np.nan, 1)])
def test_pixdim_0_without_a_good_sform_is_unknown(tmp_path, sform):
    path = write_nifti(tmp_path / "a.nii", sform=sform, pixdim=[1, 0, 0, 0, 1, 1, 1, 1])
    scan = open_scan(path)
    assert (scan.grid.spacing_mm_zyx, scan.read_placement()) == (None, None)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-8] + bytes(8),
        lambda content: content[:-30] + bytes(30),
        lambda content: content[:100] + bytes([content[100] ^ 4]) + content[101:],
        lambda content: content[:40],
        lambda content: b"\x1f\x8b" + bytes(50),
    ],
    ids=["1 byte less", "half", "no checksum", "zeroed tail", "flipped bit", "start", "no gzip"],
)
def test_damaged_gzip_is_refused(tmp_path, damage):
    path = write_nifti(tmp_path / "a.nii.gz")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"^a\.nii\.gz: [^\n]+$"):
        read_scan(path)


def test_a_packed_slice_that_is_too_large_for_memory_is_refused(tmp_path):
    """Regression: a file of 2 MB was unpacked to 2 GB, of which one slice came into memory."""
    path = write_nifti(tmp_path / "a.nii.gz", dim=[3, 32767, 32767, 2, 1, 1, 1, 1])
    with path.open("ab") as file:
        file.truncate(5_000_000)  # as many as may hold that
    with pytest.raises(InputError, match=r"^a\.nii\.gz: a packed slice, .* at most 536870912 byt"):
        open_scan(path)


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}, "truncated"),
        ({"dim": [3, 5, 4, 2, 1, 1, 1, 1]}, "promises"),
        ({"dim": [3, 5, 4, -3, 1, 1, 1, 1]}, "positive"),
        ({"dim": [0, 5, 4, 3, 1, 1, 1, 1]}, "1 to 7 dimensions"),
        ({"dim": [4, 5, 4, 3, 2, 1, 1, 1]}, "3-D"),
        ({"datatype": 128}, "one grey value each"),
        ({"datatype": 32}, "one grey value each"),
        ({"datatype": 77}, "its code is 77"),
        ({"magic": b"ni1"}, "magic"),
        ({"scl_slope": 1, "scl_inter": np.inf}, "scl_inter at most"),
        ({"scl_slope": 1, "scl_inter": np.nan}, "scl_inter at most"),
        ({"scl_slope": 1e-40, "scl_inter": 0}, "scl_slope must be"),
        ({"pixdim": [1, 1, np.nan, 1, 1, 1, 1, 1]}, "positive and finite"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_header_that_cannot_be_right_is_refused_in_one_sentence(tmp_path, name, fields, rule):
    with pytest.raises(InputError, match=rf"^a\.nii(\.gz)?: [^\n]*{rule}[^\n]*$"):
        read_scan(write_nifti(tmp_path / name, **fields))


@pytest.mark.parametrize("offset", [0.0, 10.0, 352.5, -1.0, float("nan"), float("inf"), 1e30])
def test_impossible_offset_of_the_voxels_is_refused(tmp_path, offset):
    path = write_nifti(tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    struct.pack_into("<f", content, 108, offset)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"^a\.nii: .*vox_offset"):
        open_scan(path)


def test_line_ends_that_a_transfer_changed_are_refused(tmp_path):
    path = write_nifti(tmp_path / "a.nii", kind=nibabel.Nifti2Image, eol_check=[10, 10, 26, 10])
    with pytest.raises(InputError, match=r"^a\.nii: .*line ends"):
        open_scan(path)


def test_a_fourth_axis_of_one_volume_is_none(tmp_path):
    path = write_nifti(tmp_path / "a.nii", dim=[4, 5, 4, 3, 1, 1, 1, 1])
    np.testing.assert_array_equal(read_scan(path).image, VOXELS)
