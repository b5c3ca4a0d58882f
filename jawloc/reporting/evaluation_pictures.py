"""What an evaluation shows: a figure for each question, and the scans that went worst."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jawloc.inference.crop import read_crop
from jawloc.inference.evaluate_scan import ScanEvaluation
from jawloc.inference.locator import Locator
from jawloc.inference.metrics import errors_in
from jawloc.reporting.evaluation_files import ModelEvaluation
from jawloc.reporting.figures import Figure, plot_bias, plot_success, plot_trust, save_figure
from jawloc.reporting.folders.own_files import evaluation_pictures, picture_endings
from jawloc.reporting.location_picture import location_picture
from jawloc.scans.downsample import downsample_image
from jawloc.scans.manifest import forget_files
from jawloc.scans.reading import open_scan

Pictures = dict[str, list[Path]]  # by object


def write_pictures(
    folder: Path, locator: Locator, evaluation: ModelEvaluation, worst: int
) -> Pictures:
    """Draw the figures of each object and so many of its worst scans.

    The pictures of an earlier evaluation go, by the folder's list of jawloc's own files.
    """
    earlier = evaluation_pictures(folder)
    for path in earlier:
        path.unlink(missing_ok=True)
    forget_files(folder, [path.name for path in earlier])
    endings = picture_endings(evaluation.objects)
    pictures: Pictures = {}
    for name, scores in evaluation.metrics().items():
        own = evaluation.select(name)
        ending = endings[name]
        radii = [rate.radius for rate in scores.success]
        pictures[name] = []
        for key, figure in figures(own, evaluation.unit, radii, name).items():
            pictures[name].append(folder / f"{key}{ending}.png")
            save_figure(figure, pictures[name][-1])
        for rank, m in enumerate(own[:worst], 1):
            pictures[name].append(folder / f"worst_{rank:02d}_{m.error.scan_id}{ending}.png")
            save_figure(scan_picture(locator, m), pictures[name][-1])
    return pictures


def figures(
    evaluated: Sequence[ScanEvaluation], unit: str, radii: Sequence[float], name: str
) -> dict[str, Figure]:
    """Draw what the scans of one object show together."""
    offsets = [m.offset_mm if unit == "mm" else m.offset_voxels for m in evaluated]
    known = [m for m in evaluated if m.found.radius_voxels is not None]
    what = "stated radius" if known else "width of the map"
    shown = known or evaluated
    foretold = [m.found.radius_voxels if known else m.found.width_voxels for m in shown]
    return {
        "success": plot_success(errors_in(evaluated, unit), unit, radii, name),
        "trust": plot_trust(
            errors_in(shown, "full_size_voxels"),
            np.array(foretold, float),
            [m.found.status for m in shown],
            what=what,
            name=name,
        ),
        "bias": plot_bias(np.array(offsets, float), unit, name),
    }


def scan_picture(locator: Locator, evaluated: ScanEvaluation) -> Figure:
    """Show where an object was found and where it is, in a scan that is read once more."""
    scan = open_scan(evaluated.path)
    image = downsample_image(scan, locator.downsampled_size)
    crop, _ = read_crop(scan, evaluated.window)
    return location_picture(
        evaluated.found, scan.grid, image, crop, evaluated.window, evaluated.error
    )
