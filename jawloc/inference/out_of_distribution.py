"""Out-of-distribution scores: numbers that tell an unusual scan, or prediction, from good ones.

Each score is about normally distributed among good scans, whatever its unit; its reference range is
learned (`learn_references.py`). A scan's own scores need no network: grey values, voxel sizes, and
along each axis the profile of brightness, in which an upside-down or cut-off fish differs. The
scores of a prediction are those of each object.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jawloc.geometry import Grid
from jawloc.inference.ensemble import NetworkPrediction, ensemble_disagreement
from jawloc.training.intensity import grey_percentiles

AXES = "zyx"
PROFILE_BINS = 16  # of an axis
PROFILE_SAMPLES = 32  # voxels along each of the other two axes, at most about
BRIGHT = 99.0  # percentile of a slice: bone, where there is some
GREY_PERCENTILES = {"median": 50.0, "bright": 99.5}
LEAST_VOXELS = 1e-3  # of a length; what is below counts as this
LOWEST_SHARE = 1e-6  # of probability; what is below counts as this
HIGHEST_LIKENESS = 0.999
# Scores that are suspicious in one direction only; for the others, both directions count.
HIGH_IS_SUSPECT = frozenset({"spread", "elsewhere", "disagreement"})
LOW_IS_SUSPECT = frozenset(
    {
        "contrast",
        "contrast_close",
        "presence",
        *(f"{score_name}_{a}" for score_name in ("profile", "upright") for a in AXES),
    }
)
EXPLANATIONS = {
    "grey": "grey values unlike the training scans'",
    "size": "a voxel size unlike the training scans'",
    "shape": "proportions unlike the training scans'",
    "profile": "brightness along an axis unlike the training scans'",
    "upright": "brightness along an axis as in a training scan turned over",
    "position": "a place where no training scan has it",
    "spread": "a probability map that is wide",
    "elsewhere": "another place that is as likely",
    "contrast": "nothing that stands out",
    "presence": "a place that doesn't show it",
    "disagreement": "networks that name different places",
}
GREY_SCALE = "grey"  # what the signs of the grey values' scale begin with
OodScores = Mapping[str, float]  # by name
Profile = np.ndarray  # (2, bin): mean and bright grey values along an axis, each standardised


def explain_score(score_name: str) -> str:
    """Say what a sign is a sign of."""
    return EXPLANATIONS[score_name.partition("_")[0]]


def is_grey_scale_score(score_name: str) -> bool:
    """Say whether a sign is only of the scale of a scan's grey values."""
    return score_name.partition("_")[0] == GREY_SCALE


def brightness_profiles(image: np.ndarray) -> list[Profile]:
    """Return how bright a downsampled image is along each axis (z, y, x).

    Returns
    -------
    One array an axis, shape (2, bin): the mean and the 99th percentile of every slice, meant in
    `PROFILE_BINS` bins, each with a mean of 0 and a standard deviation of 1 (0 where it is flat).
    """
    return [_profile(np.moveaxis(image, axis, 0)) for axis in range(3)]


