"""Labelled DICOM: what is written is read back by everyone; bad files are named, not crashed on."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless, generate_uid

from jawloc.errors import InputError
from jawloc.geometry import Grid, Placement
from jawloc.scans.dicom import (
    open_dicom,
    open_labelled_dicom,
    read_metadata,
    write_labelled_dicom,
    write_labelled_dicom_slabs,
)
from jawloc.scans.dicom.header import read_header
from jawloc.scans.labelled import find_labelled_dicoms
from jawloc.scans.labels import search_labels
from jawloc.scans.listing import list_scans

MASK_TAG = 0x00BBB001
SPACING = (0.3, 0.0215, 0.0217)
EVEN, ODD = (6, 5, 4), (5, 7, 3)
ODD_FILES = sorted((Path(pydicom.__file__).parent / "data").rglob("*.dcm"))  # in the package


def volume(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Random values over the whole range of an integer type."""
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(0)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def labels(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).choice([0, 0, 1, 7, 255], shape).astype(np.uint8)


def legacy_header(image: np.ndarray, mask: bytes) -> Dataset:
    """The lab's layout, as described: implicit VR, no spacing, stray creator at (00BB,B000)."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.NumberOfFrames, ds.Rows, ds.Columns = image.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    ds.add_new(0x00BBB000, "LO", "LabelData")
    ds.add_new(MASK_TAG, "OB", mask + b"\0" * (len(mask) % 2))
    pixels = image.astype("<u2").tobytes()
    ds.add_new(0x7FE00010, "OW", pixels + b"\0" * (len(pixels) % 2))
    return ds


def write_legacy(
    path: Path,
    shape: tuple[int, int, int] = EVEN,
    change: Callable[[Dataset], object] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    image, mask = volume(shape, "uint16"), labels(shape)
    ds = legacy_header(image, mask.tobytes())
    if change:
        change(ds)
    ds.save_as(path, enforce_file_format=True)
    return image, mask


def read_whole(path: Path) -> tuple[np.ndarray, np.ndarray]:
    scan = open_labelled_dicom(path)
    assert scan.read_mask is not None
    slices = scan.grid.shape_zyx[0]
    return scan.read_image(0, slices), scan.read_mask(0, slices)


# --- what is written is read back -------------------------------------------------------------


@pytest.mark.parametrize("shape", [EVEN, ODD])
@pytest.mark.parametrize("spacing", [SPACING, None])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_written_file_is_read_back_exactly_by_all_readers(tmp_path, shape, spacing, dtype):
    """Guards bit-exactness for jawloc, pydicom, SimpleITK and the lab's reader, odd counts too."""
    import SimpleITK

    path, image, mask = tmp_path / "131.dcm", volume(shape, dtype), labels(shape)
    write_labelled_dicom(path, image, mask, Grid(shape, spacing))

    scan = open_labelled_dicom(path)
    assert (scan.scan_id, scan.dtype, scan.grid) == ("131", np.dtype(dtype), Grid(shape, spacing))
    own_image, own_mask = read_whole(path)
    assert own_image.dtype == image.dtype
    np.testing.assert_array_equal(own_image, image)
    np.testing.assert_array_equal(own_mask, mask)

    ds = pydicom.dcmread(path)
    np.testing.assert_array_equal(ds.pixel_array[: shape[0]], image)

    itk = SimpleITK.ReadImage(str(path))
    values = SimpleITK.GetArrayFromImage(itk)
    assert values.dtype == image.dtype
    np.testing.assert_array_equal(values[: shape[0]], image)
    if spacing:
        np.testing.assert_allclose(itk.GetSpacing(), spacing[::-1], rtol=1e-9)

    # The lab's reader: the raw element, reshaped, and nothing else.
    frames = int(ds.NumberOfFrames)
    raw = np.frombuffer(ds[MASK_TAG].value, np.uint8).reshape(frames, ds.Rows, ds.Columns)
    np.testing.assert_array_equal(raw[: shape[0]], mask)
    assert not raw[shape[0] :].any()


