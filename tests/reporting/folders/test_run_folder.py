"""The run's folder: its name, and what is left of it when a run ends early."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jawloc.errors import DiskFullError, InputError
from jawloc.reporting.folders.own_files import own_run_names
from jawloc.reporting.folders.run_folder import (
    CHECKPOINT,
    OUTPUT_FOLDER,
    is_finished,
    lock_path,
    locked_output_folder,
    locked_run_folder,
    output_folder,
    run_folder,
    with_unsent,
)
from jawloc.reporting.text_files import write_text
from jawloc.scans.manifest import MANIFEST, record_file, start_manifest, written_files
from tests.lab import files_below


def visible(folder):
    """Return what is in a folder, but for what jawloc keeps there for itself."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def write(folder, *names):
    for name in names:
        folder.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        write_text(folder / name, f"{name} of a run")


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


def killed_in(folder, *names, writing):
    """Leave a run's folder as a process does that is killed while it writes its last file."""
    run = run_folder(folder, overwrite=True, resume=False)
    run.__enter__()
    write(folder, *names)
    record_file(folder / writing)
    torn = (folder / writing).with_name(f".7-0123abcd.part.{Path(writing).name}")
    torn.write_text("torn")
    return run, torn  # the run must not be collected: that would end it


def locked(base, **how):
    how = {"overwrite": False, "resume": False} | how
    return locked_run_folder(base, "x", ["jaw"], **how)


@pytest.mark.parametrize("resume", [False, True])
def test_of_a_run_killed_before_its_first_checkpoint_the_name_is_free(tmp_path, resume):
    """Regression: it was taken, and yet held 'no interrupted run'."""
    folder = tmp_path / OUTPUT_FOLDER / "x"
    killed = killed_in(folder, "config.yml", writing=CHECKPOINT)
    with locked(tmp_path, resume=resume):
        assert not folder.exists()
    folder.mkdir(parents=True)  # or the end of the "killed" run would complain
    del killed


def test_of_a_run_killed_while_it_wrote_only_the_checkpoint_stays(tmp_path):
    folder = tmp_path / OUTPUT_FOLDER / "x"
    kept = {CHECKPOINT, f"fold_1/{CHECKPOINT}", "config.yml"}
    killed, torn = killed_in(folder, *kept, writing="metrics.csv")
    start_manifest(folder / "fold_1", [CHECKPOINT])
    killed_too, torn_too = killed_in(folder / "fold_1", CHECKPOINT, writing=CHECKPOINT)
    foreign = folder / ".7-0123abcd.part.notes.txt"
    foreign.touch()
    with locked(tmp_path, resume=True):
        names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        assert not torn.exists()
        assert not torn_too.exists()
        assert foreign.exists()
    assert kept <= names
    del killed, killed_too


@pytest.mark.parametrize("name", ["locations.csv", "pictures/a.png", ".jawloc-files"])
def test_what_a_killed_process_had_begun_to_write_into_an_output_folder_goes(tmp_path, name):
    """Regression: `jawloc locate` left hidden files there, for good."""
    folder = tmp_path / "out"
    (folder / "pictures").mkdir(parents=True)
    start_manifest(folder)
    record_file(folder / name)
    torn = (folder / name).with_name(f".7-0123abcd.part.{Path(name).name}")
    foreign = torn.with_name(".7-0123abcd.part.mine.csv")
    torn.touch()
    foreign.touch()
    with locked_output_folder(folder):
        assert foreign.exists()
        assert not torn.exists()


def test_a_run_that_is_over_can_be_resumed_since_its_process_may_have_been_killed_then(tmp_path):
    folder = tmp_path / OUTPUT_FOLDER / "x"
    folder.mkdir(parents=True)
    write(folder, "x.pth")
    with pytest.raises(InputError, match="holds no interrupted run"), locked(tmp_path, resume=True):
        pass
    write(folder, "summary.json")
    assert is_finished(folder)
    with locked(tmp_path, resume=True):
        assert (folder / "x.pth").is_file()
    with pytest.raises(InputError, match="'x' is taken"), locked(tmp_path):
        pass


