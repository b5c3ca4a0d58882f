"""Pictures of heatmaps over a downsampled scan: what a stage learns, what the network predicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from jawloc.heatmaps.target import render
from jawloc.inference.locator import Locator
from jawloc.reporting.figures import Figure
from jawloc.reporting.figures.slices import plot_slices
from jawloc.scans.cache import Example
from jawloc.scans.orthogonal_slices import silhouettes
from jawloc.training.network import heatmap_shape
from jawloc.training.stages import Stage, to_heatmap_grid


def target_picture(example: Example, sigma_voxels: float, stage: Stage, title: str) -> Figure:
    """Show the target heatmap of a stage at this sigma, in its own heatmap voxels."""
    stride = stage.heatmap_stride
    shape = heatmap_shape(example.image.shape, stride)
    truth = _known_points(example.points_voxels, "true centre", example.object_names)
    points = to_heatmap_grid(torch.from_numpy(np.stack([*truth.values()]))[None], stride)
    target = render(points, shape, sigma_voxels / stride)[0].numpy()
    of_stage = f" of the {stage.name} stage" if stage.name else ""
    size = f", heatmap voxels of {stride} voxels" if stage.name else ""
    return plot_slices(
        example.image,
        centre=next(iter(truth.values())),
        points=truth,
        spacing_mm_zyx=example.grid.spacing_mm_zyx,
        heatmap_stride=stride,
        title=f"{title}: target heatmap{of_stage}\nscan {example.scan_id}, "
        f"sigma {sigma_voxels:.2f} voxels{size}{_missing(example)}",
        **_one_heatmap(target, example.object_names),
    )


def predicted_picture(example: Example, locator: Locator, title: str) -> Figure:
    """Show the network's heatmap of a downsampled scan, with the true centres."""
    prediction = locator.predict(example.image)
    offset = prediction.points_voxels - example.points_voxels
    errors = np.linalg.norm(offset, axis=1)
    names, spacing = example.object_names, example.grid.spacing_mm_zyx
    text = f"{float(np.nanmean(errors)):.2f} downsampled voxels"
    if len(names) > 1:
        each = [f"{name} {e:.2f}" for name, e in zip(names, errors, strict=True) if e == e]
        text += f" ({', '.join(each)})"
    if spacing is not None:
        text += f", {np.nanmean(np.linalg.norm(offset * spacing, axis=1)):.3f} mm"
    return plot_slices(
        example.image,
        centre=prediction.points_voxels[0],
        points={
            **_known_points(example.points_voxels, "true centre", names),
            **_known_points(prediction.points_voxels, "predicted centre", names),
        },
        spacing_mm_zyx=spacing,
        heatmap_stride=locator.network_config.heatmap_stride,
        title=f"{title}: predicted heatmap\nscan {example.scan_id}, {describe_sigma(locator)}, "
        f"error {text}{_missing(example)}",
        **_one_heatmap(prediction.probability, names),
    )


def describe_sigma(locator: Locator) -> str:
    """Return the last stage's sigma, or its range over several networks, as a text."""
    lasts = [own[-1] for own in locator.sigma_voxels]
    each = [f"{sigma:.2f}" for sigma in dict.fromkeys((min(lasts), max(lasts)))]
    return f"sigma {' to '.join(each)} voxels"


def _known_points(points: np.ndarray, what: str, objects: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the points that are not NaN by their names, which name one of several objects."""
    if len(points) == 1:
        return {what: points[0]}
    named = zip(objects, points, strict=True)
    return {f"{what} of {name}": point for name, point in named if not np.isnan(point).any()}


def _missing(example: Example) -> str:
    lacks = np.isnan(example.points_voxels).any(axis=1)
    names = [name for name, no in zip(example.object_names, lacks, strict=True) if no]
    return f"; not in this scan: {', '.join(names)}" if names else ""


def _one_heatmap(maps: np.ndarray, objects: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of `plot_slices` for heatmaps (object, z, y, x).

    No slice goes through several objects, so theirs are projected, as the points are.
    """
    if len(objects) == 1:
        return {"heatmap": maps.max(axis=0)}
    label = "highest probability along the line of sight"
    return {"heatmap": silhouettes(maps.max(axis=0)), "heatmap_label": label}
