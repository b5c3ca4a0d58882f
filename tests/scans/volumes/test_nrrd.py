"""NRRD: fields, units, encodings and places, against SimpleITK where that reads the same."""

from __future__ import annotations

import bz2
import gzip
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from jawloc.errors import InputError
from jawloc.geometry import Placement, placement_to_xyz
from jawloc.scans.reading import open_scan, read_scan
from jawloc.scans.volumes.encodings import values_of_text

VOXELS = np.random.default_rng(0).integers(-500, 500, (3, 4, 5)).astype("<i2")
SPACING = "spacings: 50 60 70\n"
DIRECTIONS = "space dimension: 3\nspace directions: (50,0,0) (0,60,0) (0,0,70)\n"


def write_nrrd(path: Path, fields: str, voxels: bytes | None = None, **change: str) -> Path:
    """Write a 3-D int16 volume; `fields` are lines, `change` replaces those of the basis."""
    basis = {"type": "short", "dimension": "3", "sizes": "5 4 3"}
    basis |= {"endian": "little", "encoding": "raw"} | change
    lines = "".join(f"{name}: {value}\n" for name, value in basis.items())
    data = VOXELS.tobytes() if voxels is None else voxels
    path.write_bytes(f"NRRD0005\n{lines}{fields}\n".encode() + data)
    return path


@pytest.mark.parametrize(
    ("unit", "millimetres"),
    [
        ("microns", 1e-3),
        ("um", 1e-3),
        ("µm", 1e-3),
        ("μm", 1e-3),
        ("micrometre", 1e-3),
        ("nm", 1e-6),
        ("mm", 1),
        ("cm", 10),
        ("m", 1000),
        ("Inches", 25.4),
        ("", 1),
    ],
)
@pytest.mark.parametrize(
    ("spacing", "field"),
    [(SPACING, "units"), (SPACING, "space units"), (DIRECTIONS, "space units")],
    ids=["spacings, units", "spacings, space units", "directions"],
)
def test_spacing_is_in_the_headers_units(tmp_path, unit, millimetres, spacing, field):
    """Regression: `space units: "microns"` was left out, and 50 microns were read as 50 mm."""
    units = f'{field}: "{unit}" "{unit}" "{unit}"\n'
    scan = open_scan(write_nrrd(tmp_path / "a.nrrd", spacing + units))
    expected = (70 * millimetres, 60 * millimetres, 50 * millimetres)
    assert scan.grid.spacing_mm_zyx == pytest.approx(expected, rel=1e-12)


def test_each_axis_has_its_own_unit_and_the_origin_has_the_spaces(tmp_path):
    units = 'space units: "um" "mm" "m"\nspace origin: (1000,2,3)\n'
    scan = open_scan(write_nrrd(tmp_path / "a.nrrd", DIRECTIONS + units))
    assert scan.grid.spacing_mm_zyx == pytest.approx((70_000, 60, 0.05))
    assert scan.read_placement().origin_lps_mm_zyx == pytest.approx((3000, 2, 1))


@pytest.mark.parametrize("unit", ["pixel", "furlong"])
@pytest.mark.parametrize("spacing", [SPACING, DIRECTIONS])
def test_spacing_in_unknown_units_is_unknown_and_said_so(tmp_path, spacing, unit):
    fields = f'{spacing}space units: "mm" "{unit}" "mm"\n'
    with pytest.warns(UserWarning, match=rf"^a\.nrrd: .*unknown.*'{unit}'$") as caught:
        scan = open_scan(write_nrrd(tmp_path / "a.nrrd", fields))
    assert len(caught) == 1
    assert scan.grid.spacing_mm_zyx is None
    assert scan.read_placement() is None


@pytest.mark.parametrize(
    "fields", ["", "space: LPS\n", "spacings: nan nan nan\n", "# spacings: 1 1 1\n"]
)
def test_header_without_spacing_has_none(tmp_path, fields):
    assert open_scan(write_nrrd(tmp_path / "a.nrrd", fields)).grid.spacing_mm_zyx is None


