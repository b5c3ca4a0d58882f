"""What is logged can be read back from the store, and no run is left open."""

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from mlflow import MlflowClient
from PIL import Image

from jawloc.errors import InputError
from jawloc.heatmaps.metrics import HeatmapMetrics
from jawloc.inference.locator import Locator, save_locator
from jawloc.phantom import write_phantom
from jawloc.reporting.figures.style import figure_to_array
from jawloc.reporting.tracking.metric_names import grouped
from jawloc.reporting.tracking.runs import tracked_run
from jawloc.reporting.tracking.store import prepare_store, refuse_damaged, tracking_uri
from jawloc.training.dataset import IntensityConfig
from jawloc.training.network import build_network
from jawloc.training.records import EpochRecord
from jawloc.training.stages import NetworkConfig

# Forks once MLflow is imported, which takes most of the time; prints how both processes ended.
PREPARE_TWICE = """
import os, pathlib
from jawloc.reporting.tracking.store import prepare_store
first = os.fork()
prepare_store(pathlib.Path("."))
if first:
    print("the other ended with", os.waitpid(first, 0)[1], flush=True)
"""
CHECKOUT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def first_use(tmp_path_factory):
    """Two processes set up one fresh store at once: (its folder, how that ended)."""
    root = tmp_path_factory.mktemp("first use")
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    environment |= {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PREPARE_TWICE]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return root, subprocess.run(command, cwd=root, env=environment, **pipes)


