"""The sigma schedule: tables of losses and errors -> sigmas."""

from __future__ import annotations

import pytest
import torch

from jawloc.heatmaps.curriculum import (
    CurriculumConfig,
    CurriculumState,
    advance,
    at_the_end,
    notable_changes,
    start,
)
from jawloc.heatmaps.losses import score_heatmaps
from jawloc.heatmaps.target import gaussian_factors, render

UNUSED = float("nan")


def config(**changes) -> CurriculumConfig:
    """Return a configuration in which nothing depends on the defaults."""
    settings = {
        "initial_sigma_voxels": 8.0,
        "minimum_sigma_voxels": 1.0,
        "shrink_factor": 0.5,
        "trigger": "loss",
        "threshold": 1.0,
        "patience": 1,
        "stop_patience": 0,
    }
    return CurriculumConfig(**(settings | changes))


def run(
    schedule: CurriculumConfig, losses: list[float], errors: list[float]
) -> list[CurriculumState]:
    """Return the state that each epoch trains at, and the one after the last."""
    states = [start(schedule)]
    for number, (loss, error) in enumerate(zip(losses, errors, strict=True)):
        numbers = {"train_loss": loss, "val_error_voxels": error}
        done = (number + 1) / len(losses)
        states.append(advance(schedule, states[-1], **numbers, share_done=done))
    return states


def sigmas_by_loss(losses: list[float], **changes) -> list[float]:
    states = run(config(**changes), losses, [UNUSED] * len(losses))
    return [state.sigma_voxels for state in states]


def sigmas_by_error(errors: list[float], **changes) -> list[float]:
    changes = {"trigger": "error", "threshold": 0.5} | changes
    states = run(config(**changes), [UNUSED] * len(errors), errors)
    return [state.sigma_voxels for state in states]


def test_with_the_trigger_epochs_sigma_falls_evenly_over_two_thirds_of_them():
    schedule = config(trigger="epochs", shrink_factor=0.99)
    states = run(schedule, [9.0] * 9, [9.0] * 9)  # whatever loss and error
    expected = [8 * 8 ** (-n / 6) for n in range(7)] + [1.0] * 3
    assert [state.sigma_voxels for state in states] == pytest.approx(expected)
    assert states[6].sigma_voxels == 1  # to the bit, at its end
    assert at_the_end(schedule, states[6].sigma_voxels)
    # a training that is made longer does not widen it again
    numbers = {"train_loss": 9.0, "val_error_voxels": 9.0}
    assert advance(schedule, states[3], **numbers, share_done=0.1).sigma_voxels == pytest.approx(
        states[3].sigma_voxels
    )
    fixed = config(trigger="epochs", shrink_factor=1.0)
    assert {state.sigma_voxels for state in run(fixed, [9.0] * 9, [9.0] * 9)} == {8.0}


def test_the_labs_rule_shrinks_after_epochs_whose_training_loss_is_below_the_threshold():
    first, *after_each_epoch = sigmas_by_loss([2.0, 0.9, 0.8], shrink_factor=0.9)
    assert first == 8
    assert after_each_epoch == pytest.approx([8, 7.2, 6.48])


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([], [8]),
        ([1.0], [8, 8]),  # not below
        ([0.99], [8, 4]),
        ([0.5, 3.0, 0.5], [8, 4, 4, 2]),
        ([float("nan")], [8, 8]),
    ],
)
def test_trigger_loss(losses, expected):
    assert sigmas_by_loss(losses) == pytest.approx(expected)


@pytest.mark.parametrize("factor", [0.9, 0.8, 0.5, 0.01])
def test_sigma_never_falls_below_its_minimum(factor):
    """The lab's script ended at 0.973 with a minimum of 1.0 and a factor of 0.9."""
    sigmas = sigmas_by_loss([0.0] * 60, shrink_factor=factor)
    assert min(sigmas) == sigmas[-1] == 1.0


