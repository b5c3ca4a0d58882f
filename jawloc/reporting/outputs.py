"""The pictures and texts that a run leaves in its folder, each by the name that users know."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jawloc.geometry import Grid, Triple, map_points
from jawloc.heatmaps.target import render
from jawloc.inference.crop import CropBox, crop_box_around, read_crop
from jawloc.inference.evaluate_scan import ScanError
from jawloc.inference.locator import Localisation, Locator
from jawloc.reporting.figures import (
    Figure,
    Panel,
    plot_crop,
    plot_location,
    plot_slices,
    save_figure,
)
from jawloc.scans.atomic import atomic_path
from jawloc.scans.cache import Example
from jawloc.scans.labels import object_voxels
from jawloc.scans.manifest import record_file
from jawloc.scans.orthogonal_slices import read_orthogonal_slices, silhouettes
from jawloc.scans.reading import open_scan
from jawloc.scans.scan import ScanFile
from jawloc.training.stages import Stage, heatmap_shape, to_heatmap_grid


def target_picture(example: Example, sigma_voxels: float, stage: Stage, title: str) -> Figure:
    """Show the heatmap that a stage is to learn at this sigma, in its own heatmap voxels."""
    stride = stage.heatmap_stride
    shape = heatmap_shape(example.image.shape, stride)
    truth = _named(example.points_voxels, "true centre", example.object_names)
    points = to_heatmap_grid(torch.from_numpy(np.stack([*truth.values()]))[None], stride)
    target = render(points, shape, sigma_voxels / stride)[0].numpy()
    of_stage = f" of the {stage.name} stage" if stage.name else ""
    size = f", on heatmap voxels {stride} long" if stage.name else ""
    said = f"scan {example.scan_id}, sigma {sigma_voxels:.2f} voxels{size}{_missing(example)}"
    return plot_slices(
        example.image,
        centre=next(iter(truth.values())),
        points=truth,
        spacing_mm_zyx=example.grid.spacing_mm_zyx,
        heatmap_stride=stride,
        title=f"{title}: target heatmap{of_stage}\n{said}",
        **_one_heatmap(target, example.object_names),
    )


def predicted_picture(example: Example, locator: Locator, title: str) -> Figure:
    """Show the heatmap that the network gives for a downsampled scan, beside the truth."""
    prediction = locator.predict(example.image)
    offset = prediction.points_voxels - example.points_voxels
    shown = ~np.isnan(offset).any(axis=1)
    errors = np.linalg.norm(offset, axis=1)
    names = example.object_names
    several = [f"{name} {e:.2f}" for name, e in zip(names, errors, strict=True) if e == e]
    each = f" ({', '.join(several)})" if len(names) > 1 else ""
    spacing = example.grid.spacing_mm_zyx
    in_mm = _mm(offset[shown], spacing)
    return plot_slices(
        example.image,
        centre=prediction.points_voxels[0],
        points={
            **_named(example.points_voxels, "true centre", names),
            **_named(prediction.points_voxels, "predicted centre", names),
        },
        spacing_mm_zyx=spacing,
        heatmap_stride=locator.network_config.heatmap_stride,
        title=f"{title}: predicted heatmap\nscan {example.scan_id}, "
        f"{_sigma(locator)}, "
        f"error {float(errors[shown].mean()):.2f} downsampled voxels{each}{in_mm}"
        f"{_missing(example)}",
        **_one_heatmap(prediction.probability, names),
    )


def write_test_pictures(
    folder: Path, locator: Locator, example: Example, error: ScanError, crop_size: Sequence[int]
) -> list[Path]:
    """Write the six pictures of one test scan; the only step that reads full-size voxels.

    Of several objects they show the one that the error is of, and carry its name.
    """
    name, several = error.object_name, len(example.points_voxels) > 1
    labels = locator.objects[name]
    scan = _with_labels(open_scan(example.source), labels)
    one_of_several = f", {name}" if several else ""
    of = f" of {name}" if several else ""
    said = f"scan {error.scan_id}{one_of_several}, {_sigma(locator)}, error {describe_error(error)}"
    figures = {
        "test_heatmap": predicted_picture(example, locator, "Test"),
        "test_centroid_downsampled": plot_slices(
            example.image,
            centre=map_points(error.predicted_voxels, example.source_grid, example.grid),
            points={
                f"true centre{of}": map_points(
                    error.truth_voxels, example.source_grid, example.grid
                ),
                f"predicted centre{of}": map_points(
                    error.predicted_voxels, example.source_grid, example.grid
                ),
            },
            spacing_mm_zyx=example.grid.spacing_mm_zyx,
            mask=_kept(example.mask, labels),
            mask_label=f"{name} mask",
            title=f"Predicted centre on the downsampled scan\n{said}",
        ),
    }
    for kind, point, whole, crop in (
        ("True", error.truth_voxels, "test_centroid_truth", "truth_cropped"),
        ("Predicted", error.predicted_voxels, "test_centroid", "test_cropped"),
    ):
        marks = {f"{kind.lower()} centre{of}": point}
        title = f"{kind} centre on the full-size scan\n{said}"
        figures[whole] = _full_size_picture(scan, marks, name, crop_size, title)
        figures[crop] = _crop_picture(scan, marks, name, crop_size, said)
    paths = []
    for picture, figure in figures.items():
        paths.append(folder / (f"{picture}_{name}.png" if several else f"{picture}.png"))
        save_figure(figure, paths[-1])
    return paths


def location_picture(
    found: Localisation,
    grid: Grid,
    image: np.ndarray,
    crop: np.ndarray,
    window: CropBox,
    error: ScanError | None = None,
) -> Figure:
    """Show where an object was found, in the whole scan and in the crop round it.

    Parameters
    ----------
    grid : of the full-size scan
    image : array, shape (z, y, x), the downsampled scan that the object was found in
    crop : array, shape (z, y, x), what is in the window at full size
    error : where the truth is known, which is then marked too
    """
    stop = np.asarray(window.start_zyx) + np.asarray(window.size_zyx)
    spacing = grid.spacing_mm_zyx
    position = ", ".join(f"{v:.1f}" for v in found.point_voxels) + " voxels"
    if found.point_mm is not None:
        position += f" = {', '.join(f'{v:.3f}' for v in found.point_mm)} mm"
    spread = f"spread {found.spread_voxels:.1f} voxels"
    if found.radius_voxels is not None:
        spread += (
            f", radius {found.radius_voxels:.1f} voxels ({100 * (found.confidence or 0):.0f} %)"
        )
    else:
        spread += ", radius unknown: give more test scans"
    said = (found.status, found.reason)
    voxels = "unknown" if spacing is None else f"{_times(f'{v:.3g}' for v in spacing)} mm"
    lines = [
        f"{found.object_name} in {found.scan_id} ({': '.join(filter(None, said))})",
        f"position (z, y, x) {position}; {spread}",
        f"scan of {_times(grid.shape_zyx)} voxels, spacing {voxels}; crop of "
        f"{_times(window.size_zyx)} voxels, {window.fit}",
    ]
    lines += [] if error is None else [f"error {describe_error(error)}"]
    return plot_location(
        Panel(image, (0, 0, 0), grid.shape_zyx),
        Panel(crop, window.start_zyx, stop.tolist()),
        point=found.point_voxels,
        spread=(found.spread_voxels,) * 3,
        title=lines,
        spacing_mm_zyx=spacing,
        radius=found.radius_voxels,
        truth=None if error is None else error.truth_voxels.tolist(),
    )


def _sigma(locator: Locator) -> str:
    """Say the sigma that positions are read at: the last stage's, of each network."""
    lasts = [own[-1] for own in locator.sigma_voxels]
    each = [f"{sigma:.2f}" for sigma in dict.fromkeys((min(lasts), max(lasts)))]
    return f"sigma {' to '.join(each)} voxels"


