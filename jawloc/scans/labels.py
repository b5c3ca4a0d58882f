"""Labels: which objects a mask or points show, their positions, and masks on a coarser grid.

A label is a label value of a mask, or a point in place of a mask. A point is of the object whose
name it has or, if it has a label value instead of a name, of the object with that value.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jawloc.errors import InputError
from jawloc.geometry import Shape, Triple
from jawloc.scans.averaging import PlaneAverage, rows_reached
from jawloc.scans.scan import ScanFile, ScanPoint, slab_ranges

Objects = Mapping[str, Sequence[int] | None]  # label values by name; None: every non-zero one

HALF = 0.5 - 1e-5  # of a voxel, less what single precision may lose in a sum of shares


@dataclass(frozen=True)
class Label:
    """A label value 1 ... 255 of a full-size mask, its number of voxels and their mean index.

    Of a point, the label value or the object's name, no voxels, and its position.
    """

    value: int | str
    voxels: int
    centroid_voxels: Triple


def point_labels(points: Iterable[ScanPoint]) -> tuple[Label, ...]:
    """Return a scan's points as labels."""
    return tuple(Label(point.object, 0, point.voxels_zyx) for point in points)


def object_voxels(mask: np.ndarray, label_values: Collection[int] | None) -> np.ndarray:
    """Return which voxels of a mask belong to an object (bool); None: every non-zero voxel."""
    return mask != 0 if label_values is None else np.isin(mask, list(label_values))


def voxels_by_object(mask: np.ndarray, objects: Objects) -> list[np.ndarray]:
    """Return which voxels of a mask belong to each object (bool), in the objects' order."""
    return [object_voxels(mask, values) for values in objects.values()]


def object_values(found: Iterable[int], label_values: Collection[int] | None) -> set[int]:
    """Return which of the non-zero label values found in a mask belong to an object; None: all."""
    return set(found) if label_values is None else set(found).intersection(label_values)


def labels_of(
    labels: Iterable[Label], name: str, label_values: Collection[int] | None
) -> list[Label]:
    """Return the labels of an object; label values None: every value, but no other name."""
    return [label for label in labels if _is_of(label.value, name, label_values)]


def _is_of(value: int | str, name: str, label_values: Collection[int] | None) -> bool:
    if isinstance(value, str):
        return value == name
    return label_values is None or value in label_values


def objects_shown(
    found: Collection[int | str], objects: Mapping[str, Sequence[int] | None]
) -> frozenset[str]:
    """Return the names of the objects that labels of these values (or names) show."""
    return frozenset(
        name
        for name, wanted in objects.items()
        if any(_is_of(value, name, wanted) for value in found)
    )


def refuse_two_points(
    labels: Iterable[Label], objects: Mapping[str, Sequence[int] | None], scan_name: str
) -> None:
    """Raise InputError if a scan has more than one point of an object."""
    points = [label for label in labels if label.voxels == 0]
    for name, wanted in objects.items():
        own = labels_of(points, name, wanted)
        if len(own) > 1:
            raise InputError(
                f"{scan_name}: an object has one point in a scan; {name!r} has {len(own)}, those "
                f"of {' and '.join(_named(label.value) for label in own)}"
            )


def _named(value: int | str) -> str:
    return repr(value) if isinstance(value, str) else f"label value {value}"


def refuse_without_objects(
    found: Collection[int | str], objects: Mapping[str, Sequence[int] | None], scan_name: str
) -> None:
    """Raise InputError if there are no labels, or if they show none of the objects."""
    if not found:
        raise InputError(
            f"{scan_name}: the mask is empty; a scan needs at least one labelled voxel"
        )
    if objects_shown(found, objects):
        return
    wanted = [
        f"{name!r} (label values {'any' if wanted is None else list(wanted)})"
        for name, wanted in objects.items()
    ]
    one = "the object" if len(wanted) == 1 else "at least one of the objects"
    names = sorted(value for value in found if isinstance(value, str))
    values = sorted(value for value in found if not isinstance(value, str))
    what = "point" if names else "voxel"
    has = [f"points of {', '.join(map(repr, names))}"] if names else []
    has += [f"the label values {values}"] if values else []
    raise InputError(
        f"{scan_name}: every scan must show {one}; it has no {what} of {' or '.join(wanted)}, but "
        f"{' and '.join(has)}"
    )


def object_centroids(
    labels: Sequence[Label], objects: Mapping[str, Sequence[int] | None], scan_name: str
) -> np.ndarray:
    """Return the objects' centroids, or points, (object, 3) in full-size voxels from all labels.

    They are NaN for an object without a label; InputError if no object has one, or if one has
    several points.
    """
    refuse_without_objects([label.value for label in labels], objects, scan_name)
    refuse_two_points(labels, objects, scan_name)
    centroids = np.full((len(objects), 3), np.nan)
    for row, (name, wanted) in enumerate(objects.items()):
        own = labels_of(labels, name, wanted)
        if own:
            weights = [label.voxels or 1 for label in own]  # a point has no voxels
            centroids[row] = np.average([i.centroid_voxels for i in own], axis=0, weights=weights)
    return centroids


