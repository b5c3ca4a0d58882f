"""The mask's loss is what its definition says; centroid and volume are those of the mask."""

import math

import pytest
import torch

from jawloc.heatmaps.mask import mask_centroids, mask_loss, mask_volumes

SHAPE = (7, 6, 5)


def box(first, last):
    """Return a mask (1, 1, z, y, x) that is 1 from one corner to another, both included."""
    mask = torch.zeros(1, 1, *SHAPE)
    mask[0, 0][tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))] = 1
    return mask


def whole(logits):
    """Return that all voxels lie in the image."""
    return tuple(torch.ones(*logits.shape[:2], n) for n in logits.shape[2:])


def sure(mask):
    """Return logits of a network that is sure of this mask."""
    return 20 * (2 * mask - 1)


def loss_of(logits, targets):
    return mask_loss(logits, targets, whole(logits))


def test_what_lies_beyond_the_image_has_no_loss():
    mask = box((1, 1, 1), (3, 4, 2))
    logits, inside = sure(mask), whole(mask)
    logits[..., 4] = 20.0  # wrong, where nothing is asked
    assert float(loss_of(logits, mask)) > 1
    inside[2][..., 4] = 0
    assert float(mask_loss(logits, mask, inside)) == pytest.approx(0, abs=1e-5)


def test_a_right_mask_has_no_loss_and_a_wrong_one_a_large_one():
    mask = box((1, 1, 1), (3, 4, 2))
    assert float(loss_of(sure(mask), mask)) == pytest.approx(0, abs=1e-5)
    assert float(loss_of(sure(1 - mask), mask)) > 10


def test_the_loss_of_a_mask_of_one_half_everywhere_is_known():
    mask = box((0, 0, 0), (0, 5, 4))  # a seventh of the volume
    dice = 2 * 15 / (105 + 30)
    loss = float(loss_of(torch.zeros(1, 1, *SHAPE), mask))
    assert loss == pytest.approx(math.log(2) + 1 - dice, abs=1e-4)


def test_an_empty_mask_asks_for_an_empty_prediction():
    empty = torch.zeros(1, 1, *SHAPE)
    assert float(loss_of(sure(empty), empty)) == pytest.approx(0, abs=1e-2)
    assert float(loss_of(torch.zeros_like(empty), empty)) > 1


def test_an_unknown_mask_has_neither_loss_nor_gradient_and_leaves_the_others_theirs():
    logits = torch.randn(2, 1, *SHAPE, requires_grad=True)
    known = box((1, 1, 1), (2, 2, 2))
    losses = loss_of(logits, torch.cat([known, torch.full_like(known, math.nan)]))
    assert losses[1, 0] == 0 < losses[0, 0]
    losses.sum().backward()
    assert logits.grad[1].abs().max() == 0 < logits.grad[0].abs().max()
    assert logits.grad.isfinite().all()


def test_centroid_and_volume_are_those_of_the_mask():
    logits = sure(torch.cat([box((1, 2, 0), (3, 4, 1)), box((6, 0, 4), (6, 0, 4))], dim=1))
    expected = torch.tensor([[[2.0, 3.0, 0.5], [6.0, 0.0, 4.0]]])
    torch.testing.assert_close(mask_centroids(logits, whole(logits)), expected, atol=1e-4, rtol=0)
    volumes = mask_volumes(logits, whole(logits))
    torch.testing.assert_close(volumes, torch.tensor([[18.0, 1.0]]), rtol=1e-4, atol=0)


def test_voxels_that_reach_beyond_the_image_count_by_what_lies_inside():
    logits = sure(box((4, 0, 0), (6, 0, 0)))
    inside = (torch.tensor([[[1, 1, 1, 1, 1, 0.5, 0]]]), *whole(logits)[1:])
    # voxel 4, and the lower half of voxel 5, whose middle is at 4.75
    middle = (4 + 0.5 * 4.75) / 1.5
    assert mask_centroids(logits, inside)[0, 0].tolist() == pytest.approx([middle, 0, 0], abs=1e-4)
    assert float(mask_volumes(logits, inside)) == pytest.approx(1.5, abs=1e-4)


def test_voxels_that_are_half_sure_count_half():
    logits = torch.full((1, 1, *SHAPE), -20.0)
    logits[0, 0, 1, 1, 1], logits[0, 0, 4, 1, 1] = 20.0, 0.0
    centroid = mask_centroids(logits, whole(logits))
    assert float(centroid[0, 0, 0]) == pytest.approx(2.0, abs=1e-4)  # (1 + 4 / 2) / 1.5


def test_where_nothing_is_in_the_mask_there_is_no_centroid():
    logits = torch.full((1, 1, *SHAPE), -3.0)
    assert mask_centroids(logits, whole(logits)).isnan().all()


def test_an_object_thinner_than_a_voxel_has_a_centroid():
    """Regression: a probability of one half was asked for, which thin bones never have."""
    logits = torch.full((1, 1, *SHAPE), -20.0)
    logits[0, 0, 2:5, 3, 1] = -1.0
    centroid = mask_centroids(logits, whole(logits))
    torch.testing.assert_close(centroid, torch.tensor([[[3.0, 3.0, 1.0]]]))
