"""What a pass over scans says of the network: scores, positions, and a split's metrics."""

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
from jawloc.training.network import Stage

# jawloc.inference.predict.predict_stages: training lies below inference, so that it is handed over
PredictStages = Callable[
    [nn.Module, Sequence[Stage], Tensor, Sequence[float]], list[StagePrediction]
]


@dataclass(frozen=True)
class StageScored:
    """What one stage says of some scans.

    Attributes
    ----------
    predicted : tensor, shape (batch, object, 3), image voxels
    scores : HeatmapScores
        Of a missing object they mean nothing.
    loss : tensor, shape (batch, object)
        What is trained on; 0, without a gradient, for a missing object.
    """

    predicted: Tensor
    scores: HeatmapScores
    loss: Tensor


@dataclass(frozen=True)
class Scored:
    """Some scans as the network saw them; tensors stay on its device until `samples` asks.

    Attributes
    ----------
    scans : tensor of int64, shape (batch,)
        Which scans of the split, on the CPU.
    truth : tensor, shape (batch, object, 3), image voxels
        The truth of an object that a scan lacks is NaN.
    stages : each stage's own scores, in order; the last gives the position
    """

    scans: Tensor
    truth: Tensor
    stages: tuple[StageScored, ...]

    @property
    def loss(self) -> Tensor:
        """What is trained on, shape (batch, object): the mean over the stages."""
        return torch.stack([stage.loss for stage in self.stages]).mean(0)

    def detached(self) -> Scored:
        """Return the numbers without what led to them: every step's maps would pile up."""
        stages = [
            StageScored(
                stage.predicted,
                HeatmapScores(
                    **{name: value.detach() for name, value in vars(stage.scores).items()}
                ),
                stage.loss.detach(),
            )
            for stage in self.stages
        ]
        return replace(self, stages=tuple(stages))


def score(
    predictions: Sequence[StagePrediction], points: Tensor, scans: Tensor, loss: LossName
) -> Scored:
    """Compare what each stage says of a batch with its true points (batch, object, 3; or NaN)."""
    present, stages = are_present(points), []
    for view in predictions:
        scores = view.score(with_stand_ins(points))
        own_loss = torch.where(present, scores.loss(loss), 0.0)
        stages.append(StageScored(view.decode().points, scores, own_loss))
    return Scored(scans, points, tuple(stages))


def metrics_of_stages(
    scored: Sequence[Scored], count: int, scans: ScanTensors, processes: Processes
) -> tuple[HeatmapMetrics, ...]:
    """Return the metrics of a split, of all processes, for each of `count` stages."""
    names = scans.object_names
    return tuple(
        summarise(samples(scored, stage, scans, processes), names) for stage in range(count)
    )


def samples(
    scored: Sequence[Scored], stage: int, scans: ScanTensors, processes: Processes
) -> list[HeatmapSample]:
    """Return what each scan contributes, of all processes, in the order of the split."""
    own: list[tuple[int, HeatmapSample]] = []
    for part in scored:
        said = part.stages[stage]
        numbers = [
            values.double().cpu().numpy()
            for values in (
                said.scores.kl_nats,
                said.scores.dice,
                said.scores.mse,
                said.scores.relative_mse,
            )
        ]
        predicted, truth = said.predicted.cpu().numpy(), part.truth.cpu().numpy()
        for i, scan in enumerate(part.scans.tolist()):
            kl, dice, mse, relative = (values[i] for values in numbers)
            grid = scans.grids[scan]
            sample = HeatmapSample(kl, dice, mse, relative, predicted[i], truth[i], grid)
            own.append((scan, sample))
    return [sample for _, sample in sorted(processes.gather(own), key=lambda pair: pair[0])]


def mean_loss(scored: Sequence[Scored], stage: int, processes: Processes) -> float:
    """Return the mean over the objects of all scans, of all processes, of a stage's own loss.

    The stage's curriculum goes by this one: it says what the stage has learned.
    """
    own: list[float] = []
    if scored:
        present = are_present(torch.cat([part.truth for part in scored]))
        own = torch.cat([part.stages[stage].loss for part in scored])[present].tolist()
    every = processes.gather(own)
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
    """Score a network on scans, one at a time, without dropout and without augmentation.

    Parameters
    ----------
    sigmas_voxels : sequence of float
        Of each stage's targets, in image voxels.
    predict : the prediction that `locate` and `evaluate` use too
    processes : Processes
        The processes that share the scans; each returns the metrics of all scans.

    Returns
    -------
    Each stage's own metrics, in order; the last ones are of the position.
    """
    network.eval()
    device = next(network.parameters()).device
    numbers = [torch.tensor([i]) for i in range(processes.rank, len(scans.ids), processes.size)]
    scored = []
    for number, images in zip(numbers, scans.batches(numbers), strict=True):
        predictions = predict(network, stages, images.to(device), sigmas_voxels)
        scored.append(score(predictions, scans.points[number].to(device), number, "kl"))
    return metrics_of_stages(scored, len(stages), scans, processes)
