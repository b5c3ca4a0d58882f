"""What a pass over scans keeps of each step."""

from __future__ import annotations

import pytest
import torch

from jawloc.training.looks import Seen
from jawloc.training.scoring import score

POINTS = torch.tensor([[[3.0, 4.0, 5.0]]])


@pytest.mark.parametrize("loss", ["kl", "dice", "mse"])
def test_a_scored_step_lets_go_of_its_graph(loss):
    """Regression: an epoch's memory grew by every step's maps, which the graph holds."""
    scale = torch.tensor(1.0, requires_grad=True)
    seen = Seen(torch.randn(1, 1, 8, 8, 8) * scale, torch.zeros(1, 1, 3), 1, 2.0, (8, 8, 8))
    scored = score([seen], POINTS, torch.tensor([0]), loss)
    kept = scored.detached()
    numbers = {
        "loss": kept.loss,
        "last": kept.last_loss,
        "predicted": kept.predicted,
        **vars(kept.scores),
    }
    assert [name for name, values in numbers.items() if values.grad_fn is not None] == []
    assert torch.equal(kept.loss, scored.loss)
    assert torch.equal(kept.scores.dice, scored.scores.dice)
    scored.loss.sum().backward()
    assert scale.grad is not None and scale.grad != 0