def search_labels(scan: ScanFile, objects: Collection[Collection[int] | None]) -> set[int]:
    """Return label values of a scan's mask, stopping as soon as every object has been found.

    An object is found with a voxel of any of its values (None: of any value); if one is missing,
    all values 1 ... 255 that occur are returned. The search begins at 0.8 of the height, where
    jaws are, so a whole mask is read only where an object is missing or far from there.
    """
    found: set[int] = set()
    if scan.read_mask is None:
        return found
    height = 0.8 * scan.grid.shape_zyx[0]
    ranges = slab_ranges(scan.grid.shape_zyx, bytes_per_voxel=1)
    for start, stop in sorted(ranges, key=lambda slab: abs(sum(slab) / 2 - height)):
        slab = scan.read_mask(start, stop)
        if slab.any():  # most slabs are empty, and that is quick to tell
            found.update(int(value) for value in np.flatnonzero(np.bincount(slab[slab > 0])))
            if all(object_values(found, wanted) for wanted in objects):
                break
    return found


class MaskBuilder:
    """Collects the slices of a mask: label counts, centroids and the mask on the target grid."""

    def __init__(self, source: Shape, shape: Shape) -> None:
        self._sizes = source[0], shape[0]
        self._average = PlaneAverage(source, shape, np.dtype(np.float32))
        self._array = np.zeros(shape, np.uint8)
        self._voxels_left = np.zeros(256, np.int64)  # by label value, in the target mask
        self._open_rows: dict[int, dict[int, np.ndarray]] = {}
        self._sums: dict[int, list[int]] = {}  # label -> voxels and sums of their z, y, x
        self._best: dict[int, tuple[float, Shape]] = {}  # label -> largest share, and where
        self._y, self._x = np.arange(source[1]), np.arange(source[2])

    def add(self, index: int, plane: np.ndarray) -> None:
        """Add source slice `index`."""
        rows = rows_reached(index, *self._sizes)
        for value in _labels_in(plane):
            carries = (plane == value).astype(np.float32)  # sums stay exact up to 2**24 voxels
            self._count(value, index, carries)
            averaged = self._average(carries)
            for reached in rows:
                weight = np.float32(reached.share * self._sizes[1] / self._sizes[0])
                shares = self._open_rows.setdefault(reached.row, {})
                shares[value] = shares.get(value, 0) + weight * averaged
        for reached in rows:
            if reached.complete and reached.row in self._open_rows:
                self._settle(reached.row, self._open_rows.pop(reached.row))

    def _count(self, value: int, index: int, carries: np.ndarray) -> None:
        per_row = (carries @ np.ones_like(carries[0])).astype(np.int64)
        per_column = (np.ones_like(carries[:, 0]) @ carries).astype(np.int64)
        voxels = int(per_row.sum())
        found = [voxels, voxels * index, int(per_row @ self._y), int(per_column @ self._x)]
        so_far = self._sums.get(value, [0, 0, 0, 0])
        self._sums[value] = [a + b for a, b in zip(so_far, found, strict=True)]

    def _settle(self, row: int, shares: dict[int, np.ndarray]) -> None:
        """Choose the labels of a target slice to which every source slice has been added."""
        values = sorted(shares)
        stack = np.stack([shares[value] for value in values])
        winner = np.asarray(values, np.uint8)[stack.argmax(axis=0)]
        self._array[row] = np.where(stack.sum(axis=0) >= HALF, winner, 0)
        self._voxels_left += np.bincount(self._array[row].ravel(), minlength=256)
        for value, share in zip(values, stack, strict=True):
            largest = float(share.max())
            if largest > self._best.get(value, (0.0,))[0]:
                y, x = np.unravel_index(int(share.argmax()), share.shape)
                self._best[value] = (largest, (row, int(y), int(x)))

    def labels(self) -> tuple[Label, ...]:
        """Return every label of the source, sorted by value."""
        return tuple(
            Label(value, voxels, (z / voxels, y / voxels, x / voxels))
            for value, (voxels, z, y, x) in sorted(self._sums.items())
        )

    def finished(self) -> np.ndarray:
        """Return the target mask; a label that would vanish keeps the voxel it fills most."""
        for value, (_, where) in sorted(self._best.items()):
            if self._voxels_left[value] == 0:
                voxel = _nearest_voxel_to_spare(self._array, self._voxels_left, where)
                self._voxels_left[self._array[voxel]] -= 1
                self._array[voxel] = value
                self._voxels_left[value] = 1
        return self._array


def _labels_in(plane: np.ndarray) -> list[int]:
    """Return the label values in a slice, at little cost where there are none or one."""
    highest = int(plane.max())
    if highest == 0:
        return []
    if np.count_nonzero(plane) == np.count_nonzero(plane == highest):
        return [highest]
    found = np.flatnonzero(np.bincount(plane.ravel(), minlength=256))
    return [int(value) for value in found if value]


def _nearest_voxel_to_spare(mask: np.ndarray, counts: np.ndarray, where: Shape) -> Shape:
    """Return the voxel nearest to `where` that is not the only one of another label."""
    only_one = np.isin(mask, np.flatnonzero(counts[1:] == 1) + 1)
    if not only_one[where]:
        return where
    spare = np.argwhere(~only_one)
    if len(spare) == 0:
        return where  # more labels than voxels: no mask could hold them all
    z, y, x = spare[((spare - where) ** 2).sum(axis=1).argmin()]
    return int(z), int(y), int(x)
