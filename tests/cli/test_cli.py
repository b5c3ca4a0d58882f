"""The terminal: every command's words and exit code, and runs that are interrupted."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile
import torch
from click.testing import CliRunner
from mlflow import MlflowClient

from jawloc import __version__, cli
from jawloc.config import load_config
from jawloc.reporting.tracking.store import tracking_uri
from jawloc.scans.dicom import open_labelled_dicom
from tests.lab import SCAN_IDS, files_below, only_sentence, write_config

CHECKOUT = Path(__file__).parents[2]


def process(*arguments, cwd, code=None, **settings):
    """Return the arguments with which subprocess starts jawloc, or code that starts it."""
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    environment |= {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    start = ["-m", "jawloc"] if code is None else ["-c", code]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return {"args": [sys.executable, *start, *arguments], "cwd": cwd, "env": environment, **pipes}


# --- entry points and completion ------------------------------------------------------------------


def test_jawloc_train_is_jawloc_train():
    scripts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "scripts"
    ]
    assert scripts["jawloc"] == "jawloc.cli:jawloc"
    assert scripts["jawloc-train"] == "jawloc.cli:train"
    assert cli.jawloc.commands["train"] is cli.train


def test_python_m_jawloc_is_jawloc(tmp_path):
    ended = subprocess.run(**process("--version", cwd=tmp_path))
    assert ended.stdout.strip().endswith(__version__)
    ended = subprocess.run(**process("nonsense", cwd=tmp_path))
    assert ended.returncode == 2
    assert "No such command 'nonsense'" in ended.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_switched_on_and_completes_commands(shell):
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("click asks bash itself for its version")

    def ask(task, **words):
        environment = {"_JAWLOC_COMPLETE": f"{shell}_{task}", **words}
        return CliRunner().invoke(cli.jawloc, env=environment, prog_name="jawloc").output

    assert "_JAWLOC_COMPLETE" in ask("source")
    line = {"COMP_WORDS": "jawloc tr", "COMP_CWORD": "tr" if shell == "fish" else "1"}
    assert "train" in ask("complete", **line)
    assert "dicoms" not in ask("complete", **line)
    line = {"COMP_WORDS": "jawloc train --over", "COMP_CWORD": "--over" if shell == "fish" else "2"}
    assert "--overwrite" in ask("complete", **line)


# --- train: what reaches the experiment ----------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """Return what `jawloc train` asks for, instead of doing it."""
    import jawloc.workflows.train

    seen = {}

    class Done:
        def __str__(self):
            return "done"

    def run_training(config, name, **flags):
        seen.update(config=config, name=name, **flags)
        return Done()

    monkeypatch.setattr(jawloc.workflows.train, "run_training", run_training)
    return seen


def test_train_hands_its_options_on(lab, jawloc, asked):
    (lab / "experiments").mkdir()
    write_config(lab / "experiments", "e.yml", seed=3, dicom_dirs=["../dicoms/labelled"])
    result = jawloc(
        *["train", "--model-name", "blue", "--experiment", "experiments/e.yml", "--overwrite"],
        *["--set", "num_epochs=7", "--set", "curriculum.threshold=0.4"],
    )
    assert (result.exit_code, result.stdout) == (0, "done\n"), result.output
    config = asked["config"]
    assert (asked["name"], asked["overwrite"], asked["resume"]) == ("blue", True, False)
    assert (config.training.seed, config.training.num_epochs) == (3, 7)
    assert config.curriculum.threshold == 0.4
    assert config.base == lab


def test_train_without_options_is_called_locator_with_the_folders_config(lab, jawloc, asked):
    assert jawloc("train").exit_code == 0
    assert asked["name"] == "locator"
    assert asked["config"] == load_config(lab / "userconf.yml")


def test_outputs_lie_beside_the_config_wherever_it_is(lab, jawloc, asked, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert jawloc("train", "--config", "lab/userconf.yml").exit_code == 0
    assert asked["config"].base == lab
    assert asked["config"].cache.dicom_dirs == (str(lab / "dicoms" / "labelled"),)


def test_corrections_are_of_the_current_folder_as_the_shell_completes_them(
    lab, jawloc, asked, monkeypatch, tmp_path
):
    """A setting's path is relative to its file, an option's is not."""
    (tmp_path / "review.csv").write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    words = ("train", "--config", "lab/userconf.yml", "--corrections", "review.csv")
    assert jawloc(*words).exit_code == 0
    (named,) = asked["config"].corrections.corrections
    assert (lab / named).samefile(tmp_path / "review.csv")


def test_no_shrink_heatmap_keeps_sigma_as_it_is(lab, jawloc, asked):
    assert jawloc("train", "--set", "curriculum.shrink_factor=0.5").exit_code == 0
    assert asked["config"].curriculum.shrink_factor == 0.5
    result = jawloc("train", "--set", "curriculum.shrink_factor=0.5", "--no-shrink-heatmap")
    assert result.exit_code == 0
    assert asked["config"].curriculum.shrink_factor == 1


# --- errors --------------------------------------------------------------------------------------


def test_an_error_of_the_system_is_a_sentence_too(lab, jawloc, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "x.dcm")

    monkeypatch.setattr("jawloc.scans.cache.build_cache", full)
    assert only_sentence(jawloc("cache", "build")) == "[Errno 28] No space left on device: 'x.dcm'"


def test_a_bug_is_not_hidden(lab, jawloc, monkeypatch):
    def broken(*_, **__):
        raise KeyError("bug")

    monkeypatch.setattr("jawloc.scans.cache.build_cache", broken)
    assert isinstance(jawloc("cache", "build").exception, KeyError)


def test_an_interruption_before_a_run_has_begun_is_one_sentence(lab, jawloc, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("jawloc.workflows.prepare_data.build_cache", interrupted)
    before = files_below(lab)
    result = jawloc("train")
    said = "Error: interrupted; the same command begins again\n"
    assert (result.exit_code, result.stderr) == (130, said)
    assert files_below(lab) == before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_closed_terminal_ends_a_run_unless_nohup_said_otherwise(lab, monkeypatch):
    """Regression: jawloc's handler took the place of nohup's, and logging out ended the run."""
    seen = []
    monkeypatch.setattr(
        "jawloc.scans.cache.build_cache", lambda *_, **__: seen.append(signal.getsignal(1)) or 1 / 0
    )
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        for handler in (signal.SIG_DFL, signal.SIG_IGN):
            signal.signal(signal.SIGHUP, handler)
            CliRunner().invoke(cli.jawloc, ["cache", "build"])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert callable(seen[0])
    assert seen[1] == signal.SIG_IGN


# --- dicoms --------------------------------------------------------------------------------------

IMAGE = np.arange(6 * 5 * 4, dtype=np.uint16).reshape(6, 5, 4)
LABEL = np.zeros((6, 5, 4), np.uint8)
LABEL[1, 1, 1], LABEL[4, 3, 2] = 1, 2


@pytest.fixture
def volumes(tmp_path, monkeypatch):
    """Images a to d in one folder and labels in another; d has no label, e no image."""
    monkeypatch.chdir(tmp_path)
    for folder in ("images", "labels", "tiffs"):
        (tmp_path / folder).mkdir()
    for name in "abcd":
        write_mha(tmp_path / "images" / f"{name}.mha", IMAGE)
    for name in ("a", "b_mask", "e"):
        write_mha(tmp_path / "labels" / f"{name}.mha", LABEL)
    write_mha(tmp_path / "labels" / "c_seg.mha", LABEL[1:])
    tifffile.imwrite(tmp_path / "tiffs" / "t.tif", IMAGE, photometric="minisblack")
    tifffile.imwrite(tmp_path / "tiffs" / "t_label.tif", LABEL, photometric="minisblack")
    return tmp_path


def write_mha(path, array):
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((0.2, 0.3, 0.5))  # x, y, z
    SimpleITK.WriteImage(image, str(path))


def test_dicoms_pairs_by_name_and_says_what_it_skipped_and_why(volumes, jawloc):
    killed = volumes / "out" / ".1-0123abcd.part.a.dcm"
    killed.parent.mkdir()
    killed.touch()
    os.utime(killed, (0, 0))
    result = jawloc("dicoms", "images", "labels", "out")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "skipped c: c_seg.mha: a label must have its image's shape (z, y, x), (6, 5, 4); "
        "it has (5, 5, 4)",
        "skipped d: no label for d",
        "skipped e: no image for e.mha",
        "2 labelled DICOMs written to out, 3 skipped",
    ]
    assert sorted(path.name for path in (volumes / "out").iterdir()) == ["a.dcm", "b.dcm"]
    scan = open_labelled_dicom(volumes / "out" / "b.dcm")
    assert scan.grid.spacing_mm_zyx == pytest.approx((0.5, 0.3, 0.2))
    np.testing.assert_array_equal(scan.read_image(0, 6), IMAGE)
    np.testing.assert_array_equal(scan.read_mask(0, 6), LABEL)

    before = files_below(volumes / "out")
    again = jawloc("dicoms", "images", "labels", "out")
    assert again.exit_code == 0
    assert "skipped a: a.dcm exists" in again.stdout
    assert "0 labelled DICOMs written to out, 5 skipped" in again.stdout
    assert files_below(volumes / "out") == before


def test_dicoms_on_trial_writes_nothing(volumes, jawloc):
    result = jawloc("dicoms", "images", "labels", "out", "--dry-run")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[:2] == [
        "would write out/a.dcm from images/a.mha and labels/a.mha",
        "would write out/b.dcm from images/b.mha and labels/b_mask.mha",
    ]
    assert "skipped d: no label for d" in lines
    assert lines[-1] == "2 labelled DICOMs would be written to out, 3 skipped"
    assert not (volumes / "out").exists()


def test_dicoms_on_trial_names_the_masks_that_will_be_refused(volumes, jawloc):
    """Regression: only the conversion found that nobody had drawn on a scan."""
    write_mha(volumes / "labels" / "a.mha", np.zeros_like(LABEL))
    write_mha(volumes / "labels" / "b_mask.mha", np.ones_like(LABEL))
    trial, real = (jawloc("dicoms", "images", "labels", "out", *o) for o in (["--dry-run"], []))
    assert "would write" not in trial.stdout
    assert trial.exit_code == 1
    said = [line for line in trial.stdout.splitlines() if line.startswith("skipped")]
    assert said == [line for line in real.stdout.splitlines() if line.startswith("skipped")]
    assert "skipped a: a.mha: the mask is empty; a scan needs at least one labelled voxel" in said


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_dicoms_names_every_mask_to_check(tmp_path, monkeypatch, jawloc, options):
    """Regression: notes of rounded grey values hid that the last masks are mirrored."""
    monkeypatch.chdir(tmp_path)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for number in range(8):
        write_mha(tmp_path / "images" / f"f{number}.mha", IMAGE / np.float32(7))
        mask = SimpleITK.GetImageFromArray(LABEL)
        mask.SetSpacing((0.2, 0.3, 0.5))
        if number in (6, 7):
            mask.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1))
        SimpleITK.WriteImage(mask, str(tmp_path / "labels" / f"f{number}.mha"))
    lines = jawloc("dicoms", "images", "labels", "out", *options).stdout.splitlines()
    assert [line for line in lines if "check" in line] == [
        f"{i}: {i}.mha has another orientation than {i}.mha: check that they match"
        for i in ("f6", "f7")
    ]
    assert ("... and 3 more notes" in lines) is (options == ())


def test_dicoms_keeps_the_label_values_that_are_asked_for(volumes, jawloc):
    assert jawloc("dicoms", "images", "labels", "out", "--label-values", "2,7").exit_code == 0
    mask = open_labelled_dicom(volumes / "out" / "a.dcm").read_mask(0, 6)
    np.testing.assert_array_equal(mask, np.where(LABEL == 2, 2, 0))

    result = jawloc("dicoms", "images", "labels", "none", "--label-values", "7")
    assert "skipped a: a.mha: the mask is empty with the label values [7]" in result.stdout
    assert "0 labelled DICOMs written" in result.stdout


@pytest.mark.parametrize(
    ("given", "spacing"), [("0.02", (0.02,) * 3), ("0.5,0.2,0.1", (0.5, 0.2, 0.1)), (None, None)]
)
def test_dicoms_takes_the_spacing_that_a_format_loses(volumes, jawloc, given, spacing):
    options = [] if given is None else ["--spacing", given]
    result = jawloc("dicoms", "tiffs", "tiffs", "out", *options)
    assert "1 labelled DICOM written" in result.stdout, result.output
    found = open_labelled_dicom(volumes / "out" / "t.dcm").grid.spacing_mm_zyx
    assert found == (spacing if spacing is None else pytest.approx(spacing))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["missing", "labels"],
            "missing: the images must be in an existing folder; it does not exist",
        ),
        (
            ["images", "missing"],
            "missing: the labels must be in an existing folder; it does not exist",
        ),
        (
            ["images", "labels", "--label-values", "1,x"],
            "--label-values: whole numbers from 1 to 255, separated by commas; received '1,x'",
        ),
        (
            ["images", "labels", "--label-values", "300"],
            "--label-values: whole numbers from 1 to 255, separated by commas; received '300'",
        ),
        (
            ["images", "labels", "--spacing", "1,2"],
            "--spacing: one positive number or three (z,y,x), in mm; received '1,2'",
        ),
        (
            ["images", "labels", "--spacing", "1,nan,2"],
            "--spacing: one positive number or three (z,y,x), in mm; received '1,nan,2'",
        ),
    ],
)
def test_dicoms_refuses_what_it_cannot_do(volumes, jawloc, arguments, sentence):
    images, labels, *options = arguments
    for trial in ([], ["--dry-run"]):
        assert only_sentence(jawloc("dicoms", images, labels, "out", *options, *trial)) == sentence
        assert not (volumes / "out").exists()


# --- cache and ui --------------------------------------------------------------------------------


def test_cache_is_built_verified_and_cleared(lab, jawloc):
    result = jawloc("cache", "build")
    assert result.stdout == "5 scans in the cache: 5 built, 0 refreshed, 0 already there\n"
    assert jawloc("cache", "build").stdout.endswith("0 built, 0 refreshed, 5 already there\n")
    result = jawloc("cache", "verify")
    assert (result.exit_code, result.stdout) == (0, "5 cached files checked, 0 not in order\n")

    folder = lab / "dicoms" / "downsampled_dicoms" / "24x12x12" / "labelled"
    damaged = folder / f"{SCAN_IDS[1]}.dcm"
    content = bytearray(damaged.read_bytes())
    content[-50] ^= 1
    damaged.write_bytes(content)
    (folder / "notes.txt").write_text("mine")
    result = jawloc("cache", "verify")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"{damaged}: damaged; {damaged.name}: a cached scan must fit its checksum; it is damaged",
        "5 cached files checked, 1 not in order",
        "jawloc cache verify --repair makes them again",
    ]
    result = jawloc("cache", "verify", "--repair")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "1 cached files made again, 0 not in order"
    assert "0 built, 0 refreshed, 5 already there" in jawloc("cache", "build").stdout

    result = jawloc("cache", "clear")
    assert result.exit_code == 0
    assert f"left alone, not written by jawloc: {folder / 'notes.txt'}" in result.stdout
    assert "5 files removed" in result.stdout
    assert list(files_below(lab / "dicoms" / "downsampled_dicoms")) == [
        "24x12x12/labelled/notes.txt"
    ]


def test_the_labels_are_shown_before_a_training(lab, jawloc):
    result = jawloc("cache", "build", "--labels", "look/here")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "Labels: look/here/labels.html"
    page = Path("look/here/labels.html").read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?)</h2>", page) == SCAN_IDS
    assert jawloc("cache", "build", "--labels", "look/here").exit_code == 0  # its own page
    Path("mine").mkdir()
    Path("mine/labels.html").write_text("mine")
    said = only_sentence(jawloc("cache", "build", "--labels", "mine"))
    assert said.startswith("--labels: mine holds labels.html, which jawloc didn't write")
    assert Path("mine/labels.html").read_text() == "mine"


def test_cache_takes_another_size_by_set_or_experiment(lab, jawloc):
    assert jawloc("cache", "build", "--set", "downsampled_dicom_size=[12, 6, 6]").exit_code == 0
    write_config(lab, "e.yml", downsampled_dicom_size=[6, 6, 6])
    assert jawloc("cache", "build", "--experiment", "e.yml").exit_code == 0
    sizes = {path.name for path in (lab / "dicoms" / "downsampled_dicoms").glob("*x*")}
    assert sizes == {"12x6x6", "6x6x6"}


def test_ui_opens_the_store_that_the_config_names(lab, jawloc, monkeypatch, tmp_path):
    opened = []
    monkeypatch.setattr(
        "jawloc.reporting.tracking.ui_server.open_ui",
        lambda root, port, host: opened.append((root, port, host)),
    )
    assert jawloc("ui").exit_code == 0
    monkeypatch.chdir(tmp_path)
    assert jawloc("ui", "--config", "lab/userconf.yml", "--port", "6001").exit_code == 0
    asked = ("ui", "--config", "lab/userconf.yml", "--host", "192.0.2.7")
    assert jawloc(*asked).exit_code == 0
    here = "127.0.0.1"
    assert opened == [(lab, 5000, here), (lab, 6001, here), (lab, 5000, "192.0.2.7")]
    sentence = only_sentence(jawloc("ui", "--config", "lab/other.yml"))
    assert sentence.startswith("lab/other.yml: no such config file")


# --- Ctrl-C and --resume, in a process of its own ------------------------------------------------

# waits after the second epoch, long enough to be interrupted
WAITING = """
import os, signal
told, tell = os.pipe()
os.set_blocking(tell, False)
signal.set_wakeup_fd(tell)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
import jawloc.workflows.train as experiment
from jawloc.cli import jawloc
save = experiment.save_checkpoint
def save_and_wait(path, state, *rest):
    save(path, state, *rest)
    if len(state.records) == 2:
        print("two epochs are done", flush=True)
        os.read(told, 1)
