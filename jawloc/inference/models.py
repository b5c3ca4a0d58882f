"""Model files -> locators: jawloc's own, and bare weights of the lab's network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from jawloc.errors import InputError
from jawloc.geometry import Shape
from jawloc.inference.locator import FORMATS, Localisation, Locator, load_locator
from jawloc.training.checkpoint import read_weights_file
from jawloc.training.intensity import IntensityConfig
from jawloc.training.network import build_network
from jawloc.training.stages import NetworkConfig

# The sigma at which the lab's schedule ends, in downsampled voxels.
LAB_SIGMA_VOXELS = 1.0


@dataclass(frozen=True)
class ModelOptions:
    """What a user asks of a model; None or empty: whatever the model has."""

    network: str | None = None
    downsampled_size: Shape | None = None
    objects: tuple[str, ...] = ()

    def select(self, found: Sequence[Localisation]) -> list[Localisation]:
        """Return the objects that are asked for, in the order asked."""
        if not self.objects:
            return list(found)
        by_name = {one.object_name: one for one in found}
        return [by_name[name] for name in self.objects]


def load_model(path: Path, model_options: ModelOptions, device: str = "cpu") -> Locator:
    """Load a locator, or build one of bare weights, and see that it is what is asked for.

    A file that jawloc wrote says all by itself. Of bare weights (a state dict, as the lab saves
    them) the user must say network and grid; grey values go in as they are, as the lab trained.

    Raises
    ------
    InputError
        No such file, a file that isn't a model or holds code, or one of another network or grid, or
        without the objects, that are asked for.
    """
    content = read_weights_file(path)
    if content.get("format") in FORMATS:
        locator = load_locator(path, device)
        _refuse_other(path.name, locator, model_options)
        return locator
    if not content or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise InputError(
            f"{path.name}: a model must be a jawloc locator or bare weights; this file holds "
            f"{content.get('format', 'something else')}"
        )
    return _from_bare_weights(path.name, content, model_options, device)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_other(name: str, locator: Locator, model_options: ModelOptions) -> None:
    has: Any = locator.network_config.name
    if model_options.network not in (None, has):
        raise InputError(
            f"{name}: --network asks for {model_options.network}; the model is a {has}"
        )
    if model_options.downsampled_size not in (None, tuple(locator.downsampled_size)):
        raise InputError(
            f"{name}: --downsampled-size asks for {_times(model_options.downsampled_size)}; the "
            f"model's grid is {_times(locator.downsampled_size)}"
        )
    for wanted in model_options.objects:
        if wanted not in locator.objects:
            raise InputError(
                f"{name}: --object must name what the model finds ({', '.join(locator.objects)}); "
                f"received {wanted!r}"
            )


def _from_bare_weights(
    name: str, weights: dict[str, Any], model_options: ModelOptions, device: str
) -> Locator:
    if model_options.network is None or model_options.downsampled_size is None:
        raise InputError(
            f"{name}: bare weights don't say which network and grid they need; if they are the "
            f"lab's, add --network attention-unet --downsampled-size Z,Y,X"
        )
    if model_options.network != "attention-unet":
        raise InputError(
            f"{name}: bare weights can only be an attention-unet's; received --network "
            f"{model_options.network}"
        )
    config = replace(NetworkConfig(), name="attention-unet").for_grid(
        model_options.downsampled_size
    )
    objects = model_options.objects or ("jaw",)
    network = build_network(config, len(objects))
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            f"{name}: the weights must be those of the lab's attention U-Net with an output for "
            f"each of {len(objects)} object(s); they aren't"
        ) from error
    return Locator(
        networks=(network.eval().to(device),),
        network_config=config,
        downsampled_size=model_options.downsampled_size,
        intensity=IntensityConfig(rule="raw"),
        objects=dict.fromkeys(objects),
        sigma_voxels=((LAB_SIGMA_VOXELS,),),
        test_time_augmentation=False,  # as their own script looked at scans
    )


def _times(size: Sequence[int] | None) -> str:
    return "×".join(str(n) for n in size or ())
