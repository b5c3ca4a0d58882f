"""Test-time augmentation, and the average of the copies' predictions."""

import pytest
import torch

from jawloc.geometry import Shape
from jawloc.heatmaps.target import gaussian_factors
from jawloc.inference.ensemble import combine_copies
from jawloc.inference.test_time_augmentation import AugmentedCopy, augmented_copies
from jawloc.training.coarse_to_fine import StagePrediction

SHAPE: Shape = (12, 10, 8)


def marked(point):
    image = torch.zeros(1, *SHAPE)
    image[0, *point] = 1
    return image


@pytest.mark.parametrize("flipped", [(), ("y",), ("z", "x"), ("z", "y", "x")])
def test_points_of_every_copy_come_back_to_the_image(flipped):
    point = (7, 4, 2)
    images, copies = augmented_copies(marked(point), flipped)
    assert len(images) == len(copies) == (3 if flipped else 2)
    for image, copy in zip(images, copies, strict=True):
        (found,) = torch.nonzero(image[0])
        assert copy.map_back(found.float()).tolist() == list(point)


def test_a_shifted_copy_repeats_the_first_voxels():
    image = torch.arange(12.0 * 10 * 8).view(1, *SHAPE)
    _, (shifted,) = augmented_copies(image, ())[0]
    earlier = [torch.tensor([0, *range(size - 1)]) for size in SHAPE]
    assert torch.equal(shifted, image[0][torch.meshgrid(*earlier, indexing="ij")])


def predicted_at(points, sigma=1.5):
    """Return the prediction of a network that renders a Gaussian at each point (one a copy)."""
    where = torch.tensor(points, dtype=torch.float32)[:, None]
    z, y, x = gaussian_factors(where, SHAPE, sigma)
    maps = z[..., :, None, None] * y[..., None, :, None] * x[..., None, None, :]
    start = torch.zeros(len(points), 1, 3)
    return StagePrediction(maps.clamp_min(1e-30).log(), start, 1, sigma, SHAPE)


def test_copies_that_agree_leave_the_spread_alone_and_others_widen_it():
    _, copies = augmented_copies(torch.zeros(1, *SHAPE), ("y", "x"))
    same = combine_copies([predicted_at([(6, 5, 4), (7, 6, 5), (6, 4, 3)])], copies, SHAPE)
    torch.testing.assert_close(torch.tensor(same.points), torch.tensor([[6.0, 5, 4]]).double())
    other = combine_copies([predicted_at([(6, 5, 4), (7, 6, 5), (9, 4, 3)])], copies, SHAPE)
    assert other.points[0, 0] == pytest.approx(7, abs=1e-3)
    assert other.width[0] ** 2 == pytest.approx(same.width[0] ** 2 + 2 / 3, rel=0.1)
    # a map that is just the rendered Gaussian has no spread of its own
    assert same.width[0] == pytest.approx(1.5, rel=0.05)
    assert same.spread[0] < 0.1
    assert other.spread[0] == pytest.approx((2 / 3) ** 0.5, rel=0.05)


def test_the_probability_of_a_second_peak_is_distant():
    one, far = predicted_at([(2, 2, 2)], 0.8), predicted_at([(10, 8, 6)], 0.8)
    both = StagePrediction(torch.logaddexp(one.logits, far.logits - 0.5), one.start, 1, 0.8, SHAPE)
    copies = [AugmentedCopy(SHAPE)]
    share = torch.sigmoid(torch.tensor(-0.5)).item()
    assert combine_copies([both], copies, SHAPE).distant_probability[0] == pytest.approx(
        share, abs=0.01
    )
    assert combine_copies([one], copies, SHAPE).distant_probability[0] < 0.01
