"""fit(): the training loop, top to bottom in one place."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from jawloc.heatmaps.curriculum import CurriculumConfig, CurriculumState, advance, start
from jawloc.heatmaps.losses import LossName
from jawloc.heatmaps.metrics import HeatmapMetrics
from jawloc.heatmaps.target import are_present
from jawloc.training.augmentation import (
    Augmentation,
    AugmentationConfig,
    draw_augmentation,
    move_points,
)
from jawloc.training.coarse_to_fine import forward_training_batch
from jawloc.training.dataset import ScanTensors
from jawloc.training.distributed import SINGLE_PROCESS, Processes
from jawloc.training.finite_check import FiniteCheck
from jawloc.training.network import CoarseToFine, Stage
from jawloc.training.scoring import (
    PredictStages,
    Scored,
    mean_loss,
    metrics_of_stages,
    score,
    validate,
)

GRADIENT_NORM = 1.0  # larger gradients are scaled down: one odd batch can't throw the network off


@dataclass(frozen=True)
class TrainingConfig:
    """How the network is trained."""

    batch_size: Annotated[int, Field(ge=1)] = 2  # scans a step
    num_epochs: Annotated[int, Field(ge=1)] = 250  # at most; the curriculum may stop earlier
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 3e-3  # the highest; AdamW
    # warm up, hold, and fall to zero over the last share of the epochs; or hold all the time
    learning_rate_schedule: Literal["cooldown", "constant"] = "cooldown"
    warmup_epochs: Annotated[int, Field(ge=0)] = 2
    cooldown_share: Annotated[float, Field(ge=0, lt=1)] = 0.3  # 0: the rate never falls
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    # Validated and kept are the weights averaged over about so many epochs; 0: the last step's.
    weight_average_epochs: Annotated[float, Field(ge=0)] = 2.0
    # The weights of the best validation error are kept, of all epochs or of the cooldown's: with
    # few validation scans, an early epoch may be best by luck. Without a cooldown, of all.
    best_epoch_from: Literal["start", "cooldown"] = "start"
    loss: LossName = "kl"
    device: str = "auto"
    # Cores that a training on the CPU uses; 0: all. Rounding depends on it, and differences grow.
    cpu_threads: Annotated[int, Field(ge=0)] = 0
    # Scans of one split that need more memory than this (GB, 4 bytes a downsampled voxel) are read
    # from the cache batch by batch; on an SSD that costs little.
    memory_budget_gb: Annotated[float, Field(ge=0)] = 4.0
    seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True)
class StageRecord:
    """What one epoch gave of one stage of the network; every number is the stage's own."""

    name: str  # "coarse" or "fine"; of a network with one stage, none
    sigma_voxels: float  # of the targets that were rendered, in voxels of the downsampled grid
    train: HeatmapMetrics
    val: HeatmapMetrics

    def flat(self) -> dict[str, float]:
        """Return the numbers of a stage that doesn't give the position, under flat names."""
        row = {}
        for split, metrics in (("train", self.train), ("val", self.val)):
            for key in ("kl_nats", "dice", "mse", "error_voxels", "error_mm"):
                what, _, unit = key.partition("_")
                if (value := getattr(metrics, key)) is not None:
                    row["_".join(filter(None, (split, what, self.name, unit)))] = value
        return row


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch gave; sigma and metrics are those of the stage that gives the position."""

    epoch: int  # counted from 1
    sigma_voxels: float  # of the targets that were rendered, in voxels of the downsampled grid
    learning_rate: float  # of the epoch's last step
    train: HeatmapMetrics
    val: HeatmapMetrics
    seconds: float
    earlier_stages: tuple[StageRecord, ...] = ()

    @property
    def stages(self) -> tuple[StageRecord, ...]:
        """Each stage's own record, in order."""
        name = "fine" if self.earlier_stages else ""
        return *self.earlier_stages, StageRecord(name, self.sigma_voxels, self.train, self.val)

    @property
    def sigmas_voxels(self) -> tuple[float, ...]:
        """The sigma of each stage, in order."""
        return tuple(stage.sigma_voxels for stage in self.stages)

    def flat(self) -> dict[str, float]:
        """Return every number under its flat name (`train_kl_nats`, `val_error_mm`, ...).

        Of several objects each has its own too (`train_kl_<object>_nats`, `val_error_<object>_mm`),
        and of two stages each its sigma (`sigma_coarse_voxels`, `sigma_fine_voxels`) and the coarse
        one its scores (`val_kl_coarse_nats`, `val_error_coarse_voxels`).
        """
        row = {
            "epoch": self.epoch,
            "sigma_voxels": self.sigma_voxels,
            "learning_rate": self.learning_rate,
            "seconds": self.seconds,
        }
        for split, metrics in (("train", self.train), ("val", self.val)):
            row |= {f"{split}_{key}": value for key, value in metrics.flat().items()}
        if self.earlier_stages:
            row |= {f"sigma_{stage.name}_voxels": stage.sigma_voxels for stage in self.stages}
        for stage in self.earlier_stages:
            row |= stage.flat()
        return row


