"""What each setting can do in a search: make trials differ, be the same for all, or nothing.

A setting that makes no trial differ would come out as trials that are equal to the last digit, and
as a finding that it "had no effect". Every known key is in exactly one of the three tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from jawloc.config import Config
from jawloc.config.keys import INITIAL_SIGMA, NESTED
from jawloc.errors import InputError

# Trials share one cache, one split and one measure of success.
SHARED = frozenset(
    {
        *("dicom_dirs", "downsampled_dicom_size", "cache_dir", "n_workers", "objects"),
        *("validation_scans", "test_scans", "device", "cpu_threads", "memory_budget_gb"),
        *("num_epochs", "best_epoch_from", "specimen_pattern"),
    }
)

# What a trial has no part in, by key: why.
WITHOUT_EFFECT = {
    "crop_size": "crops are cut after the place is found",
    "presence_classifier.steps": "whether the object is there at all is learned after the training",
}


@dataclass(frozen=True)
class Condition:
    """What a trial's other settings must be for a setting to count."""

    words: str
    holds: Callable[[Config], bool]


def _sigma_shrinks(config: Config) -> bool:
    stages = config.curriculum.per_stage(len(config.network.stages()))
    return any(
        sigma.shrink_factor < 1 and sigma.minimum_sigma_voxels < sigma.initial_sigma_voxels
        for sigma in stages
    )


ALWAYS = Condition("", lambda _: True)
UNET = Condition("network.name unet", lambda c: c.network.name == "unet")
TWO_STAGES = Condition(
    "network.name unet and a network.coarse above 1",
    lambda c: c.network.name == "unet" and c.network.coarse != 1,
)
COOLDOWN = Condition(
    "learning_rate_schedule cooldown",
    lambda c: c.training.learning_rate_schedule == "cooldown",
)
SHRINKING = Condition(
    f"a sigma that shrinks (curriculum.shrink_factor below 1, {INITIAL_SIGMA} above "
    "curriculum.minimum_sigma)",
    _sigma_shrinks,
)
AUGMENTED = Condition("augmentation.enabled true", lambda c: c.augmentation.enabled)
PERCENTILE = Condition("intensity.rule percentile", lambda c: c.intensity.rule == "percentile")

TAKES_EFFECT: dict[str, Condition] = {
    INITIAL_SIGMA: ALWAYS,
    "batch_size": ALWAYS,
    "learning_rate": ALWAYS,
    "learning_rate_schedule": ALWAYS,
    "warmup_epochs": COOLDOWN,
    "cooldown_share": COOLDOWN,
    "weight_decay": ALWAYS,
    "weight_average_epochs": ALWAYS,
    "loss": ALWAYS,
    "seed": ALWAYS,
    "curriculum.minimum_sigma": SHRINKING,
    "curriculum.shrink_factor": SHRINKING,
    "curriculum.trigger": SHRINKING,
    "curriculum.threshold": SHRINKING,
    "curriculum.patience": SHRINKING,
    "curriculum.stop_patience": ALWAYS,
    "curriculum.coarse_initial_sigma": TWO_STAGES,
    "curriculum.coarse_minimum_sigma": TWO_STAGES,
    "curriculum.fine_initial_sigma": TWO_STAGES,
    "network.name": ALWAYS,
    "network.channels": UNET,
    "network.stride": UNET,
    "network.coarse": UNET,
    "network.window": TWO_STAGES,
    "augmentation.enabled": ALWAYS,
    "augmentation.flip_axes": AUGMENTED,
    "augmentation.rotation_degrees_zyx": AUGMENTED,
    "augmentation.scale": AUGMENTED,
    "augmentation.shift": AUGMENTED,
    "augmentation.gain": AUGMENTED,
    "augmentation.offset": AUGMENTED,
    "augmentation.gamma": AUGMENTED,
    "augmentation.noise": AUGMENTED,
    "intensity.rule": ALWAYS,
    "intensity.low": PERCENTILE,
    "intensity.high": PERCENTILE,
}


def check_searchable(key: str, source: str) -> None:
    """Refuse a known key that trials can't differ in.

    Raises
    ------
    InputError
        A section, a setting that all trials share, one that comes after their training.
    """
    if key in NESTED:
        own = ", ".join(sorted(k for k in TAKES_EFFECT if k.startswith(f"{key}.")))
        raise InputError(
            f"{source}: {key} is a section, and a space names single settings"
            + (f": {own}" if own else "; trials differ in none of this one's")
        )
    if key.split(".")[0] in SHARED:
        raise InputError(f"{source}: {key} is the same for all trials; change it with --set")
    if key in WITHOUT_EFFECT:
        raise InputError(
            f"{source}: {key} can't change the validation error, by which trials are judged: "
            f"{WITHOUT_EFFECT[key]}; change it with --set"
        )


def check_conditions(keys: Iterable[str], tried: Iterable[Config], source: str) -> None:
    """Refuse a setting that counts in none of the configs tried.

    Raises
    ------
    InputError
    """
    configs = list(tried)
    for key in keys:
        condition = TAKES_EFFECT[key]
        if not any(condition.holds(config) for config in configs):
            raise InputError(
                f"{source}: {key} takes effect only with {condition.words}, which no trial would "
                "have; leave it out, or change the other with --set"
            )
