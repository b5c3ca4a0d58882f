"""What jawloc adds to napari: opening labelled DICOMs and results, and finding the jaw in a layer.

`napari.yaml` beside this file names these functions to npe2, napari's way of finding plugins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import napari
import numpy as np

from jawloc.errors import InputError, one_line
from jawloc.geometry import Grid
from jawloc.inference.exports import Row
from jawloc.inference.locator import Localisation
from jawloc.inference.models import ModelOptions, load_model
from jawloc.reporting.location_files import TABLE, read_locations
from jawloc.reporting.location_text import by_doubt
from jawloc.reporting.tracking.model_files import model_file
from jawloc.scans.dicom import DICOM_ENDINGS
from jawloc.scans.reading import open_scan
from jawloc.scans.scan import ScanFile, scan_in_memory
from jawloc.training.device import choose_device
from jawloc.viewer.blocks import read_overview
from jawloc.workflows.review_session import found_position

# data, what napari's layer is made with, and its kind
LayerData = tuple[Any, dict[str, Any], str]
Reader = Callable[[str | list[str]], list[LayerData]]

# In a layer's metadata: the scan's path and the layer's shape, by which "Find the jaw" reads the
# scan itself, unless the layer was cut or resampled since.
OPENED = "jawloc_opened"
MOST_SCANS = 20  # of a folder of results, each with its layers


def get_reader(path: str | list[str]) -> Reader | None:
    """Return what reads a path into layers; None for one that is another plugin's."""
    first = Path(path[0] if isinstance(path, list) else path)
    if first.name == TABLE or (first / TABLE).is_file():
        return _read_results
    return _read_labelled if first.suffix.lower() in DICOM_ENDINGS else None


def _read_labelled(path: str | list[str]) -> list[LayerData]:
    """Read labelled DICOMs: image, and mask or points.

    A scan of many voxels is averaged: `jawloc review` shows full detail.
    """
    layers = []
    for name in path if isinstance(path, list) else [path]:
        scan = open_scan(Path(name))
        layers += [_image_layer(scan), *_label_layers(scan)]
    return layers


def _image_layer(scan: ScanFile) -> LayerData:
    block = read_overview(scan)
    spacing = np.asarray(scan.grid.spacing_mm_zyx or (1.0, 1.0, 1.0))
    about = {
        "name": scan.scan_id,
        "scale": spacing * block.step_voxels,
        "translate": spacing * block.start_voxels,
        "metadata": {OPENED: (str(scan.path), block.image.shape)},
    }
    return block.image, about, "image"


def _label_layers(scan: ScanFile) -> list[LayerData]:
    spacing = scan.grid.spacing_mm_zyx or (1.0, 1.0, 1.0)
    if scan.points:
        about = {"name": f"{scan.scan_id} points", "scale": spacing, "size": 6}
        names = {"object": [str(point.object) for point in scan.points]}
        return [([p.voxels_zyx for p in scan.points], about | {"features": names}, "points")]
    if scan.read_mask is None:
        return []
    shape = scan.grid.shape_zyx
    step = max(1, round((np.prod(shape) / 2**24) ** (1 / 3)))
    slices = range(step // 2, shape[0], step)
    start = [step // 2] * 3
    mask = np.stack(
        [scan.read_mask(z, z + 1)[0, start[1] :: step, start[2] :: step] for z in slices]
    )
    about = {
        "name": f"{scan.scan_id} mask",
        "scale": np.multiply(spacing, step),
        "translate": np.multiply(spacing, start),
    }
    return [(mask, about, "labels")]


def _read_results(path: str | list[str]) -> list[LayerData]:
    """Read results of `jawloc locate`: scans, the most doubtful first, with their positions."""
    places = path if isinstance(path, list) else [path]
    rows = [row for place in places for row in read_locations(Path(place))[1]]
    own: dict[tuple[str, str], list[Row]] = {}
    for row in by_doubt(row for row in rows if found_position(row) is not None):
        own.setdefault((row.path, row.scan), []).append(row)
    if len(own) > MOST_SCANS:
        napari.utils.notifications.show_warning(
            f"{len(own)} scans have positions; the {MOST_SCANS} most doubtful are opened here. "
            f"jawloc review shows all of them, one after the other"
        )
    opened = [*own.values()][:MOST_SCANS]
    return [layer for of_scan in opened for layer in _result_layers(of_scan)]


def _result_layers(rows: Sequence[Row]) -> list[LayerData]:
    try:
        scan = open_scan(Path(rows[0].path))
    except (InputError, OSError) as error:  # moved away since; its positions are still of use
        napari.utils.notifications.show_warning(one_line(error))
        return [_points_layer(rows, (1.0, 1.0, 1.0))]
    return [_image_layer(scan), _points_layer(rows, scan.grid.spacing_mm_zyx or (1.0, 1.0, 1.0))]


def _points_layer(rows: Sequence[Row], spacing: Sequence[float]) -> LayerData:
    features = {"object": [row.object for row in rows], "status": [row.status for row in rows]}
    about = {"name": f"{rows[0].scan} positions", "scale": spacing, "features": features, "size": 6}
    return [found_position(row) for row in rows], about, "points"


def find_in_layer(layer: Any, model: Path) -> list[Localisation]:
    """Run a model on a layer's scan; InputError if it isn't 3-D, or too small for the model."""
    with model_file(str(model), Path.cwd()) as path:
        locator = load_model(path, ModelOptions(), str(choose_device("auto")))
    scan = scan_of_layer(layer)
    prediction = locator.predict(locator.downsample(scan))
    return locator.localise(layer.name, prediction, scan.grid)


def scan_of_layer(layer: Any) -> ScanFile:
    """Return the scan of a layer: its file where it is known, or else the layer's own voxels."""
    if (path := _own_file(layer)) is not None:
        return open_scan(path)
    if layer.data.ndim != 3 or getattr(layer, "rgb", False):
        raise InputError(f"{layer.name}: a scan must have three axes; it has {layer.data.ndim}")
    z, y, x = layer.data.shape
    along_z, along_y, along_x = (float(value) for value in layer.scale)
    spacing = (along_z, along_y, along_x)
    grid = Grid((z, y, x), None if spacing == (1.0, 1.0, 1.0) else spacing)
    return scan_in_memory(Path(layer.name), np.asarray(layer.data), grid)


def _own_file(layer: Any) -> Path | None:
    """Return the file that jawloc opened a layer from; None of a changed or another layer."""
    path, shape = layer.metadata.get(OPENED, ("", None))
    return Path(path) if shape == layer.data.shape and Path(path).exists() else None


def position_layer(layer: Any, found: Sequence[Localisation]) -> LayerData:
    """Return the layer of points of what was found in a layer."""
    scan = scan_of_layer(layer)
    own_file = _own_file(layer) is not None
    about = {
        "name": f"{layer.name} positions",
        "scale": (scan.grid.spacing_mm_zyx or (1.0, 1.0, 1.0)) if own_file else layer.scale,
        "translate": (0.0, 0.0, 0.0) if own_file else layer.translate,
        "size": 6,
        "features": {
            "object": [one.object_name for one in found],
            "status": [one.status for one in found],
            "reason": [one.reason for one in found],
        },
        "text": "{object}: {status}",
    }
    return [one.point_voxels for one in found], about, "points"
