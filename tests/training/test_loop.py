"""The training loop on blobs: it learns, repeats itself, and never learns from validation scans."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

from jawloc.config.sigmas import decide_sigmas
from jawloc.errors import TrainingError
from jawloc.heatmaps.curriculum import CurriculumConfig
from jawloc.heatmaps.metrics import HeatmapMetrics
from jawloc.heatmaps.target import are_present, gaussian_factors, with_stand_ins
from jawloc.inference.predict import predict_stages
from jawloc.training.augmentation import AugmentationConfig
from jawloc.training.coarse_to_fine import forward_training_batch
from jawloc.training.loop import (
    GRADIENT_NORM,
    TrainingConfig,
    TrainingState,
    is_finished,
    learning_rate,
    planned_training,
    start_training,
)
from jawloc.training.network import build_network
from jawloc.training.records import EpochRecord
from jawloc.training.stages import NetworkConfig
from jawloc.training.steps import one_cycle
from tests.training.blobs import (
    CURRICULUM,
    MOVED,
    NETWORK,
    SHAPE,
    STILL,
    STRIDE,
    blob_scans,
    fit,
    fresh_state,
    pair_scans,
    training_config,
    validate,
)

pytestmark = pytest.mark.usefixtures("one_thread")

TRAIN, VAL = blob_scans(8, seed=1), blob_scans(3, seed=2)
LAB = NetworkConfig(name="attention-unet")
ONE_STAGE, FINE = NETWORK.stages(), LAB.stages()


def train(
    config: TrainingConfig,
    curriculum: CurriculumConfig = CURRICULUM,
    augmentation: AugmentationConfig = STILL,
    scans=TRAIN,
    val=VAL,
) -> TrainingState:
    state = fresh_state(config, curriculum=curriculum)
    for _ in fit(state, scans, val, config, curriculum, augmentation, ONE_STAGE):
        pass
    return state


def without_seconds(records: list[EpochRecord]) -> list[EpochRecord]:
    return [dataclasses.replace(record, seconds=0.0) for record in records]


def record(epoch: int, error: float = 5.0) -> EpochRecord:
    metrics = HeatmapMetrics(0.0, 0.0, 0.0, error, error, error, None, None, None)
    return EpochRecord(epoch, 8.0, 0.1, metrics, metrics, 0.0)


# --- masks -------------------------------------------------------------------------------


def with_masks(scans, known=True):
    """Return scans whose images have a channel more: the blob, or NaN where it isn't known."""
    z, y, x = gaussian_factors(scans.points, SHAPE, 1.2)
    blobs = z[..., :, None, None] * y[..., None, :, None] * x[..., None, None, :]
    masks = (blobs > 0.1 * blobs.amax((2, 3, 4), keepdim=True)).float()
    masks = masks if known else torch.full_like(masks, math.nan)
    images = torch.cat([scans.images, masks], dim=1)
    return dataclasses.replace(scans, images=images, has_mask=(known,) * len(scans.ids))


MASKED = dataclasses.replace(NETWORK, mask_supervision=True)
MASKED_WINDOW = dataclasses.replace(MASKED, coarse=2, window=(12, 12, 12))


def masked_state(config, seed=3, network=MASKED):
    torch.manual_seed(seed)
    curriculum = decide_sigmas(CURRICULUM, network)
    return start_training(build_network(network, 1), config, curriculum)


@pytest.mark.parametrize("augmentation", [STILL, MOVED], ids=["as they are", "augmented"])
@pytest.mark.parametrize("network", [MASKED, MASKED_WINDOW], ids=["one stage", "two stages"])
def test_masks_are_learned_beside_the_heatmaps(augmentation, network):
    config, stages = training_config(num_epochs=90), network.stages()
    state, scans = masked_state(config, network=network), with_masks(TRAIN)
    for _ in fit(
        state, scans, VAL, config, decide_sigmas(CURRICULUM, network), augmentation, stages
    ):
        pass
    sigmas = (1.5,) * len(stages)
    *_, last = predict_stages(state.network.eval(), stages, TRAIN.images, sigmas)
    errors = (last.mask_points() - TRAIN.points).norm(dim=-1)
    assert errors.mean() < 1.5
    share = (state.network.parts[-1] if len(stages) > 1 else state.network).mask_share
    assert share.tolist() == [0.0]  # until it is chosen
    torch.testing.assert_close(last.decode().points, last.heatmap_points())
    share.fill_(0.5)
    between = (last.heatmap_points() + last.mask_points()) / 2
    torch.testing.assert_close(last.decode().points, between)


def test_without_any_mask_training_goes_on_with_the_heatmaps():
    config = training_config(num_epochs=2)
    state = masked_state(config)
    before = state.network.head.weight[1].clone()
    for _ in fit(state, with_masks(TRAIN, False), VAL, config, CURRICULUM, STILL, ONE_STAGE):
        pass
    (last,) = predict_stages(state.network.eval(), ONE_STAGE, VAL.images, (1.5,))
    torch.testing.assert_close(last.decode().points, last.heatmap_points())
    # nothing but weight decay reached the channel of the masks
    assert torch.nn.functional.cosine_similarity(
        state.network.head.weight[1].detach().flatten(), before.detach().flatten(), dim=0
    ) == pytest.approx(1)