def test_written_file_is_conformant(tmp_path):
    """Guards the private creator's place, the element types, their order, and the spacing tags."""
    path = tmp_path / "a.dcm"
    write_labelled_dicom(path, volume(EVEN, "uint16"), labels(EVEN), Grid(EVEN, SPACING))
    ds = pydicom.dcmread(path)
    assert ds.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert ds.private_block(0x00BB, "LabelData", create=False)
    assert (ds[0x00BB00B0].VR, ds[MASK_TAG].VR) == ("LO", "OB")
    assert 0x00BBB000 not in ds
    in_file = [element.tag for element in ds.values()]
    assert list(ds._dict) == sorted(in_file)
    shared = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert [float(v) for v in shared.PixelSpacing] == [SPACING[1], SPACING[2]]
    assert len(ds.PerFrameFunctionalGroupsSequence) == EVEN[0]


def test_unknown_spacing_leaves_no_spacing_tag(tmp_path):
    """Guards against a made-up 1.0: None stays None and nothing in the file says otherwise."""
    path = tmp_path / "a.dcm"
    write_labelled_dicom(path, volume(EVEN, "uint16"), labels(EVEN), Grid(EVEN))
    words = str(pydicom.dcmread(path))
    assert "Spacing" not in words
    assert "Thickness" not in words
    assert open_labelled_dicom(path).grid.spacing_mm_zyx is None


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        (np.array([0.0, 65535.0]), "uint16"),
        (np.array([-5.0, 300.0]), "int16"),
        (np.array([0, 40000]).astype(np.int64), "uint16"),
        (np.array([True, False]), "uint16"),
    ],
)
def test_other_types_of_whole_numbers_are_stored_exactly(tmp_path, values, stored):
    image = np.resize(values, EVEN)
    write_labelled_dicom(tmp_path / "a.dcm", image, labels(EVEN), Grid(EVEN))
    got, _ = read_whole(tmp_path / "a.dcm")
    assert got.dtype == stored
    np.testing.assert_array_equal(got, image)


@pytest.mark.parametrize("values", [[0.5, 1.0], [-1.0, 40000.0], [0.0, 70000.0], [np.nan, 1.0]])
def test_values_that_would_not_survive_are_refused(tmp_path, values):
    """Guards against silent rounding, wrapping, or NaN turned into a number."""
    image = np.resize(np.array(values), EVEN)
    with pytest.raises(InputError, match=r"a\.dcm: grey values must be whole numbers"):
        write_labelled_dicom(tmp_path / "a.dcm", image, labels(EVEN), Grid(EVEN))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("shape", "padding"), [(EVEN, {}), (ODD, {"padded_frames": 1})])
def test_metadata_come_back(tmp_path, shape, padding):
    path, notes = tmp_path / "a.dcm", {"key": "ü", "centroids": [[1.5, 2, 3]]}
    write_labelled_dicom(path, volume(shape, "uint8"), labels(shape), Grid(shape), metadata=notes)
    assert read_metadata(path) == notes | padding


def test_metadata_of_any_length_come_back(tmp_path):
    """Guards values longer than what a header read keeps in memory."""
    path, notes = tmp_path / "a.dcm", {"long": "x" * 100_000}
    write_labelled_dicom(path, volume(EVEN, "uint8"), labels(EVEN), Grid(EVEN), metadata=notes)
    assert read_metadata(path) == notes


def test_slabs_of_any_size_make_the_same_volume(tmp_path):
    """Guards the places in the file at which streamed slabs land."""
    image, mask = volume((9, 5, 3), "int16"), labels((9, 5, 3))
    cuts = [(0, 1), (1, 1), (1, 6), (6, 9)]
    slabs = ((image[a:b], mask[a:b]) for a, b in cuts)
    grid = Grid(image.shape, SPACING)
    write_labelled_dicom_slabs(tmp_path / "a.dcm", slabs, grid, image.dtype)
    got_image, got_mask = read_whole(tmp_path / "a.dcm")
    np.testing.assert_array_equal(got_image, image)
    np.testing.assert_array_equal(got_mask, mask)


