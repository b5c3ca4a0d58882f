"""The cache's files: the record that each carries about its source, and its checksum.

A cached scan is a labelled DICOM that any viewer opens. Its record, JSON inside the file, names
the file it was made from and the method, and has a checksum of itself and of the voxels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from jawloc.errors import InputError, as_input_error
from jawloc.geometry import Grid, Shape, map_points
from jawloc.scans.atomic import is_file_name
from jawloc.scans.cache.layout import absolute, mirrors, relative
from jawloc.scans.dicom import open_labelled_dicom, read_metadata, write_labelled_dicom_slabs
from jawloc.scans.downsample import Downsampled
from jawloc.scans.labels import Label
from jawloc.scans.quantisation import choose_quantisation
from jawloc.scans.rescale import with_rescale
from jawloc.scans.scan import ScanFile, ScanPoint, scan_in_memory

# Raise it whenever the same source would give other voxels, centroids or another content hash.
ALGORITHM_VERSION = 4
_NOT_BEFORE_3 = ("rescale_slope", "rescale_intercept", "cached_as")
RECORD_KEY = "jawloc_cache"


@dataclass(frozen=True)
class CacheRecord:
    """The record of a cached file: how it was made, and from which full-size file."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    algorithm_version: int  # ALGORITHM_VERSION when it was made
    scan_id: str
    # Path of the full-size file, relative to the cached file's folder where it can be, so that a
    # project can be moved as a whole.
    source: str
    source_bytes: int
    source_mtime_ns: int
    source_shape_zyx: tuple[int, int, int]
    source_spacing_mm_zyx: tuple[float, float, float] | None
    target_shape_zyx: tuple[int, int, int]
    labels: tuple[Label, ...]  # every one of the full-size mask, or the points in its place
    content_hash: str  # `jawloc.scans.downsample.hash_content` of the full-size file
    key: str  # SHA-256 of content hash, target shape and algorithm version
    checksum: str = ""  # SHA-256 of the rest of this record and of the cached voxels
    # The cached file's own path, relative to the cache's folder: a user's copy of it elsewhere in
    # that folder is not jawloc's to remove. Empty before version 3.
    cached_as: str = ""
    rescale_slope: float = 1.0
    rescale_intercept: float = 0.0
    # Whether the file ends with a checksum of all its bytes: that of the record does not cover what
    # jawloc never reads of a cached file, but viewers do, such as the spacing in the header.
    checked_as_whole: bool = False

    @property
    def source_grid(self) -> Grid:
        """Return the grid of the full-size scan."""
        return Grid(self.source_shape_zyx, self.source_spacing_mm_zyx)

    @property
    def grid(self) -> Grid:
        """Return the grid of the cached scan."""
        return self.source_grid.resized(self.target_shape_zyx)


_RECORD: TypeAdapter[CacheRecord] = TypeAdapter(CacheRecord)


@dataclass(frozen=True)
class CachedScan:
    """A cached file whose checksum is right: record, grey values and mask (z, y, x)."""

    record: CacheRecord
    image: np.ndarray
    mask: np.ndarray | None  # None of a scan with points in place of a mask


def source_of(cached: Path, record: CacheRecord) -> Path:
    """Return the path of the full-size file from which a cached file was made."""
    return absolute(Path(record.source), absolute(cached, Path()).parent)


def is_current(
    record: CacheRecord, cached: Path, source: Path, stat: os.stat_result, shape: Shape
) -> bool:
    """Return whether a cached file may be used as it is, without opening its source."""
    return (
        record.algorithm_version == ALGORITHM_VERSION
        and record.target_shape_zyx == tuple(shape)
        and record.source_bytes == stat.st_size
        and record.source_mtime_ns == stat.st_mtime_ns
        and record.source == relative(source, cached.parent)
    )


def write_cached(
    path: Path, folder: Path, scan: ScanFile, stat: os.stat_result, small: Downsampled
) -> str:
    """Write a file of the cache in `folder`, whole or not at all, and return its key.

    Grey values that 16 bits can't hold exactly are rounded to 1/65535 of their range.
    """
    source, (z, y, x) = scan.grid, small.image.shape
    grid = source.resized((z, y, x))
    quantisation = choose_quantisation(scan_in_memory(path, small.image, grid))
    stored = quantisation.stored(small.image)
    key = json.dumps([small.content_hash, [z, y, x], ALGORITHM_VERSION]).encode()
    record = CacheRecord(
        algorithm_version=ALGORITHM_VERSION,
        scan_id=scan.scan_id,
        source=relative(scan.path, path.parent),
        source_bytes=stat.st_size,
        source_mtime_ns=stat.st_mtime_ns,
        source_shape_zyx=source.shape_zyx,
        source_spacing_mm_zyx=source.spacing_mm_zyx,
        target_shape_zyx=(z, y, x),
        labels=small.labels,
        content_hash=small.content_hash,
        key=hashlib.sha256(key).hexdigest(),
        cached_as=relative(path, folder),
        rescale_slope=quantisation.rescale[0],
        rescale_intercept=quantisation.rescale[1],
        checked_as_whole=True,
    )
    record = replace(record, checksum=_checksum(record, stored, small.mask))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_labelled_dicom_slabs(
        path,
        [(stored, small.mask)],
        grid,
        quantisation.dtype,
        metadata={RECORD_KEY: _RECORD.dump_python(record, mode="json")},
        rescale=quantisation.rescale,
        points=_mapped(scan.points, source, grid),
        checksum=True,
    )
    return record.key


