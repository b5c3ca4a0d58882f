"""fit(): the training loop."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from jawloc.heatmaps.metrics import HeatmapMetrics


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch gave; `sigma_voxels` is the sigma that it trained at."""

    epoch: int  # counted from 1
    sigma_voxels: float  # in voxels of the downsampled grid
    learning_rate: float  # at the end of the epoch
    train: HeatmapMetrics
    val: HeatmapMetrics
    seconds: float

    def flat(self) -> dict[str, float]:
        """Return every number under its flat name (`train_kl_nats`, `val_error_mm`, ...)."""
        row = {
            "epoch": self.epoch,
            "sigma_voxels": self.sigma_voxels,
            "learning_rate": self.learning_rate,
            "seconds": self.seconds,
        }
        for split, metrics in (("train", self.train), ("val", self.val)):
            row |= {f"{split}_{k}": v for k, v in asdict(metrics).items() if v is not None}
        return row
