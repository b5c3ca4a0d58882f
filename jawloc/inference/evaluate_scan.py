"""One labelled scan and a locator -> the error of each object, and what a crop would hold of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jawloc.geometry import Grid, Shape, map_points, voxels_to_mm
from jawloc.heatmaps.metrics import radial_errors_mm, radial_errors_voxels
from jawloc.inference.crop import CropBox, crop_box_around
from jawloc.inference.locator import Localisation, Locator
from jawloc.scans.cache import Example, ExampleFile
from jawloc.scans.downsample import Downsampled, downsample
from jawloc.scans.labelled import open_labelled
from jawloc.scans.labels import labels_of, object_centroids, object_voxels
from jawloc.scans.listing import ListedScan
from jawloc.scans.pairs import open_paired
from jawloc.scans.scan import ScanFile
from jawloc.training.provenance import LEARNED_FROM, ScanIdentity, ScanUse, identify, use_of

Labels = Sequence[int] | None  # label values of an object; None: every non-zero voxel
Pair = tuple[np.ndarray, np.ndarray]  # the found and the true point, each of shape (3,)
# an example -> points (object, 3) in its voxels
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
class ScanEvaluation:
    """One object in one labelled scan, as a locator found it.

    Attributes
    ----------
    scan_id : of the file; the error's `scan_id` is unique among the evaluated scans
    offset_voxels : array, shape (3,), found minus true, in voxels of the full-size scan
    offset_mm : array, shape (3,), or None where the spacing is unknown
    window : of the crop around the found position
    labelled_voxels, inside_voxels : of the object at full size, in the scan and in the crop; None
        where a point was given in place of a mask
    identity : its specimen is the one in the model's record, else the one in the scan's name
    use : what the model has already used the scan for
    shares_name_only : whether the model learned from a different scan of the same name
    series : SeriesInstanceUIDs, one of which is the scan's in a folder of several
    """

    path: Path
    scan_id: str
    error: ScanError
    found: Localisation
    offset_voxels: np.ndarray
    offset_mm: np.ndarray | None
    window: CropBox
    labelled_voxels: int | None
    inside_voxels: int | None
    identity: ScanIdentity
    use: ScanUse = "unknown"
    shares_name_only: bool = False
    series: tuple[str, ...] = ()

    @property
    def specimen(self) -> str:
        """Return the name of the specimen that was scanned."""
        return self.identity.specimen

    @property
    def is_fair(self) -> bool:
        """Return whether the model is known not to have learned from the scan's specimen."""
        return self.use not in LEARNED_FROM and self.use != "unknown"

    @property
    def inside(self) -> float | None:
        """Return the share of the object's labelled voxels that the crop holds; None if unknown."""
        if self.labelled_voxels is None or self.inside_voxels is None:
            return None
        return self.inside_voxels / self.labelled_voxels


def evaluate_scan(
    locator: Locator, listed: ListedScan, crop_size: Shape, objects: Sequence[str] = ()
) -> list[ScanEvaluation]:
    """Evaluate each object that a scan's mask or points show; the scan is read slab by slab.

    Parameters
    ----------
    crop_size : (z, y, x) in voxels of the full-size scan
    objects : which of the locator's objects to evaluate; empty: all

    Raises
    ------
    InputError
        If the file can't be read as a scan, has no labels or those of none of the objects, is
        smaller than the locator's grid, or is a downsampled copy.
    """
    scan = open_labelled(listed.path) if listed.labels is None else open_paired(listed)
    small = downsample(scan, locator.downsampled_size)
    prediction = locator.predict(small.image)
    located = {one.object_name: one for one in locator.localise(listed.name, prediction, scan.grid)}
    small_points = dict(zip(locator.objects, prediction.points_voxels, strict=True))
    wanted = {name: locator.objects[name] for name in objects or locator.objects}
    truths = object_centroids(small.labels, wanted, listed.path.name)
    about = {"path": listed.path, "scan_id": scan.scan_id, "series": listed.series}
    about |= _earlier_use(locator, scan, small)
    return [
        _evaluate_object(
            scan, small, located[name], small_points[name], truth, values, crop_size, about
        )
        for (name, values), truth in zip(wanted.items(), truths, strict=True)
        if not np.isnan(truth).any()
    ]


