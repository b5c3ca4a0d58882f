"""One labelled scan and a locator -> the error of each object, and what a crop would hold of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jawloc.geometry import Grid, Shape, map_points, voxels_to_mm
from jawloc.heatmaps.metrics import radial_errors_mm, radial_errors_voxels
from jawloc.inference.crop import CropBox, crop_box_around
from jawloc.inference.locator import Localisation, Locator
from jawloc.scans.cache import Example, ExampleFile
from jawloc.scans.downsample import downsample
from jawloc.scans.labelled import open_labelled
from jawloc.scans.labels import Label, object_centroids, object_values, object_voxels
from jawloc.scans.listing import ListedScan
from jawloc.scans.scan import ScanFile
from jawloc.training.provenance import LEARNED_FROM, ScanIdentity, ScanUse, identify, use_of

Labels = Sequence[int] | None  # label values of an object; None: every non-zero voxel
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
class ScanEvaluation:
    """One object in one labelled scan, as a locator found it.

    Attributes
    ----------
    path : Path
    scan_id : str
        Of the file, by which a training knows it; the error's `scan_id` names it among these
        scans, of which several may have one id.
    offset_voxels : array, shape (3,)
        Found minus true, in voxels of the full-size scan.
    offset_mm : array, shape (3,), or None where the spacing is unknown
    window : CropBox
        Of the crop round the found position.
    labelled_voxels, inside_voxels : int
        How many of the object there are at full size, and how many of them the crop holds.
    identity : ScanIdentity
        By what the scan is known again, its specimen included: what the model's record says that
        is, else the scan's name.
    use : ScanUse
        What the model has used the scan for already.
    only_the_name_is_known : bool
        Whether the model learned from a scan of this name that is another one.
    """

    path: Path
    scan_id: str
    error: ScanError
    found: Localisation
    offset_voxels: np.ndarray
    offset_mm: np.ndarray | None
    window: CropBox
    labelled_voxels: int
    inside_voxels: int
    identity: ScanIdentity
    use: ScanUse = "unknown"
    only_the_name_is_known: bool = False

    @property
    def specimen(self) -> str:
        """Return the name of the specimen that was scanned."""
        return self.identity.specimen

    @property
    def is_fair(self) -> bool:
        """Say whether the model is known to have learned nothing from the scan's specimen."""
        return self.use not in LEARNED_FROM and self.use != "unknown"

    @property
    def inside(self) -> float:
        """Return the share of the object's labelled voxels that the crop holds."""
        return self.inside_voxels / self.labelled_voxels


def evaluate_scan(
    locator: Locator, listed: ListedScan, crop_size: Shape, objects: Sequence[str] = ()
) -> list[ScanEvaluation]:
    """Find the objects in a labelled scan, which is read slab by slab, and compare with its mask.

    Parameters
    ----------
    crop_size : (z, y, x) in voxels of the full-size scan
    objects : which of the locator's count; all without names

    Returns
    -------
    One for each object that the scan shows.

    Raises
    ------
    InputError
        A file that can't be read as a scan, has no mask or none of the objects in it, is smaller
        than the locator's grid, or is a downsampled copy.
    """
    scan = open_labelled(listed.path)
    small = downsample(scan, locator.downsampled_size)
    prediction = locator.predict(small.image)
    found = {one.object_name: one for one in locator.localise(listed.name, prediction, scan.grid)}
    at = dict(zip(locator.objects, prediction.points_voxels, strict=True))
    wanted = {name: locator.objects[name] for name in objects or locator.objects}
    centroids = object_centroids(small.labels, wanted, listed.path.name)
    shown = {name: c for name, c in zip(wanted, centroids, strict=True) if not np.isnan(c).any()}
    record = locator.provenance
    identity = (identify if record is None else record.identify)(
        scan.scan_id, small.content_hash, small.image
    )
    every = []
    for name, truth in shown.items():
        error = scan_error(found[name], truth, at[name], scan.grid, locator.downsampled_size)
        window = crop_box_around(found[name].point_voxels, crop_size, scan.grid.shape_zyx)
        offset = error.predicted_voxels - truth
        every.append(
            ScanEvaluation(
                path=listed.path,
                scan_id=scan.scan_id,
                error=error,
                found=found[name],
                offset_voxels=offset,
                offset_mm=voxels_to_mm(offset, scan.grid),
                window=window,
                labelled_voxels=count_labels(small.labels, wanted[name]),
                inside_voxels=labels_inside(scan, window, wanted[name]),
                identity=identity,
                use=use_of(record, identity),
                only_the_name_is_known=record is not None and record.shares_name_only(identity),
            )
        )
    return every


def scan_error(
    found: Localisation, truth: np.ndarray, predicted_small: np.ndarray, full: Grid, size: Shape
) -> ScanError:
    """Return the distance between a found and the true position in every unit.

    Parameters
    ----------
    truth : array, shape (3,), voxels of the full-size grid `full`
    predicted_small : array, shape (3,), voxels of the downsampled grid of this size
    """
    predicted = np.asarray(found.point_voxels)
    in_mm = radial_errors_mm(predicted, truth, full)
    small = radial_errors_voxels(predicted_small, map_points(truth, full, Grid(size)))
    return ScanError(
        scan_id=found.scan_id,
        object_name=found.object_name,
        predicted_voxels=predicted,
        truth_voxels=truth,
        error_downsampled_voxels=float(small),
        error_full_size_voxels=float(radial_errors_voxels(predicted, truth)),
        error_mm=None if in_mm is None else float(in_mm),
    )


def count_labels(labels: Sequence[Label], values: Labels) -> int:
    """Return how many voxels carry a label of an object."""
    own = object_values((label.value for label in labels), values)
    return sum(label.voxels for label in labels if label.value in own)


def labels_inside(scan: ScanFile, window: CropBox, values: Labels) -> int:
    """Count the voxels of an object in a window of a scan's mask, slice by slice."""
    if scan.read_mask is None:
        raise ValueError(f"{scan.path.name}: voxels can only be counted in a scan with a mask")
    z, y, x = (
        range(max(start, 0), min(start + size, length))
        for start, size, length in zip(
            window.start_zyx, window.size_zyx, scan.grid.shape_zyx, strict=True
        )
    )
    total = 0
    for index in z:
        plane = scan.read_mask(index, index + 1)[0, y.start : y.stop, x.start : x.stop]
        total += int(np.count_nonzero(object_voxels(plane, values)))
    return total


def evaluate_positions(
    examples: Iterable[Example], find: PointFinder, object_names: Sequence[str]
) -> list[ScanError]:
    """Compare the points that `find` returns for each example with the full-size masks' centroids.

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
    return errors


def mean_position(training: Sequence[ExampleFile]) -> PointFinder:
    """Return a finder that always says the training scans' mean position (the bar to beat).

    Of each object, the mean is that of the scans that show it.
    """
    mean = np.nanmean([e.points_voxels for e in training], axis=0)
    grid = Grid(training[0].grid.shape_zyx)
    return lambda example: map_points(mean, grid, example.grid)
