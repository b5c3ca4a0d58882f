"""The picture of one predicted position in the whole scan and in its crop."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from jawloc.geometry import Grid
from jawloc.inference.crop import CropBox
from jawloc.inference.evaluate_scan import ScanError
from jawloc.inference.locator import Localisation
from jawloc.reporting.figures import Figure, Panel, plot_location


def location_picture(
    found: Localisation,
    grid: Grid,
    image: np.ndarray,
    crop: np.ndarray,
    window: CropBox,
    error: ScanError | None = None,
) -> Figure:
    """Show a predicted position in the whole scan and in the crop around it.

    Parameters
    ----------
    grid : of the full-size scan
    image : array, shape (z, y, x), the downsampled scan that the network saw
    crop : array, shape (z, y, x), the voxels in the window
    error : where the truth is known, which is then marked too
    """
    stop = np.asarray(window.start_zyx) + np.asarray(window.size_zyx)
    return plot_location(
        Panel(image, (0, 0, 0), grid.shape_zyx),
        Panel(crop, window.start_zyx, stop.tolist()),
        point=found.point_voxels,
        spread=(found.spread_voxels,) * 3,
        title=_title(found, grid, window, error),
        spacing_mm_zyx=grid.spacing_mm_zyx,
        radius=found.radius_voxels,
        truth=None if error is None else error.truth_voxels.tolist(),
    )


def describe_error(error: ScanError) -> str:
    """Return an error in every unit that is known, as a text."""
    text = (
        f"{error.error_downsampled_voxels:.2f} downsampled voxels, "
        f"{error.error_full_size_voxels:.2f} full-size voxels"
    )
    return text if error.error_mm is None else f"{text}, {error.error_mm:.3f} mm"


def _title(found: Localisation, grid: Grid, window: CropBox, error: ScanError | None) -> list[str]:
    position = f"{', '.join(f'{v:.1f}' for v in found.point_voxels)} voxels"
    if found.point_mm is not None:
        position += f" = {', '.join(f'{v:.3f}' for v in found.point_mm)} mm"
    radius = "radius unknown (needs more test scans)"
    if found.radius_voxels is not None:
        confidence = 100 * (found.confidence or 0)
        radius = f"radius {found.radius_voxels:.1f} voxels ({confidence:.0f} %)"
    spacing = "unknown"
    if grid.spacing_mm_zyx is not None:
        spacing = f"{_times(f'{v:.3g}' for v in grid.spacing_mm_zyx)} mm"
    status = ": ".join(filter(None, (found.status, found.reason)))
    lines = [
        f"{found.object_name} in {found.scan_id} ({status})",
        f"position (z, y, x) {position}; spread {found.spread_voxels:.1f} voxels, {radius}",
        f"scan of {_times(grid.shape_zyx)} voxels, spacing {spacing}; crop of "
        f"{_times(window.size_zyx)} voxels, {window.fit}",
    ]
    return lines if error is None else [*lines, f"error {describe_error(error)}"]


def _times(numbers: Iterable[object]) -> str:
    return " × ".join(str(n) for n in numbers)
