"""Which device the networks run on."""

from __future__ import annotations

import warnings

import torch

from jawloc.errors import InputError


def choose_device(name: str) -> torch.device:
    """Return the device of the setting `auto`, `cpu`, `cuda`, `cuda:1`, ...

    A GPU that the machine doesn't have is replaced by the CPU with a warning. Raises InputError for
    any other name.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device: must be auto, cpu, cuda or cuda:N; received {name!r}")
    # of a GPU whose driver PyTorch can't use, only the count knows
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= present:
        warnings.warn(
            f"device {name!r} is set, but this machine has {present or 'no'} CUDA GPUs: "
            "using the CPU",
            stacklevel=2,
        )
        return torch.device("cpu")
    return device


def choose_rank_device(name: str, world_size: int) -> torch.device:
    """Return `choose_device`; raise InputError for a GPU's number where each process takes one."""
    device = choose_device(name)
    if device.index is not None and world_size > 1:
        raise InputError(
            "device: with torchrun every process takes a GPU of its own, so it must be auto, cpu "
            f"or cuda; received {name!r}"
        )
    return device