def _earlier_use(locator: Locator, scan: ScanFile, small: Downsampled) -> dict[str, Any]:
    record = locator.provenance
    identity = (identify if record is None else record.identify)(
        scan.scan_id, small.content_hash, small.image
    )
    return {
        "identity": identity,
        "use": use_of(record, identity),
        "shares_name_only": record is not None and record.shares_name_only(identity),
    }


def _evaluate_object(
    scan: ScanFile,
    small: Downsampled,
    found: Localisation,
    small_point: np.ndarray,
    truth: np.ndarray,
    values: Labels,
    crop_size: Shape,
    about: Mapping[str, Any],
) -> ScanEvaluation:
    points = np.asarray(found.point_voxels), truth
    small_points = small_point, map_points(truth, scan.grid, Grid(small.image.shape))
    window = crop_box_around(found.point_voxels, crop_size, scan.grid.shape_zyx)
    offset = points[0] - truth
    own = labels_of(small.labels, found.object_name, values)
    masked = scan.read_mask is not None
    return ScanEvaluation(
        error=_scan_error(found.scan_id, found.object_name, points, small_points, scan.grid),
        found=found,
        offset_voxels=offset,
        offset_mm=voxels_to_mm(offset, scan.grid),
        window=window,
        labelled_voxels=sum(label.voxels for label in own) if masked else None,
        inside_voxels=labels_inside(scan, window, values) if masked else None,
        **about,
    )


def _scan_error(scan_id: str, name: str, points: Pair, small_points: Pair, full: Grid) -> ScanError:
    in_mm = radial_errors_mm(*points, full)
    return ScanError(
        scan_id=scan_id,
        object_name=name,
        predicted_voxels=points[0],
        truth_voxels=points[1],
        error_downsampled_voxels=float(radial_errors_voxels(*small_points)),
        error_full_size_voxels=float(radial_errors_voxels(*points)),
        error_mm=None if in_mm is None else float(in_mm),
    )


def labels_inside(scan: ScanFile, window: CropBox, values: Labels) -> int:
    """Count the voxels of an object in a window of a scan's mask, slice by slice."""
    if scan.read_mask is None:
        raise ValueError(f"{scan.path.name}: voxels can only be counted in a scan with a mask")
    z, y, x = (
        slice(max(start, 0), min(start + size, length))
        for start, size, length in zip(
            window.start_zyx, window.size_zyx, scan.grid.shape_zyx, strict=True
        )
    )
    total = 0
    for index in range(z.start, z.stop):
        plane = scan.read_mask(index, index + 1)[0, y, x]
        total += int(np.count_nonzero(object_voxels(plane, values)))
    return total


def evaluate_positions(
    examples: Iterable[Example], find: PointFinder, object_names: Sequence[str]
) -> list[ScanError]:
    """Compare the points that `find` returns for each example with the true ones.

    An object that an example lacks has no error there.
    """
    errors: list[ScanError] = []
    for example in examples:
        full, small = example.source_grid, example.grid
        for name, found, truth in zip(
            object_names, find(example), example.points_voxels, strict=True
        ):
            if not np.isnan(truth).any():
                points = map_points(found, small, full), map_points(truth, small, full)
                errors.append(_scan_error(example.scan_id, name, points, (found, truth), full))
    return errors


def mean_position(training: Sequence[ExampleFile]) -> PointFinder:
    """Return a finder that always returns the training scans' mean position, the baseline.

    The mean of an object is over the scans that show it.
    """
    mean = np.nanmean([e.points_voxels for e in training], axis=0)
    grid = Grid(training[0].grid.shape_zyx)
    return lambda example: map_points(mean, grid, example.grid)
