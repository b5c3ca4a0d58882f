"""The cache: what is made, what is used again, and what is never used."""

import dataclasses
import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import pytest
from filelock import FileLock
from pydantic import TypeAdapter, ValidationError

from jawloc.errors import InputError
from jawloc.geometry import Grid, map_points
from jawloc.scans import cache
from jawloc.scans.atomic import with_room
from jawloc.scans.cache import CacheConfig, build_cache, largest_size, open_example
from jawloc.scans.cache import files as cache_files
from jawloc.scans.cache.files import read_cached, read_record
from jawloc.scans.cache.layout import cached_paths, lock_path
from jawloc.scans.cache.upkeep import clear_cache, repair_cache, verify_cache
from jawloc.scans.dicom import open_labelled_dicom, write_labelled_dicom
from jawloc.scans.downsample import downsample, downsample_image
from jawloc.scans.reading import open_scan

SHAPE, SIZE = (24, 15, 13), (10, 6, 5)
SPACING = (0.021, 0.021, 0.021)
JAW = {"jaw": None}
CONFIG = CacheConfig(dicom_dirs=("dicoms/fish",), downsampled_dicom_size=SIZE, n_workers=2)
IN_THE_IMAGE = -50  # the bytes of a cached file that are before its last element, a checksum
HALF_WRITTEN = (".4711-0123abcd.part.a.dcm", ".a.dcm.4711-0123abcd.part")  # now; by 0.1.0


def write_scan(path, seed=0, labels=(1,), shape=SHAPE, spacing=SPACING):
    """Write a full-size scan of noise with a few voxels of each label."""
    rng = np.random.default_rng(seed)
    image = rng.integers(100, 60_000, shape).astype(np.uint16)
    mask = np.zeros(shape, np.uint8)
    for label in labels:
        mask.ravel()[rng.choice(mask.size, 20, replace=False)] = label
    path.parent.mkdir(parents=True, exist_ok=True)
    write_labelled_dicom(path, image, mask, Grid(shape, spacing))
    return image, mask


@pytest.fixture
def scans(tmp_path):
    names = ("a.dcm", "b.dcm", "deep/c.dcm")
    for seed, name in enumerate(names):
        write_scan(tmp_path / "dicoms/fish" / name, seed)
    return [Path("dicoms/fish", name) for name in names]


def build(scans, tmp_path, config=CONFIG):
    return build_cache(scans, config, base=tmp_path, progress=False)


def counts(report):
    return report.built, report.refreshed, report.reused, report.full_size_scans_read


def touch(path, seconds=10):
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + seconds * 10**9))


def files_below(folder):
    return sorted(
        p.relative_to(folder).as_posix()
        for p in folder.rglob("*")
        if p.is_file() and ".locks" not in p.parts
    )


# What is made


def test_cached_files_mirror_the_source_tree_by_size(scans, tmp_path):
    report = build(scans, tmp_path)
    root = tmp_path / "dicoms/downsampled_dicoms/10x6x5/fish"
    assert report.cached == (root / "a.dcm", root / "b.dcm", root / "deep/c.dcm")
    assert counts(report) == (3, 0, 0, 3)
    assert files_below(root) == ["a.dcm", "b.dcm", "deep/c.dcm"]


def test_an_example_has_the_full_size_centroid_on_the_small_grid(tmp_path):
    source = tmp_path / "dicoms/fish/131.dcm"
    _, mask = write_scan(source, seed=5)
    example = open_example(build([source], tmp_path).cached[0], JAW).read()
    centroid = np.argwhere(mask).mean(axis=0)
    expected = map_points(centroid, Grid(SHAPE), Grid(SIZE))
    np.testing.assert_allclose(example.points_voxels, [expected], rtol=0, atol=1e-12)
    result = downsample(open_labelled_dicom(source), SIZE)
    np.testing.assert_array_equal(example.image, result.image)
    np.testing.assert_array_equal(example.mask, result.mask)
    assert example.image.dtype == np.uint16
    assert example.scan_id == "131"
    assert example.source == source
    assert example.source_grid == Grid(SHAPE, SPACING)
    assert example.grid == example.source_grid.resized(SIZE)
    assert example.key == read_record(cached_paths([source], CONFIG, tmp_path)[0]).key


@pytest.mark.parametrize("spacing", [SPACING, None])
def test_a_cached_file_is_a_dicom_for_any_viewer(tmp_path, spacing):
    source = tmp_path / "dicoms/fish/a.dcm"
    write_scan(source, spacing=spacing)
    cached = build([source], tmp_path).cached[0]
    np.testing.assert_array_equal(pydicom.dcmread(cached).pixel_array, read_cached(cached).image)
    opened = open_labelled_dicom(cached).grid
    assert opened.shape_zyx == SIZE
    if spacing is None:
        assert opened.spacing_mm_zyx is None
    else:
        wanted = Grid(SHAPE, spacing).resized(SIZE).spacing_mm_zyx
        assert opened.spacing_mm_zyx == pytest.approx(wanted, rel=1e-9)


def test_objects_are_chosen_by_label_value_after_caching(tmp_path):
    """Guards the key: the settings of the objects must not make a scan be downsampled again."""
    source = tmp_path / "dicoms/fish/a.dcm"
    _, mask = write_scan(source, labels=(1, 2, 7))
    objects = {"jaw": (1, 7), "otolith": (2,), "all": None}
    config = dataclasses.replace(CONFIG, objects=objects)
    assert build([source], tmp_path).built == 1
    report = build([source], tmp_path, config)
    assert counts(report) == (0, 0, 1, 0)
    expected = [
        np.argwhere(np.isin(mask, values)).mean(axis=0) for values in ((1, 7), (2,), (1, 2, 7))
    ]
    points = open_example(report.cached[0], objects).read().points_voxels
    np.testing.assert_allclose(points, map_points(expected, Grid(SHAPE), Grid(SIZE)), atol=1e-12)