def _mapped(points: Sequence[ScanPoint], source: Grid, target: Grid) -> list[ScanPoint]:
    mapped = []
    for point in points:
        at = map_points(np.asarray(point.voxels_zyx), source, target)
        # rounding may carry a point on the border out of the scan
        z, y, x = np.minimum(at, np.asarray(target.shape_zyx) - 0.5).tolist()
        mapped.append(ScanPoint(point.object, (z, y, x)))
    return mapped


def read_cached(path: Path) -> CachedScan:
    """Read a cached file; InputError if it isn't a cached scan or its checksum is wrong."""
    # a damaged DICOM can make its parser raise anything
    with as_input_error(f"{path.name}: a cached scan must be readable"):
        record = read_record(path)
        scan = open_labelled_dicom(path)
        if scan.grid.shape_zyx != record.target_shape_zyx:
            raise InputError(
                f"{path.name}: a cached scan must have the shape {record.target_shape_zyx} that "
                f"its record gives; it has {scan.grid.shape_zyx}"
            )
        slices = scan.grid.shape_zyx[0]
        image = scan.read_image(0, slices)
        mask = None if scan.read_mask is None else scan.read_mask(0, slices)
        if record.checksum != _checksum(record, image, mask):
            raise InputError(f"{path.name}: a cached scan must fit its checksum; it is damaged")
        # from the record, which the checksum covers, and not from the file's header
        scan = with_rescale(scan, [(record.rescale_slope, record.rescale_intercept)])
        image = scan.grey_values(image)
    return CachedScan(record, image, mask)


def is_cached_scan(path: Path) -> bool:
    """Return whether a file carries the record of a cached scan, whole or not, of any version."""
    try:
        return RECORD_KEY in (read_metadata(path) or {})
    except Exception:  # as in read_cached; what can't be read can't be recognised either
        return False


def is_own_file(path: Path, folder: Path) -> bool:
    """Return whether jawloc wrote a file at this very place below the cache's folder.

    A whole record isn't needed: damaged files and those of other versions are jawloc's as well.
    """
    try:
        record = (read_metadata(path) or {})[RECORD_KEY]
        if record.get("cached_as"):
            return bool(record["cached_as"] == relative(path, folder))
        # before version 3 a record named only its source, not the cached file itself
        source = absolute(Path(record["source"]), path.parent)
        return mirrors(path, folder, source, record["target_shape_zyx"])
    except Exception:  # as in read_cached; what can't be read can't be recognised either
        return False


def read_record(path: Path) -> CacheRecord:
    """Read the record of a cached file, without its voxels; InputError if there is none."""
    metadata = read_metadata(path)
    if metadata is None or RECORD_KEY not in metadata:
        raise InputError(f"{path.name}: a cached scan must carry jawloc's record; it has none")
    try:
        record = _RECORD.validate_json(json.dumps(metadata[RECORD_KEY]))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{path.name}: a cached scan's record must be whole; {where}: {first['msg']}"
        ) from error
    if not is_file_name(record.scan_id):  # files are named after it
        raise InputError(
            f"{path.name}: a scan's id must be a file's name; its record has {record.scan_id!r}"
        )
    return record


def _checksum(record: CacheRecord, image: np.ndarray, mask: np.ndarray | None) -> str:
    content: dict[str, Any] = _RECORD.dump_python(replace(record, checksum=""), mode="json")
    if not record.checked_as_whole:  # made before there was such a checksum
        del content["checked_as_whole"]
    if record.algorithm_version < 3:
        for later in _NOT_BEFORE_3:
            del content[later]
    stored = image.dtype.newbyteorder("<")
    digest = hashlib.sha256(json.dumps([content, stored.str], sort_keys=True).encode())
    digest.update(np.ascontiguousarray(image, stored).data)
    if mask is not None:
        digest.update(np.ascontiguousarray(mask, np.uint8).data)
    return digest.hexdigest()
