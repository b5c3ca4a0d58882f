"""Files of points: every format, where its points are in the scan, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile

from jawloc.errors import InputError
from jawloc.inference.crop import CropBox
from jawloc.inference.exports import (
    SLICER_SCHEMA,
    csv_text,
    failed_row,
    located_row,
    napari_text,
    slicer_text,
)
from jawloc.inference.locator import Localisation
from jawloc.scans.convert.points import read_points
from jawloc.scans.points import place_points
from jawloc.scans.reading import open_scan
from jawloc.scans.scan import ScanPoint
from tests.scans.test_placement import FLIPPED, TURNED, volume, write_series

FCSV = """# Markups fiducial file version = 4.11
# CoordinateSystem = {system}
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
vtkMRMLMarkupsFiducialNode_0,1.5,-2.5,3.25,0,0,0,1,1,1,0,{label},"left, lower",
"""


EMPTY = np.zeros((6, 5, 4), np.uint8)


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def markups(*points, **about) -> str:
    control = [{"label": label, "position": position} for label, position in points]
    return json.dumps({"markups": [{"type": "Fiducial", "controlPoints": control, **about}]})


def found(path: Path) -> list[tuple]:
    return [(p.scan, p.object, p.position_zyx, p.space) for p in read_points(path).points]


# --- tables -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scan,z,y,x\nfish,1,2.5,3\n", ("fish", 1, (1.0, 2.5, 3.0), "voxels")),
        ("z,x,y\n1,3,2\n", ("clicked", 1, (1.0, 2.0, 3.0), "voxels")),
        ("x_mm,y_mm,z_mm,scan\n3,2,1,a.nii.gz\n", ("a", 1, (1.0, 2.0, 3.0), "lps_mm")),
        ("scan,object,z,y,x\nfish, jaw ,1,2,3\n", ("fish", "jaw", (1.0, 2.0, 3.0), "voxels")),
        ("scan,object,z,y,x\nfish,7.0,1,2,3\n", ("fish", 7, (1.0, 2.0, 3.0), "voxels")),
        ("\ufeffscan;z;y;x\n\nfish;1e0;2;3\n;;;\n", ("fish", 1, (1.0, 2.0, 3.0), "voxels")),
        ("scan\tz\ty\tx\r\nfish\t1\t2\t3\r\n", ("fish", 1, (1.0, 2.0, 3.0), "voxels")),
        ("\ufeffsep=;\r\nscan;z;y;x\r\nfish;1;2;3\r\n", ("fish", 1, (1.0, 2.0, 3.0), "voxels")),
        ("sep=\t\nscan\tz\ty\tx\nfish\t1\t2\t3\n", ("fish", 1, (1.0, 2.0, 3.0), "voxels")),
        ("index,axis-0,axis-1,axis-2\n0.0,1,2,3\n", ("clicked", 1, (1.0, 2.0, 3.0), "voxels")),
        ("Scan, Object ,Z,Y,X\nfish,jaw,1,2,3\n", ("fish", "jaw", (1.0, 2.0, 3.0), "voxels")),
        ("scan,Label,z,y,x\nfish,jaw,1,2,3\n", ("fish", "jaw", (1.0, 2.0, 3.0), "voxels")),
        (
            "Scan,Left Eye_Z,Left Eye_Y,Left Eye_X,Size_Z,Size_Y,Size_X\nfish,1,2,3,9,9,9\n",
            ("fish", "Left Eye", (1.0, 2.0, 3.0), "voxels"),
        ),
        (
            "index,axis-0,axis-1,axis-2,label\n0,1,2,3,left\n",
            ("clicked", "left", (1.0, 2.0, 3.0), "voxels"),
        ),
    ],
)
def test_one_point_of_a_table(tmp_path, text, expected):
    assert found(written(tmp_path, "clicked.csv", text)) == [expected]


def test_a_table_with_one_row_a_scan_names_objects_in_its_columns(tmp_path):
    """As the lab's own table of positions does, which has the scans' shapes as well."""
    text = "scan,shape_z,shape_y,shape_x,jaw_z,jaw_y,jaw_x,eye_z,eye_y,eye_x\n7,99,88,77,1,2,3,,,\n"
    read = read_points(written(tmp_path, "t.csv", text))
    assert [(p.scan, p.object, p.position_zyx) for p in read.points] == [("7", "jaw", (1, 2, 3))]
    assert read.skipped == (("7", "'eye' is without a position in t.csv, line 2"),)


def localisation(scan: str, status: str) -> Localisation:
    return Localisation(scan, "jaw", (1.25, 2.5, 3.75), None, 0.0, 0.0, status=status)


def test_jawlocs_own_files_give_the_positions_that_they_were_made_of(tmp_path):
    """Guards all three exports: what `jawloc locate` writes, corrected by hand, is trained on."""
    unused = dict.fromkeys(("seconds", "crop_file", "picture_file"))
    about = {"path": "p", "model": "m", "key": "k", **unused}
    window = CropBox((0, 0, 0), (9, 9, 9), "centred")
    lps = (-1.0, 20.5, 30.125)
    ok, lost = (
        located_row(localisation(scan, status), window, lps, about)
        for scan, status in (("a", "ok"), ("b", "not found"))
    )
    rows = [ok, lost, failed_row("c", "can't be read", about)]
    point = ("a", "jaw", (1.25, 2.5, 3.75), "voxels")

    table = written(tmp_path, "locations.csv", csv_text(rows))
    assert found(table) == [point]
    assert read_points(table).skipped == (
        ("b", "'jaw' is 'not found' in locations.csv, line 3"),
        ("c", "the point is 'failed' in locations.csv, line 4"),
    )
    assert found(written(tmp_path, "napari_points.csv", napari_text(rows))) == [point]
    slicer = written(tmp_path, "a.mrk.json", slicer_text([ok]))
    assert found(slicer) == [("a", "jaw", lps, "slicer_mm")]
    unseen = written(tmp_path, "b.mrk.json", slicer_text([lost]))
    assert found(unseen) == []
    assert read_points(unseen).skipped == (
        ("b", "'jaw' is 'not found' in b.mrk.json, point 'jaw'"),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scan,z,y\nfish,1,2\n", "needs the columns z, y and x .* it has scan, z, y$"),
        ("scan,z,y,x\n", "needs a header and a row; it has no row"),
        ("", "it has no row"),
        ("scan,z,y,x\nfish,1,2,left\n", "t.csv, line 2: x must be a number; it is 'left'"),
        ("sep=,\nscan,z,y,x\nfish,1,2,left\n", "t.csv, line 3: x must be a number"),
        ("scan,z,y,x\nfish,1,2,inf\n", "line 2: x must be finite; it is 'inf'"),
        ("scan,z,y,x\nfish,1,,3\n", "line 2: a point needs all of z, y, x; y is missing"),
        ("scan,z,y,x\nfish,1,2\n", "line 2: a row must have a cell for each of the 4 .* has 3"),
        ("scan,z;y;x\n1,2;3;4\n", "needs the columns"),
        (
            "scan;z;y;x\nfish;1,5;2;3\n",
            "line 2: z must be a number; it is '1,5'; with a decimal point: 1.5",
        ),
        ("scan,z,y,x\n,1,2,3\n", "line 2: scan must be the name of a scan; it is empty"),
        ("scan,object,z,y,x\nfish,300,1,2,3\n", "a label value must be .* 1 to 255; it is '300'"),
        ("scan,object,z,y,x\nfish,1.5,1,2,3\n", "1 to 255; it is '1.5'"),
        ("z,z,y,x\n1,1,2,3\n", "columns must differ; two are called 'z'"),
        ("Z,z,y,x\n1,1,2,3\n", "columns must differ; two are called 'z'"),
        ("index,axis-0,axis-1\n0,1,2\n", "three axes, axis-0 to axis-2; it has axis-0, axis-1"),
        ("axis-0,axis-1,axis-2,axis-3\n1,2,3,4\n", "three axes"),
    ],
)
def test_a_table_that_is_refused(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        read_points(written(tmp_path, "t.csv", text))


def test_a_table_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes("scan,z,y,x\nföhn,1,2,3\n".encode("utf-16"))
    with pytest.raises(InputError, match=r"t\.csv: a table must be text in UTF-8"):
        read_points(tmp_path / "t.csv")


# --- 3D Slicer --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("about", "expected_zyx"),
    [
        ({}, (3.25, -2.5, 1.5)),
        ({"coordinateSystem": "LPS", "coordinateUnits": "mm"}, (3.25, -2.5, 1.5)),
        ({"coordinateSystem": "RAS"}, (3.25, 2.5, -1.5)),
        ({"coordinateUnits": "um"}, (0.00325, -0.0025, 0.0015)),
        ({"coordinateUnits": ["cm", "cm", "cm"]}, (32.5, -25.0, 15.0)),
    ],
)
def test_markups_in_their_system_and_unit(tmp_path, about, expected_zyx):
    path = written(tmp_path, "fish.mrk.json", markups(("jaw", [1.5, -2.5, 3.25]), **about))
    ((scan, name, position, space),) = found(path)
    assert (scan, name, space) == ("fish", "jaw", "slicer_mm")
    np.testing.assert_allclose(position, expected_zyx, rtol=1e-12)


@pytest.mark.parametrize("status", ["ok", "not found"])
@pytest.mark.parametrize("system", ["LPS", "RAS"])
def test_jawlocs_own_point_that_was_dragged_in_3d_slicer_is_a_label(tmp_path, system, status):
    """With every field that 3D Slicer 5 writes: it reads jawloc's file, and saves its own."""
    sign = -1 if system == "RAS" else 1
    point = {
        "id": "1",
        "label": "jaw",
        "description": f"fish: {status}, radius 0.400 mm",
        "associatedNodeID": "vtkMRMLScalarVolumeNode1",
        "position": [sign * 1.5, sign * -2.5, 3.25],
        "orientation": [-1.0, -0.0, -0.0, -0.0, -1.0, -0.0, 0.0, 0.0, 1.0],
        "selected": True,
        "locked": False,
        "visibility": True,
        "positionStatus": "defined",
    }
    display = {"visibility": True, "opacity": 1.0, "glyphType": "Sphere3D", "textScale": 3.0}
    about = {
        "locked": False,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N-%d",
        "coordinateSystem": system,
        "coordinateUnits": "mm",
        "type": "Fiducial",
        "lastUsedControlPointNumber": 1,
        "measurements": [],
        "display": display,
    }
    content = {"@schema": SLICER_SCHEMA, "markups": [about | {"controlPoints": [point]}]}
    path = written(tmp_path, "fish.mrk.json", json.dumps(content, indent=4))
    assert found(path) == [("fish", "jaw", (3.25, -2.5, 1.5), "slicer_mm")]