@pytest.mark.parametrize("already_cached", [False, True])
def test_scans_without_any_object_are_all_named_first(tmp_path, already_cached, monkeypatch):
    """Guards the order: a scan's missing object must not show after hours of downsampling."""
    folder = tmp_path / "dicoms/fish"
    for name, labels in (("a.dcm", (1, 2)), ("b.dcm", (9,)), ("c.dcm", (1, 7)), ("d.dcm", (7, 8))):
        write_scan(folder / name, labels=labels)
    scans = sorted(folder.glob("*.dcm"))
    if already_cached:
        build(scans, tmp_path)
    config = dataclasses.replace(CONFIG, objects={"jaw": (1,), "otolith": (2, 3)})
    monkeypatch.setattr(cache, "downsample", too_late)
    with pytest.raises(InputError) as caught:
        build(scans, tmp_path, config)
    missing = (
        "every scan must show at least one of the objects; it has no voxel of 'jaw' (label values "
        "[1]) or 'otolith' (label values [2, 3]), but the label values"
    )
    assert str(caught.value).splitlines() == [
        f"b.dcm: {missing} [9]",
        f"d.dcm: {missing} [7, 8]",
    ]
    with pytest.raises(
        InputError, match=r"a.dcm: every scan must show the object; .*'x'.* \[1, 2\]"
    ):
        build(scans[:1], tmp_path, dataclasses.replace(CONFIG, objects={"x": (5,)}))
    assert (tmp_path / "dicoms/downsampled_dicoms").exists() is already_cached


def too_late(*_, **__):
    raise AssertionError("slow work began")


def test_a_scan_may_lack_some_of_several_objects(tmp_path):
    source = tmp_path / "dicoms/fish/a.dcm"
    _, mask = write_scan(source, labels=(1, 7))
    objects = {"jaw": (7,), "otolith": (2, 3)}
    report = build([source], tmp_path, dataclasses.replace(CONFIG, objects=objects))
    example = open_example(report.cached[0], objects).read()
    assert example.object_names == ("jaw", "otolith")
    assert np.isnan(example.points_voxels[1]).all()  # missing, not somewhere
    centroid = map_points(np.argwhere(mask == 7).mean(axis=0), Grid(SHAPE), Grid(SIZE))
    np.testing.assert_allclose(example.points_voxels[0], centroid, atol=1e-12)


@pytest.mark.parametrize("already_cached", [False, True])
def test_which_objects_the_scans_show_is_told_before_the_slow_work(
    tmp_path, already_cached, monkeypatch
):
    folder = tmp_path / "dicoms/fish"
    for name, labels in (("a.dcm", (1, 2)), ("b.dcm", (1, 9)), ("c.dcm", (3,))):
        write_scan(folder / name, labels=labels)
    scans = sorted(folder.glob("*.dcm"))
    if already_cached:
        build(scans, tmp_path)
    config = dataclasses.replace(CONFIG, objects={"jaw": (1,), "otolith": (2, 3)})
    monkeypatch.setattr(cache, "downsample", too_late)

    def check(shown):
        assert shown == [{"jaw", "otolith"}, {"jaw"}, {"otolith"}]
        raise InputError("not enough")

    with pytest.raises(InputError, match="not enough"):
        build_cache(scans, config, base=tmp_path, progress=False, check=check)
    assert (tmp_path / "dicoms/downsampled_dicoms").exists() is already_cached


# What is used again


def test_a_full_cache_reads_no_full_size_voxel(scans, tmp_path):
    build(scans, tmp_path)
    before = [(tmp_path / scan).stat() for scan in scans]
    for scan, stat in zip(scans, before, strict=True):
        path = tmp_path / scan
        path.write_bytes(b"\xff" * stat.st_size)  # whoever opens it now, fails
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    report = build(scans, tmp_path)
    assert counts(report) == (0, 0, 3, 0)
    for cached in report.cached:
        assert np.isfinite(open_example(cached, JAW).points_voxels).all()


def test_a_touched_source_is_hashed_and_only_its_record_changes(scans, tmp_path):
    cached = build(scans, tmp_path).cached
    before = read_cached(cached[1])
    touch(tmp_path / scans[1])
    report = build(scans, tmp_path)
    assert counts(report) == (0, 1, 2, 1)
    after = read_cached(cached[1])
    np.testing.assert_array_equal(after.image, before.image)
    assert after.record.key == before.record.key
    assert after.record.source_mtime_ns == before.record.source_mtime_ns + 10**10
    assert counts(build(scans, tmp_path)) == (0, 0, 3, 0)


def test_a_moved_project_keeps_its_cache(scans, tmp_path):
    project, moved = tmp_path / "project", tmp_path / "moved"
    project.mkdir()
    (tmp_path / "dicoms").rename(project / "dicoms")
    build(scans, project)
    project.rename(moved)
    report = build(scans, moved)
    assert counts(report) == (0, 0, 3, 0)
    assert open_example(report.cached[0], JAW).read().source == moved / scans[0]


def test_the_same_content_has_the_same_key_wherever_it_lies(tmp_path):
    paths = [tmp_path / "dicoms/fish" / name for name in ("a.dcm", "b.dcm", "other.dcm")]
    for path, seed in zip(paths, (1, 1, 2), strict=True):
        write_scan(path, seed)
    keys = [open_example(cached, JAW).key for cached in build(paths, tmp_path).cached]
    assert keys[0] == keys[1] != keys[2]


