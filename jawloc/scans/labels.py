"""Label values of a full-size mask: their counts and centroids, and how they look when shrunk."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jawloc.errors import InputError
from jawloc.geometry import Shape, Triple
from jawloc.scans.averaging import PlaneAverage, rows_reached

HALF = 0.5 - 1e-5  # of a voxel, less what single precision may lose in a sum of shares


@dataclass(frozen=True)
class Label:
    """One label value of a full-size mask.

    Attributes
    ----------
    value : int
        1 ... 255.
    voxels : int
        How many voxels carry it.
    centroid_voxels : (z, y, x)
        The mean of their indices.
    """

    value: int
    voxels: int
    centroid_voxels: Triple


def objects_shown(
    values: Collection[int], objects: Mapping[str, Sequence[int] | None]
) -> frozenset[str]:
    """Return the names of the objects that a mask with these label values shows."""
    return frozenset(
        name
        for name, wanted in objects.items()
        if (values if wanted is None else set(wanted) & set(values))
    )


def refuse_without_objects(
    values: Collection[int], objects: Mapping[str, Sequence[int] | None], scan_name: str
) -> None:
    """Refuse a scan whose mask, with these label values, shows none of the objects.

    Raises
    ------
    InputError
        As in `object_centroids`.
    """
    if objects_shown(values, objects):
        return
    wanted = [
        f"{name!r} (label values {'any' if wanted is None else list(wanted)})"
        for name, wanted in objects.items()
    ]
    one = "the object" if len(wanted) == 1 else "at least one of the objects"
    raise InputError(
        f"{scan_name}: every scan must show {one}; it has no voxel of {' or '.join(wanted)}, but "
        f"the label values {sorted(values) or 'none'}"
    )


def object_centroids(
    labels: Sequence[Label], objects: Mapping[str, Sequence[int] | None], scan_name: str
) -> np.ndarray:
    """Return the centroid of each object, from what was counted for each label value.

    Parameters
    ----------
    labels : sequence of Label
        Every label of one scan's mask.
    objects : mapping of name -> label values
        None stands for every non-zero voxel.
    scan_name : str
        File name of the scan, for the error.

    Returns
    -------
    array of float64, shape (object, 3), in full-size voxels (z, y, x); NaN where the scan lacks an
    object

    Raises
    ------
    InputError
        If the scan has no voxel of any object.
    """
    refuse_without_objects([label.value for label in labels], objects, scan_name)
    centroids = np.full((len(objects), 3), np.nan)
    for row, values in enumerate(objects.values()):
        parts = [label for label in labels if values is None or label.value in values]
        if parts:
            centroids[row] = np.average(
                [label.centroid_voxels for label in parts],
                axis=0,
                weights=[label.voxels for label in parts],
            )
    return centroids


class MaskBuilder:
    """Collects the slices of a mask: label counts, centroids and the target mask."""

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
        """Decide on the labels of a target slice to which every source slice has been added."""
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
        """Return what was counted, sorted by label value."""
        return tuple(
            Label(value, voxels, (z / voxels, y / voxels, x / voxels))
            for value, (voxels, z, y, x) in sorted(self._sums.items())
        )

    def finished(self) -> np.ndarray:
        """Return the target mask, each label that vanished in it put back where it was densest."""
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
