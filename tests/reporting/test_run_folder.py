"""The run's folder: its name, and what is left of it when a run ends early."""

import pytest

from jawloc.errors import InputError
from jawloc.reporting.run_folder import CHECKPOINT, output_folder, run_folder


@pytest.mark.parametrize(
    "name", ["locator", "X", "blue 2", "a.b", "lr=1e-3+aug", "_1", "2026-11-23"]
)
def test_plain_names_are_folders_below_script_output(tmp_path, name):
    folder = output_folder(tmp_path, name, overwrite=False, resume=False)
    assert folder == tmp_path / "script_output" / "jaw_location" / name
    assert not folder.exists()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/x", "a\\b", "C:x", ".x", "x.", "x "]
)
@pytest.mark.parametrize("way", ["new", "overwrite", "resume"])
def test_other_names_are_refused_whatever_is_asked(tmp_path, name, way):
    with pytest.raises(InputError, match=r"^--model-name: a model's name is a folder's name"):
        output_folder(tmp_path, name, overwrite=way == "overwrite", resume=way == "resume")


def test_a_taken_name_can_be_overwritten_or_gone_on_with(tmp_path):
    folder = output_folder(tmp_path, "x", overwrite=False, resume=False)
    folder.mkdir(parents=True)
    with pytest.raises(InputError, match="'x' is taken"):
        output_folder(tmp_path, "x", overwrite=False, resume=False)
    assert output_folder(tmp_path, "x", overwrite=True, resume=False) == folder
    with pytest.raises(InputError, match="holds no interrupted run"):
        output_folder(tmp_path, "x", overwrite=False, resume=True)
    (folder / CHECKPOINT).touch()
    assert output_folder(tmp_path, "x", overwrite=False, resume=True) == folder


def test_a_new_run_clears_jawlocs_files_and_a_resumed_one_keeps_them(tmp_path):
    for name in ("old.pth", "losses.png", "metrics.csv", "config.yml", "notes.txt"):
        (tmp_path / name).touch()
    with run_folder(tmp_path, keep=True):
        assert len(list(tmp_path.iterdir())) == 5
    with run_folder(tmp_path, keep=False):
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_a_run_that_ends_before_its_first_epoch_leaves_nothing(tmp_path, error):
    folder = tmp_path / "script_output" / "x"
    with pytest.raises(error), run_folder(folder, keep=False):
        (folder / "config.yml").touch()
        (folder / "train_heatmap_example.png").touch()
        raise error
    assert not folder.exists()

    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "notes.txt").touch()
    with pytest.raises(error), run_folder(tmp_path / "y", keep=False):
        raise error
    assert [path.name for path in (tmp_path / "y").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_run_that_can_be_gone_on_with_keeps_its_files(tmp_path, error):
    with pytest.raises(error), run_folder(tmp_path / "x", keep=False):
        for name in (CHECKPOINT, "config.yml"):
            (tmp_path / "x" / name).touch()
        raise error
    assert {path.name for path in (tmp_path / "x").iterdir()} == {CHECKPOINT, "config.yml"}


def test_an_interruption_says_how_to_go_on(tmp_path):
    with pytest.raises(KeyboardInterrupt, match="--resume"), run_folder(tmp_path / "x", keep=False):
        (tmp_path / "x" / CHECKPOINT).touch()
        raise KeyboardInterrupt
    nothing = pytest.raises(KeyboardInterrupt, match="nothing is kept")
    with nothing, run_folder(tmp_path / "y", keep=False):
        raise KeyboardInterrupt
    # another error keeps its own words
    with pytest.raises(RuntimeError, match=r"^own$"), run_folder(tmp_path / "z", keep=False):
        raise RuntimeError("own")
