"""Images and label volumes of any format -> labelled DICOMs.

An image and a label belong together if they have the same scan id (file name without its ending,
or folder name), or if the label's is the image's followed by ``_mask``, ``_label``, ``_labels``
or ``_seg``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from jawloc.errors import InputError
from jawloc.geometry import Grid, Triple
from jawloc.scans.conversion import Conversion as Conversion
from jawloc.scans.conversion import carry_out, quantise, refuse_bad_spacing
from jawloc.scans.dicom.writing import Slab, write_labelled_dicom_slabs
from jawloc.scans.labels import object_voxels
from jawloc.scans.quantisation import Quantisation
from jawloc.scans.reading import open_scan
from jawloc.scans.scan import ScanFile, scan_ending, scan_id_of
from jawloc.scans.volumes import VOLUME_ENDINGS, volume_direction

LABEL_SUFFIXES = ("", "_mask", "_label", "_labels", "_seg")

Pairs = tuple[dict[str, Path], dict[str, list[Path]], list[Path]]


def plan_conversion(
    images: Path, labels: Path, out: Path, *, series: Sequence[str] = ()
) -> list[Conversion]:
    """Pair images with labels and list what will be converted, opening headers only.

    `images` and `labels` are a file each; or folders whose files, and sub-folders of slices, are
    one scan each (the same folder if the labels' names have a suffix). The label of a labelled
    DICOM is its mask. `out` is the folder for the labelled DICOMs. `series` are SeriesInstanceUIDs,
    one of which each image that is a folder of DICOM files must have, and a label may have.

    Returns
    -------
    list of Conversion
        Sorted by scan id; `convert` leaves out those with a `skip_reason`: the target exists, a
        partner is missing or ambiguous, a file is unreadable, or the shapes differ.

    Raises
    ------
    InputError
        If a folder does not exist or holds no scan, `out` is a file, two images have one scan
        id, or no image at all has a label.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: the labelled DICOMs need a folder; this is a file")
    by_id, fit, unused = pair_scans(images, labels)
    plan = [_planned(i, path, fit[i], out / f"{i}.dcm", series) for i, path in by_id.items()]
    for path in unused:
        name = scan_id_of(path)
        plan.append(Conversion(name, None, path, out / f"{name}.dcm", f"no image for {path.name}"))
    return sorted(plan, key=lambda item: item.scan_id)


def pair_scans(images: Path, labels: Path) -> Pairs:
    """Return images by scan id, the labels that fit each by the same id, and those that fit none.

    None is opened. InputError as for `plan_conversion`.
    """
    by_id, found_labels = _images_and_labels(images, labels)
    partners = {scan_id: _labels_of(scan_id, found_labels, by_id) for scan_id in by_id}
    if not (used := {path for paths in partners.values() for path in paths}):
        raise InputError(
            f"{labels}: a label must be named like its image, or end in one of "
            f"{', '.join(LABEL_SUFFIXES[1:])}; none of its {len(found_labels)} scans fits one "
            f"of the {len(by_id)} in {images}"
        )
    return by_id, partners, [path for path in found_labels if path not in used]


def _images_and_labels(images: Path, labels: Path) -> tuple[dict[str, Path], list[Path]]:
    """List the scans in two folders (or two files): images by scan id, and labels.

    In one folder for both, the scans whose names end like a label are the labels. Raise InputError
    if a folder does not exist or holds no scan, or two images have one scan id.
    """
    found_images, found_labels = find_scans_in(images, "images"), find_scans_in(labels, "labels")
    if images.resolve() == labels.resolve():
        found_labels = [p for p in found_labels if scan_id_of(p).endswith(LABEL_SUFFIXES[1:])]
        found_images = [path for path in found_images if path not in found_labels]
    return images_by_id(found_images), found_labels


def images_by_id(paths: Sequence[Path]) -> dict[str, Path]:
    """Return images by scan id; raise InputError if two have one id."""
    by_id: dict[str, Path] = {}
    for path in paths:
        other = by_id.setdefault(scan_id_of(path), path)
        if other != path:
            raise InputError(
                f"{scan_id_of(path)}: two images must not share a scan id (file name); "
                f"{other.name} and {path.name}"
            )
    return by_id


def find_scans_in(place: Path, what: str) -> list[Path]:
    """Return a file, or the scans in a folder; InputError, with what they are, if it has none."""
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


def _labels_of(scan_id: str, labels: Sequence[Path], images: Collection[str]) -> list[Path]:
    """Return the labels that fit an image by name.

    A label named like the image plus a suffix is left to the image of that very name, if any.
    """
    wanted = {scan_id + suffix for suffix in LABEL_SUFFIXES}
    return [
        path
        for path in labels
        if (name := scan_id_of(path)) in wanted and (name == scan_id or name not in images)
    ]


def _planned(
    scan_id: str, image: Path, labels: Sequence[Path], target: Path, series: Sequence[str]
) -> Conversion:
    label = labels[0] if len(labels) == 1 else None
    reason = None
    if not labels:
        reason = f"no label for {scan_id}"
    elif label is None:
        reason = f"several labels fit {image.name}: {', '.join(path.name for path in labels)}"
    elif target.exists():
        reason = f"{target.name} exists"
    else:
        try:
            open_pair(image, label, series)
        except InputError as error:
            reason = str(error)
    return Conversion(scan_id, image, label, target, reason)


def open_pair(
    image_path: Path, label_path: Path, series: Sequence[str] = ()
) -> tuple[ScanFile, ScanFile]:
    """Open an image and its label; InputError if one is unreadable or their shapes differ."""
    image = open_scan(image_path, series=series)
    label = open_scan(label_path, series=series, is_label=True)
    if image.grid.shape_zyx != label.grid.shape_zyx:
        raise InputError(
            f"{label_path.name}: a label must have its image's shape (z, y, x), "
            f"{image.grid.shape_zyx}; it has {label.grid.shape_zyx}"
        )
    return image, label


def convert(
    conversion: Conversion,
    *,
    label_values: Sequence[int] | None = None,
    spacing_mm_zyx: Triple | None = None,
    series: Sequence[str] = (),
) -> Conversion:
    """Write one labelled DICOM, slab by slab; a scan that can't be converted leaves no file.

    Grey values that 8 or 16 bits can't hold exactly are mapped linearly to 0 ... 65535; the file's
    rescale slope and intercept map them back. A DICOM's stored values and rescale are kept.

    Parameters
    ----------
    label_values : label values 1 ... 255 to keep; all others become background
    spacing_mm_zyx : for formats that lose it; it replaces a spacing in the image, with a note
    series : as for `plan_conversion`

    Returns
    -------
    The conversion with its `notes`, or with a `skip_reason` where the scan is unreadable, its
    shapes differ, its label values are not whole numbers 0 ... 255, or its mask is empty.
    """
    _refuse_bad_values(label_values)
    refuse_bad_spacing(spacing_mm_zyx)

    def write(image_path: Path, label_path: Path) -> tuple[str, ...]:
        image, label = open_pair(image_path, label_path, series)
        return _write(conversion.target, image, label, label_values, spacing_mm_zyx)

    return carry_out(conversion, write)


def _refuse_bad_values(label_values: Sequence[int] | None) -> None:
    if label_values is not None and (
        not label_values or not all(int(v) == v and 1 <= v <= 255 for v in label_values)
    ):
        raise InputError(
            f"label values: must be whole numbers 1 to 255, at least one; got {list(label_values)}"
        )


def _write(
    target: Path,
    image: ScanFile,
    label: ScanFile,
    label_values: Sequence[int] | None,
    given_spacing: Triple | None,
) -> tuple[str, ...]:
    """Write the file and return the notes."""
    spacing, notes = choose_spacing(image, label, given_spacing)
    notes += _orientation_note(image.path, label.path)
    quantisation, more = quantise(image)
    metadata = {
        "image": image.path.name,
        "label": label.path.name,
        "label_values": None if label_values is None else [int(v) for v in label_values],
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    write_labelled_dicom_slabs(
        target,
        _slabs(image, label, quantisation, label_values),
        Grid(image.grid.shape_zyx, spacing),
        quantisation.dtype,
        metadata=metadata,
        rescale=quantisation.rescale,
    )
    return notes + more


def choose_spacing(
    image: ScanFile, label: ScanFile, given: Triple | None
) -> tuple[Triple | None, tuple[str, ...]]:
    """Return the spacing that is written, and a note where it is not the image's own."""
    known, labels = image.grid.spacing_mm_zyx, label.grid.spacing_mm_zyx
    if given is not None:
        same = known is None or np.allclose(known, given, rtol=1e-3)
        return given, () if same else (f"spacing {given} mm replaces the image's {known} mm",)
    if known is None and labels is not None:
        return labels, (f"spacing {labels} mm is the label's; the image has none",)
    return known, ()


def _orientation_note(image: Path, label: Path) -> tuple[str, ...]:
    """Voxels are paired by index, so a label stored in another orientation would be wrong."""
    both = [path.name.lower().endswith(VOLUME_ENDINGS) for path in (image, label)]
    if not all(both) or np.allclose(volume_direction(image), volume_direction(label), atol=1e-3):
        return ()
    return (f"{label.name} has another orientation than {image.name}: check that they match",)


def _slabs(
    image: ScanFile, label: ScanFile, quantisation: Quantisation, label_values: Sequence[int] | None
) -> Iterator[Slab]:
    labelled, read_label = False, label.read_mask or label.read_grey_values
    for start, stop in image.slab_ranges():
        mask = label_mask(label, read_label(start, stop), label_values)
        labelled = labelled or bool(mask.any())
        yield quantisation.stored(image.read_image(start, stop)), mask
    if not labelled:
        kept = "" if label_values is None else f" with the label values {list(label_values)}"
        raise InputError(
            f"{label.path.name}: the mask is empty{kept}; a scan needs at least one labelled voxel"
        )


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