def _profile(image: np.ndarray) -> Profile:
    steps = [max(1, n // PROFILE_SAMPLES) for n in image.shape[1:]]
    slices = image[:, :: steps[0], :: steps[1]].reshape(len(image), -1)
    along = np.stack([slices.mean(axis=1), np.percentile(slices, BRIGHT, axis=1)])
    bins = np.array_split(along, min(PROFILE_BINS, len(image)), axis=1)
    values = np.stack([part.mean(axis=1) for part in bins], axis=1)
    values -= values.mean(axis=1, keepdims=True)
    deviation = values.std(axis=1, keepdims=True)
    return np.divide(values, deviation, out=values, where=deviation > 0)


def odd_part(profile: Profile) -> np.ndarray:
    """Return what of a profile changes its sign when the scan is turned over, as a vector."""
    half = profile.shape[1] // 2
    return ((profile - profile[:, ::-1]) / 2)[:, :half].ravel()


def upright_direction(profiles: Sequence[Profile]) -> np.ndarray:
    """Return the direction that tells upright scans from scans turned over best.

    Fisher's linear discriminant between the profiles and their mirror images, with a covariance
    shrunk for few scans (Ledoit and Wolf, J. Multivar. Anal. 88, 2004).

    Returns
    -------
    array, to be multiplied with `odd_part`: positive where a scan is upright
    """
    # here, since only learning needs it: importing it takes as long as locating
    from sklearn.covariance import LedoitWolf  # type: ignore[import-untyped]

    odd = np.stack([odd_part(profile) for profile in profiles])
    if len(odd) < 2:
        return odd[0]
    shrunk = LedoitWolf().fit(odd).covariance_
    return np.linalg.solve(shrunk + 1e-6 * np.eye(len(shrunk)), odd.mean(axis=0))


@dataclass(frozen=True)
class ImageFeatures:
    """What signs are made of, of one scan.

    Attributes
    ----------
    grey_values : grey values by name, before any scaling
    profiles : one an axis, as `brightness_profiles` returns them
    """

    grey_values: Mapping[str, float]
    profiles: Sequence[Profile]


def image_features(image: np.ndarray) -> ImageFeatures:
    """Look at a downsampled image (z, y, x)."""
    percentages = tuple(GREY_PERCENTILES.values())
    grey_values = dict(zip(GREY_PERCENTILES, grey_percentiles(image, percentages), strict=True))
    return ImageFeatures(grey_values, brightness_profiles(image))


def scan_ood_scores(
    features: ImageFeatures,
    full: Grid,
    usual: Sequence[Profile],
    upright: Sequence[np.ndarray | None],
) -> dict[str, float]:
    """Return the signs of a scan that need no network.

    Parameters
    ----------
    full : the full-size grid
    usual : the training scans' mean profile along each axis
    upright : the direction along each axis that tells scans turned over; None where training
        turns scans over itself
    """
    ood_scores = {f"grey_{name}": math.asinh(value) for name, value in features.grey_values.items()}
    if full.spacing_mm_zyx is not None:
        spacing = zip(AXES, full.spacing_mm_zyx, strict=True)
        ood_scores |= {f"size_{a}": math.log(mm) for a, mm in spacing}
    # proportions, which need no spacing
    lengths = np.log(full.shape_zyx)
    ood_scores |= {
        f"shape_{a}_to_z": float(lengths[i] - lengths[0]) for i, a in enumerate(AXES) if i
    }
    for axis, profile, mean, direction in zip(AXES, features.profiles, usual, upright, strict=True):
        ood_scores[f"profile_{axis}"] = _likeness(profile, mean)
        if direction is not None:
            ood_scores[f"upright_{axis}"] = float(odd_part(profile) @ direction)
    return ood_scores


def _likeness(own: Profile, mean: Profile) -> float:
    """Return Fisher's z of the correlation of two profiles; 0 where one is flat."""
    scale = float(np.linalg.norm(own) * np.linalg.norm(mean))
    correlation = float(np.vdot(own, mean)) / scale if scale > 0 else 0.0
    return math.atanh(max(-HIGHEST_LIKENESS, min(HIGHEST_LIKENESS, correlation)))


def position_ood_scores(
    found: NetworkPrediction, index: int, shape_zyx: Sequence[int]
) -> dict[str, float]:
    """Return the signs of one object's position, by its number; `shape_zyx` of the small grid."""
    share = min(max(float(found.elsewhere[index]), LOWEST_SHARE), 1 - LOWEST_SHARE)
    places = (found.points[index] + 0.5) / np.asarray(shape_zyx, float)
    return {
        "spread": math.log(max(float(found.width[index]), LEAST_VOXELS)),
        "elsewhere": math.log(share / (1 - share)),
        "contrast": float(found.contrast[index]),
        "contrast_close": float(found.fine_contrast[index]),
        **{f"position_{axis}": float(place) for axis, place in zip(AXES, places, strict=True)},
    }


def ensemble_ood_scores(
    network_predictions: Sequence[NetworkPrediction], shape_zyx: Sequence[int]
) -> list[OodScores]:
    """Return the signs of each object's position, as one network or several say it.

    Each sign is the mean of what single networks' signs are, since usual ranges are learned from
    single networks; several have one more, of how much they disagree.
    """
    every: list[OodScores] = []
    for index in range(len(network_predictions[0].points)):
        own = [position_ood_scores(one, index, shape_zyx) for one in network_predictions]
        every.append({name: float(np.mean([s[name] for s in own])) for name in own[0]})
    if len(network_predictions) > 1:
        apart = disagreement_scores(np.stack([one.points for one in network_predictions]))
        every = [{**ood_scores, **own} for ood_scores, own in zip(every, apart, strict=True)]
    return every


def disagreement_scores(points: np.ndarray) -> list[OodScores]:
    """Return the sign of how much networks disagree, of each object.

    Parameters
    ----------
    points : array, shape (network, object, 3), voxels of the downsampled grid
    """
    apart = ensemble_disagreement(points)
    return [{"disagreement": math.log(max(float(value), LEAST_VOXELS))} for value in apart]


def is_in_suspect_direction(score_name: str, value: float, usual_mean: float) -> bool:
    """Say whether a value is on the side of the usual ones on which a sign is worrying."""
    if score_name in HIGH_IS_SUSPECT:
        return value > usual_mean
    if score_name in LOW_IS_SUSPECT:
        return value < usual_mean
    return True
