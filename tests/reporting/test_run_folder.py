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


def test_an_overwritten_run_loses_jawlocs_files_only_and_a_resumed_one_keeps_them(tmp_path):
    folder = tmp_path / "x"
    folder.mkdir()
    foreign = {"notes.txt", "paper.png", "other.pth"}
    for name in ("x.pth", "losses.png", "heatmap_epoch_3_sigma_4.80.png", "config.yml", *foreign):
        (folder / name).touch()
    with run_folder(folder, overwrite=False, resume=True):
        assert len(list(folder.iterdir())) == 7
    with run_folder(folder, overwrite=True, resume=False):
        assert {path.name for path in folder.iterdir() if path.is_file()} == foreign
    assert {path.name for path in folder.iterdir()} == foreign


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_was_to_be_overwritten_comes_back_if_no_epoch_is_finished(tmp_path, error):
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "x.pth").write_text("old model")
    with pytest.raises(error), run_folder(folder, overwrite=True, resume=False):
        (folder / "config.yml").touch()
        raise error
    assert [path.name for path in folder.iterdir()] == ["x.pth"]
    assert (folder / "x.pth").read_text() == "old model"


def test_a_name_that_another_run_took_meanwhile_is_refused_and_left_alone(tmp_path):
    folder = output_folder(tmp_path, "x", overwrite=False, resume=False)
    folder.mkdir(parents=True)  # by the other run, while this one built the cache
    (folder / CHECKPOINT).touch()
    refused = pytest.raises(InputError, match="'x' is taken")
    with refused, run_folder(folder, overwrite=False, resume=False):
        pytest.fail("the other run's folder was taken over")
    assert (folder / CHECKPOINT).exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_a_run_that_ends_before_its_first_epoch_leaves_nothing(tmp_path, error):
    folder = tmp_path / "script_output" / "x"
    with pytest.raises(error), run_folder(folder, overwrite=True, resume=False):
        (folder / "config.yml").touch()
        (folder / "train_heatmap_example.png").touch()
        raise error
    assert not folder.exists()

    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "notes.txt").touch()
    with pytest.raises(error), run_folder(tmp_path / "y", overwrite=True, resume=False):
        raise error
    assert [path.name for path in (tmp_path / "y").iterdir()] == ["notes.txt"]


def test_the_folders_of_folds_are_replaced_and_brought_back_as_well(tmp_path):
    folder = tmp_path / "x"
    for number in (1, 2):
        (folder / f"fold_{number}").mkdir(parents=True)
        for name in (f"fold_{number}.pth", "losses.png"):
            (folder / f"fold_{number}" / name).write_text(name)
    (folder / "fold_2" / "notes.txt").write_text("mine")
    (folder / "fold_3").write_text("no folder")
    before = {path: path.is_file() and path.read_text() for path in folder.rglob("*")}
    with pytest.raises(RuntimeError), run_folder(folder, overwrite=True, resume=False):
        assert {path.name for path in folder.iterdir()} == {".replaced", "fold_2", "fold_3"}
        (folder / "fold_4").mkdir()
        (folder / "fold_4" / CHECKPOINT).touch()
        raise RuntimeError
    assert {path: path.is_file() and path.read_text() for path in folder.rglob("*")} == before
    with run_folder(folder, overwrite=True, resume=False):
        pass
    assert {path.name for path in folder.rglob("*")} == {"fold_2", "notes.txt", "fold_3"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_run_that_can_be_gone_on_with_keeps_its_files(tmp_path, error):
    with pytest.raises(error), run_folder(tmp_path / "x", overwrite=True, resume=False):
        for name in (CHECKPOINT, "config.yml"):
            (tmp_path / "x" / name).touch()
        raise error
    assert {path.name for path in (tmp_path / "x").iterdir()} == {CHECKPOINT, "config.yml"}


def test_an_interruption_says_how_to_go_on(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt, match="--resume"),
        run_folder(tmp_path / "x", overwrite=True, resume=False),
    ):
        (tmp_path / "x" / CHECKPOINT).touch()
        raise KeyboardInterrupt
    nothing = pytest.raises(KeyboardInterrupt, match="nothing is kept")
    with nothing, run_folder(tmp_path / "y", overwrite=True, resume=False):
        raise KeyboardInterrupt
    # another error keeps its own words
    with (
        pytest.raises(RuntimeError, match=r"^own$"),
        run_folder(tmp_path / "z", overwrite=True, resume=False),
    ):
        raise RuntimeError("own")
