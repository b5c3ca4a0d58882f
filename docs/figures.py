"""Draws the figures of method.md: `python -m docs.figures`, a few minutes on one core.

The trainings are of a very small network on bright blobs in noise, with jawloc's own functions.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from jawloc.config.sigmas import decide_sigmas
from jawloc.geometry import Grid, map_points
from jawloc.heatmaps.curriculum import CurriculumConfig
from jawloc.heatmaps.decode import decode
from jawloc.heatmaps.losses import HeatmapScores, score_heatmaps
from jawloc.heatmaps.target import gaussian_factors, render
from jawloc.inference.predict import predict_stages
from jawloc.phantom import make_phantom
from jawloc.reporting.figures.style import STYLE, Colour, blank_chart, label_log_axis, save_figure
from jawloc.training.augmentation import AugmentationConfig
from jawloc.training.dataset import ScanTensors
from jawloc.training.loop import TrainingConfig, fit, start_training
from jawloc.training.network import build_network
from jawloc.training.records import EpochRecord
from jawloc.training.stages import NetworkConfig, to_heatmap_grid, to_image_grid

IMAGES = Path(__file__).parent / "images"
SHAPE = (24, 16, 16)
STRIDE = 2
NETWORK = NetworkConfig(coarse=1, channels=(4, 8), stride=STRIDE, mask_supervision=False)
DEEPER = replace(NETWORK, channels=(4, 8, 16))  # which sees far enough for a wide sigma
SIGMA = 2.0  # voxels, where it does not change
SEEDS = (0, 1, 2)
STEPS, BATCH, TRAIN, TEST, VALIDATION = 300, 4, 24, 40, 12
MEASURED_EVERY = 20  # steps


def blobs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return images (count, 1, z, y, x) of one bright blob each in noise, and their centres."""
    generator = torch.Generator().manual_seed(seed)
    room = torch.tensor(SHAPE, dtype=torch.float32) - 5
    points = torch.rand(count, 1, 3, generator=generator) * room + 2
    images = render(points, SHAPE, 1.2)
    images = images / images.amax((2, 3, 4), keepdim=True)
    return images + 0.3 * torch.randn(images.shape, generator=generator), points


class Coordinates(nn.Module):
    """The same layers, whose last map is turned into three coordinates by a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = build_network(NETWORK, 1)
        voxels = math.prod(math.ceil(n / STRIDE) for n in SHAPE)
        self.read = nn.Linear(voxels, 3)

    def forward(self, images: Tensor) -> Tensor:
        """Return points (batch, 1, 3) in voxels."""
        shares = self.read(self.features(images).flatten(1))
        return (shares[:, None] + 0.5) * images.new_tensor(SHAPE)


def learn(heatmap: bool, seed: int) -> tuple[list[int], list[float]]:
    """Train a network that predicts heatmaps or coordinates; return steps and test errors."""
    torch.manual_seed(seed)
    network = build_network(NETWORK, 1) if heatmap else Coordinates()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    images, points = blobs(TRAIN, seed)
    test_images, test_points = blobs(TEST, 1000 + seed)
    steps, errors = [], []
    for step in range(1, STEPS + 1):
        chosen = torch.randint(TRAIN, (BATCH,))
        output = network(images[chosen])
        if heatmap:
            centres = to_heatmap_grid(points[chosen], STRIDE)
            factors = gaussian_factors(centres, output.shape[2:], SIGMA / STRIDE)
            loss = score_heatmaps(output, factors).kl_nats.mean()
        else:
            loss = ((output - points[chosen]) / output.new_tensor(SHAPE)).square().sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % MEASURED_EVERY == 0:
            with torch.no_grad():
                found = network(test_images)
            if heatmap:
                found = to_image_grid(decode(found, SIGMA / STRIDE).points, STRIDE)
            steps.append(step)
            errors.append(float((found - test_points).norm(dim=-1).mean()))
    return steps, errors


def heatmap_or_coordinates() -> Figure:
    """Draw the errors in new scans of networks that predict a heatmap, or coordinates."""
    figure = blank_chart(4.5, 9)
    axes = figure.subplots()
    for heatmap, name, colour in (
        (False, "coordinates", Colour.VERMILION),
        (True, "heatmap", Colour.BLUE),
    ):
        for seed in SEEDS:
            steps, errors = learn(heatmap, seed)
            axes.plot(steps, errors, color=colour, label=name if seed == SEEDS[0] else None)
    axes.set(xlabel="training step", ylabel="mean error in 40 new scans (voxels)", yscale="log")
    label_log_axis(axes.yaxis)
    axes.legend()
    axes.set_title(f"The same layers, {len(SEEDS)} seeds each, {TRAIN} training scans")
    return figure


def train_with_curriculum() -> list[EpochRecord]:
    """Train with jawloc's own loop, from a wide sigma to a narrow one."""
    curriculum = CurriculumConfig(
        initial_sigma_voxels=4.0,
        minimum_sigma_voxels=1.0,
        shrink_factor=0.6,
        threshold=0.5,
        patience=3,
        stop_patience=0,
    )
    config = TrainingConfig(
        batch_size=BATCH,
        num_epochs=30,
        learning_rate_schedule="constant",
        weight_average_epochs=0.0,
        device="cpu",
    )
    torch.manual_seed(0)
    state = start_training(build_network(DEEPER, 1), config, curriculum)
    scans = []
    for count, seed in ((TRAIN, 0), (VALIDATION, 1000)):
        images, points = blobs(count, seed)
        grids, sizes = (Grid(SHAPE, None),) * count, torch.ones(count, 3)
        ids = tuple(f"blob_{number}" for number in range(count))
        scans.append(ScanTensors(ids, images, points, sizes, grids))
    still = AugmentationConfig(enabled=False)
    stages = DEEPER.stages()
    return [*fit(state, *scans, config, curriculum, still, stages, predict_stages)]


