"""The quality flag: `ok`, `uncertain` or `not found`, from out-of-distribution scores.

Reference ranges of the scores are learned from good scans (`learn_references.py`). A new scan is
flagged `uncertain` if the p-value of its most extreme score is low, and `not found` if it is so
low that good scans practically never have it.

Grey values on another scale make a scan `uncertain` at most: the network's input does not depend on
the scale, so that the scale says something about the scanner, not about whether the object was
found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from jawloc.geometry import Grid
from jawloc.inference.conformal import LEAST_SPECIMENS, Conformal
from jawloc.inference.out_of_distribution import (
    ImageFeatures,
    OodScores,
    explain_score,
    is_grey_scale_score,
    is_in_suspect_direction,
    scan_ood_scores,
)
from jawloc.inference.reference_range import ReferenceRange

Status = Literal["ok", "uncertain", "not found"]
# p-values below which a scan is flagged, and below which it counts as without the object. With some
# 20 scores, about 20 times UNCERTAIN_P_VALUE of the good scans are flagged.
UNCERTAIN_P_VALUE, NOT_FOUND_P_VALUE = 0.0015, 1e-5


@dataclass(frozen=True)
class Quality:
    """How far to trust what was found in a scan.

    Attributes
    ----------
    p_value : of the most extreme score
    reason : what that score measures, in words; empty where the status is `ok`
    """

    status: Status
    p_value: float
    reason: str = ""


@dataclass(frozen=True)
class ScanReference:
    """Reference of the scans that a locator was made with.

    Attributes
    ----------
    profiles : mean brightness profile along each axis, shape (2, bin) each
    upright : discriminant along each axis between upright and flipped scans, or None
    ranges : of each out-of-distribution score, by name
    """

    profiles: tuple[np.ndarray, ...]
    upright: tuple[np.ndarray | None, ...]
    ranges: Mapping[str, ReferenceRange]

    def ood_scores_of(self, features: ImageFeatures, full: Grid) -> dict[str, float]:
        """Return the out-of-distribution scores of a new scan; `full` is its full-size grid."""
        return scan_ood_scores(features, full, self.profiles, self.upright)


@dataclass(frozen=True)
class PositionReference:
    """Reference of one object's positions in scans that the locator was not trained on.

    Attributes
    ----------
    conformal : the radius that held the truth; None with too few specimens
    ranges : of each out-of-distribution score, by name
    specimens : number of specimens whose errors are known
    """

    conformal: Conformal | None
    ranges: Mapping[str, ReferenceRange]
    specimens: int = 0

    @property
    def why_no_radius(self) -> str:
        """Return a sentence where the radius is not known, else an empty text."""
        if self.conformal is not None:
            return ""
        held = f"{self.specimens} specimen{'' if self.specimens == 1 else 's'}"
        return (
            f"unknown: give more test scans; a radius needs at least {LEAST_SPECIMENS} specimens "
            f"held out, and the model was tested on {held}"
        )


@dataclass(frozen=True)
class Calibration:
    """What a locator knows about its own errors.

    Attributes
    ----------
    objects : by name
    """

    scans: ScanReference
    objects: Mapping[str, PositionReference]

    def assess_quality(
        self,
        name: str,
        features: ImageFeatures,
        full: Grid,
        of_position: OodScores,
        *,
        sees_grey_scale: bool = False,
    ) -> Quality:
        """Say how far to trust one object's position in a scan.

        Parameters
        ----------
        full : the scan's full-size grid
        sees_grey_scale : whether the network's input changes with the scale of grey values
        """
        ranges = {**self.scans.ranges, **self.objects[name].ranges}
        scores = {**self.scans.ood_scores_of(features, full), **of_position}
        return assess_quality(ranges, scores, sees_grey_scale=sees_grey_scale)


def assess_quality(
    ranges: Mapping[str, ReferenceRange], scores: OodScores, *, sees_grey_scale: bool = False
) -> Quality:
    """Compare scores with their reference ranges; a score without a range counts as usual."""
    p_values = {
        name: ranges[name].p_value(value)
        if is_in_suspect_direction(name, value, ranges[name].mean)
        else 1.0
        for name, value in scores.items()
        if name in ranges
    }
    if not p_values:
        return Quality("ok", 1.0)
    extreme = min(p_values, key=lambda name: p_values[name])
    p_value = p_values[extreme]
    if p_value >= UNCERTAIN_P_VALUE:
        return Quality("ok", p_value)
    missing = {name: p for name, p in p_values.items() if p < NOT_FOUND_P_VALUE}
    if not sees_grey_scale:
        missing = {name: p for name, p in missing.items() if not is_grey_scale_score(name)}
    if missing:
        name = min(missing, key=lambda name: missing[name])
        return Quality("not found", p_value, explain_score(name))
    return Quality("uncertain", p_value, explain_score(extreme))


def to_plain(calibration: Calibration) -> dict[str, Any]:
    """Return a calibration as plain values."""
    scans = calibration.scans
    return {
        "profiles": [profile.tolist() for profile in scans.profiles],
        "upright": [None if d is None else d.tolist() for d in scans.upright],
        "ranges": {name: asdict(known) for name, known in scans.ranges.items()},
        "objects": {name: asdict(known) for name, known in calibration.objects.items()},
    }


def from_plain(content: Mapping[str, Any]) -> Calibration:
    """Return the calibration that `to_plain` made plain."""
    objects = {name: _positions(known) for name, known in content["objects"].items()}
    scans = ScanReference(
        tuple(np.array(profile) for profile in content["profiles"]),
        tuple(None if d is None else np.array(d) for d in content["upright"]),
        _ranges(content),
    )
    return Calibration(scans, objects)


def _positions(known: Mapping[str, Any]) -> PositionReference:
    # files of jawloc 0.1.0 call it "ball"
    conformal = dict(known.get("conformal", known.get("ball")) or {})
    # files of jawloc 0.1.0 count scans, and state a radius whatever their number is
    specimens = conformal.pop("scans", None) or conformal.get("specimens", 0)
    enough = specimens >= LEAST_SPECIMENS
    return PositionReference(
        Conformal(**{**conformal, "specimens": specimens}) if enough else None,
        _ranges(known),
        known.get("specimens", specimens),
    )


def _ranges(plain: Mapping[str, Any]) -> dict[str, ReferenceRange]:
    ranges = plain.get("ranges", plain.get("signs"))  # files of jawloc 0.1.0 call them signs
    return {name: ReferenceRange(**values) for name, values in (ranges or {}).items()}