def test_scans_with_points_only_leave_the_masks_of_the_others_their_weight():
    """The loss of a batch is the mean over its masks, not over its scans."""
    config = training_config(num_epochs=1, batch_size=8)
    masked, clicked = with_masks(TRAIN), with_masks(TRAIN, False)
    half = torch.cat([masked.images[:4], clicked.images[4:]])
    mixed = dataclasses.replace(masked, images=half, has_mask=(True,) * 4 + (False,) * 4)
    assert mixed.count_masks(torch.arange(8)) == 4
    gradients = []
    for scans in (mixed, masked.select(masked.ids[:4])):
        state = masked_state(config)
        for _ in fit(state, scans, VAL, config, CURRICULUM, STILL, ONE_STAGE):
            pass
        gradients.append(state.network.head.weight.grad[1])
    cosine = torch.nn.functional.cosine_similarity(*(g.flatten() for g in gradients), dim=0)
    assert cosine == pytest.approx(1, abs=1e-4)


# --- learning ------------------------------------------------------------------------


@pytest.mark.parametrize("augmentation", [STILL, MOVED], ids=["as they are", "augmented"])
def test_a_tiny_problem_is_learned(augmentation):
    """Blobs of unseen scans are found to half a voxel; always saying the middle is wrong by 4."""
    scans, val = blob_scans(12, seed=1), blob_scans(6, seed=2)
    config = training_config(num_epochs=12, learning_rate=0.02)
    state = train(config, augmentation=augmentation, scans=scans, val=val)
    middle = (torch.tensor(SHAPE) - 1) / 2
    assert (val.points - middle).norm(dim=-1).mean() > 3.5
    assert state.best_error_voxels < 0.5
    assert state.records[-1].val.error_voxels < 0.6


@pytest.mark.parametrize("loss", ["kl", "dice", "mse"])
def test_every_loss_trains(loss):
    state = train(training_config(num_epochs=12, loss=loss))
    first, last = state.records[0], state.records[-1]
    assert state.best_error_voxels < 0.75 * first.val.error_voxels
    assert last.train.dice > first.train.dice


def test_the_attention_unet_trains():
    config = training_config(num_epochs=2, learning_rate=3e-3)
    state = fresh_state(config, network=LAB)
    records = list(fit(state, blob_scans(4, 1), blob_scans(1, 2), config, CURRICULUM, STILL, FINE))
    assert records[1].train.kl_nats < records[0].train.kl_nats


def test_sigma_shrinks_with_the_curriculum_and_each_record_says_what_it_trained_at():
    state = train(training_config(num_epochs=12, learning_rate=0.02))
    sigmas = [r.sigma_voxels for r in state.records]
    assert sigmas[0] == 4.0
    assert sigmas[-1] == CURRICULUM.minimum_sigma_voxels
    assert sigmas == sorted(sigmas, reverse=True)
    for before, after in zip(state.records, state.records[1:], strict=False):
        shrinks = before.val.error_voxels < 0.5 * before.sigma_voxels
        at_minimum = before.sigma_voxels == 2.0
        assert (after.sigma_voxels < before.sigma_voxels) is (shrinks and not at_minimum)


def test_the_loss_trigger_sees_the_loss_that_is_trained_on():
    """Dice loss is at most 1: a threshold of 1.1 must shrink sigma every epoch, KL's must not."""
    lab = dataclasses.replace(
        CURRICULUM,
        initial_sigma_voxels=2.0,
        minimum_sigma_voxels=1.0,
        trigger="loss",
        threshold=1.1,
    )
    by_dice = train(training_config(loss="dice"), lab)
    assert [r.sigma_voxels for r in by_dice.records] == pytest.approx([2.0, 1.4, 1.0])
    by_kl = train(training_config(loss="kl"), lab)
    assert by_kl.records[0].train.kl_nats > 1.1
    assert by_kl.records[1].sigma_voxels == 2.0


# --- the same numbers ----------------------------------------------------------------


def test_one_seed_gives_exactly_the_same_numbers_and_weights():
    config = training_config()
    first, second = (train(config, augmentation=MOVED) for _ in range(2))
    assert without_seconds(first.records) == without_seconds(second.records)
    assert all(
        torch.equal(first.best_weights[k], second.best_weights[k]) for k in first.best_weights
    )


def test_another_seed_gives_other_numbers():
    states = [train(training_config(seed=seed), augmentation=MOVED) for seed in (0, 1)]
    assert without_seconds(states[0].records) != without_seconds(states[1].records)


def test_scans_come_in_another_order_every_epoch():
    seen: list[list[float]] = []

    class Noting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, images):
            if self.training:
                seen[-1] += images[:, 0, 0, 0, 0].tolist()
            return images * self.weight

    config = training_config(batch_size=3)
    state = fresh_state(config)
    state.network, state.average = Noting(), Noting()
    epochs = fit(state, TRAIN, VAL, config, CURRICULUM, STILL, FINE)
    for _ in range(3):
        seen.append([])
        next(epochs)
    everyone = sorted(TRAIN.images[:, 0, 0, 0, 0].tolist())
    assert [sorted(epoch) for epoch in seen] == [everyone] * 3  # each once, the short batch too
    assert seen[0] != seen[1] != seen[2]


