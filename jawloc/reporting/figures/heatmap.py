"""A heatmap over a slice of a scan, and its scale."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from jawloc.reporting.figures.panels import VIEWS, View
from jawloc.scans.orthogonal_slices import OrthogonalSlices

Box = tuple[float, float, float, float]  # left, bottom, width, height


def draw_heatmap(
    axes: Axes,
    view: View,
    heat: OrthogonalSlices,
    stride: np.ndarray,
    scale: OrthogonalSlices | None = None,
) -> None:
    """Lay a heatmap over a slice: its voxel j covers the voxels s * j ... s * j + s - 1.

    A white line, which shows in grey too, is where it is half of the highest value: its own, or
    that of another heatmap, on whose `scale` it is drawn.
    """
    plane, highest = view.cut(heat), _highest(scale or heat)
    (rows, columns), high, wide = plane.shape, stride[view.rows], stride[view.columns]
    axes.imshow(
        plane,
        cmap=_heat_colours(),
        vmin=0,
        vmax=highest,
        extent=(-0.5, columns * wide - 0.5, rows * high - 0.5, -0.5),
        interpolation="bilinear",
        aspect=axes.get_aspect(),
    )
    if min(rows, columns) > 1 and plane.min() < highest / 2 < plane.max():
        x, y = (np.arange(columns) + 0.5) * wide - 0.5, (np.arange(rows) + 0.5) * high - 0.5
        line = axes.contour(x, y, plane, levels=[highest / 2], colors="white", linewidths=1.2)
        line.set(path_effects=[withStroke(linewidth=2.8, foreground="black")])


def draw_colour_bar(figure: Figure, place: Box, heat: OrthogonalSlices, label: str) -> None:
    """Draw the heatmap's scale, on grey, since its low end is transparent."""
    highest = _highest(heat)
    bar = figure.add_axes(place, facecolor="0.3")
    colours = ScalarMappable(Normalize(0, highest), _heat_colours())
    label += "\nwhite line: half of the highest"
    figure.colorbar(colours, cax=bar, orientation="horizontal", label=label)
    bar.set_xticks([0, highest], ["0", f"{highest:.2g}"])


def _heat_colours() -> ListedColormap:
    """Return a colour map that is transparent at zero, so that the scan shows under a heatmap."""
    colours = colormaps["plasma"](np.linspace(0.15, 1, 256))
    colours[:, 3] = 0.75 * np.linspace(0, 1, 256) ** 0.5
    return ListedColormap(colours)


def _highest(heat: OrthogonalSlices) -> float:
    return max(float(max(np.nanmax(view.cut(heat)) for view in VIEWS)), 1e-12)