def sawtooth() -> Figure:
    """Draw loss, and sigma and error, of a training whose sigma shrinks."""
    records = train_with_curriculum()
    epochs = [record.epoch for record in records]
    figure = blank_chart(6, 9)
    above, below = figure.subplots(2, sharex=True)
    above.plot(epochs, [r.train.kl_nats for r in records], color=Colour.BLUE, label="training")
    above.plot(epochs, [r.val.kl_nats for r in records], color=Colour.VERMILION, label="validation")
    above.set(ylabel="loss: KL (nats)", yscale="log")
    label_log_axis(above.yaxis)
    above.legend()
    below.step(
        epochs, [r.sigma_voxels for r in records], where="mid", color=Colour.BLACK, label="sigma"
    )
    below.plot(epochs, [r.val.error_voxels for r in records], color=Colour.GREEN, label="error")
    below.set(xlabel="epoch", ylabel="validation error, sigma (voxels)", yscale="log")
    label_log_axis(below.yaxis)
    below.legend()
    for before, record in pairwise(records):
        if record.sigma_voxels != before.sigma_voxels:
            for axes in (above, below):
                axes.axvline(record.epoch - 0.5, color="0.6", linestyle=":")
    figure.suptitle("The loss jumps up where sigma shrinks (dotted); the error falls on", size=13)
    return figure


def scores_at(displacements: np.ndarray, sigma: float) -> HeatmapScores:
    """Return the scores of a Gaussian that is displaced along z by so many voxels."""
    shape = (97, 25, 25)
    truth = torch.tensor([[[48.0, 12.0, 12.0]]], dtype=torch.float64).repeat(
        len(displacements), 1, 1
    )
    moved = truth.clone()
    moved[:, 0, 0] += torch.from_numpy(displacements)
    z, y, x = (factor.log() for factor in gaussian_factors(moved, shape, sigma))
    logits = z[..., :, None, None] + y[..., None, :, None] + x[..., None, None, :]
    factors = gaussian_factors(truth.float(), shape, sigma)
    return score_heatmaps(logits.clamp_min(-1e4).float(), factors)


def sigma_and_loss() -> Figure:
    """Draw the losses against the displacement of the heatmap, for several sigmas."""
    displacements = np.linspace(0, 12, 49)
    figure = blank_chart(4.8, 11)
    left, right = figure.subplots(1, 2)
    colours = (Colour.VERMILION, Colour.ORANGE, Colour.GREEN, Colour.BLUE)
    for sigma, colour in zip((1.5, 3.0, 5.0, 8.0), colours, strict=True):
        kl = scores_at(displacements, sigma).kl_nats[:, 0]
        left.plot(displacements, kl, color=colour, label=f"sigma {sigma:g}")
        allowed = math.sqrt(2) * sigma
        if allowed <= displacements[-1]:
            left.plot(allowed, 1, "o", color=colour)
    left.axhline(1, color="0.4", linestyle="--", label="1 nat")
    left.set(ylim=(0, 8), ylabel="KL (nats)")
    left.set_title("KL; dots: 1 nat allows √2 sigma", size=12)
    scores = scores_at(displacements, 1.5)
    curves = {
        "KL / 8 nats": (scores.kl_nats / 8, Colour.BLUE),
        "1 − Dice": (1 - scores.dice, Colour.VERMILION),
        "squared error / 2": (scores.relative_mse / 2, Colour.GREEN),  # equal to that of Dice
    }
    styles = ("-", "-", "--")
    for (label, (values, colour)), style in zip(curves.items(), styles, strict=True):
        right.plot(displacements, values[:, 0], style, color=colour, label=label)
    right.set(ylim=(0, 1.6), ylabel="loss")
    right.set_title("Three losses at sigma 1.5", size=12)
    for axes in (left, right):
        axes.set_xlabel("displacement (voxels)")
        axes.legend()
    return figure


