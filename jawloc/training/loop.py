"""fit(): the training loop, top to bottom in one place."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from jawloc.heatmaps.curriculum import CurriculumConfig, CurriculumState, advance_stages, start
from jawloc.heatmaps.losses import LossName
from jawloc.heatmaps.mask import mask_loss
from jawloc.heatmaps.target import are_present
from jawloc.training.augmentation import (
    Augmentation,
    AugmentationConfig,
    draw_augmentation,
    transform_points,
)
from jawloc.training.coarse_to_fine import forward_training_batch
from jawloc.training.dataset import ScanTensors
from jawloc.training.distributed import SINGLE_PROCESS, Processes
from jawloc.training.finite_check import FiniteCheck
from jawloc.training.network import CoarseToFine
from jawloc.training.records import EpochRecord, StageRecord
from jawloc.training.schedule import begin_cooldown_if_due, cooldown_epochs, is_finished
from jawloc.training.schedule import learning_rate as learning_rate
from jawloc.training.scoring import (
    PredictStages,
    mean_loss,
    metrics_of_stages,
    score,
    validate,
)
from jawloc.training.stage_input import mask_targets
from jawloc.training.stages import Stage
from jawloc.training.steps import move_average
from jawloc.training.unfinished import UnfinishedEpoch

# By the number of stages: after 600 steps the error of two still falls (see the log).
CYCLE_STEPS = {1: 600, 2: 900}
GRADIENT_NORM = 1.0  # larger gradients are scaled down to it


@dataclass(frozen=True)
class TrainingConfig:
    """How the network is trained."""

    batch_size: Annotated[int, Field(ge=1)] = 4  # scans per step
    num_epochs: Annotated[int, Field(ge=1)] = 250  # at most; the schedule may end earlier
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 3e-3  # the highest rate, with AdamW
    # `one-cycle`: rise over a quarter of all steps and fall over the others, as cosine half-waves;
    # `cooldown`: warm up, hold, and fall to zero over a last share of the epochs, which end once
    # the error has settled; `constant`: hold.
    learning_rate_schedule: Literal["one-cycle", "cooldown", "constant"] = "one-cycle"
    # The length of `one-cycle` in steps, rounded up to epochs, of which there are at most
    # `num_epochs`; 0: just as many. The fewer scans, the more epochs. `auto`: 600, with two stages
    # 900.
    cycle_steps: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    warmup_epochs: Annotated[int, Field(ge=0)] = 2  # with `cooldown`: in which the rate rises
    # With `cooldown`: the share of the epochs, at their end, in which the rate falls to 0.
    cooldown_share: Annotated[float, Field(ge=0, lt=1)] = 0.3
    # The weight decay of AdamW, which only the convolutions' kernels have.
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    # Validated and kept are the weights averaged over about so many epochs; 0: the last step's.
    weight_average_epochs: Annotated[float, Field(ge=0)] = 2.0
    # The `last` epoch's weights are kept: with few validation scans, another is best by luck. Or
    # those of the best validation error, of all epochs (`start`) or of the `cooldown`.
    best_epoch_from: Literal["start", "cooldown", "last"] = "last"
    # Before so many steps, an error that no longer falls does not end training: with few scans an
    # epoch has few steps, and `curriculum.stop_patience` is soon over.
    least_steps: Annotated[int, Field(ge=0)] = 0
    loss: LossName = "kl"  # what the network is trained by; all three are logged in any case
    device: str = "auto"  # `auto`, `cpu`, `cuda`, `cuda:1`; without a GPU the CPU, with a warning
    # Cores that a training on the CPU uses; 0: all. Rounding depends on it, and differences grow.
    cpu_threads: Annotated[int, Field(ge=0)] = 0
    # Scans of one split that need more memory than this (GB; 4 bytes a downsampled voxel, and as
    # many for each object's mask) are read from the cache batch by batch; on an SSD that costs
    # little.
    memory_budget_gb: Annotated[float, Field(ge=0)] = 4.0
    # Same seed, CPU and number of threads: same numbers.
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0

    def for_stages(self, count: int) -> TrainingConfig:
        """Return the training with a cycle of "auto" decided for a network of 1 or 2 stages."""
        if self.cycle_steps != "auto":
            return self
        return replace(self, cycle_steps=CYCLE_STEPS[count])


def planned_training(config: TrainingConfig, scans: int) -> TrainingConfig:
    """Return the training with the number of epochs that it has with so many training scans.

    Raises ValueError if the length of its cycle is not decided.
    """
    if config.learning_rate_schedule != "one-cycle" or config.cycle_steps == 0:
        return config
    if config.cycle_steps == "auto":
        raise ValueError("cycle_steps depends on the network; call for_stages() first")
    epochs = math.ceil(config.cycle_steps / math.ceil(scans / config.batch_size))
    return replace(config, num_epochs=min(config.num_epochs, epochs))


@dataclass
class TrainingState:
    """Everything that changes while training: what a checkpoint holds."""

    network: nn.Module
    average: nn.Module  # moving average of the network over the last steps
    optimizer: torch.optim.Optimizer
    curricula: tuple[CurriculumState, ...]  # of each stage; the last one gives the position
    generator: torch.Generator  # on the CPU: order of scans, augmentation
    records: list[EpochRecord] = field(default_factory=list)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    best_error_voxels: float = float("inf")
    cooldown_from: int | None = None  # epochs done when the learning rate began to fall
    unfinished: UnfinishedEpoch | None = None  # where training was stopped within an epoch

    def last_epoch(self, config: TrainingConfig) -> int | None:
        """Return the last epoch of training; None until the cooldown has begun."""
        if self.cooldown_from is None:
            return None
        end = self.cooldown_from + cooldown_epochs(config, self.cooldown_from)
        return min(config.num_epochs, end)


def start_training(
    network: nn.Module, config: TrainingConfig, sigma: CurriculumConfig
) -> TrainingState:
    """Return the state before the first epoch, with a curriculum for each stage."""
    # weight decay applies to the convolutions' kernels, not to norms and biases
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
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[EpochRecord]:
    """Train, one yielded record an epoch, until the epochs are used up or the error has settled.

    The state, fresh or from a checkpoint, is updated in place and complete whenever a record is
    yielded, and at the end; every process yields the same records. `should_stop` is asked after
    every batch, and ends training there, maybe within an epoch. Raises TrainingError for a loss or
    gradient that is not finite, with the epoch and the scans of the batch.
    """
    steps = math.ceil(len(train.ids) / config.batch_size)
    train = train.pooled_by(stages[0].pool)
    while not is_finished(state, config, steps) and not should_stop():
        started = time.perf_counter()
        sigmas = tuple(stage.sigma_voxels for stage in state.curricula)
        epoch = _train_epoch(
            state, train, config, augmentation, stages, sigmas, processes, should_stop
        )
        if epoch.done < len(epoch.batches):
            epoch.seconds += time.perf_counter() - started
            state.unfinished = epoch
            return
        scores = epoch.scores
        trained = metrics_of_stages(scores, len(stages), train, processes)
        validated = validate(state.average, val, sigmas, stages, predict, processes)
        names = [stage.name for stage in stages]
        *earlier, last = map(StageRecord, names, sigmas, trained, validated)
        record = EpochRecord(
            epoch=len(state.records) + 1,
            sigma_voxels=last.sigma_voxels,
            learning_rate=state.optimizer.param_groups[0]["lr"],
            train=last.train,
            val=last.val,
            seconds=epoch.seconds + time.perf_counter() - started,
            earlier_stages=tuple(earlier),
        )
        _keep_best(state, record, config)
        state.records.append(record)
        losses = [mean_loss(scores, number, processes) for number in range(len(stages))]
        errors = [stage.val.error_voxels for stage in record.stages]
        done = len(state.records) / config.num_epochs
        state.curricula = advance_stages(curriculum, state.curricula, losses, errors, done)
        begin_cooldown_if_due(state, config, steps)
        yield record


def _train_epoch(
    state: TrainingState,
    scans: ScanTensors,
    config: TrainingConfig,
    augmentation: AugmentationConfig,
    stages: Sequence[Stage],
    sigmas: Sequence[float],
    processes: Processes,
    should_stop: Callable[[], bool],
) -> UnfinishedEpoch:
    """Train on every scan once, or until asked to stop; return how far it came.

    It has the scores of this process's shards of the batches.
    """
    device = next(state.network.parameters()).device
    finite = FiniteCheck(len(state.records) + 1, scans.ids, device)
    state.network.train()
    epoch, state.unfinished = state.unfinished, None
    if epoch is None:
        order = torch.randperm(len(scans.ids), generator=state.generator)
        epoch = UnfinishedEpoch(order.split(config.batch_size))
    batches = epoch.batches
    shards = [batch[processes.shard(len(batch))] for batch in batches]
    images_left = scans.batches(shards[epoch.done :])
    for step, images in enumerate(images_left, start=epoch.done):
        batch = batches[step]
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(config, state, (step + 1) / len(batches))
        state.optimizer.zero_grad(set_to_none=True)
        points, drawn, jitter = _draw_batch(state, scans, batch, augmentation, stages, processes)
        loss = torch.zeros(())
        if len(images):  # the last batch may leave a process without scans
            images, points = [image.to(device) for image in images], points.to(device)
            seen, pooled = [image[:1] for image in images], scans.pooled_batch(shards[step], device)
            predictions = forward_training_batch(
                state.network, stages, seen, points, sigmas, drawn, jitter, pooled
            )
            scores = score(predictions, points, shards[step], config.loss)
            loss = _heatmap_loss(scores.loss, scans, batch, shards[step])
            last = predictions[-1]
            if (logits := last.mask_logits) is not None and any(scans.has_mask):
                masks = [image[1:] for image in images]
                targets = mask_targets(masks, stages[-1], drawn, last.start)
                mask_losses = mask_loss(logits, targets, last.inside)
                loss = loss + mask_losses.sum() / max(1, scans.count_masks(batch))
            loss.backward()
            epoch.scores.append(scores.detached())
        processes.all_reduce_gradients(state.network.parameters())
        norm = nn.utils.clip_grad_norm_(state.network.parameters(), GRADIENT_NORM)
        finite.add(batch, loss.detach(), norm)
        state.optimizer.step()
        # while few epochs are done, over as few, so that the random start is soon forgotten
        epochs = min(config.weight_average_epochs, len(state.records) / 4)
        move_average(state.average, state.network, 1 / (1 + epochs * len(batches)))
        epoch.done = step + 1
        if should_stop():
            break
    finite.check()
    processes.average_statistics(state.network, state.average)
    return epoch


def _heatmap_loss(losses: Tensor, scans: ScanTensors, batch: Tensor, shard: Tensor) -> Tensor:
    """Return a shard's part of a batch's loss; the sum over the processes is the mean."""
    if scans.weights is not None:
        losses = losses * scans.weights[shard].to(losses.device)
    return losses.sum() / max(1, int(are_present(scans.points[batch]).sum()))


def _draw_batch(
    state: TrainingState,
    scans: ScanTensors,
    batch: Tensor,
    config: AugmentationConfig,
    stages: Sequence[Stage],
    processes: Processes,
) -> tuple[Tensor, Augmentation | None, Tensor | None]:
    """Draw a batch's augmentation and jitter; return points and both of this process's shard."""
    # every process draws for the whole batch, so that their random states stay equal
    shard, points = processes.shard(len(batch)), scans.points[batch]
    augmentation, jitter = None, None
    if config.enabled:
        sizes, shape = scans.voxel_sizes[batch], scans.shape_zyx
        drawn = draw_augmentation(config, points, shape, sizes, state.generator)
        points, augmentation = transform_points(points, drawn, shape), drawn.select(shard)
    if any(stage.window is not None for stage in stages):
        jitter = (torch.rand(points.shape, generator=state.generator) * 2 - 1)[shard]
    return points[shard], augmentation, jitter


def _keep_best(state: TrainingState, record: EpochRecord, config: TrainingConfig) -> None:
    """Copy the weights if the validation error is the lowest so far, or if the last ones count."""
    if config.best_epoch_from == "last" or record.val.error_voxels < state.best_error_voxels:
        state.best_error_voxels = record.val.error_voxels
        state.best_epoch = record.epoch
        weights = state.average.state_dict()
        state.best_weights = {key: value.detach().cpu().clone() for key, value in weights.items()}
