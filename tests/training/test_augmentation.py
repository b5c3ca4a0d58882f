"""Augmentation: image and points move together, again in the same way, and never out of sight."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from jawloc.heatmaps.target import render
from jawloc.training.augmentation import (
    Augmentation,
    AugmentationConfig,
    draw_augmentation,
    transform_images,
    transform_intensities,
    transform_points,
)

SHAPE = (40, 32, 28)
NOTHING = AugmentationConfig(
    flip_axes=(),
    rotation_degrees_zyx=(0.0, 0.0, 0.0),
    scale=0.0,
    shift=0.0,
    gain=0.0,
    offset=0.0,
    gamma=0.0,
    noise=0.0,
)
CUBES, LONG_VOXELS = (1.0, 1.0, 1.0), (3.0, 1.0, 1.5)


def only(**changes) -> AugmentationConfig:
    """Return a configuration that changes nothing but this."""
    return dataclasses.replace(NOTHING, **changes)


EVERYTHING = only(
    flip_axes=("z", "y", "x"),
    rotation_degrees_zyx=(180.0, 20.0, 20.0),
    scale=0.2,
    shift=0.1,
    gain=0.2,
    offset=0.1,
    gamma=0.2,
    noise=0.05,
)
GEOMETRIES = {
    "flips": only(flip_axes=("z", "y", "x")),
    "turned about z": only(rotation_degrees_zyx=(180.0, 0.0, 0.0)),
    "tilted": only(rotation_degrees_zyx=(0.0, 25.0, 25.0)),
    "scaled": only(scale=0.2),
    "shifted": only(shift=0.15),
    "all at once": dataclasses.replace(EVERYTHING, gain=0.0, offset=0.0, gamma=0.0, noise=0.0),
}


def draw(
    config: AugmentationConfig, points: torch.Tensor, voxel_size=CUBES, seed: int = 0, shape=SHAPE
) -> Augmentation:
    sizes = torch.tensor(voxel_size).expand(len(points), 3)
    return draw_augmentation(config, points, shape, sizes, torch.Generator().manual_seed(seed))


def augment(
    images: torch.Tensor, points: torch.Tensor, change: Augmentation
) -> tuple[torch.Tensor, torch.Tensor]:
    moved = transform_intensities(transform_images(images, change), change)
    return moved, transform_points(points, change, SHAPE)


def central_points(count: int, objects: int = 1) -> torch.Tensor:
    """Return points (count, objects, 3) far enough inside for a blob to stay whole."""
    share = torch.rand(count, objects, 3, generator=torch.Generator().manual_seed(1))
    return (0.38 + 0.24 * share) * torch.tensor(SHAPE)


def centres_of_mass(images: torch.Tensor) -> torch.Tensor:
    """Return (batch, 1, 3)."""
    axes = torch.meshgrid(*(torch.arange(float(n)) for n in images.shape[2:]), indexing="ij")
    total = images.sum((2, 3, 4))
    return torch.stack([(images * axis).sum((2, 3, 4)) / total for axis in axes], dim=-1)


def random_images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 1, *SHAPE, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("voxel_size", [CUBES, LONG_VOXELS])
@pytest.mark.parametrize("config", GEOMETRIES.values(), ids=GEOMETRIES)
def test_the_image_moves_to_where_the_point_moves(config, voxel_size):
    """Targets are rendered at the moved points: a disagreement would train a wrong position."""
    points = central_points(8)
    images = render(points, SHAPE, 1.6)
    moved, moved_points = augment(images, points, draw(config, points, voxel_size))
    assert (moved_points - points).abs().max() > 0.3  # something happened
    torch.testing.assert_close(centres_of_mass(moved), moved_points, atol=0.03, rtol=0)


@pytest.mark.parametrize("name", ["turned about z", "tilted", "all at once"])
def test_rotation_keeps_physical_proportions(name):
    """Two points keep their distance in mm (times the scale), whatever the voxels' edges."""
    config = dataclasses.replace(GEOMETRIES[name], scale=0.0)
    points = central_points(6, objects=2)
    moved = transform_points(points, draw(config, points, LONG_VOXELS), SHAPE)
    size = torch.tensor(LONG_VOXELS)
    before = ((points[:, 0] - points[:, 1]) * size).norm(dim=-1)
    after = ((moved[:, 0] - moved[:, 1]) * size).norm(dim=-1)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_scaling_multiplies_distances_within_its_range():
    points = central_points(50, objects=2)
    moved = transform_points(points, draw(only(scale=0.2), points), SHAPE)
    ratio = (moved[:, 0] - moved[:, 1]).norm(dim=-1) / (points[:, 0] - points[:, 1]).norm(dim=-1)
    assert 1 / 1.2 <= ratio.min() < 0.9
    assert 1.1 < ratio.max() <= 1.2


