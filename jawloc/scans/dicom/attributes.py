"""The header of a DICOM that jawloc writes: a multi-frame secondary capture image.

The SOP class is "grayscale word" or "grayscale byte" by the type of the grey values. Signed ones
are written as such (PixelRepresentation 1) although the class means unsigned ones: every reader
understands it, and shifting them would change their values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.valuerep import DSfloat

from jawloc.geometry import Grid, Placement, Shape, Triple

PRIVATE_CREATOR = "LabelData"
CREATOR_TAG = 0x00BB00B0
MASK_TAG = 0x00BBB001
POINTS_TAG = 0x00BBB002
METADATA_TAG = 0x00BBB010
PIXELS_TAG = 0x7FE00010
CHECKSUM_TAG = 0xFFFCFFFC  # Data Set Trailing Padding, which every reader passes over
PADDED_FRAMES = "padded_frames"

_EMPTY_BUT_REQUIRED = (
    *("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName"),
    *("PatientID", "PatientBirthDate", "PatientSex", "StudyID", "PositionReferenceIndicator"),
    "PatientOrientation",
)


def header_bytes(
    grid: Grid,
    dtype: np.dtype,
    metadata: Mapping[str, Any],
    rescale: tuple[float, float],
    placement: Placement,
    points: str = "",
) -> tuple[bytes, bytes]:
    """Return a file's bytes before the mask element, and between it and the pixels.

    Parameters are as in `write_labelled_dicom_slabs`; without a spacing there are no positions.
    `points` is the text of the element that stands in for the mask; empty: there is none.
    """
    shape, spacing = grid.shape_zyx, grid.spacing_mm_zyx
    head = _identity(shape, dtype, rescale)
    tail = Dataset()
    if points:
        tail.add_new(POINTS_TAG, "UT", points)
    if metadata:
        tail.add_new(METADATA_TAG, "UT", json.dumps(metadata))
    tail.PresentationLUTShape = "IDENTITY"
    if spacing is None:
        # A multi-frame image must have something to tell its frames apart: here, a number.
        head.FrameIncrementPointer = 0x00182001
        head.PageNumberVector = list(range(1, shape[0] + 1))
    else:
        head.FrameIncrementPointer = 0x52009230
        tail.SharedFunctionalGroupsSequence = [_shared_groups(spacing, placement)]
        tail.PerFrameFunctionalGroupsSequence = [
            _frame_groups(number, spacing[0], placement) for number in range(shape[0])
        ]
    head.add_new(CREATOR_TAG, "LO", PRIVATE_CREATOR)
    before, between = BytesIO(), DicomBytesIO()
    head.save_as(before, enforce_file_format=True)
    between.is_little_endian, between.is_implicit_VR = True, False
    write_dataset(between, tail)
    return before.getvalue(), between.getvalue()


def has_creator(header: Dataset) -> bool:
    """Return whether the private elements of an opened file are jawloc's.

    In another maker's file the same elements could mean anything.
    """
    creator = header[CREATOR_TAG].value if CREATOR_TAG in header else ""
    return str(creator).strip() == PRIVATE_CREATOR


def _identity(shape: Shape, dtype: np.dtype, rescale: tuple[float, float]) -> Dataset:
    head = Dataset()
    head.file_meta = FileMetaDataset()
    head.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    head.SOPClassUID = (
        uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage
        if dtype.itemsize == 1
        else uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    )
    for level in ("SOPInstance", "StudyInstance", "SeriesInstance", "FrameOfReference"):
        setattr(head, f"{level}UID", uid.generate_uid(prefix=None))
    for keyword in _EMPTY_BUT_REQUIRED:
        setattr(head, keyword, None)
    head.ImageType = ["DERIVED", "SECONDARY"]
    head.Modality, head.ConversionType = "OT", "WSD"
    head.InstanceNumber, head.SeriesNumber = 1, 1
    head.BurnedInAnnotation = "NO"
    head.SamplesPerPixel, head.PhotometricInterpretation = 1, "MONOCHROME2"
    head.NumberOfFrames, head.Rows, head.Columns = shape
    head.BitsAllocated = head.BitsStored = 8 * dtype.itemsize
    head.HighBit = head.BitsStored - 1
    head.PixelRepresentation = int(dtype.kind == "i")
    head.RescaleSlope, head.RescaleIntercept = (_decimal(value) for value in rescale)
    head.RescaleType = "US"
    return head


def _shared_groups(spacing: Triple, placement: Placement) -> Dataset:
    measures, plane, groups = Dataset(), Dataset(), Dataset()
    z, y, x = (_decimal(value) for value in spacing)
    measures.PixelSpacing = [y, x]
    measures.SliceThickness = measures.SpacingBetweenSlices = z
    _, along_y, along_x = placement.axes_zyx
    plane.ImageOrientationPatient = [_decimal(v) for v in (*along_x[::-1], *along_y[::-1])]
    groups.PixelMeasuresSequence = [measures]
    groups.PlaneOrientationSequence = [plane]
    return groups


def _frame_groups(number: int, step_mm: float, placement: Placement) -> Dataset:
    content, position, groups = Dataset(), Dataset(), Dataset()
    content.InStackPositionNumber, content.StackID = number + 1, "1"
    origin, along_z = placement.origin_lps_mm_zyx, placement.axes_zyx[0]
    point = [o + number * step_mm * a for o, a in zip(origin, along_z, strict=True)]
    position.ImagePositionPatient = [_decimal(v) for v in point[::-1]]
    groups.FrameContentSequence = [content]
    groups.PlanePositionSequence = [position]
    return groups


def _decimal(value: float) -> DSfloat:
    """Return a number as DICOM text, which has at most 16 characters."""
    return DSfloat(float(value), auto_format=True)
