"""Settings that are each valid but not together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from jawloc.config.keys import MASK_SUPERVISION, OBJECTS, Sections
from jawloc.config.sigmas import Mistake, sigma_mistakes
from jawloc.heatmaps.curriculum import CurriculumConfig

OBJECT_NAME = re.compile(r"[\w .-]+")  # the characters that MLflow accepts in a metric's name


def combined_mistakes(config: Sections) -> Iterator[Mistake]:
    """Yield each rule that decided settings break: their dotted keys, and the sentence."""
    for sentence in _object_mistakes(config.cache.objects):
        yield (OBJECTS,), f"{OBJECTS}: {sentence}"
    yield from sigma_mistakes(config.curriculum, config.network)
    yield from _threshold_mistakes(config.curriculum, config.training.loss)
    intensity, changes, network = config.intensity, config.augmentation, config.network
    if intensity.low >= intensity.high:
        yield (
            ("intensity.low", "intensity.high"),
            f"intensity.low must be below intensity.high; received {intensity.low:g} and "
            f"{intensity.high:g}",
        )
    gamma, offset, noise = changes.gamma, changes.offset, changes.noise
    if intensity.rule == "raw" and changes.enabled and (gamma or offset or noise):
        yield (
            ("intensity.rule",),
            f"intensity.rule raw needs augmentation.gamma, offset and noise of 0, which are shares "
            f"of a grey range that raw values don't have; received {gamma:g}, {offset:g} and "
            f"{noise:g}",
        )
    if network.name != "unet" and network.coarse != 1:
        yield (
            ("network.coarse",),
            f"network.coarse must be 1 (or auto) with network.name {network.name}, which has one "
            f"stage; received {network.coarse}",
        )
    stride, window = network.heatmap_stride, network.window
    if network.coarse != 1 and window != "auto" and any(n % stride for n in window):
        yield (
            ("network.window", "network.stride"),
            f"network.window must be whole heatmap voxels along each axis, which are {stride} long "
            f"(network.stride); received {list(window)}",
        )
    if network.mask_supervision is True and network.name != "unet":
        yield (
            (MASK_SUPERVISION, "network.name"),
            f"{MASK_SUPERVISION} must be false (or auto) with network.name {network.name}, whose "
            f"only outputs are heatmaps; received true",
        )
    if not network.channels:
        yield ("network.channels",), "network.channels must name at least one level; received []"


def _object_mistakes(objects: Mapping[str, Sequence[int] | None]) -> Iterator[str]:
    if len(objects) == 1:
        return
    names: dict[frozenset[int] | None, str] = {}
    for name, values in objects.items():
        if not OBJECT_NAME.fullmatch(name):
            yield (
                f"where there are several, their metrics and pictures are named after them, so a "
                f"name must consist of letters, digits, spaces and _ . -; received {name!r}"
            )
        if name == "coarse":  # val_error_coarse_voxels and the like are the coarse stage's
            yield (
                f"where there are several, none may be called coarse, as that stands for a stage "
                f"of the network in the metrics' names; received {name!r}"
            )
        twin = names.setdefault(None if values is None else frozenset(values), name)
        if twin != name:
            yield (
                f"two objects must differ in their label values; {twin!r} and {name!r} both have "
                f"{'every label' if values is None else list(values)}"
            )


def _threshold_mistakes(curriculum: CurriculumConfig, loss: str) -> Iterator[Mistake]:
    limit = CurriculumConfig.uniform_map_losses.get(loss)
    if curriculum.trigger == "loss" and limit is not None and curriculum.threshold >= limit:
        yield (
            ("curriculum.threshold", "curriculum.trigger", "loss"),
            f"curriculum.threshold must be below {limit:g} with curriculum.trigger loss and loss "
            f"{loss}, as even a heatmap without a peak has a smaller loss; received "
            f"{curriculum.threshold:g}",
        )
