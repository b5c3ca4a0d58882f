"""Bad input, line by line: one sentence, exit code 2, nothing half-made, before any slow work.

Every case is a lab's folder with five good scans, one thing wrong in it, and `jawloc train`.
"""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest

from jawloc.errors import InputError
from tests.lab import (
    SCAN_IDS,
    erase_labels,
    files_below,
    only_sentence,
    write_config,
    write_lab_dicom,
)

CHECKOUT = Path(__file__).parents[2]
SHAPE = (48, 24, 24)
IMAGE = np.random.default_rng(0).integers(0, 1000, SHAPE)
MASK = np.zeros(SHAPE, np.uint8)
MASK[36:40, 10:14, 8:12] = 1


@pytest.fixture
def refused(lab, jawloc, monkeypatch):
    """Return a function that runs `jawloc train`, sees that it leaves no trace, gives its words."""

    def too_late(*_, **__):
        raise AssertionError("slow work began")

    import jawloc.scans.cache as cache
    import jawloc.workflows.train as experiment

    monkeypatch.setattr(cache, "downsample", too_late)
    monkeypatch.setattr(experiment, "build_network", too_late)
    monkeypatch.setattr(experiment, "tracked_run", too_late)

    def run(*arguments):
        before = files_below(lab)
        result = jawloc("train", *arguments)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert files_below(lab) == before
        return result

    return run


@pytest.fixture
def sentence(refused):
    """Return a function that gives the one sentence with which `jawloc train` refuses."""
    return lambda *arguments: only_sentence(refused(*arguments))


@pytest.fixture
def scans(lab):
    return lab / "dicoms" / "labelled"


def write_bad(path, image=IMAGE, mask=MASK, change=lambda ds: None):
    """Write a file in the lab's layout, changed for the worse."""
    write_lab_dicom(path, image, mask, change)


# --- folders -------------------------------------------------------------------------------------


def test_no_such_folder(lab, sentence):
    write_config(lab, dicom_dirs=["dicoms/labelled", "dicoms/missing"])
    place = lab / "dicoms" / "missing"
    assert sentence() == f"{place}: a folder of scans must exist; there is no such folder"


def test_a_folder_with_no_dicom(lab, sentence):
    (lab / "dicoms" / "empty").mkdir()
    (lab / "dicoms" / "empty" / "notes.txt").touch()
    write_config(lab, dicom_dirs=["dicoms/empty"])
    place = lab / "dicoms" / "empty"
    expected = f"{place}: a folder of scans must hold DICOM files (.dcm, .dicom); it has none"
    assert sentence() == expected


def test_no_folder_at_all(lab, sentence):
    write_config(lab, dicom_dirs=[])
    assert sentence().startswith("dicom_dirs: name at least one folder")


def test_fewer_than_three_scans(scans, sentence):
    for path in sorted(scans.iterdir())[2:]:
        path.unlink()
    assert sentence() == (
        "dicom_dirs: training needs at least 3 scans (one each to train, validate and test); "
        "found 2"
    )


# --- one bad scan among good ones ----------------------------------------------------------------


def test_a_file_that_is_not_dicom(scans, sentence):
    (scans / "131.dcm").write_bytes(b"a text file that somebody renamed" * 100)
    assert sentence() == "131.dcm: a .dcm file must be DICOM; it has no DICOM file header"


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (75000, "the file is truncated; element (7FE0,0010) ends at byte "),
        (20000, "the file is truncated; element (00BB,B001) ends at byte "),
        (200, "a scan needs pixel data; the file has none (truncated?)"),
        (0, "a .dcm file must be DICOM; it has no DICOM file header"),
    ],
)
def test_a_truncated_file(scans, sentence, left, said):
    write_bad(scans / "131.dcm")
    content = (scans / "131.dcm").read_bytes()
    (scans / "131.dcm").write_bytes(content[:left])
    assert sentence().startswith("131.dcm: " + said)


def test_a_file_without_a_mask(scans, sentence):
    write_bad(scans / "131.dcm", mask=None)
    assert sentence() == (
        "131.dcm: a labelled DICOM needs a mask in element (00BB,B001), or points in "
        "(00BB,B002); it has neither"
    )


def test_a_mask_of_another_shape(scans, sentence):
    write_bad(scans / "131.dcm", mask=MASK[:-1])
    voxels = MASK.size, MASK[:-1].size
    assert sentence() == (
        f"131.dcm: the mask must have the image's shape {SHAPE}, {voxels[0]} bytes; "
        f"it has {voxels[1]}"
    )


def test_an_empty_mask(scans, sentence):
    write_bad(scans / "131.dcm", mask=MASK * 0)
    assert sentence() == ("131.dcm: the mask is empty; a scan needs at least one labelled voxel")


def test_one_slice(scans, sentence):
    write_bad(scans / "131.dcm", IMAGE[:1], MASK[36:37])
    assert sentence() == "131.dcm: a scan needs at least two slices; the file has 1"