def test_a_start_below_the_minimum_is_refused():
    schedule = config(initial_sigma_voxels=2.0, minimum_sigma_voxels=3.0)
    with pytest.raises(ValueError, match="begin at 2, below its minimum of 3"):
        start(schedule)


@pytest.mark.parametrize(
    ("patience", "expected"),
    [
        (1, [8, 4, 2, 2, 1, 1, 1]),
        (2, [8, 8, 4, 4, 4, 2, 2]),
        (3, [8, 8, 8, 8, 8, 8, 4]),
    ],
)
def test_patience_is_in_epochs_in_a_row_at_one_sigma(patience, expected):
    losses = [0.5, 0.5, 2.0, 0.5, 0.5, 0.5]
    assert sigmas_by_loss(losses, patience=patience) == expected


@pytest.mark.parametrize(
    ("sigmas", "minimum", "expected"),
    [
        ([1.5, 1.5, 1.5], 1.5, []),
        ([8, 8, 7.2, 7.2, 6.48], 1, [2, 4]),  # each step of the lab's rule
        ([6, 5.7, 5.4, 5.1, 4.9, 4.7], 1.5, [2, 4]),  # by the clock, from 6 to 5.4 to 4.9
        ([1.6, 1.55, 1.5, 1.5], 1.5, [2]),  # however small, where it ends
        ([1.6, 1.55, 1.5, 1.5], 1.0, []),
        ([2, 4, 4], 1.0, [1]),
    ],
)
def test_small_changes_of_sigma_are_looked_at_together(sigmas, minimum, expected):
    assert notable_changes(sigmas, minimum) == expected


@pytest.mark.parametrize("trigger", ["loss", "error"])
def test_a_shrink_factor_of_1_never_shrinks(trigger):
    """What --no-shrink-heatmap sets."""
    schedule = config(shrink_factor=1.0, trigger=trigger)
    states = run(schedule, [0.0] * 5, [0.0] * 5)
    assert {state.sigma_voxels for state in states} == {8.0}


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([4.0], [8, 8]),  # half of sigma, not below
        ([3.9], [8, 4]),
        ([3.9, 3.9], [8, 4, 4]),
        ([3.9, 1.9, 0.9, 0.4], [8, 4, 2, 1, 1]),
        ([float("nan")], [8, 8]),
    ],
)
def test_trigger_error_requires_an_error_below_a_share_of_sigma(errors, expected):
    assert sigmas_by_error(errors) == expected


@pytest.mark.parametrize("sigma", [32.0, 8.0, 2.5, 1.1])
@pytest.mark.parametrize("threshold", [0.25, 0.5, 1.0])
def test_trigger_error_means_the_same_at_every_sigma(sigma, threshold):
    """The lab's rule allowed an error of sqrt(2) sigma: 11 voxels at sigma 8."""
    schedule = config(initial_sigma_voxels=sigma, trigger="error", threshold=threshold)
    just_above, just_below = 1.01 * threshold * sigma, 0.99 * threshold * sigma
    after = [run(schedule, [0.0], [error])[-1].sigma_voxels for error in (just_above, just_below)]
    assert after[0] == sigma
    assert after[1] < sigma


def test_each_trigger_uses_only_its_own_number():
    by_loss, by_error = config(trigger="loss"), config(trigger="error")
    assert run(by_loss, [0.1], [1e9])[-1].sigma_voxels == 4
    assert run(by_error, [0.1], [1e9])[-1].sigma_voxels == 8
    assert run(by_error, [1e9], [0.1])[-1].sigma_voxels == 4


@pytest.mark.parametrize(
    ("sigma", "changes", "expected"),
    [
        (8.0, {}, False),
        (1.01, {}, False),
        (1.0, {}, True),
        (8.0, {"shrink_factor": 1.0}, True),
    ],
)
def test_at_the_end(sigma, changes, expected):
    assert at_the_end(config(**changes), sigma) is expected


