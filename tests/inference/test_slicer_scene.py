"""A scene for 3D Slicer is XML, whatever a scan is called, and its references lead somewhere."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree

import numpy as np
import pytest
import SimpleITK as sitk

from jawloc.geometry import Grid, Placement
from jawloc.inference.crop import CropBox
from jawloc.inference.slicer_scene import crop_box_text, is_placed, scene_text, volume_of

FLIPPED = Placement((1.0, 2.0, 3.0), ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
WINDOW = CropBox((-2, 0, 10), (4, 6, 8), "padded")


def roi(text: str) -> dict:
    (box,) = json.loads(text)["markups"]
    assert box["controlPoints"][0]["position"] == box["center"]
    return box


@pytest.mark.parametrize("name", ["fish", 'a"b&<c>', "é\u2028\x01", "\udce9", "50%20 off"])
def test_every_reference_leads_to_a_node_and_every_file_is_named(name):
    volume, markups = Path(f"/data/{name}.nii"), Path("..", "markups", f"{name}.mrk.json")
    boxes = {"jaw": Path(f"{name}.box1.mrk.json"), name: Path(f"{name}.box2.mrk.json")}
    text = scene_text(name, volume, markups, boxes)
    nodes = {node.get("id"): node for node in ElementTree.fromstring(text.encode())}
    assert len(nodes) == 15  # four times data, display and storage, and three views
    for node in nodes.values():
        for reference in filter(None, node.get("references", "").split(";")):
            assert reference.partition(":")[2] in nodes
    files = [unquote_to_bytes(n.get("fileName")) for n in nodes.values() if n.get("fileName")]
    assert files == [os.fsencode(path) for path in (volume, markups, *boxes.values())]


def test_a_crop_box_is_where_the_scan_lies():
    box = roi(crop_box_text("jaw", WINDOW, Grid((20, 20, 20), (0.5, 0.25, 2.0)), FLIPPED))
    assert (box["type"], box["coordinateSystem"]) == ("ROI", "LPS")
    assert box["center"] == [3 + 2 * 13.5, 2 + 0.25 * 2.5, 1 - 0.5 * -0.5]
    assert box["size"] == [16.0, 1.5, 2.0]
    axes = np.array(box["orientation"]).reshape(3, 3)
    assert np.linalg.det(axes) == pytest.approx(1)  # the mirrored axis is turned: the same box
    np.testing.assert_allclose(np.abs(axes), np.eye(3))


@pytest.mark.parametrize("placement", [None, FLIPPED])
def test_without_a_voxel_size_a_box_is_in_voxels_as_slicer_shows_the_scan(placement):
    box = roi(crop_box_text("jaw", WINDOW, Grid((20, 20, 20)), placement))
    assert (box["center"], box["size"]) == ([13.5, 2.5, -0.5], [8.0, 6.0, 4.0])


def test_a_turned_scan_has_a_turned_box():
    turned = Placement((0, 0, 0), ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)))
    box = roi(crop_box_text("jaw", WINDOW, Grid((20, 20, 20), (1.0, 2.0, 3.0)), turned))
    axes = np.array(box["orientation"]).reshape(3, 3)
    # the columns are the ways in x, y, z along which the indices x, y and z grow
    assert axes.T.tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    assert box["size"] == [24.0, 12.0, 4.0]
    assert box["center"] == [-0.5, 3 * 13.5, 2 * 2.5]


@pytest.mark.parametrize(("volumes", "placed"), [(1, True), (2, False)])
@pytest.mark.parametrize("ending", ["mha", "mhd"])
def test_a_fourth_dimension_of_one_volume_is_none(tmp_path, ending, volumes, placed):
    """Regression: the scene of such a scan had a crop instead, or there was none."""
    image = sitk.GetImageFromArray(np.zeros((volumes, 6, 7, 8), np.int16), isVector=False)
    image.SetSpacing((0.5, 0.4, 0.3, 1.0))
    sitk.WriteImage(image, str(tmp_path / f"a.{ending}"))
    assert is_placed(tmp_path / f"a.{ending}", (0.3, 0.4, 0.5)) == placed


def test_a_scene_shows_the_scan_or_else_a_crop_that_keeps_its_place(tmp_path):
    crops = [tmp_path / name for name in ("a.tif", "b.nrrd", "c.nii.gz")]
    for name in ("scan.NII.gz", "scan.tif"):
        (tmp_path / name).touch()
    assert volume_of(tmp_path / "scan.NII.gz", None, crops) == tmp_path / "scan.NII.gz"
    assert volume_of(tmp_path / "scan.tif", None, crops) == tmp_path / "b.nrrd"
    assert volume_of(tmp_path, None, crops[2:]) == tmp_path / "c.nii.gz"  # a folder of slices
    assert volume_of(tmp_path / "scan.tif", None, crops[:1]) is None
