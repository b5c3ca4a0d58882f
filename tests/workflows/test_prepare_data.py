"""Settings that depend on the scans, decided before anything is trained."""

from __future__ import annotations

import shutil

import pytest

from jawloc.config import load_config
from jawloc.errors import InputError
from jawloc.scans.cache import build_cache
from jawloc.training.splits import SPECIMEN_PATTERN
from jawloc.workflows.prepare_data import decide_size, find_scans, prepare_data, tell_few_scans
from tests.lab import SCAN_SHAPE, write_config


def test_auto_is_the_default_size_no_longer_than_any_scan(lab, capsys):
    """Network and sigmas are decided with it, as if the user had set it."""
    path = write_config(lab, downsampled_dicom_size="auto")
    config = load_config(path)
    assert config.cache.downsampled_dicom_size == "auto"
    decided = decide_size(config)
    assert decided.cache.downsampled_dicom_size == SCAN_SHAPE
    assert capsys.readouterr().err == (
        f"downsampled_dicom_size: auto is {list(SCAN_SHAPE)}; smaller scans than that can't be "
        f"located\n"
    )
    by_hand = load_config(write_config(lab, downsampled_dicom_size=list(SCAN_SHAPE)))
    assert decided == by_hand
    assert decided.as_params() == by_hand.as_params()
    assert decide_size(decided) is decided


def test_a_mistake_that_shows_once_the_size_is_decided_names_where_it_stands(lab):
    intensity = {"low": 60, "high": 40}
    path = write_config(lab, downsampled_dicom_size="auto", intensity=intensity)
    with pytest.raises(InputError, match=r"^userconf\.yml: intensity\.low must be below"):
        decide_size(load_config(path))
    typed = load_config(path, overrides=["intensity.low=45"])
    with pytest.raises(InputError, match=r"^--set: intensity\.low must be below"):
        decide_size(typed)


def test_auto_finds_the_cache_of_the_size_it_stands_for(lab, jawloc):
    write_config(lab, downsampled_dicom_size="auto")
    result = jawloc("cache", "build")
    assert result.exit_code == 0, result.output
    assert "5 built" in result.stdout
    assert "5 already there" in jawloc("cache", "build").stdout
    config = load_config(write_config(lab, downsampled_dicom_size=list(SCAN_SHAPE)))
    assert build_cache(find_scans(config), config.cache, base=config.base).reused == 5
    assert jawloc("cache", "verify").exit_code == 0


def test_what_to_expect_of_few_specimens_is_said(capsys):
    """Left and right of a fish are one specimen."""
    fish = [f"fish_{n}" for n in range(7)]
    sides = [f"{name}_{side}" for name in fish for side in ("left", "right")]
    tell_few_scans(sides, SPECIMEN_PATTERN)
    assert capsys.readouterr().err.startswith("note: 7 specimens will train; with 4, errors ")
    tell_few_scans([*fish, "fish_7"], SPECIMEN_PATTERN)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("copy", "said"), [("zebra", True), ("phantom_000_copy", False), (None, False)]
)
def test_a_scan_of_two_names_is_told(lab, capsys, copy, said):
    """Regression: a copy tested a network that its twin had trained. One specimen isn't split."""
    if copy:
        shutil.copy(lab / "dicoms/labelled/phantom_000.dcm", lab / f"dicoms/labelled/{copy}.dcm")
    prepare_data(load_config(write_config(lab)))
    sentence = "note: the same scan has several names (phantom_000, zebra): where one"
    assert (sentence in capsys.readouterr().err) is said
