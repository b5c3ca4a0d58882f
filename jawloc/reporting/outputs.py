"""The files that a training run leaves in its folder, each by the name that users know."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jawloc.geometry import Grid, Triple, map_points
from jawloc.heatmaps.target import render
from jawloc.locating.crop import Window, read_window, window_round
from jawloc.locating.evaluation import ScanError
from jawloc.locating.locator import Localisation, Locator
from jawloc.reporting.figures import (
    Figure,
    Panel,
    plot_crop,
    plot_location,
    plot_slices,
    save_figure,
)
from jawloc.scans.cache import Example
from jawloc.scans.planes import planes_from_scan_file
from jawloc.scans.reading import open_scan
from jawloc.scans.scan import ScanFile
from jawloc.training.loop import EpochRecord
from jawloc.training.network import heatmap_shape, to_heatmap_grid


def target_picture(example: Example, sigma_voxels: float, stride: int, title: str) -> Figure:
    """Show the heatmap that the network is to learn at this sigma."""
    shape = heatmap_shape(example.image.shape, stride)
    points = to_heatmap_grid(torch.from_numpy(example.points_voxels)[None], stride)
    target = render(points, shape, sigma_voxels / stride)[0].amax(0).numpy()
    return plot_slices(
        example.image,
        centre=example.points_voxels[0],
        points=_named(example.points_voxels, "true centre"),
        spacing_mm_zyx=example.grid.spacing_mm_zyx,
        heatmap=target,
        heatmap_stride=stride,
        title=f"{title}: target heatmap\nscan {example.scan_id}, sigma {sigma_voxels:.2f} voxels",
    )


def predicted_picture(example: Example, locator: Locator, title: str) -> Figure:
    """Show the heatmap that the network gives for a downsampled scan, beside the truth."""
    prediction = locator.predict(example.image)
    offset = prediction.points_voxels - example.points_voxels
    error = float(np.linalg.norm(offset, axis=1).mean())
    spacing = example.grid.spacing_mm_zyx
    in_mm = _mm(offset, spacing)
    return plot_slices(
        example.image,
        centre=prediction.points_voxels[0],
        points={
            **_named(example.points_voxels, "true centre"),
            **_named(prediction.points_voxels, "predicted centre"),
        },
        spacing_mm_zyx=spacing,
        heatmap=prediction.probability.max(axis=0),
        heatmap_stride=locator.network_config.heatmap_stride,
        title=f"{title}: predicted heatmap\nscan {example.scan_id}, "
        f"sigma {locator.sigma_voxels:.2f} voxels, error {error:.2f} downsampled voxels{in_mm}",
    )


def write_test_pictures(
    folder: Path, locator: Locator, example: Example, error: ScanError, crop_size: Sequence[int]
) -> list[Path]:
    """Write the six pictures of one test scan; the only step that reads full-size voxels."""
    labels = locator.objects[error.object_name]
    scan = _with_labels(open_scan(example.source), labels)
    one_of_several = f", {error.object_name}" if len(example.points_voxels) > 1 else ""
    sigma = f"sigma {locator.sigma_voxels:.2f} voxels"
    said = f"scan {error.scan_id}{one_of_several}, {sigma}, error {describe_error(error)}"
    figures = {
        "test_heatmap": predicted_picture(example, locator, "Test"),
        "test_centroid_downsampled": plot_slices(
            example.image,
            centre=map_points(error.predicted_voxels, example.source_grid, example.grid),
            points={
                "true centre": map_points(error.truth_voxels, example.source_grid, example.grid),
                "predicted centre": map_points(
                    error.predicted_voxels, example.source_grid, example.grid
                ),
            },
            spacing_mm_zyx=example.grid.spacing_mm_zyx,
            mask=_kept(example.mask, labels),
            title=f"Predicted centre on the downsampled scan\n{said}",
        ),
    }
    for name, point in (("truth", error.truth_voxels), ("centroid", error.predicted_voxels)):
        kind = "True" if name == "truth" else "Predicted"
        label = f"{kind.lower()} centre"
        suffix = "test_centroid_truth" if name == "truth" else "test_centroid"
        crop_name = "truth_cropped" if name == "truth" else "test_cropped"
        title = f"{kind} centre on the full-size scan\n{said}"
        figures[suffix] = _full_size_picture(scan, point, label, crop_size, title)
        figures[crop_name] = _crop_picture(scan, point, label, crop_size, said)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        save_figure(figure, paths[-1])
    return paths


def location_picture(
    found: Localisation, grid: Grid, image: np.ndarray, crop: np.ndarray, window: Window
) -> Figure:
    """Show where an object was found, in the whole scan and in the crop round it.

    Parameters
    ----------
    grid : of the full-size scan
    image : array, shape (z, y, x), the downsampled scan that the object was found in
    crop : array, shape (z, y, x), what is in the window at full size
    """
    stop = np.asarray(window.start_zyx) + np.asarray(window.size_zyx)
    spacing = grid.spacing_mm_zyx
    position = ", ".join(f"{v:.1f}" for v in found.point_voxels) + " voxels"
    if found.point_mm is not None:
        position += f" = {', '.join(f'{v:.3f}' for v in found.point_mm)} mm"
    spread = f"spread {found.spread_voxels:.2f} downsampled voxels"
    if found.radius_voxels is not None:
        spread += f", radius {found.radius_voxels:.1f} voxels"
    voxels = "unknown" if spacing is None else f"{_times(f'{v:.3g}' for v in spacing)} mm"
    lines = [
        f"{found.object_name} in {found.scan_id} ({found.status})",
        f"position (z, y, x) {position}; {spread}",
        f"scan of {_times(grid.shape_zyx)} voxels, spacing {voxels}; crop of "
        f"{_times(window.size_zyx)} voxels, {window.fit}",
    ]
    return plot_location(
        Panel(image, (0, 0, 0), grid.shape_zyx),
        Panel(crop, window.start_zyx, stop.tolist()),
        point=found.point_voxels,
        spread=found.spread_voxels * np.asarray(grid.shape_zyx) / np.asarray(image.shape),
        title=lines,
        spacing_mm_zyx=spacing,
    )


def describe_error(error: ScanError) -> str:
    """Say an error in every unit that is known."""
    text = (
        f"{error.error_downsampled_voxels:.2f} downsampled voxels, "
        f"{error.error_full_size_voxels:.2f} full-size voxels"
    )
    return text if error.error_mm is None else f"{text}, {error.error_mm:.3f} mm"


def write_metrics_csv(path: Path, records: Sequence[EpochRecord]) -> None:
    """Write one row an epoch, the columns as in the tracking store."""
    rows = [record.flat() for record in records]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _full_size_picture(
    scan: ScanFile, point: np.ndarray, label: str, crop_size: Sequence[int], title: str
) -> Figure:
    image, mask = planes_from_scan_file(scan, point)
    window = window_round(point.tolist(), crop_size, scan.grid.shape_zyx)
    start = np.asarray(window.start_zyx)
    return plot_slices(
        image,
        centre=point,
        points={label: point},
        spacing_mm_zyx=scan.grid.spacing_mm_zyx,
        mask=mask,
        window=(start, start + np.asarray(window.size_zyx)),
        title=title,
    )


def _crop_picture(
    scan: ScanFile, point: np.ndarray, label: str, crop_size: Sequence[int], said: str
) -> Figure:
    window = window_round(point.tolist(), crop_size, scan.grid.shape_zyx)
    image, mask = read_window(scan, window)
    size = "×".join(str(n) for n in window.size_zyx)
    return plot_crop(
        image,
        np.zeros(image.shape, np.uint8) if mask is None else mask,
        points={label: np.asarray(point) - window.start_zyx},
        spacing_mm_zyx=scan.grid.spacing_mm_zyx,
        title=f"Crop of {size} voxels round the {label} ({window.fit})\n{said}",
    )


def _with_labels(scan: ScanFile, labels: Sequence[int] | None) -> ScanFile:
    """Let a scan's mask show one object only, since red stands for what is looked for."""
    read = scan.read_mask
    if read is None:
        return scan
    return replace(scan, read_mask=lambda start, stop: _kept(read(start, stop), labels))


def _kept(mask: np.ndarray, labels: Sequence[int] | None) -> np.ndarray:
    return mask if labels is None else np.where(np.isin(mask, list(labels)), mask, 0)


def _times(numbers: Iterable[object]) -> str:
    return " × ".join(str(n) for n in numbers)


def _named(points: np.ndarray, name: str) -> dict[str, np.ndarray]:
    if len(points) == 1:
        return {name: points[0]}
    return {f"{name} {i + 1}": point for i, point in enumerate(points)}


def _mm(offset_voxels: np.ndarray, spacing: Triple | None) -> str:
    if spacing is None:
        return ""
    return f", {np.linalg.norm(offset_voxels * np.asarray(spacing), axis=1).mean():.3f} mm"
