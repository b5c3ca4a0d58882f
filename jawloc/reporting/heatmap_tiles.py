"""The pictures of MLflow's image grid: the heatmap that the network is to learn, and its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from jawloc.heatmaps.target import render
from jawloc.inference.locator import Locator
from jawloc.reporting.figures import Figure
from jawloc.reporting.figures.heatmap_tile import plot_heatmap_tile
from jawloc.scans.cache import Example
from jawloc.training.network import heatmap_shape
from jawloc.training.stages import Stage, to_heatmap_grid


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
    return plot_heatmap_tile(
        example.image,
        _target(example, truth, stage, sigmas_voxels[-1]),
        heat,
        centre=truth.mean(axis=0),
        stride=stage.heatmap_stride,
        title=lines,
        points=points,
        spacing_mm_zyx=example.grid.spacing_mm_zyx,
    )


def _target(example: Example, points: np.ndarray, stage: Stage, sigma_voxels: float) -> np.ndarray:
    stride = stage.heatmap_stride
    on_grid = to_heatmap_grid(torch.from_numpy(points)[None], stride)
    shape = heatmap_shape(example.image.shape, stride)
    target: np.ndarray = render(on_grid, shape, sigma_voxels / stride)[0].numpy()
    return target.max(axis=0)


def _mean_error(offsets: np.ndarray, example: Example) -> str:
    spacing = example.grid.spacing_mm_zyx
    if spacing is None:
        return f"{np.linalg.norm(offsets, axis=1).mean():.2f} voxels"
    return f"{np.linalg.norm(offsets * spacing, axis=1).mean():.3f} mm"
