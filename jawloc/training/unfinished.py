"""An epoch that was stopped after some of its batches, as a checkpoint keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from jawloc.heatmaps.losses import HeatmapScores
from jawloc.training.scoring import BatchScores, StageScores


@dataclass
class UnfinishedEpoch:
    """The batches of an epoch, numbers of scans, and what the first ones gave."""

    batches: tuple[Tensor, ...]
    done: int = 0  # batches that were trained on
    scores: list[BatchScores] = field(default_factory=list)
    seconds: float = 0.0  # before training was stopped

    def to_plain(self) -> dict[str, Any]:
        """Return tensors and plain values only."""
        return {**asdict(self), "batches": list(self.batches)}


def from_plain(content: Mapping[str, Any], device: torch.device) -> UnfinishedEpoch:
    """Return the epoch that `to_plain` described, with its scores on the network's device."""
    scores = [
        BatchScores(
            batch["scans"],
            batch["truth"].to(device),
            tuple(
                StageScores(
                    stage["predicted"].to(device),
                    HeatmapScores(**{k: v.to(device) for k, v in stage["scores"].items()}),
                    stage["loss"].to(device),
                )
                for stage in batch["stages"]
            ),
        )
        for batch in content["scores"]
    ]
    return UnfinishedEpoch(tuple(content["batches"]), content["done"], scores, content["seconds"])
