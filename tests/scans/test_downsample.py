"""Area averaging of scan files, and what is learnt of the mask on the way."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl

from jawloc.errors import InputError
from jawloc.geometry import Grid, map_points
from jawloc.scans.averaging import one_blas_thread
from jawloc.scans.downsample import downsample, downsample_image, hash_content
from jawloc.scans.labels import Label, object_centroids
from jawloc.scans.scan import SLAB_BYTES, ScanFile


def scan_of(image, mask=None, spacing=None, name="fish.dcm"):
    return ScanFile(
        Path(name).stem,
        Path(name),
        Grid(image.shape, spacing),
        image.dtype,
        lambda start, stop: image[start:stop],
        None if mask is None else (lambda start, stop: mask[start:stop]),
    )


def brute_force(volume, shape):
    """Average by the definition: overlap of intervals, one dense matrix an axis."""
    result = volume.astype(np.float64)
    for axis, target in enumerate(shape):
        source = volume.shape[axis]
        matrix = np.zeros((target, source))
        for t in range(target):
            for s in range(source):
                low, high = t * source / target, (t + 1) * source / target
                matrix[t, s] = max(0.0, min(high, s + 1) - max(low, s)) * target / source
        result = np.moveaxis(np.tensordot(matrix, result, (1, axis)), 0, axis)
    return result


ODD_SIZES = [
    ((7, 9, 11), (7, 9, 11)),  # nothing to do
    ((8, 6, 4), (4, 3, 2)),  # integer factors
    ((23, 37, 41), (7, 18, 40)),  # fractions on every axis
    ((5, 300, 17), (2, 77, 5)),  # several bands of the averaging matrix
    ((31, 2, 3), (1, 1, 1)),  # down to one voxel
]


@pytest.mark.parametrize(("source", "target"), ODD_SIZES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, ">u2", np.float32, np.float64])
def test_equals_the_dense_definition(source, target, dtype):
    rng = np.random.default_rng(1)
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        image = rng.normal(size=source).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        image = rng.integers(limits.min, limits.max + 1, size=source).astype(dtype)
    result = downsample(scan_of(image), target).image
    tolerance = 1e-5 if dtype.kind == "f" else 0.5 + 0.02
    np.testing.assert_allclose(result, brute_force(image, target), rtol=0, atol=tolerance)


def test_the_image_alone_is_the_same_and_leaves_the_mask_unread():
    image = np.random.default_rng(2).integers(0, 65536, (23, 37, 41)).astype(np.uint16)
    scan = scan_of(image)

    def unread(start: int, stop: int) -> np.ndarray:
        raise AssertionError("a position needs no mask")

    alone = downsample_image(replace(scan, read_mask=unread), (7, 18, 40))
    np.testing.assert_array_equal(alone, downsample(scan, (7, 18, 40)).image)
    with pytest.raises(InputError, match="no larger than the scan"):
        downsample_image(scan, (24, 37, 41))


@pytest.mark.parametrize(
    ("source", "stored"),
    [("u2", "uint16"), (">i2", "int16"), ("f4", "float32"), ("i4", "int32")],
)
def test_integers_of_many_values_stay_integers(source, stored):
    image = (10 * np.arange(4 * 4 * 4)).reshape(4, 4, 4).astype(source)
    assert downsample(scan_of(image), (2, 2, 2)).image.dtype == np.dtype(stored)


@pytest.mark.parametrize("source", ["u1", "i1", "u2", ">i2", "i4"])
def test_means_of_integers_of_few_values_keep_their_fractions(source):
    """Rounded, a scan of grey values 0 to 5 would lose most of what its means say."""
    image = np.array([[[1, 2], [2, 2]], [[2, 2], [2, 2]]], source)  # mean 1.875
    assert downsample(scan_of(image), (1, 1, 1)).image.item() == 1.875
    image = np.random.default_rng(0).integers(0, 6, (20, 18, 16)).astype(source)
    small, as_floats = (downsample(scan_of(i), (6, 5, 4)) for i in (image, image.astype("f4")))
    np.testing.assert_allclose(small.image, as_floats.image, rtol=0, atol=1e-5)


def test_wide_integers_keep_their_last_digits():
    # Single precision would round these to a multiple of 128.
    image = np.full((4, 4, 4), 2_000_000_011, np.int32)
    assert (downsample(scan_of(image), (3, 3, 3)).image == 2_000_000_011).all()


@pytest.mark.parametrize("value", [0, 1, 40_001, 65_535])
def test_constant_stays_constant(value):
    image = np.full((29, 31, 37), value, np.uint16)
    result = downsample(scan_of(image), (8, 9, 10))
    assert (result.image == value).all()


def test_mean_is_kept_where_factors_are_fractions():
    image = np.random.default_rng(2).random((37, 41, 53)).astype(np.float32)
    result = downsample(scan_of(image), (11, 13, 17))
    assert result.image.mean(dtype=float) == pytest.approx(image.mean(dtype=float), abs=1e-7)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_ramp_lands_where_points_land(axis):
    """Guards against corner-aligned resampling: an image and its points must move alike."""
    shape, target = (40, 36, 44), (10, 12, 11)  # a ramp's mean is exact for whole factors
    image = np.broadcast_to(
        np.arange(shape[axis], dtype=np.float32).reshape(
            [-1 if a == axis else 1 for a in range(3)]
        ),
        shape,
    )
    result = downsample(scan_of(image), target).image
    points = np.argwhere(np.ones(target)).reshape(*target, 3)
    mapped = map_points(points, Grid(target), Grid(shape))[..., axis]
    np.testing.assert_allclose(result, mapped, atol=2e-5)


def test_ramp_is_exact_for_fractional_factors_inside_voxels():
    """A ramp averaged over [a, b) is its value at the middle, less what half voxels bend."""
    ramp = np.broadcast_to(np.arange(600, dtype=np.float64)[:, None, None], (600, 2, 2))
    result = downsample(scan_of(ramp), (128, 1, 1)).image[:, 0, 0]
    mapped = map_points(
        np.array([[t, 0, 0] for t in range(128)]), Grid((128, 1, 1)), Grid((600, 2, 2))
    )
    np.testing.assert_allclose(result, mapped[:, 0], atol=0.03)
    assert abs((result - mapped[:, 0]).mean()) < 1e-9


def test_centroid_is_that_of_the_full_size_mask():
    """The lab's script took it from a decimated mask: voxel 1500 of 2000 came back as 1497.8."""
    image = np.zeros((2000, 12, 12), np.uint16)
    mask = np.zeros(image.shape, np.uint8)
    mask[1500, 7, 5] = 1
    result = downsample(scan_of(image, mask), (512, 4, 4))
    assert result.labels == (Label(1, 1, (1500.0, 7.0, 5.0)),)
    source, target = Grid(image.shape), Grid((512, 4, 4))
    small = map_points(np.array([1500.0, 7.0, 5.0]), source, target)
    np.testing.assert_allclose(map_points(small, target, source), [1500, 7, 5], atol=1e-9)
    # The downsampled mask still shows the one voxel, and shows it there.
    assert np.argwhere(result.mask).tolist() == np.rint(small).astype(int).reshape(1, 3).tolist()


