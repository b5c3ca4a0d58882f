"""Calibration: a locator learns its errors and what is normal from scans held out of training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from jawloc.geometry import Grid, map_points
from jawloc.heatmaps.metrics import radial_errors_voxels
from jawloc.inference.conformal import LEAST_WIDTH, calibrate_radius, ensemble_error_ratio
from jawloc.inference.locator import Locator, to_full_size
from jawloc.inference.out_of_distribution import (
    AXES,
    ImageFeatures,
    OodScores,
    disagreement_scores,
    image_features,
    is_in_suspect_direction,
    scan_ood_scores,
    upright_direction,
)
from jawloc.inference.quality import (
    UNCERTAIN_P_VALUE,
    Calibration,
    PositionReference,
    ReferenceRange,
    ScanReference,
    assess_quality,
)
from jawloc.scans.cache import ExampleFile
from jawloc.training.provenance import joined, specimen_name
from jawloc.training.splits import SPECIMEN_PATTERN

CONFIDENCE = 0.9  # of the radius
EXTREME_SHARE = 0.02  # share of the calibration scans that may be flagged themselves
# Lower bound of a score's standard deviation: scans of one scanner may agree to a digit.
LEAST_DEVIATION = 0.02


def calibrate(
    locator: Locator,
    tested: Sequence[ExampleFile],
    chosen_by: Sequence[ExampleFile],
    trained_on: Sequence[ExampleFile],
    *,
    specimen_pattern: str = SPECIMEN_PATTERN,
) -> Locator:
    """Return the locator with its errors and the reference ranges of its scores.

    Scores of scans are learned from all three groups, scores of positions not from those that
    trained the network, and errors from the `fairly_tested` ones only. The specimen pattern is a
    regular expression that tells the specimen from a scan's id.
    """
    fair = fairly_tested(tested, (*trained_on, *chosen_by), specimen_pattern)
    scans = [(image_features(file.read().image), file.source_grid) for file in trained_on]
    held_out = [
        _hold_out(locator, file, specimen_pattern, fair=file.scan_id in fair)
        for file in (*tested, *chosen_by)
    ]
    return _calibrated(locator, held_out, scans)


def fairly_tested(
    tested: Iterable[ExampleFile],
    learned: Sequence[ExampleFile],
    specimen_pattern: str = SPECIMEN_PATTERN,
) -> frozenset[str]:
    """Return the ids of tested scans of which no learned scan is a copy or of the same specimen."""
    specimens = {specimen_name(file.scan_id, specimen_pattern) for file in learned}
    copies = {file.content_hash for file in learned} - {""}
    return frozenset(
        file.scan_id
        for file in tested
        if specimen_name(file.scan_id, specimen_pattern) not in specimens
        and file.content_hash not in copies
    )


def join_folds(
    locators: Sequence[Locator],
    tested: Sequence[Sequence[ExampleFile]],
    chosen_by: Sequence[Sequence[ExampleFile]],
    *,
    specimen_pattern: str = SPECIMEN_PATTERN,
    run_id: str | None = None,
) -> tuple[Locator, list[Locator]]:
    """Return the ensemble of all folds' networks, and each fold's locator, calibrated.

    `tested` and `chosen_by` are each fold's test and validation scans; no scan is tested twice. Its
    error and scores are those of the network that tested it: the others were trained on it
    (cross-conformal prediction, Vovk, Ann. Math. Artif. Intell. 74, 2015). How much less an
    ensemble errs, and how much its networks disagree, is learned from the scans that one network
    was tested on and that only validated another. Each fold's locator is calibrated on
    the scans that the other folds tested.
    """
    ensemble = _ensemble(locators, run_id)
    fair = [
        [_hold_out(locator, file, specimen_pattern, fair=True) for file in files]
        for locator, files in zip(locators, tested, strict=True)
    ]
    by_id = {held.file.scan_id: held for held in chain(*fair)}
    pairs = [
        (by_id[file.scan_id], _hold_out(locator, file, specimen_pattern, fair=False))
        for locator, files in zip(locators, chosen_by, strict=True)
        for file in files
        if file.scan_id in by_id
    ]
    others = [[*chain(*fair[:k], *fair[k + 1 :])] for k in range(len(fair))]
    single = [
        _calibrated(_recorded(locator, ensemble, held_out), held_out)
        for locator, held_out in zip(locators, others, strict=True)
    ]
    return _calibrated(ensemble, list(by_id.values()), pairs=pairs), single


def _ensemble(locators: Sequence[Locator], run_id: str | None) -> Locator:
    parts: dict[str, Any] = {
        name: tuple(chain(*(getattr(locator, name) for locator in locators)))
        for name in ("networks", "sigma_voxels", "presence_classifiers")
    }
    provenance = joined([locator.provenance for locator in locators], run_id)
    return replace(locators[0], **parts, provenance=provenance)


def _recorded(locator: Locator, ensemble: Locator, held_out: Sequence[_HeldOutScan]) -> Locator:
    """Return a fold's locator whose record names these scans as those that calibrate it."""
    own, joint = locator.provenance, ensemble.provenance
    if own is None or joint is None:
        return replace(locator, provenance=None)
    ids = tuple(held.file.scan_id for held in held_out)
    networks = tuple(
        replace(network, scan_ids={**network.scan_ids, "calibration": ids})
        for network in own.networks
    )
    return replace(locator, provenance=replace(own, scans=joint.scans, networks=networks))