def test_colour_pixels(scans, sentence):
    def coloured(ds):
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
        ds.PixelData = np.repeat(IMAGE[..., None], 3, -1).astype("<u2").tobytes()

    write_bad(scans / "131.dcm", change=coloured)
    assert sentence() == (
        "131.dcm: pixels must be one grey value each (MONOCHROME2 or MONOCHROME1); they are "
        "RGB with 3 per pixel"
    )


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
@pytest.mark.parametrize("value", ["nan", "inf", "0", "-0.02"])
def test_a_spacing_that_is_no_length(scans, sentence, value):
    def spaced(ds):
        ds.PixelSpacing = "0.02\\0.02"
        ds.SliceThickness = value

    with pydicom.config.disable_value_validation():
        write_bad(scans / "131.dcm", change=spaced)
    assert sentence() == (
        "131.dcm: the spacing (z, y, x) in mm must be positive and finite; "
        f"it is ({float(value)}, 0.02, 0.02)"
    )


def test_two_scans_with_one_id(lab, scans, sentence):
    other = lab / "dicoms" / "more" / "phantom_003.dcm"
    other.parent.mkdir()
    shutil.copy(scans / "phantom_004.dcm", other)
    write_config(lab, dicom_dirs=["dicoms/labelled", "dicoms/more"])
    assert sentence() == (
        "phantom_003: two scans must not share an id (file name); "
        f"{scans / 'phantom_003.dcm'} and {other}"
    )


def test_a_target_size_larger_than_the_scan(lab, scans, sentence):
    write_bad(scans / "131.dcm", IMAGE[:20], MASK[20:40])
    assert sentence() == (
        "131.dcm: the downsampled size must be no larger than the scan on any axis (z, y, x); "
        "24x12x12 is asked of a scan of 20x24x24; 20x12x12 fits all scans: set "
        "downsampled_dicom_size to [20, 12, 12], or to auto"
    )


def test_every_bad_scan_is_named_once(lab, scans, refused):
    write_bad(scans / "131.dcm", mask=MASK * 0)
    write_bad(scans / "132.dcm", IMAGE[:1], MASK[36:37])
    (scans / "133.dcm").touch()
    result = refused()
    assert result.exit_code == 2
    lines = result.stderr.removeprefix("Error: ").splitlines()
    assert [line.split(":")[0] for line in lines] == ["131.dcm", "132.dcm", "133.dcm"]


# --- model names ---------------------------------------------------------------------------------

NOT_PLAIN = ["../x", "a/b", "", "/x", ".", "..", ".x", "x.", "a\\b", "a\nb", " x", "x ", "-x:y"]


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_a_model_name_that_is_not_a_plain_folder_name(sentence, name):
    assert sentence(f"--model-name={name}") == (
        "--model-name: a model's name is a folder's name, of letters, digits, spaces and "
        f". _ + = - only and not beginning with a dot; received {name!r}"
    )


def test_a_model_name_that_exists(lab, jawloc, monkeypatch):
    folder = lab / "script_output" / "jaw_location" / "blue"
    folder.mkdir(parents=True)
    (folder / "blue.pth").write_bytes(b"weights")
    # the name is checked before the scans are looked at
    monkeypatch.setattr(
        "jawloc.workflows.prepare_data.find_scans", lambda config: pytest.fail("too late")
    )
    before = files_below(lab)
    assert only_sentence(jawloc("train", "--model-name", "blue")) == (
        f"--model-name: 'blue' is taken ({folder}); --overwrite replaces it, or choose another name"
    )
    (folder / "checkpoint.pt").touch()
    assert only_sentence(jawloc("train", "--model-name", "blue")) == (
        f"--model-name: 'blue' is taken ({folder}); --resume goes on with its interrupted run, "
        f"or --overwrite replaces it, or choose another name"
    )
    (folder / "checkpoint.pt").unlink()
    assert files_below(lab) == before


def test_a_bad_scan_does_not_cost_the_model_that_was_to_be_replaced(lab, scans, jawloc):
    """Regression guard: --overwrite removes nothing before the new run's input is known good."""
    folder = lab / "script_output" / "jaw_location" / "blue"
    folder.mkdir(parents=True)
    (folder / "blue.pth").write_bytes(b"weights")
    (scans / "131.dcm").touch()
    assert only_sentence(jawloc("train", "--model-name", "blue", "--overwrite"))
    assert (folder / "blue.pth").read_bytes() == b"weights"


def test_nothing_to_resume(lab, sentence):
    folder = lab / "script_output" / "jaw_location" / "blue"
    folder.mkdir(parents=True)
    (folder / "notes.txt").touch()
    assert sentence("--model-name", "blue", "--resume") == (
        f"--resume: {folder} holds no interrupted run; received 'blue'"
    )


# --- configs -------------------------------------------------------------------------------------


def test_no_config(lab, sentence):
    (lab / "userconf.yml").unlink()
    assert sentence() == (
        "userconf.yml: no such config file; name one with --config, or try jawloc-train --demo"
    )
    assert sentence("--config", "other.yml").startswith("other.yml: no such config file")


def test_a_config_that_is_not_yaml(lab, sentence):
    (lab / "userconf.yml").write_text("jaw_loc_config: [unclosed\n")
    assert sentence() == (
        "userconf.yml: the config must be YAML; line 2, column 1: "
        "expected ',' or ']', but got '<stream end>'"
    )


