"""The list of the files that jawloc wrote into a folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jawloc.errors import DiskFullError
from jawloc.geometry import Grid
from jawloc.inference.crop import crop_box_around
from jawloc.inference.crop_files import write_crop
from jawloc.reporting.figures import Figure, save_figure
from jawloc.reporting.text_files import write_text
from jawloc.scans.manifest import (
    MANIFEST,
    forget_files,
    record_file,
    start_manifest,
    written_files,
)
from jawloc.scans.scan import ScanFile
from jawloc.training.checkpoint import save_atomically

ROOT = Path(__file__).parents[2]


def write_small_crop(path):
    crop = np.zeros((4, 4, 4), np.uint16)
    grid = Grid(crop.shape)
    scan = ScanFile("a", Path("a.tif"), grid, crop.dtype, lambda a, b: crop[a:b], None)
    write_crop(path, crop, crop_box_around((2, 2, 2), (4, 4, 4), crop.shape), scan)


WRITERS = {
    "text.csv": lambda path: write_text(path, "x"),
    "picture.png": lambda path: save_figure(Figure(figsize=(1, 1)), path),
    "weights.pth": lambda path: save_atomically({"a": 1}, path),
    "crop.tif": write_small_crop,
    "crop.dcm": write_small_crop,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_on_the_list_before_it_appears(tmp_path, name, monkeypatch):
    start_manifest(tmp_path)
    listed = []
    replace = Path.replace

    def replacing(self, target):
        listed.append(written_files(tmp_path))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replacing)
    WRITERS[name](tmp_path / name)
    assert (tmp_path / name).is_file()
    assert listed == [{name}]


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_without_a_list_gets_none(tmp_path, name):
    WRITERS[name](tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert written_files(tmp_path) is None


def test_a_file_in_a_folder_below_is_on_the_nearest_list(tmp_path):
    for folder in (tmp_path / "imgs", tmp_path / "fold_1", tmp_path / "a" / "b"):
        folder.mkdir(parents=True)
    start_manifest(tmp_path)
    start_manifest(tmp_path / "fold_1")
    for path in ("imgs/a.tif", "fold_1/a.png", "a/b/c.png", "odd \udcff\n'name.png"):
        record_file(tmp_path / path)
    assert written_files(tmp_path) == {"imgs/a.tif", "odd \udcff\n'name.png"}
    assert written_files(tmp_path / "fold_1") == {"a.png"}


def test_several_processes_may_add_to_one_list(tmp_path):
    start_manifest(tmp_path)
    script = (
        "import sys; from pathlib import Path; from jawloc.scans.manifest import record_file\n"
        "for n in range(300): record_file(Path(sys.argv[1], f'{sys.argv[2]}_{n}'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen([sys.executable, "-c", script, tmp_path, str(k)], env=environment)
        for k in range(4)
    ]
    assert [process.wait() for process in processes] == [0] * 4
    assert written_files(tmp_path) == {f"{k}_{n}" for k in range(4) for n in range(300)}


def test_a_name_counts_only_while_its_file_is_there(tmp_path):
    (tmp_path / "kept.png").touch()
    start_manifest(tmp_path, ["gone.png", "kept.png"])
    for name in ("later.png", "never.png"):
        record_file(tmp_path / name)
    (tmp_path / "later.png").touch()
    start_manifest(tmp_path)
    assert written_files(tmp_path) == {"kept.png", "later.png"}
    forget_files(tmp_path, ["later.png"])
    assert written_files(tmp_path) == {"kept.png"}
    assert {path.name for path in tmp_path.iterdir()} == {MANIFEST, "kept.png", "later.png"}


def test_torn_and_foreign_lines_name_nothing(tmp_path):
    outside = ["../a", "/etc/passwd", "a/../../b", "..", "", ".", "a/b/c", "..\\a", MANIFEST]
    lines = ["# header", '"torn', "[1]", "null", *(f'"{name}"' for name in outside), '"good.png"']
    (tmp_path / MANIFEST).write_text("\n".join(lines).replace("\\", "\\\\") + '\n"torn')
    assert written_files(tmp_path) == {"good.png"}
    record_file(tmp_path / "next.png")
    assert written_files(tmp_path) == {"good.png", "next.png"}


def test_a_list_that_is_a_link_is_neither_read_nor_written(tmp_path):
    """Regression: names were appended to whatever file a link of the list's name led to."""
    other = tmp_path / "other"
    other.write_text('"a.csv"\n', encoding="utf-8")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MANIFEST).symlink_to(other)
    (tmp_path / "out" / "a.csv").touch()
    assert written_files(tmp_path / "out") is None
    record_file(tmp_path / "out" / "b.csv")
    assert other.read_text(encoding="utf-8") == '"a.csv"\n'
    start_manifest(tmp_path / "out")
    assert not (tmp_path / "out" / MANIFEST).is_symlink()
    assert other.read_text(encoding="utf-8") == '"a.csv"\n'


def test_files_behind_a_link_are_not_on_the_list(tmp_path):
    """Regression: a user's file in a folder that `imgs` had become a link to was removed."""
    (tmp_path / "out" / "imgs").mkdir(parents=True)
    start_manifest(tmp_path / "out")
    write_text(tmp_path / "out" / "imgs" / "a.tif", "crop")
    write_text(tmp_path / "out" / "b.csv", "table")
    assert written_files(tmp_path / "out") == {"imgs/a.tif", "b.csv"}
    (tmp_path / "out" / "imgs").rename(tmp_path / "elsewhere")
    (tmp_path / "out" / "imgs").symlink_to(tmp_path / "elsewhere")
    assert written_files(tmp_path / "out") == {"b.csv"}


def test_a_name_that_a_full_disk_cuts_off_is_told(tmp_path, monkeypatch):
    """Regression: it was lost without a word, and the file was then taken for a user's."""
    start_manifest(tmp_path)
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, line: write(file, line[:4]))
        with pytest.raises(DiskFullError, match=rf"^{re.escape(str(tmp_path))}: the disk is full"):
            record_file(tmp_path / "a.png")
    record_file(tmp_path / "b.png")
    assert written_files(tmp_path) == {"b.png"}
