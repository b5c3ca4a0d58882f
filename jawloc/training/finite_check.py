"""Numbers that must stay finite while training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from jawloc.errors import TrainingError


class FiniteCheck:
    """Sees to it that losses and gradients stay finite; a bad one would spoil every weight."""

    def __init__(self, epoch: int, scan_ids: Sequence[str], device: torch.device) -> None:
        self._epoch, self._ids, self._device = epoch, scan_ids, device
        self._steps: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, batch: Tensor, loss: Tensor, gradient_norm: Tensor) -> None:
        """Take a step's numbers; on a CPU look at them at once."""
        self._steps.append((batch, loss, gradient_norm))
        # on a GPU a look waits for all that is under way, so there is one an epoch
        if self._device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Look at the steps that were not looked at yet.

        Raises
        ------
        TrainingError
            About the first step that went wrong, with the epoch and the scans of its batch.
        """
        for batch, *numbers in self._steps:
            for what, value in zip(("loss", "gradient"), numbers, strict=True):
                if not torch.isfinite(value):
                    names = ", ".join(self._ids[i] for i in batch)
                    raise TrainingError(
                        f"epoch {self._epoch}: the {what} must stay a finite number, but is "
                        f"{value.item()} in the batch of {names}; a lower learning_rate often helps"
                    )
        self._steps.clear()
