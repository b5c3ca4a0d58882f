"""What a model's file must hold: checked before anything is built from it or computed with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, TypeAdapter
from torch import nn

from jawloc.inference.out_of_distribution import PROFILE_BINS
from jawloc.inference.quality import Calibration
from jawloc.training.intensity import IntensityConfig
from jawloc.training.stages import NetworkConfig

MOST_VOXELS = 2**28  # of a model's grid, which has to be in memory as a whole: 32 times 512x128x128

# What files of jawloc 0.1.0 may lack
OF_0_1_0 = {"crop_size": None, "flipped_axes": (), "test_time_augmentation": True}

_Length = Annotated[int, Field(ge=1)]
_Shape = tuple[_Length, _Length, _Length]
_LabelValue = Annotated[int, Field(ge=1, le=255)]
_Sigma = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_TYPES: dict[str, TypeAdapter[Any]] = {
    "downsampled_dicom_size": TypeAdapter(_Shape),
    "crop_size": TypeAdapter(_Shape | None),
    "objects": TypeAdapter(
        Annotated[dict[str, list[_LabelValue] | None], Field(min_length=1, max_length=1000)]
    ),
    "sigma_voxels": TypeAdapter(list[list[_Sigma]]),
    "flipped_axes": TypeAdapter(list[Literal["z", "y", "x"]]),
    "test_time_augmentation": TypeAdapter(bool),
    "jawloc_version": TypeAdapter(str),
}


def check_content(
    values: Mapping[str, Any], network: NetworkConfig, intensity: IntensityConfig
) -> None:
    """Raise ValueError (of pydantic) if a value of a model's file is not of its type or range."""
    for name, adapter in _TYPES.items():
        adapter.validate_python(values[name])
    if math.prod(values["downsampled_dicom_size"]) > MOST_VOXELS:
        raise ValueError(f"a grid of more than {MOST_VOXELS} voxels")
    TypeAdapter(NetworkConfig).validate_python(asdict(network))
    TypeAdapter(IntensityConfig).validate_python(asdict(intensity))


def check_calibration(
    calibration: Calibration, objects: Sequence[str], shape: Sequence[int]
) -> None:
    """Raise ValueError if a calibration doesn't fit a model's objects and grid (z, y, x)."""
    every = [calibration.scans.ranges, *(one.ranges for one in calibration.objects.values())]
    for one in (one for ranges in every for one in ranges.values()):
        TypeAdapter(type(one)).validate_python(asdict(one))
    for known in (one.conformal for one in calibration.objects.values()):
        if known is not None:
            TypeAdapter(type(known)).validate_python(asdict(known))
    bins = [min(PROFILE_BINS, n) for n in shape]
    profiles, upright = calibration.scans.profiles, calibration.scans.upright
    if [profile.shape for profile in profiles] != [(2, n) for n in bins] or [
        n // 2 * 2 if direction is None else len(direction)
        for n, direction in zip(bins, upright, strict=True)
    ] != [n // 2 * 2 for n in bins]:
        raise ValueError("profiles of another grid")
    known_directions = [direction for direction in upright if direction is not None]
    if not all(_is_finite(values) for values in (*profiles, *known_directions)):
        raise ValueError("profiles that aren't numbers")
    if not set(objects) <= set(calibration.objects):
        raise ValueError("an object without a reference")


def _is_finite(values: np.ndarray) -> bool:
    return values.dtype.kind in "fiu" and bool(np.isfinite(values).all())


def coarse_stride_of(weights: Mapping[str, torch.Tensor]) -> Literal["auto", 1, 2, 4]:
    """Return the stride of a network's coarse stage, which earlier files don't state otherwise.

    A stem has a convolution with a kernel of 4 for each halving, or one of 3 that keeps the size.
    """
    stem = [value for key, value in weights.items() if key.startswith("parts.0.stem.")]
    kernels = [value.shape[-1] for value in stem if value.ndim == 5]
    if not kernels:
        return "auto"
    return 1 if kernels == [3] else 2 if kernels == [4] else 4


def check_weights(
    state_dicts: Sequence[Mapping[str, torch.Tensor]], build: Callable[[], nn.Module]
) -> None:
    """Raise ValueError if weights don't fit the network, or aren't numbers.

    The network is built without memory for its weights, since a damaged file may ask for any size.
    """
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in build().state_dict().items()}
    for weights in state_dicts:
        if {name: tensor.shape for name, tensor in weights.items()} != shapes:
            raise ValueError("weights of another network")
        refuse_infinite(weights)


def refuse_infinite(weights: Mapping[str, torch.Tensor]) -> None:
    """Raise ValueError if a weight is NaN or infinite: a network of such finds nothing."""
    for name, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} is not finite")