@dataclass
class TrainingState:
    """Everything that changes while training: what a checkpoint holds."""

    network: nn.Module
    average: nn.Module  # moving average of the network over the last steps
    optimizer: torch.optim.Optimizer
    curricula: tuple[CurriculumState, ...]  # of each stage; the last one's gives the position
    generator: torch.Generator  # on the CPU: order of scans, augmentation
    records: list[EpochRecord] = field(default_factory=list)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    best_error_voxels: float = float("inf")
    cooldown_from: int | None = None  # epochs done when the learning rate began to fall

    def last_epoch(self, config: TrainingConfig) -> int | None:
        """Return the epoch that training ends with, once that is known."""
        if self.cooldown_from is None:
            return None
        end = self.cooldown_from + _cooldown_epochs(config, self.cooldown_from)
        return min(config.num_epochs, end)


def start_training(
    network: nn.Module, config: TrainingConfig, sigma: CurriculumConfig
) -> TrainingState:
    """Return the state before the first epoch, with a curriculum for each stage."""
    # weight decay pulls on the convolutions' kernels, not on norms and biases
    kernels = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": kernels}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
    generator = torch.Generator().manual_seed(config.seed)
    stages = len(network.parts) if isinstance(network, CoarseToFine) else 1
    curricula = tuple(map(start, sigma.per_stage(stages)))
    return TrainingState(network, copy.deepcopy(network), optimizer, curricula, generator)


def fit(
    state: TrainingState,
    train: ScanTensors,
    val: ScanTensors,
    config: TrainingConfig,
    curriculum: CurriculumConfig,
    augmentation: AugmentationConfig,
    stages: Sequence[Stage],
    predict: PredictStages,
    processes: Processes = SINGLE_PROCESS,
) -> Iterator[EpochRecord]:
    """Train, one yielded record an epoch, until the epochs are used up or the error has settled.

    Parameters
    ----------
    state : TrainingState
        Fresh, or as a checkpoint left it; updated epoch by epoch. After any record it is whole,
        so that a caller may save it, or stop.
    stages : sequence of Stage
        Of the state's network.
    predict : predicts the validation scans' positions
    processes : Processes
        The processes that train together; each of them yields the same records.

    Raises
    ------
    TrainingError
        A loss that is not finite, with the epoch and the scans of the batch.
    """
    schedules = curriculum.per_stage(len(stages))
    while not is_finished(state, config):
        started = time.perf_counter()
        sigmas = tuple(stage.sigma_voxels for stage in state.curricula)
        scored: list[Scored] = []
        device = next(state.network.parameters()).device
        finite = FiniteCheck(len(state.records) + 1, train.ids, device)

        state.network.train()
        order = torch.randperm(len(train.ids), generator=state.generator)
        batches = order.split(config.batch_size)
        shares = [batch[processes.shard(len(batch))] for batch in batches]
        for step, images in enumerate(train.batches(shares)):
            rate = learning_rate(config, state, (step + 1) / len(batches))
            for group in state.optimizer.param_groups:
                group["lr"] = rate
            state.optimizer.zero_grad(set_to_none=True)
            loss = torch.zeros(())
            points, change, jitter = _drawn(
                train, batches[step], augmentation, stages, state, processes
            )
            if len(images):
                images, points = images.to(device), points.to(device)
                predictions = forward_training_batch(
                    state.network, stages, images, points, sigmas, change, jitter
                )
                scores = score(predictions, points, shares[step], config.loss)
                # a share of the mean over the objects that the whole batch shows, so that the
                # team's sum is the mean
                loss = scores.loss.sum() / _objects_shown(train, batches[step])
                loss.backward()
                scored.append(scores.detached())
            processes.sum_gradients(state.network.parameters())
            norm = nn.utils.clip_grad_norm_(state.network.parameters(), GRADIENT_NORM)
            finite.add(batches[step], loss.detach(), norm)
            state.optimizer.step()
            _update_average(state, config, len(batches))
        finite.check()
        processes.average_statistics(state.network)
        processes.average_statistics(state.average)

        trained = metrics_of_stages(scored, len(stages), train, processes)
        validated = validate(state.average, val, sigmas, stages, predict, processes)
        names = [stage.name for stage in stages]
        *earlier, last = map(StageRecord, names, sigmas, trained, validated)
        record = EpochRecord(
            epoch=len(state.records) + 1,
            sigma_voxels=last.sigma_voxels,
            learning_rate=rate,
            train=last.train,
            val=last.val,
            seconds=time.perf_counter() - started,
            earlier_stages=tuple(earlier),
        )
        _keep_best(state, record)
        state.records.append(record)
        losses = [mean_loss(scored, number, processes) for number in range(len(stages))]
        errors = [stage.val.error_voxels for stage in record.stages]
        state.curricula = tuple(
            advance(schedule, before, train_loss=loss, val_error_voxels=error)
            for schedule, before, loss, error in zip(
                schedules, state.curricula, losses, errors, strict=True
            )
        )
        if state.cooldown_from is None and _is_time_to_cool_down(config, state):
            _begin_cooldown(config, state)
        yield record


