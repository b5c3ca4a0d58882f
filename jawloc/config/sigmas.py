"""The sigmas that each stage of a network is trained at, decided and checked in advance.

A network of one stage is trained at the sigmas that the user names. In a network of two stages, the
coarse stage's heatmap voxels may be too long for the narrow sigmas, and the fine stage's window too
small for the wide ones: a sigma left to "auto" is moved to what the stage can represent, with a
note on the terminal; one that the user set is refused. All sigmas are in downsampled voxels.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from jawloc.config.keys import INITIAL_SIGMA
from jawloc.heatmaps.curriculum import CurriculumConfig
from jawloc.training.stages import NetworkConfig

Mistake = tuple[tuple[str, ...], str]  # dotted keys, and the sentence about them

# Least sigma, in heatmap voxels, that still lets a position be decoded within a voxel.
SIGMA_PER_STRIDE = 0.25
# Least sigma, in its heatmap voxels, of a coarse stage, which only places the window.
COARSE_SIGMA_PER_STRIDE = 0.375
# Sigma, as a share of its window, that a fine stage starts from; and the largest share with which
# the Gaussian fits into the window wherever the point lies in it.
FINE_SIGMA_PER_WINDOW = 1 / 16
MOST_SIGMA_PER_WINDOW = 1 / 8

SHRINKING = ("threshold", "trigger", "patience")  # rules, which need a sigma that shrinks
STAGE_SIGMAS = ("coarse_initial_sigma", "coarse_minimum_sigma", "fine_initial_sigma")


def decide_sigmas(curriculum: CurriculumConfig, network: NetworkConfig) -> CurriculumConfig:
    """Return the curriculum with each "auto" decided for a network that is decided itself."""
    minimum = curriculum.minimum_sigma_voxels
    if curriculum.initial_sigma_voxels == "auto":
        curriculum = replace(curriculum, initial_sigma_voxels=minimum)
    if len(network.stages()) == 1:
        return curriculum
    voxel, window = _lengths(network)
    initial = curriculum.first_sigma_voxels
    coarse, fine = curriculum.coarse_initial_sigma_voxels, curriculum.fine_initial_sigma_voxels
    coarse_minimum = curriculum.coarse_minimum_sigma_voxels
    if coarse_minimum == "auto":
        coarse_minimum = max(minimum, COARSE_SIGMA_PER_STRIDE * voxel)
    if coarse == "auto":
        coarse = max(initial, coarse_minimum)
    if fine == "auto":
        fine = max(minimum, min(initial, FINE_SIGMA_PER_WINDOW * window))
    return replace(
        curriculum,
        coarse_initial_sigma_voxels=coarse,
        coarse_minimum_sigma_voxels=coarse_minimum,
        fine_initial_sigma_voxels=fine,
    )


def sigma_mistakes(curriculum: CurriculumConfig, network: NetworkConfig) -> Iterator[Mistake]:
    """Yield each rule that the sigmas break; curriculum and network are both decided."""
    initial, minimum = curriculum.first_sigma_voxels, curriculum.minimum_sigma_voxels
    if minimum > initial:
        yield (
            (INITIAL_SIGMA, "curriculum.minimum_sigma"),
            f"curriculum.minimum_sigma must not exceed {INITIAL_SIGMA}; received {minimum:g} and "
            f"{initial:g}",
        )
    stride = network.heatmap_stride
    if minimum < SIGMA_PER_STRIDE * stride:
        yield (
            ("curriculum.minimum_sigma",),
            f"curriculum.minimum_sigma must be at least {SIGMA_PER_STRIDE * stride:g} with "
            f"network.stride {stride}, or positions can't be told apart within a heatmap voxel; "
            f"received {minimum:g}",
        )
    if len(network.stages()) == 2:
        yield from _stage_mistakes(curriculum, network)
        return
    for name in STAGE_SIGMAS:
        if (value := vars(curriculum)[f"{name}_voxels"]) != "auto":
            yield (
                (f"curriculum.{name}",),
                f"curriculum.{name} must be auto with a network of one stage (network.coarse 1), "
                f"which goes from {INITIAL_SIGMA} to curriculum.minimum_sigma; received {value:g}",
            )


def _stage_mistakes(curriculum: CurriculumConfig, network: NetworkConfig) -> Iterator[Mistake]:
    sigmas, (voxel, window) = vars(curriculum), _lengths(network)
    minimum, coarse_minimum = sigmas["minimum_sigma_voxels"], sigmas["coarse_minimum_sigma_voxels"]
    least, most = COARSE_SIGMA_PER_STRIDE * voxel, MOST_SIGMA_PER_WINDOW * window
    learnable = f" where the coarse stage's heatmap voxels are {voxel} long"
    fits = f" with a network.window of {window}, or its heatmaps don't fit into the window"
    # setting, rule, limit, its reason, and the key that it comes from
    for name, rule, limit, reason, cause in (
        ("minimum_sigma", "at most", most, fits, "network.window"),
        ("coarse_minimum_sigma", "at least", least, learnable, "network.coarse"),
        ("coarse_initial_sigma", "at least", least, learnable, "network.coarse"),
        ("coarse_initial_sigma", "at least", coarse_minimum, "", "curriculum.coarse_minimum_sigma"),
        ("fine_initial_sigma", "at most", most, fits, "network.window"),
        ("fine_initial_sigma", "at least", minimum, "", "curriculum.minimum_sigma"),
    ):
        key, value = f"curriculum.{name}", sigmas[f"{name}_voxels"]
        if value > limit if rule == "at most" else value < limit:
            why = reason or f" ({cause})"
            causes = (cause, "network.coarse_stride") if cause == "network.coarse" else (cause,)
            yield (key, *causes), f"{key} must be {rule} {limit:g}{why}; received {value:g}"


def tell_sigmas(
    curriculum: CurriculumConfig, network: NetworkConfig, requested: Mapping[str, Any]
) -> None:
    """Print a note if "auto" gave a stage another sigma than the user's; both are decided.

    Likewise, if the user set a rule of shrinking and sigma shrinks in no stage. `requested` are the
    settings as the user gave them; a file that jawloc wrote has every rule.
    """
    rules = [f"curriculum.{name}" for name in SHRINKING if f"curriculum.{name}" in requested]
    stages = curriculum.per_stage(len(network.stages()))
    if 0 < len(rules) < len(SHRINKING) and not any(stage.shrinks for stage in stages):
        print(
            f"note: without effect: {' and '.join(rules)}; sigma begins at its end, and shrinks "
            f"only from a wider {INITIAL_SIGMA}, such as the lab's 8",
            file=sys.stderr,
        )
    begins_wide = requested.get(INITIAL_SIGMA, "auto") != "auto"
    if len(stages) == 1 or not (begins_wide or "curriculum.minimum_sigma" in requested):
        return
    voxel, window = _lengths(network)
    coarse = f"the coarse stage's heatmap voxels are {voxel} long"
    fine = f"the fine stage's window is {window} long"
    initial = (INITIAL_SIGMA, curriculum.first_sigma_voxels)
    minimum = ("curriculum.minimum_sigma", curriculum.minimum_sigma_voxels)
    notes = []
    for name, (key, sigma), reason in zip(
        STAGE_SIGMAS, (initial, minimum, initial), (coarse, coarse, fine), strict=True
    ):
        undecided: dict[str, Any] = {f"{name}_voxels": "auto"}
        auto = vars(decide_sigmas(replace(curriculum, **undecided), network))[f"{name}_voxels"]
        if key == INITIAL_SIGMA and not begins_wide:
            continue  # it is the minimum sigma, which is noted itself
        if vars(curriculum)[f"{name}_voxels"] == auto != sigma:
            notes.append(f"curriculum.{name} is {auto:g} instead of {key} {sigma:g} ({reason})")
    if notes:
        print(f"note: sigmas, in downsampled voxels: {', '.join(notes)}", file=sys.stderr)


def _lengths(network: NetworkConfig) -> tuple[int, int]:
    """Return the length of the coarse stage's heatmap voxels and of the fine stage's window."""
    coarse, fine = network.stages()
    return coarse.heatmap_stride, min(fine.window or ())
