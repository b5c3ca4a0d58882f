"""Scans that are turned over, cut off or of other grey values have other signs."""

import numpy as np
import pytest

from jawloc.geometry import Grid
from jawloc.locating.opinions import Opinion
from jawloc.locating.signs import (
    WORDS,
    brightness_profiles,
    in_words,
    is_worrying,
    look_of_scan,
    odd_part,
    signs_of_networks,
    signs_of_position,
    signs_of_scan,
    upright_direction,
)

SHAPE = (32, 12, 10)
FULL = Grid((320, 120, 100), (0.02, 0.03, 0.03))


def upright_scan(seed):
    """A body that is brighter towards the top, with a bright spot in it."""
    random = np.random.default_rng(seed)
    image = random.normal(1000, 30, SHAPE) + np.linspace(0, 400, SHAPE[0])[:, None, None]
    z = int(random.integers(20, 28))
    image[z - 3 : z + 3, 3:8, 3:8] += 1000
    return image.astype(np.uint16)


def opinion_of(point, spread, elsewhere, contrast, close):
    """What a network says of one object."""
    numbers = (np.array([value]) for value in (spread, 0.0, elsewhere, contrast, close))
    return Opinion(np.array([point], float), *numbers, np.zeros((1, 1, 1, 1)))


def signs_of(image, full=FULL):
    looks = [look_of_scan(upright_scan(seed)) for seed in range(12)]
    usual = [np.mean([look.profiles[axis] for look in looks], axis=0) for axis in range(3)]
    upright = upright_direction([look.profiles[0] for look in looks])
    return signs_of_scan(look_of_scan(image), full, usual, [upright, None, None])


def test_profiles_are_standardised_and_as_many_bins_as_there_is_room_for():
    z, y, x = brightness_profiles(upright_scan(0))
    assert (z.shape, y.shape, x.shape) == ((2, 16), (2, 12), (2, 10))
    np.testing.assert_allclose(z.mean(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(z.std(axis=1), 1)
    np.testing.assert_array_equal(brightness_profiles(np.full(SHAPE, 7))[0], 0)


def test_turning_a_scan_over_turns_its_odd_part():
    image = upright_scan(1)
    own, turned = brightness_profiles(image)[0], brightness_profiles(image[::-1])[0]
    np.testing.assert_allclose(odd_part(turned), -odd_part(own), atol=1e-9)


def test_upright_scans_are_told_from_turned_ones():
    for seed in range(20, 30):
        image = upright_scan(seed)
        own, turned = signs_of(image), signs_of(image[::-1])
        assert own["upright_z"] > 0 > turned["upright_z"]
        assert own["profile_z"] > turned["profile_z"] + 1
        assert "upright_y" not in own


def test_grey_values_and_sizes():
    image = upright_scan(3)
    own, louder = signs_of(image), signs_of(image * 10)
    assert louder["grey_median"] - own["grey_median"] == pytest.approx(np.log(10), abs=1e-3)
    # bin by bin the same picture
    assert louder["profile_z"] == pytest.approx(own["profile_z"])
    assert own["size_z"] == pytest.approx(np.log(0.02))
    assert own["shape_y_to_z"] == pytest.approx(np.log(120 / 320))
    assert "size_z" not in signs_of(image, Grid(FULL.shape_zyx))


def test_signs_of_a_position():
    signs = signs_of_position(opinion_of((15.5, 5.5, -0.5), 2.0, 0.5, 8.0, 6.0), 0, SHAPE)
    assert signs == {
        "spread": pytest.approx(np.log(2)),
        "elsewhere": pytest.approx(0.0),
        "contrast": 8.0,
        "contrast_close": 6.0,
        "position_z": 0.5,
        "position_y": 0.5,
        "position_x": 0.0,
    }
    for share in (0.0, 1.0):
        extreme = signs_of_position(opinion_of((0, 0, 0), 0.0, share, 0.0, 0.0), 0, SHAPE)
        assert np.isfinite(list(extreme.values())).all()


def test_several_networks_have_the_mean_of_their_signs_and_how_much_they_disagree():
    points = (15.5, 5.5, 4.5), (17.5, 5.5, 4.5)
    one = opinion_of(points[0], 2.0, 0.5, 8.0, 6.0)
    other = opinion_of(points[1], 8.0, 0.5, 4.0, 6.0)
    (signs,) = signs_of_networks([one, other], SHAPE)
    assert signs["spread"] == pytest.approx(np.log(4))
    assert (signs["contrast"], signs["position_z"]) == (6.0, pytest.approx(17 / 32))
    # the two differ by 2 voxels along z: a variance of 2 there, and of 0 along the other axes
    assert signs["disagreement"] == pytest.approx(np.log(np.sqrt(2 / 3)))
    assert "disagreement" not in signs_of_networks([one], SHAPE)[0]
    assert is_worrying("disagreement", 1.0, 0.0) and not is_worrying("disagreement", -1.0, 0.0)


@pytest.mark.parametrize(
    ("sign", "low", "high"),
    [
        ("spread", False, True),
        ("contrast", True, False),
        ("upright_z", True, False),
        ("profile_y", True, False),
        ("grey_median", True, True),
        ("position_x", True, True),
    ],
)
def test_which_side_is_worrying(sign, low, high):
    assert (is_worrying(sign, -1.0, 0.0), is_worrying(sign, 1.0, 0.0)) == (low, high)


def test_every_sign_has_words():
    image = upright_scan(0)
    found = opinion_of((0, 0, 0), 1.0, 0.1, 1.0, 1.0)
    names = {*signs_of(image), *signs_of_position(found, 0, SHAPE), "presence", "disagreement"}
    assert {in_words(name) for name in names} == set(WORDS.values())
