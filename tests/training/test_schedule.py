"""A training that goes on with more epochs is the one that was planned with them from the start."""

from __future__ import annotations

import dataclasses
import math

import pytest

from jawloc.training.schedule import extend, learning_rate
from tests.training.blobs import (
    CURRICULUM,
    MOVED,
    NETWORK,
    blob_scans,
    fit,
    fresh_state,
    training_config,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def trained(state, config, epochs):
    run = fit(
        state, blob_scans(2, 1), blob_scans(1, 2), config, CURRICULUM, MOVED, NETWORK.stages()
    )
    for _ in zip(range(epochs), run, strict=False):
        pass
    return state


@pytest.mark.parametrize(("done", "planned"), [(1, 6), (3, 4)])  # the second: the rate was to fall
def test_more_epochs_before_the_rate_has_fallen_give_the_longer_training(done, planned):
    short, long = (
        training_config(num_epochs=n, best_epoch_from="cooldown", cooldown_share=0.25)
        for n in (planned, 8)
    )
    whole = trained(fresh_state(long), long, 8)
    state = trained(fresh_state(short), short, done)
    extend(state, short, long, 1)
    trained(state, long, 8)

    def comparable(of):
        return [dataclasses.replace(record, seconds=0.0) for record in of.records]

    assert comparable(state) == comparable(whole)
    assert (state.best_epoch, state.cooldown_from) == (whole.best_epoch, whole.cooldown_from)


def test_a_rate_that_falls_because_the_end_was_near_rises_again():
    short, long = (training_config(num_epochs=n, cooldown_share=0.5) for n in (4, 9))
    state = trained(fresh_state(short), short, 3)
    best = state.best_error_voxels
    assert state.cooldown_from == 2
    state.best_error_voxels = math.inf  # as if the best epoch were to come from the cooldown
    extend(state, short, long, 1)
    assert (state.cooldown_from, state.best_error_voxels) == (None, best)


@pytest.mark.parametrize(("share", "epochs"), [(0.3, 10), (0.3, 20), (0.2, 11), (0.9, 12)])
def test_the_rate_falls_to_the_end_of_the_last_epoch_however_many_there_are(share, epochs):
    """Regression: it ended at a quarter where the cooldown did not fit into what was left."""
    config = training_config(num_epochs=epochs, cooldown_share=share)
    state = trained(fresh_state(config), config, epochs)
    state.records.pop()
    assert learning_rate(config, state, 1.0) == pytest.approx(0.01 * config.learning_rate)


@pytest.mark.parametrize(("settled_after", "epochs"), [(2, 9), (2, 4)])
def test_a_rate_that_falls_for_another_reason_and_an_unchanged_plan_stay(settled_after, epochs):
    short, long = (training_config(num_epochs=n, cooldown_share=0.5) for n in (epochs, epochs + 3))
    state = trained(fresh_state(short), short, 3)
    state.cooldown_from = settled_after
    extend(state, short, long if epochs == 9 else short, 1)
    assert state.cooldown_from == settled_after