@pytest.fixture
def root(copy_store, tmp_path, monkeypatch):
    """A project folder whose store is set up, but has none of its experiments yet."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "a lab's projéct"
    copy_store(folder)
    return folder


def record(epoch, sigma=8.0, in_mm=True):
    mm = (0.3, 0.2, 0.9) if in_mm else (None, None, None)
    metrics = HeatmapMetrics(1.5 / epoch, 0.5, 1e-7, 3.0, 2.0, 9.0, *mm)
    return EpochRecord(epoch, sigma, 1e-3, metrics, metrics, 2.5)


def stored(root, name="run", **run_settings):
    """Open a run with little in it."""
    return tracked_run(root, name, params={}, **run_settings)


def read(root, run_id):
    return MlflowClient(tracking_uri(root)).get_run(run_id)


def artifacts(root, run_id):
    return root / "mlruns" / "artifacts" / run_id / "artifacts"


def test_two_processes_prepare_a_fresh_store_at_once_and_silently(first_use):
    root, ended = first_use
    # without a lock one dies in MLflow's schema migration
    assert (ended.returncode, ended.stdout) == (0, "the other ended with 0\n")
    client = MlflowClient(f"sqlite:///{(root / 'mlruns' / 'mlflow.db').as_posix()}")
    names = [e.name for e in client.search_experiments()]
    assert sorted(names) == ["Default", "jaw_location"]
    with closing(sqlite3.connect(root / "mlruns" / "mlflow.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_store_lies_under_the_root_unless_the_user_names_one(root, monkeypatch):
    uri = prepare_store(root)
    assert uri == f"sqlite:///{(root / 'mlruns' / 'mlflow.db').as_posix()}"
    location = MlflowClient(uri).get_experiment_by_name("jaw_location").artifact_location
    assert location == (root / "mlruns" / "artifacts").as_uri()

    other = f"sqlite:///{(root / 'mlruns' / 'mlflow.db').as_posix()}?timeout=20"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir()
    assert prepare_store(elsewhere, "mine") == other
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("damage", ["not a database", "cut off", "one table"])
def test_a_damaged_database_is_named_instead_of_a_traceback(root, damage):
    database = root / "mlruns" / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'experiments'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    content = bytearray(database.read_bytes())
    if damage == "not a database":
        content = bytearray(b"hello\n" * 1000)
    elif damage == "cut off":
        del content[len(content) // 2 :]
    else:
        content[(page - 1) * size : page * size] = b"\xff" * size
    database.write_bytes(content)
    with pytest.raises(InputError, match=r"mlflow\.db: .*damaged.* move it away") as caught:
        stored(root).__enter__()
    assert "\n" not in str(caught.value)
    assert str(database) in str(caught.value)
    assert database.read_bytes() == bytes(content)  # nothing was done to it


def test_a_locked_database_is_not_called_damaged(root):
    database = root / "mlruns" / "mlflow.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("BEGIN EXCLUSIVE")
        with (
            pytest.raises(sqlite3.OperationalError, match="locked"),
            closing(sqlite3.connect(database, timeout=0)) as other,
        ):
            other.execute("PRAGMA quick_check")  # it is locked, and yet:
        assert refuse_damaged(database, wait_seconds=0.0) is None


def test_an_experiment_deleted_in_the_ui_is_brought_back(root):
    client = MlflowClient(prepare_store(root))
    client.delete_experiment(client.get_experiment_by_name("jaw_location").experiment_id)
    with stored(root) as run:
        pass
    assert read(root, run.run_id).info.status == "FINISHED"


def test_params_tags_and_metrics_come_back_by_name_and_step(root):
    params = {f"key.{i}": i for i in range(150)}  # more than MLflow takes in one batch
    params |= {"curriculum.threshold": 1.0, "dicom_dirs": ["a", "b"], "long": "x" * 20000}
    with tracked_run(root, "blue", params=params, tags={"kind": "test"}) as run:
        for epoch, sigma in ((1, 8.0), (2, 7.2)):
            run.log_epoch(record(epoch, sigma))
        run.log_summary({"test_error_voxels": 1.25, "test_error_mm": None})
    found = read(root, run.run_id)
    assert found.info.run_name == "blue"
    assert found.data.tags["kind"] == "test"
    assert found.data.params["curriculum.threshold"] == "1.0"
    assert found.data.params["dicom_dirs"] == "['a', 'b']"
    assert found.data.params["long"].endswith("... (20000 characters)")
    assert len(found.data.params) == len(params)
    numbers = grouped({k: v for k, v in record(1).flat().items() if k != "epoch"}).keys()
    assert found.data.metrics.keys() == numbers | {"test_error_voxels"}
    history = run.client.get_metric_history(run.run_id, "curriculum/sigma")
    assert [(m.step, m.value) for m in history] == [(1, 8.0), (2, 7.2)]


def test_secrets_are_in_no_param_tag_or_source_of_a_run(root, monkeypatch):
    """Regression: what a param or tag quotes of an address had the password in it."""
    address = "https://me:s3cret@host/x"
    with tracked_run(root, "r", params={"a": address}, tags={"b": f"gone: {address}"}) as run:
        run.tag({"optuna.reason": address})
    with tracked_run(root, "r", params={"a": f"{address}/y"}, run_id=run.run_id):
        pass
    found = read(root, run.run_id)
    assert found.data.params["a"] == "https://me:***@host/x"
    assert found.data.tags["b"] == "gone: https://me:***@host/x"
    assert found.data.tags["resumed.a"] == "https://me:***@host/x/y"
    assert "s3cret" not in str(found.to_dictionary())


def test_a_store_that_fails_is_named_without_its_password(root, monkeypatch):
    """Regression: the sentence and MLflow's log had the user's password."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:s3cret@127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"^http://me:\*\*\*@127\.0\.0\.1:9: ") as caught:
        prepare_store(root)
    assert "s3cret" not in str(caught.value)
    line = logging.LogRecord("mlflow.x", logging.ERROR, "", 0, "%s", ("http://a:s3cret@h/",), None)
    for handler in logging.getLogger("mlflow").handlers:
        assert handler.filter(line)
    assert line.getMessage() == "http://a:***@h/"


def test_unknown_spacing_leaves_mm_out(root):
    with stored(root) as run:
        run.log_epoch(record(1, in_mm=False))
    metrics = read(root, run.run_id).data.metrics
    assert "val/error_voxels" in metrics
    assert not [name for name in metrics if "mm" in name]


def test_heatmaps_go_to_the_image_grid_by_key_and_step(root):
    figure = Figure(figsize=(0.6, 0.4), dpi=100, facecolor=(1.0, 0.0, 0.0))
    figure.text(0.1, 0.1, "x")
    with stored(root) as run:
        run.log_heatmap(figure_to_array(figure), "heatmap/val", 7)
    (path,) = (artifacts(root, run.run_id) / "images").glob("*.png")
    assert path.name.startswith("heatmap~val+step+7+")
    picture = np.asarray(Image.open(path))
    assert (picture.shape, picture[0, 0].tolist()) == ((40, 60, 3), [255, 0, 0])
    np.testing.assert_array_equal(picture, figure_to_array(figure))
    assert read(root, run.run_id).data.tags["mlflow.loggedImages"] == "True"


