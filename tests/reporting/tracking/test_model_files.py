"""What a user calls a model -> its file: by name, by path, by MLflow URI, or in one sentence."""

from __future__ import annotations

import os
import pickle

import mlflow
import pytest
import yaml

from jawloc.errors import InputError
from jawloc.inference.models import ModelOptions, load_model
from jawloc.reporting.folders.folder_lock import exclusive_lock
from jawloc.reporting.folders.run_folder import CHECKPOINT, REPLACED, lock_path
from jawloc.reporting.tracking.model_files import model_file
from jawloc.reporting.tracking.runs import tracked_run
from jawloc.reporting.tracking.store import connected, tracking_uri
from tests.lab import Payload, files_below, write_model


@pytest.fixture
def outputs(tmp_path):
    """A lab's folder with models in it as jawloc-train leaves them."""
    folder = tmp_path / "script_output" / "jaw_location"
    for name in ("mine", "yours"):
        write_model(folder / name / f"{name}.pth")
    return tmp_path


def found(model, base):
    with model_file(str(model), base) as path:
        return path


# --- names and paths -----------------------------------------------------------------


def test_a_name_is_looked_for_where_training_puts_it(outputs):
    assert found("mine", outputs) == outputs / "script_output/jaw_location/mine/mine.pth"


def test_a_name_is_looked_for_elsewhere_below_the_outputs(outputs):
    path = write_model(outputs / "script_output" / "tuning" / "x" / "trial_3" / "trial_3.pth")
    assert found("trial_3", outputs) == path


def test_a_name_that_several_have_is_refused(outputs):
    for study in "ab":
        write_model(outputs / "script_output" / "tuning" / study / "best" / "best.pth")
    with pytest.raises(InputError, match=r"best: several models have this name.*a/best.*b/best"):
        found("best", outputs)


@pytest.mark.parametrize(
    ("name", "said"), [("mime", "; there are mine, yours$"), ("yous", "; there are yours, mine$")]
)
def test_a_name_that_none_has_is_refused_with_those_that_there_are(outputs, name, said):
    with pytest.raises(InputError, match=f"{name}: no model of this name below .*{said}"):
        found(name, outputs)


def test_of_many_models_the_closest_are_named_and_the_others_counted(outputs):
    """Regression: the first five of the alphabet were named as if there were no others."""
    for name in ("a", "b", "c", "jaw_2", "jaw_1", "z"):
        write_model(outputs / "script_output" / "jaw_location" / name / f"{name}.pth")
    with pytest.raises(InputError, match=r"; there are jaw_1, jaw_2, a and 5 more$"):
        found("jaw1", outputs)


def test_a_training_that_has_not_finished_has_no_model_yet(outputs, monkeypatch):
    """Regression: it was said that there is no model of this name."""
    folder = outputs / "script_output" / "jaw_location" / "new"
    said = "new: there is no model before its training has finished; "
    with (
        exclusive_lock(lock_path(folder), "new"),
        pytest.raises(InputError, match=rf"^{said}process {os.getpid()} on .* trains it$"),
    ):
        found("new", outputs)
    with pytest.raises(InputError, match="new: no model of this name"):
        found("new", outputs)
    (folder / REPLACED).mkdir(parents=True)
    with pytest.raises(InputError, match=rf"^{said}it was .* the same command begins it again$"):
        found("new", outputs)
    (folder / CHECKPOINT).touch()
    monkeypatch.chdir(outputs)
    for given in ("new", folder, folder.relative_to(outputs)):
        with pytest.raises(InputError, match=rf"^{said}it was interrupted, and .* with --resume$"):
            found(given, outputs)


def test_without_any_model_there_are_none(tmp_path):
    with pytest.raises(InputError, match=r"mine: no model of this name below .*script_output$"):
        found("mine", tmp_path)


def test_a_path_is_a_path(outputs, monkeypatch):
    path = outputs / "script_output/jaw_location/mine/mine.pth"
    monkeypatch.chdir(path.parent)
    assert found(path, outputs) == path
    assert found(path.parent, outputs) == path
    for given in ("mine.pth", "./mine", "gone.pth"):  # whether it is there, loading it says
        assert str(found(given, outputs)) == given.removeprefix("./")