@pytest.mark.parametrize("missing", [1, 3])
def test_nothing_half_made_is_left_when_slabs_fail(tmp_path, missing):
    """Guards against a half-written file, or a temporary one, in a folder of scans."""
    path = tmp_path / "a.dcm"
    write_labelled_dicom(path, volume(EVEN, "uint8"), labels(EVEN), Grid(EVEN))
    before = path.read_bytes()

    def slabs():
        yield np.ones((6 - missing, 5, 4), np.uint8), np.ones((6 - missing, 5, 4), np.uint8)
        if missing == 3:
            raise RuntimeError("the source broke")

    with pytest.raises((RuntimeError, ValueError)):
        write_labelled_dicom_slabs(path, slabs(), Grid(EVEN), np.dtype(np.uint8))
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_image_over_dicoms_limit_is_refused_before_writing(tmp_path):
    grid = Grid((4000, 1000, 1000))
    with pytest.raises(InputError, match="under 4 GiB"):
        write_labelled_dicom_slabs(tmp_path / "a.dcm", [], grid, np.dtype(np.uint16))
    assert list(tmp_path.iterdir()) == []


# --- the lab's layout -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [EVEN, ODD])
def test_legacy_file_is_read_as_it_is(tmp_path, shape):
    """Guards the lab's layout; an odd voxel count ends in a pad byte."""
    image, mask = write_legacy(tmp_path / "64.dcm", shape)
    scan = open_labelled_dicom(tmp_path / "64.dcm")
    assert (scan.scan_id, scan.grid) == ("64", Grid(shape))
    got_image, got_mask = read_whole(tmp_path / "64.dcm")
    np.testing.assert_array_equal(got_image, image)
    np.testing.assert_array_equal(got_mask, mask)
    assert read_metadata(tmp_path / "64.dcm") is None


def test_any_slab_is_the_same_as_a_part_of_the_whole(tmp_path):
    image, mask = write_legacy(tmp_path / "a.dcm", (9, 5, 3))
    scan = open_labelled_dicom(tmp_path / "a.dcm")
    for start, stop in [(0, 1), (4, 4), (3, 8), (8, 9)]:
        np.testing.assert_array_equal(scan.read_image(start, stop), image[start:stop])
        np.testing.assert_array_equal(scan.read_mask(start, stop), mask[start:stop])
    with pytest.raises(IndexError):
        scan.read_image(8, 10)


def test_opening_reads_neither_pixels_nor_mask(tmp_path, monkeypatch):
    """Guards cheap opening: a 1.4 GB scan must not be read to learn its shape."""
    write_legacy(tmp_path / "a.dcm", (40, 100, 100))
    log: list[int] = []
    real = pydicom.dcmread

    def counted(file, **options):
        return real(_Counting(file, log), **options)

    monkeypatch.setattr("jawloc.scans.dicom.header.pydicom.dcmread", counted)
    open_labelled_dicom(tmp_path / "a.dcm")
    assert 0 < sum(log) < 5_000


class _Counting:
    """A file that notes how many bytes are read from it."""

    def __init__(self, file, log):
        self.seek, self.tell, self.name = file.seek, file.tell, file.name
        self._file, self._log = file, log

    def read(self, size=-1):
        got = self._file.read(size)
        self._log.append(len(got))
        return got


def test_opened_scan_can_be_sent_to_another_process(tmp_path):
    image, _ = write_legacy(tmp_path / "a.dcm")
    copy = pickle.loads(pickle.dumps(open_labelled_dicom(tmp_path / "a.dcm")))
    np.testing.assert_array_equal(copy.read_image(0, 6), image)


