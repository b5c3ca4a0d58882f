"""Which run made a model, and its versions, in a store of the test's own."""

from __future__ import annotations

import math

import pytest
from mlflow import MlflowClient

from jawloc.reporting.tracking import registry
from jawloc.reporting.tracking.runs import TrackedRun, tracked_run
from jawloc.reporting.tracking.store import logged_models, tracking_uri
from tests.lab import write_model


@pytest.fixture
def trained(lab):
    """Return a function that makes a model as a training leaves it: run, files, logged model."""

    def make(name: str, seed: int = 0, *, logged: bool = True):
        path = write_model(lab / "script_output" / "jaw_location" / name / f"{name}.pth", seed=seed)
        with tracked_run(lab, name, params={}) as run:
            run.log_file(path, "outputs")
            if logged:
                run.log_locator(path)
        return path, run.run_id

    return make


def test_the_run_is_that_of_the_models_own_record_wherever_the_file_is(lab, trained):
    path, run_id = trained("mine")
    other, _ = trained("other", 1)
    (path.parent / "summary.json").write_text('{"name": "elsewhere", "run_id": "not this one"}')
    copy = path.replace(lab / "elsewhere.pth")
    known = registry.find_model(lab, "elsewhere.pth", copy, run_id)
    assert (known.run_id, known.name) == (run_id, "elsewhere")
    # what lies beside a file says nothing of it
    (other.parent / "summary.json").write_text(f'{{"name": "other", "run_id": "{run_id}"}}')
    assert registry.find_model(lab, "other", other, None).run_id != run_id


def test_an_older_models_run_is_the_one_with_its_name_and_its_weights(lab, trained):
    path, run_id = trained("mine", logged=False)
    with tracked_run(lab, "mine", params={}):
        pass  # of the same name, but newer and without the model
    assert registry.find_model(lab, "mine", path, None).run_id == run_id
    write_model(path, seed=9)
    assert registry.find_model(lab, "mine", path, None).run_id is None


def test_a_run_of_another_store_does_not_count(lab, trained):
    path, _ = trained("mine", logged=False)
    write_model(path, seed=9)
    assert registry.find_model(lab, "mine", path, "f" * 32).run_id is None


def test_a_model_is_a_version_once_and_the_alias_moves(lab, trained):
    assert registry.find_champion(lab) is None
    known = [registry.find_model(lab, n, *trained(n, i)) for i, n in enumerate(("one", "two"))]
    versions = [registry.register(lab, one) for one in (*known, known[0])]
    assert [version.number for version in versions] == ["1", "2", "1"]
    for version in versions[:2]:
        registry.make_champion(lab, version)
        found = registry.find_champion(lab)
        assert (found.number, found.digest) == (version.number, version.digest)
    registry.tag_version(lab, versions[0], {"evaluation.test": "x"})
    client = MlflowClient(tracking_uri(lab))
    assert client.get_model_version("jaw_locator", "1").tags["evaluation.test"] == "x"
    # by its address in the registry, it is found with its run
    again = registry.find_model(lab, "models:/jaw_locator@champion", known[1].weights, None)
    assert (again.version, again.run_id) == ("2", known[1].run_id)


def test_a_version_that_somebody_else_registered_is_not_registered_again(lab, trained):
    path, run_id = trained("mine")
    client = MlflowClient(tracking_uri(lab))
    model = client.get_logged_model(client.get_run(run_id).outputs.model_outputs[0].model_id)
    client.create_registered_model("jaw_locator")
    client.create_model_version(
        "jaw_locator", model.artifact_location, run_id, model_id=model.model_id
    )
    assert registry.register(lab, registry.find_model(lab, "mine", path, run_id)).number == "1"


def test_a_store_that_does_not_answer_is_one_sentence(lab, trained, monkeypatch):
    path, _ = trained("mine", logged=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:9"):
        registry.find_model(lab, "mine", path, None)


def test_an_evaluation_replaces_the_numbers_of_an_earlier_one(lab, trained):
    """Regression: what it lacked, such as an error in mm, stayed beside its own numbers."""
    path, run_id = trained("mine", logged=False)
    known = registry.find_model(lab, "mine", path, run_id)
    run = TrackedRun(MlflowClient(tracking_uri(lab)), run_id)
    run.log_summary({"test/error_mm": 0.5})
    first = {"evaluation_scans": 2.0, "evaluation_error_mm_mean": 7.5}
    registry.log_evaluation(lab, known, first, [])
    registry.log_evaluation(lab, known, {}, [path])  # files alone
    assert run.client.get_run(run_id).data.metrics == {"test/error_mm": 0.5, **first}
    registry.log_evaluation(lab, known, {"evaluation_scans": 1.0}, [])
    metrics = run.client.get_run(run_id).data.metrics
    assert math.isnan(metrics.pop("evaluation_error_mm_mean"))
    assert metrics == {"test/error_mm": 0.5, "evaluation_scans": 1.0}
    # and a model that is registered now has no error of 0 mm
    registry.register(lab, known)
    (model,) = logged_models(run.client, run_id)
    assert {metric.key for metric in model.metrics} == set(metrics)