# --- MLflow --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(make_lab, tmp_path_factory):
    """A lab with a model that was logged and registered as `jaw_locator`, twice."""
    lab = make_lab(tmp_path_factory.mktemp("store") / "lab")
    uris, runs = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for seed in (1, 2):
            weights = write_model(lab / f"{seed}.pth", seed=seed)
            with tracked_run(lab, f"m{seed}", params={}) as run:
                uris.append(run.log_locator(weights))
                run.log_file(weights, "outputs")
            runs.append(run.run_id)
            client = run.client
        patch.setenv("MLFLOW_TRACKING_URI", tracking_uri(lab))  # MLflow asks the global store here
        client.create_registered_model("jaw_locator")
        for uri in uris:
            client.create_model_version("jaw_locator", uri)
        client.set_registered_model_alias("jaw_locator", "champion", "1")
    return lab, uris, runs


@pytest.mark.parametrize(
    ("uri", "seed"),
    [
        ("models:/jaw_locator@champion", 1),
        ("models:/jaw_locator/1", 1),
        ("models:/jaw_locator/2", 2),
        ("models:/jaw_locator/latest", 2),
        ("{first_model}", 1),
        ("runs:/{second_run}/locator", 2),
        ("runs:/{second_run}", 2),
        ("runs:/{second_run}/outputs/2.pth", 2),
    ],
)
def test_a_uri_gives_the_weights_that_were_logged(stored, uri, seed, monkeypatch, tmp_path):
    lab, uris, runs = stored
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(mlflow.pyfunc, "load_model", None)  # nothing is run
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    with model_file(uri.format(first_model=uris[0], second_run=runs[1]), lab) as path:
        assert path.read_bytes() == (lab / f"{seed}.pth").read_bytes()
        assert not path.is_relative_to(lab)
    assert not path.exists()
    assert list(tmp_path.iterdir()) == []  # no store beside the lab's
    assert mlflow.get_tracking_uri() == before


@pytest.mark.parametrize(
    "uri",
    [
        "models:/jaw_locator@nobody",
        "models:/jaw_locator/9",
        "models:/nobody/1",
        "models:/nobody/latest",
        "models:/jaw_locator/Production",
        "models:/m-0",
        "runs:/0123456789abcdef0123456789abcdef/locator",
        "runs:/{run}/nothing",
        "models:/",
        "runs:/",
    ],
)
def test_a_uri_of_nothing_is_refused_in_one_sentence(stored, uri, monkeypatch):
    lab, _, runs = stored
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = uri.format(run=runs[0])
    with pytest.raises(InputError) as caught:
        found(uri, lab)
    assert str(caught.value).startswith(f"{uri}: the model must be in the store sqlite://")
    assert "\n" not in str(caught.value)


def test_without_a_store_none_is_made(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InputError, match=r"models:/a@b: there are no runs in .*mlruns"):
        found("models:/a@b", tmp_path)
    assert files_below(tmp_path) == {}


def test_a_logged_model_that_is_not_jawlocs_is_refused(stored, monkeypatch):
    lab = stored[0]
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with tracked_run(lab, "other", params={}) as run:
        run.log_dict({"a": 1}, "model/notes.json")
    with pytest.raises(InputError, match=r"has one \.pth file; this has 0"):
        found(f"runs:/{run.run_id}/model", lab)


def test_a_planted_model_is_refused_and_none_of_its_code_runs(copy_store, tmp_path):
    copy_store(tmp_path)
    planted, trace = tmp_path / "planted", tmp_path / "was_run"
    (planted / "code" / "jawloc").mkdir(parents=True)
    for name in ("python_model.pkl", "weights.pth", "input_example.pkl"):
        (planted / name).write_bytes(pickle.dumps(Payload(trace)))
    script = f"import os; os.mkdir({str(trace)!r})"
    for name in ("code/jawloc/__init__.py", "code/loader.py", "model.py"):
        (planted / name).write_text(script)
    flavour = {"loader_module": "loader", "code": "code", "python_model": "python_model.pkl"}
    (planted / "MLmodel").write_text(yaml.safe_dump({"flavors": {"python_function": flavour}}))
    with connected(tmp_path) as client:
        client.create_registered_model("planted")
        client.create_model_version("planted", planted.as_uri())
    refused = pytest.raises(InputError, match=r"^weights\.pth: not a model file of plain weights")
    with model_file("models:/planted/1", tmp_path) as path, refused:
        load_model(path, ModelOptions())
    assert not trace.exists()