experiment.save_checkpoint = save_and_wait
jawloc()
"""


def interrupt(lab, number, *arguments):
    """Train until two epochs are done, send a signal; return the process's code and words."""
    running = subprocess.Popen(**process("train", *arguments, cwd=lab, code=WAITING))
    try:
        assert running.stdout.readline() == "two epochs are done\n"
        running.send_signal(number)
        _, said = running.communicate(timeout=240)
    finally:
        running.kill()
    return running.returncode, said


def numbers(lab, name):
    with (lab / "script_output" / "jaw_location" / name / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_run_is_killed_in_the_store_and_can_be_gone_on_with(
    lab, jawloc, no_pictures, one_thread, name
):
    """Regression: the lab's Ctrl-C saved a partial model as if it were finished."""
    write_config(lab, num_epochs=4)
    number = getattr(signal, name)
    code, said = interrupt(lab, number, "--model-name", "blue")
    assert code == 128 + number
    assert said.rstrip().splitlines()[-1] == (
        "Error: interrupted; the same command with --resume goes on from its last checkpoint"
    )
    assert "Traceback" not in said
    folder = lab / "script_output" / "jaw_location" / "blue"
    assert (folder / "checkpoint.pt").is_file()
    assert not list(folder.glob("*.pth"))
    client = MlflowClient(tracking_uri(lab))
    experiment_id = client.get_experiment_by_name("jaw_location").experiment_id
    (run,) = client.search_runs([experiment_id])
    assert run.info.status == "KILLED"
    assert [m.step for m in client.get_metric_history(run.info.run_id, "val/kl")] == [1, 2]
    if name == "SIGTERM":
        return  # both leave the same, which one test of going on is enough for

    assert jawloc("train", "--model-name", "blue", "--resume").exit_code == 0
    (again,) = client.search_runs([experiment_id])  # the same run
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "FINISHED")
    history = client.get_metric_history(run.info.run_id, "val/kl")
    assert [m.step for m in history] == [1, 2, 3, 4]
    assert len(again.inputs.dataset_inputs) == 3
    assert (folder / "blue.pth").is_file()
    assert not (folder / "checkpoint.pt").exists()

    assert jawloc("train", "--model-name", "whole").exit_code == 0
    assert numbers(lab, "blue") == numbers(lab, "whole")
    states = [
        torch.load(folder.parent / n / f"{n}.pth", weights_only=True)["state_dicts"][0]
        for n in ("blue", "whole")
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])


