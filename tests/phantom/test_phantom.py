"""Phantoms: the same fish at every size, where real fish are, and not to be found by brightness."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jawloc import phantom as phantom_module
from jawloc.errors import InputError
from jawloc.geometry import Grid, map_points
from jawloc.phantom import (
    brightest_spot,
    draw_phantom,
    make_phantom,
    phantom_slabs,
    write_phantom,
    write_phantoms,
)
from jawloc.phantom.anatomy import OTOLITHS_HEADS
from jawloc.phantom.drawing import Phantom
from jawloc.phantom.skeleton import jaw, skeleton
from jawloc.scans.dicom import open_labelled_dicom, read_metadata, write_labelled_dicom
from jawloc.scans.scan import Scan

TINY = (48, 24, 24)
SMALL = (96, 32, 32)
SHARED_DATA = Path(
    os.environ.get("JAWLOC_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data")
)
JAW_TABLE = SHARED_DATA / "zebrafish_jaw_positions.csv"


def centroid(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).mean(0)


def landmarks_mm(phantom: Phantom) -> tuple[np.ndarray, np.ndarray]:
    """Return jaw and otoliths (z, y, x) in mm above the floor and from the tube's axis."""
    otoliths = np.array([*OTOLITHS_HEADS, 0.0]) * phantom.fish.head_mm
    points = np.stack([jaw(phantom.fish).centroid_mm(), otoliths])
    return tuple(phantom.pose.to_world(points))