def test_a_shift_stays_within_its_share_of_each_axis():
    points = torch.tensor(SHAPE).expand(100, 1, 3) / 2.0
    moved = (transform_points(points, draw(only(shift=0.1), points), SHAPE) - points).abs()
    limit = 0.1 * torch.tensor(SHAPE)
    assert (moved <= limit + 1e-4).all()
    assert (moved.amax((0, 1)) > 0.8 * limit).all()


@pytest.mark.parametrize(
    ("axes", "can_move"),
    [((), (False,) * 3), (("x",), (False, False, True)), (("z", "y"), (True, True, False))],
)
def test_only_the_axes_of_the_setting_are_flipped(axes, can_move):
    """Left and right may differ: then flips must be off."""
    points = torch.full((60, 1, 3), 5.0)
    moved = transform_points(points, draw(only(flip_axes=axes), points), SHAPE)
    mirrored = torch.tensor(SHAPE) - 1 - 5.0
    for axis, flips in enumerate(can_move):
        seen = {round(v, 3) for v in moved[:, 0, axis].tolist()}
        assert seen == ({5.0, mirrored[axis].item()} if flips else {5.0})


@pytest.mark.parametrize("axis", ["z", "y", "x"])
def test_a_flip_is_the_array_reversed(axis):
    points, images = central_points(6), random_images(6)
    change = draw(only(flip_axes=(axis,)), points)
    flipped = transform_points(points, change, SHAPE) != points
    moved = transform_images(images, change)
    where = flipped.flatten(1).any(1)
    assert where.any()
    assert not where.all()
    reversed_images = images.flip(2 + "zyx".index(axis))
    torch.testing.assert_close(moved[where], reversed_images[where], atol=1e-4, rtol=0)
    torch.testing.assert_close(moved[~where], images[~where], atol=1e-4, rtol=0)


