"""The pictures of an evaluation: figures of each object, and its worst scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from jawloc.inference.crop import read_crop
from jawloc.inference.evaluate_scan import ScanEvaluation
from jawloc.inference.locator import Locator
from jawloc.inference.metrics import Bias, errors_in
from jawloc.inference.model_evaluation import ModelEvaluation
from jawloc.reporting.figures import Figure, save_figure
from jawloc.reporting.figures.errors import plot_bias, plot_success, plot_trust
from jawloc.reporting.figures.location import location_picture
from jawloc.reporting.file_names import object_endings
from jawloc.reporting.folders.own_files import is_evaluation_picture
from jawloc.scans.downsample import downsample_image
from jawloc.scans.manifest import forget_files, written_files
from jawloc.scans.progress import Progress
from jawloc.scans.reading import open_scan

FIGURES = 3  # of an object
Pictures = dict[str, list[Path]]  # by object


def write_pictures(
    folder: Path, locator: Locator, evaluation: ModelEvaluation, worst: int
) -> Pictures:
    """Draw the figures of each object and so many of its worst scans.

    The pictures of an earlier evaluation go, by the folder's list of jawloc's own files.
    """
    earlier = set(filter(is_evaluation_picture, written_files(folder) or ()))
    for name in earlier:
        (folder / name).unlink(missing_ok=True)
    forget_files(folder, earlier)
    endings = object_endings(evaluation.objects)
    pictures: Pictures = {}
    for name, metrics in evaluation.metrics().items():
        own = evaluation.select(name)
        radii = [rate.radius for rate in metrics.success]
        worst_scans = (
            (f"worst_{rank:02d}_{scan.error.scan_id}", scan_picture(locator, scan))
            for rank, scan in enumerate(own[:worst], 1)
        )
        pictures[name] = []
        bias = metrics.bias[evaluation.unit]
        drawn = chain(figures(own, evaluation.unit, radii, bias, name).items(), worst_scans)
        total = FIGURES + min(worst, len(own))
        how: dict[str, Any] = {"total": total, "unit": "picture", "brief": True}
        for stem, figure in Progress(drawn, desc=f"drawing the {name}", **how):
            pictures[name].append(folder / f"{stem}{endings[name]}.png")
            save_figure(figure, pictures[name][-1])
    return pictures


def figures(
    evaluated: Sequence[ScanEvaluation],
    unit: str,
    radii: Sequence[float],
    bias: Mapping[str, Bias],
    name: str,
) -> dict[str, Figure]:
    """Draw the success rates, the errors beside the stated radius, and the bias of one object."""
    offsets = [scan.offset_mm if unit == "mm" else scan.offset_voxels for scan in evaluated]
    known = [scan for scan in evaluated if scan.found.radius_voxels is not None]
    shown = known or evaluated
    stated = [s.found.radius_voxels if known else s.found.width_voxels for s in shown]
    return {
        "success": plot_success(np.array(errors_in(evaluated, unit)), unit, radii, name),
        "trust": plot_trust(
            np.array(errors_in(shown, "full_size_voxels")),
            np.array(stated, float),
            [scan.found.status for scan in shown],
            what="stated radius" if known else "width of the map",
            name=name,
        ),
        "bias": plot_bias(np.array(offsets, float), bias, unit, name),
    }


def scan_picture(locator: Locator, evaluated: ScanEvaluation) -> Figure:
    """Show where an object was found and where it is, in a scan that is read once more."""
    scan = open_scan(evaluated.path, series=evaluated.series)
    image = downsample_image(scan, locator.downsampled_size)
    crop = read_crop(scan, evaluated.window)
    return location_picture(
        evaluated.found, scan.grid, image, crop, evaluated.window, evaluated.error
    )
