"""Scans that are flipped, cut off or of other grey values have other scores."""

import math
from dataclasses import replace

import numpy as np
import pytest

from jawloc.geometry import Grid
from jawloc.inference.ensemble import NetworkPrediction
from jawloc.inference.out_of_distribution import (
    EXPLANATIONS,
    antisymmetric_part,
    brightness_profiles,
    ensemble_ood_scores,
    explain_score,
    image_features,
    is_in_suspect_direction,
    position_ood_scores,
    scan_ood_scores,
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


def prediction_of(point, width, distant, contrast, fine_contrast):
    """Return a network's prediction for one object."""
    numbers = (np.array([value]) for value in (width, 0.0, distant, contrast, fine_contrast))
    return NetworkPrediction(np.array([point], float), *numbers, np.zeros((1, 1, 1, 1)))


def scores_of(image, full=FULL):
    every_features = [image_features(upright_scan(seed)) for seed in range(12)]
    mean_profiles = [
        np.mean([features.profiles[axis] for features in every_features], axis=0)
        for axis in range(3)
    ]
    upright = upright_direction([features.profiles[0] for features in every_features])
    return scan_ood_scores(image_features(image), full, mean_profiles, [upright, None, None])


def test_profiles_are_standardised_and_as_many_bins_as_there_is_room_for():
    z, y, x = brightness_profiles(upright_scan(0))
    assert (z.shape, y.shape, x.shape) == ((2, 16), (2, 12), (2, 10))
    np.testing.assert_allclose(z.mean(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(z.std(axis=1), 1)
    np.testing.assert_array_equal(brightness_profiles(np.full(SHAPE, 7))[0], 0)


def test_flipping_a_scan_changes_the_sign_of_its_antisymmetric_part():
    image = upright_scan(1)
    own, flipped = brightness_profiles(image)[0], brightness_profiles(image[::-1])[0]
    np.testing.assert_allclose(antisymmetric_part(flipped), -antisymmetric_part(own), atol=1e-9)


def test_upright_scans_are_told_from_flipped_ones():
    for seed in range(20, 30):
        image = upright_scan(seed)
        own, flipped = scores_of(image), scores_of(image[::-1])
        assert own["upright_z"] > 0 > flipped["upright_z"]
        assert own["profile_z"] > flipped["profile_z"] + 1
        assert "upright_y" not in own


def test_grey_values_and_sizes():
    image = upright_scan(3)
    own, brighter = scores_of(image), scores_of(image * 10)
    assert brighter["grey_median"] - own["grey_median"] == pytest.approx(np.log(10), abs=1e-3)
    # bin by bin the same picture
    assert brighter["profile_z"] == pytest.approx(own["profile_z"])
    assert own["size_z"] == pytest.approx(np.log(0.02))
    assert own["shape_y_to_z"] == pytest.approx(np.log(120 / 320))
    assert "size_z" not in scores_of(image, Grid(FULL.shape_zyx))


def test_scores_of_a_position():
    ood_scores = position_ood_scores(prediction_of((15.5, 5.5, -0.5), 2.0, 0.5, 8.0, 6.0), 0, SHAPE)
    assert ood_scores == {
        "spread": pytest.approx(np.log(2)),
        "elsewhere": pytest.approx(0.0),
        "contrast": 8.0,
        "contrast_close": 6.0,
        "position_z": 0.5,
        "position_y": 0.5,
        "position_x": 0.0,
    }
    for share in (0.0, 1.0):
        extreme = position_ood_scores(prediction_of((0, 0, 0), 0.0, share, 0.0, 0.0), 0, SHAPE)
        assert np.isfinite(list(extreme.values())).all()


def test_several_networks_have_the_mean_of_their_scores_and_how_much_they_disagree():
    points = (15.5, 5.5, 4.5), (17.5, 5.5, 4.5)
    one = prediction_of(points[0], 2.0, 0.5, 8.0, 6.0)
    other = prediction_of(points[1], 8.0, 0.5, 4.0, 6.0)
    (ood_scores,) = ensemble_ood_scores([one, other], SHAPE)
    assert ood_scores["spread"] == pytest.approx(np.log(4))
    assert (ood_scores["contrast"], ood_scores["position_z"]) == (6.0, pytest.approx(17 / 32))
    # the two differ by 2 voxels along z: a variance of 2 there, and of 0 along the other axes
    assert ood_scores["disagreement"] == pytest.approx(np.log(np.sqrt(2 / 3)))
    assert "disagreement" not in ensemble_ood_scores([one], SHAPE)[0]
    assert is_in_suspect_direction("disagreement", 1.0, 0.0) and not is_in_suspect_direction(
        "disagreement", -1.0, 0.0
    )


@pytest.mark.parametrize(
    ("score_name", "low", "high"),
    [
        ("spread", False, True),
        ("contrast", True, False),
        ("upright_z", True, False),
        ("profile_y", True, False),
        ("grey_median", True, True),
        ("position_x", True, True),
    ],
)
def test_which_direction_is_suspect(score_name, low, high):
    assert (
        is_in_suspect_direction(score_name, -1.0, 0.0),
        is_in_suspect_direction(score_name, 1.0, 0.0),
    ) == (low, high)


def test_every_score_has_an_explanation():
    image = upright_scan(0)
    found = prediction_of((0, 0, 0), 1.0, 0.1, 1.0, 1.0)
    found = replace(found, mask_volume=np.array([30.0]))
    names = {*scores_of(image), *position_ood_scores(found, 0, SHAPE), "presence", "disagreement"}
    assert {explain_score(name) for name in names} == set(EXPLANATIONS.values())


def test_the_predicted_volume_is_a_score_where_masks_were_learned():
    found = prediction_of((3, 3, 3), 1.0, 0.1, 1.0, 1.0)
    assert "volume" not in position_ood_scores(found, 0, SHAPE)
    volumes = [
        position_ood_scores(replace(found, mask_volume=np.array([value])), 0, SHAPE)["volume"]
        for value in (100.0, 200.0, 0.0)
    ]
    assert volumes[1] - volumes[0] == pytest.approx(math.log(2))
    assert volumes[2] < volumes[0] - 5
