"""Images and their labels in files of their own, paired by name.

An image and a label belong together if they have the same scan id (file name without its ending,
or folder name), or if the label's is the image's followed by ``_mask``, ``_label``, ``_labels``
or ``_seg``.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from jawloc.errors import InputError
from jawloc.geometry import Grid, Placement, Triple
from jawloc.scans.labels import object_voxels
from jawloc.scans.listing import ListedScan, list_scans, scans_inside
from jawloc.scans.messages import TO_CHECK
from jawloc.scans.reading import open_scan
from jawloc.scans.scan import ScanFile, as_compared, scan_id_of
from jawloc.scans.spacing import SAME_SPACING
from jawloc.scans.text_input import real_path

LABEL_SUFFIXES = ("", "_mask", "_label", "_labels", "_seg")

Pairs = tuple[dict[str, Path], dict[str, list[Path]], list[Path]]

_SAME_AXES = 1e-3  # of direction cosines
_SAME_PLACE = 0.5  # voxels
_MADE_UP_MM = 1.0


def pair_scans(images: Path, labels: Path) -> Pairs:
    """Return images by scan id, the labels that fit each by the same id, and those that fit none.

    None is opened. InputError as for `plan_conversion`.
    """
    by_id, found_labels = _images_and_labels(images, labels)
    partners = {scan_id: _labels_of(scan_id, found_labels, by_id) for scan_id in by_id}
    if not (used := {path for paths in partners.values() for path in paths}):
        raise InputError(
            f"{labels}: a label must be named like its image, or end in one of "
            f"{', '.join(LABEL_SUFFIXES[1:])}; none of its scans ({len(found_labels)}) fits one "
            f"in {images} ({len(by_id)}), such as {min(by_id)}"
            f"{_if_swapped(by_id, found_labels)}"
        )
    return by_id, partners, [path for path in found_labels if path not in used]


def _if_swapped(images: Mapping[str, Path], labels: Sequence[Path]) -> str:
    """Return a question if what was given as images would fit as labels."""
    names = {scan_id_of(path) for path in labels}
    fits = any(_labels_of(name, list(images.values()), names) for name in names)
    return "; the images come first, then the labels: are the two swapped?" if fits else ""


def _images_and_labels(images: Path, labels: Path) -> tuple[dict[str, Path], list[Path]]:
    """List the scans in two folders (or two files): images by scan id, and labels.

    In one folder for both, the scans whose names end like a label are the labels. Raise InputError
    if a folder does not exist or holds no scan, or two images have one scan id.
    """
    found_images, found_labels = find_scans_in(images, "images"), find_scans_in(labels, "labels")
    if real_path(images) == real_path(labels):
        found_labels = [p for p in found_labels if scan_id_of(p).endswith(LABEL_SUFFIXES[1:])]
        found_images = [path for path in found_images if path not in found_labels]
    return images_by_id(found_images), found_labels


def images_by_id(paths: Sequence[Path]) -> dict[str, Path]:
    """Return images by scan id; raise InputError if two have one id."""
    by_id: dict[str, Path] = {}
    by_name: dict[str, Path] = {}
    for path in paths:
        by_id[scan_id_of(path)] = path
        other = by_name.setdefault(as_compared(scan_id_of(path)), path)
        if other != path:
            raise InputError(
                f"{scan_id_of(path)}: two images must not share a scan id (file name); "
                f"{other.name} and {path.name}"
            )
    return by_id


def find_scans_in(place: Path, what: str) -> list[Path]:
    """Return a file, a folder of slices, or the scans in a folder.

    InputError, with what they are, if it has none.
    """
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise InputError(f"{place}: the {what} must be in an existing folder; it does not exist")
    paths = scans_inside(place)
    if paths is None:  # its id is the folder's name, which "." and ".." don't say
        return [place.resolve() if place.name in ("", "..") else place]
    if not paths:
        raise InputError(f"{place}: the folder of {what} must hold scans; it has none")
    return paths


def _labels_of(scan_id: str, labels: Sequence[Path], images: Collection[str]) -> list[Path]:
    """Return the labels that fit an image by name.

    A label named like the image plus a suffix is left to the image of that very name, if any.
    """
    own, others = as_compared(scan_id), {as_compared(name) for name in images}
    wanted = {own + suffix for suffix in LABEL_SUFFIXES}
    return [
        path
        for path in labels
        if (name := as_compared(scan_id_of(path))) in wanted and (name == own or name not in others)
    ]


def open_pair(
    image_path: Path, label_path: Path, series: Sequence[str] = ()
) -> tuple[ScanFile, ScanFile]:
    """Open an image and its label; InputError if one is unreadable or their shapes differ."""
    image = open_scan(image_path, series=series)
    label = open_scan(label_path, series=series, is_label=True)
    if label.points and label.read_mask is None:
        raise InputError(f"{label_path.name}: a label must have a mask; it has points instead")
    if image.grid.shape_zyx != label.grid.shape_zyx:
        raise InputError(
            f"{label_path.name}: a label must have its image's shape (z, y, x), "
            f"{image.grid.shape_zyx}; it has {label.grid.shape_zyx}"
        )
    return image, label


def pair_notes(image: ScanFile, label: ScanFile) -> tuple[str, ...]:
    """Return what the user should check of a pair, whose voxels belong together by index.

    They may not where the label was stored in another orientation, elsewhere, or with another voxel
    size.
    """
    name, notes = image.path.name, list[str]()
    place, other = image.read_placement(), label.read_placement()
    spacing, own = image.grid.spacing_mm_zyx, label.grid.spacing_mm_zyx
    if place and other:
        if not np.allclose(place.axes_zyx, other.axes_zyx, atol=_SAME_AXES):
            notes.append(f"has another orientation than {name}")
        elif spacing and (apart := _apart_mm(place, other, spacing)):
            notes.append(f"lies elsewhere than {name}, {apart:.4g} mm away")
    if spacing and own and not np.allclose(own, spacing, rtol=SAME_SPACING):
        notes.append(f"has another spacing, {own} mm, than the {spacing} mm of {name}")
    return tuple(f"{label.path.name} {note}: {TO_CHECK}" for note in notes)


def pair_spacing(image: ScanFile, label: ScanFile) -> tuple[Triple | None, tuple[str, ...]]:
    """Return a pair's spacing, and a note where the image has none but the label has.

    A label's step of exactly 1 mm from slice to slice isn't taken: programs that save a mask make
    it up, with 1 mm or pixels per inch in the plane, where the image that they opened has none.
    """
    known, own = image.grid.spacing_mm_zyx, label.grid.spacing_mm_zyx
    if known is not None or own is None:
        return known, ()
    which = f"spacing {own} mm is that of the label, {label.path.name}"
    if own[0] == _MADE_UP_MM:
        return None, (f"{which}, and may be made up: it counts as unknown, as in the image",)
    return own, (f"{which}; the image has none",)


def _apart_mm(place: Placement, other: Placement, spacing: Triple) -> float:
    """Return how far first voxels are apart; 0 if by no more than half a voxel along each axis."""
    offset = np.subtract(other.origin_lps_mm_zyx, place.origin_lps_mm_zyx)
    voxels = np.abs(np.asarray(place.axes_zyx) @ offset) / spacing
    return float(np.linalg.norm(offset)) if voxels.max() > _SAME_PLACE else 0.0


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
        found = f"{', '.join(path.name for path in labels)} do" if labels else "none does"
        raise InputError(f"{listed.path.name}: one label must fit the image's name; {found}")
    image, label = open_pair(listed.path, labels[0], listed.series)
    spacing, notes = pair_spacing(image, label)
    for note in (*(f"{image.path.name}: {note}" for note in notes), *pair_notes(image, label)):
        warnings.warn(note, stacklevel=1)  # from here, so that each is shown once
    grid = Grid(image.grid.shape_zyx, spacing)
    return replace(image, grid=grid, read_mask=partial(_read_label, label))


def label_mask(label: ScanFile, values: np.ndarray, keep: Sequence[int] | None) -> np.ndarray:
    """Return a label's values as uint8, only those to keep; InputError if others don't fit."""
    if keep is not None:
        values = np.where(object_voxels(values, keep), values, 0)
    mask = values.astype(np.uint8)
    if not np.array_equal(mask, values):
        wrong = values[mask != values].flat[0]
        raise InputError(
            f"{label.path.name}: label values must be whole numbers 0 to 255; one is {wrong}"
        )
    return mask


def _read_label(label: ScanFile, start: int, stop: int) -> np.ndarray:
    read = label.read_mask or label.read_grey_values
    return label_mask(label, read(start, stop), None)