@pytest.mark.parametrize("signed", [0, 1])
def test_unused_high_bits_are_cleared_like_pydicom_does(tmp_path, signed):
    """Guards 12-bit data whose upper four bits hold something else."""

    def twelve_bits(ds):
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, 11, signed

    write_legacy(tmp_path / "a.dcm", change=twelve_bits)
    got, _ = read_whole(tmp_path / "a.dcm")
    np.testing.assert_array_equal(got, pydicom.dcmread(tmp_path / "a.dcm").pixel_array)
    assert got.max() < 4096


def test_grey_values_in_the_high_bits_are_refused(tmp_path):
    """Regression: their upper bits were cleared, and other grey values read."""

    def high_bits(ds):
        ds.BitsStored, ds.HighBit = 12, 15

    write_legacy(tmp_path / "a.dcm", change=high_bits)
    with pytest.raises(InputError, match=r"^a\.dcm: HighBit must be 11, .*; it is 15$"):
        open_labelled_dicom(tmp_path / "a.dcm")


def test_compressed_file_is_decoded_frame_by_frame(tmp_path):
    image, mask = volume(EVEN, "uint16"), labels(EVEN)
    ds = legacy_header(image, mask.tobytes())
    ds.compress(RLELossless)
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    scan = open_labelled_dicom(tmp_path / "a.dcm")
    np.testing.assert_array_equal(scan.read_image(2, 5), image[2:5])
    np.testing.assert_array_equal(scan.read_mask(2, 5), mask[2:5])


def test_big_endian_file_is_decoded(tmp_path):
    """Guards against reading swapped bytes straight from the file."""
    image, mask = volume(EVEN, "uint16"), labels(EVEN)
    ds = legacy_header(image, mask.tobytes())
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    ds[0x7FE00010].value = image.astype(">u2").tobytes()
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    got_image, got_mask = read_whole(tmp_path / "a.dcm")
    np.testing.assert_array_equal(got_image, image)
    np.testing.assert_array_equal(got_mask, mask)


# --- spacing ----------------------------------------------------------------------------------


def top_level(ds: Dataset) -> None:
    ds.PixelSpacing, ds.SliceThickness = [0.02, 0.03], 0.1


def between_slices_wins(ds: Dataset) -> None:
    top_level(ds)
    ds.SpacingBetweenSlices = 0.05


def positions_confirm(ds: Dataset) -> None:
    frames_at(0, 0.5, 1, 1.5, 2, 2.5)(ds)
    ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = 0.5


def in_plane_only(ds: Dataset) -> None:
    ds.PixelSpacing = [0.02, 0.03]


def frames_at(*depths: float) -> Callable[[Dataset], None]:
    def change(ds: Dataset) -> None:
        measures, shared = Dataset(), Dataset()
        measures.PixelSpacing, measures.SliceThickness = [0.02, 0.03], 9.0
        shared.PixelMeasuresSequence = [measures]
        ds.SharedFunctionalGroupsSequence = [shared]
        ds.PerFrameFunctionalGroupsSequence = []
        for depth in depths:
            position, frame = Dataset(), Dataset()
            position.ImagePositionPatient = [0, 0, depth]
            frame.PlanePositionSequence = [position]
            ds.PerFrameFunctionalGroupsSequence.append(frame)

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (top_level, (0.1, 0.02, 0.03)),
        (between_slices_wins, (0.05, 0.02, 0.03)),
        (in_plane_only, None),
        (frames_at(0, 0.5, 1, 1.5, 2, 2.5), (0.5, 0.02, 0.03)),
        (positions_confirm, (0.5, 0.02, 0.03)),
    ],
)
def test_spacing_is_found_where_dicom_puts_it(tmp_path, change, expected):
    write_legacy(tmp_path / "a.dcm", change=change)
    assert open_labelled_dicom(tmp_path / "a.dcm").grid.spacing_mm_zyx == expected