# --- validation learns nothing -------------------------------------------------------


def lab_network_with_statistics() -> nn.Module:
    torch.manual_seed(0)
    network = build_network(LAB, 1).train()
    network(torch.randn(2, 1, *SHAPE))
    return network  # left in training mode: validate() has to see to it


def test_validation_leaves_batchnorm_statistics_alone():
    """The lab's script validated in training mode, and BatchNorm absorbed the validation scan."""
    network = lab_network_with_statistics()
    before = copy.deepcopy(network.state_dict())
    assert any("running_mean" in key for key in before)
    validate(network, VAL, (4.0,), FINE)
    after = network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_validation_is_deterministic_though_the_network_has_dropout():
    network = lab_network_with_statistics()
    with torch.no_grad():  # the network does drop out in training mode
        assert not torch.equal(network(VAL.images), network(VAL.images))
    assert validate(network, VAL, (4.0,), FINE) == validate(network, VAL, (4.0,), FINE)


def test_validation_does_not_depend_on_which_scans_are_validated_together():
    network = lab_network_with_statistics()
    alone = [validate(network, blob_scans(1, seed), (4.0,), FINE)[0].kl_nats for seed in (5, 6)]
    both = blob_scans(1, 5), blob_scans(1, 6)
    together = dataclasses.replace(
        both[0],
        ids=both[0].ids + both[1].ids,
        images=torch.cat([scans.images for scans in both]),
        points=torch.cat([scans.points for scans in both]),
        grids=both[0].grids + both[1].grids,
    )
    assert validate(network, together, (4.0,), FINE)[0].kl_nats == pytest.approx(
        sum(alone) / 2, rel=1e-6
    )


@pytest.mark.parametrize("network", [NetworkConfig(coarse=1, channels=(4, 8), stride=STRIDE), LAB])
def test_what_is_trained_does_not_depend_on_the_validation_scans(network):
    """Not even through random numbers that validation draws."""
    config, stages = training_config(num_epochs=2, batch_size=2), network.stages()
    never_shrinks = dataclasses.replace(CURRICULUM, shrink_factor=1.0)
    states = []
    for seed in (2, 3):
        state = fresh_state(config, network, never_shrinks)
        scans, val = blob_scans(2, 1), blob_scans(2, seed)
        list(fit(state, scans, val, config, never_shrinks, MOVED, stages))
        states.append(state)
    weights = [state.network.state_dict() for state in states]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_training_goes_on_in_training_mode_after_validation():
    modes = []

    class Noting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, images):
            modes.append(self.training)
            return images * self.weight

    config = training_config(num_epochs=2, batch_size=8, weight_average_epochs=0.0)
    state = fresh_state(config)
    state.network = state.average = Noting()
    list(fit(state, TRAIN, VAL, config, CURRICULUM, STILL, FINE))
    assert modes == [True, False, False, False] * 2