@pytest.mark.parametrize(
    ("system", "expected_zyx"),
    [
        ("LPS", (3.25, -2.5, 1.5)),
        ("RAS", (3.25, 2.5, -1.5)),
        ("1", (3.25, -2.5, 1.5)),
        ("0", (3.25, 2.5, -1.5)),
    ],
)
def test_fcsv_in_its_system(tmp_path, system, expected_zyx):
    path = written(tmp_path, "fish.fcsv", FCSV.format(system=system, label="jaw"))
    assert found(path) == [("fish", "jaw", expected_zyx, "slicer_mm")]


@pytest.mark.parametrize("label", ["", "F-1", "F_1-3", "MarkupsFiducial_2", "fish-1", "fish_12"])
def test_a_point_that_nobody_named_has_label_value_1(tmp_path, label):
    """3D Slicer names points after their list; that is no object's name."""
    path = written(tmp_path, "fish.fcsv", FCSV.format(system="LPS", label=label))
    assert [key for _, key, _, _ in found(path)] == [1]
    path = written(tmp_path, "fish.mrk.json", markups((label, [1, 2, 3])))
    assert [key for _, key, _, _ in found(path)] == [1]


def test_a_point_that_was_not_placed_is_skipped_and_named(tmp_path):
    content = json.loads(markups(("jaw", [1, 2, 3]), ("eye", [0, 0, 0]), ("ear", None)))
    content["markups"][0]["controlPoints"][1]["positionStatus"] = "missing"
    read = read_points(written(tmp_path, "fish.mrk.json", json.dumps(content)))
    assert [point.object for point in read.points] == ["jaw"]
    assert read.skipped == (
        ("fish", "'eye' is without a position in fish.mrk.json, point 'eye'"),
        ("fish", "'ear' is without a position in fish.mrk.json, point 'ear'"),
    )
    text = FCSV.format(system="LPS", label="jaw").replace("1.5,-2.5,3.25", "nan,nan,nan")
    assert read_points(written(tmp_path, "a.fcsv", text)).skipped == (
        ("a", "'jaw' is without a position in a.fcsv, line 4"),
    )


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.mrk.json", "{", "a markups file must be JSON"),
        ("a.mrk.json", "[" * 100_000, "a markups file must be JSON"),
        ("a.mrk.json", "[]", "must have a list of markups; it has none"),
        ("a.mrk.json", '{"markups": [{}]}', "must have a list of controlPoints; got None"),
        ("a.mrk.json", markups(type="Line"), r"must be points \(type Fiducial\); one is 'Line'"),
        ("a.mrk.json", markups(coordinateSystem="IJK"), "must be LPS or RAS; it is 'IJK'"),
        ("a.mrk.json", markups(coordinateUnits="ell"), "one unit of length .*; they are 'ell'"),
        ("a.mrk.json", markups(coordinateUnits=[["mm"], "mm", {}]), "one unit of length .*; they"),
        ("a.mrk.json", markups(coordinateUnits=[]), r"one unit of length .*; they are \[\]"),
        ("a.mrk.json", markups(), "must hold at least one; there is none"),
        ("a.mrk.json", markups(("jaw", [1, 2])), "point 'jaw': a position must be three numbers"),
        ("a.mrk.json", markups(("jaw", [1, 2, "x"])), "z must be a number; it is 'x'"),
        ("a.fcsv", FCSV.format(system="2", label="jaw"), "must be LPS or RAS; it is '2'"),
        ("a.fcsv", "# columns = id,x,y,z,label\n0,1,2,3,jaw\n", "CoordinateSystem, .* has none"),
        ("a.fcsv", "# CoordinateSystem = LPS\n# columns = x,y\n1,2\n", "x, y, z and label; it has"),
        (
            "a.fcsv",
            f"# CoordinateSystem = LPS\n0,1,2,3,{'n' * 200_000}\n",
            "line 2: a line must be cells separated by commas; field larger",
        ),
        ("a.fcsv", "# CoordinateSystem = LPS\n0,1,2\n", "line 2: a point needs all of z, y, x; z"),
    ],
)
def test_a_file_of_3d_slicer_that_is_refused(tmp_path, name, text, said):
    with pytest.raises(InputError, match=said) as error:
        read_points(written(tmp_path, name, text))
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize(
    ("name", "what"),
    [("a.csv", "a table"), ("a.fcsv", "an .fcsv file"), ("a.mrk.json", "a markups file")],
)
def test_a_scan_under_the_name_of_points_is_not_read_into_memory(tmp_path, name, what):
    (tmp_path / name).touch()
    os.truncate(tmp_path / name, 3 * 2**30)  # takes no place on the disk
    with pytest.raises(InputError, match=f"^{name}: {what} has at most 8.4 MB"):
        read_points(tmp_path / name)