def packed(encoding: str) -> bytes:
    raw = VOXELS.tobytes()
    if encoding in ("gzip", "gz"):  # in two members, as some writers leave it
        return gzip.compress(raw[:50], mtime=0) + gzip.compress(raw[50:], mtime=0)
    if encoding in ("bzip2", "bz2"):
        return bz2.compress(raw)
    if encoding == "hex":
        return raw.hex("\n", 20).encode() + b"\n"
    return " ".join(map(str, VOXELS.ravel())).encode() if encoding != "raw" else raw


ENCODINGS = ["raw", "gzip", "gz", "bzip2", "bz2", "ascii", "text", "txt", "hex"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_is_read(tmp_path, encoding):
    write_nrrd(tmp_path / "a.nrrd", SPACING, packed(encoding), encoding=encoding)
    scan = open_scan(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(scan.read_image(0, 3), VOXELS)
    np.testing.assert_array_equal(scan.read_image(1, 2), VOXELS[1:2])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_encoding_hides_missing_or_surplus_voxels(tmp_path, encoding):
    for sizes in ("5 4 4", "5 4 2"):
        fields = {"sizes": sizes, "encoding": encoding}
        path = write_nrrd(tmp_path / "a.nrrd", SPACING, packed(encoding), **fields)
        with pytest.raises(InputError, match=r"^a\.nrrd: .*(truncated|promises)"):
            read_scan(path)


def test_a_number_without_end_is_refused_at_once():
    """Regression: all of a file without white space was joined, again for each of its blocks."""

    class Digits:
        reads = 0

        def read(self, size):
            self.reads += 1
            return b"1" * size if self.reads < 5 else b""

    with pytest.raises(ValueError, match="more than 4096 characters"):
        list(values_of_text(file := Digits(), np.dtype(np.uint8)))
    assert file.reads == 1


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ("b.raw", [slice(0, 3)]),
        ("LIST\nx.raw\ny.raw\nz.raw", [slice(0, 1), slice(1, 2), slice(2, 3)]),
        ("s%02d.raw 9 11 1", [slice(0, 1), slice(1, 2), slice(2, 3)]),
        ("s%d.raw 3 1 -1 2", [slice(0, 1), slice(1, 2), slice(2, 3)]),
    ],
)
@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_voxels_beside_the_header_are_read(tmp_path, names, parts, encoding):
    lists = {"b.raw": ["b.raw"], "L": ["x.raw", "y.raw", "z.raw"]}
    lists |= {"s%0": ["s09.raw", "s10.raw", "s11.raw"], "s%d": ["s3.raw", "s2.raw", "s1.raw"]}
    (files,) = [files for start, files in lists.items() if names.startswith(start)]
    for name, part in zip(files, parts, strict=True):
        content = VOXELS[part].tobytes()
        (tmp_path / name).write_bytes(
            gzip.compress(content, mtime=0) if encoding == "gzip" else content
        )
    fields = f"{SPACING}data file: {names}"
    scan = open_scan(write_nrrd(tmp_path / "a.nhdr", fields, b"", encoding=encoding))
    np.testing.assert_array_equal(scan.read_image(0, 3), VOXELS)
    np.testing.assert_array_equal(scan.read_image(1, 3), VOXELS[1:3])
    assert scan.read_image(2, 2).shape == (0, 4, 5)


@pytest.mark.parametrize(
    ("skips", "before", "encoding"),
    [
        ("line skip: 2\n", b"one\ntwo\n", "raw"),
        ("line skip: 1\nbyte skip: 3\n", b"one\nxyz", "raw"),
        ("byte skip: -1\n", b"anything", "raw"),
        ("line skip: 1\nbyte skip: 3\n", b"one\n", "gzip"),
    ],
)
def test_lines_and_bytes_are_skipped(tmp_path, skips, before, encoding):
    data = (
        gzip.compress(b"xyz" + VOXELS.tobytes(), mtime=0)
        if encoding == "gzip"
        else VOXELS.tobytes()
    )
    path = write_nrrd(tmp_path / "a.nrrd", SPACING + skips, before + data, encoding=encoding)
    np.testing.assert_array_equal(read_scan(path).image, VOXELS)


