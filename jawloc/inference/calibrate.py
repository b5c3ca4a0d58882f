"""Calibration: what a locator learns about its own errors from scans held out of training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from jawloc.geometry import Grid, map_points
from jawloc.heatmaps.metrics import radial_errors_voxels
from jawloc.inference.conformal import LEAST_SPREAD, ensemble_error_ratio
from jawloc.inference.learn_references import (
    HeldOutPosition,
    learn_position_reference,
    learn_scan_reference,
)
from jawloc.inference.locator import Locator, to_full_size
from jawloc.inference.out_of_distribution import (
    ImageFeatures,
    OodScores,
    disagreement_scores,
    image_features,
)
from jawloc.inference.quality import Calibration, PositionReference
from jawloc.scans.cache import ExampleFile
from jawloc.training.provenance import Provenance, joined, specimen_name
from jawloc.training.splits import SPECIMEN_PATTERN


def calibrate(
    locator: Locator,
    tested: Sequence[ExampleFile],
    chosen_by: Sequence[ExampleFile],
    trained_on: Sequence[ExampleFile],
    *,
    specimen_pattern: str = SPECIMEN_PATTERN,
) -> Locator:
    """Return the locator with what its scans teach of how far to trust it.

    Parameters
    ----------
    tested : scans that had no part in training: only their errors are fair, and not those of a
        specimen, or copy of a scan, that trained the network or chose its weights
    chosen_by : scans by which the weights were chosen: what positions look like in them is usual
    trained_on : scans that the network knows by heart: only what they themselves look like counts
    specimen_pattern : tells which scans are of one specimen
    """
    scans = [(image_features(file.read().image), file.source_grid) for file in trained_on]
    held_out: list[_HeldOutScan] = []
    fair = fairly_tested(tested, (*trained_on, *chosen_by), specimen_pattern)
    for file in (*tested, *chosen_by):
        held = _hold_out(locator, file, specimen_pattern, fair=file.scan_id in fair)
        scans.append((held.features, file.source_grid))
        held_out.append(held)
    objects = {
        name: learn_position_reference(_of_object(held_out, name)) for name in locator.objects
    }
    return _calibrated(locator, scans, objects)


def fairly_tested(
    tested: Iterable[ExampleFile],
    learned: Sequence[ExampleFile],
    specimen_pattern: str = SPECIMEN_PATTERN,
) -> frozenset[str]:
    """Return the ids of the tested scans of whose specimens, and images, nothing was learned."""
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
    """Return one locator with the networks of all folds, and each fold's on its own, calibrated.

    Of each scan, only the network that tested it may say how well it is found: the others know it
    by heart. So usual ranges are those of single networks, and a new scan's signs are the means of
    what the single networks give. The errors are of single networks as well (cross-conformal
    prediction, Vovk, Ann. Math. Artif. Intell. 74, 2015); that the mean of several is wrong by less
    is learned from the scans that one network was tested on and that only chose the weights of
    another, so that two networks say of them independently (`ensemble_error_ratio`). How much
    networks usually disagree is learned from the same scans.

    Parameters
    ----------
    locators : one a fold, with the same settings
    tested : the scans that each fold tested; no scan is in two
    chosen_by : the scans that chose each fold's weights
    run_id : of the run that made the joint locator

    Returns
    -------
    The locator of all, calibrated on the scans of all; and each fold's, calibrated on the scans
    of the other folds, so that what it says of its own was learned from none of them.
    """
    joint = replace(
        locators[0],
        networks=tuple(network for locator in locators for network in locator.networks),
        sigma_voxels=tuple(sigma for locator in locators for sigma in locator.sigma_voxels),
        presence_classifiers=tuple(
            network for locator in locators for network in locator.presence_classifiers
        ),
        provenance=joined([locator.provenance for locator in locators], run_id),
    )
    fair, seen_twice = (
        [
            [_hold_out(locator, file, specimen_pattern, fair=is_fair) for file in files]
            for locator, files in zip(locators, every, strict=True)
        ]
        for every, is_fair in ((tested, True), (chosen_by, False))
    )
    known = {held.file.scan_id: held for part in fair for held in part}
    twice = [held for part in seen_twice for held in part if held.file.scan_id in known]
    pairs = [(known[held.file.scan_id], held) for held in twice]
    objects = {}
    for index, name in enumerate(locators[0].objects):
        own = _of_object(known.values(), name)
        ratio, apart = _of_pairs(pairs, index, name, len(locators))
        objects[name] = learn_position_reference(own, error_ratio=ratio, pairs=apart)
    scans = [(held.features, held.file.source_grid) for held in known.values()]
    alone = []
    for k, locator in enumerate(locators):
        others = [held for part in (*fair[:k], *fair[k + 1 :]) for held in part]
        own_objects = {
            name: learn_position_reference(_of_object(others, name)) for name in locator.objects
        }
        elsewhere = [(held.features, held.file.source_grid) for held in others]
        one = replace(locator, provenance=_calibrated_on(locator, joint, others))
        alone.append(_calibrated(one, elsewhere, own_objects))
    return _calibrated(joint, scans, objects), alone


def _calibrated_on(
    locator: Locator, joint: Locator, scans: Sequence[_HeldOutScan]
) -> Provenance | None:
    """Return the record of a fold's locator that was calibrated on the scans of others."""
    if locator.provenance is None or joint.provenance is None:
        return None
    ids = tuple(held.file.scan_id for held in scans)
    networks = tuple(
        replace(network, scan_ids={**network.scan_ids, "calibration": ids})
        for network in locator.provenance.networks
    )
    return replace(locator.provenance, scans=joint.provenance.scans, networks=networks)


