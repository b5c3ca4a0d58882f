"""Thumbnails: a position, or a label, in the whole scan; drawn in milliseconds, for a page.

Volumes and points come in as (z, y, x); here they are reordered, because a screen is (x, y).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from jawloc.reporting.figures.panels import VIEWS, Point, View
from jawloc.reporting.figures.style import Colour
from jawloc.scans.orthogonal_slices import OrthogonalSlices
from jawloc.training.intensity import grey_range

if TYPE_CHECKING:  # would load torch, which no picture needs
    from jawloc.geometry import Grid, Triple
    from jawloc.inference.crop import CropBox
    from jawloc.inference.locator import Localisation

ROOM = (320, 240)  # pixels across and down for the three views together
GAP = 6  # pixels between views
LEAST = 12  # pixels of a view's side
ARM = 8  # pixels of the cross
LETTER = 14  # pixels of an axis's letter, with its edge
SIDES = (VIEWS[1], VIEWS[2], VIEWS[0])  # the upright views first

Pixels = tuple[float, float]


def thumbnail(
    found: Localisation, grid: Grid, projections: OrthogonalSlices, window: CropBox
) -> np.ndarray:
    """Return the scan's maximum projections from three sides as uint8 (rows, columns, 3).

    A cross marks the position, a circle its radius (where it is stated), a box the crop. `grid` is
    the full-size scan's, in whose voxels these are; the projections may be of any resolution. The
    views share one scale, in mm where the spacing is known.
    """

    def mark(draw: ImageDraw.ImageDraw, view: View, per_voxel: Pixels) -> None:
        _draw_marks(draw, view, found, window, per_voxel)

    return _three_views(grid, projections, mark)


def label_thumbnail(point_voxels: Point, grid: Grid, slices: OrthogonalSlices) -> np.ndarray:
    """Return the slices through a labelled point as uint8 (rows, columns, 3).

    A cross marks the point, in voxels of the full-size scan's `grid`; letters name the axes. The
    slices may be of any resolution.
    """

    def mark(draw: ImageDraw.ImageDraw, view: View, per_voxel: Pixels) -> None:
        _draw_cross(draw, _place(view, point_voxels, per_voxel))

    return _three_views(grid, slices, mark, letters=True)


def _three_views(
    grid: Grid,
    planes: OrthogonalSlices,
    mark: Callable[[ImageDraw.ImageDraw, View, Pixels], None],
    *,
    letters: bool = False,
) -> np.ndarray:
    """Draw the views side by side, each with its marks, for which a voxel has so many pixels."""
    spacing = grid.spacing_mm_zyx or (1.0, 1.0, 1.0)
    scale, page = _scale(np.multiply(grid.shape_zyx, spacing)), []
    low, high = _limits(planes)
    for view in SIDES:
        per_voxel = scale * spacing[view.columns], scale * spacing[view.rows]
        rows, columns = (grid.shape_zyx[axis] for axis in (view.rows, view.columns))
        size = max(LEAST, round(columns * per_voxel[0])), max(LEAST, round(rows * per_voxel[1]))
        grey = 255 * np.clip((view.cut(planes).astype(np.float32) - low) / (high - low), 0, 1)
        per_voxel = size[0] / columns, size[1] / rows  # of a thin scan, more than the scale's
        flat = Image.fromarray(grey.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
        picture = flat.convert("RGB")
        mark(ImageDraw.Draw(picture), view, per_voxel)
        if view.rows == 0:  # z points up
            picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        if letters:
            _draw_letters(ImageDraw.Draw(picture), view, size)
        page.append(picture)
    sheet = Image.new("RGB", (sum(p.width + GAP for p in page) - GAP, max(p.height for p in page)))
    sheet.paste("white", (0, 0, *sheet.size))
    across = 0
    for picture in page:
        sheet.paste(picture, (across, 0))
        across += picture.width + GAP
    return np.asarray(sheet)


def _scale(extent: np.ndarray) -> float:
    """Return the pixels per unit of length with which the views fit into the room."""
    depth, height, width = extent.tolist()
    across, down = ROOM
    return min((across - 2 * GAP) / (2 * width + height), down / max(depth, height))


def _limits(projections: OrthogonalSlices) -> tuple[float, float]:
    values = np.concatenate([view.cut(projections).ravel() for view in VIEWS])
    low, high = np.nanpercentile(values, (1, 99.5)).tolist()
    return low, low + grey_range(low, high)


def _draw_marks(
    draw: ImageDraw.ImageDraw, view: View, found: Localisation, window: CropBox, per_voxel: Pixels
) -> None:
    """Draw box, circle and cross, each light on a dark edge, so that it shows on any grey."""
    start = np.subtract(window.start_zyx, 0.5)
    box = (*_place(view, start, per_voxel), *_place(view, start + window.size_zyx, per_voxel))
    _outlined(draw.rectangle, box, Colour.ORANGE)
    x, y = _place(view, found.point_voxels, per_voxel)
    if found.radius_voxels is not None:
        across, down = (found.radius_voxels * pixels for pixels in per_voxel)
        _outlined(draw.ellipse, (x - across, y - down, x + across, y + down), Colour.SKY)
    _draw_cross(draw, (x, y))


def _place(view: View, point: Point | Triple, per_voxel: Pixels) -> Pixels:
    """Return the pixel of a point, before z is turned to point up."""
    x, y = (float(point[axis]) + 0.5 for axis in (view.columns, view.rows))
    return x * per_voxel[0], y * per_voxel[1]


def _draw_cross(draw: ImageDraw.ImageDraw, place: Pixels) -> None:
    x, y = place
    for width, colour in ((5, Colour.BLACK), (2, Colour.YELLOW)):
        reach = ARM + (width > 2)
        draw.line((x - reach, y, x + reach, y), fill=str(colour), width=width)
        draw.line((x, y - reach, x, y + reach), fill=str(colour), width=width)


def _draw_letters(draw: ImageDraw.ImageDraw, view: View, size: tuple[int, int]) -> None:
    """Name each axis of a view where its numbers end: z at the top, y and x at the far end."""
    right, bottom = size[0] - LETTER, size[1] - LETTER
    upright = view.rows == 0
    for place, axis in (
        ((2, 0 if upright else bottom), view.rows),
        ((right, bottom if upright else 0), view.columns),
    ):
        draw.text(place, "zyx"[axis], fill="white", stroke_width=2, stroke_fill="black")


def _outlined(draw, box: Iterable[float], colour: Colour) -> None:  # type: ignore[no-untyped-def]
    left, top, right, bottom = box
    draw((left - 1, top - 1, right + 1, bottom + 1), outline=str(Colour.BLACK), width=3)
    draw((left, top, right, bottom), outline=str(colour), width=1)