@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int32", "uint32", "int64", "double"])
def test_big_endian_voxels_of_every_type_are_read(tmp_path, kind):
    voxels = np.arange(60).reshape(3, 4, 5).astype(np.dtype(kind))
    data = voxels.astype(voxels.dtype.newbyteorder(">")).tobytes()
    scan = read_scan(write_nrrd(tmp_path / "a.nrrd", "", data, type=kind, endian="big"))
    assert scan.image.dtype == voxels.dtype
    np.testing.assert_array_equal(scan.image, voxels)


@pytest.mark.parametrize(
    "space", ["left-posterior-superior", "RAS", "left-anterior-superior", "LPS", "scanner-xyz"]
)
def test_places_are_those_of_simpleitk(tmp_path, space):
    fields = (
        f"space: {space}\nspace directions: (0.4,0.3,0) (-0.6,0.8,0) (0,0,-2)\n"
        "space origin: (1,-2.5,30)\nkinds: domain domain domain\n"
    )
    path = write_nrrd(tmp_path / "a.nrrd", fields)
    scan, itk = open_scan(path), SimpleITK.ReadImage(str(path))
    origin, direction = placement_to_xyz(scan.read_placement())
    assert origin == pytest.approx(itk.GetOrigin())
    assert direction == pytest.approx(itk.GetDirection())
    assert scan.grid.spacing_mm_zyx == pytest.approx(itk.GetSpacing()[::-1])


def test_axes_that_are_rounded_are_read_and_sheared_ones_have_no_place(tmp_path):
    """Guards against a refusal: few digits are not a fault, and a shear costs only the place."""
    near = "space: LPS\nspace directions: (1,0.00001,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n"
    scan = open_scan(write_nrrd(tmp_path / "a.nrrd", near))
    axes = np.array(scan.read_placement().axes_zyx)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(axes, np.eye(3), atol=1e-5)
    sheared = open_scan(write_nrrd(tmp_path / "b.nrrd", near.replace("0.00001", "0.2")))
    assert sheared.read_placement() is None
    assert sheared.grid.spacing_mm_zyx == pytest.approx((1, 1, 1.04**0.5))


def test_header_of_any_length_and_line_ends_is_read(tmp_path):
    """Regression: only the first 16 KB were searched for the spacing."""
    path = write_nrrd(tmp_path / "a.nrrd", f"# {'x' * 50_000}\nnotes:=a: b\n{SPACING}")
    assert open_scan(path).grid.spacing_mm_zyx == (70, 60, 50)
    head, _, data = path.read_bytes().partition(b"\n\n")
    path.write_bytes(head.replace(b"\n", b"\r\n") + b"\r\n\r\n" + data)
    scan = read_scan(path)
    assert scan.grid.spacing_mm_zyx == (70, 60, 50)
    np.testing.assert_array_equal(scan.image, VOXELS)


def test_a_fourth_axis_of_one_volume_is_none_and_the_first_version_is_read(tmp_path):
    fields = "space: LPS\nspace directions: (2,0,0) (0,3,0) (0,0,4) none\nspace origin: (1,2,3)\n"
    path = write_nrrd(tmp_path / "a.nrrd", fields, dimension="4", sizes="5 4 3 1")
    path.write_bytes(path.read_bytes().replace(b"NRRD0005", b"NRRD00.01"))
    scan = open_scan(path)
    np.testing.assert_array_equal(scan.read_image(0, 3), VOXELS)
    assert scan.grid.spacing_mm_zyx == (4, 3, 2)
    assert scan.read_placement() == Placement((3.0, 2.0, 1.0))


