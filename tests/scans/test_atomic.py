"""A file appears whole or not at all, and a killed process's temporary file is recognised."""

import errno
from pathlib import Path

import pytest

from jawloc.errors import DiskFullError
from jawloc.scans import atomic
from jawloc.scans.atomic import atomic_path, target_of_temporary, with_room


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


@pytest.mark.parametrize("letter", ["f", "\xe4"])
@pytest.mark.parametrize("ending", [".dcm", ".nii.gz"])
def test_a_file_may_have_the_longest_name_that_a_disk_takes(tmp_path, letter, ending):
    """Regression: its temporary file's name was too long."""
    name = letter * ((255 - len(ending)) // len(letter.encode())) + ending
    others = {with_room(f"{name[:-8]}{n}{ending}") for n in range(9)}
    assert len(others) == 9 and max(len(other.encode()) for other in others) <= 232
    with atomic_path(tmp_path / name) as temporary:
        temporary.write_text("new")
        assert temporary.name.endswith(ending)
        assert target_of_temporary(temporary) == tmp_path / with_room(name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("error", "free"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 10_000),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 10_000),
        (OSError("8000 requested and 0 written"), 4000),  # as NumPy's tofile
        (RuntimeError("PytorchStreamWriter failed writing file"), 4000),
    ],
    ids=["full", "quota", "numpy", "torch"],
)
def test_a_full_disk_is_told_with_the_folder_and_the_bytes(tmp_path, monkeypatch, error, free):
    """Regression: 'No space left on device', of no file, or a traceback of a library's own."""
    monkeypatch.setattr(atomic, "free_bytes", lambda _: free)
    path = tmp_path / "a.pt"
    path.write_text("the last one")
    with pytest.raises(DiskFullError) as caught, atomic_path(path, 2_500_000) as temporary:
        temporary.write_text("half")
        raise error
    assert str(caught.value) == (
        f"{tmp_path}: the disk is full; a.pt needs 2.5 MB, and {free} bytes are free"
    )
    assert caught.value.errno == errno.ENOSPC
    assert path.read_text(encoding="utf-8") == "the last one"
    assert list(tmp_path.iterdir()) == [path]


def test_without_a_known_size_it_is_that_of_the_earlier_file(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(bytes(5000))
    with pytest.raises(DiskFullError, match=r"a\.pt needs 5000 bytes"), atomic_path(path):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_other_errors_stay_as_they_are(tmp_path):
    error = RuntimeError("something else")
    with pytest.raises(RuntimeError, match="something else") as caught, atomic_path(tmp_path / "a"):
        raise error
    assert caught.value is error