# --- where they are in the scan ---------------------------------------------------------------

OBLIQUE = tuple(
    (
        np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
        @ np.array([[1, 0, 0], [0, 0.28, -0.96], [0, 0.96, 0.28]])
    ).ravel()
)
INDEX_ZYX = (1.25, 2.5, 3.125)


@pytest.mark.parametrize("direction", [TURNED, FLIPPED, OBLIQUE])
@pytest.mark.parametrize("name", ["fish.nii.gz", "fish.nrrd", "fish.mha", "fish"])
@pytest.mark.parametrize("form", ["csv", "lps.json", "ras.json", "fcsv"])
def test_mm_in_patient_space_are_where_simpleitk_says(tmp_path, direction, name, form):
    if name == "fish":
        write_series(tmp_path / name, volume(direction))
        files = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / name))
        image = SimpleITK.ReadImage(files)
    else:
        SimpleITK.WriteImage(volume(direction), str(tmp_path / name))
        image = SimpleITK.ReadImage(str(tmp_path / name))
    x, y, z = image.TransformContinuousIndexToPhysicalPoint(INDEX_ZYX[::-1])
    if form == "csv":
        text = f"scan,x_mm,y_mm,z_mm\nfish,{x!r},{y!r},{z!r}\n"
        path = written(tmp_path, "points.csv", text)
    elif form == "fcsv":
        text = FCSV.format(system="RAS", label="").replace("1.5,-2.5,3.25", f"{-x!r},{-y!r},{z!r}")
        path = written(tmp_path, "fish.fcsv", text)
    else:
        sign = -1 if form.startswith("ras") else 1
        about = {"coordinateSystem": form[:3].upper()}
        path = written(
            tmp_path, "fish.mrk.json", markups(("F-1", [sign * x, sign * y, z]), **about)
        )
    (point,), notes = place_points(read_points(path).points, open_scan(tmp_path / name))
    np.testing.assert_allclose(point.voxels_zyx, INDEX_ZYX, atol=1e-6)
    assert (point.object, notes) == (1, ())