@dataclass(frozen=True)
class _HeldOutScan:
    """A scan that a network was not trained on, and what that network predicts for it."""

    file: ExampleFile
    scan: tuple[ImageFeatures, Grid]  # the full-size grid
    objects: dict[str, HeldOutPosition]  # those that the scan shows, by name
    points_voxels: np.ndarray  # (object, 3), found, on the downsampled grid
    # (object, 3), found minus true position at full size, in heatmap widths; NaN where missing
    offsets: np.ndarray


def _hold_out(
    locator: Locator, file: ExampleFile, specimen_pattern: str, *, fair: bool
) -> _HeldOutScan:
    """Predict a held-out scan; `fair`: it did not validate the training either."""
    prediction, full = locator.predict(file.read().image), file.source_grid
    found, truth = (
        map_points(points, file.grid, full)
        for points in (prediction.points_voxels, file.points_voxels)
    )
    widths = to_full_size(prediction.width_voxels, prediction, full)
    errors = radial_errors_voxels(found, truth)
    specimen = specimen_name(file.scan_id, specimen_pattern)
    objects = {
        name: HeldOutPosition(
            specimen, float(errors[i]) if fair else None, widths[i], prediction.ood_scores[i]
        )
        for i, name in enumerate(locator.objects)
        if not np.isnan(errors[i])  # else the scan lacks this object
    }
    offsets = (found - truth) / np.maximum(widths, LEAST_WIDTH)[:, None]
    scan = (prediction.image_features, full)
    return _HeldOutScan(file, scan, objects, prediction.points_voxels, offsets)


def _calibrated(
    locator: Locator,
    held_out: Sequence[_HeldOutScan],
    trained_on: Sequence[tuple[ImageFeatures, Grid]] = (),
    pairs: Sequence[tuple[_HeldOutScan, _HeldOutScan]] = (),
) -> Locator:
    """Return the calibrated locator; `pairs` are two networks' predictions of one scan."""
    scans = [*trained_on, *(held.scan for held in held_out)]
    objects = {}
    for index, name in enumerate(locator.objects):
        positions = [held.objects[name] for held in held_out if name in held.objects]
        shown = [pair for pair in pairs if name in pair[0].objects]
        ratio, disagreements = 1.0, []
        if shown:
            first, second = (np.stack([pair[k].offsets[index] for pair in shown]) for k in (0, 1))
            specimens = [one.objects[name].specimen for one, _ in shown]
            ratio = ensemble_error_ratio(first, second, len(locator.networks), specimens)
            disagreements = [
                disagreement_scores(np.stack([one.points_voxels, other.points_voxels]))[index]
                for one, other in shown
            ]
        objects[name] = learn_position_reference(
            positions, error_ratio=ratio, disagreements=disagreements
        )
    reference = learn_scan_reference(scans, locator.flipped_axes)
    return replace(locator, calibration=Calibration(reference, objects))


