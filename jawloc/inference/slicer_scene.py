"""3D Slicer scenes: a scan, the positions in it and their crop boxes, which open together.

A scene (.mrml) is XML that names files: the volume's and those of markups, as 3D Slicer 5 itself
saves them. The elements are those of its source, Libs/MRML/Core and Modules/Loadable/Markups/MRML
(each node's GetNodeTagName), and the reference page "MRML Overview" of its developer guide.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from jawloc.geometry import Grid, Placement, Triple, voxels_to_lps_mm
from jawloc.inference.crop import CropBox
from jawloc.inference.exports import SLICER_SCHEMA
from jawloc.scans.itk_spacing import itk_spacing
from jawloc.scans.spacing import SAME_SPACING

# Of scans that ITK, which reads them for 3D Slicer, puts where jawloc does. It doesn't know the
# voxel sizes that microscopes and ImageJ write into TIFFs.
PLACED_ENDINGS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm", ".dicom")
# Formats whose headers may state a unit of length, which jawloc obeys and ITK does not.
_UNITS_ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd")
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
SCENE_START = '<?xml version="1.0" encoding="UTF-8"?>\n<MRML>\n'  # 3D Slicer's states its version
_VIEWS = ("Red", "Yellow", "Green")  # the three slice views


def is_placed(path: Path, spacing_mm_zyx: Triple | None) -> bool:
    """Return whether 3D Slicer opens a file as a volume where jawloc's positions in mm are.

    The spacing is that of the scan in the file; None if the file does not state it.
    """
    if not path.is_file() or not path.name.lower().endswith(PLACED_ENDINGS):
        return False
    if not path.name.lower().endswith(_UNITS_ENDINGS):
        return True
    shown = itk_spacing(path)
    return shown is not None and np.allclose(
        shown, spacing_mm_zyx or (1.0, 1.0, 1.0), rtol=SAME_SPACING
    )


def crop_box_text(
    object_name: str, window: CropBox, grid: Grid, placement: Placement | None
) -> str:
    """Return a crop box as a markups file with one region of interest, in LPS mm.

    Without a place in patient space mm are voxels times the spacing, and without a spacing voxels,
    as in `slicer_text`.
    """
    placed = placement or Placement()
    if grid.spacing_mm_zyx is None:
        grid, placed = Grid(grid.shape_zyx, (1.0, 1.0, 1.0)), Placement()
    size = np.asarray(window.size_zyx)
    middle = voxels_to_lps_mm(np.asarray(window.start_zyx) + (size - 1) / 2, grid, placed)
    assert middle is not None  # there is a spacing
    axes = np.asarray(placed.axes_zyx)[::-1, ::-1].T  # its columns: x, y, z in x, y, z
    if np.linalg.det(axes) < 0:  # a box that is mirrored is the same box
        axes = axes * (1, 1, -1)
    box = {
        "type": "ROI",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": True,
        "roiType": "Box",
        "center": middle[::-1].tolist(),
        "orientation": axes.ravel().tolist(),
        "size": (size * np.asarray(grid.spacing_mm_zyx))[::-1].tolist(),
        "insideOut": False,
        "controlPoints": [
            {
                "id": "1",
                "label": f"crop of {object_name}",
                "position": middle[::-1].tolist(),
                "selected": True,
                "locked": True,
                "visibility": True,
                "positionStatus": "defined",
            }
        ],
        "display": {"handlesInteractive": False, "fillOpacity": 0.1},
    }
    content = {"@schema": SLICER_SCHEMA, "markups": [box]}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def scene_text(scan: str, volume: Path, markups: Path, boxes: Mapping[str, Path]) -> str:
    """Return the scene of one scan.

    Parameters
    ----------
    scan : the scan's name
    volume : file of the scan, or of a crop of it
    markups : file of its positions
    boxes : file of each object's crop box
        Relative paths are relative to the scene's file.
    """
    nodes = [
        *_stored("Volume", "ScalarVolume", "VolumeArchetype", 1, scan, volume),
        *_stored("MarkupsFiducial", "MarkupsFiducial", "MarkupsJson", 1, scan, markups),
    ]
    for number, (name, path) in enumerate(boxes.items(), 1):
        about = ("MarkupsROI", "MarkupsROI", "MarkupsROIJson", number, f"crop of {name}", path)
        nodes += _stored(*about)
    for view in _VIEWS:
        about_view = {
            "id": f"vtkMRMLSliceCompositeNode{view}",
            "name": "SliceComposite",
            "hideFromEditors": "true",
            "singletonTag": view,
            "layoutName": view,
            "references": "backgroundVolume:vtkMRMLScalarVolumeNode1;",
        }
        nodes.append(_element("SliceComposite", about_view))
    return SCENE_START + "\n".join([*nodes, "</MRML>", ""])


def _stored(tag: str, kind: str, storage: str, number: int, name: str, path: Path) -> Iterator[str]:
    """Yield the elements of data in a file: how it is shown, where it is stored, and itself."""
    display_id = f"vtkMRML{kind}DisplayNode{number}"
    storage_id = f"vtkMRML{storage}StorageNode{number}"
    display = {"id": display_id, "name": f"{tag}Display", "hideFromEditors": "true"}
    if tag == "Volume":
        display |= {"colorNodeID": "vtkMRMLColorTableNodeGrey", "autoWindowLevel": "1"}
    yield _element(f"{tag}Display", display)
    # 3D Slicer decodes the name of a file like that of an address
    file_name = quote(os.fsencode(path.as_posix()))
    about = {"id": storage_id, "name": f"{storage}Storage", "hideFromEditors": "true"}
    yield _element(f"{storage}Storage", about | {"fileName": file_name})
    references = f"display:{display_id};storage:{storage_id};"
    data = {"id": f"vtkMRML{kind}Node{number}", "name": name, "references": references}
    yield _element(tag, data)


def _element(tag: str, attributes: Mapping[str, str]) -> str:
    written = [f"{name}={quoteattr(_NO_XML.sub('?', text))}" for name, text in attributes.items()]
    return f"  <{tag} {' '.join(written)}></{tag}>"


def volume_of(scan: Path, spacing_mm_zyx: Triple | None, crops: Sequence[Path]) -> Path | None:
    """Return the file that a scene shows: the scan's, else a crop's that keeps its place, if any.

    The spacing is the scan's, as for `is_placed`. Of crops, NRRD and NIfTI files have the same
    coordinates in mm as their scan.
    """
    if is_placed(scan, spacing_mm_zyx):
        return scan
    kept = (path for path in crops if path.name.lower().endswith((".nrrd", ".nii.gz")))
    return next(kept, None)
