"""The quality flag: `ok`, `uncertain` or `not found`, from out-of-distribution scores.

Reference ranges of the scores are learned from good scans (`calibrate.py`). A new scan is
flagged `uncertain` if the p-value of its most extreme score is low, and `not found` if it is so
low that good scans practically never have it.

Unusual grey values alone make a scan `uncertain` at most, unless the network's input depends on
their scale: they tell of the scanner, not of whether the object was found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import stdtr, stdtrit  # Student's t; scipy.stats takes seconds to import

from jawloc.geometry import Grid
from jawloc.inference.conformal import LEAST_SPECIMENS, Conformal
from jawloc.inference.out_of_distribution import (
    GREY_SCALE_PREFIX,
    ImageFeatures,
    OodScores,
    explain_score,
    is_in_suspect_direction,
    scan_ood_scores,
)
from jawloc.inference.quantities import counted
from jawloc.scans.messages import names_shown

Status = Literal["ok", "uncertain", "not found"]
# p-values below which a scan is flagged, and below which it counts as without the object. With some
# 20 scores, about 20 times UNCERTAIN_P_VALUE of the good scans are flagged.
UNCERTAIN_P_VALUE, NOT_FOUND_P_VALUE = 0.0015, 1e-5


@dataclass(frozen=True)
class ReferenceRange:
    """Mean and standard deviation of a score in `scans` calibration scans.

    p-values are a normal distribution's, by Student's t since so few values gave its parameters.
    """

    mean: float
    deviation: float
    scans: int

    def p_value(self, value: float) -> float:
        """Return the probability (0 to 1) that a good scan's value is as far from the mean."""
        if not math.isfinite(value):
            return 0.0
        if self.scans < 2:
            return 1.0  # one scan has no deviation
        scale = self.deviation * math.sqrt(1 + 1 / self.scans)
        if scale == 0:
            return float(value == self.mean)
        return float(2 * stdtr(self.scans - 1, -abs(value - self.mean) / scale))

    def widened(self, values: Sequence[float], p_value: float) -> ReferenceRange:
        """Return the range, widened until none of these values has a lower p-value than this."""
        if self.scans < 2 or len(values) == 0:
            return self
        farthest = max(abs(value - self.mean) for value in values)
        reach = -float(stdtrit(self.scans - 1, p_value / 2)) * math.sqrt(1 + 1 / self.scans)
        return ReferenceRange(self.mean, max(self.deviation, farthest / reach), self.scans)


@dataclass(frozen=True)
class Quality:
    """How far to trust a found position."""

    status: Status
    p_value: float  # of the most extreme score
    reason: str = ""  # why the status is not `ok`


@dataclass(frozen=True)
class ScanReference:
    """Reference of the scans that a locator was made with."""

    profiles: tuple[np.ndarray, ...]  # mean brightness profile along each axis, (2, bin)
    upright: tuple[np.ndarray | None, ...]  # discriminant of flipped scans along each axis, or None
    ranges: Mapping[str, ReferenceRange]  # of each out-of-distribution score


@dataclass(frozen=True)
class PositionReference:
    """Reference of one object's positions in scans that the locator was not trained on."""

    conformal: Conformal | None  # None with too few specimens
    ranges: Mapping[str, ReferenceRange]  # of each out-of-distribution score
    specimens: int = 0  # number of specimens whose errors are known

    @property
    def radius_note(self) -> str:
        """Return why the radius is unknown, in words; empty where it is known."""
        if self.conformal is not None:
            return ""
        tested = f"{self.specimens} specimen{'' if self.specimens == 1 else 's'}"
        return (
            f"unknown: give more test scans; a radius needs at least {LEAST_SPECIMENS} specimens "
            f"held out, and the model was tested on {tested}"
        )

    @property
    def status_note(self) -> str:
        """Return why the status says little about positions, in words; empty where it says more.

        With two scans, Student's t flags a score from some 500 standard deviations on, with six
        from 7 on.
        """
        scans = max((own.scans for own in self.ranges.values()), default=0)
        if scans >= LEAST_SPECIMENS:
            return ""
        return (
            f"`ok` says little about the positions, as they are compared with those in "
            f"{counted(scans, 'scan')} held out: hold out at least {LEAST_SPECIMENS} "
            f"(--set test_scans=20)"
        )


@dataclass(frozen=True)
class Calibration:
    """What a locator learned from held-out scans about its errors, by object name."""

    scans: ScanReference
    objects: Mapping[str, PositionReference]

    @property
    def status_notes(self) -> list[str]:
        """Return each `status_note` that objects have, with the names of these objects."""
        names: dict[str, list[str]] = {}
        for name, own in self.objects.items():
            names.setdefault(own.status_note, []).append(name)
        return [f"{names_shown(own, most=6)}: {note}" for note, own in names.items() if note]

    def assess_quality(
        self, name: str, features: ImageFeatures, full: Grid, scores: OodScores, *, raw_input: bool
    ) -> Quality:
        """Assess an object's position, with these scores, in a scan with this full-size grid.

        With `raw_input`, the network's input depends on the scale of grey values, so this counts.
        """
        ranges = {**self.scans.ranges, **self.objects[name].ranges}
        of_scan = scan_ood_scores(features, full, self.scans.profiles, self.scans.upright)
        return assess_quality(ranges, {**of_scan, **scores}, raw_input=raw_input)


def assess_quality(
    ranges: Mapping[str, ReferenceRange], scores: OodScores, *, raw_input: bool = False
) -> Quality:
    """Compare scores with their reference ranges; scores without a range don't count."""
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
    missing = [
        name
        for name, p in p_values.items()
        if p < NOT_FOUND_P_VALUE and (raw_input or not name.startswith(GREY_SCALE_PREFIX))
    ]
    if missing:
        reason = explain_score(min(missing, key=lambda name: p_values[name]))
        return Quality("not found", p_value, reason)
    return Quality("uncertain", p_value, explain_score(extreme))


def to_plain(calibration: Calibration) -> dict[str, Any]:
    """Return a calibration as plain values."""
    scans = calibration.scans
    return {
        "profiles": [profile.tolist() for profile in scans.profiles],
        "upright": [None if d is None else d.tolist() for d in scans.upright],
        "ranges": {name: asdict(one) for name, one in scans.ranges.items()},
        "objects": {name: asdict(one) for name, one in calibration.objects.items()},
    }


def from_plain(content: Mapping[str, Any]) -> Calibration:
    """Return the calibration that `to_plain` made plain."""
    scans = ScanReference(
        tuple(np.array(profile) for profile in content["profiles"]),
        tuple(None if d is None else np.array(d) for d in content["upright"]),
        _ranges(content),
    )
    objects = {name: _position_reference(one) for name, one in content["objects"].items()}
    return Calibration(scans, objects)


def _position_reference(plain: Mapping[str, Any]) -> PositionReference:
    # files of jawloc 0.1.0 call it "ball", count scans, and have one whatever their number is
    conformal = dict(plain.get("conformal", plain.get("ball")) or {})
    specimens = conformal.pop("scans", None) or conformal.get("specimens", 0)
    conformal["specimens"] = specimens
    known = Conformal(**conformal) if specimens >= LEAST_SPECIMENS else None
    return PositionReference(known, _ranges(plain), plain.get("specimens", specimens))


def _ranges(plain: Mapping[str, Any]) -> dict[str, ReferenceRange]:
    ranges = plain.get("ranges", plain.get("signs"))  # files of jawloc 0.1.0 call them signs
    return {name: ReferenceRange(**values) for name, values in (ranges or {}).items()}