# --- the best weights ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "best"),
    [([5, 3, 4, 2, 6], 4), ([1, 2, 3], 1), ([3, 2, 1], 3), ([3, 2, 2, 2], 2)],
)
def test_the_weights_of_the_lowest_validation_error_are_kept(monkeypatch, errors, best):
    """The lab's script kept the last epoch's, whatever they were worth."""
    said = iter([(record(0, error).val,) for error in errors])
    monkeypatch.setattr("jawloc.training.loop.validate", lambda *_: next(said))
    config = training_config(num_epochs=len(errors))
    state = fresh_state(config)
    after_each = []
    for _ in fit(state, TRAIN, VAL, config, CURRICULUM, STILL, ONE_STAGE):
        after_each.append(copy.deepcopy(state.average.state_dict()))
    assert (state.best_epoch, state.best_error_voxels) == (best, min(errors))
    expected = after_each[best - 1]
    assert all(torch.equal(state.best_weights[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    ("begin", "share", "errors", "best"),
    [
        ("start", 0.5, [5, 1, 4, 3, 2, 6], 2),
        ("cooldown", 0.5, [5, 1, 4, 3, 2, 6], 5),  # the cooldown is epochs 4, 5 and 6
        ("cooldown", 0.0, [5, 1, 4], 2),  # there is none, so that all epochs count
        ("cooldown", 0.5, [5], 1),  # too short for a cooldown: something is kept all the same
        ("last", 0.5, [5, 1, 4, 3, 2, 6], 6),
        ("last", 0.0, [1, 2], 2),
    ],
)
def test_the_best_epoch_can_be_chosen_from_the_cooldown(monkeypatch, begin, share, errors, best):
    said = iter([(record(0, error).val,) for error in errors])
    monkeypatch.setattr("jawloc.training.loop.validate", lambda *_: next(said))
    config = training_config(num_epochs=len(errors), cooldown_share=share, best_epoch_from=begin)
    state = fresh_state(config)
    for _ in fit(state, TRAIN, VAL, config, CURRICULUM, STILL, ONE_STAGE):
        pass
    assert state.best_epoch == best


def test_the_kept_weights_give_the_recorded_error_again():
    state = train(training_config(num_epochs=6))
    network = build_network(NETWORK, 1)
    network.load_state_dict(state.best_weights)
    best = state.records[state.best_epoch - 1]
    assert validate(network, VAL, best.sigmas_voxels, ONE_STAGE) == (best.val,)


def test_later_epochs_do_not_reach_into_the_kept_weights():
    config = training_config(num_epochs=6)
    state = fresh_state(config)
    epochs = fit(state, TRAIN, VAL, config, CURRICULUM, STILL, ONE_STAGE)
    next(epochs)
    state.best_error_voxels = -1.0  # so that no later epoch is better
    kept = {key: tensor.clone() for key, tensor in state.best_weights.items()}
    list(epochs)
    assert all(torch.equal(state.best_weights[key], kept[key]) for key in kept)


def test_without_averaging_the_last_steps_weights_are_validated():
    state = train(training_config(weight_average_epochs=0.0))
    pairs = zip(state.average.parameters(), state.network.parameters(), strict=True)
    assert all(torch.equal(average, present) for average, present in pairs)


def test_with_averaging_the_average_lies_between_the_steps():
    state = train(training_config(weight_average_epochs=2.0))
    pairs = zip(state.average.parameters(), state.network.parameters(), strict=True)
    assert any(not torch.equal(average, present) for average, present in pairs)


@pytest.mark.parametrize("epochs", [0.0, 2.0])
def test_statistics_of_batchnorm_are_averaged_like_the_weights(epochs):
    """Regression: the averaged weights were given the last step's statistics."""
    config = training_config(num_epochs=3, weight_average_epochs=epochs, batch_size=4)
    sigmas = dataclasses.replace(CURRICULUM, shrink_factor=1.0)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.BatchNorm3d(2), nn.Conv3d(2, 1, 1))
    state = start_training(network, config, sigmas)
    own = [copy.deepcopy(network.state_dict())]
    forward = network.forward

    def noting(images):
        out = forward(images)
        if network.training:
            own.append(copy.deepcopy(network.state_dict()))
        return out

    network.forward = noting
    list(fit(state, TRAIN, VAL, config, sigmas, STILL, FINE))
    average, present = state.average.state_dict(), network.state_dict()
    expected = own[0]["1.running_mean"]
    for step, after in enumerate(own[1:]):
        done = step // 2 * 2  # steps of whole epochs: two an epoch
        weight = 1 / (1 + min(epochs * 2, done / 4))
        expected = expected.lerp(after["1.running_mean"], weight)
    torch.testing.assert_close(average["1.running_mean"], expected)
    same = torch.equal(average["1.running_mean"], present["1.running_mean"])
    assert same is (epochs == 0)
    assert torch.equal(average["1.num_batches_tracked"], present["1.num_batches_tracked"])


def test_the_best_error_is_known_also_where_the_cooldown_begins_with_the_end(monkeypatch):
    """Regression: it was forgotten after the last epoch, and a study got an infinite error."""
    said = iter([(record(0, error).val,) for error in (5, 1, 4)])
    monkeypatch.setattr("jawloc.training.loop.validate", lambda *_: next(said))
    config = training_config(num_epochs=3, cooldown_share=0.0, best_epoch_from="cooldown")
    state = fresh_state(config)
    list(fit(state, TRAIN, VAL, config, CURRICULUM, STILL, ONE_STAGE))
    assert (state.best_epoch, state.best_error_voxels) == (2, 1)


# --- what stops it -------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_epoch_and_scans(bad):
    images = TRAIN.images.clone()
    images[3, 0, 4, 4, 4] = bad
    broken = dataclasses.replace(TRAIN, images=images)
    config = training_config(batch_size=1)
    with pytest.raises(TrainingError, match=r"epoch 1: .*batch of blob_1_3;"):
        train(config, scans=broken)


def test_all_scans_of_the_batch_are_named_and_the_epoch_counted():
    config = training_config(batch_size=8)
    state = fresh_state(config)
    epochs = fit(state, TRAIN, VAL, config, CURRICULUM, STILL, ONE_STAGE)
    next(epochs)
    with torch.no_grad():
        next(state.network.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError) as caught:
        next(epochs)
    assert str(caught.value).startswith("epoch 2: ")
    assert all(scan_id in str(caught.value) for scan_id in TRAIN.ids)


def test_a_gradient_that_is_not_finite_stops_before_it_spoils_the_weights():
    """The loss is still finite then; without the check it was the next epoch that got the blame."""

    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, images):
            return images * self.weight.sqrt()  # finite at 0, but infinitely steep

    config = training_config()
    state = fresh_state(config)
    state.network, state.average = Root(), Root()
    state.optimizer = torch.optim.AdamW(state.network.parameters())
    with pytest.raises(TrainingError, match=r"epoch 1: the gradient .*blob_1_"):
        next(fit(state, TRAIN, VAL, config, CURRICULUM, STILL, FINE))
    assert torch.isfinite(next(state.network.parameters())).all()


