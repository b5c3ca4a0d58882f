"""Model files -> locators: jawloc's own, and bare weights of the lab's network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jawloc.errors import InputError
from jawloc.geometry import Shape
from jawloc.inference.locator import FORMATS, Localisation, Locator, load_locator
from jawloc.inference.model_content import refuse_infinite
from jawloc.training.checkpoint import read_weights_file
from jawloc.training.intensity import IntensityConfig
from jawloc.training.network import build_network
from jawloc.training.stages import NetworkConfig

LAB_SIGMA_VOXELS = 1.0  # at which the lab's schedule ends, in downsampled voxels


@dataclass(frozen=True)
class ModelOptions:
    """What a user requires of a model; None or empty: whatever the model has."""

    network: str | None = None
    downsampled_size: Shape | None = None
    objects: tuple[str, ...] = ()

    def select(self, found: Sequence[Localisation]) -> list[Localisation]:
        """Return the required objects, in the order of `objects`."""
        by_name = {one.object_name: one for one in found}
        return [by_name[name] for name in self.objects or by_name]


def load_model(path: Path, model_options: ModelOptions, device: str = "cpu") -> Locator:
    """Load a locator that fits the options, or build one of bare weights as the lab saves them.

    Bare weights hold neither network nor grid, so the options must; grey values go in unscaled, as
    the lab trained. An InputError is raised for a file that is missing, is no model or holds code,
    and for a model that doesn't fit the options.
    """
    content = read_weights_file(path)
    if content.get("format") in FORMATS:
        locator = load_locator(path, device)
        _check_options(path.name, locator, model_options)
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


def _check_options(name: str, locator: Locator, options: ModelOptions) -> None:
    network: Any = locator.network_config.name
    if options.network not in (None, network):
        raise InputError(f"{name}: --network asks for {options.network}; the model is a {network}")
    size = tuple(locator.downsampled_size)
    if options.downsampled_size not in (None, size):
        wanted, own = ("×".join(map(str, n or ())) for n in (options.downsampled_size, size))
        raise InputError(f"{name}: --downsampled-size asks for {wanted}; the model's grid is {own}")
    for wanted in options.objects:
        if wanted not in locator.objects:
            raise InputError(
                f"{name}: --object must name what the model finds ({', '.join(locator.objects)}); "
                f"received {wanted!r}"
            )


def _from_bare_weights(
    name: str, weights: dict[str, Any], options: ModelOptions, device: str
) -> Locator:
    if options.network is None or options.downsampled_size is None:
        raise InputError(
            f"{name}: bare weights don't say which network and grid they need; if they are the "
            f"lab's, add --network attention-unet --downsampled-size Z,Y,X"
        )
    if options.network != "attention-unet":
        raise InputError(
            f"{name}: bare weights can only be an attention-unet's; received --network "
            f"{options.network}"
        )
    config = NetworkConfig(name="attention-unet").for_grid(options.downsampled_size)
    objects = options.objects or ("jaw",)
    network = build_network(config, len(objects))
    try:
        network.load_state_dict(weights)
        refuse_infinite(weights)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{name}: the weights must be those of the lab's attention U-Net with an output for "
            f"each of {len(objects)} object(s), and finite; they aren't"
        ) from error
    return Locator(
        networks=(network.eval().to(device),),
        network_config=config,
        downsampled_size=options.downsampled_size,
        intensity=IntensityConfig(rule="raw"),
        objects=dict.fromkeys(objects),
        sigma_voxels=((LAB_SIGMA_VOXELS,),),
        test_time_augmentation=False,  # as in the lab's script
    )
