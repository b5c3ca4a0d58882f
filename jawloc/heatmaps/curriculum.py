"""The sigma schedule: one Gaussian, or a wide one first, narrower once the network has learned it.

`advance` is a pure function of the configuration, the state and the epoch's numbers. Two triggers:

- ``loss`` is the lab's rule: the epoch's training loss is below the threshold. The error that this
  allows grows with sigma: the KL divergence of two Gaussians a distance d apart is
  d^2 / (2 sigma^2), so 1.0 nats allow an error of sqrt(2) sigma, 11 voxels at sigma 8.
- ``error``: the mean radial error on the validation scans is below threshold * sigma.

Each stage of a coarse-to-fine network has its own schedule, state and numbers: the coarse stage's
heatmap voxels are too long for narrow Gaussians, the fine stage's window too small for wide ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

AutoSigma = Literal["auto"] | Annotated[float, Field(gt=0)]


NOTABLE_FACTOR = 11 / 12  # by which sigma has shrunk, at least, where targets are drawn anew
SHRINKING_SHARE = 2 / 3  # of all epochs, in which sigma shrinks with the trigger `epochs`


@dataclass(frozen=True)
class CurriculumConfig:
    """When sigma shrinks, how far, and when training stops.

    All sigmas are in voxels of the downsampled grid. A network of one stage goes from
    `initial_sigma_voxels` to `minimum_sigma_voxels`. config/sigmas.py replaces "auto": the initial
    sigma by the minimum one, and those of two stages by the nearest that each can represent.
    """

    # Thresholds of the trigger ``loss`` that allow the same error with every loss: each is the loss
    # of two equal Gaussians sqrt(2) sigma apart, whose KL divergence is the lab's 1.0 nats.
    loss_thresholds: ClassVar[Mapping[str, float]] = {
        "kl": 1.0,
        "dice": 1 - math.exp(-0.5),
        "mse": 2 - 2 * math.exp(-0.5),
    }
    # A uniform heatmap has almost this loss, so a threshold must lie below; KL has no such limit.
    uniform_map_losses: ClassVar[Mapping[str, float]] = {"dice": 1.0, "mse": 1.0}

    # Sigma of the first heatmaps, in downsampled voxels; with two stages, of the coarse stage.
    # `auto`: `curriculum.minimum_sigma`, so that sigma stays as it is. From a wider one, as the
    # lab's 8, it shrinks: the curriculum, which with trigger `epochs`, from 6, was better on skulls
    # and hippocampus, and worse on phantoms.
    initial_sigma_voxels: Annotated[AutoSigma, Field(alias="initial_sigma")] = "auto"
    # Sigma of the last heatmaps, in downsampled voxels; with two stages, of the fine stage, which
    # gives the position.
    minimum_sigma_voxels: Annotated[float, Field(gt=0, alias="minimum_sigma")] = 1.5
    # The factor that sigma is multiplied by; 1 never shrinks (`--no-shrink-heatmap`).
    shrink_factor: Annotated[float, Field(gt=0, le=1)] = 0.8
    # `error`: shrink sigma once the validation error is below threshold × sigma; `loss`: once the
    # training loss is below the threshold (the lab's rule). Each stage uses its own error or loss.
    # `epochs`: a little after every epoch, so that it is at its minimum after two thirds of them;
    # threshold, patience and a factor below 1 then have no effect.
    trigger: Literal["loss", "error", "epochs"] = "error"
    # Of error / sigma, or of the loss: see `trigger`. With trigger `loss`, the default means the
    # same for every loss, a displacement of √2 sigma: 1.0 nats for `kl`, 0.39 for `dice`, 0.79 for
    # `mse`.
    threshold: Annotated[float, Field(gt=0)] = 1.0
    patience: Annotated[int, Field(ge=1)] = (
        1  # epochs in a row below the threshold before sigma shrinks
    )
    # Once sigma is at its end: epochs without a better error before training ends, after its
    # cooldown; 0 never stops early. `one-cycle` never does.
    stop_patience: Annotated[int, Field(ge=0)] = 20
    # With two stages, the coarse stage's first sigma, in downsampled voxels. `auto`:
    # `initial_kernel_size`, within what the stage can represent.
    coarse_initial_sigma_voxels: Annotated[AutoSigma, Field(alias="coarse_initial_sigma")] = "auto"
    # The coarse stage's last sigma. `auto`: `curriculum.minimum_sigma`, within what the stage can
    # represent (at least 6 at 512×128×128).
    coarse_minimum_sigma_voxels: Annotated[AutoSigma, Field(alias="coarse_minimum_sigma")] = "auto"
    # The fine stage's first sigma. `auto`: `initial_kernel_size`, at most a sixteenth of the window
    # (4 at 512×128×128); twice that is the most that the window can hold.
    fine_initial_sigma_voxels: Annotated[AutoSigma, Field(alias="fine_initial_sigma")] = "auto"

    def per_stage(self, count: int) -> tuple[CurriculumConfig, ...]:
        """Return the schedule of each of 1 or 2 stages; ValueError while theirs are "auto"."""
        if count == 1:
            return (self,)
        coarse, least = self.coarse_initial_sigma_voxels, self.coarse_minimum_sigma_voxels
        fine = self.fine_initial_sigma_voxels
        if coarse == "auto" or least == "auto" or fine == "auto":
            raise ValueError("the sigmas of two stages depend on the network; decide them first")
        return (
            replace(self, initial_sigma_voxels=coarse, minimum_sigma_voxels=least),
            replace(self, initial_sigma_voxels=fine),
        )

    @property
    def first_sigma_voxels(self) -> float:
        """Return the initial sigma; ValueError while it is "auto"."""
        if self.initial_sigma_voxels == "auto":
            raise ValueError("the initial sigma depends on the minimum one; decide it first")
        return self.initial_sigma_voxels

    @property
    def shrinks(self) -> bool:
        """Return whether sigma can change; ValueError while the initial one is "auto"."""
        return self.shrink_factor < 1 and self.minimum_sigma_voxels < self.first_sigma_voxels


@dataclass(frozen=True)
class CurriculumState:
    """Where the schedule of one stage is after some epochs."""

    sigma_voxels: float
    epochs_below: int = 0  # in a row, at this sigma
    best_error_voxels: float = float("inf")  # since sigma stopped shrinking
    epochs_since_best: int = 0
    settled: bool = False  # sigma shrinks no further and the validation error no longer falls


def start(config: CurriculumConfig) -> CurriculumState:
    """Return the state before the first epoch; ValueError if sigma begins below its minimum."""
    first = config.first_sigma_voxels
    if first < config.minimum_sigma_voxels:
        raise ValueError(
            f"sigma can't begin at {first:g}, below its minimum of {config.minimum_sigma_voxels:g}"
        )
    return CurriculumState(first)


def at_the_end(config: CurriculumConfig, sigma_voxels: float) -> bool:
    """Return whether sigma shrinks no further."""
    return config.shrink_factor == 1 or sigma_voxels <= config.minimum_sigma_voxels


def notable_changes(sigmas: Sequence[float], minimum: float) -> list[int]:
    """Return where a stage's sigmas of every epoch become a twelfth narrower, to be looked at.

    By the clock sigma changes a little after every epoch. A change is notable that is so large
    together with those since the last one, or that ends at the minimum.
    """
    found, last = list[int](), sigmas[0]
    for index, sigma in enumerate(sigmas):
        at_its_end = sigma <= minimum < last
        if at_its_end or sigma <= NOTABLE_FACTOR * last or sigma > last:
            found.append(index)
            last = sigma
    return found


def advance(
    config: CurriculumConfig,
    state: CurriculumState,
    *,
    train_loss: float,
    val_error_voxels: float,
    share_done: float,
) -> CurriculumState:
    """Return the state for the next epoch.

    The numbers are the stage's mean training loss of the epoch (nats for KL), its mean radial
    error on the validation scans, in downsampled voxels, and which share of all epochs is done.
    Losses 2.0, 0.9, 0.8 with the trigger ``loss``, threshold 1.0 and factor 0.9 give the sigmas 8,
    7.2, 6.48.
    """
    if at_the_end(config, state.sigma_voxels):
        if val_error_voxels < state.best_error_voxels:
            best = replace(state, best_error_voxels=val_error_voxels)
            return replace(best, epochs_since_best=0, settled=False)
        waited = state.epochs_since_best + 1
        settled = 0 < config.stop_patience <= waited
        return replace(state, epochs_since_best=waited, settled=settled)
    if config.trigger == "epochs":
        course = min(1.0, share_done / SHRINKING_SHARE)
        first, minimum = config.first_sigma_voxels, config.minimum_sigma_voxels
        narrower = first * (minimum / first) ** course if course < 1 else minimum
        return replace(state, sigma_voxels=min(state.sigma_voxels, narrower))
    if config.trigger == "loss":
        below = train_loss < config.threshold
    else:
        below = val_error_voxels < config.threshold * state.sigma_voxels
    epochs_below = state.epochs_below + 1 if below else 0
    if epochs_below < config.patience:
        return replace(state, epochs_below=epochs_below)
    narrower = max(state.sigma_voxels * config.shrink_factor, config.minimum_sigma_voxels)
    return replace(state, sigma_voxels=narrower, epochs_below=0)


def advance_stages(
    config: CurriculumConfig,
    states: Sequence[CurriculumState],
    train_losses: Sequence[float],
    val_errors_voxels: Sequence[float],
    share_done: float,
) -> tuple[CurriculumState, ...]:
    """Return the next state of each stage's schedule, each from the stage's own numbers."""
    stages = zip(
        config.per_stage(len(states)), states, train_losses, val_errors_voxels, strict=True
    )
    return tuple(
        advance(own, before, train_loss=loss, val_error_voxels=error, share_done=share_done)
        for own, before, loss, error in stages
    )