def learn_scan_reference(
    scans: Sequence[tuple[ImageFeatures, Grid]], flipped_axes: Sequence[str] = ()
) -> ScanReference:
    """Learn the reference of whole scans, at least one, given with their full-size grids.

    Training flips scans along `flipped_axes`, so along these neither orientation is suspect.
    """
    features = [own for own, _ in scans]
    scores = []
    for i, (own, full) in enumerate(scans):  # each is compared with the others, as a new one is
        others = [*features[:i], *features[i + 1 :]] or features
        scores.append(scan_ood_scores(own, full, *_profiles(others, flipped_axes)))
    return ScanReference(*_profiles(features, flipped_axes), reference_ranges(scores))


def _profiles(
    features: Sequence[ImageFeatures], flipped_axes: Sequence[str]
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray | None, ...]]:
    """Return the mean profile and the upright direction along each axis."""
    along = [[own.profiles[axis] for own in features] for axis in range(3)]
    upright = tuple(
        None if name in flipped_axes else upright_direction(profiles)
        for name, profiles in zip(AXES, along, strict=True)
    )
    return tuple(np.mean(profiles, axis=0) for profiles in along), upright


@dataclass(frozen=True)
class HeldOutPosition:
    """One object in a scan that the network was not trained on; in voxels of the full-size scan."""

    specimen: str
    error_voxels: float | None  # None where the scan validated the training: too optimistic
    width_voxels: float  # of the heatmap
    ood_scores: OodScores


def learn_position_reference(
    held_out: Sequence[HeldOutPosition],
    *,
    error_ratio: float = 1.0,
    disagreements: Sequence[OodScores] = (),
) -> PositionReference:
    """Learn the reference of one object's positions.

    For an ensemble, `error_ratio` is its error as a share of a single network's, whose errors these
    are, and `disagreements` are scores of the disagreement between two networks.
    """
    fair = [h for h in held_out if h.error_voxels is not None]
    errors = [error_ratio * float(h.error_voxels or 0) for h in fair]
    specimens = [h.specimen for h in fair]
    conformal = calibrate_radius(errors, [h.width_voxels for h in fair], CONFIDENCE, specimens)
    ranges = reference_ranges([h.ood_scores for h in held_out]) | reference_ranges(disagreements)
    return PositionReference(conformal, ranges, len(set(specimens)))


def reference_ranges(scans: Sequence[OodScores]) -> dict[str, ReferenceRange]:
    """Learn the reference range of each score.

    Good scans may have heavier tails than a normal distribution, so each range is widened until all
    but the most extreme scans lie inside.
    """
    ranges = {name: reference_range(values, LEAST_DEVIATION) for name, values in _columns(scans)}
    ranked = sorted(scans, key=lambda scores: assess_quality(ranges, scores).p_value)
    inside = ranked[int(EXTREME_SHARE * (len(scans) + 1)) :]
    return {
        name: ranges[name].widened(
            [v for v in values if is_in_suspect_direction(name, v, ranges[name].mean)],
            UNCERTAIN_P_VALUE,
        )
        for name, values in _columns(inside)
    }


def _columns(scans: Sequence[OodScores]) -> Iterator[tuple[str, list[float]]]:
    for name in dict.fromkeys(name for scores in scans for name in scores):
        yield name, [scores[name] for scores in scans if name in scores]


def reference_range(values: Sequence[float], least_deviation: float = 0.0) -> ReferenceRange:
    """Learn a reference range from the finite ones of good scans' values."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if len(known) == 0:
        return ReferenceRange(0.0, 0.0, 0)
    deviation = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    return ReferenceRange(float(known.mean()), max(deviation, least_deviation), len(known))