def test_unevenly_spaced_frames_are_refused(tmp_path):
    write_legacy(tmp_path / "a.dcm", change=frames_at(0, 1, 2, 3, 4, 6))
    with pytest.raises(InputError, match=r"a\.dcm: slices must be evenly spaced"):
        open_labelled_dicom(tmp_path / "a.dcm")


def test_a_spacing_that_contradicts_the_positions_is_refused(tmp_path):
    """Regression: whichever element came first was believed."""

    def contradict(ds):
        positions_confirm(ds)
        ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = 1.5

    write_legacy(tmp_path / "a.dcm", change=contradict)
    with pytest.raises(
        InputError, match=r"a\.dcm: SpacingBetweenSlices .*, 0\.5 mm; it is 1\.5 mm"
    ):
        open_labelled_dicom(tmp_path / "a.dcm")


def even_frames_at(*depths: float) -> Callable[[Dataset], None]:
    """Frames of an enhanced DICOM, whose thickness and spacing are one number."""

    def change(ds: Dataset) -> None:
        frames_at(*depths)(ds)
        measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        measures.SliceThickness = measures.SpacingBetweenSlices = 0.5
        plane = Dataset()
        plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence = [plane]

    return change


@pytest.mark.parametrize("change", [even_frames_at, frames_at], ids=["stated", "by position"])
def test_frames_are_read_in_the_order_of_their_positions(tmp_path, change):
    """Regression: with a spacing in the header they were read in the file's order."""
    image, mask = write_legacy(tmp_path / "a.dcm", change=change(0, 1.5, 0.5, 2, 1, 2.5))
    order = [0, 2, 4, 1, 3, 5]
    scan = pickle.loads(pickle.dumps(open_labelled_dicom(tmp_path / "a.dcm")))
    assert scan.grid.spacing_mm_zyx == (0.5, 0.02, 0.03)
    np.testing.assert_array_equal(scan.read_image(0, 6), image[order])
    np.testing.assert_array_equal(scan.read_image(2, 4), image[order][2:4])
    np.testing.assert_array_equal(scan.read_mask(1, 6), mask[order][1:])
    assert scan.read_image(3, 3).shape == (0, 5, 4)
    with pytest.raises(IndexError):
        scan.read_image(5, 7)


def test_the_place_of_sorted_frames_is_that_of_the_lowest(tmp_path):
    write_legacy(tmp_path / "a.dcm", change=even_frames_at(8.5, 7, 8, 6, 7.5, 6.5))
    placement = open_dicom(tmp_path / "a.dcm").read_placement()
    assert placement == Placement((6.0, 0.0, 0.0))


def test_the_rescale_of_sorted_frames_stays_with_them(tmp_path):
    def rescaled(ds):
        even_frames_at(0, 1.5, 0.5, 2, 1, 2.5)(ds)
        for number, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
            values = Dataset()
            values.RescaleSlope, values.RescaleIntercept = 1, 100_000 * number
            frame.PixelValueTransformationSequence = [values]

    image, _ = write_legacy(tmp_path / "a.dcm", change=rescaled)
    grey = image + 100_000.0 * np.arange(6)[:, None, None]
    got = open_dicom(tmp_path / "a.dcm").read_image(0, 6)
    np.testing.assert_array_equal(got, grey[[0, 2, 4, 1, 3, 5]].astype(np.float32))


def test_frames_in_falling_order_stay_as_they_are(tmp_path):
    image, _ = write_legacy(tmp_path / "a.dcm", change=even_frames_at(2.5, 2, 1.5, 1, 0.5, 0))
    np.testing.assert_array_equal(read_whole(tmp_path / "a.dcm")[0], image)