def test_files_and_mappings_become_artifacts(root, tmp_path):
    (tmp_path / "losses.png").write_bytes(b"picture")
    with stored(root) as run:
        run.log_file(tmp_path / "losses.png", "outputs")
        run.log_dict({"train": ["a"]}, "split.json")
    folder = artifacts(root, run.run_id)
    assert (folder / "outputs" / "losses.png").read_bytes() == b"picture"
    assert json.loads((folder / "split.json").read_text(encoding="utf-8")) == {"train": ["a"]}


def test_dataset_names_every_scan_and_changes_with_its_cache_key(root):
    splits = {"train": ["a", "b"], "val": ["c"]}
    digests = []
    for key in ("k2", "k2", "other"):
        with stored(root) as run:
            run.log_dataset(splits, {"a": "k1", "b": key, "c": "k3"})
        inputs = read(root, run.run_id).inputs.dataset_inputs
        digests.append({i.dataset.name: i.dataset.digest for i in inputs})
        contexts = {i.dataset.name: i.tags[0].value for i in inputs}
        assert contexts == {"train scans": "train", "val scans": "val"}
        content = json.loads(
            (artifacts(root, run.run_id) / "dataset.json").read_text(encoding="utf-8")
        )
        assert content == {"train": {"a": "k1", "b": key}, "val": {"c": "k3"}}
    assert digests[0] == digests[1]
    assert digests[0]["train scans"] != digests[2]["train scans"]
    assert digests[0]["val scans"] == digests[2]["val scans"]


