"""Localisations and truth -> errors, beside what needs no network at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from jawloc.geometry import Grid, map_points
from jawloc.heatmaps.metrics import radial_errors_mm, radial_errors_voxels
from jawloc.locating.calibration import Calibration, HeldOut, learn_positions, learn_scans
from jawloc.locating.locator import Locator, full_size_spread
from jawloc.locating.signs import ScanLook, look_of_scan
from jawloc.scans.cache import Example, ExampleFile

# a scan that did not train, how it looks, and the objects in it
_Looked = tuple[ExampleFile, ScanLook, dict[str, HeldOut]]
# downsampled image (z, y, x) -> points (object, 3) in its voxels
PointFinder = Callable[[Example], np.ndarray]


@dataclass(frozen=True)
class ScanError:
    """How far one object's predicted position is from the truth in one scan."""

    scan_id: str
    object_name: str
    predicted_voxels: np.ndarray  # (3,), voxels of the full-size scan
    truth_voxels: np.ndarray  # (3,), voxels of the full-size scan
    error_downsampled_voxels: float
    error_full_size_voxels: float
    error_mm: float | None  # None where the spacing is unknown


@dataclass(frozen=True)
class Evaluation:
    """Errors of one way to find the objects, on a list of scans."""

    errors: tuple[ScanError, ...]

    def of(self, object_name: str) -> Evaluation:
        """Return the errors of one object."""
        return Evaluation(tuple(e for e in self.errors if e.object_name == object_name))

    def mean(self, unit: str) -> float | None:
        """Return the mean radial error; `unit`: downsampled_voxels, full_size_voxels or mm."""
        return self._over_scans(unit, np.mean)

    def median(self, unit: str) -> float | None:
        """Return the median radial error; `unit` as for the mean."""
        return self._over_scans(unit, np.median)

    def largest(self, unit: str) -> float | None:
        """Return the largest radial error; `unit` as for the mean."""
        return self._over_scans(unit, np.max)

    def _over_scans(self, unit: str, of: Callable[[list[float]], float]) -> float | None:
        values = [getattr(e, f"error_{unit}") for e in self.errors]
        return None if None in values or not values else float(of(values))

    def worst(self) -> ScanError:
        """Return the error of the scan that is furthest off, in downsampled voxels."""
        return max(self.errors, key=lambda e: e.error_downsampled_voxels)


def evaluate_positions(
    examples: Iterable[Example], find: PointFinder, object_names: Sequence[str]
) -> Evaluation:
    """Compare what `find` says of each example with the full-size masks' centroids.

    An object that an example lacks has no error there.
    """
    errors: list[ScanError] = []
    for example in examples:
        found = find(example)
        full, small = example.source_grid, example.grid
        predicted = map_points(found, small, full)
        truth = map_points(example.points_voxels, small, full)
        in_small = radial_errors_voxels(found, example.points_voxels)
        in_full = radial_errors_voxels(predicted, truth)
        in_mm = radial_errors_mm(predicted, truth, full)
        errors += [
            ScanError(
                scan_id=example.scan_id,
                object_name=name,
                predicted_voxels=predicted[i],
                truth_voxels=truth[i],
                error_downsampled_voxels=float(in_small[i]),
                error_full_size_voxels=float(in_full[i]),
                error_mm=None if in_mm is None else float(in_mm[i]),
            )
            for i, name in enumerate(object_names)
            if not np.isnan(truth[i]).any()
        ]
    return Evaluation(tuple(errors))


def mean_position(training: Sequence[ExampleFile]) -> PointFinder:
    """Return a finder that always says the training scans' mean position (the bar to beat).

    Of each object, the mean is that of the scans that show it.
    """
    mean = np.nanmean([e.points_voxels for e in training], axis=0)
    grid = Grid(training[0].grid.shape_zyx)
    return lambda example: map_points(mean, grid, example.grid)