def test_without_a_place_in_space_mm_are_voxels_times_the_spacing(tmp_path):
    """As jawloc writes them for such a file; 3D Slicer shows one without a spacing in 1 mm."""
    tifffile.imwrite(tmp_path / "fish.tif", EMPTY, photometric="minisblack")
    scan = open_scan(tmp_path / "fish.tif")
    slicer = read_points(written(tmp_path, "fish.mrk.json", markups(("jaw", [1, 2, 3])))).points
    points, (note,) = place_points(slicer, scan)
    assert points == (ScanPoint("jaw", (3, 2, 1)),)
    assert note == "fish.tif states no voxel size: the points' mm were taken for voxels"
    assert place_points(slicer, scan, (1.5, 0.5, 0.5)) == (points, (note,))  # what Slicer showed

    table = read_points(written(tmp_path, "t.csv", "scan,x_mm,y_mm,z_mm\nfish,1,2,3\n")).points
    placed, (note,) = place_points(table, scan, (1.5, 0.5, 0.5))
    assert placed == (ScanPoint(1, (2, 4, 2)),)
    assert note.startswith("fish.tif states no place in patient space: ")
    both = place_points([*slicer, *table], scan, (1.5, 0.5, 0.5))[0]
    assert both == (ScanPoint("jaw", (3, 2, 1)), ScanPoint(1, (2, 4, 2)))
    with pytest.raises(InputError, match=r"t.csv, line 2: points in mm need .* fish.tif states no"):
        place_points(table, scan)


