"""What a pass over scans says of the network: scores, positions, and a split's metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from jawloc.heatmaps.losses import HeatmapScores, LossName
from jawloc.heatmaps.metrics import HeatmapMetrics, HeatmapSample, summarise
from jawloc.heatmaps.target import are_present, with_stand_ins
from jawloc.training.dataset import ScanTensors
from jawloc.training.looks import Seen, look
from jawloc.training.network import Look
from jawloc.training.team import ALONE, Team


@dataclass(frozen=True)
class Scored:
    """Some scans as the network saw them; tensors stay on its device until `samples` asks.

    Attributes
    ----------
    scans : tensor of int64, shape (batch,)
        Which scans of the split, on the CPU.
    predicted, truth : tensors, shape (batch, object, 3), image voxels
        The truth of an object that a scan lacks is NaN.
    scores : HeatmapScores
        Of the last look, from which the position is read; of a missing object they mean nothing.
    loss : tensor, shape (batch, object)
        What is trained on: the mean over looks; 0, without a gradient, for a missing object.
    last_loss : tensor, shape (batch, object)
        The same of the last look alone, from which the position is read.
    """

    scans: Tensor
    predicted: Tensor
    truth: Tensor
    scores: HeatmapScores
    loss: Tensor
    last_loss: Tensor

    def detached(self) -> Scored:
        """Return the numbers without what led to them: every step's maps would pile up."""
        scores = HeatmapScores(
            **{name: value.detach() for name, value in vars(self.scores).items()}
        )
        return replace(
            self, scores=scores, loss=self.loss.detach(), last_loss=self.last_loss.detach()
        )


def score(seen: Sequence[Seen], points: Tensor, scans: Tensor, loss: LossName) -> Scored:
    """Compare what each look says of a batch with its true points (batch, object, 3; or NaN)."""
    scores = [view.score(with_stand_ins(points)) for view in seen]
    losses = torch.stack([each.loss(loss) for each in scores])
    losses = torch.where(are_present(points), losses, 0.0)
    found = seen[-1].decode().points
    return Scored(scans, found, points, scores[-1], losses.mean(0), losses[-1])


def samples(scored: Sequence[Scored], scans: ScanTensors, team: Team) -> list[HeatmapSample]:
    """Return what each scan contributes, of all processes, in the order of the split."""
    own: list[tuple[int, HeatmapSample]] = []
    for part in scored:
        numbers = [
            values.double().cpu().numpy()
            for values in (part.scores.kl_nats, part.scores.dice, part.scores.mse)
        ]
        predicted, truth = part.predicted.cpu().numpy(), part.truth.cpu().numpy()
        for i, scan in enumerate(part.scans.tolist()):
            kl, dice, mse = (values[i] for values in numbers)
            grid = scans.grids[scan]
            own.append((scan, HeatmapSample(kl, dice, mse, predicted[i], truth[i], grid)))
    return [sample for _, sample in sorted(team.gather(own), key=lambda pair: pair[0])]


def mean_loss(scored: Sequence[Scored], team: Team) -> float:
    """Return the mean over the objects of all scans, of all processes, of the last look's loss.

    The curriculum goes by this one: it says what has been learned of the position.
    """
    own: list[float] = []
    if scored:
        present = are_present(torch.cat([part.truth for part in scored]))
        own = torch.cat([part.last_loss for part in scored])[present].tolist()
    every = team.gather(own)
    return sum(every) / len(every)


@torch.no_grad()
def evaluate(
    network: nn.Module,
    scans: ScanTensors,
    sigma_voxels: float,
    looks: Sequence[Look],
    team: Team = ALONE,
) -> HeatmapMetrics:
    """Score a network on scans, one at a time, without dropout and without augmentation.

    Parameters
    ----------
    sigma_voxels : float
        The curriculum's sigma, in image voxels.
    team : Team
        The processes that share the scans out; each returns the metrics of all scans.
    """
    network.eval()
    device = next(network.parameters()).device
    numbers = [torch.tensor([i]) for i in range(team.rank, len(scans.ids), team.size)]
    scored = []
    for number, images in zip(numbers, scans.batches(numbers), strict=True):
        seen = look(network, looks, images.to(device), sigma_voxels)
        scored.append(score(seen, scans.points[number].to(device), number, "kl"))
    return summarise(samples(scored, scans, team), scans.object_names)