def voxels_of(phantom: Phantom, points_fish_mm: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return indices of points given in fish axes."""
    spacing = np.array(phantom.grid.spacing_mm_zyx)
    axis = np.array(phantom.grid.shape_zyx) * spacing * (0, 0.5, 0.5)
    world = phantom.pose.to_world(np.atleast_2d(points_fish_mm)) + axis
    return tuple(np.floor(world / spacing).astype(int).T)


@pytest.fixture(scope="module")
def small_phantoms() -> list[Scan]:
    return [make_phantom(seed, SMALL) for seed in range(16)]


@pytest.fixture(scope="module")
def quiet() -> tuple[Phantom, np.ndarray]:
    """One phantom without noise, rings and shading, as levels (flesh 1, air 0)."""
    drawn = draw_phantom(1, (288, 96, 96))
    grey_levels = replace(drawn.grey_levels, noise=0.0, rings=0.0, shading=0.0, medium=0.3)
    drawn = replace(drawn, grey_levels=grey_levels)
    image = np.concatenate([image for image, _ in phantom_slabs(drawn)])
    return drawn, (image - grey_levels.offset) / grey_levels.gain


def test_a_seed_is_one_scan_and_another_seed_another() -> None:
    first, again, other = (make_phantom(seed, TINY) for seed in (3, 3, 4))
    assert first.scan_id == "phantom_003"
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    assert np.mean(first.image != other.image) > 0.9


@pytest.mark.parametrize("thickness", [1, 7, 48, 1000])
def test_slab_borders_leave_no_trace(thickness: int) -> None:
    # Guards against noise, texture or a bone that is drawn relative to its slab.
    drawn = draw_phantom(5, (90, 40, 36))
    whole = list(phantom_slabs(drawn))
    slabs = list(phantom_slabs(drawn, thickness))
    assert max(len(image) for image, _ in slabs) == min(thickness, 90)
    for k in (0, 1):
        assert np.array_equal(
            np.concatenate([slab[k] for slab in slabs]), np.concatenate([slab[k] for slab in whole])
        )


def test_types_and_grid() -> None:
    scan = make_phantom(0, TINY)
    assert scan.image.dtype == np.uint16
    assert scan.mask is not None
    assert scan.mask.dtype == np.uint8
    assert scan.image.shape == scan.mask.shape == scan.grid.shape_zyx == TINY


@pytest.mark.parametrize("shape", [TINY, (288, 96, 96), (250, 100, 50)])
def test_the_field_of_view_is_the_same_at_every_shape(shape: tuple[int, int, int]) -> None:
    native, drawn = draw_phantom(8), draw_phantom(8, shape)
    assert native.grid.shape_zyx == (2000, 600, 600)
    assert 0.0199 <= native.grid.spacing_mm_zyx[0] <= 0.0235
    assert len(set(native.grid.spacing_mm_zyx)) == 1
    for n, mm, native_n, native_mm in zip(
        shape, drawn.grid.spacing_mm_zyx, (2000, 600, 600), native.grid.spacing_mm_zyx, strict=True
    ):
        assert n * mm == pytest.approx(native_n * native_mm)
    assert (drawn.fish, drawn.grey_levels) == (native.fish, native.grey_levels)
    assert np.array_equal(drawn.pose.path_mm, native.pose.path_mm)


@pytest.mark.parametrize("seed", range(6))
def test_the_jaw_is_at_the_same_place_at_every_size(seed: int) -> None:
    # Half a small voxel: what training on small phantoms may be wrong about large ones.
    tiny, larger = make_phantom(seed, TINY), make_phantom(seed, (240, 80, 80))
    mapped = map_points(centroid(larger.mask), larger.grid, tiny.grid)
    assert np.all(np.abs(mapped - centroid(tiny.mask)) < 0.5)


@pytest.mark.parametrize("seed", range(3))
def test_the_masks_centroid_is_where_the_jaw_was_drawn(seed: int) -> None:
    scan = make_phantom(seed, (240, 80, 80))
    drawn = landmarks_mm(draw_phantom(seed))[0]
    spacing = np.array(scan.grid.spacing_mm_zyx)
    axis = np.array(scan.grid.shape_zyx) * spacing * (0, 0.5, 0.5)
    voxels = (drawn + axis) / spacing - 0.5
    assert np.linalg.norm(voxels - centroid(scan.mask)) < 0.5


def test_without_its_jaw_a_phantom_is_the_same_fish_but_for_the_jaw() -> None:
    whole, less = (make_phantom(3, SMALL, without_jaw=without) for without in (False, True))
    assert whole.mask.any() and not less.mask.any()
    changed = np.argwhere(whole.image != less.image)
    inside = np.argwhere(whole.mask)
    reach = np.ptp(inside, axis=0)  # the chin's flesh and blurring go a little further
    assert (abs(changed - inside.mean(axis=0)) < 1.5 * reach).all()
    bones = whole.mask > 0
    assert less.image[bones].mean() < whole.image[bones].mean()


def test_tiny_phantoms_always_have_a_jaw() -> None:
    # Bones are thinner than these voxels; none may fall between them.
    for seed in range(100, 125):
        drawn = draw_phantom(seed, (16, 8, 8))
        assert sum(int(mask.sum()) for _, mask in phantom_slabs(drawn)) > 0


def test_the_head_is_up() -> None:
    for seed in range(30):
        drawn = draw_phantom(seed)
        jaw_mm, otolith_mm = landmarks_mm(drawn)
        assert otolith_mm[0] < jaw_mm[0] - 2
        assert drawn.pose.snout_z_mm < 2000 * drawn.grid.spacing_mm_zyx[0]


def test_organs_have_their_brightness(quiet: tuple[Phantom, np.ndarray]) -> None:
    drawn, levels = quiet
    fish = drawn.fish
    bladder = np.array([[0.325 * fish.length_mm, -0.10 * fish.depth_mm, 0.0]])
    muscle = fish.skin_mm(np.linspace(0.55, 0.8, 9) * fish.length_mm, 0.2 * np.pi, 0.6)
    s, d = OTOLITHS_HEADS
    stone = np.array([[s + 0.02, d - 0.03, side * 0.075] for side in (1, -1)]) * fish.head_mm
    jaw_level = np.median(levels[np.concatenate([m for _, m in phantom_slabs(drawn)]) > 0])
    assert levels[voxels_of(drawn, bladder)] == pytest.approx(0, abs=0.1)
    assert levels[voxels_of(drawn, muscle)].mean() == pytest.approx(1, abs=0.2)
    assert jaw_level > 1.3
    assert levels[voxels_of(drawn, stone)].min() > jaw_level
    assert levels[5, 0, 0] == pytest.approx(0, abs=0.05)  # air outside the tube
    assert levels[5, 48, 48] == pytest.approx(0.3, abs=0.05)  # medium inside


def test_bone_is_conserved_at_every_size() -> None:
    # Guards the seam between bones thinner and thicker than a voxel: neither fades nor swells.
    sums = []
    for shape in ((96, 32, 32), (192, 64, 64), (384, 128, 128)):
        drawn = draw_phantom(2, shape)
        grey_levels = replace(drawn.grey_levels, noise=0.0, rings=0.0, shading=0.0, gain=5000.0)
        bare = replace(grey_levels, bone_contrast=0.0)
        volume = np.prod(drawn.grid.spacing_mm_zyx)
        bright, dark = (
            sum(
                float(i.sum(dtype=float))
                for i, _ in phantom_slabs(replace(drawn, grey_levels=each))
            )
            for each in (grey_levels, bare)
        )
        sums.append((bright - dark) * volume)
    assert sums[0] == pytest.approx(sums[2], rel=0.35)
    assert sums[1] == pytest.approx(sums[2], rel=0.2)


def test_grey_levels_differ_from_scan_to_scan(small_phantoms: list[Scan]) -> None:
    medians = [np.median(scan.image) for scan in small_phantoms]
    brightest = [np.percentile(scan.image, 99.9) for scan in small_phantoms]
    assert max(medians) > 2 * min(medians)
    assert max(brightest) > 1.7 * min(brightest)


def test_neither_brightness_nor_a_guess_finds_the_jaw(small_phantoms: list[Scan]) -> None:
    truth = np.array([centroid(scan.mask) for scan in small_phantoms])
    spots = np.array([brightest_spot(scan.image) for scan in small_phantoms])
    weights = [scan.image.astype(float) - np.median(scan.image) for scan in small_phantoms]
    centres = np.array(
        [
            [
                (np.arange(n) * w.sum(tuple({0, 1, 2} - {a}))).sum() / w.sum()
                for a, n in enumerate(SMALL)
            ]
            for w in (np.maximum(w, 0) for w in weights)
        ]
    )
    mean_error = np.linalg.norm(truth - truth.mean(0), axis=1).mean()
    assert np.linalg.norm(spots - truth, axis=1).min() > 4
    assert np.linalg.norm(spots - truth, axis=1).mean() > mean_error
    assert np.linalg.norm(centres - truth, axis=1).mean() > mean_error
    for scan in small_phantoms:
        inside = scan.mask > 0
        as_bright = (scan.image >= np.median(scan.image[inside])) & ~inside
        assert as_bright.sum() > 2 * inside.sum()


def test_arches_can_have_a_label_each() -> None:
    both = draw_phantom(2, (240, 80, 80), arch_labels=True)
    mask = np.concatenate([mask for _, mask in phantom_slabs(both)])
    one = make_phantom(2, (240, 80, 80)).mask
    assert set(np.unique(mask)) == {0, 1, 2}
    assert np.array_equal(mask > 0, one > 0)
    lower_to_upper = (centroid(mask == 2) - centroid(mask == 1))[1:]
    assert lower_to_upper @ both.pose.axes()[0] > 0


def test_rotation_is_any_or_as_in_the_real_scans() -> None:
    any_way = [draw_phantom(seed).pose.dorsal_radians for seed in range(80)]
    upright = [draw_phantom(seed, any_rotation=False).pose.dorsal_radians for seed in range(80)]
    assert abs(np.exp(1j * np.array(any_way)).mean()) < 0.3
    assert np.exp(1j * np.array(upright)).mean().real < -0.8


@pytest.mark.parametrize("shape", [(4, 24, 24), (48, 24, 7), (48, 24)])
def test_shapes_too_small_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="at least 8 voxels"):
        draw_phantom(0, shape)


@pytest.mark.skipif(not JAW_TABLE.is_file(), reason="the table of real jaw positions is not here")
def test_phantoms_are_where_real_fish_are() -> None:
    with JAW_TABLE.open() as file:
        rows = list(csv.DictReader(file))
    real = {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}
    voxel = real["voxel_mm"]
    lever = np.stack([(real[f"otolith_{a}"] - real[f"jaw_{a}"]) * voxel for a in "zyx"], 1)
    lever = lever[(lever[:, 0] < -2.5) & (lever[:, 0] > -8)]  # a few rows name the wrong point
    off = np.hypot(*(real[f"jaw_{a}"] - (real[f"shape_{a}"] - 1) / 2 for a in "yx"))
    drawn = [draw_phantom(seed, any_rotation=False) for seed in range(400)]
    points = np.array([landmarks_mm(each) for each in drawn])
    mm = np.array([each.grid.spacing_mm_zyx[0] for each in drawn])
    length = np.array([each.fish.length_mm for each in drawn])
    height = points[:, 0, 0] / (2000 * mm)
    between = points[:, 1] - points[:, 0]
    real_height, real_length = real["jaw_z"] / real["shape_z"], real["fish_length_mm"]
    known = ~np.isnan(real_length)
    for ours, theirs, tolerance in (
        (height, real_height, 0.012),
        (np.hypot(*points[:, 0, 1:].T) / mm, off, 8),
        (between[:, 0], lever[:, 0], 0.12),
        (np.hypot(*between[:, 1:].T), np.hypot(*lever[:, 1:].T), 0.2),
        (between[:, 1], lever[:, 1], 0.25),
        (length, real_length, 0.6),
        (mm, voxel, 0.0003),
        (np.array([each.age_months for each in drawn]), real["age_months"], 1.5),
    ):
        assert abs(ours.mean() - np.nanmean(theirs)) < tolerance
        assert abs(ours.std() - np.nanstd(theirs)) < tolerance
    assert real_height.min() - 0.01 < height.min() and height.max() < real_height.max() + 0.01
    wanted = np.corrcoef(real_length[known], real_height[known])[0, 1]
    assert np.corrcoef(length, height)[0, 1] == pytest.approx(wanted, abs=0.12)


def test_a_written_phantom_is_the_one_made(tmp_path: Path) -> None:
    path = tmp_path / "phantom_006.dcm"
    write_phantom(path, 6, (48, 25, 23))
    made, file = make_phantom(6, (48, 25, 23)), open_labelled_dicom(path)
    assert file.scan_id == made.scan_id
    assert np.array_equal(file.read_image(0, 48), made.image)
    assert np.array_equal(file.read_mask(0, 48), made.mask)
    assert file.grid.spacing_mm_zyx == pytest.approx(made.grid.spacing_mm_zyx)


def stamps(paths: list[Path]) -> list[int]:
    return [path.stat().st_mtime_ns for path in paths]


def test_only_missing_phantoms_are_made(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "demo"
    paths = write_phantoms(folder, 2, TINY, seed=40, progress=False)
    assert [path.name for path in paths] == ["phantom_000.dcm", "phantom_001.dcm"]
    before = stamps(paths)
    more = write_phantoms(folder, 3, TINY, seed=40, progress=False)
    assert more[:2] == paths
    assert stamps(paths) == before
    assert read_metadata(more[2])["phantom"]["seed"] == 42
    assert sorted(folder.iterdir()) == more  # no temporary file is left


def test_surplus_phantoms_of_an_earlier_call_are_removed(tmp_path: Path) -> None:
    """Guards the demo's split, which takes every scan in the folder; a user's own files stay."""
    paths = write_phantoms(tmp_path, 4, TINY, progress=False)
    image = np.ones(TINY, np.uint16)
    write_labelled_dicom(paths[2], image, image, Grid(TINY))  # without a phantom's notes
    others = [tmp_path / "phantom_007.dcm", tmp_path / "phantom_x.dcm", tmp_path / "my_003.dcm"]
    others[0].write_text("no DICOM")
    for copy in others[1:]:
        copy.write_bytes(paths[3].read_bytes())
    before = stamps(paths[:2])
    assert write_phantoms(tmp_path, 2, TINY, progress=False) == paths[:2]
    assert sorted(tmp_path.iterdir()) == sorted([*paths[:3], *others])
    assert stamps(paths[:2]) == before


@pytest.mark.parametrize(
    "change",
    [{"shape_zyx": (40, 24, 24)}, {"seed": 41}, {"any_rotation": False}, {"arch_labels": True}],
)
def test_phantoms_of_other_settings_are_made_anew(tmp_path: Path, change: dict) -> None:
    settings = {"shape_zyx": TINY, "seed": 40, "progress": False}
    (path,) = write_phantoms(tmp_path, 1, **settings)
    before = path.read_bytes()
    write_phantoms(tmp_path, 1, **(settings | change))
    assert path.read_bytes() != before
    expected = Grid(change.get("shape_zyx", TINY)).shape_zyx
    assert open_labelled_dicom(path).grid.shape_zyx == expected


@pytest.mark.parametrize("damage", [b"", b"not a DICOM", None])
def test_damaged_files_are_made_anew(tmp_path: Path, damage: bytes | None) -> None:
    (path,) = write_phantoms(tmp_path, 1, TINY, progress=False)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000] if damage is None else damage)
    write_phantoms(tmp_path, 1, TINY, progress=False)
    assert np.array_equal(open_labelled_dicom(path).read_image(0, 48), make_phantom(0, TINY).image)


def test_an_older_versions_phantoms_are_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = write_phantoms(tmp_path, 1, TINY, progress=False)
    before = path.read_bytes()
    monkeypatch.setattr(phantom_module, "PHANTOM_VERSION", phantom_module.PHANTOM_VERSION + 1)
    write_phantoms(tmp_path, 1, TINY, progress=False)
    assert path.read_bytes() != before


def test_a_failed_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(phantom: Phantom) -> object:
        yield next(phantom_slabs(phantom))
        raise KeyboardInterrupt

    monkeypatch.setattr(phantom_module, "phantom_slabs", broken)
    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path / "phantom_000.dcm", 0, TINY)
    assert list(tmp_path.iterdir()) == []


def test_processes_make_the_same_phantoms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phantom_module, "SERIAL_VOXELS", 0)
    monkeypatch.setattr(phantom_module, "usable_cores", lambda: 2)
    paths = write_phantoms(tmp_path, 2, TINY, progress=False)
    for seed, path in enumerate(paths):
        made = make_phantom(seed, TINY)
        assert np.array_equal(open_labelled_dicom(path).read_image(0, 48), made.image)


def test_the_skeleton_has_what_could_be_mistaken_for_a_jaw() -> None:
    # As dense as the jaw, and more of it: without distractors brightness would be enough.
    bones = skeleton(draw_phantom(0).fish)
    length = np.linalg.norm(bones.end_mm - bones.start_mm, axis=1)
    dense = bones.density >= np.median(bones.density[bones.label > 0])
    thick = bones.start_radius_mm >= 0.6 * np.median(bones.start_radius_mm[bones.label > 0])
    assert length[dense & thick & (bones.label == 0)].sum() > 3 * length[bones.label > 0].sum()
