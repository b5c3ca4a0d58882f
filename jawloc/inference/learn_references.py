"""Learning reference ranges and the conformal radius from scans with known truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jawloc.geometry import Grid
from jawloc.inference.conformal import calibrate_radius
from jawloc.inference.out_of_distribution import (
    AXES,
    ImageFeatures,
    OodScores,
    is_in_suspect_direction,
    scan_ood_scores,
    upright_direction,
)
from jawloc.inference.quality import (
    UNCERTAIN_P_VALUE,
    PositionReference,
    ScanReference,
    assess_quality,
)
from jawloc.inference.reference_range import ReferenceRange, reference_range

CONFIDENCE = 0.9  # of the radius
EXTREME_SHARE = 0.02  # share of the calibration scans that may be flagged themselves
# Lower bound of a score's standard deviation: scans of one scanner may agree to a digit.
LEAST_DEVIATION = 0.02


def learn_scan_reference(
    scans: Sequence[tuple[ImageFeatures, Grid]], flipped_axes: Sequence[str] = ()
) -> ScanReference:
    """Learn the reference of whole scans.

    Parameters
    ----------
    scans : at least one; the grid is the full-size one
    flipped_axes : out of z, y and x: those along which training flips scans, so that both
        orientations are usual
    """
    every_features = [features for features, _ in scans]
    usual, upright = _profiles(every_features, flipped_axes)
    # each scan is scored against the others, as a new one will be
    every = [
        scan_ood_scores(
            features,
            full,
            *_profiles(
                [*every_features[:i], *every_features[i + 1 :]] or every_features, flipped_axes
            ),
        )
        for i, (features, full) in enumerate(scans)
    ]
    return ScanReference(usual, upright, reference_ranges(every))


def _profiles(
    every_features: Sequence[ImageFeatures], flipped_axes: Sequence[str]
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray | None, ...]]:
    along = [[features.profiles[axis] for features in every_features] for axis in range(3)]
    upright = tuple(
        None if name in flipped_axes else upright_direction(every)
        for name, every in zip(AXES, along, strict=True)
    )
    return tuple(np.mean(every, axis=0) for every in along), upright


@dataclass(frozen=True)
class HeldOutPosition:
    """One object in one scan that the network was not trained on.

    Attributes
    ----------
    specimen : that was scanned
    error_voxels : in voxels of the full-size scan; None where the scan helped to choose the
        weights, so that its error is optimistic
    width_voxels : of the heatmap, in voxels of the full-size scan
    ood_scores : of the position
    """

    scan_id: str
    specimen: str
    error_voxels: float | None
    width_voxels: float
    ood_scores: OodScores


def learn_position_reference(
    held_out: Sequence[HeldOutPosition],
    *,
    error_ratio: float = 1.0,
    pairs: Sequence[OodScores] = (),
) -> PositionReference:
    """Learn the reference of one object's positions.

    Parameters
    ----------
    error_ratio : by which the errors are multiplied, where they are of single networks and the
        average of several will be used
    pairs : scores of the disagreement between two networks, which a single network lacks
    """
    fair = [h for h in held_out if h.error_voxels is not None]
    errors = [error_ratio * float(h.error_voxels or 0) for h in fair]
    specimens = [h.specimen for h in fair]
    conformal = calibrate_radius(errors, [h.width_voxels for h in fair], CONFIDENCE, specimens)
    ranges = {**reference_ranges([h.ood_scores for h in held_out]), **reference_ranges(pairs)}
    return PositionReference(conformal, ranges, len(set(specimens)))


def reference_ranges(every: Sequence[OodScores]) -> dict[str, ReferenceRange]:
    """Learn the reference range of each score.

    Where the good scans have heavier tails than a normal distribution, a range is widened until all
    but the most extreme scans lie inside it.
    """
    ranges = {name: reference_range(values, LEAST_DEVIATION) for name, values in _columns(every)}
    extreme = sorted(range(len(every)), key=lambda i: assess_quality(ranges, every[i]).p_value)
    rest = [every[i] for i in extreme[int(EXTREME_SHARE * (len(every) + 1)) :]]
    suspect = {
        name: [v for v in values if is_in_suspect_direction(name, v, ranges[name].mean)]
        for name, values in _columns(rest)
    }
    return {
        name: ranges[name].widened(values, UNCERTAIN_P_VALUE) for name, values in suspect.items()
    }


def _columns(every: Sequence[OodScores]) -> Iterator[tuple[str, list[float]]]:
    for name in dict.fromkeys(name for scores in every for name in scores):
        yield name, [scores[name] for scores in every if name in scores]