class Unchanging(nn.Module):
    """Says the same whatever it is taught, so that the error settles at once."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return images * (1 + 0 * self.weight)


@pytest.mark.parametrize(
    ("schedule", "patience", "epochs"),
    [
        ("constant", 1, 2),
        ("constant", 3, 4),  # the first epoch sets the best error, three are no better
        ("cooldown", 3, 8),  # as many epochs again, a share of one half, to cool down
        ("none", 3, 4),  # nothing to cool down for
        ("constant", 0, 20),  # never
        ("one-cycle", 3, 20),  # its length is fixed
        ("cooldown", 0, 20),
    ],
)
def test_training_ends_once_the_error_has_settled(schedule, patience, epochs):
    early = dataclasses.replace(CURRICULUM, shrink_factor=1.0, stop_patience=patience)
    share = 0.0 if schedule == "none" else 0.5
    schedule = "cooldown" if schedule == "none" else schedule
    config = training_config(num_epochs=20, learning_rate_schedule=schedule, cooldown_share=share)
    state = fresh_state(config, curriculum=early)
    state.network, state.average = Unchanging(), Unchanging()
    records = list(fit(state, TRAIN, VAL, config, early, STILL, FINE))
    assert len(records) == epochs
    if schedule == "one-cycle":
        rates = [record.learning_rate / config.learning_rate for record in records]
        assert rates == pytest.approx([one_cycle((n + 1) / 20) for n in range(20)])
    if share == 0:
        assert records[-1].learning_rate == config.learning_rate


@pytest.mark.parametrize("schedule", ["constant", "cooldown"])
@pytest.mark.parametrize(("least", "epochs"), [(0, 4), (16, 4), (17, 5)])  # 4 steps an epoch
def test_training_does_not_end_before_its_least_steps(schedule, least, epochs):
    """With few scans an epoch has few steps, and the patience in epochs is soon over."""
    early = dataclasses.replace(CURRICULUM, shrink_factor=1.0, stop_patience=3)
    config = training_config(
        num_epochs=20,
        learning_rate_schedule=schedule,
        cooldown_share=0.0,
        batch_size=2,
        least_steps=least,
    )
    state = fresh_state(config, curriculum=early)
    state.network, state.average = Unchanging(), Unchanging()
    assert len(list(fit(state, TRAIN, VAL, config, early, STILL, FINE))) == epochs


def test_the_learning_rate_falls_to_nothing_from_where_the_error_settled():
    early = dataclasses.replace(CURRICULUM, shrink_factor=1.0, stop_patience=3)
    config = training_config(num_epochs=20, cooldown_share=0.5, batch_size=8, warmup_epochs=0)
    state = fresh_state(config, curriculum=early)
    state.network, state.average = Unchanging(), Unchanging()
    rates = [r.learning_rate for r in fit(state, TRAIN, VAL, config, early, STILL, FINE)]
    shares = [1, 1, 1, 1, 0.75, 0.5, 0.25, 0.01]
    assert rates == pytest.approx([config.learning_rate * share for share in shares])


def test_without_patience_all_epochs_are_used():
    state = train(training_config(num_epochs=4))
    assert [r.epoch for r in state.records] == [1, 2, 3, 4]


# --- the learning rate ---------------------------------------------------------------


def state_after(epochs: int, cooldown_from: int | None) -> TrainingState:
    state = fresh_state(training_config())
    state.records = [record(i + 1) for i in range(epochs)]
    state.cooldown_from = cooldown_from
    return state


@pytest.mark.parametrize(
    ("done", "share", "cooldown_from", "expected"),
    [
        (0, 0.5, None, 0.25),  # a quarter of the two warm-up epochs
        (0, 1.0, None, 0.5),
        (1, 1.0, None, 1.0),
        (4, 0.5, None, 1.0),
        (6, 0.5, 6, 1 - 0.5 / 6),  # six epochs of cooldown follow six others
        (8, 1.0, 6, 0.5),
        (10, 1.0, 6, 1 / 6),
        (11, 1.0, 6, 0.01),  # the last step still moves a little
    ],
)
def test_the_cooldown_schedule(done, share, cooldown_from, expected):
    config = training_config(learning_rate=0.1, warmup_epochs=2, cooldown_share=0.5, num_epochs=12)
    rate = learning_rate(config, state_after(done, cooldown_from), share)
    assert rate == pytest.approx(0.1 * expected)


@pytest.mark.parametrize(("done", "share"), [(0, 0.1), (0, 1.0), (50, 0.5), (199, 1.0)])
def test_the_constant_schedule(done, share):
    config = training_config(learning_rate=1e-4, learning_rate_schedule="constant")
    assert learning_rate(config, state_after(done, None), share) == 1e-4


@pytest.mark.parametrize(
    ("scans", "batch", "steps", "most", "epochs"),
    [
        (12, 4, 540, 250, 180),
        (13, 4, 540, 250, 135),
        (4, 4, 600, 250, 250),
        (5, 2, 7, 9, 3),
        (12, 4, 0, 70, 70),
    ],
)
def test_one_cycle_has_so_many_steps_whatever_the_number_of_scans(
    scans, batch, steps, most, epochs
):
    schedule = {"learning_rate_schedule": "one-cycle", "cycle_steps": steps}
    config = training_config(batch_size=batch, num_epochs=most, **schedule)
    assert planned_training(config, scans).num_epochs == epochs
    other = dataclasses.replace(config, learning_rate_schedule="cooldown")
    assert planned_training(other, scans) == other
    with pytest.raises(ValueError, match="for_stages"):
        planned_training(dataclasses.replace(config, cycle_steps="auto"), scans)


def test_without_warm_up_the_first_step_has_the_full_rate():
    config = training_config(learning_rate=0.1, warmup_epochs=0)
    assert learning_rate(config, state_after(0, None), 0.01) == 0.1


@pytest.mark.parametrize(
    ("num_epochs", "share", "cooldown"),
    [(10, 0.5, 5), (10, 0.3, 3), (20, 0.2, 4), (1, 0.3, 0), (5, 0.0, 0)],
)
def test_the_cooldown_takes_its_share_of_all_epochs(num_epochs, share, cooldown):
    config = training_config(
        num_epochs=num_epochs, cooldown_share=share, warmup_epochs=0, batch_size=8
    )
    state = train(config, scans=blob_scans(2, 1), val=blob_scans(1, 2))
    rates = [r.learning_rate for r in state.records]
    assert len(rates) == num_epochs
    assert sum(rate < config.learning_rate for rate in rates) == cooldown


@pytest.mark.parametrize(
    ("done", "cooldown_from", "settled", "schedule", "expected"),
    [
        (0, None, False, "cooldown", False),
        (9, None, False, "cooldown", False),
        (10, None, False, "cooldown", True),
        (4, None, True, "constant", True),
        (4, None, True, "cooldown", False),  # the cooldown is yet to come
        (7, 4, True, "cooldown", False),
        (8, 4, True, "cooldown", True),
    ],
)
def test_is_finished(done, cooldown_from, settled, schedule, expected):
    config = training_config(num_epochs=10, cooldown_share=0.5, learning_rate_schedule=schedule)
    state = state_after(done, cooldown_from)
    state.curricula = (dataclasses.replace(state.curricula[0], settled=settled),)
    assert is_finished(state, config, 1) is expected


def test_a_finished_state_trains_no_further():
    config = training_config(num_epochs=2)
    state = train(config)
    assert list(fit(state, TRAIN, VAL, config, CURRICULUM, STILL, ONE_STAGE)) == []


# --- the records ---------------------------------------------------------------------


def test_records_carry_every_number_of_train_and_validation():
    row = train(training_config(num_epochs=1)).records[0].flat()
    scores = ("kl_nats", "dice", "mse", "mse_relative")
    errors = [
        f"error_{unit}{which}" for unit in ("voxels", "mm") for which in ("", "_median", "_max")
    ]
    names = {f"{split}_{name}" for split in ("train", "val") for name in (*scores, *errors)}
    assert set(row) == names | {"epoch", "sigma_voxels", "learning_rate", "seconds"}
    assert all(math.isfinite(value) for value in row.values())
    assert row["seconds"] > 0


def test_millimetres_follow_voxels_by_the_spacing():
    val = train(training_config(num_epochs=1)).records[0].val
    assert val.error_mm == pytest.approx(0.1 * val.error_voxels)


def test_without_spacing_a_record_has_no_millimetres():
    state = train(training_config(num_epochs=1), val=blob_scans(2, 2, spacing_mm=None))
    row = state.records[0].flat()
    assert "train_error_mm" in row
    assert not [name for name in row if name.startswith("val_") and "mm" in name]


def test_all_three_scores_are_recorded_whichever_is_the_loss():
    """They are of the same maps: KL falls also where Dice is trained on."""
    records = train(training_config(num_epochs=8, loss="dice")).records
    assert records[-1].val.kl_nats < records[0].val.kl_nats
    assert records[-1].val.dice > records[0].val.dice
    assert records[-1].val.mse < records[0].val.mse


# --- several objects -----------------------------------------------------------------

TWO_STAGES = NetworkConfig(coarse=2, channels=(4, 8), stride=2, window=(16, 16, 16))


def train_pairs(scans, val, network=NETWORK, **changes) -> TrainingState:
    config = training_config(**changes)
    # the window of 16 voxels that two stages have here is too small for a sigma of 2
    narrow = dataclasses.replace(
        CURRICULUM, minimum_sigma_voxels=1.0, coarse_minimum_sigma_voxels=2.0
    )
    two = len(network.stages()) == 2
    sigmas = decide_sigmas(narrow if two else CURRICULUM, network)
    state = fresh_state(config, network, sigmas, objects=2)
    for _ in fit(state, scans, val, config, sigmas, MOVED, network.stages()):
        pass
    return state


@pytest.mark.slow
@pytest.mark.parametrize("network", [NETWORK, TWO_STAGES], ids=["one stage", "two stages"])
def test_scans_without_one_object_train_the_other(network):
    """Every scan lacks one, so each is learned from scans that lack the other."""
    scans = pair_scans(24, 1, {i: i % 2 for i in range(24)})
    state = train_pairs(
        scans, pair_scans(6, 2), network, num_epochs=16, learning_rate=0.02, batch_size=2
    )
    best = state.records[state.best_epoch - 1].val
    assert {name: each.error_voxels < 1.2 for name, each in best.by_object.items()} == {
        "bright": True,
        "dark": True,
    }


@pytest.mark.parametrize("network", [NETWORK, TWO_STAGES], ids=["one stage", "two stages"])
def test_an_object_that_no_scan_shows_leaves_its_channels_alone(network):
    scans = pair_scans(4, 1, dict.fromkeys(range(4), 1))
    config = training_config(weight_decay=0.0, num_epochs=2)
    sigmas = decide_sigmas(CURRICULUM, network)
    state = fresh_state(config, network, sigmas, objects=2)
    before = copy.deepcopy(state.network.state_dict())
    for record in fit(state, scans, scans, config, sigmas, MOVED, network.stages()):
        assert all(math.isfinite(value) for value in record.flat().values())
        assert not [name for name in record.flat() if "dark" in name]
    outputs = {k: v for k, v in state.network.state_dict().items() if len(v) == 2}
    assert outputs
    for name, values in outputs.items():
        assert torch.equal(values[1], before[name][1])
    assert any(not torch.equal(values[0], before[name][0]) for name, values in outputs.items())


def test_each_objects_numbers_are_recorded_beside_those_of_all():
    records = train_pairs(pair_scans(6, 1, {2: 0}), pair_scans(3, 2, {1: 1}), num_epochs=2).records
    for record in records:
        row = record.flat()
        assert all(math.isfinite(value) for value in row.values())
        bright, dark = row["val_error_bright_voxels"], row["val_error_dark_voxels"]
        assert row["val_error_voxels"] == pytest.approx((3 * bright + 2 * dark) / 5)
        kls = row["train_kl_bright_nats"], row["train_kl_dark_nats"]
        assert row["train_kl_nats"] == pytest.approx((5 * kls[0] + 6 * kls[1]) / 11)
        assert row["val_error_dark_mm"] == pytest.approx(dark / 10)


def test_a_step_weighs_every_object_that_its_batch_shows_the_same():
    """Not every scan: one that lacks an object would count its other one twice."""
    scans = pair_scans(4, 1, {0: 1, 3: 0})
    config = training_config(batch_size=4, num_epochs=1)
    state = fresh_state(config, objects=2)
    expected = copy.deepcopy(state.network)
    seen = forward_training_batch(
        expected, ONE_STAGE, scans.images, scans.points, (4.0,), None, None
    )
    kl = seen[0].score(with_stand_ins(scans.points)).kl_nats
    kl[are_present(scans.points)].mean().backward()
    nn.utils.clip_grad_norm_(expected.parameters(), GRADIENT_NORM)
    for _ in fit(state, scans, scans, config, CURRICULUM, STILL, ONE_STAGE):
        pass
    for got, wanted in zip(state.network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(got.grad, wanted.grad, rtol=1e-3, atol=1e-5)


# --- two stages ----------------------------------------------------------------------

# a window of 16 and coarse heatmap voxels of 4, as 64 and 16 are at 512 x 128 x 128
STAGES = dataclasses.replace(
    CURRICULUM,
    initial_sigma_voxels=4.0,
    minimum_sigma_voxels=0.75,
    coarse_initial_sigma_voxels=4.0,
    coarse_minimum_sigma_voxels=1.75,
    fine_initial_sigma_voxels=2.0,
    threshold=1.5,
)


@pytest.mark.parametrize("trigger", ["error", "loss"])
def test_every_target_that_is_rendered_has_the_sigma_of_the_record(monkeypatch, trigger):
    """Regression: at 512 x 128 x 128 a schedule of 8 / 6.4 / 5.12 was 8 / 6.4 / 6 and 4 / 4 / 4."""
    rendered: list[tuple[tuple[int, ...], float]] = []

    def noting(points, shape, sigma):
        rendered.append((tuple(shape), sigma))
        return gaussian_factors(points, shape, sigma)

    monkeypatch.setattr("jawloc.training.coarse_to_fine.gaussian_factors", noting)
    ways = TWO_STAGES.stages()
    sizes = ((4, 3, 3), (8, 8, 8))  # of the coarse heatmap, and of the fine one's window
    schedule = dataclasses.replace(STAGES, trigger=trigger, threshold=3.0)
    config = training_config(num_epochs=8, learning_rate=0.02, batch_size=4)
    state = fresh_state(config, TWO_STAGES, schedule)
    for record in fit(state, TRAIN, VAL, config, schedule, MOVED, ways):
        own = [{s for shape, s in rendered if shape == size} for size in sizes]
        assert len(rendered) == 2 * (2 + 3)  # two stages; two steps and three validation scans
        assert own == [
            {stage.sigma_voxels / way.heatmap_stride}
            for stage, way in zip(record.stages, ways, strict=True)
        ]
        rendered.clear()
    coarse, fine = zip(*(r.sigmas_voxels for r in state.records), strict=True)
    assert (coarse[0], fine[0]) == (4.0, 2.0)
    assert len(set(coarse)) > 2
    assert len(set(fine)) > 2
    assert min(coarse) >= 1.75
    assert min(fine) >= 0.75


def test_each_stage_shrinks_by_its_own_error(monkeypatch):
    """A coarse stage that is right and a fine one that isn't, and the other way round."""
    for errors in ([(1.0, 9.0)] * 3, [(9.0, 1.0)] * 3):
        said = iter([tuple(record(0, error).val for error in pair) for pair in errors])
        with monkeypatch.context() as patch:
            patch.setattr("jawloc.training.loop.validate", lambda *_, said=said: next(said))
            config = training_config(num_epochs=3)
            state = fresh_state(config, TWO_STAGES, STAGES)
            list(fit(state, TRAIN, VAL, config, STAGES, STILL, TWO_STAGES.stages()))
        sigmas = [r.sigmas_voxels for r in state.records]
        if errors[0][0] < errors[0][1]:
            assert sigmas == [(4.0, 2.0), (pytest.approx(2.8), 2.0), (pytest.approx(1.96), 2.0)]
        else:
            assert sigmas == [(4.0, 2.0), (4.0, pytest.approx(1.4)), (4.0, pytest.approx(0.98))]


