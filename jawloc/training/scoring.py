"""Score predictions against the true points, batch by batch; summarise a split's metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from jawloc.heatmaps.losses import HeatmapScores, LossName
from jawloc.heatmaps.metrics import HeatmapMetrics, HeatmapSample, summarise
from jawloc.heatmaps.target import are_present, with_stand_ins
from jawloc.training.coarse_to_fine import StagePrediction
from jawloc.training.dataset import ScanTensors
from jawloc.training.distributed import SINGLE_PROCESS, Processes
from jawloc.training.stages import Stage

# jawloc.inference.predict.predict_stages, passed in because training lies below inference
PredictStages = Callable[
    [nn.Module, Sequence[Stage], Tensor, Sequence[float]], list[StagePrediction]
]


@dataclass(frozen=True)
class StageScores:
    """One stage's scores of a batch; those of missing objects are meaningless."""

    predicted: Tensor  # (batch, object, 3), image voxels
    scores: HeatmapScores
    loss: Tensor  # (batch, object), the trained one; 0, without a gradient, of a missing object


@dataclass(frozen=True)
class BatchScores:
    """A batch's scores; tensors stay on the network's device until the epoch's metrics."""

    scans: Tensor  # (batch,), on the CPU: numbers of the scans in their split
    truth: Tensor  # (batch, object, 3), image voxels; NaN where a scan lacks an object
    stages: tuple[StageScores, ...]

    @property
    def loss(self) -> Tensor:
        """The trained loss, shape (batch, object): the mean over the stages."""
        return torch.stack([stage.loss for stage in self.stages]).mean(0)

    def detached(self) -> BatchScores:
        """Return the scores without their graph, which holds every step's heatmaps in memory."""
        stages = []
        for stage in self.stages:
            scores = {name: value.detach() for name, value in vars(stage.scores).items()}
            kept = StageScores(stage.predicted, HeatmapScores(**scores), stage.loss.detach())
            stages.append(kept)
        return replace(self, stages=tuple(stages))


def score(
    predictions: Sequence[StagePrediction], points: Tensor, scans: Tensor, loss: LossName
) -> BatchScores:
    """Compare each stage's prediction with the true points (batch, object, 3); missing: NaN."""
    present, stages = are_present(points), []
    for prediction in predictions:
        scores = prediction.score(with_stand_ins(points))
        own_loss = torch.where(present, scores.loss(loss), 0.0)
        stages.append(StageScores(prediction.decode().points, scores, own_loss))
    return BatchScores(scans, points, tuple(stages))


def metrics_of_stages(
    scores: Sequence[BatchScores], count: int, scans: ScanTensors, processes: Processes
) -> tuple[HeatmapMetrics, ...]:
    """Return the metrics of a split, over all processes, for each of `count` stages."""
    return tuple(
        summarise(_samples(scores, stage, scans, processes), scans.object_names)
        for stage in range(count)
    )


def _samples(
    scores: Sequence[BatchScores], stage: int, scans: ScanTensors, processes: Processes
) -> list[HeatmapSample]:
    """Return one stage's sample of each scan, of all processes, in the order of the split."""
    own: list[tuple[int, HeatmapSample]] = []
    for batch in scores:
        of_stage = batch.stages[stage].scores
        tensors = (of_stage.kl_nats, of_stage.dice, of_stage.mse, of_stage.relative_mse)
        numbers = [values.double().cpu().numpy() for values in tensors]
        predicted, truth = batch.stages[stage].predicted.cpu().numpy(), batch.truth.cpu().numpy()
        for i, scan in enumerate(batch.scans.tolist()):
            kl, dice, mse, relative = (values[i] for values in numbers)
            grid = scans.grids[scan]
            sample = HeatmapSample(kl, dice, mse, relative, predicted[i], truth[i], grid)
            own.append((scan, sample))
    return [sample for _, sample in sorted(processes.all_gather(own), key=lambda pair: pair[0])]


def mean_loss(scores: Sequence[BatchScores], stage: int, processes: Processes) -> float:
    """Return a stage's mean loss over all objects of all processes, for the stage's curriculum."""
    own: list[float] = []
    if scores:
        present = are_present(torch.cat([batch.truth for batch in scores]))
        own = torch.cat([batch.stages[stage].loss for batch in scores])[present].tolist()
    every = processes.all_gather(own)
    return sum(every) / len(every)


@torch.no_grad()
def validate(
    network: nn.Module,
    scans: ScanTensors,
    sigmas_voxels: Sequence[float],
    stages: Sequence[Stage],
    predict: PredictStages,
    processes: Processes = SINGLE_PROCESS,
) -> tuple[HeatmapMetrics, ...]:
    """Return each stage's metrics, one scan at a time, without dropout.

    The processes share the scans, and each returns the metrics of all. Sigmas are of each stage's
    targets, in image voxels.
    """
    network.eval()
    device = next(network.parameters()).device
    shard = range(processes.rank, len(scans.ids), processes.world_size)
    batches = [torch.tensor([i]) for i in shard]
    scores = []
    for batch, images in zip(batches, scans.batches(batches), strict=True):
        predictions = predict(network, stages, images[0][None, :1].to(device), sigmas_voxels)
        scores.append(score(predictions, scans.points[batch].to(device), batch, "kl"))
    return metrics_of_stages(scores, len(stages), scans, processes)
