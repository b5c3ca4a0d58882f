"""What a pass over scans keeps of each step."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from jawloc.training.looks import Seen
from jawloc.training.scoring import score

POINTS = torch.tensor([[[3.0, 4.0, 5.0]]])


@pytest.mark.parametrize("loss", ["kl", "dice", "mse"])
def test_a_scored_step_does_not_hold_its_maps(loss):
    """Regression: an epoch's memory grew by every step's heatmaps, a megabyte a scan."""
    scale = torch.tensor(1.0, requires_grad=True)
    logits = torch.randn(1, 1, 8, 8, 8) * scale
    seen = Seen(logits, torch.zeros(1, 1, 3), 1, 2.0)
    scored = score([seen], POINTS, torch.tensor([0]), loss)
    scored.loss.sum().backward()
    kept, map_of_step = scored.detached(), weakref.ref(logits)
    assert scale.grad is not None and scale.grad != 0
    assert torch.equal(kept.loss, scored.loss)
    assert torch.equal(kept.scores.dice, scored.scores.dice)
    del logits, seen, scored
    gc.collect()
    assert map_of_step() is None