IMAGEJ = {"imagej": True, "metadata": {"axes": "ZYX", "unit": "mm", "spacing": 0.021}}


@pytest.mark.parametrize(
    "how",
    [
        {"resolution": (96, 48), "resolutionunit": "INCH"},
        {"resolution": (96, 48), "resolutionunit": "CENTIMETER"},
        {"resolution": (1 / 0.021, 1 / 0.021), **IMAGEJ},
        {"resolution": (1 / 0.021, 1 / 0.021), "resolutionunit": "CENTIMETER", **IMAGEJ},
    ],
)
def test_points_on_a_tiff_are_where_3d_slicer_shows_them(tmp_path, how):
    """Regression: it shows the resolution's mm, and points went elsewhere or were refused."""
    tifffile.imwrite(tmp_path / "fish.tif", EMPTY, photometric="minisblack", **how)
    image = SimpleITK.ReadImage(str(tmp_path / "fish.tif"))
    shown = image.TransformContinuousIndexToPhysicalPoint((2.5, 3.0, 4.0))
    path = written(tmp_path, "fish.mrk.json", markups(("jaw", list(shown))))
    (point,), (note,) = place_points(read_points(path).points, open_scan(tmp_path / "fish.tif"))
    np.testing.assert_allclose(point.voxels_zyx, (4, 3, 2.5), rtol=1e-6)
    assert "by which 3D Slicer shows it" in note
    assert "check that they match" in note


