"""What a training step needs beside its gradient: the rate's course, the average of weights."""

from __future__ import annotations

import math

import torch
from torch import nn

ONE_CYCLE_RISE = 0.25  # share of all steps
ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1 / 250_000  # shares of the highest rate


def one_cycle(share: float) -> float:
    """Return the learning rate, as a share of the highest, when a share of all steps is done.

    It rises and falls in half-waves of a cosine. Smith and Topin 2018, arXiv 1708.07120.
    """
    if share < ONE_CYCLE_RISE:
        start, progress = ONE_CYCLE_START, share / ONE_CYCLE_RISE
    else:
        start, progress = ONE_CYCLE_END, (1 - share) / (1 - ONE_CYCLE_RISE)
    return start + (1 - start) * (1 - math.cos(math.pi * progress)) / 2


@torch.no_grad()
def move_average(average: nn.Module, network: nn.Module, weight: float) -> None:
    """Move averaged weights towards the network's by a share (exponential moving average).

    BatchNorm's statistics are averaged too: those of the last step alone belong to other weights.
    """
    averages = (*average.parameters(), *average.buffers())
    tensors = (*network.parameters(), *network.buffers())
    for averaged, present in zip(averages, tensors, strict=True):
        if averaged.is_floating_point():
            averaged.lerp_(present, weight)
        else:  # counters
            averaged.copy_(present)