def describe_error(error: ScanError) -> str:
    """Say an error in every unit that is known."""
    text = (
        f"{error.error_downsampled_voxels:.2f} downsampled voxels, "
        f"{error.error_full_size_voxels:.2f} full-size voxels"
    )
    return text if error.error_mm is None else f"{text}, {error.error_mm:.3f} mm"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    record_file(path)
    with atomic_path(path) as temporary:
        # names of files need not be UTF-8
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def _full_size_picture(
    scan: ScanFile, mark: Mapping[str, np.ndarray], name: str, crop_size: Sequence[int], title: str
) -> Figure:
    (point,) = mark.values()
    image, mask = read_orthogonal_slices(scan, point)
    window = crop_box_around(point.tolist(), crop_size, scan.grid.shape_zyx)
    start = np.asarray(window.start_zyx)
    return plot_slices(
        image,
        centre=point,
        points=mark,
        spacing_mm_zyx=scan.grid.spacing_mm_zyx,
        mask=mask,
        mask_label=f"{name} mask",
        window=(start, start + np.asarray(window.size_zyx)),
        title=title,
    )


def _crop_picture(
    scan: ScanFile, mark: Mapping[str, np.ndarray], name: str, crop_size: Sequence[int], said: str
) -> Figure:
    ((label, point),) = mark.items()
    window = crop_box_around(point.tolist(), crop_size, scan.grid.shape_zyx)
    image, mask = read_crop(scan, window)
    size = "×".join(str(n) for n in window.size_zyx)
    return plot_crop(
        image,
        np.zeros(image.shape, np.uint8) if mask is None else mask,
        points={label: np.asarray(point) - window.start_zyx},
        spacing_mm_zyx=scan.grid.spacing_mm_zyx,
        title=f"Crop of {size} voxels round the {label} ({window.fit})\n{said}",
        object_name=name,
    )


