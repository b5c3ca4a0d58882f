"""The tiles of MLflow's image grid: each heatmap that the network is to learn, and its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jawloc.inference.locator import Locator
from jawloc.inference.predict import Prediction
from jawloc.reporting.figures import Figure
from jawloc.reporting.figures.heatmap_tile import plot_heatmap_tile
from jawloc.reporting.run_pictures import target_at
from jawloc.scans.cache import Example
from jawloc.training.stages import Stage


def heatmap_tiles(
    example: Example,
    stages: Sequence[Stage],
    sigmas_voxels: Sequence[float],
    when: str,
    locator: Locator | None = None,
) -> dict[str, Figure]:
    """Show each stage's target in one downsampled scan, and what the locator predicts.

    Parameters
    ----------
    sigmas_voxels : of each stage's targets, in order
    when : begins the title, such as "epoch 12"
    locator : None before there is one

    Returns
    -------
    A picture by what its row's name ends in: nothing for the last stage, which gives the position,
    and `_coarse` for the first of two.
    """
    prediction = None if locator is None else locator.predict(example.image)
    tiles = {"": _tile(example, stages[-1], sigmas_voxels[-1], when, prediction)}
    if len(stages) > 1:
        name = f"_{stages[0].name}"
        tiles[name] = _tile(example, stages[0], sigmas_voxels[0], when, prediction)
    return tiles


def _tile(
    example: Example, stage: Stage, sigma_voxels: float, when: str, prediction: Prediction | None
) -> Figure:
    known = ~np.isnan(example.points_voxels).any(axis=1)
    truth, is_last = example.points_voxels[known], stage.name != "coarse"
    points = {f"true {number}": point for number, point in enumerate(truth)}
    lines, heat = [f"{when}: sigma {sigma_voxels:.2f}", f"scan {example.scan_id}"], None
    if prediction is not None:
        heat = prediction.probability if is_last else prediction.coarse_probability
    if prediction is not None and is_last:
        found = prediction.points_voxels[known]
        points |= {f"predicted {number}": point for number, point in enumerate(found)}
        lines[1] += f", error {_mean_error(found - truth, example)}"
    grid = example.image.shape, stage.heatmap_stride
    return plot_heatmap_tile(
        example.image,
        np.max([target_at(p, *grid, sigma_voxels) for p in truth], axis=0),
        None if heat is None else heat.max(axis=0),
        centre=truth.mean(axis=0),
        stride=stage.heatmap_stride,
        title=lines,
        stage=stage.name,
        points=points,
        spacing_mm_zyx=example.grid.spacing_mm_zyx,
    )


def _mean_error(offsets: np.ndarray, example: Example) -> str:
    spacing = example.grid.spacing_mm_zyx
    if spacing is None:
        return f"{np.linalg.norm(offsets, axis=1).mean():.2f} voxels"
    return f"{np.linalg.norm(offsets * spacing, axis=1).mean():.3f} mm"
