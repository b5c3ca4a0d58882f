"""What a served locator may read, and the table it answers with."""

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from mlflow import MlflowException

from jawloc.errors import InputError, printable
from jawloc.inference.locator import Localisation
from jawloc.reporting.tracking import served_model
from jawloc.reporting.tracking.served_model import ServedLocator, checked_path
from jawloc.scans.reading import open_scan


@pytest.fixture
def lab(tmp_path):
    """A folder of scans beside a secret, and a link out of it."""
    (tmp_path / "scans" / "sub").mkdir(parents=True)
    for name in ("scans/a.dcm", "scans/sub/b.dcm", "secret.dcm", "scans_too.dcm"):
        (tmp_path / name).touch()
    (tmp_path / "scans" / "link.dcm").symlink_to(tmp_path / "secret.dcm")
    return tmp_path


@pytest.mark.parametrize("given", ["a.dcm", "sub/b.dcm", "sub/../a.dcm", "{lab}/scans/a.dcm"])
def test_paths_inside_the_folder_are_allowed(lab, given):
    path = checked_path(given.format(lab=lab), str(lab / "scans"))
    assert path.is_file()
    assert path.is_relative_to(lab / "scans")


@pytest.mark.parametrize(
    "given", ["../secret.dcm", "{lab}/secret.dcm", "link.dcm", "../scans_too.dcm", "/etc/hosts"]
)
def test_paths_outside_the_folder_are_refused(lab, given):
    with pytest.raises(InputError, match="only inside the folder that"):
        checked_path(given.format(lab=lab), str(lab / "scans"))


def test_without_a_folder_only_a_model_that_is_not_served_reads(monkeypatch):
    monkeypatch.delenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", raising=False)
    assert checked_path("a.dcm", None) == Path("a.dcm")
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
    with pytest.raises(InputError, match="JAWLOC_SCAN_FOLDER"):
        checked_path("a.dcm", None)


class FakeLocator:
    """Finds two objects in every scan; knows the spacing of a.dcm only."""

    def locate(self, path):
        mm = (0.1, 0.2, 0.3) if path.name == "a.dcm" else None
        names = ("jaw", "otolith")
        return [Localisation(path.stem, name, (1.0, 2.0, 3.0), mm, 0.5) for name in names]


def loaded(monkeypatch, allowed_folder=None):
    monkeypatch.setattr(served_model, "load_locator", lambda path, device: FakeLocator())
    model = ServedLocator()
    settings = {"allowed_folder": allowed_folder}
    model.load_context(SimpleNamespace(artifacts={"weights": "x.pth"}, model_config=settings))
    return model


def test_answer_has_a_row_an_object_and_null_for_unknown_mm(monkeypatch, lab):
    monkeypatch.setenv("JAWLOC_SCAN_FOLDER", str(lab / "scans"))
    model = loaded(monkeypatch)
    table = model.predict(None, pd.DataFrame({"scan": ["a.dcm", "sub/b.dcm"]}))
    rows = table.to_dict(orient="records")
    assert [(r["scan"], r["object"]) for r in rows] == [
        (scan, name) for scan in ("a.dcm", "sub/b.dcm") for name in ("jaw", "otolith")
    ]
    assert [r["z_mm"] for r in rows] == [0.1, 0.1, None, None]
    json.dumps(rows, allow_nan=False)  # NaN would not be JSON


def test_environment_wins_over_the_models_own_setting(monkeypatch, lab):
    model = loaded(monkeypatch, allowed_folder=str(lab))
    assert len(model.predict(None, pd.DataFrame({"scan": ["secret.dcm"]}))) == 2
    monkeypatch.setenv("JAWLOC_SCAN_FOLDER", str(lab / "scans"))
    with pytest.raises(MlflowException, match="only inside the folder that"):
        model.predict(None, pd.DataFrame({"scan": [str(lab / "secret.dcm")]}))


@pytest.mark.parametrize("given", ["circle.dcm", f"{'l' * 300}.dcm", "a\0.dcm", "\ud800.dcm"])
def test_a_path_that_leads_nowhere_is_refused_in_one_sentence(lab, given):
    """Regression: the answer was a traceback with the server's paths."""
    (lab / "scans" / "circle.dcm").symlink_to(lab / "scans" / "circle.dcm")
    with pytest.raises(InputError) as refused:
        found = checked_path(given, str(lab / "scans"))
        open_scan(found)  # later Pythons resolve a link to itself
    assert str(refused.value).startswith(f"{printable(given)}: a scan must be a file or folder; ")


def test_whatever_fails_the_answer_is_one_sentence(monkeypatch, lab):
    """Regression: the answer was a traceback with the server's paths."""

    def fail(*_):
        raise ZeroDivisionError(str(lab))

    monkeypatch.setattr(FakeLocator, "locate", fail)
    model = loaded(monkeypatch, allowed_folder=str(lab / "scans"))
    with pytest.raises(MlflowException) as refused:
        model.predict(None, pd.DataFrame({"scan": ["a.dcm"]}))
    assert refused.value.message == (
        "a.dcm: jawloc failed unexpectedly (ZeroDivisionError); please report this scan"
    )