def coarse_to_fine() -> Figure:
    """Draw what the two stages see of a phantom, with their first and last targets."""
    shape = (512, 128, 128)
    scan = make_phantom(3, shape)
    assert scan.mask is not None
    point = np.argwhere(scan.mask > 0).mean(0)
    network = NetworkConfig().for_grid(shape)
    coarse, fine = network.stages()
    schedules = decide_sigmas(CurriculumConfig(initial_sigma_voxels=8.0), network).per_stage(2)
    pooled, in_pooled = _pooled(scan.image, point, coarse.pool)
    window = np.asarray(fine.window)
    start = np.clip(np.rint(point - window / 2), 0, np.asarray(shape) - window).astype(int)
    cut = scan.image[tuple(slice(a, a + n) for a, n in zip(start, window, strict=True))]
    figure = blank_chart(6.2, 11)
    panels = figure.subplots(1, 4, width_ratios=(1, 1, 2.2, 2.2))
    _draw_stage(panels[:2], pooled, in_pooled, schedules[0], "coarse", coarse.pool)
    _draw_stage(panels[2:], cut, point - start, schedules[1], "fine")
    height, width = window[[0, 2]] / coarse.pool
    z, _, x = start / coarse.pool - 0.5
    for axes in panels[:2]:
        frame = Rectangle((x, z), width, height, fill=False, color=Colour.YELLOW, linewidth=1.5)
        axes.add_patch(frame)
    sizes = "×".join(map(str, pooled.shape)), "×".join(map(str, window))
    title = (
        f"A phantom. Coarse: all of it, pooled to {sizes[0]}. Fine: a window of {sizes[1]} (yellow)"
    )
    figure.suptitle(title, size=13)
    return figure


def _pooled(image: np.ndarray, point: np.ndarray, pool: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image as the coarse stage sees it, and a point in its voxels."""
    whole = torch.from_numpy(image.astype(np.float32))[None, None]
    pooled = torch.nn.functional.avg_pool3d(whole, pool)[0, 0].numpy()
    return pooled, map_points(point[None], Grid(image.shape, None), Grid(pooled.shape, None))[0]


def _draw_stage(
    panels: np.ndarray,
    volume: np.ndarray,
    centre: np.ndarray,
    schedule: CurriculumConfig,
    name: str,
    pool: int = 1,
) -> None:
    """Draw what a stage sees with its first and with its last target."""
    sigmas = {"first": schedule.first_sigma_voxels, "last": schedule.minimum_sigma_voxels}
    for axes, (which, sigma) in zip(panels, sigmas.items(), strict=True):
        _draw_target(axes, volume, centre, sigma / pool)
        axes.set_title(f"{name}, {which} target:\nsigma {sigma:g} voxels", size=12)
        axes.set(xlabel=f"x ({name} voxels)")
    panels[0].set(ylabel=f"z ({name} voxels)")


def _draw_target(axes: Axes, volume: np.ndarray, centre: np.ndarray, sigma: float) -> None:
    """Draw a slice (z, x) through a point, and the Gaussian round it."""
    picture = volume[:, round(float(centre[1]))]
    axes.imshow(picture, cmap="gray", origin="lower", vmax=float(np.percentile(picture, 99.7)))
    target = render(torch.from_numpy(centre)[None, None].float(), volume.shape, sigma)[0, 0]
    heat = target.amax(1).numpy()
    heat /= heat.max()
    axes.imshow(heat, cmap="inferno", origin="lower", alpha=np.clip(heat, 0, 1) * 0.75)


def main() -> None:
    """Draw every figure."""
    torch.set_num_threads(1)
    for draw in (sigma_and_loss, coarse_to_fine, sawtooth, heatmap_or_coordinates):
        with rc_context(STYLE):
            save_figure(draw(), IMAGES / f"{draw.__name__}.png")
        print(f"{draw.__name__}.png", flush=True)


if __name__ == "__main__":
    main()
