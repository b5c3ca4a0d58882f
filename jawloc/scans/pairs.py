"""Images and their masks in files of their own, paired by name, as scans to evaluate a model on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from jawloc.errors import InputError
from jawloc.geometry import Grid
from jawloc.scans.convert import label_mask, open_pair, pair_scans
from jawloc.scans.listing import ListedScan, list_scans
from jawloc.scans.reading import open_scan
from jawloc.scans.scan import ScanFile


def are_images(place: Path, *, series: Sequence[str] = ()) -> bool:
    """Return whether a file or folder holds images without labels, by the first that opens."""
    try:
        listed = list_scans([place], series=series)
    except InputError:
        return False
    for scan in listed:
        try:
            return not open_scan(scan.path, series=series).is_labelled
        except InputError:
            continue
    return False


def list_pairs(images: Path, labels: Path, *, series: Sequence[str] = ()) -> list[ListedScan]:
    """List images with the labels that fit their names, as `jawloc dicoms` pairs them.

    A label without an image is warned of; an image without one fails when it is opened. InputError
    as for `jawloc.scans.convert.plan_conversion`.
    """
    by_id, partners, unused = pair_scans(images, labels)
    for path in unused:
        warnings.warn(f"{path.name}: there is no image for this label", stacklevel=2)
    return [
        ListedScan(scan_id, by_id[scan_id].absolute(), tuple(series), tuple(partners[scan_id]))
        for scan_id in sorted(by_id)
    ]


def open_paired(listed: ListedScan) -> ScanFile:
    """Open an image with the label in another file as its mask.

    Raises
    ------
    InputError
        If no label fits its name or several do, or one of the two is unreadable, or their shapes
        differ.
    """
    labels = listed.labels or ()
    if len(labels) != 1:
        found = ", ".join(path.name for path in labels) or "none"
        raise InputError(f"{listed.path.name}: one label must fit the image's name; {found} does")
    image, label = open_pair(listed.path, labels[0], listed.series)
    spacing = image.grid.spacing_mm_zyx or label.grid.spacing_mm_zyx
    grid = Grid(image.grid.shape_zyx, spacing)
    return replace(image, grid=grid, read_mask=partial(_read_label, label))


def _read_label(label: ScanFile, start: int, stop: int) -> np.ndarray:
    read = label.read_mask or label.read_grey_values
    return label_mask(label, read(start, stop), None)