@pytest.mark.parametrize(
    ("depths", "rule"),
    [
        (
            (0, 0.5, 1.5, 2, 2.5, 3),
            r"evenly spaced; from frame 2 to frame 3 .* \(1 slice missing\)",
        ),
        ((0, 0.5, 1, 0, 0.5, 1), "one frame at each position; frame 1 and frame 4 share one"),
        ((0, 0, 0, 0, 0, 0), "one frame at each position; frame 1 and frame 2 share one"),
        ((0, 1, 2, 3, 4, 5), "SpacingBetweenSlices must be the distance"),
        ((0, 0.5, 1, 1.5, 2), "all frames or none must have .*; 5 of 6 have one"),
    ],
    ids=["gap", "two times", "one place", "another step", "one without"],
)
def test_positions_are_checked_although_the_header_states_the_step(tmp_path, depths, rule):
    """Regression: a gap was closed up, and two time points were read as one longer scan."""
    write_legacy(tmp_path / "a.dcm", change=even_frames_at(*depths))
    with pytest.raises(InputError, match=rf"a\.dcm: .*{rule}"):
        open_dicom(tmp_path / "a.dcm")


def test_run_lengths_of_more_values_than_a_slice_has_are_refused(tmp_path):
    """Regression: the rest was cut off, and what was left need not be the slice."""
    ds = legacy_header(volume(EVEN, "uint16"), labels(EVEN).tobytes())
    ds.compress(RLELossless)
    ds.Columns -= 1
    ds[MASK_TAG].value = b"\1" * (EVEN[0] * EVEN[1] * (EVEN[2] - 1))
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    scan = open_labelled_dicom(tmp_path / "a.dcm")
    with pytest.raises(InputError, match=r"a\.dcm: slices 0 to 1 can't be decoded"):
        scan.read_image(0, 2)


@pytest.mark.filterwarnings("error")
def test_values_that_are_not_as_their_type_asks_are_not_warned_of(tmp_path):
    """Regression: pydicom warned of each, in lines of hundreds of characters."""

    def odd(ds):
        ds.add_new("StudyInstanceUID", "UI", "1.2")
        ds["StudyInstanceUID"]._value = "x" * 300

    write_legacy(tmp_path / "a.dcm", change=odd)
    assert str(read_header(tmp_path / "a.dcm").StudyInstanceUID) == "x" * 300


# --- bad input: one sentence each, found at opening ---------------------------------------------


def no_mask(ds: Dataset) -> None:
    del ds[MASK_TAG]


def short_mask(ds: Dataset) -> None:
    ds[MASK_TAG].value = b"\1" * 100


def long_mask(ds: Dataset) -> None:
    ds[MASK_TAG].value = b"\1" * 122


def one_slice(ds: Dataset) -> None:
    ds.NumberOfFrames = 1
    ds[MASK_TAG].value, ds[0x7FE00010].value = b"\1" * 20, b"\1" * 40


def no_frames(ds: Dataset) -> None:
    del ds.NumberOfFrames
    ds[MASK_TAG].value, ds[0x7FE00010].value = b"\1" * 20, b"\1" * 40


def colours(ds: Dataset) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 3, "RGB"


def palette(ds: Dataset) -> None:
    ds.PhotometricInterpretation = "PALETTE COLOR"


def nan_spacing(ds: Dataset) -> None:
    top_level(ds)
    ds.SliceThickness = "NaN"


def zero_spacing(ds: Dataset) -> None:
    top_level(ds)
    ds.PixelSpacing = [0, 0.02]


def negative_spacing(ds: Dataset) -> None:
    top_level(ds)
    ds.SliceThickness = -1


def fewer_pixels(ds: Dataset) -> None:
    ds.NumberOfFrames = 7
    ds[MASK_TAG].value = b"\1" * 140


def no_pixels(ds: Dataset) -> None:
    del ds[0x7FE00010]


