"""MetaImage: fields, damaged streams and places, against SimpleITK where that reads the same."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from jawloc.errors import InputError
from jawloc.geometry import placement_to_xyz
from jawloc.scans.reading import open_scan, read_scan

VOXELS = np.random.default_rng(0).integers(-500, 500, (3, 4, 5)).astype("<i2")
TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


def write_metaimage(path: Path, voxels: bytes | None = None, **change: str | None) -> Path:
    """Write a 3-D int16 volume; `change` replaces fields of the basis, or drops them by None."""
    fields = {"ObjectType": "Image", "NDims": "3", "DimSize": "5 4 3"}
    fields |= {"ElementType": "MET_SHORT"} | change
    fields |= {"ElementDataFile": change.get("ElementDataFile") or "LOCAL"}
    fields["ElementDataFile"] = fields.pop("ElementDataFile")  # the last one
    lines = "".join(f"{name} = {value}\n" for name, value in fields.items() if value is not None)
    path.write_bytes(lines.encode() + (VOXELS.tobytes() if voxels is None else voxels))
    return path


@pytest.mark.parametrize(("kind", "dtype"), TYPES.items())
@pytest.mark.parametrize("big", ["True", "False"])
def test_every_type_in_both_byte_orders_is_that_of_simpleitk(tmp_path, kind, dtype, big):
    voxels = np.arange(60).reshape(3, 4, 5).astype(dtype)
    data = voxels.astype(voxels.dtype.newbyteorder(">" if big == "True" else "<")).tobytes()
    path = write_metaimage(tmp_path / "a.mha", data, ElementType=kind, BinaryDataByteOrderMSB=big)
    scan = read_scan(path)
    itk = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    assert scan.image.dtype == voxels.dtype == itk.dtype
    np.testing.assert_array_equal(scan.image, voxels)


@pytest.mark.parametrize(
    ("fields", "spacing"),
    [
        ({}, None),
        ({"ElementSpacing": "1 2 3"}, (3, 2, 1)),
        ({"ElementSize": "1 2 3"}, (3, 2, 1)),
        ({"ElementSize": "9 9 9", "ElementSpacing": "1 2 3"}, (3, 2, 1)),
        ({"ElementSpacing": "1 2 3", "DistanceUnits": "mm"}, (3, 2, 1)),
        ({"ElementSpacing": "1 2 3", "DistanceUnits": "?"}, (3, 2, 1)),
        ({"ElementSpacing": "1 2 3", "DistanceUnits": "um"}, (3e-3, 2e-3, 1e-3)),
        ({"ElementSpacing": "1 2 3", "DistanceUnits": "cm"}, (30, 20, 10)),
    ],
    ids=str,
)
def test_spacing_is_that_of_the_header_in_its_units_or_unknown(tmp_path, fields, spacing):
    found = open_scan(write_metaimage(tmp_path / "a.mha", **fields)).grid.spacing_mm_zyx
    assert found == (None if spacing is None else pytest.approx(spacing))


def test_spacing_in_unknown_units_is_unknown_and_said_so(tmp_path):
    path = write_metaimage(tmp_path / "a.mha", ElementSpacing="1 1 1", DistanceUnits="ell")
    with pytest.warns(UserWarning, match=r"^a\.mha: .*unknown.*'ell'$"):
        assert open_scan(path).grid.spacing_mm_zyx is None


def test_places_are_those_of_simpleitk(tmp_path):
    path = write_metaimage(
        tmp_path / "a.mha",
        ElementSpacing="0.5 1 2",
        Offset="1 -2.5 30",
        TransformMatrix="0.8 0.6 0 -0.6 0.8 0 0 0 -1",
        CenterOfRotation="0 0 0",
    )
    scan, itk = open_scan(path), SimpleITK.ReadImage(str(path))
    origin, direction = placement_to_xyz(scan.read_placement())
    assert origin == pytest.approx(itk.GetOrigin())
    assert direction == pytest.approx(itk.GetDirection())
    assert scan.grid.spacing_mm_zyx == pytest.approx(itk.GetSpacing()[::-1])


def test_a_fourth_axis_of_one_volume_is_none(tmp_path):
    path = write_metaimage(
        tmp_path / "a.mha",
        NDims="4",
        DimSize="5 4 3 1",
        ElementSpacing="0.5 1 2 9",
        Offset="1 2 3 4",
        TransformMatrix="-1 0 0 0 0 -1 0 0 0 0 1 0 0 0 0 1",
    )
    scan = open_scan(path)
    np.testing.assert_array_equal(scan.read_image(0, 3), VOXELS)
    assert scan.grid.spacing_mm_zyx == (2.0, 1.0, 0.5)
    origin, direction = placement_to_xyz(scan.read_placement())
    assert (origin, direction) == ([1.0, 2.0, 3.0], [-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0])


@pytest.mark.parametrize(
    ("fields", "files"),
    [
        ({"ElementDataFile": "b.raw"}, {"b.raw": VOXELS.tobytes()}),
        ({"ElementDataFile": "b.raw", "HeaderSize": "7"}, {"b.raw": b"1234567" + VOXELS.tobytes()}),
        ({"ElementDataFile": "b.raw", "HeaderSize": "-1"}, {"b.raw": b"12345" + VOXELS.tobytes()}),
        (
            {"ElementDataFile": "b.zraw", "CompressedData": "True"},
            {"b.zraw": zlib.compress(VOXELS.tobytes())},
        ),
        (
            {"ElementDataFile": "b.zraw", "CompressedData": "True"},
            {"b.zraw": gzip.compress(VOXELS.tobytes(), mtime=0)},
        ),
        (
            {"ElementDataFile": "b.txt", "BinaryData": "False"},
            {"b.txt": " ".join(map(str, VOXELS.ravel())).encode()},
        ),
        (
            {"ElementDataFile": "LIST\nx.raw\ny.raw\nz.raw"},
            {f"{name}.raw": VOXELS[n].tobytes() for n, name in enumerate("xyz")},
        ),
        (
            {"ElementDataFile": "s%03d.raw 1 3 1"},
            {f"s00{n + 1}.raw": VOXELS[n].tobytes() for n in range(3)},
        ),
    ],
    ids=lambda value: str(value)[:70],
)
def test_voxels_beside_the_header_are_read(tmp_path, fields, files):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    scan = open_scan(write_metaimage(tmp_path / "a.mhd", b"", **fields))
    np.testing.assert_array_equal(scan.read_image(0, 3), VOXELS)
    np.testing.assert_array_equal(scan.read_image(1, 2), VOXELS[1:2])


PACKED = zlib.compress(VOXELS.tobytes())


def flipped(place: int, bit: int = 0) -> bytes:
    content = bytearray(PACKED)
    content[place] ^= 1 << bit
    return bytes(content)


@pytest.mark.parametrize(
    "damaged",
    [
        flipped(len(PACKED) // 2),
        flipped(10, 3),
        flipped(-1),
        PACKED[:-1],
        PACKED[: len(PACKED) // 2],
    ]
    + [PACKED[:-n] + bytes(n) for n in (1, 4, 20, 60)]
    + [b"", b"\0" * len(PACKED)],
    ids=lambda content: f"{len(content)} bytes, {zlib.crc32(content):x}",
)
@pytest.mark.parametrize("beside", [False, True])
def test_damaged_stream_is_refused(tmp_path, damaged, beside):
    """Regression: a flipped bit or a zeroed tail gave voxels that nobody had recorded."""
    fields = {"CompressedData": "True", "CompressedDataSize": str(len(PACKED))}
    if beside:
        (tmp_path / "b.zraw").write_bytes(damaged)
        fields["ElementDataFile"] = "b.zraw"
    path = write_metaimage(tmp_path / "a.mha", b"" if beside else damaged, **fields)
    with pytest.raises(InputError, match=r"^[ab]\.(mha|zraw): [^\n]+$"):
        read_scan(path)


@pytest.mark.parametrize("sizes", ["5 4 2", "5 4 4", "5 3 3", "65535 65535 65535"])
def test_stream_must_have_the_length_that_the_header_promises(tmp_path, sizes):
    path = write_metaimage(tmp_path / "a.mha", PACKED, DimSize=sizes, CompressedData="True")
    with pytest.raises(InputError, match=r"^a\.mha: .*promises"):
        read_scan(path)


@pytest.mark.parametrize("sizes", ["5 4 2", "5 4 4", "65535 65535 65535"])
def test_raw_file_must_have_the_length_that_the_header_promises(tmp_path, sizes):
    path = write_metaimage(tmp_path / "a.mha", DimSize=sizes)
    with pytest.raises(InputError, match=r"^a\.mha: .*(truncated|promises)"):
        open_scan(path)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"ElementNumberOfChannels": "3"}, "one grey value each"),
        ({"NDims": "2"}, "NDims"),
        ({"NDims": None}, "must have ndims"),
        ({"DimSize": None}, "must have dimsize"),
        ({"ElementType": "MET_OTHER"}, "ElementType must be one of"),
        ({"ElementSpacing": "1 nan 1"}, "positive and finite"),
        ({"ElementSpacing": "1 1"}, "positive and finite"),
        ({"Offset": "1 2", "ElementSpacing": "1 1 1"}, "Offset must be 3 numbers"),
        ({"HeaderSize": "-2"}, "HeaderSize"),
        ({"ElementDataFile": "none.raw"}, r"there is no none\.raw"),
        ({"ElementDataFile": "../none\0.raw"}, "1 to 3 files"),
        ({"ElementDataFile": "LIST\nx\n\ny\nz\nw"}, "1 to 3 files"),
    ],
    ids=str,
)
def test_header_that_cannot_be_right_is_refused_in_one_sentence(tmp_path, change, rule):
    path = write_metaimage(tmp_path / "a.mhd", **change)
    with pytest.raises(InputError, match=rf"^a\.mhd: [^\n]*{rule}[^\n]*$"):
        read_scan(path)


@pytest.mark.parametrize("content", [b"", b"NDims = 3\n", b"\x89PNG\r\n\x1a\n" * 9, b"\0" * 99])
def test_what_is_no_metaimage_is_refused_by_name(tmp_path, content):
    (tmp_path / "a.mha").write_bytes(content)
    with pytest.raises(InputError, match=r"^a\.mha: [^\n]*$"):
        open_scan(tmp_path / "a.mha")