def test_an_overwritten_run_loses_jawlocs_files_only_and_a_resumed_one_keeps_them(tmp_path):
    folder = tmp_path / "x"
    folder.mkdir()
    foreign = {"notes.txt", "paper.png", "other.pth"}
    for name in ("x.pth", "losses.png", "heatmap_epoch_3_sigma_4.80.png", "config.yml", *foreign):
        (folder / name).touch()
    with run_folder(folder, overwrite=False, resume=True):
        assert len(visible(folder)) == 7
    with run_folder(folder, overwrite=True, resume=False):
        assert visible(folder) == foreign
    assert visible(folder) == foreign


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_was_to_be_overwritten_comes_back_if_no_epoch_is_finished(tmp_path, error):
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "x.pth").write_text("old model")
    with pytest.raises(error), run_folder(folder, overwrite=True, resume=False):
        write(folder, "config.yml")
        raise error
    assert [path.name for path in folder.iterdir()] == ["x.pth"]
    assert (folder / "x.pth").read_text(encoding="utf-8") == "old model"


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
        write(folder, "config.yml", "train_heatmap_example.png")
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
    before = {
        path: path.is_file() and path.read_text(encoding="utf-8") for path in folder.rglob("*")
    }
    with pytest.raises(RuntimeError), run_folder(folder, overwrite=True, resume=False):
        assert visible(folder) == {"fold_2", "fold_3"}
        with run_folder(folder / "fold_4", overwrite=True, resume=False):
            write(folder / "fold_4", CHECKPOINT)
        raise RuntimeError
    assert {
        path: path.is_file() and path.read_text(encoding="utf-8") for path in folder.rglob("*")
    } == before
    with run_folder(folder, overwrite=True, resume=False):
        pass
    assert {p.name for p in folder.rglob("*")} == {MANIFEST, "fold_2", "notes.txt", "fold_3"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_run_that_can_be_gone_on_with_keeps_its_files(tmp_path, error):
    with pytest.raises(error), run_folder(tmp_path / "x", overwrite=True, resume=False):
        write(tmp_path / "x", CHECKPOINT, "config.yml")
        raise error
    assert visible(tmp_path / "x") == {CHECKPOINT, "config.yml"}


@pytest.mark.parametrize("whole_epoch", [True, False])
def test_a_full_disk_says_how_to_go_on(tmp_path, whole_epoch):
    """Regression: 'No space left on device', of no file, and nothing about what is kept."""
    folder = output_folder(tmp_path, "a", overwrite=False, resume=False)
    error = DiskFullError(folder / CHECKPOINT, 2_500_000, 0)
    with (
        pytest.raises(OSError, match="the disk is full") as caught,
        run_folder(folder, overwrite=False, resume=False),
        run_folder(folder / "fold_1", overwrite=True, resume=False),
    ):
        if whole_epoch:
            write(folder, CHECKPOINT, f"fold_1/{CHECKPOINT}")
        raise error
    going_on = "the same command with --resume goes on from its last checkpoint"
    expected = f"{error}; once that is settled, {going_on}" if whole_epoch else str(error)
    assert str(caught.value) == expected


@pytest.mark.parametrize("name", ["unsent.jsonl", "fold_2/unsent.jsonl"])
def test_a_run_that_is_over_can_be_resumed_while_its_log_waits(tmp_path, name):
    folder = tmp_path / OUTPUT_FOLDER / "a"
    (folder / "fold_2").mkdir(parents=True)
    with pytest.raises(InputError, match="no interrupted run"):
        output_folder(tmp_path, "a", overwrite=False, resume=True)
    (folder / name).touch()
    assert output_folder(tmp_path, "a", overwrite=False, resume=True) == folder
    assert with_unsent(folder) == [(folder / name).parent]


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


# --- whose files they are ------------------------------------------------------------------------

FOREIGN = {
    *("bias_notes.png", "worst_case.png", "success_story.png", "trust_me.png", "worst_01_mine.png"),
    *("heatmap_epoch_mine_sigma_x.png", "heatmap_epoch_1_sigma_2.png", "test_heatmap_mine.png"),
    *("notes.txt", "other.pth", "fold_notes/losses.png", "fold_notes/config.yml", "fold_/a.txt"),
}
RUN = {
    *("x.pth", "losses.png", "heatmap_epoch_12_sigma_4.80.png", "config.yml", "test_heatmap.png"),
    *("truth_cropped_left.png", "out_of_fold.csv", "fold_1/fold_1.pth", "fold_1/losses.png"),
    *("fold_12/config.yml", "fold_12/heatmap_epoch_1_sigma_8.00.png"),
}
EVALUATION = {
    *("evaluation.json", "evaluation.csv", "evaluation.html", "success_left.png", "bias_left.png"),
    *("trust_left.png", "worst_01_fish_left.png", "worst_02_a b_left.png"),
}


def put(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"the user's or jawloc 0.1.0's {name}")


def write_evaluation_of_0_1_0(folder):
    put(folder, EVALUATION)
    rows = [
        {"rank": 1, "scan": "fish", "object": "left"},
        {"rank": 2, "scan": "a b", "object": "left"},
        {"scan": "failed", "status": "failed", "rank": None, "object": None},
    ]
    said = {"model": "x", "weights_sha256": "", "jawloc_version": "0.1.0", "rows": rows}
    (folder / "evaluation.json").write_text(json.dumps({**said, "objects": {"left": {}}}))


@pytest.fixture
def of_0_1_0(tmp_path):
    """A run with folds and an evaluation in the folder, all without a list, and a user's files."""
    folder = tmp_path / "x"
    put(folder, RUN | FOREIGN)
    (folder / "config.yml").write_text("jaw_loc_config: {objects: {left: [1], right: [2]}}")
    write_evaluation_of_0_1_0(folder)
    return folder


def test_of_a_run_without_a_list_only_what_0_1_0_certainly_wrote_is_replaced(of_0_1_0):
    before = files_below(of_0_1_0)
    with run_folder(of_0_1_0, overwrite=True, resume=False):
        now = {name for name in files_below(of_0_1_0) if not name.startswith(".")}
        assert now == FOREIGN
    after = files_below(of_0_1_0)
    assert after.pop(MANIFEST)
    assert after == {name: before[name] for name in FOREIGN}


def test_pictures_of_an_evaluation_are_a_users_where_jawloc_left_no_evaluation(of_0_1_0):
    (of_0_1_0 / "evaluation.json").write_text('{"model": "of another program", "rows": []}')
    with run_folder(of_0_1_0, overwrite=True, resume=False):
        pass
    assert files_below(of_0_1_0).keys() >= EVALUATION


@pytest.mark.parametrize("listed", [False, True])
def test_a_run_that_fails_at_once_brings_evaluation_list_and_folds_back(of_0_1_0, listed):
    if listed:
        for folder in (of_0_1_0, of_0_1_0 / "fold_1"):
            start_manifest(folder, own_run_names(folder))
    before = files_below(of_0_1_0)
    with pytest.raises(RuntimeError), run_folder(of_0_1_0, overwrite=True, resume=False):
        write(of_0_1_0, "x.pth", "config.yml", "bias.png", "fold_1/fold_1.pth")
        raise RuntimeError
    left = files_below(of_0_1_0)
    # a file that no list names stays, whoever wrote it
    assert left.pop("fold_1/fold_1.pth") == before.pop("fold_1/fold_1.pth")
    assert left == before


def test_a_runs_list_alone_counts_where_there_is_one(tmp_path):
    folder = tmp_path / "x"
    with run_folder(folder, overwrite=False, resume=False):
        write(folder, "x.pth", "new_kind.html", CHECKPOINT)
    put(folder, ["losses.png", "worst_01_fish.png"])  # by the user, later
    assert own_run_names(folder) == {"x.pth", "new_kind.html", CHECKPOINT}
    with run_folder(folder, overwrite=True, resume=False):
        assert visible(folder) == {"losses.png", "worst_01_fish.png"}
        assert own_run_names(folder) == set()


def test_what_was_located_into_a_runs_folder_stays(tmp_path):
    folder = tmp_path / "x"
    with run_folder(folder, overwrite=False, resume=False):
        write(folder, "x.pth")
    (folder / "imgs").mkdir()
    write(folder, "locations.csv", "imgs/fish.tif")
    with run_folder(folder, overwrite=True, resume=False):
        assert visible(folder) == {"locations.csv", "imgs"}
        assert written_files(folder) == {"locations.csv", "imgs/fish.tif"}
        assert own_run_names(folder) == set()
    assert (folder / "imgs" / "fish.tif").is_file()


# --- killed runs ---------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
import jawloc.reporting.folders.run_folder as run_folder
from jawloc.reporting.text_files import write_text
folder, when = Path(sys.argv[1]), sys.argv[2]
moved, replace = [], Path.replace

def replacing(self, target):
    if len(moved) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if "replac" in str(target) + str(self):
        moved.append(self)
    return replace(self, target)

if when == "moving away":
    Path.replace = replacing
try:
    with run_folder.run_folder(folder, overwrite=True, resume=False):
        for name in ("config.yml", "bias.png", *(["checkpoint.pt"] * (when == "later"))):
            write_text(folder / name, "new")
        if when == "moving back":
            Path.replace = replacing
            raise RuntimeError
        os.kill(os.getpid(), signal.SIGKILL)
finally:
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["moving away", "before an epoch", "moving back"])
def test_the_next_run_finds_the_model_that_a_killed_one_had_not_replaced_yet(tmp_path, when):
    folder = tmp_path / "script_output" / "jaw_location" / "x"
    with run_folder(folder, overwrite=False, resume=False):
        write(folder, "x.pth", "config.yml", "evaluation.json", "bias.png")
    put(folder, ["fold_1/notes.txt"])
    before = files_below(folder)
    killed(folder, when)
    assert files_below(folder) != before
    with pytest.raises(InputError, match="'x' is taken"), claim(tmp_path):
        pass
    assert files_below(folder) == before


