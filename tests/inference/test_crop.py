"""Windows always have the given size, with the point as near the middle as possible."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jawloc.geometry import Grid
from jawloc.inference.crop import CropBox, crop_box_around, read_crop, read_mask_crop
from jawloc.scans.scan import ScanFile

SHAPE = (30, 20, 24)


def scan_of(image: np.ndarray, mask: np.ndarray | None) -> ScanFile:
    """Return an opened scan of arrays that refuses to read slices that it hasn't got."""

    def reader(array: np.ndarray):
        def read(start: int, stop: int) -> np.ndarray:
            assert 0 <= start < stop <= len(array)
            return array[start:stop]

        return read

    return ScanFile(
        scan_id="scan",
        path=Path("scan.dcm"),
        grid=Grid(image.shape),  # type: ignore[arg-type]
        dtype=image.dtype,
        read_image=reader(image),
        read_mask=None if mask is None else reader(mask),
    )


def read_both(scan, window):
    return read_crop(scan, window), read_mask_crop(scan, window)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(50, 4000, SHAPE).astype(np.uint16)


@pytest.fixture
def mask(image) -> np.ndarray:
    return (image > 2000).astype(np.uint8)


@pytest.mark.parametrize(
    ("point", "size", "start", "fit"),
    [
        ((15, 10, 12), (5, 5, 5), (13, 8, 10), "centred"),
        ((14.5, 9.5, 11.5), (6, 6, 6), (12, 7, 9), "centred"),
        ((14.6, 9.4, 12.3), (5, 5, 5), (13, 7, 10), "centred"),  # to the nearest voxel
        ((2, 2, 2), (5, 5, 5), (0, 0, 0), "centred"),  # just fits
        ((1, 10, 12), (5, 5, 5), (0, 8, 10), "shifted"),
        ((29.4, 19.4, 23.4), (5, 5, 5), (25, 15, 19), "shifted"),
        ((-0.5, -0.5, -0.5), (5, 5, 5), (0, 0, 0), "shifted"),
        ((16, 10, 12), (30, 20, 24), (0, 0, 0), "shifted"),  # the whole scan
        ((14.5, 9.5, 11.5), (30, 20, 24), (0, 0, 0), "centred"),
        ((15, 3, 12), (5, 26, 5), (13, -3, 10), "padded"),
        ((1, 3, 12), (5, 25, 5), (0, -3, 10), "padded"),  # both
        ((15, 10, 12), (100, 100, 100), (-35, -40, -38), "padded"),
    ],
)
def test_a_window_is_centred_else_shifted_else_padded(point, size, start, fit):
    assert crop_box_around(point, size, SHAPE) == CropBox(start, size, fit)


@pytest.mark.parametrize("size", [(1, 1, 1), (7, 8, 9), (30, 20, 24), (31, 19, 24), (64, 64, 64)])
def test_every_point_in_the_scan_gets_a_window_of_the_size_that_holds_it(size, image, mask):
    """An oversized crop aborted the lab's batch, and fish near an edge were skipped."""
    scan = scan_of(image, mask)
    for point in np.random.default_rng(1).uniform(-0.5, np.subtract(SHAPE, 0.5), (60, 3)):
        window = crop_box_around(point, size, SHAPE)
        first, last = np.asarray(window.start_zyx), np.asarray(window.start_zyx) + size
        assert ((first - 0.5 <= point) & (point <= last - 0.5)).all()
        inside = np.asarray(size) <= SHAPE
        assert ((first >= 0) & (last <= SHAPE))[inside].all()
    crop, crop_mask = read_both(scan, window)
    assert crop.shape == size
    assert crop_mask is not None
    assert crop_mask.shape == size


def test_a_window_inside_is_the_arrays_slice(image, mask):
    crop, crop_mask = read_both(scan_of(image, mask), CropBox((4, 3, 2), (10, 12, 9), "centred"))
    np.testing.assert_array_equal(crop, image[4:14, 3:15, 2:11])
    np.testing.assert_array_equal(crop_mask, mask[4:14, 3:15, 2:11])
    assert (crop.dtype, crop_mask.dtype) == (np.uint16, np.uint8)


@pytest.mark.parametrize(
    ("start", "size"),
    [((-5, 2, 3), (40, 4, 5)), ((-3, -2, -1), (36, 24, 26)), ((7, -40, 0), (3, 100, 24))],
)
def test_padding_is_the_windows_lowest_grey_and_no_label(image, mask, start, size):
    window = CropBox(start, size, "padded")
    crop, crop_mask = read_both(scan_of(image, mask), window)
    inside = tuple(
        slice(max(s, 0), min(s + n, length))
        for s, n, length in zip(start, size, SHAPE, strict=True)
    )
    expected = np.full(size, image[inside].min(), np.uint16)
    expected_mask = np.zeros(size, np.uint8)
    where = tuple(slice(i.start - s, i.stop - s) for i, s in zip(inside, start, strict=True))
    expected[where], expected_mask[where] = image[inside], mask[inside]
    np.testing.assert_array_equal(crop, expected)
    np.testing.assert_array_equal(crop_mask, expected_mask)
    assert (crop.dtype, crop_mask.dtype) == (np.uint16, np.uint8)


def test_a_scan_without_mask_has_a_crop_without_one(image):
    crop, crop_mask = read_both(scan_of(image, None), CropBox((0, 0, 0), (4, 4, 4), "centred"))
    np.testing.assert_array_equal(crop, image[:4, :4, :4])
    assert crop_mask is None


def test_only_the_windows_slices_are_read(image):
    """A full-size scan has two thousand."""
    seen: list[int] = []

    def read(start: int, stop: int) -> np.ndarray:
        seen.extend(range(start, stop))
        return image[start:stop]

    scan = ScanFile("scan", Path("scan.dcm"), Grid(SHAPE), image.dtype, read, None)
    read_both(scan, CropBox((12, 0, 0), (5, 20, 24), "centred"))
    assert seen == [12, 13, 14, 15, 16]
