"""What a user names -> scans: each once, and each with a name that no other has."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from jawloc.errors import InputError
from jawloc.geometry import Grid
from jawloc.scans.dicom import write_labelled_dicom
from jawloc.scans.listing import list_scans
from jawloc.scans.pairs import find_scans_in
from jawloc.scans.reading import open_scan
from tests.scans.test_placement import volume, write_series

VOLUME, SLICE = np.zeros((3, 9, 8), np.uint16), np.zeros((9, 8), np.uint16)


def write_tiff(path: Path, values: np.ndarray = VOLUME) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, values, photometric="minisblack")


def names_of(*named: Path, **how) -> list[str]:
    return [scan.name for scan in list_scans(named, **how)]


# --- files, folders, lists -----------------------------------------------------------


def test_files_are_listed_once_in_their_order_whether_or_not_they_are_there(tmp_path):
    for name in ("b.tif", "a.nii.gz"):
        (tmp_path / name).touch()
    places = [tmp_path / name for name in ("b.tif", "gone.dcm", "a.nii.gz", "b.tif")]
    assert names_of(*places) == ["b", "gone", "a"]
    listed = list_scans(places[:1])
    assert listed[0].path == tmp_path / "b.tif"


def test_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tiff(Path("a.tif"))
    assert list_scans([Path("a.tif")])[0].path == tmp_path / "a.tif"


def test_a_folder_of_2d_tiffs_is_one_scan_and_one_of_volumes_is_many(tmp_path):
    for n in (1, 2, 10):
        write_tiff(tmp_path / "slices" / f"{n}.tif", SLICE)
        write_tiff(tmp_path / "volumes" / f"{n}.tif")
    assert names_of(tmp_path / "slices") == ["slices"]
    assert sorted(names_of(tmp_path / "volumes")) == ["1", "10", "2"]


def write_slices(folder: Path, name: str, number: int = 4) -> Path:
    for n in range(number):
        write_tiff(folder / f"{name}{n:08d}.tif", SLICE + n)
    return folder


@pytest.mark.parametrize("inside", ["fish_Rec", "FISH_REC", "slices"])
def test_projections_are_no_scan_beside_what_was_reconstructed_of_them(tmp_path, inside):
    """Regression: SkyScan's raw projections were read as the scan, and its slices were ignored."""
    fish = write_slices(tmp_path / "scans" / "fish", "fish")
    slices = write_slices(fish / inside, "fish_rec" if inside == "slices" else "fish")
    said = f"fish: its pictures are projections, and are left out; .* is in {inside}$"
    for place in (fish, tmp_path):
        with pytest.warns(UserWarning, match=said):
            assert [scan.path for scan in list_scans([place])] == [slices]
    with pytest.warns(UserWarning, match=said):
        assert find_scans_in(tmp_path / "scans", "images") == [slices]
    with pytest.raises(InputError, match=rf"^fish: .*these are projections, .* is in {inside}$"):
        open_scan(fish)
    assert open_scan(slices).grid.shape_zyx == (4, 9, 8)


def test_an_empty_folder_of_that_name_hides_no_scan(tmp_path):
    """Regression: the name alone counted, and there was no scan any more."""
    fish = write_slices(tmp_path / "fish", "fish")
    (fish / "old_rec").mkdir()
    assert names_of(tmp_path) == ["fish"]
    assert open_scan(fish).grid.shape_zyx == (4, 9, 8)


def test_the_log_of_an_acquisition_tells_that_pictures_are_projections(tmp_path):
    fish = write_slices(tmp_path / "fish", "fish")
    (fish / "fish.log").write_text("[System]\n[Acquisition]\nImage Pixel Size (um)=21\n")
    with pytest.warns(UserWarning, match=r"^fish: its pictures may be projections .*fish\.log"):
        open_scan(fish)
    slices = write_slices(fish / "volume", "slice")
    with pytest.warns(UserWarning, match="fish: its pictures are projections"):
        assert [scan.path for scan in list_scans([fish])] == [slices]
    with (fish / "fish.log").open("a") as log:
        log.write("[Reconstruction]\n")
    with pytest.warns(UserWarning, match="those in volume are left out"):
        assert [scan.path for scan in list_scans([fish])] == [fish]


def test_folders_beside_slices_are_left_out_with_a_line(tmp_path):
    fish = write_slices(tmp_path / "fish", "fish_rec")
    write_slices(fish / "previews", "fish")
    with pytest.warns(UserWarning, match="^fish: its pictures are one scan; those in previews are"):
        assert names_of(tmp_path) == ["fish"]
    assert open_scan(fish).grid.shape_zyx == (4, 9, 8)