def wide_pixels(ds: Dataset) -> None:
    ds.BitsAllocated = ds.BitsStored = 32


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (no_mask, "needs a mask"),
        (short_mask, "mask must have the image's shape"),
        (long_mask, "mask must have the image's shape"),
        (one_slice, "at least two slices; the file has 1"),
        (no_frames, "at least two slices; the file has 1"),
        (colours, "one grey value each .*RGB"),
        (palette, "one grey value each .*PALETTE COLOR"),
        (nan_spacing, "positive and finite.*nan"),
        (zero_spacing, "positive and finite"),
        (negative_spacing, "positive and finite"),
        (fewer_pixels, "pixel data must hold"),
        (no_pixels, "needs pixel data"),
        (wide_pixels, "8 or 16 bits; they have 32"),
    ],
)
def test_bad_file_is_refused_at_opening(tmp_path, change, rule):
    write_legacy(tmp_path / "131.dcm", change=change)
    with pytest.raises(InputError, match=rf"^131\.dcm: .*{rule}"):
        open_labelled_dicom(tmp_path / "131.dcm")


def test_file_that_is_not_dicom_is_refused(tmp_path):
    (tmp_path / "a.dcm").write_text("hello, this is no scan\n" * 100)
    with pytest.raises(InputError, match=r"a\.dcm: .*must be DICOM"):
        open_labelled_dicom(tmp_path / "a.dcm")


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a\.dcm: .*existing file"):
        open_labelled_dicom(tmp_path / "a.dcm")