def test_each_stage_shrinks_by_its_own_loss():
    """A threshold between the two stages' losses shrinks the sigma of one of them only."""
    schedule = dataclasses.replace(STAGES, trigger="loss", threshold=1e-9)
    config = training_config(num_epochs=2, batch_size=8)
    state = fresh_state(config, TWO_STAGES, schedule)
    first = next(fit(state, TRAIN, VAL, config, schedule, STILL, TWO_STAGES.stages()))
    coarse, fine = (stage.train.kl_nats for stage in first.stages)
    assert abs(coarse - fine) > 0.01
    schedule = dataclasses.replace(schedule, threshold=(coarse + fine) / 2)
    state = fresh_state(config, TWO_STAGES, schedule)
    list(fit(state, TRAIN, VAL, config, schedule, STILL, TWO_STAGES.stages()))
    (coarse_0, fine_0), (coarse_1, fine_1) = (r.sigmas_voxels for r in state.records)
    assert (coarse_1 < coarse_0, fine_1 < fine_0) == (coarse < fine, fine < coarse)


def test_the_threshold_moves_the_stage_that_gives_the_position():
    """Regression: searched thresholds moved a sigma that the fine stage wasn't trained at."""
    ends = []
    for threshold in (1e-6, 1e6):
        schedule = dataclasses.replace(STAGES, threshold=threshold)
        config = training_config(num_epochs=4)
        state = fresh_state(config, TWO_STAGES, schedule)
        list(fit(state, TRAIN, VAL, config, schedule, STILL, TWO_STAGES.stages()))
        ends.append(state.records[-1].sigmas_voxels)
    assert ends == [(4.0, 2.0), (1.75, 0.75)]