def test_a_run_killed_after_an_epoch_can_be_gone_on_with(tmp_path):
    folder = tmp_path / "script_output" / "jaw_location" / "x"
    with run_folder(folder, overwrite=False, resume=False):
        write(folder, "x.pth", "losses.png")
    killed(folder, "later")
    with claim(tmp_path, resume=True) as claimed, run_folder(claimed, overwrite=False, resume=True):
        assert own_run_names(folder) == {"config.yml", "bias.png", CHECKPOINT}
        assert visible(folder) == {"config.yml", "bias.png", CHECKPOINT}


def test_a_name_is_free_whose_only_run_was_killed_before_an_epoch(tmp_path):
    folder = tmp_path / "script_output" / "jaw_location" / "x"
    killed(folder, "before an epoch")
    assert (folder / "config.yml").is_file()
    with claim(tmp_path):
        assert not folder.exists()


def killed(folder, when):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", KILLED, folder, when], env=environment)
    assert done.returncode == -9


# --- one run at a time, over no file of others ---------------------------------------------------


def claim(base, *, overwrite=False, resume=False, objects=("jaw",), folds=0):
    return locked_run_folder(base, "x", objects, overwrite=overwrite, resume=resume, folds=folds)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("losses.png", {}),
        ("heatmap_epoch_3_sigma_4.80.png", {}),
        ("test_heatmap_left.png", {"objects": ("left", "right")}),
        ("fold_2", {"folds": 2}),
        ("fold_1/fold_1.pth", {"folds": 2}),
    ],
    ids=str,
)
def test_a_file_that_a_run_would_overwrite_and_jawloc_did_not_write_is_refused(tmp_path, name, how):
    folder = tmp_path / "script_output" / "jaw_location" / "x"
    for place in (folder, folder / "fold_1"):
        with run_folder(place, overwrite=True, resume=False):
            write(place, f"{place.name}.pth")
    if "/" in name:
        start_manifest(folder / "fold_1")
        (folder / name).unlink()
        start_manifest(folder / "fold_1")
    put(folder, [name])
    before = files_below(tmp_path)
    place, _, last = name.rpartition("/")
    with pytest.raises(InputError) as said, claim(tmp_path, overwrite=True, **how):
        pass
    assert str(said.value) == (
        f"--model-name: {folder / place} holds {last}, which jawloc didn't write and would "
        "overwrite; move it away first"
    )
    assert files_below(tmp_path) == before
    with claim(tmp_path, overwrite=True) if how else locked_output_folder(folder):
        pass  # one object and no folds don't write these


