"""The pictures of MLflow's image grid: the heatmap that the network is to learn, and its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jawloc.inference.locator import Locator
from jawloc.reporting.figures import Figure
from jawloc.reporting.figures.heatmap_tile import plot_heatmap_tile
from jawloc.reporting.run_pictures import target_at
from jawloc.scans.cache import Example
from jawloc.training.stages import Stage


def heatmap_tile(
    example: Example,
    stages: Sequence[Stage],
    sigmas_voxels: Sequence[float],
    when: str,
    locator: Locator | None = None,
) -> Figure:
    """Show the target of the last stage in one downsampled scan, and what the locator predicts.

    Parameters
    ----------
    sigmas_voxels : of each stage's targets, in order
    when : begins the title, such as "epoch 12"
    locator : None before there is one
    """
    known = ~np.isnan(example.points_voxels).any(axis=1)
    truth, stage = example.points_voxels[known], stages[-1]
    sigmas = " and ".join(f"{sigma:.2f}" for sigma in sigmas_voxels)
    points = {f"true {number}": point for number, point in enumerate(truth)}
    lines, heat = [f"{when}: sigma {sigmas}", f"scan {example.scan_id}"], None
    if locator is not None:
        prediction = locator.predict(example.image)
        found = prediction.points_voxels[known]
        heat = prediction.probability.max(axis=0)
        points |= {f"predicted {number}": point for number, point in enumerate(found)}
        lines[1] += f", error {_mean_error(found - truth, example)}"
    grid = example.image.shape, stage.heatmap_stride
    return plot_heatmap_tile(
        example.image,
        np.max([target_at(p, *grid, sigmas_voxels[-1]) for p in truth], axis=0),
        heat,
        centre=truth.mean(axis=0),
        stride=stage.heatmap_stride,
        title=lines,
        points=points,
        spacing_mm_zyx=example.grid.spacing_mm_zyx,
    )


def _mean_error(offsets: np.ndarray, example: Example) -> str:
    spacing = example.grid.spacing_mm_zyx
    if spacing is None:
        return f"{np.linalg.norm(offsets, axis=1).mean():.2f} voxels"
    return f"{np.linalg.norm(offsets * spacing, axis=1).mean():.3f} mm"
