"""Signs of trouble: the numbers by which a scan, or what was found in it, can be told from others.

Each is a number that is about normally distributed among good scans, whatever its unit; which
values are usual is learned (calibration.py). Signs of a scan need no network: grey values, voxel
sizes, and along each axis the profile of brightness, which an upside-down or cut-off fish does not
share. Signs of a prediction are those of each object.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jawloc.geometry import Grid
from jawloc.locating.opinions import Opinion, disagreement
from jawloc.training.intensity import grey_percentiles

AXES = "zyx"
PROFILE_BINS = 16  # of an axis
PROFILE_SAMPLES = 32  # voxels along each of the other two axes, at most about
BRIGHT = 99.0  # percentile of a slice: bone, where there is some
GREY_PERCENTILES = {"median": 50.0, "bright": 99.5}
LEAST_VOXELS = 1e-3  # of a length; what is below counts as this
LOWEST_SHARE = 1e-6  # of probability; what is below counts as this
HIGHEST_LIKENESS = 0.999
# Signs that are worrying in one direction only; of the others, both count.
ONLY_HIGH = frozenset({"spread", "elsewhere", "disagreement"})
ONLY_LOW = frozenset(
    {
        "contrast",
        "contrast_close",
        "presence",
        *(f"{sign}_{a}" for sign in ("profile", "upright") for a in AXES),
    }
)
WORDS = {
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
Signs = Mapping[str, float]  # by name
Profile = np.ndarray  # (2, bin): mean and bright grey values along an axis, each standardised


def in_words(sign: str) -> str:
    """Say what a sign is a sign of."""
    return WORDS[sign.partition("_")[0]]


def is_of_grey_scale(sign: str) -> bool:
    """Say whether a sign is only of the scale of a scan's grey values."""
    return sign.partition("_")[0] == GREY_SCALE


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
class ScanLook:
    """What signs are made of, of one scan.

    Attributes
    ----------
    greys : grey values by name, before any scaling
    profiles : one an axis, as `brightness_profiles` returns them
    """

    greys: Mapping[str, float]
    profiles: Sequence[Profile]


def look_of_scan(image: np.ndarray) -> ScanLook:
    """Look at a downsampled image (z, y, x)."""
    percentages = tuple(GREY_PERCENTILES.values())
    greys = dict(zip(GREY_PERCENTILES, grey_percentiles(image, percentages), strict=True))
    return ScanLook(greys, brightness_profiles(image))


def signs_of_scan(
    look: ScanLook, full: Grid, usual: Sequence[Profile], upright: Sequence[np.ndarray | None]
) -> dict[str, float]:
    """Return the signs of a scan that need no network.

    Parameters
    ----------
    full : the full-size grid
    usual : the training scans' mean profile along each axis
    upright : the direction along each axis that tells scans turned over; None where training
        turns scans over itself
    """
    signs = {f"grey_{name}": math.asinh(value) for name, value in look.greys.items()}
    if full.spacing_mm_zyx is not None:
        spacing = zip(AXES, full.spacing_mm_zyx, strict=True)
        signs |= {f"size_{a}": math.log(mm) for a, mm in spacing}
    # proportions, which need no spacing
    lengths = np.log(full.shape_zyx)
    signs |= {f"shape_{a}_to_z": float(lengths[i] - lengths[0]) for i, a in enumerate(AXES) if i}
    for axis, profile, mean, direction in zip(AXES, look.profiles, usual, upright, strict=True):
        signs[f"profile_{axis}"] = _likeness(profile, mean)
        if direction is not None:
            signs[f"upright_{axis}"] = float(odd_part(profile) @ direction)
    return signs


def _likeness(own: Profile, mean: Profile) -> float:
    """Return Fisher's z of the correlation of two profiles; 0 where one is flat."""
    scale = float(np.linalg.norm(own) * np.linalg.norm(mean))
    correlation = float(np.vdot(own, mean)) / scale if scale > 0 else 0.0
    return math.atanh(max(-HIGHEST_LIKENESS, min(HIGHEST_LIKENESS, correlation)))


def signs_of_position(found: Opinion, index: int, shape_zyx: Sequence[int]) -> dict[str, float]:
    """Return the signs of one object's position, by its number; `shape_zyx` of the small grid."""
    share = min(max(float(found.elsewhere[index]), LOWEST_SHARE), 1 - LOWEST_SHARE)
    places = (found.points[index] + 0.5) / np.asarray(shape_zyx, float)
    return {
        "spread": math.log(max(float(found.width[index]), LEAST_VOXELS)),
        "elsewhere": math.log(share / (1 - share)),
        "contrast": float(found.contrast[index]),
        "contrast_close": float(found.close_contrast[index]),
        **{f"position_{axis}": float(place) for axis, place in zip(AXES, places, strict=True)},
    }


def signs_of_networks(opinions: Sequence[Opinion], shape_zyx: Sequence[int]) -> list[Signs]:
    """Return the signs of each object's position, as one network or several say it.

    Each sign is the mean of what single networks' signs are, since usual ranges are learned from
    single networks; several have one more, of how much they disagree.
    """
    every: list[Signs] = []
    for index in range(len(opinions[0].points)):
        own = [signs_of_position(one, index, shape_zyx) for one in opinions]
        every.append({name: float(np.mean([s[name] for s in own])) for name in own[0]})
    if len(opinions) > 1:
        apart = sign_of_disagreement(np.stack([one.points for one in opinions]))
        every = [{**signs, **own} for signs, own in zip(every, apart, strict=True)]
    return every


def sign_of_disagreement(points: np.ndarray) -> list[Signs]:
    """Return the sign of how much networks disagree, of each object.

    Parameters
    ----------
    points : array, shape (network, object, 3), voxels of the downsampled grid
    """
    apart = disagreement(points)
    return [{"disagreement": math.log(max(float(value), LEAST_VOXELS))} for value in apart]


def is_worrying(sign: str, value: float, usual_mean: float) -> bool:
    """Say whether a value is on the side of the usual ones on which a sign is worrying."""
    if sign in ONLY_HIGH:
        return value > usual_mean
    if sign in ONLY_LOW:
        return value < usual_mean
    return True