@pytest.mark.parametrize(
    ("exception", "status"),
    [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")],
)
def test_an_ended_run_is_never_left_running(root, exception, status):
    with pytest.raises(exception), stored(root) as run:
        assert read(root, run.run_id).info.status == "RUNNING"
        raise exception
    assert read(root, run.run_id).info.status == status
    assert read(root, run.run_id).info.end_time is not None


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_run_is_opened_ends_it(root, monkeypatch, number, resume):
    """Regression guard: the run was in the store, RUNNING, and its id not yet known here."""
    with stored(root) as run:
        pass
    method = "update_run" if resume else "create_run"
    real = getattr(MlflowClient, method)

    def interrupted(*arguments, **settings):
        opened = real(*arguments, **settings)
        signal.raise_signal(number)
        return opened

    def end(*_):
        raise KeyboardInterrupt

    before = {n: signal.signal(n, end) for n in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(MlflowClient, method, interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            stored(root, run_id=run.run_id if resume else None).__enter__()
        assert signal.getsignal(number) is end
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
    experiment = run.client.get_experiment_by_name("jaw_location").experiment_id
    statuses = sorted(found.info.status for found in run.client.search_runs([experiment]))
    assert statuses == (["KILLED"] if resume else ["FINISHED", "KILLED"])


def test_resuming_adds_to_the_run_and_says_what_changed(root):
    settings = {"learning_rate": 0.01, "device": "cuda"}
    with pytest.raises(KeyboardInterrupt), tracked_run(root, "a", params=settings, tags={}) as run:
        run.log_epoch(record(1))
        raise KeyboardInterrupt
    now = settings | {"device": "cpu", "new": 1}
    with tracked_run(root, "a", params=now, tags={}, run_id=run.run_id) as again:
        assert read(root, run.run_id).info.status == "RUNNING"
        again.log_epoch(record(2))
    found = read(root, run.run_id)
    assert again.run_id == run.run_id
    assert found.info.status == "FINISHED"
    assert found.data.params == {"learning_rate": "0.01", "device": "cuda", "new": "1"}
    assert found.data.tags["resumed.device"] == "cpu"
    assert "resumed.learning_rate" not in found.data.tags
    steps = [m.step for m in run.client.get_metric_history(run.run_id, "val/kl")]
    assert steps == [1, 2]


def test_resuming_in_another_store_is_refused(root):
    refused = pytest.raises(InputError, match=r"0123.*can only be resumed in the tracking store")
    with refused, stored(root, run_id="0123" * 8):
        pass


def test_a_trial_is_shown_under_its_search(root):
    with stored(root, "search") as search, stored(root, "t", parent_run_id=search.run_id) as run:
        pass
    assert read(root, run.run_id).data.tags["mlflow.parentRunId"] == search.run_id
    assert read(root, search.run_id).info.status == "FINISHED"


def test_nothing_global_is_changed(root):
    before = mlflow.get_tracking_uri()
    with stored(root):
        assert mlflow.active_run() is None
        assert "MLFLOW_TRACKING_URI" not in os.environ
    assert mlflow.get_tracking_uri() == before


@pytest.fixture(scope="module")
def small_locator(tmp_path_factory):
    """An untrained locator's file and two phantom scans."""
    folder = tmp_path_factory.mktemp("locator")
    torch.manual_seed(0)
    config = NetworkConfig(coarse=1, channels=(2, 4), stride=4)
    network = build_network(config, 1)
    locator = Locator((network,), config, (48, 24, 24), IntensityConfig(), {"jaw": None}, ((1.0,),))
    save_locator(locator, folder / "small.pth")
    for seed in (1, 2):
        write_phantom(folder / f"p{seed}.dcm", seed, (60, 30, 30))
    return locator, folder


def test_logged_locator_predicts_from_paths_without_a_pickle(root, small_locator):
    locator, folder = small_locator
    with tracked_run(root, "m", params={"seed": 3}, tags={}) as run:
        run.log_epoch(record(1))
        run.log_summary({"test_error_voxels": 1.25})
        uri = run.log_locator(folder / "small.pth")

    logged = run.client.get_logged_model(uri.removeprefix("models:/"))
    assert str(logged.status) == "READY"
    assert logged.params == {"seed": "3"}
    assert [(m.key, m.value) for m in logged.metrics] == [("test_error_voxels", 1.25)]
    (output,) = read(root, run.run_id).outputs.model_outputs
    assert output.model_id == logged.model_id

    files = root / "mlruns" / "artifacts" / "models" / logged.model_id / "artifacts"
    assert (files / "code" / "jawloc" / "reporting" / "tracking" / "served_model.py").is_file()
    pinned = (files / "requirements.txt").read_text(encoding="utf-8").split()
    assert all("==" in line and "+" not in line for line in pinned)
    (weights,) = files.rglob("*.pth")
    assert zipfile.is_zipfile(weights)
    rest = [p for p in files.rglob("*") if p.is_file() and p != weights]
    assert not [p for p in rest if p.read_bytes()[:1] == b"\x80"]  # how every pickle begins

    model = mlflow.pyfunc.load_model(str(files))
    paths = [str(folder / "p1.dcm"), str(folder / "p2.dcm")]
    table = model.predict(pd.DataFrame({"scan": paths}))
    pd.testing.assert_frame_equal(table, model.predict(paths))
    assert list(table.columns) == [c.name for c in model.metadata.signature.outputs]
    assert list(table["scan"]) == paths
    expected = [locator.locate(Path(path))[0] for path in paths]
    found = table[["z_voxels", "y_voxels", "x_voxels"]].to_numpy()
    np.testing.assert_allclose(found, [e.point_voxels for e in expected], rtol=1e-5)
    in_mm = table[["z_mm", "y_mm", "x_mm"]].to_numpy(float)
    np.testing.assert_allclose(in_mm, [e.point_mm for e in expected], rtol=1e-5)


def test_a_locator_that_cannot_be_logged_is_marked_failed(root, tmp_path):
    with pytest.raises(ConnectionError, match="reached or used"), stored(root) as run:
        run.log_locator(tmp_path / "missing.pth")
    experiment = run.client.get_experiment_by_name("jaw_location").experiment_id
    (logged,) = run.client.search_logged_models([experiment])
    assert str(logged.status) == "FAILED"


def test_a_server_that_does_not_answer_is_named_at_once(root, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    retries = os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]
    with pytest.raises(ConnectionError, match=r"^http://127\.0\.0\.1:9: .*can't be reached"):
        prepare_store(root)
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == retries
