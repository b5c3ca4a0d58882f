"""What a locator learned of its own errors, and of what good scans are like.

From scans that it was not trained on: how large the radius round a position must be, and which
predictions are usual. From all its scans: which scans are usual. A new scan whose signs are not
usual is `uncertain`, or `not found` where good scans practically never look like it. The limit
is a chance: that of a good scan to have a sign as odd as this one's. Where the calibration scans
themselves have heavier tails than that chance allows, the usual range is as wide as they need, but
for the oddest of them.

Grey values on another scale make a scan `uncertain` at most: the network does not see their scale,
so that they say something of the scanner, not of whether the object was found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from jawloc.geometry import Grid
from jawloc.heatmaps.uncertainty import (
    LEAST_SPECIMENS,
    Conformal,
    UsualRange,
    calibrate_radius,
    usual_range,
)
from jawloc.locating.signs import (
    AXES,
    ScanLook,
    Signs,
    in_words,
    is_of_grey_scale,
    is_worrying,
    signs_of_scan,
    upright_direction,
)

Status = Literal["ok", "uncertain", "not found"]
CONFIDENCE = 0.9  # of the radius
# Chances of a sign's value below which a scan is flagged, and below which it counts as without the
# object. Some 20 signs are looked at: 20 times ALARM is the share of good scans that is flagged.
ALARM, NOT_FOUND = 0.0015, 1e-5
ODDEST = 0.02  # share of the calibration scans that may be flagged themselves
# What signs vary by at least, whatever a few scans say: scans of one machine may agree to a digit.
LEAST_DEVIATION = 0.02


@dataclass(frozen=True)
class Verdict:
    """How far to trust what was found in a scan.

    Attributes
    ----------
    chance : that of a good scan to be as odd as this one in its least usual sign
    reason : the sign that is the least usual, in words; empty where the status is `ok`
    """

    status: Status
    chance: float
    reason: str = ""


@dataclass(frozen=True)
class UsualScans:
    """What the scans that a locator was made with are like.

    Attributes
    ----------
    profiles : mean brightness profile along each axis, shape (2, bin) each
    upright : direction along each axis that tells scans turned over, or None
    signs : by name
    """

    profiles: tuple[np.ndarray, ...]
    upright: tuple[np.ndarray | None, ...]
    signs: Mapping[str, UsualRange]

    def of(self, look: ScanLook, full: Grid) -> dict[str, float]:
        """Return the signs of a new scan, `full` its full-size grid."""
        return signs_of_scan(look, full, self.profiles, self.upright)


@dataclass(frozen=True)
class UsualPositions:
    """What positions of one object are like, in scans that the locator was not trained on.

    Attributes
    ----------
    ball : how far off they are; None where that is not known
    signs : by name
    specimens : how many the errors are of
    """

    ball: Conformal | None
    signs: Mapping[str, UsualRange]
    specimens: int = 0

    @property
    def why_no_radius(self) -> str:
        """Return a sentence where the radius is not known, else an empty text."""
        if self.ball is not None:
            return ""
        held = f"{self.specimens} specimen{'' if self.specimens == 1 else 's'}"
        return (
            f"unknown: give more test scans; a radius needs at least {LEAST_SPECIMENS} specimens "
            f"held out, and the model was tested on {held}"
        )


@dataclass(frozen=True)
class Calibration:
    """All that a locator knows of how far to trust it.

    Attributes
    ----------
    objects : by name
    """

    scans: UsualScans
    objects: Mapping[str, UsualPositions]

    def judge(
        self,
        name: str,
        look: ScanLook,
        full: Grid,
        of_position: Signs,
        *,
        sees_grey_scale: bool = False,
    ) -> Verdict:
        """Say how far to trust one object's position in a scan.

        Parameters
        ----------
        full : the scan's full-size grid
        sees_grey_scale : whether the network's input changes with the scale of grey values
        """
        usual = {**self.scans.signs, **self.objects[name].signs}
        signs = {**self.scans.of(look, full), **of_position}
        return judge(usual, signs, sees_grey_scale=sees_grey_scale)


def judge(
    usual: Mapping[str, UsualRange], signs: Signs, *, sees_grey_scale: bool = False
) -> Verdict:
    """Compare signs with the usual ones; what is known of too few scans counts as usual."""
    known = {name: value for name, value in signs.items() if name in usual}
    chances = {
        name: usual[name].surprise(value) if is_worrying(name, value, usual[name].mean) else 1.0
        for name, value in known.items()
    }
    if not chances:
        return Verdict("ok", 1.0)
    oddest = min(chances, key=lambda name: chances[name])
    chance = chances[oddest]
    if chance >= ALARM:
        return Verdict("ok", chance)
    missing = {name: c for name, c in chances.items() if c < NOT_FOUND}
    if not sees_grey_scale:
        missing = {name: c for name, c in missing.items() if not is_of_grey_scale(name)}
    if missing:
        return Verdict("not found", chance, in_words(min(missing, key=lambda name: missing[name])))
    return Verdict("uncertain", chance, in_words(oddest))


# Learning it


def learn_scans(
    scans: Sequence[tuple[ScanLook, Grid]], turned_axes: Sequence[str] = ()
) -> UsualScans:
    """Learn what scans are like.

    Parameters
    ----------
    scans : at least one; the grid is the full-size one
    turned_axes : out of z, y and x: those along which training turns scans over, so that either
        way is usual
    """
    looks = [look for look, _ in scans]
    usual, upright = _profiles(looks, turned_axes)
    # each scan is judged by the others, as a new one will be
    every = [
        signs_of_scan(look, full, *_profiles([*looks[:i], *looks[i + 1 :]] or looks, turned_axes))
        for i, (look, full) in enumerate(scans)
    ]
    return UsualScans(usual, upright, usual_signs(every))


def _profiles(
    looks: Sequence[ScanLook], turned_axes: Sequence[str]
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray | None, ...]]:
    along = [[look.profiles[axis] for look in looks] for axis in range(3)]
    upright = tuple(
        None if name in turned_axes else upright_direction(every)
        for name, every in zip(AXES, along, strict=True)
    )
    return tuple(np.mean(every, axis=0) for every in along), upright


@dataclass(frozen=True)
class HeldOut:
    """One object in one scan that the network was not trained on.

    Attributes
    ----------
    specimen : of which the scan is
    error_voxels : in voxels of the full-size scan; None where the scan helped to choose the
        weights, so that it says nothing fair of how far off they are
    width_voxels : of the probability map, in voxels of the full-size scan
    signs : of the position
    """

    scan_id: str
    specimen: str
    error_voxels: float | None
    width_voxels: float
    signs: Signs


def learn_positions(
    held_out: Sequence[HeldOut], *, error_ratio: float = 1.0, pairs: Sequence[Signs] = ()
) -> UsualPositions:
    """Learn what positions of one object are like.

    Parameters
    ----------
    error_ratio : error of what will be used as a share of these errors, where they are of single
        networks and several will be averaged
    pairs : signs of what two networks say together, which single ones don't have
    """
    fair = [h for h in held_out if h.error_voxels is not None]
    errors = [error_ratio * float(h.error_voxels or 0) for h in fair]
    specimens = [h.specimen for h in fair]
    ball = calibrate_radius(errors, [h.width_voxels for h in fair], CONFIDENCE, specimens)
    signs = {**usual_signs([h.signs for h in held_out]), **usual_signs(pairs)}
    return UsualPositions(ball, signs, len(set(specimens)))


def usual_signs(every: Sequence[Signs]) -> dict[str, UsualRange]:
    """Learn which values of each sign are usual."""
    ranges = {name: usual_range(values, LEAST_DEVIATION) for name, values in _columns(every)}
    oddest = sorted(range(len(every)), key=lambda i: judge(ranges, every[i]).chance)
    rest = [every[i] for i in oddest[int(ODDEST * (len(every) + 1)) :]]
    worrying = {
        name: [v for v in values if is_worrying(name, v, ranges[name].mean)]
        for name, values in _columns(rest)
    }
    return {name: ranges[name].widened(values, ALARM) for name, values in worrying.items()}


def _columns(every: Sequence[Signs]) -> Iterator[tuple[str, list[float]]]:
    for name in dict.fromkeys(name for signs in every for name in signs):
        yield name, [signs[name] for signs in every if name in signs]


# As plain values, which a model file may hold


def to_plain(calibration: Calibration) -> dict[str, Any]:
    """Return a calibration as plain values."""
    scans = calibration.scans
    return {
        "profiles": [profile.tolist() for profile in scans.profiles],
        "upright": [None if d is None else d.tolist() for d in scans.upright],
        "signs": {name: asdict(usual) for name, usual in scans.signs.items()},
        "objects": {name: asdict(known) for name, known in calibration.objects.items()},
    }


def from_plain(content: Mapping[str, Any]) -> Calibration:
    """Return the calibration that `to_plain` made plain."""
    objects = {name: _positions(known) for name, known in content["objects"].items()}
    scans = UsualScans(
        tuple(np.array(profile) for profile in content["profiles"]),
        tuple(None if d is None else np.array(d) for d in content["upright"]),
        _ranges(content["signs"]),
    )
    return Calibration(scans, objects)


def _positions(known: Mapping[str, Any]) -> UsualPositions:
    ball = dict(known["ball"] or {})
    # files of jawloc 0.1.0 count scans, and state a radius whatever their number is
    specimens = ball.pop("scans", None) or ball.get("specimens", 0)
    enough = specimens >= LEAST_SPECIMENS
    return UsualPositions(
        Conformal(**{**ball, "specimens": specimens}) if enough else None,
        _ranges(known["signs"]),
        known.get("specimens", specimens),
    )


def _ranges(plain: Mapping[str, Mapping[str, Any]]) -> dict[str, UsualRange]:
    return {name: UsualRange(**values) for name, values in plain.items()}
