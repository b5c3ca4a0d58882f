"""The curriculum as a strip of pictures: the target of each stage as sigma shrinks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jawloc.reporting.figures.fitted_text import TITLE_LINE, draw_title, fit_title
from jawloc.reporting.figures.heatmap import draw_heatmap
from jawloc.reporting.figures.panels import VIEWS, Point, View, draw_slice
from jawloc.reporting.figures.style import DOTS_PER_INCH, ROUND, STYLE, WIDTH
from jawloc.scans.orthogonal_slices import orthogonal_slices

if TYPE_CHECKING:  # would load torch, which no picture needs
    from jawloc.geometry import Triple

MOST_PANELS = 9  # in a row; of more sigmas, the first, the last, and some between
REACH = 5.0  # initial sigmas from the centre to the edge, so that all of the first target shows
LEAST_VOXELS = 12  # of the part that is shown
TALLEST = 3.2  # inches of a panel
LEFT, GAP, ABOVE, BELOW = 0.8, 0.12, 0.75, 0.7  # inches


@dataclass(frozen=True)
class Strip:
    """The targets of one stage, one for each sigma that it was trained at."""

    name: str  # "coarse" or "fine"; empty for the only stage
    stride: int  # image voxels per heatmap voxel
    steps: Sequence[tuple[int, float]]  # (first epoch, sigma in image voxels)
    render: Callable[[float], np.ndarray]  # sigma in image voxels -> heatmap (z, y, x)


@rc_context(STYLE)
def plot_target_strips(
    image: np.ndarray,
    centre: Point,
    strips: Sequence[Strip],
    *,
    title: str,
    spacing_mm_zyx: Triple | None = None,
) -> Figure:
    """Show the part of a slice round the centre with the target at each sigma, a row per stage.

    Each target has its own colour scale; the white line is where it is half of its highest value.
    `image` is (z, y, x), the centre in its voxels.
    """
    view = _broadest(image.shape, spacing_mm_zyx)
    frames = [_frame(image.shape, centre, strip.steps[0][1]) for strip in strips]
    sizes = [_inches(frame, view, spacing_mm_zyx, strips) for frame in frames]
    lines = fit_title([*title.splitlines(), "White line: half of the target's highest value"])
    rows = sum(high + ABOVE + BELOW for _, high in sizes)
    tall = rows + TITLE_LINE * len(lines) + 0.2
    figure = Figure(figsize=(WIDTH, tall), dpi=DOTS_PER_INCH)
    draw_title(figure, lines)
    top = rows
    planes = orthogonal_slices(image, centre)
    for strip, frame, (wide, high) in zip(strips, frames, sizes, strict=True):
        top -= ABOVE
        for column, (epoch, sigma) in enumerate(_shown(strip.steps)):
            left = LEFT + column * (wide + GAP)
            place = (left / WIDTH, (top - high) / tall, wide / WIDTH, high / tall)
            axes = figure.add_axes(place, facecolor="black")
            draw_slice(axes, view, planes, "", spacing_mm_zyx, ((0, 0, 0), image.shape), frame)
            target, stride = strip.render(sigma), np.full(3, float(strip.stride))
            middle = np.add(centre, 0.5) / strip.stride - 0.5
            draw_heatmap(axes, view, orthogonal_slices(target, middle), stride)
            axes.set_title(f"epoch {epoch}\nσ {sigma:.2f}", size=10, y=1.0)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(2, steps=ROUND))
            if column:
                axes.set(xlabel="", ylabel="", xticks=[], yticks=[])
        if strip.name:
            y = (top + 0.45) / tall
            figure.text(0.02, y, f"{strip.name} stage", weight="bold", va="bottom")
        top -= high + BELOW
    return figure


def _shown(steps: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return at most so many steps, evenly chosen, always with the first and the last."""
    chosen = np.linspace(0, len(steps) - 1, min(len(steps), MOST_PANELS)).round().astype(int)
    return [steps[index] for index in chosen]


def _broadest(shape: Sequence[int], spacing: Triple | None) -> View:
    """Return the view whose shorter side is the longest: thin slabs are seen from their face."""
    extent = np.multiply(shape, spacing or (1.0, 1.0, 1.0))
    upright_first = (VIEWS[1], VIEWS[2], VIEWS[0])
    return max(upright_first, key=lambda view: min(extent[view.rows], extent[view.columns]))


def _frame(
    shape: Sequence[int], centre: Point, sigma_voxels: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return (start, stop) of the box to be shown, inside the image."""
    size = np.minimum(shape, max(round(2 * REACH * sigma_voxels), LEAST_VOXELS))
    start = np.clip(np.rint(np.subtract(centre, size / 2)), 0, np.subtract(shape, size))
    return start, start + size


def _inches(
    frame: tuple[np.ndarray, np.ndarray],
    view: View,
    spacing: Triple | None,
    strips: Sequence[Strip],
) -> tuple[float, float]:
    """Return width and height of a panel, so that the longest row fills the figure's width."""
    most = min(max(max(len(strip.steps) for strip in strips), 4), MOST_PANELS)
    extent = np.subtract(*frame[::-1]) * (spacing or (1.0, 1.0, 1.0))
    room = (WIDTH - LEFT - 0.25 - GAP * (most - 1)) / most
    scale = min(room / extent[view.columns], TALLEST / extent[view.rows])
    return extent[view.columns] * scale, extent[view.rows] * scale
