"""Out-of-distribution scores: numbers that tell an unusual scan or prediction from good ones.

Each score is about normally distributed among good scans; its reference range is learned
(`calibrate.py`). A scan's own scores need no network: grey values, voxel sizes, proportions,
and along each axis the brightness profile, which differs if the fish is upside down or cut off.
Each object's position has scores of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jawloc.geometry import Grid
from jawloc.inference.ensemble import NetworkPrediction
from jawloc.training.intensity import grey_percentiles

AXES = "zyx"
PROFILE_BINS = 16  # of an axis
PROFILE_SAMPLES = 32  # voxels along each of the other two axes, at most about
BRIGHT = 99.0  # percentile of a slice: bone, where there is some
GREY_PERCENTILES = {"median": 50.0, "bright": 99.5}
GREY_SCALE_PREFIX = "grey_"  # of scores that depend on nothing but the scale of grey values
LEAST_VOXELS = 1e-3  # lengths below count as this
LOWEST_SHARE = 1e-6  # shares of probability below count as this
HIGHEST_CORRELATION = 0.999
# Why a scan is flagged, by the first word of the score's name.
EXPLANATIONS = {
    "grey": "grey values differ from the training scans'",
    "size": "voxel size differs from the training scans'",
    "shape": "proportions of the scan differ from the training scans'",
    "profile": "brightness along an axis differs from the training scans'",
    "upright": "specimen appears to be flipped along an axis",
    "position": "position lies far from those in scans held out of training",
    "spread": "heatmap is wider than in scans held out of training",
    "elsewhere": "heatmap shows a second likely position",
    "contrast": "heatmap has no distinct peak",
    "volume": "predicted outline is larger or smaller than in scans held out of training",
    "presence": "object does not appear to be at this position",
    "disagreement": "networks of the ensemble disagree on the position",
}
# Scores that are suspect in one direction only; for the others, both directions count.
HIGH_IS_SUSPECT = {"spread", "elsewhere", "disagreement"}
LOW_IS_SUSPECT = {"contrast", "presence", "profile", "upright"}
OodScores = Mapping[str, float]  # by name
Profile = np.ndarray  # (2, bin): mean and bright grey values along an axis, each standardised


def explain_score(name: str) -> str:
    """Return the reason for a flag that this score raises."""
    return EXPLANATIONS[name.partition("_")[0]]


def is_in_suspect_direction(name: str, value: float, reference_mean: float) -> bool:
    """Return whether a score's value lies on a suspect side of its reference mean."""
    kind = name.partition("_")[0]
    if kind in HIGH_IS_SUSPECT:
        return value > reference_mean
    return kind not in LOW_IS_SUSPECT or value < reference_mean


@dataclass(frozen=True)
class ImageFeatures:
    """What the out-of-distribution scores of a scan are computed from."""

    grey_values: Mapping[str, float]  # percentiles by name, before any scaling
    profiles: Sequence[Profile]  # one an axis, as `brightness_profiles` returns them


def image_features(image: np.ndarray) -> ImageFeatures:
    """Compute the features of a downsampled image (z, y, x)."""
    percentages = tuple(GREY_PERCENTILES.values())
    grey_values = dict(zip(GREY_PERCENTILES, grey_percentiles(image, percentages), strict=True))
    return ImageFeatures(grey_values, brightness_profiles(image))


