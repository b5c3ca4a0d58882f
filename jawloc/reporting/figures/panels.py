"""What pictures of slices share: a slice in grey, a scale bar, a box, the title.

Volumes and points come in as (z, y, x); here they are reordered, because a screen is (x, y).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from jawloc.geometry import Triple
from jawloc.reporting.figures.layout import TITLE_LINE, VIEWS, View, scale_bar_mm
from jawloc.reporting.figures.style import DOTS_PER_INCH, ORANGE, ROUND, Style
from jawloc.scans.orthogonal_slices import OrthogonalSlices

Point = Sequence[float] | np.ndarray
OUTLINE = [withStroke(linewidth=3.5, foreground="black")]
BOX: Style = {"fill": False, "edgecolor": ORANGE, "linestyle": "--", "linewidth": 1.8}


def draw_title(figure: Figure, lines: Sequence[str]) -> None:
    """Write lines at the top, the first in bold."""
    for row, line in enumerate(lines):
        style: Style = {"size": 13, "weight": "bold"} if row == 0 else {"size": 12}
        y = 1 - (0.15 + TITLE_LINE * row) / figure.get_figheight()
        figure.text(0.02, y, line, va="top", parse_math=False, **style)


def draw_slice(
    axes: Axes,
    view: View,
    planes: OrthogonalSlices,
    spacing: Triple | None,
    box: tuple[Point, Point],
    position: str,
) -> None:
    """Draw a slice with axes in voxels; the three share limits that outliers don't move.

    Parameters
    ----------
    spacing : gives the voxels their aspect; None draws cubes
    box : (start, stop) in voxels, which the planes cover
    position : of the slice along its normal
    """
    values = np.concatenate([v.cut(planes).ravel()[::5] for v in VIEWS]).astype(np.float32)
    low, high = np.nanpercentile(values, (1, 99.5))
    (left, top), (right, bottom) = _corners(view, box)
    axes.imshow(
        view.cut(planes).astype(np.float32),
        cmap="gray",
        vmin=low,
        vmax=max(high, low + 1e-6),
        extent=(left, right, bottom, top),
        aspect=spacing[view.rows] / spacing[view.columns] if spacing else 1.0,
    )
    axes.set_autoscale_on(False)
    axes.set_title(f"{view.name}, {view.label('normal')} = {position}")
    axes.set_xlabel(f"{view.label('columns')} (voxels)")
    axes.set_ylabel(f"{view.label('rows')} (voxels)", labelpad=2)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=ROUND))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=ROUND))


def show_box(axes: Axes, view: View, box: tuple[Point, Point]) -> None:
    """Show this part; z points up, since the fish stands upright, and y down."""
    (left, top), (right, bottom) = _corners(view, box)
    axes.set_xlim(left, right)
    axes.set_ylim(*((top, bottom) if view.rows == 0 else (bottom, top)))


def draw_box(axes: Axes, view: View, box: tuple[Point, Point]) -> None:
    """Draw the outline of a box of voxels, `start` in it and `stop` outside."""
    (left, top), (right, bottom) = _corners(view, box)
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, **BOX))


def draw_scale_bar(axes: Axes, voxels: float, view: View, spacing: Triple | None) -> None:
    """Draw a bar of a round length, in mm where known, in a panel that is so many voxels wide."""
    width = voxels if spacing is None else voxels * spacing[view.columns]
    length = scale_bar_mm(width)
    inches = axes.get_window_extent().height / DOTS_PER_INCH
    style: Style = {"transform": axes.transAxes, "color": "white", "path_effects": OUTLINE}
    ends = [0.06, 0.06 + length / width]
    axes.plot(ends, [0.15 / inches] * 2, linewidth=4, solid_capstyle="butt", **style)
    text = f"{length:g} {'voxels' if spacing is None else 'mm'}"
    axes.text(0.06, 0.22 / inches, text, va="bottom", **style)


def _corners(view: View, box: tuple[Point, Point]) -> list[tuple[float, float]]:
    return [(point[view.columns] - 0.5, point[view.rows] - 0.5) for point in box]
