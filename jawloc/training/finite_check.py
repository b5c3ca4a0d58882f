"""Losses and gradients must stay finite."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jawloc.errors import TrainingError


class FiniteCheck:
    """Stops training at a loss or gradient that is not finite, which would spoil every weight."""

    def __init__(self, epoch: int, scan_ids: Sequence[str], device: torch.device) -> None:
        self._epoch, self._ids, self._device = epoch, scan_ids, device
        self._steps: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, batch: Tensor, loss: Tensor, gradient_norm: Tensor) -> None:
        """Keep a step's numbers for `check`; on a CPU check them at once."""
        self._steps.append((batch, loss, gradient_norm))
        if self._device.type == "cpu":  # on a GPU, reading a number waits for all steps under way
            self.check()

    def check(self) -> None:
        """Raise TrainingError for the first number that is not finite since the last check."""
        for batch, *numbers in self._steps:
            for what, value in zip(("loss", "gradient"), numbers, strict=True):
                if not torch.isfinite(value):
                    names = ", ".join(self._ids[i] for i in batch)
                    raise TrainingError(
                        f"epoch {self._epoch}: the {what} must stay a finite number, but is "
                        f"{value.item()} in the batch of {names}; a lower learning_rate often helps"
                    )
        self._steps.clear()
