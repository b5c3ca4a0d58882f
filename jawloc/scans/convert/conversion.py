"""One scan on its way to a labelled DICOM, with a mask or with points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jawloc.errors import InputError
from jawloc.geometry import Triple
from jawloc.scans.dicom import open_dicom, read_metadata
from jawloc.scans.file_states import file_states
from jawloc.scans.points import GivenPoint
from jawloc.scans.quantisation import Quantisation, choose_quantisation
from jawloc.scans.scan import ScanFile
from jawloc.scans.spacing import SAME_SPACING


@dataclass(frozen=True)
class Conversion:
    """One scan to be converted, or the result of its conversion."""

    scan_id: str
    image: Path | None  # None for a label without an image
    label: Path | None  # or the file of its points; None for an image without one label
    target: Path  # the labelled DICOM
    skip_reason: str | None = None  # why nothing is written; None for a scan that is converted
    notes: tuple[str, ...] = ()  # for the user to check, for instance a changed spacing
    points: tuple[GivenPoint, ...] = ()  # where these take the place of a mask
    left_out: tuple[str, ...] = ()  # points of other objects, not found or without a position


def carry_out(conversion: Conversion, write: Callable[[Path, Path], tuple[str, ...]]) -> Conversion:
    """Return a conversion with the notes that `write`, given image and label, returns.

    Where there is nothing to write, or what can't be, it has the reason instead.
    """
    if conversion.skip_reason or conversion.image is None or conversion.label is None:
        return conversion
    if conversion.target.exists():
        return replace(conversion, skip_reason=f"{conversion.target.name} exists")
    try:
        notes = write(conversion.image, conversion.label)
    except InputError as error:
        return replace(conversion, skip_reason=str(error))
    except OSError as error:  # a full disk, a folder that is read-only
        reason = f"{conversion.target.name}: can't be written; {error}"
        return replace(conversion, skip_reason=reason)
    return replace(conversion, notes=notes)


def already_there(
    target: Path,
    given: Sequence[Path],
    label_values: Sequence[int] | None,
    spacing_mm_zyx: Triple | None,
) -> str:
    """Return the skip reason of a labelled DICOM that exists.

    It says so where one of the files that were given is newer, as a mask that somebody put
    right is not in the labelled DICOM; or where that was made otherwise than is asked for now.
    Raise InputError if it can't be read.
    """
    made = target.stat().st_mtime_ns
    for path in given:
        if any(changed > made for _, _, changed in file_states(path)):
            return exists_otherwise(target, f"and {path.name} is newer")
    if other := other_spacing(target, spacing_mm_zyx) or _other_values(target, label_values):
        return exists_otherwise(target, other)
    return f"{target.name} exists"


def exists_otherwise(target: Path, what: str) -> str:
    """Return the skip reason of a labelled DICOM that exists, but not as it would be made now."""
    return f"{target.name} exists, {what}: to convert the scan anew, move {target.name} away"


def other_spacing(target: Path, given: Triple | None) -> str:
    """Return which spacing a labelled DICOM has, where it is another than is given; else nothing.

    Raise InputError if it can't be read.
    """
    known = None if given is None else open_dicom(target).grid.spacing_mm_zyx
    if given is None or (known and np.allclose(known, given, rtol=SAME_SPACING)):
        return ""
    was, now = (
        each and f"({', '.join(f'{value:g}' for value in each)}) mm" for each in (known, given)
    )
    return f"with {f'the spacing {was}' if was else 'no spacing'} instead of {now}"


def _other_values(target: Path, label_values: Sequence[int] | None) -> str:
    """Return which label values a labelled DICOM was made of, where others are asked for."""
    notes = read_metadata(target) or {}
    if "label_values" not in notes:  # another program's, or made of points
        return ""
    was, now = (_as_text(values) for values in (notes["label_values"], label_values))
    return f"with {was} instead of {now}" if was != now else ""


def _as_text(values: Sequence[int] | None) -> str:
    if values is None:
        return "all label values"
    return f"the label values {', '.join(map(str, sorted({*values})))}"


def refuse_bad_spacing(spacing: Triple | None) -> None:
    """Raise InputError for a spacing that is given and is not three positive numbers."""
    if spacing is not None and not (
        len(spacing) == 3 and all(np.isfinite(v) and v > 0 for v in spacing)
    ):
        raise InputError(f"spacing: must be three positive numbers (z, y, x) in mm; got {spacing}")


def quantise(image: ScanFile) -> tuple[Quantisation, tuple[str, ...]]:
    """Choose how an image is stored, and return that with notes if it is not exact."""
    quantisation = choose_quantisation(image)
    if not quantisation.mapped:
        return quantisation, ()
    slope, intercept = quantisation.rescale
    notes: tuple[str, ...] = (f"grey values became 16-bit: {slope:.6g} * stored + {intercept:.6g}",)
    if quantisation.clipped_voxels:
        notes += (f"{quantisation.clipped_voxels} voxels far outside the others were clipped",)
    return quantisation, notes