def test_centroids_and_counts_are_exact_for_every_label():
    rng = np.random.default_rng(3)
    mask = rng.choice([0, 1, 2, 255], size=(33, 47, 29), p=[0.7, 0.1, 0.15, 0.05]).astype(np.uint8)
    mask[5:9] = 0  # slices without any label
    mask[20] = 2  # a slice that is full of one
    labels = downsample(scan_of(mask.astype(np.uint16), mask), (10, 10, 10)).labels
    assert [label.value for label in labels] == [1, 2, 255]
    for label in labels:
        indices = np.argwhere(mask == label.value)
        assert label.voxels == len(indices)
        np.testing.assert_allclose(label.centroid_voxels, indices.mean(axis=0), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("values", "chosen"),
    [(None, (1, 2, 9)), ([1], (1,)), ([2, 9], (2, 9)), ([9, 77], (9,))],
)
def test_an_object_is_the_weighted_mean_of_its_labels(values, chosen):
    mask = np.random.default_rng(4).choice([0, 1, 2, 9], size=(9, 8, 7)).astype(np.uint8)
    labels = downsample(scan_of(mask.astype(np.uint16), mask), (3, 3, 3)).labels
    expected = np.argwhere(np.isin(mask, chosen)).mean(axis=0)
    got = object_centroids(labels, {"jaw": values}, "fish.dcm")
    np.testing.assert_allclose(got, [expected], rtol=0, atol=1e-12)


def test_a_scan_without_any_object_is_named():
    labels = (Label(3, 10, (1.0, 2.0, 3.0)),)
    with pytest.raises(InputError, match=r"131\.dcm: .* no voxel of 'otolith' .*\[4\].*\[3\]"):
        object_centroids(labels, {"otolith": [4]}, "131.dcm")


def test_the_centroid_of_a_missing_object_is_nan():
    labels = (Label(3, 10, (1.0, 2.0, 3.0)),)
    got = object_centroids(labels, {"jaw": None, "otolith": [4]}, "131.dcm")
    np.testing.assert_array_equal(got, [(1, 2, 3), (np.nan,) * 3])