def test_unknown_keys(lab, sentence):
    write_config(lab, learning_rat=0.1)
    assert sentence() == (
        "userconf.yml: unknown key 'learning_rat'; the nearest valid key is 'learning_rate'"
    )
    write_config(lab, curriculum={"treshold": 1})
    assert "'curriculum.treshold'; the nearest valid key is 'curriculum.threshold'" in sentence()


def test_a_number_that_yaml_reads_as_text(lab, sentence):
    text = (lab / "userconf.yml").read_text(encoding="utf-8")
    (lab / "userconf.yml").write_text(text.replace("learning_rate: 0.003", "learning_rate: 1e-3"))
    assert sentence() == (
        "userconf.yml: learning_rate must be a number; received '1e-3', "
        "which YAML takes for text: write 0.001"
    )


OBJECTS = "objects: each must be in at least one training, validation and test scan"


def test_an_object_that_is_in_no_scan(lab, sentence):
    write_config(lab, objects={"left": 1, "otolith": 7})
    assert sentence() == f"{OBJECTS}; 'otolith' is in no scan at all"


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        ((0, 1, 2), "'right' is in no training scan"),
        ((3,), "'right' is in no validation scan"),
        ((3, 4), "'right' is in no validation and no test scan"),
    ],
)
def test_an_object_that_a_split_lacks(lab, scans, sentence, lacking, said):
    for number in lacking:
        erase_labels(scans / f"{SCAN_IDS[number]}.dcm", 2)
    write_config(lab, objects={"left": 1, "right": 2})
    assert sentence() == f"{OBJECTS}; {said}"


def test_a_scan_without_any_of_the_objects(lab, scans, sentence):
    erase_labels(scans / "phantom_001.dcm", 2)
    write_config(lab, objects={"otolith": [7, 8], "right": 2})
    assert sentence() == (
        "phantom_001.dcm: every scan must show at least one of the objects; it has no voxel of "
        "'otolith' (label values [7, 8]) or 'right' (label values [2]), but the label values [1]"
    )


def test_two_objects_that_are_the_same(lab, sentence):
    write_config(lab, objects={"left": 1, "right": [1]})
    assert sentence() == (
        "userconf.yml: objects: two objects must differ in their label values; 'left' and 'right' "
        "both have [1]"
    )


def test_a_scan_that_is_named_but_not_there(lab, sentence):
    write_config(lab, validation_scans=["phantom_009"])
    assert sentence().startswith("validation_scans: 'phantom_009' is not among the scans")


def test_an_unknown_device(lab, sentence):
    assert sentence("--set", "device=gpu") == (
        "device: must be auto, cpu, cuda or cuda:N; received 'gpu'"
    )


def test_options_that_contradict_each_other(lab, sentence):
    assert sentence("--resume", "--overwrite").startswith("--resume goes on with a run")
    for given in (("--experiment", "e.yml"), ("--config", "other.yml")):
        assert sentence("--demo", *given).startswith("--demo has settings of its own")


# --- secrets -------------------------------------------------------------------------------------

PASSWORD = "s3cret"


@pytest.mark.parametrize("kind", [ConnectionError, ValueError])
def test_sentences_warnings_and_tracebacks_hide_secrets(monkeypatch, capsys, jawloc, kind):
    """Regression: an error's sentence, and the traceback of --debug, had the store's password."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)

    def fail(*_, **__):
        warnings.warn(f"slow: http://me:{PASSWORD}@lab", stacklevel=1)
        try:
            raise OSError(f"no answer from postgresql://me:{PASSWORD}@lab/runs")
        except OSError as error:
            raise kind(f"https://me:{PASSWORD}@lab: gone") from error

    monkeypatch.setattr("jawloc.reporting.tracking.ui_server.open_ui", fail)
    said = jawloc("ui")
    if kind is ConnectionError:
        assert said.stderr.endswith("Error: https://me:***@lab: gone\n")
    assert "warning: slow: http://me:***@lab" in said.stderr
    error = jawloc("ui", "--debug").exception
    sys.excepthook(type(error), error, error.__traceback__)
    shown = capsys.readouterr().err
    assert "postgresql://me:***@lab/runs" in shown
    assert "https://me:***@lab: gone" in shown
    assert PASSWORD not in shown


# --- the same in a real process ------------------------------------------------------------------


@pytest.mark.slow
def test_a_process_says_one_sentence_and_debug_shows_where(lab, scans, jawloc):
    write_bad(scans / "131.dcm", mask=MASK * 0)
    before = files_below(lab)
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "jawloc", "train"]
    ended = subprocess.run(command, cwd=lab, env=environment, capture_output=True, text=True)
    sentence = "131.dcm: the mask is empty; a scan needs at least one labelled voxel"
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", f"Error: {sentence}\n")

    error = jawloc("train", "--debug").exception  # which Python ends with, and its traceback
    assert isinstance(error, InputError)
    assert str(error) == sentence
    assert files_below(lab) == before