def test_points_in_a_tiffs_own_mm_stay_so_in_3d_slicer(tmp_path):
    """As in jawloc's scenes and crops, or with the right voxel size typed in."""
    how = {"resolution": (1 / 0.021, 1 / 0.021), **IMAGEJ}
    tifffile.imwrite(tmp_path / "fish.tif", EMPTY, photometric="minisblack", **how)
    shown = [0.021 * index for index in (2.5, 3.0, 4.0)]
    path = written(tmp_path, "fish.mrk.json", markups(("jaw", shown)))
    (point,), (note,) = place_points(read_points(path).points, open_scan(tmp_path / "fish.tif"))
    np.testing.assert_allclose(point.voxels_zyx, (4, 3, 2.5), rtol=1e-6)
    assert "the scan's own in jawloc" in note


def test_points_that_two_voxel_sizes_fit_are_refused(tmp_path):
    """Regression: of 0.8 and 1 mm the smaller one counted, in which most points lie too."""
    how = {"imagej": True, "metadata": {"axes": "ZYX", "unit": "mm", "spacing": 0.8}}
    volume = np.zeros((40, 40, 40), np.uint8)
    tifffile.imwrite(tmp_path / "fish.tif", volume, resolution=(1 / 0.8, 1 / 0.8), **how)
    scan = open_scan(tmp_path / "fish.tif")
    both, one = [10.0, 10.0, 10.0], [35.0, 35.0, 35.0]
    path = written(tmp_path, "fish.mrk.json", markups(("jaw", both)))
    with pytest.raises(InputError, match=r"must fit one voxel size; these fit .* give them in vox"):
        place_points(read_points(path).points, scan)
    path = written(tmp_path, "fish.mrk.json", markups(("jaw", one)))
    (point,), _ = place_points(read_points(path).points, scan)
    np.testing.assert_allclose(point.voxels_zyx, (35, 35, 35))  # 28 mm in the smaller one's


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            "jaw,6,2,3",
            "t.csv, line 2: a point must lie in its scan, which has (6, 5, 4) voxels (z, y, x), "
            "numbered from 0; 'jaw' is at (6, 2, 3)",
        ),
        ("jaw,1,-0.6,3", "'jaw' is at (1, -0.6, 3)"),
        ("2,1,2,3.6", "label value 2 is at (1, 2, 3.6)"),
        (
            "jaw,1,2,3\njaw,2,2,3",
            "t.csv, line 3: an object has one point in a scan; 'jaw' has (1, 2, 3) and (2, 2, 3)",
        ),
        (",1,2,3\n1,2,2,3", "line 3: an object has one point in a scan; label value 1 has"),
    ],
)
def test_points_that_are_not_in_the_scan_or_two_of_one_object(tmp_path, rows, said):
    tifffile.imwrite(tmp_path / "fish.tif", EMPTY, photometric="minisblack")
    lines = "".join(f"fish,{row}\n" for row in rows.split("\n"))
    path = written(tmp_path, "t.csv", f"scan,object,z,y,x\n{lines}")
    with pytest.raises(InputError) as error:
        place_points(read_points(path).points, open_scan(tmp_path / "fish.tif"))
    assert said in str(error.value)


def test_the_borders_of_the_outermost_voxels_are_inside(tmp_path):
    tifffile.imwrite(tmp_path / "fish.tif", EMPTY, photometric="minisblack")
    path = written(
        tmp_path, "t.csv", "scan,object,z,y,x\nfish,a,-0.5,-0.5,-0.5\nfish,b,5.5,4.5,3.5\n"
    )
    points, _ = place_points(read_points(path).points, open_scan(tmp_path / "fish.tif"))
    assert [point.object for point in points] == ["a", "b"]