def test_placement_without_a_field_is_none_and_with_an_origin_along_the_space(tmp_path):
    assert open_scan(write_nrrd(tmp_path / "a.nrrd", SPACING)).read_placement() is None
    fields = f"{SPACING}space: LPS\nspace origin: (1,2,3)\n"
    assert open_scan(write_nrrd(tmp_path / "a.nrrd", fields)).read_placement() == Placement(
        (3.0, 2.0, 1.0)
    )


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"sizes": "65535 65535 65535"}, "truncated"),
        ({"sizes": "65535 65535 65535", "encoding": "gzip"}, "truncated"),
        ({"sizes": "65535 65535 65535", "encoding": "ascii"}, "truncated"),
        ({"sizes": "16000 16000 65535", "encoding": "bz2"}, "TMPDIR"),
        ({"sizes": "5 4 0"}, "positive"),
        ({"sizes": "5 4 -3"}, "positive"),
        ({"sizes": "5 4 x"}, "sizes must be numbers"),
        ({"sizes": "5 4 1e400"}, "sizes must be whole"),
        ({"sizes": "5 4 2.5"}, "sizes must be whole"),
        ({"sizes": "5 12", "dimension": "2"}, "3-D"),
        ({"sizes": "5 12"}, "as many as the dimension, 3"),
        ({"spacigns": "1 1 1"}, "no field 'spacigns'"),
        ({"sizes": "5 4 1"}, "two slices"),
        ({"type": "block"}, "one grey value"),
        ({"type": "quad"}, "type must be one of"),
        ({"encoding": "zip"}, "encoding must be one of"),
        ({"endian": "middle"}, "endian must be one of"),
        ({"spacings": "1 1 0"}, "positive and finite"),
        ({"spacings": "1 1 inf"}, "positive and finite"),
        ({"spacings": "1 1"}, "positive and finite"),
        ({"units": '"mm" "mm"'}, "unit"),
        ({"space directions": "(1,0,0) (0,1,0) none"}, "space directions must be 3 numbers"),
        ({"space directions": "(1,0,0) (0,1,0) (0,0,nan)"}, "positive and finite"),
        ({"space directions": "(1,0,0) (0,1,0)"}, "3 vectors"),
        ({"space directions": "(1,0,0) (0,1,0) (0,0,1)", "space origin": "(0,0)"}, "space origin"),
        (
            {"space": "left-posterior-sqperior", "space directions": "(1,0,0) (0,1,0) (0,0,1)"},
            "space must be one of",
        ),
        ({"kinds": "RGB-color space space"}, "one grey value each"),
        ({"data file": "none.raw"}, r"there is no none\.raw"),
        ({"data file": "/dev/zero"}, "there is no zero"),
        ({"data file": "s%d.raw 1 1000000000 1"}, "numbered"),
        ({"data file": "LIST"}, "1 to 3 files"),
        ({"byte skip": "-2"}, "must not be negative"),
        ({"byte skip": "-1", "encoding": "gzip"}, "must not be negative"),
        ({"line skip": "9999999"}, "truncated"),
    ],
    ids=str,
)
def test_header_that_cannot_be_right_is_refused_in_one_sentence(tmp_path, change, rule):
    path = write_nrrd(tmp_path / "a.nrrd", "", **change)
    with pytest.raises(InputError, match=rule) as caught:
        read_scan(path)
    assert re.fullmatch(r"[^\n]+", str(caught.value))


@pytest.mark.parametrize(
    "content",
    [b"", b"NRRD", b"PNG\n\n", b"NRRD0004\n", b"NRRD0004\nsizes 5\n\n", b"NRRD0004\n\xff\xfe\n\n"],
)
def test_what_is_no_nrrd_is_refused_by_name(tmp_path, content):
    (tmp_path / "a.nrrd").write_bytes(content)
    with pytest.raises(InputError, match=r"^a\.nrrd: [^\n]*$"):
        open_scan(tmp_path / "a.nrrd")
