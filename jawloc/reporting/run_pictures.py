"""The pictures of a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jawloc.geometry import Shape
from jawloc.heatmaps.curriculum import CurriculumConfig
from jawloc.heatmaps.losses import LossName
from jawloc.inference.locator import Locator
from jawloc.inference.metrics import PositionErrors
from jawloc.reporting.figures import plot_losses, plot_metrics, plot_sigma, save_figure
from jawloc.reporting.outputs import predicted_picture, write_test_pictures
from jawloc.scans.cache import ExampleFile
from jawloc.training.records import EpochRecord
from jawloc.training.splits import Split


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
    """Write every picture of a finished run.

    Parameters
    ----------
    tested : errors in the test scans; of several scans the worst one is shown, for each object
    records : of every epoch, at least one
    examples : by scan id; those of the split at least
    crop_size : (z, y, x) in voxels of the full-size scan
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
    for short, (title, ids) in split.titled().items():
        picture = predicted_picture(examples[ids[0]].read(), locator, title)
        save_figure(picture, folder / f"{short}_heatmap_pred.png")
    for name in locator.objects:
        own = tested.select(name)
        if own.errors:  # of several objects, a fold's test scans may lack one
            worst = own.worst()
            example = examples[worst.scan_id].read()
            write_test_pictures(folder, locator, example, worst, crop_size)
