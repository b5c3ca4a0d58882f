"""Where things go in a picture of three slices, and its texts; no drawing."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jawloc.geometry import Triple
from jawloc.reporting.figures.panels import TITLE_LINE
from jawloc.reporting.figures.style import WIDTH
from jawloc.scans.orthogonal_slices import OrthogonalSlices

Box = tuple[float, float, float, float]  # left, bottom, width, height

TALLEST_PANEL = 7.5  # inches
LEGEND_LINE, COLOUR_BAR = 0.28, 0.8  # inches of height; the bar's with its numbers and label
LEFT, RIGHT, BOTTOM, GAP = 0.8, 0.3, 0.65, 0.9  # inches; room for tick and axis labels
PANEL_TITLE = 0.6  # inches
TITLE_CHARACTERS = 105  # a line


class Layout(NamedTuple):
    """A figure's size in inches and the boxes in it as fractions of that size."""

    size: tuple[float, float]
    panels: list[Box]
    legend: Box
    colour_bar: Box


def lay_out(
    extent_zyx: Sequence[float] | np.ndarray,
    title_lines: int,
    legend_lines: int,
    colour_bar: bool = False,
) -> Layout:
    """Fit three panels of a volume's proportions, title, legend and colour bar together.

    The panels share one scale where they fit side by side, with the legend below. A tall scan's
    upright views fill the height instead; its axial view then grows into the room left over, and
    the legend goes below that. `extent_zyx` are the volume's lengths in any one unit.
    """
    depth, height, width = (float(length) for length in extent_zyx)
    room = WIDTH - LEFT - RIGHT - 2 * GAP
    legend, bar = LEGEND_LINE * legend_lines, COLOUR_BAR * colour_bar
    scale = min(room / (2 * width + height), TALLEST_PANEL / max(depth, height))
    tallest = scale * max(depth, height)
    free = tallest - legend - bar - BOTTOM
    grown = min(room / width - scale * (1 + height / width), free / height)
    tall = grown >= scale
    axial = max(grown, scale)
    bottom = BOTTOM if tall else BOTTOM + max(legend, bar) + 0.15
    top = bottom + tallest
    widths = (axial * width, scale * width, scale * height)
    heights = (axial * height, scale * depth, scale * depth)
    gap = (room - sum(widths)) / 2 + GAP
    lefts = (LEFT, LEFT + widths[0] + gap, LEFT + widths[0] + widths[1] + 2 * gap)
    boxes = [(x, top - h, w, h) for x, w, h in zip(lefts, widths, heights, strict=True)]
    legend_top = top - heights[0] - BOTTOM - 0.1 if tall else bottom - BOTTOM - 0.05
    boxes.append((LEFT, legend_top - legend, widths[0], max(legend, 0.01)))
    below, beside = (LEFT, legend_top - legend - 0.4), (WIDTH - RIGHT - 3.3, legend_top - 0.2)
    boxes.append((*(below if tall else beside), 3.0, 0.18))
    full = top + PANEL_TITLE + TITLE_LINE * title_lines
    panels = [(x / WIDTH, y / full, w / WIDTH, h / full) for x, y, w, h in boxes]
    return Layout((WIDTH, full), panels[:3], *panels[3:])


def title_lines(title: str, planes: OrthogonalSlices, spacing_mm_zyx: Triple | None) -> list[str]:
    """Return the title, wrapped, and a last line with the size of the volume."""
    lines = [part for line in title.splitlines() for part in textwrap.wrap(line, TITLE_CHARACTERS)]
    size = f"{' × '.join(map(str, planes.shape_zyx))} voxels (z, y, x)"
    if spacing_mm_zyx is None:
        return [*lines, f"{size}, spacing unknown"]
    return [*lines, f"{size} of {' × '.join(f'{s:.3g}' for s in spacing_mm_zyx)} mm"]


def crop_verdict(mask: np.ndarray, object_name: str = "jaw") -> str:
    """Return whether the labelled voxels of a crop (z, y, x) reach its border, and which faces."""
    faces = [
        f"{end} {name}"
        for axis, name in enumerate("zyx")
        for end, index in (("low", 0), ("high", -1))
        if mask.take(index, axis).any()
    ]
    if faces:
        where = ", ".join(faces)
        return f"the {object_name} touches the crop's border at {where}: it may be cut off"
    if not mask.any():
        return "no labelled voxel in this crop"
    return f"the {object_name} does not touch the crop's border"