@pytest.mark.parametrize(("source", "target"), ODD_SIZES[1:4])
def test_mask_follows_the_larger_share(source, target):
    rng = np.random.default_rng(5)
    coarse = rng.choice([0, 0, 3, 200], size=tuple(-(-n // 3) for n in source))
    mask = np.kron(coarse, np.ones((3, 3, 3)))[tuple(slice(n) for n in source)].astype(np.uint8)
    result = downsample(scan_of(mask.astype(np.uint16), mask), target).mask
    shares = np.stack([brute_force(mask == value, target) for value in (3, 200)])
    expected = np.where(
        shares.sum(axis=0) >= 0.5 - 1e-6, np.where(shares[1] > shares[0] + 1e-6, 200, 3), 0
    )
    # A tie of two labels may fall either way; nothing else may differ.
    tie = np.isclose(shares[0], shares[1], atol=1e-5)
    assert ((result == expected) | (tie & (result > 0))).all()
    assert result.dtype == np.uint8


def test_half_a_voxel_is_enough_for_factors_without_exact_fractions():
    """Guards the 0.5: a third plus a sixth, in single precision, must still make a half."""
    mask = np.zeros((6, 12, 6), np.uint8)
    mask[:, :3] = 1  # half of the first of two target voxels along y
    mask[:, 6:8] = 1  # a third of the second
    result = downsample(scan_of(mask.astype(np.uint16), mask), (1, 2, 1)).mask
    assert result.ravel().tolist() == [1, 0]


def test_no_label_vanishes():
    """Guards small structures: a label of one voxel must keep one, and not at another's cost."""
    mask = np.zeros((32, 32, 32), np.uint8)
    mask[8, 8, 8] = 1
    mask[8, 8, 9] = 2  # in the same target voxel as the 1
    mask[8, 9, 8] = 3  # and again
    mask[24:, 24:, 24:] = 4
    result = downsample(scan_of(mask.astype(np.uint16), mask), (4, 4, 4)).mask
    assert np.count_nonzero(result) == 4
    assert result[3, 3, 3] == 4
    assert np.abs(np.argwhere(np.isin(result, (1, 2, 3))) - 1).max() <= 1


def test_mask_without_labels_and_scan_without_mask():
    image = np.ones((6, 6, 6), np.uint16)
    empty = downsample(scan_of(image, np.zeros(image.shape, np.uint8)), (3, 3, 3))
    assert empty.labels == ()
    assert empty.mask is not None
    assert not empty.mask.any()
    none = downsample(scan_of(image), (3, 3, 3))
    assert none.labels == ()
    assert none.mask is None


def test_reads_slab_by_slab_once_and_in_order():
    """Guards the memory: a full-size scan must never be whole in it."""
    shape = (200, 400, 400)
    calls = {"image": [], "mask": []}

    def reader(kind, dtype):
        def read(start, stop):
            calls[kind].append((start, stop))
            return np.zeros((stop - start, *shape[1:]), dtype)

        return read

    grid = Grid(shape)
    image, mask = reader("image", np.uint16), reader("mask", np.uint8)
    scan = ScanFile("fish", Path("fish.dcm"), grid, np.dtype(np.uint16), image, mask)
    seen = []
    downsample(scan, (10, 10, 10), on_slab=seen.append)
    for spans in calls.values():
        assert [start for start, _ in spans] == [0, *(stop for _, stop in spans[:-1])]
        assert spans[-1][1] == shape[0]
        assert max(stop - start for start, stop in spans) * 400 * 400 * 2 <= SLAB_BYTES
    assert sum(seen) == shape[0]
    assert len(seen) == len(calls["image"])


def test_noise_is_averaged_away():
    """Guards against decimation, which keeps all of a scan's noise."""
    image = np.random.default_rng(6).normal(1000, 100, size=(64, 64, 64)).astype(np.int16)
    result = downsample(scan_of(image), (16, 16, 16)).image
    assert image[::4, ::4, ::4].std() > 95
    assert result.std() == pytest.approx(100 / np.sqrt(4**3), rel=0.1)


def test_hash_is_that_of_the_content():
    rng = np.random.default_rng(7)
    image = rng.integers(0, 9, (40, 300, 300)).astype(np.uint16)  # two slabs
    mask = (image > 7).astype(np.uint8)
    base = hash_content(scan_of(image, mask, (1.0, 1.0, 1.0)))
    assert downsample(scan_of(image, mask, (1.0, 1.0, 1.0)), (4, 4, 4)).content_hash == base
    assert hash_content(scan_of(image, mask, (1.0, 1.0, 1.0), name="renamed.nrrd")) == base
    swapped = image.astype(">u2")
    assert hash_content(scan_of(swapped, mask, (1.0, 1.0, 1.0))) == base
    changed_image, changed_mask = image.copy(), mask.copy()
    changed_image[-1, -1, -1] += 1
    changed_mask[0, 0, 0] += 1
    others = [
        scan_of(changed_image, mask, (1.0, 1.0, 1.0)),
        scan_of(image, changed_mask, (1.0, 1.0, 1.0)),
        scan_of(image, mask, (1.0, 1.0, 1.1)),
        scan_of(image, mask),
        scan_of(image, None, (1.0, 1.0, 1.0)),
        scan_of(image.view(np.int16), mask, (1.0, 1.0, 1.0)),
        scan_of(image.reshape(20, 600, 300), mask.reshape(20, 600, 300), (1.0, 1.0, 1.0)),
    ]
    assert len({base, *(hash_content(scan) for scan in others)}) == 1 + len(others)


def test_hash_tells_where_the_only_labelled_slice_is(monkeypatch):
    """Slices without a label are hashed as a byte each; that must not make masks alike."""
    image = np.zeros((6, 5, 4), np.uint16)
    masks = [None, np.zeros(image.shape, np.uint8)]
    for number in range(6):
        masks.append(np.zeros(image.shape, np.uint8))
        masks[-1][number, 2, 3] = 1
    hashes = [hash_content(scan_of(image, mask)) for mask in masks]
    assert len(set(hashes)) == len(masks)
    monkeypatch.setattr("jawloc.scans.scan.SLAB_BYTES", 2 * 5 * 4 * 2)  # two slices
    assert [hash_content(scan_of(image, mask)) for mask in masks] == hashes


@pytest.mark.parametrize("target", [(5, 4, 4), (4, 5, 4), (4, 4, 5), (0, 4, 4)])
def test_a_target_larger_than_the_scan_is_refused(target):
    shapes = f"{target[0]}x{target[1]}x{target[2]} .* 4x4x4"
    with pytest.raises(InputError, match=rf"^131\.dcm: .*{shapes}"):
        downsample(scan_of(np.zeros((4, 4, 4), np.uint16), name="131.dcm"), target)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_grey_values_that_are_not_numbers_are_refused(value):
    image = np.zeros((6, 6, 6), np.float32)
    image[3, 2, 1] = value
    with pytest.raises(InputError, match=r"^131\.dcm: .*slice 3 holds NaN or infinity"):
        downsample(scan_of(image, name="131.dcm"), (3, 3, 3))


def test_what_on_slab_raises_stops_the_work():
    """Guards Ctrl-C: the second slab must not be read after the first was answered with a stop."""
    reads = []

    def read(start, stop):
        reads.append(start)
        return np.zeros((stop - start, 2048, 2048), np.uint16)

    scan = ScanFile("f", Path("f.dcm"), Grid((10, 2048, 2048)), np.dtype(np.uint16), read, None)

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        downsample(scan, (2, 2, 2), on_slab=stop)
    assert reads == [0]


def test_the_blas_gets_its_threads_back():
    """Guards the rest of the process: the limit to one thread must not outlive the work."""

    def threads():
        pools = threadpoolctl.threadpool_info()
        return {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"}

    def downsample_here():
        downsample(scan, (2, 2, 2), on_slab=lambda _: inside.append(threads()))

    inside = []
    scan = scan_of(np.zeros((4, 4, 4), np.uint16))
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = threads()
        downsample_here()
        assert threads() == before
        with one_blas_thread(), ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(downsample_here) for _ in range(8)]:
                future.result()
            assert threads() <= {1}  # those who left have not lifted the limit of the others
        assert threads() == before
    assert all(found <= {1} for found in inside)


def test_overlapping_threads_share_one_limit_on_blas_threads():
    def blas_threads() -> set[int]:
        pools = threadpoolctl.threadpool_info()
        return {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"}

    second_is_in, first_is_out = threading.Event(), threading.Event()
    seen = []

    def second() -> None:
        with one_blas_thread():
            second_is_in.set()
            assert first_is_out.wait(60)
            seen.append(blas_threads())

    with threadpoolctl.threadpool_limits(3, user_api="blas"):
        before = blas_threads()
        with ThreadPoolExecutor(1) as pool:
            with one_blas_thread():
                future = pool.submit(second)
                assert second_is_in.wait(60)
            seen.append(blas_threads())
            first_is_out.set()
            future.result()
        after = blas_threads()
    assert 1 not in before
    assert seen == [{1}, {1}]
    assert after == before
