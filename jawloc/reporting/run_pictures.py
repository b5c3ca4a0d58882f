"""Pictures of a run: curves, heatmaps over downsampled scans, test scans at full size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jawloc.geometry import Shape, map_points
from jawloc.heatmaps.curriculum import CurriculumConfig, notable_changes
from jawloc.heatmaps.losses import LossName
from jawloc.heatmaps.target import render
from jawloc.inference.crop import crop_box_around, read_crop, read_mask_crop
from jawloc.inference.evaluate_scan import ScanError
from jawloc.inference.locator import Locator
from jawloc.inference.metrics import PositionErrors
from jawloc.reporting.figures import Figure, save_figure
from jawloc.reporting.figures.curves import plot_losses, plot_metrics, plot_sigma
from jawloc.reporting.figures.location import describe_error
from jawloc.reporting.figures.slices import plot_crop, plot_slices
from jawloc.reporting.figures.target_strip import Strip, plot_target_strips
from jawloc.reporting.file_names import object_endings
from jawloc.scans.cache import Example, ExampleFile
from jawloc.scans.labels import object_voxels
from jawloc.scans.orthogonal_slices import read_orthogonal_slices, silhouettes
from jawloc.scans.reading import open_scan
from jawloc.scans.scan import ScanFile
from jawloc.training.loop import EpochRecord
from jawloc.training.network import heatmap_shape
from jawloc.training.splits import Split
from jawloc.training.stages import Stage, to_heatmap_grid


def write_pictures(
    folder: Path,
    locator: Locator,
    tested: PositionErrors,
    records: Sequence[EpochRecord],
    split: Split,
    examples: Mapping[str, ExampleFile],
    *,
    loss: LossName,
    curriculum: CurriculumConfig,
    crop_size: Shape,
) -> None:
    """Write every picture of a finished run; of the test scans, each object's worst one.

    `tested` has the errors in the test scans, `records` every epoch, at least one; `examples` are
    by scan id; `crop_size` is (z, y, x) in voxels of the full-size scan.
    """
    schedules = curriculum.per_stage(len(records[-1].stages))
    losses = plot_losses(
        records,
        loss=loss,
        threshold=curriculum.threshold if curriculum.trigger == "loss" else None,
        minimum_sigmas_voxels=[schedule.minimum_sigma_voxels for schedule in schedules],
    )
    save_figure(losses, folder / "losses.png")
    save_figure(plot_metrics(records), folder / "metrics.png")
    save_figure(plot_sigma(records), folder / "sigma.png")
    trained, stages = examples[split.train_ids[0]].read(), locator.network_config.stages()
    save_figure(curriculum_picture(trained, records, stages), folder / "curriculum.png")
    for short, (title, ids) in split.titled().items():
        picture = predicted_picture(examples[ids[0]].read(), locator, title)
        save_figure(picture, folder / f"{short}_heatmap_pred.png")
    for own in map(tested.select, locator.objects):
        if own.errors:  # a fold's test scans may lack one of several objects
            worst = own.worst()
            write_test_pictures(folder, locator, examples[worst.scan_id].read(), worst, crop_size)


def curriculum_picture(
    example: Example, records: Sequence[EpochRecord], stages: Sequence[Stage]
) -> Figure:
    """Show the targets that each stage was trained on, from the first sigma to the last.

    Of several objects, those of the first that is in this scan.
    """
    known = np.flatnonzero(~np.isnan(example.points_voxels).any(axis=1))
    point = example.points_voxels[known[0]]
    strips = []
    for number, stage in enumerate(stages):
        sigmas = [record.sigmas_voxels[number] for record in records]
        shown = [0, *notable_changes(sigmas, min(sigmas))]
        steps = [(records[index].epoch, sigmas[index]) for index in shown]
        render_at = partial(target_at, point, example.image.shape, stage.heatmap_stride)
        strips.append(Strip(stage.name, stage.heatmap_stride, steps, render_at))
    name = example.object_names[known[0]]
    return plot_target_strips(
        example.image,
        point,
        strips,
        title=f"Target of the {name} by epoch; sigma (σ) in downsampled voxels\n"
        f"scan {example.scan_id}",
        spacing_mm_zyx=example.grid.spacing_mm_zyx,
    )


def target_at(point: np.ndarray, image_shape: Shape, stride: int, sigma: float) -> np.ndarray:
    """Return the target heatmap (z, y, x) of a point, both lengths in voxels of the image."""
    placed = to_heatmap_grid(torch.from_numpy(point)[None, None], stride)
    heatmap: np.ndarray = render(placed, heatmap_shape(image_shape, stride), sigma / stride)[
        0, 0
    ].numpy()
    return heatmap


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


def write_test_pictures(
    folder: Path, locator: Locator, example: Example, error: ScanError, crop_size: Sequence[int]
) -> list[Path]:
    """Write the six pictures of one test scan; only this reads full-size voxels.

    They show the object of the error; of several objects, file names end with its name.
    """
    name, several = error.object_name, len(example.points_voxels) > 1
    of = f" of {name}" if several else ""
    details = (
        f"scan {error.scan_id}{f', {name}' if several else ''}, {describe_sigma(locator)}, "
        f"error {describe_error(error)}"
    )
    labels = locator.objects[name]
    scan = _only_labels(open_scan(example.source), labels)
    centres = {
        f"true centre{of}": error.truth_voxels,
        f"predicted centre{of}": error.predicted_voxels,
    }
    figures = {
        "test_heatmap": predicted_picture(example, locator, "Test"),
        "test_centroid_downsampled": _downsampled_picture(example, labels, centres, name, details),
    }
    files = (("test_centroid_truth", "truth_cropped"), ("test_centroid", "test_cropped"))
    for (label, point), names in zip(centres.items(), files, strict=True):
        drawn = _full_size_pictures(scan, label, point, name, crop_size, details)
        figures.update(zip(names, drawn, strict=True))
    paths = []
    for picture, figure in figures.items():
        paths.append(folder / f"{picture}{object_endings(example.object_names)[name]}.png")
        save_figure(figure, paths[-1])
    return paths


def _downsampled_picture(
    example: Example,
    labels: Sequence[int] | None,
    centres: Mapping[str, np.ndarray],
    name: str,
    details: str,
) -> Figure:
    mapped = map_points(np.stack([*centres.values()]), example.source_grid, example.grid)
    return plot_slices(
        example.image,
        centre=mapped[-1],
        points=dict(zip(centres, mapped, strict=True)),
        spacing_mm_zyx=example.grid.spacing_mm_zyx,
        mask=None if example.mask is None else _select_labels(example.mask, labels),
        mask_label=f"{name} mask",
        title=f"Predicted centre on the downsampled scan\n{details}",
    )


def _full_size_pictures(
    scan: ScanFile,
    label: str,
    point: np.ndarray,
    name: str,
    crop_size: Sequence[int],
    details: str,
) -> tuple[Figure, Figure]:
    """Show a centre in the whole scan, and in the crop around it."""
    spacing = scan.grid.spacing_mm_zyx
    window = crop_box_around(point.tolist(), crop_size, scan.grid.shape_zyx)
    start, size = np.asarray(window.start_zyx), np.asarray(window.size_zyx)
    image, mask = read_orthogonal_slices(scan, point)
    whole = plot_slices(
        image,
        centre=point,
        points={label: point},
        spacing_mm_zyx=spacing,
        mask=mask,
        mask_label=f"{name} mask",
        window=(start, start + size),
        title=f"{label.partition(' ')[0].title()} centre on the full-size scan\n{details}",
    )
    voxels, labels = read_crop(scan, window), read_mask_crop(scan, window)
    edges = "×".join(map(str, window.size_zyx))
    crop = plot_crop(
        voxels,
        labels,
        points={label: point - start},
        spacing_mm_zyx=spacing,
        title=f"Crop of {edges} voxels around the {label} ({window.fit})\n{details}",
        object_name=name,
    )
    return whole, crop


def _only_labels(scan: ScanFile, labels: Sequence[int] | None) -> ScanFile:
    read = scan.read_mask
    if read is None:
        return scan
    return replace(scan, read_mask=lambda start, stop: _select_labels(read(start, stop), labels))


def _select_labels(mask: np.ndarray, labels: Sequence[int] | None) -> np.ndarray:
    return np.where(object_voxels(mask, labels), mask, 0)
