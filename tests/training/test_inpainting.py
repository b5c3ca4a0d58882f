"""What is left of a scan from which an object is painted over."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jawloc.training import inpainting
from jawloc.training.inpainting import MOST_MARGIN, RING, ObjectRegion, inpaint

BOX = (slice(8, 11), slice(4, 8), slice(5, 7))


def scan() -> tuple[torch.Tensor, ObjectRegion]:
    """A dim scan with a bright L-shaped object in it."""
    image = torch.rand(24, 16, 12, generator=torch.Generator().manual_seed(0))
    inside = np.zeros(image.shape, bool)
    inside[BOX] = True
    inside[9:11, 5:8, 6] = False
    image[torch.from_numpy(inside)] += 5
    return image, ObjectRegion.from_mask(inside)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_region_is_the_box_of_the_objects_voxels():
    _, region = scan()
    assert region.start_zyx == (8, 4, 5)
    assert region.inside.shape == (3, 4, 2)
    assert int(region.inside.sum()) == 3 * 4 * 2 - 2 * 3


@pytest.mark.parametrize("seed", range(40))
def test_the_object_is_gone_and_what_is_far_from_it_is_left(seed):
    image, region = scan()
    before = image.clone()
    erased = inpaint(image, region, seeded(seed))
    assert torch.equal(image, before)  # a copy was painted on
    changed = erased != image
    own = changed[8, 4:8, 5:7]  # the object's uppermost slice
    assert int(own.sum()) >= own.numel() - 1  # flat paint may be one of its own grey values
    reach = [slice(part.start - MOST_MARGIN, part.stop + MOST_MARGIN) for part in BOX]
    outside = torch.ones_like(changed)
    outside[tuple(reach)] = False
    assert not (changed & outside).any()
    assert torch.equal(erased, inpaint(image, region, seeded(seed)))


def test_each_paint_gives_as_many_grey_values_as_there_are_voxels():
    image, region = scan()
    for margin, boxed in ((0, False), (2, True)):
        part, inside = inpainting._dilate(region, margin, boxed, image.shape)
        assert image[part].shape == inside.shape
        for paint in inpainting.PAINTS:
            values = paint(image, part, inside, seeded(1))
            assert values.shape == (int(inside.sum()),)
            assert torch.isfinite(values).all()
    flat = inpainting._flat(image, part, inside, seeded(1))
    assert len(flat.unique()) == 1
    around = image[part][~inside]
    assert torch.isin(inpainting._shuffled(image, part, inside, seeded(1)), around).all()


def test_an_object_that_fills_the_image_or_lies_at_its_border_is_erased_too():
    image = torch.rand(6, 6, 6, generator=seeded(0))
    for inside in (np.ones((6, 6, 6), bool), np.eye(6, dtype=bool)[0][:, None, None] * [[[True]]]):
        whole = np.broadcast_to(inside, (6, 6, 6)).copy()
        for seed in range(20):
            assert torch.isfinite(inpaint(image, ObjectRegion.from_mask(whole), seeded(seed))).all()


def test_the_ring_is_as_wide_as_it_says():
    image, region = scan()
    _, inside = inpainting._dilate(region, 1, True, image.shape)
    assert inside.shape == tuple(n + 2 * (1 + RING) for n in region.inside.shape)
    assert int(inside.sum()) == (3 + 2) * (4 + 2) * (2 + 2)


def test_a_ball_is_round_in_mm_and_never_empty():
    inside = inpainting.sphere((9, 9, 9), np.array([4.0, 4.0, 4.0]), np.array([2.0, 1.0, 0.5]))
    expected = {(z, 4, 4) for z in (2, 3, 4, 5, 6)} | {(4, 3, 4), (4, 5, 4)}
    assert {tuple(place) for place in np.argwhere(inside).tolist()} == expected
    tiny = inpainting.sphere((9, 9, 9), np.array([8.4, -0.4, 3.6]), np.full(3, 0.1))
    assert np.argwhere(tiny).tolist() == [[8, 0, 4]]