def test_each_size_has_its_own_files(scans, tmp_path):
    """The lab's script used the files of the old size after the size was changed."""
    small = build(scans, tmp_path)
    other = dataclasses.replace(CONFIG, downsampled_dicom_size=(9, 5, 3))  # an odd voxel count
    large = build(scans, tmp_path, other)
    assert counts(large) == (3, 0, 0, 3)
    assert open_example(large.cached[0], JAW).read().image.shape == (9, 5, 3)
    assert open_example(small.cached[0], JAW).read().image.shape == SIZE
    assert open_example(large.cached[0], JAW).key != open_example(small.cached[0], JAW).key
    assert counts(build(scans, tmp_path)) == (0, 0, 3, 0)


# What is never used


def test_a_changed_source_is_made_again(scans, tmp_path):
    """The lab's script accepted a stale cache file."""
    cached = build(scans, tmp_path).cached[0]
    old = open_example(cached, JAW).read()
    _, mask = write_scan(tmp_path / scans[0], seed=99)
    touch(tmp_path / scans[0])
    assert counts(build(scans, tmp_path)) == (1, 0, 2, 1)
    new = open_example(cached, JAW).read()
    expected = map_points(np.argwhere(mask).mean(axis=0), Grid(SHAPE), Grid(SIZE))
    np.testing.assert_allclose(new.points_voxels, [expected], atol=1e-12)
    assert new.key != old.key


def test_a_new_algorithm_makes_all_files_again(scans, tmp_path, monkeypatch):
    build(scans, tmp_path)
    monkeypatch.setattr(cache_files, "ALGORITHM_VERSION", cache_files.ALGORITHM_VERSION + 1)
    assert {status.status for status in verify_cache(CONFIG, base=tmp_path)} == {"stale"}
    assert counts(build(scans, tmp_path)) == (3, 0, 0, 3)
    assert counts(build(scans, tmp_path)) == (0, 0, 3, 0)


