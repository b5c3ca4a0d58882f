"""DICOM headers: elements, functional groups, and how and where the pixels are stored."""

from __future__ import annotations

import io
import json
import logging
import math
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from jawloc.errors import InputError, as_input_error, one_line
from jawloc.geometry import Shape
from jawloc.scans.dicom.attributes import PIXELS_TAG
from jawloc.scans.opening import open_below, open_binary

# Values longer than this stay in the file: headers come into memory, pixels and masks do not.
_DEFER_BYTES = 16 * 1024
_META_BYTES = 4096  # the elements before the transfer syntax are shorter
# Of a compressed frame, which has to be in memory as a whole: 16,384 x 16,384 voxels of 16 bits.
_LARGEST_DECODED = 2**29
_UNDEFINED_LENGTH = 0xFFFFFFFF
_NO_ELEMENT, _MOST_ZEROS = bytes(8), 2**14  # 128 KiB of zeros one after another
_RAW_SYNTAXES = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian)

# What pydicom logs of damaged files, with tracebacks, is in an InputError where it matters.
logging.getLogger("pydicom").addHandler(logging.NullHandler())
# Nor does it warn of each value that isn't as its type asks: what is used is checked here.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE


@dataclass(frozen=True)
class PixelLayout:
    """How the pixels of one DICOM file are stored."""

    path: Path
    shape_zyx: Shape  # NumberOfFrames, Rows, Columns
    dtype: np.dtype  # uint8, int8, uint16 or int16
    unused_bits: int  # BitsAllocated - BitsStored: meaningless high bits, cleared on reading
    offset: int | None  # of uncompressed little-endian values; None: pydicom decodes the frames
    inverted: bool = False  # MONOCHROME1: the largest value is black


def read_header(path: Path, *, whole: bool = True) -> Dataset:
    """Read everything but the large values of a DICOM file.

    Raise InputError if there is no such file, it is not DICOM, or it ends before its elements do;
    the pixels' end matters only with `whole`.
    """
    if not path.is_file():
        raise InputError(f"{path.name}: a scan must be an existing file; there is none at {path}")
    # pydicom raises a dozen types for damaged files
    with as_input_error(f"{path.name}: the DICOM header can't be read"):
        _refuse_deflated(path)
        try:
            with BoundedFile(path) as file:
                header = pydicom.dcmread(file, defer_size=_DEFER_BYTES)
        except InvalidDicomError as error:
            rule = "a .dcm file must be DICOM; it has no DICOM file header"
            raise InputError(f"{path.name}: {rule}") from error
    refuse_truncated_elements(header, path, besides=None if whole else PIXELS_TAG)
    return header


class BoundedFile(io.BufferedReader):
    """A file of which no more is asked than is left: Python allocates what a header promises.

    Zeros, as a crash leaves them at the end of a file, are elements without a value to pydicom: so
    many that reading them would take minutes are refused with a ValueError.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(str(path), opener=open_below))
        self._bytes, self._zeros = os.fstat(self.fileno()).st_size, 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read so many bytes, or those that are left."""
        left = max(0, self._bytes - self.tell())
        content = super().read(left if size is None or size < 0 else min(size, left))
        self._zeros = self._zeros + 1 if content == _NO_ELEMENT else 0
        if self._zeros > _MOST_ZEROS:
            raise ValueError("it has zeros where its elements should be")
        return content


def _refuse_deflated(path: Path) -> None:
    """Refuse a deflated file by its first bytes: pydicom would inflate it whole, however large."""
    with open_binary(path) as file:
        start = file.read(_META_BYTES)
    value = start.partition(b"\x02\x00\x10\x00")[2][4:68]  # after type and length
    if value.startswith(uid.DeflatedExplicitVRLittleEndian.encode()):
        raise InputError(f"{path.name}: deflated DICOM isn't read; store it without deflation")