def test_two_stages_log_each_its_sigma_and_the_coarse_one_its_own_numbers():
    config = training_config(num_epochs=1)
    state = fresh_state(config, TWO_STAGES, STAGES)
    (only,) = fit(state, TRAIN, VAL, config, STAGES, STILL, TWO_STAGES.stages())
    row = only.flat()
    assert (row["sigma_voxels"], row["sigma_fine_voxels"], row["sigma_coarse_voxels"]) == (2, 2, 4)
    coarse, fine = only.stages
    assert (coarse.name, fine.name) == ("coarse", "fine")
    assert row["val_error_coarse_voxels"] == coarse.val.error_voxels
    assert row["train_kl_coarse_nats"] == coarse.train.kl_nats
    assert row["val_kl_coarse_nats"] == coarse.val.kl_nats
    assert row["val_error_voxels"] == fine.val.error_voxels != coarse.val.error_voxels
    points = [
        predict_stages(state.average.eval(), TWO_STAGES.stages(), VAL.images[i : i + 1], (4.0, 2.0))
        for i in range(3)
    ]
    for stage, number in ((coarse, 0), (fine, 1)):
        found = torch.cat([seen[number].decode().points for seen in points])
        error = (found - VAL.points).norm(dim=-1).mean().item()
        assert stage.val.error_voxels == pytest.approx(error, rel=1e-5)