def test_a_quarter_turn_about_z_takes_y_to_x():
    """The sense of a rotation is the same for image and point, and z stays."""
    change = draw(NOTHING, torch.zeros(1, 1, 3))
    turn = torch.tensor([[[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]])
    change = dataclasses.replace(change, matrix=turn, shift_voxels=torch.zeros(1, 3))
    shape = (6, 9, 9)
    image = torch.zeros(1, 1, *shape)
    image[0, 0, 4, 6, 4] = 1
    moved_point = transform_points(torch.tensor([[[4.0, 6.0, 4.0]]]), change, shape)
    torch.testing.assert_close(moved_point, torch.tensor([[[4.0, 4.0, 6.0]]]))
    assert transform_images(image, change)[0, 0, 4, 4, 6].item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("config", [NOTHING, dataclasses.replace(NOTHING, flip_axes=())])
def test_ranges_of_zero_change_nothing(config):
    images = random_images() * 3 - 1
    points = torch.tensor([[[-0.5, 0.0, 27.5]], [[39.4, 31.5, 3.0]]])  # the faces included
    moved, moved_points = augment(images, points, draw(config, points))
    torch.testing.assert_close(moved, images, atol=1e-4, rtol=0)
    torch.testing.assert_close(moved_points, points, atol=1e-4, rtol=0)


def test_replaying_a_drawn_change_gives_the_identical_result():
    points, images = central_points(2), random_images()
    change = draw(EVERYTHING, points)
    first, second = augment(images, points, change), augment(images, points, change)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_one_seed_draws_one_change():
    points = central_points(2)
    first, again, other = (draw(EVERYTHING, points, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first.matrix, again.matrix)
    assert torch.equal(first.noise_seeds, again.noise_seeds)
    assert not torch.equal(first.matrix, other.matrix)


def test_augmentation_leaves_the_global_random_state_alone():
    points, images = central_points(2), random_images()
    before = torch.get_rng_state()
    augment(images, points, draw(EVERYTHING, points))
    assert torch.equal(torch.get_rng_state(), before)


def test_inputs_are_not_changed_in_place():
    points, images = central_points(2), random_images()
    copies = points.clone(), images.clone()
    augment(images, points, draw(EVERYTHING, points))
    assert torch.equal(points, copies[0])
    assert torch.equal(images, copies[1])


@pytest.mark.parametrize("objects", [1, 2])
def test_every_point_stays_inside_the_volume(objects):
    """A target whose peak lies outside would teach the network to point at the border."""
    generator = torch.Generator().manual_seed(3)
    near = torch.tensor([0.0, 0.02, 0.5, 0.98, 1.0])
    chosen = near[torch.randint(5, (200, 1, 3), generator=generator)]
    points = (chosen * torch.tensor(SHAPE) - 0.5).expand(200, objects, 3).clone()
    points[:, 1:] += torch.rand(200, objects - 1, 3, generator=generator)
    wild = dataclasses.replace(EVERYTHING, shift=0.4, rotation_degrees_zyx=(180.0, 90.0, 90.0))
    moved = transform_points(points, draw(wild, points), SHAPE)
    assert (moved >= -0.5 - 1e-3).all()
    assert (moved <= torch.tensor(SHAPE) - 0.5 + 1e-3).all()


@pytest.mark.parametrize("seed", range(3))
def test_intensity_changes_stay_within_their_ranges(seed):
    points = central_points(50)
    change = draw(EVERYTHING, points, seed=seed)
    for values, low, high in (
        (change.gain, 0.8, 1.2),
        (change.offset, -0.1, 0.1),
        (change.gamma, 1 / 1.2, 1.2),
        (change.noise, 0.0, 0.05),
    ):
        assert low <= values.min() < values.max() <= high


@pytest.mark.parametrize(
    ("changes", "grey", "expected"),
    [
        ({"gain": 1.5}, 0.4, 0.6),
        ({"offset": 0.3}, 0.4, 0.7),
        ({"gamma": 2.0}, 0.5, 0.25),
        ({"gamma": 2.0}, -0.2, -0.2),  # below the grey range: no root of a negative number
        ({"gamma": 0.5, "gain": 2.0, "offset": -1.0}, 0.25, 0.0),
        ({"gamma": 0.5}, 0.0, 0.0),
    ],
)
def test_gamma_then_gain_then_offset(changes, grey, expected):
    change = draw(NOTHING, torch.zeros(1, 1, 3))
    tensors = {name: torch.tensor([value]) for name, value in changes.items()}
    changed = transform_intensities(
        torch.full((1, 1, 2, 2, 2), grey), dataclasses.replace(change, **tensors)
    )
    torch.testing.assert_close(changed, torch.full_like(changed, expected))


def test_noise_has_the_drawn_standard_deviation():
    change = dataclasses.replace(
        draw(NOTHING, torch.zeros(2, 1, 3)), noise=torch.tensor([0.0, 0.3])
    )
    noise = transform_intensities(torch.zeros(2, 1, *SHAPE), change)
    assert noise[0].abs().max() == 0
    assert noise[1].std().item() == pytest.approx(0.3, rel=0.02)


def test_what_comes_in_from_outside_is_the_repeated_edge():
    """Black wedges would tell the network how it was rotated."""
    points = central_points(3)
    change = draw(GEOMETRIES["all at once"], points)
    moved = transform_images(torch.full((3, 1, *SHAPE), 0.7), change)
    torch.testing.assert_close(moved, torch.full_like(moved, 0.7))


def test_rotations_fill_their_range():
    points = central_points(200)
    matrix = draw(GEOMETRIES["turned about z"], points).matrix
    degrees = torch.atan2(matrix[:, 2, 1], matrix[:, 1, 1]) * 180 / math.pi
    assert degrees.min() < -150
    assert degrees.max() > 150
    tilt = torch.acos(draw(GEOMETRIES["tilted"], points).matrix[:, 0, 0]) * 180 / math.pi
    assert 20 < tilt.max() < 36


def test_a_missing_object_stays_missing_and_limits_nothing():
    points = central_points(20, objects=2)
    alone = points[:, :1]
    lacking = points.clone()
    lacking[:, 1] = float("nan")
    wild = dataclasses.replace(EVERYTHING, shift=0.4)
    with_it, without = draw(wild, lacking), draw(wild, alone)
    assert torch.equal(with_it.shift_voxels, without.shift_voxels)
    moved = transform_points(lacking, with_it, SHAPE)
    assert moved[:, 1].isnan().all()
    torch.testing.assert_close(moved[:, :1], transform_points(alone, without, SHAPE))


def test_a_scan_without_any_point_is_moved_all_the_same():
    points = torch.full((3, 2, 3), float("nan"))
    assert draw(EVERYTHING, points).shift_voxels.isfinite().all()
