"""A file appears whole or not at all, and a killed process's temporary file is recognised."""

from pathlib import Path

import pytest

from jawloc.scans.atomic import atomic_path, target_of_temporary


def test_a_file_is_replaced_once_it_is_complete(tmp_path):
    path = tmp_path / "crop.nii.gz"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text(encoding="utf-8") == "old"
        assert temporary.parent == path.parent
        assert temporary.name.endswith(".nii.gz") and temporary.name.startswith(".")
        assert target_of_temporary(temporary) == path
    assert path.read_text(encoding="utf-8") == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.dcm"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "target"),
    [
        (".4711-0123abcd.part.a.dcm", "a.dcm"),
        (".a.dcm.4711-0123abcd.part", "a.dcm"),  # of 0.1.0, like the next two
        (".model.pth.4711.tmp", "model.pth"),
        (".losses.png.4711.part", "losses.png"),
        ("a.dcm", None),
        (".a.dcm", None),
        (".part.a.dcm", None),
        ("4711-0123abcd.part.a.dcm", None),
    ],
)
def test_temporary_files_name_their_target(name, target):
    expected = None if target is None else Path("folder", target)
    assert target_of_temporary(Path("folder", name)) == expected
