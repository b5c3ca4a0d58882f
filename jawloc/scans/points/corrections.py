"""Which decisions of people are labels to train on: review.csv -> corrections, scan by scan."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from jawloc.errors import InputError
from jawloc.geometry import Triple
from jawloc.scans.atomic import is_file_name
from jawloc.scans.points.cells import read_cells
from jawloc.scans.points.review import (
    REVIEW_COLUMNS,
    Review,
    numbered_reviews,
    refuse_shared_files,
    scan_file,
)
from jawloc.scans.text_input import real_path

CORRECTED_WEIGHT = 1.0
_NO_TEXT = re.compile("[\udc80-\udcff]")  # bytes that aren't UTF-8, as surrogateescape reads them


def _as_tuple(given: object) -> object:
    """Let one file stand without a list; JSON and YAML have lists for tuples."""
    if given is None:
        return ()
    return (
        (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list) else given
    )


@dataclass(frozen=True)
class CorrectionsConfig:
    """Which decisions about located positions are trained on."""

    # Files of decisions that `jawloc review` made (review.csv), whose corrected positions are
    # trained on beside the scans of `dicom_dirs`.
    corrections: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    # The share that an accepted position of a scan without a label counts in the loss, where a
    # label or a corrected position counts 1; 0: accepted positions are not trained on.
    accepted_weight: Annotated[float, Field(ge=0, le=1)] = 0.0
    # A model (name, file or MLflow URI) whose errors in the same test scans are reported beside the
    # new one's. `null`: with `corrections`, the model whose positions were corrected.
    compare_with: str | None = None


@dataclass(frozen=True)
class Correction:
    """One object's position as a person left it, to be trained on."""

    review: Review
    object: str
    voxels_zyx: Triple  # of the full-size scan
    weight: float  # in the loss
    source: str  # the file and its line

    @property
    def is_corrected(self) -> bool:
        """Return whether the position was corrected, not only accepted."""
        return self.review.verdict == "moved"


@dataclass(frozen=True)
class CorrectedScan:
    """A scan and the positions in it to train on, at least one."""

    scan_id: str
    path: Path  # of the scan that was reviewed
    positions: tuple[Correction, ...]

    @property
    def is_corrected(self) -> bool:
        """Return whether at least one position was corrected, not only accepted."""
        return any(position.is_corrected for position in self.positions)


@dataclass(frozen=True)
class Corrections:
    """The scans of all reviews, and how many decisions are not trained on, by why not."""

    scans: tuple[CorrectedScan, ...] = ()
    unused: Mapping[str, int] = field(default_factory=dict)

    @property
    def model(self) -> str | None:
        """Return the model, as `jawloc locate` was given it, that was reviewed last."""
        reviews = [p.review for scan in self.scans for p in scan.positions if p.review.model]
        return max(reviews, key=lambda review: review.time).model if reviews else None


def read_corrections(
    files: Sequence[Path], objects: Collection[str], accepted_weight: float
) -> Corrections:
    """Read reviews; of an object that several decide about, the last decision counts.

    Parameters
    ----------
    objects : the names of those that are trained on; decisions about others are not used
    accepted_weight : of an accepted position in the loss; 0: it is not used

    Raises
    ------
    InputError
        If a file is no review, a scan of it doesn't exist, two scans have one name or, in one
        review, one file, or there is no position to train on.
    """
    if not files:
        return Corrections()
    unused: Counter[str] = Counter()
    by_scan: dict[Path, tuple[Path, list[Correction]]] = {}  # by the real path: links are one scan
    for path, review, source in _last_decisions(files):
        reason = _why_unused(review, objects, accepted_weight)
        if reason:
            unused[reason] += 1
            continue
        assert review.object is not None and review.position_voxels_zyx is not None
        weight = CORRECTED_WEIGHT if review.verdict == "moved" else accepted_weight
        _, positions = by_scan.setdefault(real_path(path), (path, []))
        positions.append(
            Correction(review, review.object, review.position_voxels_zyx, weight, source)
        )
    names = " and ".join(path.name for path in files)
    if not by_scan:
        raise InputError(
            f"corrections: {names} must have a corrected position of {' or '.join(objects)}, or an "
            f"accepted one and an accepted_weight above 0; it has {_in_words(unused)}"
        )
    scans = [CorrectedScan(_scan_id(own[0]), path, tuple(own)) for path, own in by_scan.values()]
    _refuse_missing(scans)
    return Corrections(tuple(sorted(scans, key=lambda scan: scan.scan_id)), dict(unused))


def _last_decisions(files: Sequence[Path]) -> Iterator[tuple[Path, Review, str]]:
    """Yield the scan's file, the last decision about each object in it, and where that is."""
    last: dict[tuple[Path, str | None], tuple[Path, Review, str]] = {}
    for file in files:
        try:
            header, rows = read_cells(file, REVIEW_COLUMNS, errors="surrogateescape")
        except OSError as error:
            raise InputError(
                f"corrections: {file} must be a review.csv that can be read; {error.strerror}"
            ) from error
        found = [
            (scan_file(review, file), review, f"{file.name}, line {line}")
            for line, review in numbered_reviews(header, rows, file)
        ]
        _refuse_without_path(found)
        _refuse_other_encodings(found)
        refuse_shared_files((review.scan, path, source) for path, review, source in found)
        for path, review, source in found:
            key = real_path(path), review.object
            if key not in last or last[key][1].time <= review.time:
                last[key] = path, review, source
    yield from last.values()


def _refuse_without_path(found: Sequence[tuple[Path, Review, str]]) -> None:
    """Raise InputError, a line a decision, for those of which nobody knows the scan's file."""
    complaints = [
        f"{source}: path must be the file of scan {review.scan}; it is empty"
        for _, review, source in found
        if not review.path
    ]
    if complaints:
        raise InputError("\n".join(complaints))


def _refuse_other_encodings(found: Sequence[tuple[Path, Review, str]]) -> None:
    """Raise InputError for a reviewer's name that a training's record couldn't be logged with."""
    for _, review, source in found:
        if _NO_TEXT.search(review.reviewer):
            raise InputError(
                f"{source}: reviewer must be text in UTF-8; it is {review.reviewer!r}: save the "
                f"table as UTF-8"
            )


def _why_unused(review: Review, objects: Collection[str], accepted_weight: float) -> str:
    if review.position_voxels_zyx is None:
        return review.verdict
    if review.object not in objects:
        return f"of the object {review.object!r}, which is not trained on"
    return "accepted" if review.verdict == "accepted" and not accepted_weight else ""


def _in_words(unused: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {reason}" for reason, number in unused.items()) or "no row"


def _scan_id(first: Correction) -> str:
    name = first.review.scan
    if not is_file_name(name):
        raise InputError(f"{first.source}: scan must be the name of a scan; it is {name!r}")
    return name


def _refuse_missing(scans: Sequence[CorrectedScan]) -> None:
    """Raise InputError, a line a scan, for those without a file or with another one's name."""
    complaints, known = [], dict[str, CorrectedScan]()
    for scan in scans:
        source = scan.positions[0].source
        if not scan.path.exists():
            complaints.append(
                f"{source}: path must be the file of scan {scan.scan_id} (a relative one begins in "
                f"the table's folder); there is none at {str(scan.path)!r}"
            )
        other = known.setdefault(scan.scan_id, scan)
        if other is not scan:
            complaints.append(
                f"{source}: two scans must not share a name; {scan.scan_id} is {other.path} and "
                f"{scan.path}"
            )
    if complaints:
        raise InputError("\n".join(complaints))
