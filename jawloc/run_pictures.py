"""The pictures of a finished run."""

from __future__ import annotations

from pathlib import Path

from jawloc.config import Config
from jawloc.data import Data
from jawloc.locating.evaluation import Evaluation
from jawloc.locating.locator import Locator
from jawloc.reporting.figures import plot_losses, plot_metrics, plot_sigma, save_figure
from jawloc.reporting.outputs import predicted_picture, write_test_pictures
from jawloc.training.loop import TrainingState


def write_pictures(
    folder: Path,
    locator: Locator,
    tested: Evaluation,
    state: TrainingState,
    config: Config,
    data: Data,
) -> None:
    """Write every picture of a finished run."""
    sigma = config.curriculum
    schedules = sigma.of_stages(len(state.curricula))
    losses = plot_losses(
        state.records,
        loss=config.training.loss,
        threshold=sigma.threshold if sigma.trigger == "loss" else None,
        minimum_sigmas_voxels=[schedule.minimum_sigma_voxels for schedule in schedules],
    )
    save_figure(losses, folder / "losses.png")
    save_figure(plot_metrics(state.records), folder / "metrics.png")
    save_figure(plot_sigma(state.records), folder / "sigma.png")
    for short, (title, ids) in data.split.titled().items():
        picture = predicted_picture(data.examples[ids[0]].read(), locator, title)
        save_figure(picture, folder / f"{short}_heatmap_pred.png")
    # of several test scans the worst, for each object: the one that is worth looking at
    for name in config.cache.objects:
        own = tested.of(name)
        if own.errors:  # of several objects, a fold's test scans may lack one
            worst = own.worst()
            example = data.examples[worst.scan_id].read()
            write_test_pictures(folder, locator, example, worst, config.crop.crop_size)
