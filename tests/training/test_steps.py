"""The course of the learning rate over all steps."""

from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from jawloc.training.steps import one_cycle


def test_one_cycle_is_pytorchs():
    steps = 10_000
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = OneCycleLR(optimizer, max_lr=1.0, total_steps=steps + 1, pct_start=0.25)
    for step in range(steps):
        if step % 500 == 0:
            # its rise ends a step earlier
            assert one_cycle(step / steps) == pytest.approx(schedule.get_last_lr()[0], abs=2e-3)
        optimizer.step()
        schedule.step()


def test_one_cycle_begins_and_ends_low_and_is_highest_at_a_quarter():
    assert one_cycle(0) == pytest.approx(0.04)
    assert one_cycle(0.25) == pytest.approx(1)
    assert one_cycle(1) == pytest.approx(4e-6)