@pytest.mark.parametrize("layout", ["legacy", "ours"])
def test_file_truncated_anywhere_is_refused(tmp_path, layout):
    """Guards against half-copied scans: wherever the file ends, opening says so."""
    path, shape = tmp_path / "a.dcm", (6, 50, 40)
    if layout == "legacy":
        write_legacy(path, shape)
    else:
        write_labelled_dicom(path, volume(shape, "uint16"), labels(shape), Grid(shape, SPACING))
    whole = path.read_bytes()
    for size in [0, 100, 140, 400, 900, 12_000, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"^a\.dcm: "):
            open_labelled_dicom(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(InputError, match="truncated"):
        open_labelled_dicom(path)


@pytest.mark.parametrize("at", [140, 900])
def test_a_header_that_a_crash_left_as_zeros_is_refused_soon(tmp_path, at):
    """To pydicom, every eight zeros are an element: gigabytes of them would take an hour."""
    write_legacy(tmp_path / "a.dcm", EVEN)
    (tmp_path / "a.dcm").write_bytes((tmp_path / "a.dcm").read_bytes()[:at])
    os.truncate(tmp_path / "a.dcm", 3 * 2**30)  # takes no place on the disk
    with pytest.raises(InputError, match=r"^a\.dcm: the DICOM header can't be read"):
        open_labelled_dicom(tmp_path / "a.dcm")
    assert list_scans([tmp_path])[0].path == tmp_path / "a.dcm"


def test_damaged_notes_are_refused(tmp_path):
    path = tmp_path / "a.dcm"
    notes = {"k": "v"}
    write_labelled_dicom(path, volume(EVEN, "uint8"), labels(EVEN), Grid(EVEN), metadata=notes)
    path.write_bytes(path.read_bytes().replace(b'{"k": "v"}', b'{"k": "v",'))
    with pytest.raises(InputError, match="metadata must be JSON"):
        read_metadata(path)


def test_odd_real_files_are_there():
    assert len(ODD_FILES) > 50


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", ODD_FILES, ids=lambda path: path.name)
def test_odd_real_files_open_or_are_refused(path):
    """Guards against crashes: pydicom's own collection of difficult files."""
    try:
        scan = open_dicom(path)
        scan.read_image(0, scan.grid.shape_zyx[0])
    except InputError as error:
        assert str(error).startswith(path.name)
        assert "\n" not in str(error)


# --- is anything labelled, which files are there ------------------------------------------------


@pytest.mark.parametrize("labelled_slice", [0, 25, 39, None])
def test_a_single_labelled_voxel_is_found_anywhere(tmp_path, labelled_slice, monkeypatch):
    monkeypatch.setattr("jawloc.scans.scan.SLAB_BYTES", 60)
    shape = (40, 5, 4)
    mask = np.zeros(shape, np.uint8)
    if labelled_slice is not None:
        mask[labelled_slice, 4, 3] = 255
    write_labelled_dicom(tmp_path / "a.dcm", volume(shape, "uint8"), mask, Grid(shape))
    scan = open_labelled_dicom(tmp_path / "a.dcm")
    assert search_labels(scan, [None]) == ({255} if labelled_slice is not None else set())


@pytest.mark.parametrize(
    ("objects", "found", "slabs_read"),
    [
        ([None], {1}, 1),
        ([(1, 7)], {1}, 1),
        ([(1,), (2, 7)], {1, 2}, 2),
        ([(1,), (7,)], {1, 2}, 20),
    ],
)
def test_search_for_labels_begins_where_jaws_are(tmp_path, monkeypatch, objects, found, slabs_read):
    """Guards the early exit: a whole mask is read only if an object is missing."""
    monkeypatch.setattr("jawloc.scans.scan.SLAB_BYTES", 100)
    mask = np.zeros((100, 5, 4), np.uint8)
    mask[75:85] = 1
    mask[83:90, 0, 0] = 2
    write_labelled_dicom(tmp_path / "a.dcm", mask, mask, Grid(mask.shape))
    scan = open_labelled_dicom(tmp_path / "a.dcm")
    read = []

    def noted(start, stop):
        read.append(start)
        return scan.read_mask(start, stop)

    assert search_labels(replace(scan, read_mask=noted), objects) == found
    assert len(read) == slabs_read


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_dicoms_are_found_at_every_depth_sorted_without_the_cache(tmp_path):
    a, b, c = tmp_path / "x" / "b.DCM", tmp_path / "x" / "y" / "a.dcm", tmp_path / "z" / "10.dicom"
    touch(a, b, c, tmp_path / "x" / "notes.txt", tmp_path / "x" / "._a.dcm")
    touch(tmp_path / "x" / "cache" / "deep" / "a.dcm", tmp_path / "x" / ".hidden" / "h.dcm")
    (tmp_path / "x" / "y" / "circle").symlink_to(tmp_path / "x")
    found = find_labelled_dicoms(
        [tmp_path / "x", tmp_path / "z"], exclude=[tmp_path / "x" / "cache"]
    )
    assert found == [c, b, a]


def test_folders_inside_each_other_find_a_file_once(tmp_path):
    touch(tmp_path / "x" / "a.dcm")
    assert find_labelled_dicoms([tmp_path, tmp_path / "x"]) == [tmp_path / "x" / "a.dcm"]


def test_missing_folder_is_refused(tmp_path):
    (tmp_path / "review.csv").touch()
    with pytest.raises(InputError, match=r"this is another file, .*`jawloc dicoms IMAGES TABLE"):
        find_labelled_dicoms([tmp_path / "review.csv"])
    with pytest.raises(InputError, match=r"nowhere: .*no such folder"):
        find_labelled_dicoms([tmp_path / "nowhere"])


def test_folder_without_dicoms_is_refused(tmp_path):
    touch(tmp_path / "full" / "a.dcm", tmp_path / "empty" / "b.txt")
    with pytest.raises(InputError, match=r"empty: .*it has none"):
        find_labelled_dicoms([tmp_path / "full", tmp_path / "empty"])


def test_two_scans_with_one_id_are_refused_by_name(tmp_path):
    touch(tmp_path / "x" / "a.dcm", tmp_path / "y" / "a.DCM")
    with pytest.raises(InputError, match=r"a: two scans must not share an id.*x/a\.dcm.*y/a\.DCM"):
        find_labelled_dicoms([tmp_path])


def test_a_damaged_transfer_syntax_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "damaged.dcm"
    image = np.zeros((4, 2, 2), np.uint16)
    write_labelled_dicom(path, image, np.ones((4, 2, 2), np.uint8), Grid((4, 2, 2)))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"1.2.840.10008.1.2.1\x00", b"1.2.840.10008.1.1\x00\x00\x00"))

    with pytest.raises(InputError, match=r"damaged\.dcm: the transfer syntax"):
        open_labelled_dicom(path)
