"""What each setting can do in a search: make trials differ, be the same for all, or nothing.

Every known key is in exactly one of the three tables. A setting without an effect would give trials
that are equal to the last digit, and the false finding that it does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import NamedTuple

from jawloc.config import Config
from jawloc.config.keys import INITIAL_SIGMA, NESTED
from jawloc.errors import InputError
from jawloc.training.presence_training import PresenceClassifierConfig

# Trials share one cache, one split and one measure of success.
SHARED = {
    *("dicom_dirs", "downsampled_dicom_size", "cache_dir", "n_workers", "objects", "num_epochs"),
    *("validation_scans", "test_scans", "device", "cpu_threads", "memory_budget_gb"),
    *("best_epoch_from", "specimen_pattern", "corrections", "accepted_weight", "compare_with"),
}

# Settings that no trial uses, and why.
WITHOUT_EFFECT = {
    "crop_size": "crops are cut after the place is found",
    **dict.fromkeys(
        (f"presence_classifier.{field.name}" for field in fields(PresenceClassifierConfig)),
        "whether the object is there at all is learned after the training",
    ),
}


class Condition(NamedTuple):
    """What a trial's other settings must be for a setting to take effect."""

    text: str
    holds: Callable[[Config], bool]


def _sigma_shrinks(config: Config) -> bool:
    stages = config.curriculum.per_stage(len(config.network.stages()))
    return any(stage.shrinks for stage in stages)


ALWAYS = Condition("", lambda _: True)
UNET = Condition("network.name unet", lambda c: c.network.name == "unet")
TWO_STAGES = Condition(
    "network.name unet and a network.coarse above 1",
    lambda c: c.network.name == "unet" and c.network.coarse != 1,
)
COOLDOWN = Condition(
    "learning_rate_schedule cooldown", lambda c: c.training.learning_rate_schedule == "cooldown"
)
ONE_CYCLE = Condition(
    "learning_rate_schedule one-cycle",
    lambda c: c.training.learning_rate_schedule == "one-cycle",
)
ENDS_EARLY = Condition(
    "a training that may end early (learning_rate_schedule cooldown or constant)",
    lambda c: c.training.learning_rate_schedule != "one-cycle",
)
SHRINKING = Condition(
    f"a sigma that shrinks (curriculum.shrink_factor below 1, {INITIAL_SIGMA} above "
    "curriculum.minimum_sigma)",
    _sigma_shrinks,
)
BY_RULE = Condition(
    f"{SHRINKING.text}, with curriculum.trigger error or loss",
    lambda c: _sigma_shrinks(c) and c.curriculum.trigger != "epochs",
)
ANY_MINIMUM = Condition(
    f"a sigma that shrinks to it (curriculum.shrink_factor below 1), or {INITIAL_SIGMA} auto",
    lambda c: c.has_one_sigma or _sigma_shrinks(c),
)
AUGMENTED = Condition("augmentation.enabled true", lambda c: c.augmentation.enabled)
PERCENTILE = Condition("intensity.rule percentile", lambda c: c.intensity.rule == "percentile")

_KEYS = {
    ALWAYS: f"""{INITIAL_SIGMA} batch_size learning_rate learning_rate_schedule weight_decay
        weight_average_epochs loss seed network.name augmentation.enabled intensity.rule""",
    ENDS_EARLY: "curriculum.stop_patience least_steps",
    ONE_CYCLE: "cycle_steps",
    COOLDOWN: "warmup_epochs cooldown_share",
    ANY_MINIMUM: "curriculum.minimum_sigma",
    SHRINKING: "curriculum.trigger",
    BY_RULE: "curriculum.shrink_factor curriculum.threshold curriculum.patience",
    UNET: """network.channels network.stride network.coarse network.skip_connections
        mask_supervision""",
    TWO_STAGES: """curriculum.coarse_initial_sigma curriculum.coarse_minimum_sigma
        curriculum.fine_initial_sigma network.window network.coarse_stride""",
    AUGMENTED: """augmentation.flip_axes augmentation.rotation_degrees_zyx augmentation.scale
        augmentation.shift augmentation.gain augmentation.offset augmentation.gamma
        augmentation.noise""",
    PERCENTILE: "intensity.low intensity.high",
}
TAKES_EFFECT = {key: condition for condition, keys in _KEYS.items() for key in keys.split()}


def check_searchable(key: str, source: str) -> None:
    """Raise an InputError for a known key in which trials can't differ."""
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
            f"{source}: {key} can't change the validation error, by which trials are compared: "
            f"{WITHOUT_EFFECT[key]}; change it with --set"
        )


def lacks_initial_sigma(keys: Iterable[str], config: Config) -> bool:
    """Return whether a search is of how sigma shrinks, which the settings leave to "auto"."""
    searched = set(keys)
    return (
        any(TAKES_EFFECT.get(key) in (SHRINKING, BY_RULE) for key in searched)
        and INITIAL_SIGMA not in searched
        and config.has_one_sigma
        and not _sigma_shrinks(config)
    )


def check_conditions(keys: Iterable[str], configs: Iterable[Config], source: str) -> None:
    """Raise an InputError for a setting that takes effect in none of the configs."""
    tried = list(configs)
    for key in keys:
        condition = TAKES_EFFECT[key]
        if not any(condition.holds(config) for config in tried):
            raise InputError(
                f"{source}: {key} takes effect only with {condition.text}, which no trial would "
                "have; leave it out, or change the other with --set"
            )