def calibrate(
    locator: Locator,
    tested: Sequence[ExampleFile],
    chosen_by: Sequence[ExampleFile],
    trained_on: Sequence[ExampleFile],
) -> Locator:
    """Return the locator with what its scans teach of how far to trust it.

    Parameters
    ----------
    tested : scans that had no part in training: only their errors are fair
    chosen_by : scans by which the weights were chosen: what positions look like in them is usual
    trained_on : scans that the network knows by heart: only what they themselves look like counts
    """
    scans = [(look_of_scan(file.read().image), file.source_grid) for file in trained_on]
    held_out: list[dict[str, HeldOut]] = []
    for number, file in enumerate((*tested, *chosen_by)):
        look, found = _hold_out(locator, file, fair=number < len(tested))
        scans.append((look, file.source_grid))
        held_out.append(found)
    return _calibrated(locator, scans, held_out, tested)


def join_folds(
    locators: Sequence[Locator], tested: Sequence[Sequence[ExampleFile]]
) -> tuple[Locator, list[Locator]]:
    """Return one locator with the networks of all folds, and each fold's on its own, calibrated.

    Each scan's error is that of the fold which tested it, whose network has not seen the scan:
    the other networks know it by heart. So the radius is that of a single network. The means of
    several are wrong by less and their spread is wider, so it is on the safe side, though not
    guaranteed as a single locator's is: the errors are of several networks (cross-conformal
    prediction, Vovk, Ann. Math. Artif. Intell. 74, 2015).

    Parameters
    ----------
    locators : one a fold, with the same settings
    tested : the scans that each fold tested; no scan is in two

    Returns
    -------
    The locator of all, calibrated on the scans of all; and each fold's, calibrated on the scans
    of the other folds, so that what it says of its own was learned from none of them.
    """
    joined = replace(
        locators[0],
        networks=tuple(network for locator in locators for network in locator.networks),
        sigma_voxels=tuple(sigma for locator in locators for sigma in locator.sigma_voxels),
        presence=tuple(network for locator in locators for network in locator.presence),
    )
    parts = [
        [(file, *_hold_out(locator, file, fair=True)) for file in files]
        for locator, files in zip(locators, tested, strict=True)
    ]

    def calibrated(locator: Locator, others: Sequence[Sequence[_Looked]]) -> Locator:
        every = [looked for part in others for looked in part]
        scans = [(look, file.source_grid) for file, look, _ in every]
        return _calibrated(
            locator, scans, [held for *_, held in every], [file for file, *_ in every]
        )

    alone = [calibrated(one, [*parts[:k], *parts[k + 1 :]]) for k, one in enumerate(locators)]
    return calibrated(joined, parts), alone


def _hold_out(
    locator: Locator, file: ExampleFile, *, fair: bool
) -> tuple[ScanLook, dict[str, HeldOut]]:
    """Look at a scan that did not train; return how it looks, and the objects that it shows.

    Parameters
    ----------
    fair : whether the scan had no part in choosing the weights either
    """
    prediction = locator.predict(file.read().image)
    full = file.source_grid
    found, truth = (
        map_points(points, file.grid, full)
        for points in (prediction.points_voxels, file.points_voxels)
    )
    errors, spreads = radial_errors_voxels(found, truth), full_size_spread(prediction, full)
    return prediction.look, {
        name: HeldOut(
            file.scan_id, float(errors[i]) if fair else None, spreads[i], prediction.signs[i]
        )
        for i, name in enumerate(locator.objects)
        if not np.isnan(errors[i])  # else the scan lacks this object
    }


def _calibrated(
    locator: Locator,
    scans: Sequence[tuple[ScanLook, Grid]],
    held_out: Sequence[Mapping[str, HeldOut]],
    tested: Sequence[ExampleFile],
) -> Locator:
    objects = {
        name: learn_positions([of_scan[name] for of_scan in held_out if name in of_scan])
        for name in locator.objects
    }
    ids = tuple(file.scan_id for file in tested)
    calibration = Calibration(learn_scans(scans, locator.turned_axes), objects, ids)
    return replace(locator, calibration=calibration)
