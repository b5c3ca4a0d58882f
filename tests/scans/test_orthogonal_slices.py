"""Three planes of a volume, whether it is in memory or in a file too large for it."""

from pathlib import Path

import numpy as np
import pytest

from jawloc.geometry import Grid
from jawloc.scans.orthogonal_slices import (
    nearest_voxel,
    orthogonal_slices,
    read_orthogonal_slices,
    silhouettes,
)
from jawloc.scans.scan import ScanFile

SHAPE = (7, 5, 6)


@pytest.fixture
def volume():
    return np.arange(np.prod(SHAPE), dtype=np.uint16).reshape(SHAPE)


def scan_file(image, mask=None, asked=None):
    """Open arrays as if they were a file, noting what is asked for."""

    def read(array):
        def slab(start, stop):
            if asked is not None:
                asked.append((stop - start, array[0].nbytes))
            return array[start:stop]

        return slab

    read_mask = None if mask is None else read(mask)
    return ScanFile("s", Path("s"), Grid(image.shape), image.dtype, read(image), read_mask)


@pytest.mark.parametrize(
    ("point", "index"),
    [
        ((2.4, 1.6, 3.0), (2, 2, 3)),
        ((-0.5, 0.0, 5.4), (0, 0, 5)),
        ((-9, 99, 2), (0, 4, 2)),  # a prediction may lie outside the scan
    ],
)
def test_nearest_voxel(point, index):
    assert nearest_voxel(point, SHAPE) == index


@pytest.mark.parametrize("point", [(1.0, np.nan, 2.0), (1.0, 2.0), (np.inf, 0, 0)])
def test_a_point_that_is_none_is_refused(point):
    with pytest.raises(ValueError, match="three finite numbers"):
        nearest_voxel(point, SHAPE)


def test_planes_go_through_the_point(volume):
    planes = orthogonal_slices(volume, (2.4, 1.6, 3.0))
    np.testing.assert_array_equal(planes.axial, volume[2])
    np.testing.assert_array_equal(planes.coronal, volume[:, 2, :])
    np.testing.assert_array_equal(planes.sagittal, volume[:, :, 3])
    assert planes.shape_zyx == SHAPE
    assert planes.index_zyx == (2, 2, 3)


@pytest.mark.parametrize("slab_bytes", [1, 2 * 5 * 6 * 3, 10**6])  # 1, 3 and all slices at a time
def test_planes_of_a_file_are_read_slab_by_slab(volume, slab_bytes, monkeypatch):
    monkeypatch.setattr("jawloc.scans.scan.SLAB_BYTES", slab_bytes)
    mask, asked = (volume > 100).astype(np.uint8), []
    found, jaw = read_orthogonal_slices(scan_file(volume, mask, asked), (4, 1, 5))
    for read, array in ((found, volume), (jaw, mask)):
        expected = orthogonal_slices(array, (4, 1, 5))
        for name in ("axial", "coronal", "sagittal"):
            np.testing.assert_array_equal(getattr(read, name), getattr(expected, name))
        assert read.index_zyx == (4, 1, 5)
        assert read.axial.dtype == array.dtype
    assert sum(slices for slices, _ in asked) == 2 * SHAPE[0]  # image and mask, once each
    assert all(slices == 1 or slices * size <= slab_bytes for slices, size in asked)


def test_a_file_without_a_mask_has_no_planes_of_it(volume):
    assert read_orthogonal_slices(scan_file(volume), (0, 0, 0))[1] is None


def test_silhouettes_show_what_no_middle_plane_does():
    mask = np.zeros(SHAPE, bool)
    mask[0, 1, 2] = mask[6, 4, 5] = True
    shadow = silhouettes(mask)
    assert [tuple(p) for p in np.argwhere(shadow.axial)] == [(1, 2), (4, 5)]
    assert [tuple(p) for p in np.argwhere(shadow.coronal)] == [(0, 2), (6, 5)]
    assert [tuple(p) for p in np.argwhere(shadow.sagittal)] == [(0, 1), (6, 4)]
    assert shadow.shape_zyx == SHAPE