def test_dicoms_ends_with_1_if_no_labelled_dicom_comes_of_it(volumes, jawloc):
    """A script should not go on to train."""
    for path in (volumes / "labels").iterdir():
        if path.name.startswith(("a", "b")):
            path.unlink() if path.is_file() else shutil.rmtree(path)
    result = jawloc("dicoms", "images", "labels", "out")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].startswith("0 labelled DICOMs written to out")


def test_dicoms_names_a_folder_of_slices_once(volumes, jawloc):
    """Regression: `skipped fish: fish: the numbers ...`."""
    for folder in ("pictures", "masks"):
        Path(folder, "fish").mkdir(parents=True)
        for number in (1, 2, 4):
            tifffile.imwrite(Path(folder, "fish", f"{number}.tif"), IMAGE[0])
    result = jawloc("dicoms", "pictures", "masks", "out")
    assert "skipped fish: the numbers of slices must rise in even steps" in result.stdout


@pytest.mark.parametrize("set_by_user", [{}, {"MPLBACKEND": "qtagg"}])
def test_pyplot_opens_no_window(set_by_user):
    """Regression: with a display and napari, a study's pictures were drawn by Qt."""
    code = (
        "import jawloc.cli; import matplotlib.pyplot as plt; plt.figure(); print(plt.get_backend())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"} | set_by_user
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout == "agg\n"