def frames_of(path: Path) -> int | None:
    """Return how many frames a DICOM file has; None if it can't be read or has no image.

    Neither the file's end nor its pixels matter.
    """
    wanted: list[Any] = ["NumberOfFrames", "Rows", "Columns"]
    try:
        _refuse_deflated(path)
        with BoundedFile(path) as file:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=wanted)
        return frames_stated(header) if "Rows" in header or "Columns" in header else None
    except Exception:  # pydicom raises a dozen types for damaged files
        return None


def frames_stated(header: Dataset) -> int:
    """Return the number of frames, 1 where it isn't stated or is no number."""
    try:
        return int(header.get("NumberOfFrames") or 1)
    except Exception:  # opening the file names the mistake
        return 1


def refuse_truncated_elements(header: Dataset, path: Path, *, besides: int | None = None) -> None:
    """Raise InputError if an element that is still in the file ends after the file does.

    `besides` is the tag of one that may.
    """
    with as_input_error(f"{path.name}: the DICOM header can't be read"):
        places = {tag: byte_range(header, tag) for tag in header.keys() if tag != besides}  # noqa: SIM118
    size = path.stat().st_size
    for tag, (offset, length) in ((tag, place) for tag, place in places.items() if place):
        if offset + length > size:
            raise InputError(
                f"{path.name}: the file is truncated; element {tag} ends at byte "
                f"{offset + length}, the file at byte {size}"
            )


def header_value(header: Dataset | None, keyword: str, path: Path) -> Any:
    """Return an element's value; None where it is absent or empty; InputError if malformed."""
    if header is None:
        return None
    try:
        value = header.get(keyword)
        return None if value in (None, "") else value
    except Exception as error:  # a malformed value: pydicom raises whatever its converter did
        raise InputError(
            f"{path.name}: the DICOM element {keyword} can't be read; {one_line(error)}"
        ) from error


def json_value(header: Dataset, tag: int, rule: str) -> Any:
    """Return what the JSON in an element means; InputError, with the rule, if it can't be read."""
    with as_input_error(rule):  # whatever pydicom raises for a malformed value
        text = header[tag].value
        return json.loads(text if isinstance(text, str) else bytes(text).rstrip(b"\0 "))


def shown(value: Any) -> str:
    """Return a value as text on one line, whatever a damaged header has in it."""
    return " ".join(str(value).split())


def first_item(header: Dataset | None, keyword: str, path: Path) -> Dataset | None:
    """Return the first item of a sequence; None where there is none."""
    items = header_value(header, keyword, path)
    return items[0] if items else None