def truncate(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def another_scan(path):
    write_scan(path, shape=SIZE)


def another_scans_cached_file(path):
    path.write_bytes(path.with_name("b.dcm").read_bytes())


def edited_centroid(path):
    """Guards the labels: a wrong position with whole voxels is as bad as wrong voxels."""
    data = path.read_bytes()
    start = data.index(b'"centroid_voxels": [') + len(b'"centroid_voxels": [')
    path.write_bytes(data[:start] + bytes([data[start] ^ 1]) + data[start + 1 :])


DAMAGE = {
    "truncated in the voxels": lambda path: truncate(path, -10),
    "truncated in the header": lambda path: truncate(path, 300),
    "empty": lambda path: truncate(path, 0),
    "a flipped bit in the image": lambda path: flip(path, IN_THE_IMAGE),
    "an edited centroid": edited_centroid,
    "no DICOM": lambda path: path.write_text("not a DICOM file"),
    "a DICOM of someone else's": another_scan,
    "the cached file of another scan": another_scans_cached_file,
    "a folder in its place, removed": lambda path: path.unlink(),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_and_foreign_files_are_made_again(scans, tmp_path, kind):
    """The lab's script accepted half-written cache files."""
    cached = build(scans, tmp_path).cached
    good = open_example(cached[0], JAW).read()
    DAMAGE[kind](cached[0])
    assert counts(build(scans, tmp_path)) == (1, 0, 2, 1)
    again = open_example(cached[0], JAW).read()
    np.testing.assert_array_equal(again.image, good.image)
    np.testing.assert_array_equal(again.points_voxels, good.points_voxels)


@pytest.mark.filterwarnings("ignore")  # pydicom warns about what is damaged
def test_no_flipped_or_missing_byte_goes_unseen_or_crashes(scans, tmp_path):
    """Every place of a cached file: either its voxels and points are still right, or it is refused.

    Bits that nothing depends on exist (DICOM's own identifiers and texts).
    """
    cached = build(scans[:1], tmp_path).cached[0]
    good, data = open_example(cached, JAW).read(), cached.read_bytes()
    victim = tmp_path / "victim.dcm"
    rng = np.random.default_rng(0)
    refused = 0
    for offset in rng.choice(len(data), 60, replace=False):
        for damaged in (
            data[:offset],
            data[:offset] + bytes([data[offset] ^ rng.integers(1, 256)]) + data[offset + 1 :],
        ):
            victim.write_bytes(damaged)
            try:
                found = open_example(victim, JAW).read()
            except InputError:
                refused += 1
                continue
            np.testing.assert_array_equal(found.image, good.image)
            np.testing.assert_array_equal(found.points_voxels, good.points_voxels)
    assert refused > 60  # all the truncated ones at least


def test_a_damaged_file_is_refused_by_name(scans, tmp_path):
    cached = build(scans, tmp_path).cached[0]
    flip(cached, IN_THE_IMAGE)
    with pytest.raises(InputError, match=r"^a\.dcm: .*checksum; it is damaged"):
        open_example(cached, JAW).read()


@pytest.mark.parametrize("name", HALF_WRITTEN)
def test_what_a_killed_run_left_is_swept_up(scans, tmp_path, name):
    cached = build(scans, tmp_path).cached[0]
    half = cached.with_name(name)
    half.write_bytes(cached.read_bytes()[:500])
    cached.unlink()
    assert build(scans, tmp_path).built == 1
    assert not half.exists()


@pytest.mark.parametrize("ending", [".dcm", ".dicom"])
def test_a_scan_may_have_the_longest_name_that_a_disk_takes(tmp_path, ending):
    """Regression: the file written beside the cached one had a name too long for the disk."""
    name = Path("dicoms/fish", "f" * (255 - len(ending)) + ending)
    write_scan(tmp_path / "dicoms/fish/a.dcm", 0)
    (tmp_path / "dicoms/fish/a.dcm").rename(tmp_path / name)
    report = build([name], tmp_path)
    assert counts(report)[0] == 1
    assert open_example(report.cached[0], CONFIG.objects).scan_id == name.stem
    left = report.cached[0].with_name(f".1-0123abcd.part.{with_room(report.cached[0].name)}")
    left.touch()
    touch(tmp_path / name)
    assert counts(build([name], tmp_path))[1] == 1
    assert not left.exists()
    assert clear_cache(CONFIG, base=tmp_path).files == 1


# Bad scans are refused before anything is written


def test_all_bad_scans_are_named_before_anything_is_written(tmp_path):
    folder = tmp_path / "dicoms/fish"
    write_scan(folder / "130.dcm")
    write_scan(folder / "131.dcm", labels=())
    write_scan(folder / "132.dcm", shape=(24, 5, 13))
    (folder / "133.dcm").write_text("no DICOM")
    scans = [*sorted(folder.glob("*.dcm")), folder / "134.dcm"]
    with pytest.raises(InputError) as caught:
        build(scans, tmp_path)
    lines = str(caught.value).splitlines()
    assert [line[:8] for line in lines] == ["131.dcm:", "132.dcm:", "133.dcm:", "134.dcm:"]
    assert lines[0] == "131.dcm: the mask is empty; a scan needs at least one labelled voxel"
    assert "10x6x5" in lines[1]
    assert "24x5x13" in lines[1]
    assert not (tmp_path / "dicoms/downsampled_dicoms").exists()


def test_a_cached_file_is_no_scan_of_another_cache(scans, tmp_path):
    """Regression: where dicom_dirs had an old cache, its copies counted as full-size scans."""
    copies = build(scans, tmp_path).cached
    config = dataclasses.replace(CONFIG, dicom_dirs=("dicoms",), cache_dir="another")
    with pytest.raises(InputError, match=r"^a\.dcm: a scan must be at full size; .*/a\.dcm is"):
        build(copies, tmp_path, config)
    assert not (tmp_path / "another").exists()


def test_a_scan_that_fails_while_it_is_read_does_not_cost_the_others(scans, tmp_path, monkeypatch):
    def failing(scan, *arguments, **options):
        if scan.scan_id == "a":
            raise InputError("a.dcm: the file changed while it was read")
        return downsample(scan, *arguments, **options)

    monkeypatch.setattr(cache, "downsample", failing)
    with pytest.raises(InputError, match=r"^a\.dcm: the file changed"):
        build(scans, tmp_path)
    monkeypatch.undo()
    assert counts(build(scans, tmp_path)) == (1, 0, 2, 1)


def test_a_cache_folder_that_cannot_be_written_is_named(scans, tmp_path):
    (tmp_path / "occupied").write_text("a file")
    config = dataclasses.replace(CONFIG, cache_dir="occupied")
    with pytest.raises(InputError, match="occupied: the cache's folder must be"):
        build(scans, tmp_path, config)


def test_scans_that_do_not_fit_on_the_disk_are_not_begun(scans, tmp_path, monkeypatch):
    """Regression: the disk was full halfway, without a word of where and how much."""
    monkeypatch.setattr(cache, "downsample", too_late)
    monkeypatch.setattr(cache, "free_bytes", lambda _: 2000)
    folder = tmp_path / "dicoms/downsampled_dicoms"
    with pytest.raises(InputError) as caught:
        build(scans, tmp_path)
    needed = 3 * 10 * 6 * 5 * 3
    assert str(caught.value) == (
        f"{folder}: the cache needs {needed} bytes for 3 downsampled scans; its disk has 2000 "
        "bytes left"
    )


@pytest.mark.parametrize("change", ["written to", "replaced", "removed"])
def test_a_scan_that_changes_while_it_is_read_is_not_used(scans, tmp_path, monkeypatch, change):
    """Regression: what was read half of the old and half of the new scan was used that time."""
    victim = tmp_path / scans[0]

    def disturbed(scan, *arguments, **options):
        result = downsample(scan, *arguments, **options)
        if scan.path == victim:
            if change == "written to":
                touch(victim)
            elif change == "replaced":  # as some tools do: of the same size, with the same time
                stat = victim.stat()
                shutil.copy(victim, tmp_path / "copy")
                (tmp_path / "copy").replace(victim)
                os.utime(victim, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            else:
                victim.rename(tmp_path / "aside")
        return result

    monkeypatch.setattr(cache, "downsample", disturbed)
    said = "No such file" if change == "removed" else "must not change while it is read"
    with pytest.raises(InputError, match=rf"^a\.dcm: .*{said}"):
        build(scans, tmp_path)
    assert not list((tmp_path / "dicoms/downsampled_dicoms").rglob("*a.dcm"))
    monkeypatch.undo()
    if change == "removed":
        (tmp_path / "aside").rename(victim)
    assert counts(build(scans, tmp_path)) == (1, 0, 2, 1)  # the others were not lost


# Several at once, and interruptions


@pytest.mark.parametrize("number", ["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def test_a_cache_on_a_drive_without_locks(scans, tmp_path, monkeypatch, number):
    """Regression: it could not be built there, or waited for ever for a killed process."""

    def missing(*_):
        raise OSError(getattr(errno, number), "no locks")

    monkeypatch.setattr("fcntl.flock", missing)
    assert build(scans, tmp_path).built == 3
    root = tmp_path / "dicoms/downsampled_dicoms"
    assert not list((root / ".locks").glob("*.lease"))
    clear_cache(CONFIG, base=tmp_path)
    assert not root.exists()


def build_when_both_are_ready(base, names, number):
    """Run in its own process: build the cache at the same time as the other process."""
    base = Path(base)
    (base / f"ready{number}").touch()
    deadline = time.monotonic() + 240
    while not all((base / f"ready{n}").exists() for n in range(2)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return counts(build([Path(name) for name in names], base))


def test_two_processes_build_one_cache(tmp_path):
    names = [f"dicoms/fish/{number}.dcm" for number in range(6)]
    for seed, name in enumerate(names):
        write_scan(tmp_path / name, seed)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        futures = [
            pool.submit(build_when_both_are_ready, str(tmp_path), names, number)
            for number in range(2)
        ]
        results = [future.result(timeout=300) for future in futures]
    assert sum(built for built, *_ in results) == len(names)  # each file was made once
    assert all(built + reused == len(names) for built, _, reused, _ in results)
    assert {status.status for status in verify_cache(CONFIG, base=tmp_path)} == {"ok"}
    assert files_below(tmp_path / "dicoms/downsampled_dicoms/10x6x5/fish") == [
        f"{number}.dcm" for number in range(6)
    ]


def test_ctrl_c_leaves_only_whole_files(tmp_path, monkeypatch):
    names = [Path(f"dicoms/fish/{number}.dcm") for number in range(6)]
    for seed, name in enumerate(names):
        write_scan(tmp_path / name, seed)
    begun = []

    def interrupted(scan, shape, *, on_slab):
        begun.append(scan.scan_id)
        if len(begun) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(500):  # on it goes, until the build tells it to stop
                time.sleep(0.01)
                on_slab(0)
        return downsample(scan, shape, on_slab=on_slab)

    monkeypatch.setattr(cache, "downsample", interrupted)
    # where the tests run in the background, the shell has Ctrl-C ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    one_by_one = dataclasses.replace(CONFIG, n_workers=1)
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            build(names, tmp_path, one_by_one)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - start < 3
    monkeypatch.undo()
    folder = tmp_path / "dicoms/downsampled_dicoms/10x6x5/fish"
    assert len(begun) == 3  # nothing new is begun after the interruption
    assert files_below(folder) == ["0.dcm", "1.dcm"]
    assert counts(build(names, tmp_path)) == (4, 0, 2, 4)


def test_the_bar_is_only_there_when_something_is_to_do(scans, tmp_path, monkeypatch):
    made = []
    real = cache.Progress

    def spy(*arguments, **options):
        if options["unit"] == "B":  # those of the checks go by themselves
            made.append(options["total"])
        return real(*arguments, **{**options, "shown": False})

    monkeypatch.setattr(cache, "Progress", spy)
    build_cache(scans, CONFIG, base=tmp_path)
    assert made == [sum((tmp_path / scan).stat().st_size for scan in scans)]
    build_cache(scans, CONFIG, base=tmp_path)
    assert len(made) == 1


# Where files lie


@pytest.mark.parametrize(
    ("dicom_dirs", "cache_dir", "scan", "expected"),
    [
        (("dicoms/demo",), "c", "dicoms/demo/p.dcm", "demo/p.dcm"),
        (("dicoms/demo/",), "c", "dicoms/demo/p.dcm", "demo/p.dcm"),
        (("./x/../dicoms/demo",), "c", "dicoms/demo/q/p.dcm", "demo/q/p.dcm"),
        (("dicoms", "dicoms/demo"), "c", "dicoms/demo/p.dcm", "demo/p.dcm"),
        (("dicoms", "dicoms/demo"), "c", "dicoms/p.dcm", "dicoms/p.dcm"),
        (("dicoms/demo",), "c", "dicoms/demo/p.dicom", "demo/p.dicom.dcm"),
        (("a/demo", "b/demo"), "c", "a/demo/p.dcm", "demo-????????/p.dcm"),
        (("a/demo", "b/DEMO"), "c", "b/DEMO/p.dcm", "DEMO-????????/p.dcm"),
        (("a/demo",), "c", "elsewhere/p.dcm", "elsewhere-????????/p.dcm"),
        (("a/demo",), "../shared", "a/demo/p.dcm", "demo-????????/p.dcm"),
    ],
)
def test_where_a_cached_file_lies(tmp_path, dicom_dirs, cache_dir, scan, expected):
    config = CacheConfig(dicom_dirs, SIZE, cache_dir)
    (path,) = cached_paths([Path(scan)], config, tmp_path)
    root = Path(os.path.abspath(tmp_path / cache_dir)) / "10x6x5"  # noqa: PTH100
    assert path.relative_to(root).match(expected)
    assert path.relative_to(root).parts[0].count("-") == expected.count("-")


def test_folders_of_one_name_do_not_share_files(tmp_path):
    scans = [Path("a/fish/1.dcm"), Path("b/fish/1.dcm")]
    masks = [write_scan(tmp_path / scan, seed)[1] for seed, scan in enumerate(scans)]
    config = dataclasses.replace(CONFIG, dicom_dirs=("a/fish", "b/fish"))
    report = build(scans, tmp_path, config)
    assert len(set(report.cached)) == 2
    for cached, mask in zip(report.cached, masks, strict=True):
        expected = map_points(np.argwhere(mask).mean(axis=0), Grid(SHAPE), Grid(SIZE))
        np.testing.assert_allclose(open_example(cached, JAW).points_voxels, [expected], atol=1e-12)
    swapped = dataclasses.replace(config, dicom_dirs=("b/fish", "a/fish"))
    assert counts(build(scans, tmp_path, swapped)) == (0, 0, 2, 0)


def test_projects_that_share_a_cache_do_not_share_files(tmp_path):
    shared = dataclasses.replace(CONFIG, cache_dir=str(tmp_path / "shared"))
    for seed, project in enumerate(("one", "two")):
        source = write_scan(tmp_path / project / "dicoms/fish/1.dcm", seed)
        assert source[1].any()
    reports = [
        build([Path("dicoms/fish/1.dcm")], tmp_path / project, shared) for project in ("one", "two")
    ]
    assert reports[0].cached != reports[1].cached
    for project, report in zip(("one", "two"), reports, strict=True):
        again = build([Path("dicoms/fish/1.dcm")], tmp_path / project, shared)
        assert counts(again) == (0, 0, 1, 0)
        assert again.cached == report.cached


def test_scans_that_would_share_a_cached_file_are_refused(tmp_path):
    scans = [Path("dicoms/fish/a.dicom"), Path("dicoms/fish/a.dicom.dcm")]
    with pytest.raises(InputError, match=r"a\.dicom\.dcm: two scans of one folder must differ"):
        cached_paths(scans, CONFIG, tmp_path)


# Looking after it


def test_verify_tells_what_is_wrong(tmp_path):
    folder = tmp_path / "dicoms/fish"
    names = ("changed", "damaged", "gone", "good", "swapped", "touched")
    for seed, name in enumerate(names):
        write_scan(folder / f"{name}.dcm", seed)
    scans = sorted(folder.glob("*.dcm"))
    cached = dict(zip(names, build(scans, tmp_path).cached, strict=True))
    write_scan(folder / "changed.dcm", seed=50)
    flip(cached["damaged"], IN_THE_IMAGE)
    (folder / "gone.dcm").unlink()
    touch(folder / "touched.dcm")
    # Same size, same time, other voxels: only hashing the source can tell.
    stat = (folder / "swapped.dcm").stat()
    flip(folder / "swapped.dcm", -5)
    os.utime(folder / "swapped.dcm", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    found = {
        status.path.stem: status for status in verify_cache(CONFIG, base=tmp_path, progress=False)
    }
    assert {name: status.status for name, status in found.items()} == {
        "changed": "stale",
        "damaged": "damaged",
        "gone": "source missing",
        "good": "ok",
        "swapped": "stale",
        "touched": "ok",
    }
    assert found["good"].detail == ""
    assert found["good"].source == folder / "good.dcm"
    assert found["damaged"].detail.startswith("damaged.dcm: ")
    assert found["gone"].detail.startswith("gone.dcm: ")


@pytest.mark.filterwarnings("ignore")  # pydicom warns about what is damaged
def test_verify_finds_every_damage_and_repair_makes_the_file_again(tmp_path):
    """Regression: a flipped bit in the header, or the file of another scan, went unseen."""
    folder, rng = tmp_path / "dicoms/fish", np.random.default_rng(0)
    for seed, name in enumerate("ab"):
        write_scan(folder / f"{name}.dcm", seed)
    scans = [folder / "a.dcm", folder / "b.dcm"]
    victim, other = build(scans, tmp_path).cached
    good = victim.read_bytes()

    def status():
        return verify_cache(CONFIG, base=tmp_path, progress=False)[0]

    assert status().status == "ok"
    places = [*rng.choice(len(good), 20, replace=False), 0, len(good) - 1]
    for offset in places:
        flip(victim, offset)
        assert status().status in ("damaged", "source missing", "stale"), offset
        victim.write_bytes(good)
    for length in (0, 10, len(good) // 2, len(good) - 44, len(good) - 1):
        truncate(victim, length)
        assert status().status == "damaged", length
        victim.write_bytes(good)
    shutil.copy(other, victim)
    found = status()
    assert found.status == "damaged"
    assert found.detail == (
        "a.dcm: a cached scan must lie where it was made; this is a copy of 10x6x5/fish/b.dcm at "
        "10x6x5/fish/a.dcm"
    )
    (after,) = repair_cache(CONFIG, [found], scans, base=tmp_path, progress=False)
    assert (after.path, after.status) == (victim, "ok")
    assert status().status == "ok"


def test_repair_makes_each_size_again_and_leaves_what_it_can_not_make(tmp_path):
    folder = tmp_path / "dicoms/fish"
    for seed, name in enumerate(("empty", "gone", "good", "swapped")):
        write_scan(folder / f"{name}.dcm", seed)
    small = dataclasses.replace(CONFIG, downsampled_dicom_size=(5, 4, 3))
    scans = sorted(folder.glob("*.dcm"))
    cached = {c.stem: c for c in build(scans, tmp_path, small).cached}
    build(scans, tmp_path)
    stat = (folder / "swapped.dcm").stat()
    flip(folder / "swapped.dcm", -5)  # of the same size and time, so that building sees nothing
    os.utime(folder / "swapped.dcm", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    flip(cached["good"], IN_THE_IMAGE)
    (folder / "gone.dcm").unlink()
    write_scan(folder / "empty.dcm", labels=())
    scans.remove(folder / "gone.dcm")
    bad = [s for s in verify_cache(CONFIG, base=tmp_path, progress=False) if s.status != "ok"]
    after = repair_cache(CONFIG, bad, scans, base=tmp_path, progress=False)
    found = {s.path.relative_to(tmp_path / "dicoms/downsampled_dicoms"): s for s in after}
    assert {path.as_posix(): s.status for path, s in found.items()} == {
        "10x6x5/fish/empty.dcm": "stale",
        "10x6x5/fish/gone.dcm": "source missing",
        "10x6x5/fish/swapped.dcm": "ok",
        "5x4x3/fish/empty.dcm": "stale",
        "5x4x3/fish/gone.dcm": "source missing",
        "5x4x3/fish/good.dcm": "ok",
        "5x4x3/fish/swapped.dcm": "ok",
    }
    assert found[Path("5x4x3/fish/empty.dcm")].detail.startswith("empty.dcm: the mask is empty")
    now = {s.path: s.status for s in verify_cache(CONFIG, base=tmp_path, progress=False)}
    assert {s.path: s.status for s in after}.items() <= now.items()


def test_verify_of_no_cache(tmp_path):
    assert verify_cache(CONFIG, base=tmp_path) == []


@pytest.mark.parametrize("name", HALF_WRITTEN)
def test_clear_removes_what_jawloc_wrote_and_nothing_else(scans, tmp_path, name):
    build(scans, tmp_path)
    build(scans, tmp_path, dataclasses.replace(CONFIG, downsampled_dicom_size=(8, 8, 8)))
    root = tmp_path / "dicoms/downsampled_dicoms"
    sizes = [p.stat().st_size for p in root.rglob("*.dcm")]
    half = root / "10x6x5/fish" / name
    half.write_bytes(b"half")
    notes, foreign = root / "notes.txt", root / "10x6x5/fish/mine.dcm"
    notes.write_text("mine")
    write_scan(foreign)
    link = root / "10x6x5/link.dcm"
    link.symlink_to(root / "10x6x5/fish/a.dcm")
    (root / "elsewhere").symlink_to(tmp_path / "dicoms/fish", target_is_directory=True)
    result = clear_cache(CONFIG, base=tmp_path)
    assert (result.files, result.size_bytes) == (7, sum(sizes) + 4)
    assert set(result.left) == {notes, foreign, link}
    assert files_below(root) == ["10x6x5/fish/mine.dcm", "notes.txt"]
    assert not (root / "8x8x8").exists()
    assert not (root / ".locks").exists()
    assert all((tmp_path / scan).exists() for scan in scans)


def test_clear_leaves_what_a_user_put_into_the_cache(scans, tmp_path):
    """A copy of a cached file carries jawloc's record, but jawloc didn't put it there."""
    cached = build(scans, tmp_path).cached
    root = tmp_path / "dicoms/downsampled_dicoms"
    mine = [
        cached[0].with_name("best.dcm"),
        root / "10x6x5/fish/deep/a.dcm",
        root / "10x6x5/chosen/a.dcm",
        root / "8x8x8/fish/a.dcm",
        root / "a.dcm",
        *(root / folder / name for folder in ("", "10x6x5", "parts/fish") for name in HALF_WRITTEN),
        root / ".locks/notes.lock",
        root / ".locks/0123456789abcdef.lock",
    ]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(cached[0], path)
    (root / "empty").mkdir()
    cleared = clear_cache(CONFIG, base=tmp_path)
    assert (cleared.files, set(cleared.left)) == (3, set(mine))
    assert {p for p in root.rglob("*") if p.is_file()} == set(mine)
    assert (root / "empty").is_dir()
    assert not any(path.exists() for path in cached)


def as_version_2(path):
    """Rewrite a cached file's record as it was before it named its own place and a rescale."""
    ds = pydicom.dcmread(path)
    notes = json.loads(ds[0x00BBB010].value)
    record = notes["jawloc_cache"]
    for later in ("cached_as", "rescale_slope", "rescale_intercept", "checked_as_whole"):
        del record[later]
    record |= {"algorithm_version": 2, "checksum": ""}
    scan = open_labelled_dicom(path)
    about = json.dumps([record, scan.dtype.str], sort_keys=True).encode()
    image, mask = (read(0, SIZE[0]) for read in (scan.read_image, scan.read_mask))
    record["checksum"] = hashlib.sha256(about + image.tobytes() + mask.tobytes()).hexdigest()
    ds[0x00BBB010].value = json.dumps(notes)
    ds.save_as(path)


def test_files_of_version_2_are_stale_and_cleared_where_jawloc_put_them(scans, tmp_path):
    config = dataclasses.replace(CONFIG, cache_dir=str(tmp_path / "shared" / "cache"))
    project = tmp_path / "project"
    (tmp_path / "dicoms").rename(tmp_path / "project-dicoms")
    project.mkdir()
    (tmp_path / "project-dicoms").rename(project / "dicoms")
    for own in (CONFIG, config):  # within the project, and shared by several
        cached = build(scans, project, own).cached
        for path in cached:
            as_version_2(path)
        root = cached[0].parents[2]
        copies = [
            cached[0].with_name("best.dcm"),
            root / "10x6x5/a.dcm",
            root / "8x8x8/fish/a.dcm",
            root / "10x6x5/chosen/a.dcm",
        ]
        for path in copies:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(cached[0], path)
        found = {s.path: s for s in verify_cache(own, base=project, progress=False)}
        assert [found[path].status for path in cached] == ["stale"] * 3
        assert "version 2" in found[cached[0]].detail
        cleared = clear_cache(own, base=project)
        assert (cleared.files, set(cleared.left)) == (3, set(copies))


def test_clear_knows_the_files_of_a_moved_project(scans, tmp_path):
    build(scans, tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "dicoms").rename(tmp_path / "elsewhere/dicoms")
    assert clear_cache(CONFIG, base=tmp_path / "elsewhere").files == 3
    assert not (tmp_path / "elsewhere/dicoms/downsampled_dicoms").exists()


def test_clear_leaves_a_lock_that_is_held(scans, tmp_path):
    """Guards the lock: with its file gone, a second process would write the same cached file."""
    cached = build(scans, tmp_path).cached
    root = tmp_path / "dicoms/downsampled_dicoms"
    held = lock_path(cached[0], root)
    with FileLock(held):
        cleared = clear_cache(CONFIG, base=tmp_path)
        assert (cleared.files, cleared.left) == (2, (cached[0],))
        assert list((root / ".locks").iterdir()) == [held]
    assert clear_cache(CONFIG, base=tmp_path).files == 1
    assert not root.exists()


def test_clear_takes_the_folder_too_and_can_be_repeated(scans, tmp_path):
    build(scans, tmp_path)
    assert clear_cache(CONFIG, base=tmp_path).files == 3
    assert not (tmp_path / "dicoms/downsampled_dicoms").exists()
    again = clear_cache(CONFIG, base=tmp_path)
    assert (again.files, again.size_bytes, again.left) == (0, 0, ())
    assert build(scans, tmp_path).built == 3


# Settings


def test_defaults_are_the_labs():
    config = CacheConfig()
    assert config.downsampled_dicom_size == (512, 128, 128)
    assert config.cache_dir == "dicoms/downsampled_dicoms"
    assert config.n_workers == 10
    assert config.objects == {"jaw": None}


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"downsampled_dicom_size": [512, 128]}, "downsampled_dicom_size"),
        ({"downsampled_dicom_size": [512, 0, 128]}, "downsampled_dicom_size"),
        ({"downsampled_dicom_size": ["512", 128, 128]}, "downsampled_dicom_size"),
        ({"n_workers": 0}, "n_workers"),
        ({"cache_dir": ""}, "cache_dir"),
        ({"dicom_dirs": "dicoms"}, "dicom_dirs"),
        ({"objects": {}}, "objects"),
        ({"objects": {"jaw": [0]}}, "objects"),
        ({"objects": {"jaw": []}}, "objects"),
    ],
)
def test_wrong_settings_are_refused_by_key(settings, key):
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(CacheConfig).validate_json(json.dumps(settings), strict=True)
    assert {error["loc"][0] for error in caught.value.errors()} == {key}


def test_settings_from_a_file():
    settings = {"dicom_dirs": ["a", "b"], "objects": {"jaw": [1, 2], "any": None}}
    config = TypeAdapter(CacheConfig).validate_json(json.dumps(settings), strict=True)
    assert config.dicom_dirs == ("a", "b")
    assert config.objects == {"jaw": (1, 2), "any": None}


def test_a_target_larger_than_a_scan_names_the_largest_that_fits_all(tmp_path):
    """Each axis is as long as the shortest scan, or as it was asked for where that is shorter."""
    (tmp_path / "dicoms").mkdir()
    paths = []
    for name, shape in (("a", (9, 20, 8)), ("b", (30, 7, 8))):
        paths.append(tmp_path / "dicoms" / f"{name}.dcm")
        write_labelled_dicom(
            paths[-1], np.zeros(shape, np.uint8), np.ones(shape, np.uint8), Grid(shape)
        )
    config = CacheConfig(dicom_dirs=("dicoms",), downsampled_dicom_size=(12, 10, 4))
    with pytest.raises(InputError) as info:
        build_cache(paths, config, base=tmp_path, progress=False)
    first, others = str(info.value).splitlines()
    assert first.startswith("a.dcm: the downsampled size must be no larger than the scan")
    assert first.endswith(
        "; 9x7x4 fits all scans: set downsampled_dicom_size to [9, 7, 4], or to auto"
    )
    assert others == "too small likewise: b.dcm"  # regression: a line for each of them
    assert largest_size(paths, (12, 10, 4)) == (9, 7, 4)
    with pytest.raises(ValueError, match="depends on the scans"):
        CacheConfig(downsampled_dicom_size="auto").shape_zyx  # noqa: B018


@pytest.mark.parametrize("below", ["10x6x5", "10x6x5/fish", ".locks"])
def test_a_link_in_the_cache_is_not_written_through(scans, tmp_path, below):
    """Regression: cached files went wherever a link of a size folder's name led to."""
    folder, elsewhere = tmp_path / "dicoms/downsampled_dicoms", tmp_path / "elsewhere"
    (folder / below).parent.mkdir(parents=True)
    elsewhere.mkdir()
    (folder / below).symlink_to(elsewhere)
    with pytest.raises(InputError, match=r"^cache_dir: .* is a link"):
        build(scans, tmp_path)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("scan_id", ["../stray", "..", "a/b"])
def test_a_record_whose_scan_id_is_a_path_is_not_used(scans, tmp_path, monkeypatch, scan_id):
    """Regression: pictures of a cross-validation are named by that id, wherever it leads."""
    (cached, *_) = build(scans, tmp_path).cached
    real = cache_files.read_metadata

    def forged(path):
        record = real(path)["jawloc_cache"] | {"scan_id": scan_id}
        return {"jawloc_cache": record}

    monkeypatch.setattr(cache_files, "read_metadata", forged)
    with pytest.raises(InputError, match="a scan's id must be a file's name; its record has"):
        open_example(cached, JAW)


def test_padding_of_signed_scans_is_no_grey_value_in_the_cache_either(tmp_path):
    """Regression: a scan was located in without its padding, and learned from with it."""
    path = tmp_path / "dicoms/fish/a.dcm"
    _, mask = write_scan(path)
    image = np.random.default_rng(0).integers(0, 200, SHAPE).astype(np.int16)
    image[:, :4] = -(2**15)
    write_labelled_dicom(path, image, mask, Grid(SHAPE, SPACING))
    with pytest.warns(UserWarning, match="no grey value"):
        (file,) = build([Path("dicoms/fish/a.dcm")], tmp_path).cached
    cached = open_example(file, JAW).read().image.astype(float)
    with pytest.warns(UserWarning, match="no grey value"):
        expected = downsample_image(open_scan(path), SIZE)
    assert expected.min() > -1
    np.testing.assert_allclose(cached, expected, atol=1)