def brightness_profiles(image: np.ndarray) -> list[Profile]:
    """Return the profile (2, bin) of a downsampled image along each axis.

    It holds the mean and the 99th percentile of every slice, averaged in `PROFILE_BINS` bins, each
    with a mean of 0 and a standard deviation of 1 (0 where it is flat).
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


def antisymmetric_part(profile: Profile) -> np.ndarray:
    """Return the part of a profile that changes its sign when the scan is flipped, as a vector."""
    half = profile.shape[1] // 2
    return ((profile - profile[:, ::-1]) / 2)[:, :half].ravel()


def upright_direction(profiles: Sequence[Profile]) -> np.ndarray:
    """Return the vector whose product with `antisymmetric_part` is positive for upright scans.

    Fisher's linear discriminant between the profiles and their mirror images, with a covariance
    shrunk for few scans (Ledoit and Wolf, J. Multivar. Anal. 88, 2004).
    """
    # here, since only learning needs it: importing it takes as long as locating
    from sklearn.covariance import LedoitWolf  # type: ignore[import-untyped]

    parts = np.stack([antisymmetric_part(profile) for profile in profiles])
    if len(parts) < 2:
        return parts[0]
    shrunk = LedoitWolf().fit(parts).covariance_
    return np.linalg.solve(shrunk + 1e-6 * np.eye(len(shrunk)), parts.mean(axis=0))


def scan_ood_scores(
    features: ImageFeatures,
    full: Grid,
    mean_profiles: Sequence[Profile],
    upright: Sequence[np.ndarray | None],
) -> dict[str, float]:
    """Return the scores of a scan that need no network; `full` is its full-size grid.

    Along each axis, `mean_profiles` are the training scans', and `upright` is as
    `upright_direction` returns it, or None where training flips scans.
    """
    scores = {
        f"{GREY_SCALE_PREFIX}{name}": math.asinh(value)
        for name, value in features.grey_values.items()
    }
    if full.spacing_mm_zyx is not None:
        spacing = zip(AXES, full.spacing_mm_zyx, strict=True)
        scores |= {f"size_{a}": math.log(mm) for a, mm in spacing}
    lengths = np.log(full.shape_zyx)  # proportions need no spacing
    scores |= {f"shape_{a}_to_z": float(lengths[i] - lengths[0]) for i, a in enumerate(AXES) if i}
    axes = zip(AXES, features.profiles, mean_profiles, upright, strict=True)
    for axis, profile, mean, direction in axes:
        scores[f"profile_{axis}"] = _similarity(profile, mean)
        if direction is not None:
            scores[f"upright_{axis}"] = float(antisymmetric_part(profile) @ direction)
    return scores


def _similarity(own: Profile, mean: Profile) -> float:
    """Return Fisher's z of the correlation of two profiles; 0 where one is flat."""
    scale = float(np.linalg.norm(own) * np.linalg.norm(mean))
    correlation = float(np.vdot(own, mean)) / scale if scale > 0 else 0.0
    return math.atanh(max(-HIGHEST_CORRELATION, min(HIGHEST_CORRELATION, correlation)))


def position_ood_scores(
    found: NetworkPrediction, index: int, shape_zyx: Sequence[int]
) -> dict[str, float]:
    """Return the scores of one object's position; `shape_zyx` is the downsampled grid's."""
    share = float(found.distant_probability[index])
    share = min(max(share, LOWEST_SHARE), 1 - LOWEST_SHARE)
    places = (found.points[index] + 0.5) / np.asarray(shape_zyx, float)
    volume = {}
    if found.mask_volume is not None:
        volume["volume"] = math.log(max(float(found.mask_volume[index]), LEAST_VOXELS))
    return {
        "spread": math.log(max(float(found.width[index]), LEAST_VOXELS)),
        "elsewhere": math.log(share / (1 - share)),
        "contrast": float(found.contrast[index]),
        "contrast_close": float(found.fine_contrast[index]),
        **{f"position_{axis}": float(place) for axis, place in zip(AXES, places, strict=True)},
        **volume,
    }


def ensemble_ood_scores(
    predictions: Sequence[NetworkPrediction], shape_zyx: Sequence[int]
) -> list[OodScores]:
    """Return the scores of each object's position, as one or several networks predict it.

    Each score is the mean over the networks, since reference ranges are learned from single
    networks; several networks have one more, the disagreement between them.
    """
    by_object: list[OodScores] = []
    for index in range(len(predictions[0].points)):
        own = [position_ood_scores(one, index, shape_zyx) for one in predictions]
        by_object.append({name: float(np.mean([s[name] for s in own])) for name in own[0]})
    if len(predictions) == 1:
        return by_object
    disagreement = disagreement_scores(np.stack([one.points for one in predictions]))
    return [{**scores, **more} for scores, more in zip(by_object, disagreement, strict=True)]


def disagreement_scores(points: np.ndarray) -> list[OodScores]:
    """Return each object's score of disagreement between networks' points (network, object, 3).

    It is the logarithm of their standard deviation per axis, whose expectation does not depend on
    the number of networks.
    """
    deviations = np.sqrt(points.var(axis=0, ddof=1).mean(axis=-1))
    return [{"disagreement": math.log(max(float(value), LEAST_VOXELS))} for value in deviations]