def _with_labels(scan: ScanFile, labels: Sequence[int] | None) -> ScanFile:
    """Let a scan's mask show one object only, since red stands for what is looked for."""
    read = scan.read_mask
    if read is None:
        return scan
    return replace(scan, read_mask=lambda start, stop: _kept(read(start, stop), labels))


def _kept(mask: np.ndarray, labels: Sequence[int] | None) -> np.ndarray:
    return np.where(object_voxels(mask, labels), mask, 0)


def _times(numbers: Iterable[object]) -> str:
    return " × ".join(str(n) for n in numbers)


def _named(points: np.ndarray, what: str, objects: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the points that are known, each with what it is, and of several objects whose."""
    if len(points) == 1:
        return {what: points[0]}
    return {
        f"{what} of {name}": point
        for name, point in zip(objects, points, strict=True)
        if not np.isnan(point).any()
    }


def _missing(example: Example) -> str:
    lacks = np.isnan(example.points_voxels).any(axis=1)
    names = [name for name, no in zip(example.object_names, lacks, strict=True) if no]
    return f"; not in this scan: {', '.join(names)}" if names else ""


def _one_heatmap(maps: np.ndarray, objects: Sequence[str]) -> dict[str, Any]:
    """Return what `plot_slices` shows of heatmaps (object, z, y, x).

    No slice goes through several objects, so theirs are projected, as the points are.
    """
    if len(objects) == 1:
        return {"heatmap": maps.max(axis=0)}
    label = "highest probability along the line of sight"
    return {"heatmap": silhouettes(maps.max(axis=0)), "heatmap_label": label}


def _mm(offset_voxels: np.ndarray, spacing: Triple | None) -> str:
    if spacing is None:
        return ""
    return f", {np.linalg.norm(offset_voxels * np.asarray(spacing), axis=1).mean():.3f} mm"
