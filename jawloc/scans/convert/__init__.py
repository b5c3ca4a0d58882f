"""Images and label volumes of any format, paired by name -> labelled DICOMs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from jawloc.errors import InputError, reason_of
from jawloc.geometry import Grid, Triple
from jawloc.scans.convert.conversion import Conversion as Conversion
from jawloc.scans.convert.conversion import (
    already_there,
    carry_out,
    quantise,
    refuse_bad_spacing,
)
from jawloc.scans.dicom.writing import Slab, refuse_too_large, write_labelled_dicom_slabs
from jawloc.scans.pairs import label_mask, open_pair, pair_notes, pair_scans, pair_spacing
from jawloc.scans.progress import Progress
from jawloc.scans.quantisation import Quantisation
from jawloc.scans.reading import open_scan
from jawloc.scans.scan import ScanFile, scan_id_of

MANY_LABEL_VALUES = 8  # fewer are no sign that image and mask were confused


def plan_conversion(
    images: Path,
    labels: Path,
    out: Path,
    *,
    label_values: Sequence[int] | None = None,
    spacing_mm_zyx: Triple | None = None,
    series: Sequence[str] = (),
) -> list[Conversion]:
    """Pair images with labels and list what will be converted, opening headers only.

    `images` and `labels` are a file each; or folders whose files, and sub-folders of slices, are
    one scan each (the same folder if the labels' names have a suffix). The label of a labelled
    DICOM is its mask. `out` is the folder for the labelled DICOMs. `series` are SeriesInstanceUIDs,
    one of which each image that is a folder of DICOM files must have, and a label may have.
    `label_values` and `spacing_mm_zyx` as for `convert`: with others, a target that exists was made
    otherwise.

    Returns
    -------
    list of Conversion
        Sorted by scan id; `convert` leaves out those with a `skip_reason`: the target exists, a
        partner is missing or ambiguous, a file is unreadable, the shapes differ, or the image is
        too large for a DICOM.

    Raises
    ------
    InputError
        If a folder does not exist or holds no scan, `out` is a file, two images have one scan
        id, or no image at all has a label.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: the labelled DICOMs need a folder; this is a file")
    by_id, fit, unused = pair_scans(images, labels)
    pairs = Progress(by_id.items(), desc="reading headers", unit="scan", brief=True)
    how = (series, label_values, spacing_mm_zyx)
    plan = [_planned(i, path, fit[i], out / f"{i}.dcm", *how) for i, path in pairs]
    for path in unused:
        name = scan_id_of(path)
        plan.append(Conversion(name, None, path, out / f"{name}.dcm", f"no image for {path.name}"))
    return sorted(plan, key=lambda item: item.scan_id)


def _planned(
    scan_id: str,
    image: Path,
    labels: Sequence[Path],
    target: Path,
    series: Sequence[str],
    label_values: Sequence[int] | None,
    spacing_mm_zyx: Triple | None,
) -> Conversion:
    label = labels[0] if len(labels) == 1 else None
    reason, notes = None, tuple[str, ...]()
    if not labels:
        reason = f"no label for {scan_id}"
    elif label is None:
        reason = f"several labels fit {image.name}: {', '.join(path.name for path in labels)}"
    else:
        try:
            if target.exists():
                reason = already_there(target, (label, image), label_values, spacing_mm_zyx)
                return Conversion(scan_id, image, label, target, reason)
            opened, opened_label = open_pair(image, label, series)
            refuse_too_large(target, opened.grid.shape_zyx, opened.dtype)
            notes = pair_notes(opened, opened_label)
        except InputError as error:
            reason = str(error)
    return Conversion(scan_id, image, label, target, reason, notes)


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
    shapes differ, its label values are not whole numbers 0 ... 255, or its mask is empty or has no
    background.
    """
    _refuse_bad_values(label_values)
    refuse_bad_spacing(spacing_mm_zyx)

    def write(image_path: Path, label_path: Path) -> tuple[str, ...]:
        image, label = open_pair(image_path, label_path, series)
        return _write(conversion.target, image, label, label_values, spacing_mm_zyx)

    return carry_out(conversion, write)


def check_mask(
    conversion: Conversion,
    *,
    label_values: Sequence[int] | None = None,
    series: Sequence[str] = (),
) -> Conversion:
    """Return a planned conversion with the reason, if its mask has one, why it can't be done.

    The mask is read slab by slab, as by `convert`, and no voxel of the image. Points are no mask.
    """
    if conversion.skip_reason or conversion.label is None or conversion.points:
        return conversion
    labelled, background = False, False
    try:
        label = open_scan(conversion.label, series=series, is_label=True)
        read = label.read_mask or label.read_grey_values
        for start, stop in label.slab_ranges():
            mask = label_mask(label, read(start, stop), label_values)
            labelled, background = labelled or bool(mask.any()), background or not mask.all()
        _refuse_unlabelled(label, label_values, labelled=labelled, background=background)
    except (InputError, OSError) as error:
        return replace(conversion, skip_reason=reason_of(error, conversion.label.name))
    return conversion


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
    notes += pair_notes(image, label)
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
        placement=image.read_placement(),
    )
    return notes + more


def choose_spacing(
    image: ScanFile, label: ScanFile, given: Triple | None
) -> tuple[Triple | None, tuple[str, ...]]:
    """Return the spacing that is written, and a note where it is not the image's own."""
    if given is None:
        return pair_spacing(image, label)
    known = image.grid.spacing_mm_zyx
    same = known is None or np.allclose(known, given, rtol=1e-3)
    return given, () if same else (f"spacing {given} mm replaces the image's {known} mm",)


def _slabs(
    image: ScanFile, label: ScanFile, quantisation: Quantisation, label_values: Sequence[int] | None
) -> Iterator[Slab]:
    labelled, background = False, False
    read_label = label.read_mask or label.read_grey_values
    grey_values, values_of_mask = set[float](), set[float]()  # of a slice a slab
    for start, stop in image.slab_ranges():
        given, grey = read_label(start, stop), image.read_image(start, stop)
        values_of_mask.update(np.unique(given[0]).tolist())
        grey_values.update(np.unique(grey[0]).tolist())
        mask = label_mask(label, given, label_values)
        labelled, background = labelled or bool(mask.any()), background or not mask.all()
        yield quantisation.stored(grey), mask
    if len(values_of_mask) > max(MANY_LABEL_VALUES, len(grey_values)):
        raise InputError(
            f"{label.path.name}: a mask has fewer values than its image; in the slices that were "
            f"compared this one has {len(values_of_mask)}, its image {len(grey_values)}: images "
            f"come first, then labels"
        )
    _refuse_unlabelled(label, label_values, labelled=labelled, background=background)


def _refuse_unlabelled(
    label: ScanFile, label_values: Sequence[int] | None, *, labelled: bool, background: bool
) -> None:
    """Raise InputError for a mask without a labelled voxel, or without one of background."""
    if not labelled:
        kept = "" if label_values is None else f" with the label values {list(label_values)}"
        raise InputError(
            f"{label.path.name}: the mask is empty{kept}; a scan needs at least one labelled voxel"
        )
    if not background:
        raise InputError(
            f"{label.path.name}: a mask needs voxels of background, which are 0; all of this "
            f"one are labelled (--label-values chooses those of the object)"
        )