@dataclass(frozen=True)
class _HeldOutScan:
    """A scan that did not train, how it looks, and what a network says of it.

    Attributes
    ----------
    objects : those that it shows, by name
    points_voxels : array, shape (object, 3), found, on the downsampled grid
    offsets : array, shape (object, 3): found minus true position in voxels of the full-size scan,
        as a multiple of the map's width; NaN where the scan lacks the object
    """

    file: ExampleFile
    features: ImageFeatures
    objects: dict[str, HeldOutPosition]
    points_voxels: np.ndarray
    offsets: np.ndarray


def _hold_out(
    locator: Locator, file: ExampleFile, specimen_pattern: str, *, fair: bool
) -> _HeldOutScan:
    """Look at a scan that did not train.

    Parameters
    ----------
    fair : whether the scan had no part in choosing the weights either
    """
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
            file.scan_id,
            specimen,
            float(errors[i]) if fair else None,
            widths[i],
            prediction.ood_scores[i],
        )
        for i, name in enumerate(locator.objects)
        if not np.isnan(errors[i])  # else the scan lacks this object
    }
    offsets = (found - truth) / np.maximum(widths, LEAST_SPREAD)[:, None]
    return _HeldOutScan(file, prediction.image_features, objects, prediction.points_voxels, offsets)


def _of_object(scans: Iterable[_HeldOutScan], name: str) -> list[HeldOutPosition]:
    return [scan.objects[name] for scan in scans if name in scan.objects]


def _of_pairs(
    pairs: Sequence[tuple[_HeldOutScan, _HeldOutScan]], index: int, name: str, networks: int
) -> tuple[float, list[OodScores]]:
    """Return what two networks say of the same scans: error ratio, and signs of disagreement.

    Parameters
    ----------
    index, name : of the object
    networks : how many will be averaged
    """
    shown = [pair for pair in pairs if name in pair[0].objects]
    if not shown:
        return 1.0, []
    first, second = (np.stack([pair[k].offsets[index] for pair in shown]) for k in (0, 1))
    specimens = [one.objects[name].specimen for one, _ in shown]
    ratio = ensemble_error_ratio(first, second, networks, specimens)
    apart = [
        disagreement_scores(np.stack([one.points_voxels, other.points_voxels]))[index]
        for one, other in shown
    ]
    return ratio, apart


def _calibrated(
    locator: Locator,
    scans: Sequence[tuple[ImageFeatures, Grid]],
    objects: Mapping[str, PositionReference],
) -> Locator:
    usual = learn_scan_reference(scans, locator.flipped_axes)
    return replace(locator, calibration=Calibration(usual, objects))
