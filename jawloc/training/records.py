"""The numbers of each epoch of training."""

from __future__ import annotations

from dataclasses import dataclass

from jawloc.heatmaps.metrics import HeatmapMetrics


@dataclass(frozen=True)
class StageRecord:
    """One stage's numbers of one epoch."""

    name: str  # "coarse" or "fine"; empty for the only stage
    sigma_voxels: float  # of the rendered targets, in voxels of the downsampled grid
    train: HeatmapMetrics
    val: HeatmapMetrics

    def flat(self) -> dict[str, float]:
        """Return the coarse stage's numbers under flat names such as `val_kl_coarse_nats`."""
        row = {}
        for split, metrics in (("train", self.train), ("val", self.val)):
            for key in ("kl_nats", "dice", "mse", "error_voxels", "error_mm"):
                what, _, unit = key.partition("_")
                if (value := getattr(metrics, key)) is not None:
                    row["_".join(filter(None, (split, what, self.name, unit)))] = value
        return row


@dataclass(frozen=True)
class EpochRecord:
    """The numbers of one epoch; sigma and metrics are of the stage that gives the position."""

    epoch: int  # counted from 1
    sigma_voxels: float  # of the rendered targets, in voxels of the downsampled grid
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

    def __str__(self) -> str:
        sigmas = " and ".join(f"{sigma:.2f}" for sigma in self.sigmas_voxels)
        return (
            f"sigma {sigmas}, KL {self.train.kl_nats:.3f} (validation {self.val.kl_nats:.3f}), "
            f"error {self.val.error_voxels:.2f} voxels"
        )

    def flat(self) -> dict[str, float]:
        """Return every number under its flat name (`train_kl_nats`, `val_error_mm`, ...).

        Several objects add their own (`train_kl_<object>_nats`, `val_error_<object>_mm`), two
        stages their sigmas (`sigma_coarse_voxels`) and the coarse stage's scores.
        """
        keys = ("epoch", "sigma_voxels", "learning_rate", "seconds")
        row: dict[str, float] = {key: getattr(self, key) for key in keys}
        for split, metrics in (("train", self.train), ("val", self.val)):
            row |= {f"{split}_{key}": value for key, value in metrics.flat().items()}
        if self.earlier_stages:
            row |= {f"sigma_{stage.name}_voxels": stage.sigma_voxels for stage in self.stages}
        for stage in self.earlier_stages:
            row |= stage.flat()
        return row
