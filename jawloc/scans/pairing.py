"""Which label volume belongs to which image, by name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from jawloc.errors import InputError
from jawloc.scans.scan import scan_ending, scan_id_of

LABEL_SUFFIXES = ("", "_mask", "_label", "_labels", "_seg")


def images_and_labels(images: Path, labels: Path) -> tuple[dict[str, Path], list[Path]]:
    """List the scans in two folders (or two files): images by scan id, and labels.

    In one folder for both, the scans whose names end like a label are the labels. Raise InputError
    if a folder does not exist or holds no scan, or two images have one scan id.
    """
    found_images, found_labels = _find_scans(images, "images"), _find_scans(labels, "labels")
    if images.resolve() == labels.resolve():
        found_labels = [p for p in found_labels if scan_id_of(p).endswith(LABEL_SUFFIXES[1:])]
        found_images = [path for path in found_images if path not in found_labels]
    by_id: dict[str, Path] = {}
    for path in found_images:
        other = by_id.setdefault(scan_id_of(path), path)
        if other != path:
            raise InputError(
                f"{scan_id_of(path)}: two images must not share a scan id (file name); "
                f"{other.name} and {path.name}"
            )
    return by_id, found_labels


def _find_scans(place: Path, what: str) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise InputError(f"{place}: the {what} must be in an existing folder; there is none")
    paths = [
        path
        for path in sorted(place.iterdir())
        if not path.name.startswith(".") and (path.is_dir() or scan_ending(path))
    ]
    if not paths:
        raise InputError(f"{place}: the folder of {what} must hold scans; it has none")
    return paths


def labels_of(scan_id: str, labels: Sequence[Path], images: Collection[str]) -> list[Path]:
    """Return the labels that fit an image by name.

    A label named like the image plus a suffix is left to the image of that very name, if any.
    """
    wanted = {scan_id + suffix for suffix in LABEL_SUFFIXES}
    return [
        path
        for path in labels
        if (name := scan_id_of(path)) in wanted and (name == scan_id or name not in images)
    ]