def test_a_single_picture_does_not_hide_the_folders_beside_it(tmp_path):
    """Regression: an overview.png was taken for the scan, in which nothing else was looked for."""
    folders = [write_slices(tmp_path / name, "slice") for name in "ab"]
    Image.fromarray(SLICE.astype(np.uint8)).save(tmp_path / "overview.png")
    said = "^overview.png: a single picture is no scan, and is left out"
    with pytest.warns(UserWarning, match=said):
        assert names_of(tmp_path) == ["a", "b"]
    with pytest.warns(UserWarning, match=said):
        assert find_scans_in(tmp_path, "images") == folders


def test_a_dicom_series_is_one_scan_and_multi_frame_files_are_many(tmp_path):
    write_series(tmp_path / "series", volume())
    (tmp_path / "files").mkdir()
    for name in ("a.dcm", "b.dcm"):
        write_labelled_dicom(tmp_path / "files" / name, VOLUME, VOLUME, Grid(VOLUME.shape))
    assert names_of(tmp_path / "series") == ["series"]
    assert names_of(tmp_path / "files") == ["a", "b"]


def test_a_series_without_endings_is_one_scan(tmp_path):
    write_series(tmp_path / "series", volume())
    for path in (tmp_path / "series").iterdir():
        path.rename(path.with_suffix(""))
    assert names_of(tmp_path / "series") == ["series"]


def test_a_folder_is_searched_at_every_depth(tmp_path):
    write_tiff(tmp_path / "all" / "a.tif")
    write_tiff(tmp_path / "all" / "deep" / "er" / "b.tif")
    write_tiff(tmp_path / "all" / ".hidden" / "c.tif")
    write_series(tmp_path / "all" / "fish", volume())
    (tmp_path / "all" / "notes.txt").touch()
    (tmp_path / "all" / "circle").symlink_to(tmp_path / "all")
    assert names_of(tmp_path / "all") == ["a", "b", "fish"]


def test_the_folder_of_results_is_not_searched(tmp_path):
    write_tiff(tmp_path / "a.tif")
    write_tiff(tmp_path / "out" / "imgs" / "a.tif")
    assert names_of(tmp_path, exclude=tmp_path / "out") == ["a"]


def test_a_damaged_file_among_volumes_is_a_scan_of_its_own(tmp_path):
    write_tiff(tmp_path / "b.tif")
    (tmp_path / "a.tif").write_bytes(b"junk")
    assert names_of(tmp_path) == ["a", "b"]


def test_a_list_has_comments_and_paths_relative_to_itself(tmp_path, monkeypatch):
    for name in ("a.tif", "sub/b c.tif", "sub/d #2.tif", "e.tif"):
        write_tiff(tmp_path / "data" / name)
    write_tiff(tmp_path / "here" / "f.tif")
    (tmp_path / "data" / "scans.txt").write_text(
        "\ufeff# the first batch\n\n  a.tif   # the best one\nsub/b c.tif\nsub/d #2.tif\r\n"
        f"{tmp_path}/data/e.tif\n   # gone.tif\nf.tif\nmissing.tif # since May\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path / "here")
    expected = ["a", "b c", "d #2", "e", "f", "missing"]
    assert names_of(tmp_path / "data" / "scans.txt") == expected


def test_quotation_marks_round_a_listed_path_are_no_part_of_it(tmp_path):
    """Regression: Windows copies a path with them, and such a scan was not found."""
    for name in ("a b.tif", "c #1.tif", "d.tif", "'e'.tif"):
        write_tiff(tmp_path / name)
    lines = ['"a b.tif"  # best', "'c #1.tif'", f'"{tmp_path}/d.tif"', "'e'.tif", '""', '"f g.tif"']
    (tmp_path / "scans.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert names_of(tmp_path / "scans.txt") == ["a b", "c #1", "d", "'e'", "f g"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "must be readable; No such file"),
        (b"", "must name at least one scan"),
        (b"# a.tif\n\n   \n", "must name at least one scan"),
        (b"\xff\xfe\x00a", "must be text"),
    ],
)
def test_a_bad_list_is_refused(tmp_path, content, said):
    if content is not None:
        (tmp_path / "scans.txt").write_bytes(content)
    with pytest.raises(InputError, match=f"scans.txt: a list (of scans )?{said}"):
        list_scans([tmp_path / "scans.txt"])