def functional_group(header: Dataset, keyword: str, path: Path) -> Dataset | None:
    """Return the one item of a functional group, shared by all frames or taken from the first."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        found = first_item(first_item(header, groups, path), keyword, path)
        if found is not None:
            return found
    return None


def byte_range(header: Dataset, tag: int) -> tuple[int, int] | None:
    """Return an element's offset and length in its file; None where it is absent or encapsulated.

    Only for elements whose value has not been read from the header: pydicom then drops the place.
    """
    element = header.get_item(tag, keep_deferred=True)
    if not isinstance(element, RawDataElement) or element.length == _UNDEFINED_LENGTH:
        return None
    return element.value_tell, element.length


def pixel_layout(header: Dataset, path: Path) -> PixelLayout:
    """Describe the pixels of an opened file, which may be a single slice.

    Raise InputError if there are no pixels, they are not 8- or 16-bit grey values, their number
    does not fit the shape, or nothing installed here can decode their compression.
    """
    if "PixelData" not in header:
        raise InputError(f"{path.name}: a scan needs pixel data; the file has none (truncated?)")
    samples = _integer(header, "SamplesPerPixel", path, 1)
    colours = header_value(header, "PhotometricInterpretation", path) or "MONOCHROME2"
    if samples != 1 or colours not in ("MONOCHROME2", "MONOCHROME1"):
        raise InputError(
            f"{path.name}: pixels must be one grey value each (MONOCHROME2 or MONOCHROME1); "
            f"they are {shown(colours)} with {samples} per pixel"
        )
    frames = _integer(header, "NumberOfFrames", path, 1)
    shape = (frames, _integer(header, "Rows", path), _integer(header, "Columns", path))
    if min(shape) < 1:
        raise InputError(f"{path.name}: frames, rows and columns must be positive; got {shape}")
    bits = _integer(header, "BitsAllocated", path)
    if bits not in (8, 16):
        raise InputError(f"{path.name}: grey values must have 8 or 16 bits; they have {bits}")
    stored = _integer(header, "BitsStored", path, bits)
    if not 1 <= stored <= bits:
        raise InputError(f"{path.name}: BitsStored must be 1 to {bits}; it is {stored}")
    high = _integer(header, "HighBit", path, stored - 1)
    if stored < bits and high != stored - 1:
        raise InputError(
            f"{path.name}: HighBit must be {stored - 1}, 1 less than BitsStored, so that grey "
            f"values are in the lowest bits; it is {high}"
        )
    signed = _integer(header, "PixelRepresentation", path, 0)
    if signed not in (0, 1):
        raise InputError(f"{path.name}: PixelRepresentation must be 0 or 1; it is {signed}")
    dtype = np.dtype(f"{'i' if signed else 'u'}{bits // 8}")
    offset = _pixels_offset(header, path, shape, dtype)
    return PixelLayout(path, shape, dtype, bits - stored, offset, colours == "MONOCHROME1")


def _pixels_offset(header: Dataset, path: Path, shape: Shape, dtype: np.dtype) -> int | None:
    pixels = byte_range(header, PIXELS_TAG)
    syntax = _syntax(header)
    needed, frame = math.prod(shape) * dtype.itemsize, shape[1] * shape[2] * dtype.itemsize
    if pixels is None or _is_compressed(syntax, path):
        _refuse_undecodable(syntax, path)
        size = path.stat().st_size
        if frame > _LARGEST_DECODED or shape[0] > size:
            raise InputError(
                f"{path.name}: pixel data must hold frames x rows x columns = {shape} values; a "
                f"compressed file of {size} bytes can't"
            )
        return None
    # One pad byte is DICOM's rule; some scanners pad with more, but never with a whole frame.
    offset, length = pixels
    if not needed <= length < needed + max(frame, 2):
        raise InputError(
            f"{path.name}: pixel data must hold frames x rows x columns = {shape} values of "
            f"{dtype.itemsize} byte(s), {needed} bytes; it holds {length}"
        )
    if syntax in _RAW_SYNTAXES or (syntax is None and header.original_encoding[1]):
        return offset
    _refuse_undecodable(syntax, path)
    return None


def _refuse_undecodable(syntax: Any, path: Path) -> None:
    from pydicom.pixels import get_decoder

    # a syntax that pydicom doesn't know is refused like one that it can't decode here
    with suppress(NotImplementedError, ValueError, TypeError, AttributeError):
        if get_decoder(syntax).is_available:
            return
    name = shown(getattr(syntax, "name", syntax))
    raise InputError(f"{path.name}: pixel data in this transfer syntax can't be decoded; {name}")


def _integer(header: Dataset, keyword: str, path: Path, default: int | None = None) -> int:
    value: Any = header_value(header, keyword, path)
    value = default if value is None else value
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path.name}: the DICOM element {keyword} must be one whole number; it is {value!r}"
        ) from error


def _syntax(header: Dataset) -> Any:
    return getattr(header, "file_meta", Dataset()).get("TransferSyntaxUID")


def _is_compressed(syntax: Any, path: Path) -> bool:
    try:
        return bool(getattr(syntax, "is_compressed", False))
    except ValueError:  # a UID of something else, as in a damaged header
        raise InputError(
            f"{path.name}: the transfer syntax must be one of DICOM's; it is {shown(syntax)}"
        ) from None
