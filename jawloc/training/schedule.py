"""When the learning rate falls and training ends: functions of the settings and the epochs done."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from jawloc.training.steps import one_cycle

if TYPE_CHECKING:
    from jawloc.training.loop import TrainingConfig, TrainingState


def learning_rate(config: TrainingConfig, state: TrainingState, epoch_share: float) -> float:
    """Return the learning rate at this share (0...1) of the state's next epoch."""
    epochs = len(state.records) + epoch_share
    if config.learning_rate_schedule == "constant":
        return config.learning_rate
    if config.learning_rate_schedule == "one-cycle":
        return config.learning_rate * one_cycle(epochs / config.num_epochs)
    warm = min(1.0, epochs / config.warmup_epochs) if config.warmup_epochs else 1.0
    begun, end = state.cooldown_from, state.last_epoch(config)
    if begun is None or end is None or begun == end:
        return config.learning_rate * warm
    cooled = (epochs - begun) / (end - begun)
    return config.learning_rate * warm * max(1 - cooled, 0.01)  # the last step isn't 0


def is_finished(state: TrainingState, config: TrainingConfig, steps_an_epoch: int) -> bool:
    """Return whether the epochs are used up, or the error settled and the cooldown is over."""
    done = len(state.records)
    if done >= config.num_epochs:
        return True
    if config.learning_rate_schedule == "constant":
        return _has_settled(state, config, steps_an_epoch)
    end = state.last_epoch(config)
    return end is not None and done >= end


def cooldown_epochs(config: TrainingConfig, cooldown_from: int) -> int:
    """Return the length that makes the cooldown `cooldown_share` of all epochs; 0 for no share."""
    share = config.cooldown_share
    # 14 * 0.3 / 0.7 is a little above 6
    return max(1, math.ceil(cooldown_from * share / (1 - share) - 1e-9)) if share else 0


def _has_settled(state: TrainingState, config: TrainingConfig, steps_an_epoch: int) -> bool:
    if config.learning_rate_schedule == "one-cycle":  # its length is fixed
        return False
    enough = len(state.records) * steps_an_epoch >= config.least_steps
    return enough and state.curricula[-1].settled


def begin_cooldown_if_due(
    state: TrainingState, config: TrainingConfig, steps_an_epoch: int
) -> None:
    """Let the learning rate fall from now on if the end is near or the error has settled."""
    done = len(state.records)
    at_the_end = done + cooldown_epochs(config, done) >= config.num_epochs
    due = at_the_end or _has_settled(state, config, steps_an_epoch)
    if state.cooldown_from is None and due:
        state.cooldown_from = done
        if config.best_epoch_from == "cooldown" and not is_finished(state, config, steps_an_epoch):
            state.best_error_voxels = math.inf  # the next epoch replaces the best one so far


def extend(
    state: TrainingState, before: TrainingConfig, now: TrainingConfig, steps_an_epoch: int
) -> None:
    """Let a training that was planned for fewer epochs, `before`, go on as one planned for more.

    If its learning rate falls only because the end was near, it stops falling. Where none of the
    epochs done had a falling rate yet, and neither the rate (one cycle) nor sigma (trigger
    `epochs`) follows the share of all epochs, the training is then what it would have been with
    more epochs from the start.
    """
    start = state.cooldown_from
    if start is None or now.num_epochs <= before.num_epochs:
        return
    if start + cooldown_epochs(before, start) < before.num_epochs:
        return  # the error had settled
    state.cooldown_from = None
    if state.best_epoch and math.isinf(state.best_error_voxels):
        state.best_error_voxels = state.records[state.best_epoch - 1].val.error_voxels
    begin_cooldown_if_due(state, now, steps_an_epoch)
