"""What killed processes left in the store is ended, and what they had begun is done whole, once."""

import math
import os

import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient

from jawloc.reporting.figures import figure_to_array
from jawloc.reporting.tracking import model_logging, registry
from jawloc.reporting.tracking.model_files import model_file
from jawloc.reporting.tracking.processes import PROCESS
from jawloc.reporting.tracking.runs import tracked_run
from jawloc.reporting.tracking.store import tracking_uri
from tests.lab import write_model
from tests.reporting.tracking.test_runs import record

DEAD = str(2**22 + 1)  # a process's number that Linux doesn't give


class Killed(BaseException):
    """Ends a block as `kill -9` would: nothing that jawloc does then may happen."""


@pytest.fixture
def root(copy_store, tmp_path):
    copy_store(tmp_path)
    return tmp_path


def killed_run(root, log, process=DEAD):
    """Log to a run as a process that is killed then; return the run's id."""
    with tracked_run(root, "m", params={}) as run:
        log(run)
        run.tag({PROCESS: process})
    run.client.update_run(run.run_id, status="RUNNING")
    return run.run_id


def status(root, run_id):
    return MlflowClient(tracking_uri(root)).get_run(run_id).info.status


def test_a_later_command_ends_the_run_of_a_dead_process_and_no_others(root):
    """Regression: it was shown as running for ever."""
    dead = killed_run(root, lambda _: None)
    alive = killed_run(root, lambda _: None, str(os.getpid()))
    with tracked_run(root, "search", params={}) as search:
        assert (status(root, dead), status(root, alive)) == ("KILLED", "RUNNING")
        MlflowClient(tracking_uri(root)).update_run(dead, status="RUNNING")
        with tracked_run(root, "trial", params={}, parent_run_id=search.run_id):
            assert status(root, dead) == "RUNNING"  # looked for once a command


def test_a_resumed_run_belongs_to_the_new_process(root):
    dead = killed_run(root, lambda run: run.log_epoch(record(1)))
    with tracked_run(root, "m", params={}, run_id=dead), tracked_run(root, "other", params={}):
        assert status(root, dead) == "RUNNING"
    assert status(root, dead) == "FINISHED"


def test_a_picture_of_which_only_a_part_was_logged_is_logged_anew(root):
    """Regression: the grid showed the picture twice, or none of it."""
    figure = Figure(figsize=(0.1, 0.1))

    def log_part(run):
        run.log_heatmap(figure_to_array(figure), "heatmap/val", 1)
        for path in (root / "mlruns/artifacts" / run.run_id / "artifacts/images").glob("*.webp"):
            path.unlink()

    run_id = killed_run(root, log_part)
    with tracked_run(root, "m", params={}, run_id=run_id) as run:
        run.log_heatmap(figure_to_array(figure), "heatmap/val", 1)
        run.log_heatmap(figure_to_array(figure), "heatmap/val", 10)
    paths = [file.path for file in run.client.list_artifacts(run_id, "images")]
    assert sorted(path.partition("+timestamp")[0] for path in paths) == [
        "images/heatmap~val+step+1",
        "images/heatmap~val+step+1",
        "images/heatmap~val+step+10",
        "images/heatmap~val+step+10",
    ]


@pytest.mark.parametrize("when", ["before its files", "before it is ready", "before it is listed"])
def test_a_model_of_which_only_a_part_was_logged_is_whole_in_the_end(root, monkeypatch, when):
    """Regression: it stayed pending, and a second one was logged beside one that was whole."""
    weights = write_model(root / "m.pth")

    def killed(*_, **__):
        raise Killed

    def log_part(run):
        run.log_summary({"test_error_voxels": 1.25})
        with monkeypatch.context() as patch, pytest.raises(Killed):
            if when == "before its files":
                patch.setattr(model_logging, "_save_model", killed)
            if when != "before it is listed":  # nor can it be marked as failed
                patch.setattr(MlflowClient, "finalize_logged_model", killed)
            patch.setattr(MlflowClient, "log_outputs", killed)
            run.log_locator(weights)

    run_id = killed_run(root, log_part)
    with tracked_run(root, "m", params={}, run_id=run_id) as run:
        run.log_summary({"test_error_voxels": 1.25})
        run.log_locator(weights)
    found = run.client.get_run(run_id)
    models = run.client.search_logged_models([found.info.experiment_id])
    (output,) = found.outputs.model_outputs
    states = {model.model_id: str(model.status) for model in models}
    assert states.pop(output.model_id) == "READY"
    assert list(states.values()) == ([] if when == "before it is listed" else ["FAILED"])
    (logged,) = (model for model in models if model.model_id == output.model_id)
    assert [(m.key, m.value) for m in logged.metrics] == [("test_error_voxels", 1.25)]
    history = run.client.get_metric_history(run_id, "test_error_voxels")
    assert [m.step for m in history] == [0]


def test_a_run_that_was_given_more_epochs_has_their_numbers_and_their_model(root):
    """Regression: it kept the numbers and the model that were logged before it was killed."""
    weights = write_model(root / "m.pth", seed=1)
    with tracked_run(root, "m", params={}) as run:
        run.log_summary({"epochs": 3, "test/error_mm": 16.5, "same": 1.0, "none": math.nan})
        old = run.log_locator(weights)
    write_model(weights, seed=2)
    with tracked_run(root, "m", params={}, run_id=run.run_id) as run:
        run.log_summary({"epochs": 12, "test/error_mm": 9.9, "same": 1.0, "none": math.nan})
        new = run.log_locator(weights)
    metrics = run.client.get_run(run.run_id).data.metrics
    assert (metrics["epochs"], metrics["test/error_mm"], metrics["same"]) == (12, 9.9, 1.0)
    for key in ("same", "none"):
        assert len(run.client.get_metric_history(run.run_id, key)) == 1
    logged = run.client.get_logged_model(new.removeprefix("models:/"))
    assert {m.key: m.value for m in logged.metrics}["test/error_mm"] == 9.9
    with model_file(f"runs:/{run.run_id}/locator", root) as found:
        assert found.read_bytes() == weights.read_bytes()
    assert new != old
    known = registry.find_model(root, "m", weights, run.run_id)
    version = registry.register(root, known)
    with model_file(version.uri, root) as found:
        assert found.read_bytes() == weights.read_bytes()
