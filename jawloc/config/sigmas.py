"""Which sigmas each stage of a network is trained at, decided and checked before anything runs.

A network of one stage is trained at the sigmas that the user names. Of two stages the coarse one's
heatmap voxels may be too long for the narrow ones, and the fine one's window too small for the wide
ones: what the user leaves to "auto" is then moved to what the stage can represent, and said; what
the user asks for is refused if it can't be had. All sigmas are in downsampled voxels.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from jawloc.heatmaps.curriculum import CurriculumConfig
from jawloc.training.network import NetworkConfig

# Narrowest Gaussian, in heatmap voxels, that a coarse stage learns: it need only tell where the
# window goes.
COARSE_SIGMA_PER_STRIDE = 0.375
# A fine stage begins at this share of its window, unless told otherwise; more than the other share
# and the Gaussian doesn't fit into the window, wherever in it the point lies.
FINE_SIGMA_PER_WINDOW = 1 / 16
MOST_SIGMA_PER_WINDOW = 1 / 8

OF_STAGES = ("coarse_initial_sigma", "coarse_minimum_sigma", "fine_initial_sigma")


def decide_sigmas(curriculum: CurriculumConfig, network: NetworkConfig) -> CurriculumConfig:
    """Return the curriculum with all that is "auto" decided for the stages of this network.

    Parameters
    ----------
    network : itself decided for a grid
    """
    if len(network.stages()) == 1:
        return curriculum
    wanted, least = curriculum.initial_sigma_voxels, curriculum.minimum_sigma_voxels
    coarse_least = curriculum.coarse_minimum_sigma_voxels
    coarse, fine = curriculum.coarse_initial_sigma_voxels, curriculum.fine_initial_sigma_voxels
    if coarse_least == "auto":
        coarse_least = max(least, _least_coarse_sigma(network))
    if coarse == "auto":
        coarse = max(wanted, coarse_least)
    if fine == "auto":
        fine = max(least, min(wanted, FINE_SIGMA_PER_WINDOW * _window(network)))
    return replace(
        curriculum,
        coarse_initial_sigma_voxels=coarse,
        coarse_minimum_sigma_voxels=coarse_least,
        fine_initial_sigma_voxels=fine,
    )


def sigma_mistake(
    curriculum: CurriculumConfig, network: NetworkConfig
) -> tuple[tuple[str, ...], str] | None:
    """Return what a stage can't be trained at: the keys that say so, and the sentence; or None.

    Parameters
    ----------
    curriculum, network : both decided
    """
    given = {key: getattr(curriculum, f"{key}_voxels") for key in OF_STAGES}
    if len(network.stages()) == 1:
        for key, value in given.items():
            if value != "auto":
                return (f"curriculum.{key}",), (
                    f"curriculum.{key} must be auto with a network of one stage (network.coarse 1)"
                    f", which goes by initial_kernel_size and curriculum.minimum_sigma; received "
                    f"{value:g}"
                )
        return None
    coarse, coarse_least, fine = given.values()
    least, most = _least_coarse_sigma(network), MOST_SIGMA_PER_WINDOW * _window(network)
    end = curriculum.minimum_sigma_voxels
    at_least = (
        f"at least {least:g} where the coarse stage's heatmap voxels are "
        f"{network.stages()[0].heatmap_stride} long"
    )
    at_most = (
        f"at most {most:g} with a network.window of {_window(network)}, or its heatmaps don't fit "
        f"into the window"
    )
    # a key, its value, whether that won't do, the rule, and the key that the rule goes by
    for key, value, wrong, rule, other in (
        ("minimum_sigma", end, end > most, at_most, "network.window"),
        ("coarse_minimum_sigma", coarse_least, coarse_least < least, at_least, "network.coarse"),
        ("coarse_initial_sigma", coarse, coarse < least, at_least, "network.coarse"),
        ("coarse_initial_sigma", coarse, coarse < coarse_least, "", "coarse_minimum_sigma"),
        ("fine_initial_sigma", fine, fine > most, at_most, "network.window"),
        ("fine_initial_sigma", fine, fine < end, "", "minimum_sigma"),
    ):
        if wrong:
            key, bound = f"curriculum.{key}", {"minimum_sigma": end}.get(other, coarse_least)
            other = other if "." in other else f"curriculum.{other}"
            rule = rule or f"at least {other}, which is {bound:g}"
            return (key, other), f"{key} must be {rule}; received {value:g}"
    return None


def describe_sigmas(curriculum: CurriculumConfig, network: NetworkConfig) -> str:
    """Say where "auto" gave a stage another sigma than the user's; nothing where it nowhere did.

    Parameters
    ----------
    curriculum, network : both decided
    """
    if len(network.stages()) == 1:
        return ""
    voxel, window = network.stages()[0].heatmap_stride, _window(network)
    coarse = f"the coarse stage's heatmap voxels are {voxel} long"
    fine = f"the fine stage's window is {window} long"
    begin = f"initial_kernel_size {curriculum.initial_sigma_voxels:g}"
    end = f"curriculum.minimum_sigma {curriculum.minimum_sigma_voxels:g}"
    users = (curriculum.initial_sigma_voxels, curriculum.minimum_sigma_voxels)
    said = []
    for key, asked, words, why in (
        ("coarse_initial_sigma", users[0], begin, coarse),
        ("coarse_minimum_sigma", users[1], end, coarse),
        ("fine_initial_sigma", users[0], begin, fine),
    ):
        name = f"{key}_voxels"
        sigma = getattr(curriculum, name)
        left: dict[str, Any] = {name: "auto"}
        auto = getattr(decide_sigmas(replace(curriculum, **left), network), name)
        if sigma != asked and sigma == auto:  # another number than auto's is the user's own
            said.append(f"curriculum.{key} is {sigma:g} in the place of {words} ({why})")
    return f"sigmas, in downsampled voxels: {', '.join(said)}" if said else ""


def tell_sigmas(curriculum: CurriculumConfig, network: NetworkConfig) -> None:
    """Say on the terminal, once a command, what `describe_sigmas` has to say."""
    if said := describe_sigmas(curriculum, network):
        print(f"note: {said}", file=sys.stderr)


def _least_coarse_sigma(network: NetworkConfig) -> float:
    return COARSE_SIGMA_PER_STRIDE * network.stages()[0].heatmap_stride


def _window(network: NetworkConfig) -> int:
    window = network.stages()[-1].window
    if window is None:
        raise ValueError("a network of one stage has no window")
    return min(window)
