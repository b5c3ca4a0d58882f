"""What pictures of slices share: the three views, a slice in grey, a scale bar, a box.

Volumes and points come in as (z, y, x); here they are reordered, because a screen is (x, y).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from jawloc.geometry import Triple
from jawloc.reporting.figures.style import DOTS_PER_INCH, ROUND, Colour, Style
from jawloc.scans.orthogonal_slices import OrthogonalSlices
from jawloc.training.intensity import grey_range

Point = Sequence[float] | np.ndarray
Frame = tuple[Point, Point]  # (start, stop) of a box of voxels, `start` in it and `stop` outside
OUTLINE = [withStroke(linewidth=3.5, foreground="black")]
BOX: Style = {"fill": False, "edgecolor": Colour.ORANGE, "linestyle": "--", "linewidth": 1.8}


class View(NamedTuple):
    """One plane: the axis of the volume (0 z, 1 y, 2 x) along its normal, rows and columns."""

    name: str
    normal: int
    rows: int
    columns: int

    def cut(self, planes: OrthogonalSlices) -> np.ndarray:
        """Return this view's slice."""
        plane: np.ndarray = getattr(planes, self.name)
        return plane

    def at(self, position: str) -> str:
        """Return where a slice of this view lies along its normal, as a text."""
        return f"{'zyx'[self.normal]} = {position}"


# z points up, since the fish stands upright with the head at large z; y points down.
VIEWS = (View("axial", 0, 1, 2), View("coronal", 1, 0, 2), View("sagittal", 2, 0, 1))


def draw_slice(
    axes: Axes,
    view: View,
    planes: OrthogonalSlices,
    what: str,
    spacing: Triple | None,
    box: Frame,
    frame: Frame,
) -> None:
    """Draw a slice with axes in voxels; the three share limits that outliers don't move.

    `what` says which slice it is; the planes cover `box`, `frame` is shown. Without spacing voxels
    are cubes.
    """
    values = np.concatenate([v.cut(planes).ravel()[::5] for v in VIEWS]).astype(np.float32)
    low, high = np.nanpercentile(values, (1, 99.5))
    (left, top), (right, bottom) = _corners(view, box)
    axes.imshow(
        view.cut(planes).astype(np.float32),
        cmap="gray",
        vmin=low,
        vmax=low + grey_range(float(low), float(high)),
        extent=(left, right, bottom, top),
        aspect=spacing[view.rows] / spacing[view.columns] if spacing else 1.0,
    )
    axes.set_autoscale_on(False)
    # at a fixed height: to look for free room takes a sixth of the time of drawing
    axes.set_title(f"{view.name}, {what}", y=1.0)
    axes.set_xlabel(f"{'zyx'[view.columns]} (voxels)")
    axes.set_ylabel(f"{'zyx'[view.rows]} (voxels)", labelpad=2)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=ROUND))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=ROUND))
    (left, top), (right, bottom) = _corners(view, frame)
    axes.set_xlim(left, right)
    axes.set_ylim(*((top, bottom) if view.rows == 0 else (bottom, top)))


def draw_box(axes: Axes, view: View, box: Frame) -> None:
    """Draw the outline of a box of voxels."""
    (left, top), (right, bottom) = _corners(view, box)
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, **BOX))


def draw_scale_bar(axes: Axes, voxels: float, view: View, spacing: Triple | None) -> None:
    """Draw a bar of a round length, in mm where known, in a panel that is so many voxels wide."""
    width = voxels if spacing is None else voxels * spacing[view.columns]
    length = scale_bar_mm(width)
    inches = axes.get_window_extent().height / DOTS_PER_INCH
    style: Style = {"transform": axes.transAxes, "color": "white"}
    ends, outline = [0.06, 0.06 + length / width], [withStroke(linewidth=7, foreground="black")]
    bar: Style = {"linewidth": 4, "solid_capstyle": "butt", "path_effects": outline}
    axes.plot(ends, [0.15 / inches] * 2, **style, **bar)
    text = f"{length:g} {'voxels' if spacing is None else 'mm'}"
    axes.text(0.06, 0.22 / inches, text, va="bottom", path_effects=OUTLINE, **style)


def scale_bar_mm(width_mm: float) -> float:
    """Return the largest of 1, 2, 5, 10, ... mm (or 0.1, 0.2, ...) within a third of a width."""
    most = width_mm / 3 * (1 + 1e-9)  # 0.3 / 3 is a little below 0.1
    decade = 10.0 ** math.floor(math.log10(most))
    return max(m * decade for m in (1, 2, 5) if m * decade <= most)


def _corners(view: View, box: Frame) -> list[tuple[float, float]]:
    return [(point[view.columns] - 0.5, point[view.rows] - 0.5) for point in box]