def test_the_lock_lies_beside_a_runs_folder_and_within_any_other(tmp_path):
    runs = tmp_path / "script_output" / "jaw_location"
    assert lock_path(runs / "x") == runs / ".locks" / "x"
    assert lock_path(runs / "x" / "fold_1") == runs / ".locks" / "x"
    assert lock_path(runs / "x" / "mine") == runs / "x" / "mine" / ".jawloc"
    assert lock_path(runs / "y" / ".." / "x") == runs / ".locks" / "x"
    assert lock_path(tmp_path / "out") == tmp_path / "out" / ".jawloc"


def test_an_evaluation_into_the_folder_of_a_run_waits_for_the_run(tmp_path):
    refused = []

    def evaluate():
        try:
            with locked_output_folder(tmp_path / "script_output" / "jaw_location" / "x"):
                pass
        except InputError as error:
            refused.append(str(error))

    with claim(tmp_path) as folder, run_folder(folder, overwrite=False, resume=False):
        thread = threading.Thread(target=evaluate)
        thread.start()
        thread.join()
    assert len(refused) == 1 and refused[0].startswith(f"--output-dir: {folder} is in use by ")


@pytest.mark.parametrize("name", ["", ".replacing", ".replaced", "fold_1"])
def test_a_run_follows_no_link_out_of_its_folder(tmp_path, name):
    """Regression: what a link called .replacing or fold_1 leads to was moved or removed."""
    folder, elsewhere = tmp_path / "script_output" / "jaw_location" / "x", tmp_path / "elsewhere"
    write(elsewhere, "summary.json", "fold_1.pth")
    place = folder / name
    place.parent.mkdir(parents=True)
    place.symlink_to(elsewhere)
    before = files_below(elsewhere)
    with (
        pytest.raises(InputError, match=r"^--model-name: .* is a link"),
        locked_run_folder(tmp_path, "x", ["jaw"], overwrite=True, resume=False, folds=2),
    ):
        pass
    assert files_below(elsewhere) == before
    assert place.is_symlink()