def learning_rate(config: TrainingConfig, state: TrainingState, epoch_share: float) -> float:
    """Return the learning rate this far (0...1) into the state's next epoch."""
    epochs = len(state.records) + epoch_share
    if config.learning_rate_schedule == "constant":
        return config.learning_rate
    warm = min(1.0, epochs / config.warmup_epochs) if config.warmup_epochs else 1.0
    if state.cooldown_from is None or not config.cooldown_share:
        return config.learning_rate * warm
    cooled = (epochs - state.cooldown_from) / _cooldown_epochs(config, state.cooldown_from)
    # the very last step still moves a little
    return config.learning_rate * warm * max(1 - cooled, 0.01)


def is_finished(state: TrainingState, config: TrainingConfig) -> bool:
    """Say whether the epochs are used up, or the error settled and the cooldown is over."""
    done = len(state.records)
    if done >= config.num_epochs:
        return True
    if config.learning_rate_schedule == "constant":
        return state.curricula[-1].settled
    end = state.last_epoch(config)
    return end is not None and done >= end


def _cooldown_epochs(config: TrainingConfig, cooldown_from: int) -> int:
    """Length that makes the cooldown `cooldown_share` of all epochs; none for a share of 0."""
    share = config.cooldown_share
    return max(1, math.ceil(cooldown_from * share / (1 - share))) if share else 0


def _is_time_to_cool_down(config: TrainingConfig, state: TrainingState) -> bool:
    done = len(state.records)
    return state.curricula[-1].settled or done + _cooldown_epochs(config, done) >= config.num_epochs


def _begin_cooldown(config: TrainingConfig, state: TrainingState) -> None:
    state.cooldown_from = len(state.records)
    if config.best_epoch_from == "cooldown" and not is_finished(state, config):
        state.best_error_voxels = math.inf  # what was best until now is replaced by the next epoch


def _drawn(
    scans: ScanTensors,
    batch: Tensor,
    augmentation: AugmentationConfig,
    stages: Sequence[Stage],
    state: TrainingState,
    processes: Processes,
) -> tuple[Tensor, Augmentation | None, Tensor | None]:
    """Draw what happens to a batch; return this process's part of points, changes and jitter."""
    own, points = processes.shard(len(batch)), scans.points[batch]
    change, jitter = None, None
    if augmentation.enabled:
        sizes, shape = scans.voxel_sizes[batch], scans.shape_zyx
        drawn = draw_augmentation(augmentation, points, shape, sizes, state.generator)
        points, change = move_points(points, drawn, shape), drawn.select(own)
    if any(stage.window is not None for stage in stages):
        jitter = (torch.rand(points.shape, generator=state.generator) * 2 - 1)[own]
    return points[own], change, jitter


def _objects_shown(scans: ScanTensors, batch: Tensor) -> int:
    """Count the objects of all scans of a batch, each scan's own."""
    return max(1, int(are_present(scans.points[batch]).sum()))


@torch.no_grad()
def _update_average(state: TrainingState, config: TrainingConfig, steps_an_epoch: int) -> None:
    """Move the averaged weights towards the present ones (exponential moving average).

    BatchNorm's statistics move along: those of the last step alone belong to other weights.
    """
    steps = config.weight_average_epochs * steps_an_epoch
    # while few steps are done, average over as few, so that the random start is soon forgotten
    done = len(state.records) * steps_an_epoch
    weight = 1 / (1 + min(steps, done / 4))
    pairs = zip(state.average.parameters(), state.network.parameters(), strict=True)
    for average, present in pairs:
        average.lerp_(present, weight)
    buffers = zip(state.average.buffers(), state.network.buffers(), strict=True)
    for average_buffer, present_buffer in buffers:
        if average_buffer.is_floating_point():
            average_buffer.lerp_(present_buffer, weight)
        else:  # counters
            average_buffer.copy_(present_buffer)


def _keep_best(state: TrainingState, record: EpochRecord) -> None:
    """Copy the weights if this epoch's validation error is the lowest so far."""
    if record.val.error_voxels < state.best_error_voxels:
        state.best_error_voxels = record.val.error_voxels
        state.best_epoch = record.epoch
        state.best_weights = {
            name: tensor.detach().cpu().clone()
            for name, tensor in state.average.state_dict().items()
        }