def test_training_ends_by_the_stage_that_gives_the_position(monkeypatch):
    said = iter([(record(0, coarse).val, record(0, 1.0).val) for coarse in range(90, 0, -1)])
    monkeypatch.setattr("jawloc.training.loop.validate", lambda *_: next(said))
    schedule = dataclasses.replace(STAGES, minimum_sigma_voxels=2.0, stop_patience=3)
    config = training_config(num_epochs=60, learning_rate_schedule="constant")
    state = fresh_state(config, TWO_STAGES, schedule)
    records = list(fit(state, TRAIN, VAL, config, schedule, STILL, TWO_STAGES.stages()))
    assert len(records) == 4  # the coarse error still falls, and its sigma has not begun to shrink
    assert records[-1].sigmas_voxels == (4.0, 2.0)


def test_a_position_without_weight_teaches_nothing_and_one_of_full_weight_as_much_as_without():
    def learned(scans):
        state = fresh_state(training_config(num_epochs=1))
        config = training_config(num_epochs=1)
        list(fit(state, scans, VAL, config, CURRICULUM, STILL, ONE_STAGE))
        return state.network.state_dict()

    def same(a, b):
        return all(torch.equal(a[key], b[key]) for key in a)

    full, none = torch.ones(8, 1), torch.ones(8, 1)
    none[3] = 0
    moved = TRAIN.points.clone()
    moved[3] = torch.tensor([2.0, 3.0, 4.0])
    elsewhere = dataclasses.replace(TRAIN, points=moved)
    assert same(learned(TRAIN), learned(dataclasses.replace(TRAIN, weights=full)))
    assert same(*(learned(dataclasses.replace(s, weights=none)) for s in (TRAIN, elsewhere)))
    assert not same(learned(TRAIN), learned(elsewhere))