def settled(errors: list[float], **changes) -> list[bool]:
    """Return after which epochs the schedule is settled, for a sigma at its minimum."""
    changes = {"initial_sigma_voxels": 1.0, "stop_patience": 2} | changes
    states = run(config(**changes), [0.0] * len(errors), errors)
    return [state.settled for state in states[1:]]


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([5, 4, 3, 2], [False] * 4),  # still falling
        ([3, 3, 3], [False, False, True]),  # two epochs without a better one
        ([3, 4, 2, 3, 2], [False, False, False, False, True]),
        ([3, 3, 3, 1, 2, 2], [False, False, True, False, False, True]),  # it fell again
        ([3, float("nan"), float("nan")], [False, False, True]),
    ],
)
def test_it_settles_after_epochs_without_a_better_validation_error(errors, expected):
    assert settled(errors) == expected


def test_a_stop_patience_of_0_never_settles():
    assert not any(settled([3.0] * 50, stop_patience=0))


def test_it_does_not_settle_before_sigma_is_at_its_minimum():
    """An error that stands still at a wide sigma is no reason to stop."""
    schedule = config(stop_patience=2)
    assert not any(state.settled for state in run(schedule, [5.0] * 20, [3.0] * 20))


def test_errors_of_wider_sigmas_do_not_count_as_the_best():
    schedule = config(initial_sigma_voxels=2.0, stop_patience=2)
    states = run(schedule, [0.0] * 4, [0.1, 0.9, 0.8, 0.7])
    assert states[1].sigma_voxels == 1.0
    assert not any(state.settled for state in states)


def test_it_settles_without_shrinking_too():
    schedule = config(shrink_factor=1.0, stop_patience=1)
    assert run(schedule, [9.0, 9.0], [3.0, 3.0])[-1].settled


# --- two stages ------------------------------------------------------------------------------


def test_each_of_two_stages_has_a_schedule_with_sigmas_of_its_own():
    both = config(
        initial_sigma_voxels=8.0,
        minimum_sigma_voxels=1.5,
        coarse_initial_sigma_voxels=8.0,
        coarse_minimum_sigma_voxels=6.0,
        fine_initial_sigma_voxels=4.0,
    )
    coarse, fine = both.per_stage(2)
    assert (coarse.initial_sigma_voxels, coarse.minimum_sigma_voxels) == (8.0, 6.0)
    assert (fine.initial_sigma_voxels, fine.minimum_sigma_voxels) == (4.0, 1.5)
    assert (coarse.threshold, fine.threshold) == (both.threshold,) * 2
    assert both.per_stage(1) == (both,)


def test_sigmas_that_are_still_auto_are_refused():
    with pytest.raises(ValueError, match="depend on the network"):
        config().per_stage(2)


@pytest.mark.parametrize("sigma", [2.5, 4.0])
@pytest.mark.parametrize("loss", ["kl", "dice", "mse"])
def test_every_losss_default_threshold_means_the_labs_one_nat(loss, sigma):
    """Two equal Gaussians sqrt(2) sigma apart: KL 1, and the other losses' own numbers."""
    shape, offset = (48, 40, 40), sigma * 2**0.5
    points = torch.tensor([[[22.0, 19.5, 19.5]], [[22.0 + offset, 19.5, 19.5]]])
    maps = render(points, shape, sigma).clamp_min(1e-37)
    factors = gaussian_factors(points[:1], shape, sigma)
    apart = score_heatmaps(maps[1:].log(), factors).loss(loss)
    assert apart.item() == pytest.approx(CurriculumConfig.loss_thresholds[loss], rel=2e-3)


@pytest.mark.parametrize("loss", sorted(CurriculumConfig.uniform_map_losses))
def test_a_uniform_map_is_below_every_threshold_that_is_refused(loss):
    factors = gaussian_factors(torch.tensor([[[8.0, 8.0, 8.0]]]), (16, 16, 16), 1.5)
    uniform = score_heatmaps(torch.zeros(1, 1, 16, 16, 16), factors).loss(loss).item()
    limit = CurriculumConfig.uniform_map_losses[loss]
    assert CurriculumConfig.loss_thresholds[loss] < uniform < limit