def test_a_list_that_is_a_pipe_or_larger_than_any_list_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(
        InputError, match=r"pipe\.txt: a list of scans must be a file; it is a pipe"
    ):
        list_scans([tmp_path / "pipe.txt"])
    (tmp_path / "scan.txt").touch()
    os.truncate(tmp_path / "scan.txt", 3 * 2**30)  # takes no place on the disk
    with pytest.raises(InputError, match=r"scan\.txt: .*at most 8\.4 MB; this file has 3221\.2 MB"):
        list_scans([tmp_path / "scan.txt"])


def test_a_link_to_itself_is_listed_so_that_it_fails_by_itself(tmp_path):
    write_tiff(tmp_path / "a.tif")
    (tmp_path / "b.tif").symlink_to("b.tif")
    assert names_of(tmp_path / "a.tif", tmp_path / "b.tif") == ["a", "b"]
    with pytest.raises(InputError, match=r"^b\.tif: "):
        open_scan(tmp_path / "b.tif")


def test_a_folder_without_scans_is_refused(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="a folder of scans must hold at least one; it has none"):
        list_scans([tmp_path])
    with pytest.raises(InputError, match="at least one scan"):
        list_scans([])
    (tmp_path / "scans.txt").write_text("sub\n")  # among others it is one that will fail
    assert names_of(tmp_path / "scans.txt") == ["sub"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_may_not_be_read_is_listed_so_that_it_fails_by_itself(tmp_path):
    write_tiff(tmp_path / "a.tif")
    (tmp_path / "locked").mkdir(mode=0)
    assert names_of(tmp_path) == ["a", "locked"]


# --- names ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/x.tif", "b/y.tif"], ["x", "y"]),
        (["a/x.tif", "b/x.tif"], ["a_x", "b_x"]),
        (["a/x.tif", "b/X.tif"], ["a_x", "b_X"]),  # one file on many a disk
        (["a/x.tif", "a/x.nii.gz"], ["x_tif", "x_nii_gz"]),
        (["1/a/x.tif", "2/a/x.tif", "2/b/x.tif"], ["1_a_x", "2_a_x", "b_x"]),
        (["a/x.tif", "b/x.tif", "c/a_x.tif"], ["parent_a_x", "b_x", "a_x"]),
    ],
)
def test_scans_of_one_name_are_told_apart_by_their_folders(tmp_path, paths, names):
    places = [tmp_path / "parent" / path for path in paths]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    assert names_of(*places) == names


def test_names_that_were_given_before_stay_and_are_not_given_again(tmp_path):
    a, b = tmp_path / "a" / "x.tif", tmp_path / "b" / "x.tif"
    assert names_of(a, b, known={a: "x"}) == ["x", "b_x"]
    assert names_of(a, b, known={a: "a_x"}) == ["a_x", "b_x"]  # as without
    assert names_of(b, known={a: "a_x"}) == ["x"]
    assert names_of(b, known={a: "x", tmp_path / "c.tif": "b_x"}) != ["b_x"]


def test_a_very_long_name_leaves_room_for_endings_and_stays_unique(tmp_path):
    """Regression: the results of a scan with a name of 230 bytes could not be written."""
    places = [tmp_path / folder / f"{'鱼' * 76}.tif" for folder in "ab"]
    names = names_of(*places)
    assert [len(name.encode()) <= 180 for name in names] == [True, True]
    assert [name.partition("~")[0] for name in names] == [f"a_{'鱼' * 56}", f"b_{'鱼' * 56}"]
    assert len(set(names)) == 2
    assert names_of(*places[::-1]) == names[::-1]  # the same each time
    assert names_of(places[0], known={places[0]: "鱼" * 76}) == ["鱼" * 76]
    assert names_of(tmp_path / f"{'f' * 180}.tif") == ["f" * 180]


def test_a_home_folder_of_nobody_is_listed_like_a_missing_file(tmp_path):
    (tmp_path / "list.txt").write_text("~nobody_at_all.tif\n")
    assert names_of(tmp_path / "list.txt") == ["~nobody_at_all"]


def test_a_known_scan_named_by_another_way_keeps_its_name(tmp_path):
    write_tiff(tmp_path / "a" / "fish.tif")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    known = {tmp_path / "a" / "fish.tif": "my_fish"}
    assert names_of(tmp_path / "link" / "fish.tif", known=known) == ["my_fish"]
