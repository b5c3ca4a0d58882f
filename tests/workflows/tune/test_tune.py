"""Whole studies on tiny scans: trials, their runs, going on, failing, being interrupted."""

import csv
import json
import math
import os
import shutil
import signal
import warnings

import numpy as np
import optuna
import pytest
import yaml
from mlflow import MlflowClient
from PIL import Image

import jawloc.workflows.train as experiment
from jawloc.config import load_config
from jawloc.errors import InputError, TrainingError
from jawloc.reporting.tracking.store import tracking_uri
from jawloc.scans.points.review import write_review
from jawloc.workflows.prepare_data import prepare_data
from jawloc.workflows.tune import StudyConfig, study_report
from jawloc.workflows.tune.search_space import Space, read_space
from jawloc.workflows.tune.trial import Task, set_up
from jawloc.workflows.tune.workers import work
from tests.lab import SCAN_IDS, only_sentence, write_config
from tests.workflows.test_correct_scans import SMALL, copied, reviewed
from tests.workflows.tune.machines import Machine, pid_of, trials_in

SPACE = {
    "search": {
        "curriculum.threshold": {"low": 1.0, "high": 100.0, "log": True},
        "curriculum.minimum_sigma": {"low": 1.0, "high": 3.0},
    }
}
DEFAULT = {"curriculum.threshold": 100.0, "curriculum.minimum_sigma": 1.5}


@pytest.fixture
def words(lab, no_pictures, monkeypatch):
    """The beginning of a command line in a lab that has a space; no pictures are drawn."""
    monkeypatch.setattr(study_report, "_write_pictures", lambda *_: [])
    return tune_words(lab)


def tune_words(lab):
    (lab / "space.yml").write_text(yaml.safe_dump(SPACE))
    return ["tune", "--space", "space.yml", "--epochs", "2", "--set", "cpu_threads=1"]


def folder(lab, study="space"):
    return lab / "script_output" / "tuning" / study


def study(lab, name="space"):
    journal = optuna.storages.journal.JournalFileBackend(str(folder(lab, name) / "study.journal"))
    return optuna.load_study(study_name=name, storage=optuna.storages.JournalStorage(journal))


def table(lab):
    with (folder(lab) / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def runs(lab):
    """Return the study's run and those of its trials, the first trial first."""
    client = MlflowClient(tracking_uri(lab))
    known = client.get_experiment_by_name("jaw_location")
    every = client.search_runs([known.experiment_id], order_by=["attributes.start_time ASC"])
    parents = [r for r in every if "mlflow.parentRunId" not in r.data.tags]
    assert len(parents) == 1, [(r.info.run_name, r.info.status, r.data.tags) for r in every]
    parent = parents[0]
    nested = [r for r in every if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return parent, nested


def test_a_study_from_its_first_trial_to_the_training_of_the_best(lab, words, jawloc):
    result = jawloc(*words, "--trials", 3)
    assert result.exit_code == 0, result.output
    assert "best of 3 trials (3 complete)" in result.output

    trials = study(lab).trials
    assert trials[0].params == DEFAULT
    best = min(trials, key=lambda trial: trial.value)
    rows = table(lab)
    assert [row["state"] for row in rows] == ["complete"] * 3
    assert [float(row["error_voxels"]) for row in rows] == [t.value for t in trials]

    parent, nested = runs(lab)
    assert parent.info.status == "FINISHED"
    shown = [parent.data.tags[k] for k in ("kind", "optuna.study", "optuna.state", "objects")]
    assert shown == ["study", "space", "complete", "jaw"]
    assert parent.data.metrics["full_size_scans_read_during_trials"] == 0
    assert parent.data.metrics["trials_complete"] == 3
    assert parent.data.metrics["best_trial"] == best.number
    assert parent.data.metrics["objective_error_voxels"] == pytest.approx(best.value)
    assert parent.data.metrics["best.curriculum.threshold"] == pytest.approx(
        best.params["curriculum.threshold"]
    )
    assert [run.info.run_id for run in nested] == [t.user_attrs["mlflow_run_id"] for t in trials]
    for number, run in enumerate(nested):
        tags = [run.data.tags[k] for k in ("kind", "optuna.study", "optuna.state", "objects")]
        assert tags == ["trial", "space", "complete", "jaw"]
        assert run.data.metrics["trial"] == number
        assert run.data.metrics["objective_error_voxels"] == pytest.approx(trials[number].value)
        assert {"val/error_voxels", "train/kl", "curriculum/sigma"} <= set(run.data.metrics)
        assert run.data.params["num_epochs"] == "2"
        value = float(run.data.params["curriculum.threshold"])
        assert value == trials[number].params["curriculum.threshold"]

    # the best settings give the best trial's figure again, to the last bit
    result = jawloc("train", "--model-name", "best", "--experiment", folder(lab) / "best.yml")
    assert result.exit_code == 0, result.output
    summary = json.loads(
        (lab / "script_output/jaw_location/best/summary.json").read_text(encoding="utf-8")
    )
    assert summary["validation_error"]["downsampled_voxels"] == best.value


def test_the_same_command_goes_on_and_a_finished_study_stays(lab, words, jawloc):
    """Regression: each command logged the study's numbers at step 0, over and over."""
    assert jawloc(*words, "--trials", 1).exit_code == 0
    assert jawloc(*words, "--trials", 2).exit_code == 0
    assert [t.state.name for t in study(lab).trials] == ["COMPLETE"] * 2
    before = (folder(lab) / "trials.csv").read_text(encoding="utf-8")
    assert jawloc(*words, "--trials", 2).exit_code == 0
    assert (folder(lab) / "trials.csv").read_text(encoding="utf-8") == before
    parent, nested = runs(lab)
    assert len(nested) == 2
    assert parent.data.metrics["trials_complete"] == 2
    history = MlflowClient(tracking_uri(lab)).get_metric_history(
        parent.info.run_id, "trials_complete"
    )
    assert [(m.step, m.value) for m in history] == [(1, 1), (2, 2)]


def test_pictures_of_a_study(lab, no_pictures, drawn, jawloc):
    assert jawloc(*tune_words(lab), "--trials", 4, "--sampler", "random").exit_code == 0
    names = {path.stem for path in folder(lab).glob("*.png")}
    expected = "history importances slice parallel_coordinates contour intermediate_values"
    assert names == set(expected.split())
    for path in folder(lab).glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 300
    page = (folder(lab) / "study.html").read_text(encoding="utf-8")
    assert page.count("Plotly.newPlot") == len(names)
    parent, _ = runs(lab)
    client = MlflowClient(tracking_uri(lab))
    logged = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"best.yml", "trials.csv", "study.html", "contour.png"} <= logged


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (TrainingError("epoch 1: the loss must stay a finite number"), "epoch 1: the loss must"),
        (MemoryError(), "out of memory"),
    ],
)
def test_a_trial_that_fails_says_why_and_the_study_goes_on(
    lab, words, jawloc, monkeypatch, failure, reason
):
    whole, begun = experiment.fit, []

    def fit(*arguments):
        begun.append(1)
        if len(begun) == 2:
            raise failure
        yield from whole(*arguments)

    monkeypatch.setattr(experiment, "fit", fit)
    result = jawloc(*words, "--trials", 3)
    assert result.exit_code == 0, result.output
    assert "2 complete, 1 failed" in result.output
    rows = table(lab)
    assert [row["state"] for row in rows] == ["complete", "failed", "complete"]
    assert rows[1]["reason"].startswith(reason)
    _, nested = runs(lab)
    assert [r.data.tags["optuna.state"] for r in nested] == ["complete", "failed", "complete"]
    assert nested[1].data.tags["optuna.reason"].startswith(reason)
    assert nested[1].info.status == "FAILED"


def test_an_interrupted_trial_is_tried_again(lab, words, jawloc, monkeypatch):
    whole, begun = experiment.fit, []

    def fit(*arguments):
        begun.append(1)
        for record in whole(*arguments):
            yield record
            if len(begun) == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "fit", fit)
    result = jawloc(*words, "--trials", 3)
    assert result.exit_code == 130
    assert "the same command goes on with the study" in result.stderr
    parent, nested = runs(lab)
    assert [r.data.tags["optuna.state"] for r in (parent, *nested)] == [
        *("interrupted", "complete", "interrupted")
    ]
    assert nested[1].info.status == "KILLED"

    result = jawloc(*words, "--trials", 3)
    assert result.exit_code == 0, result.output
    trials = study(lab).trials
    assert [t.state.name for t in trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert trials[2].params == trials[1].params
    assert "best of 3 trials (3 complete)" in result.output


def test_after_short_trials_the_command_to_train_names_the_epochs(lab, words, jawloc):
    """Regression: `best.yml` has the trials' few epochs, and so had what was trained with it."""
    result = jawloc(*words, "--trials", 1, "--epochs", 1)
    assert result.exit_code == 0, result.output
    whole = load_config(lab / "userconf.yml").training.num_epochs
    assert result.stdout.rstrip().endswith(f"best.yml --set num_epochs={whole}")
    comment = (folder(lab) / "best.yml").read_text().splitlines()[1]
    assert comment.endswith(f"--experiment best.yml --set num_epochs={whole}")
    page = runs(lab)[0].data.tags["mlflow.note.content"]
    assert f"/best.yml \\\n    --set num_epochs={whole}\n```" in page


def test_a_study_that_anything_ends_is_not_left_running(lab, words, jawloc, monkeypatch):
    def fail(*_):
        raise ConnectionError("the Dask scheduler does not answer any more")

    monkeypatch.setattr("jawloc.workflows.tune._run", fail)
    assert jawloc(*words, "--trials", 1).exit_code != 0
    parent, _ = runs(lab)
    assert parent.data.tags["optuna.state"] == "failed"


def test_folds_are_runs_of_their_own(lab, words, jawloc):
    result = jawloc(*words, "--trials", 1, "--folds", 2, "--pruner", "none")
    assert result.exit_code == 0, result.output
    (trial,) = study(lab).trials
    _, (nested,) = runs(lab)
    errors = [nested.data.metrics[f"fold_{k}_error_voxels"] for k in (1, 2)]
    assert trial.value == pytest.approx(sum(errors) / 2)
    client = MlflowClient(tracking_uri(lab))
    query = f"tags.`mlflow.parentRunId` = '{nested.info.run_id}'"
    folds = client.search_runs([nested.info.experiment_id], query)
    kept = sorted(f.data.metrics["validation_error_downsampled_voxels"] for f in folds)
    assert kept == pytest.approx(sorted(errors))


def test_corrected_scans_train_in_folds_and_validate_in_none(lab, words, jawloc, monkeypatch):
    """Regression: folds divided corrected and accepted scans, too, whose errors chose settings."""
    new = reviewed("new", copied("phantom_004", "new.nii.gz"), verdict="accepted")
    (lab / "dicoms" / "labelled" / "phantom_004.dcm").unlink()  # phantom_003 tests
    write_review(lab / "review.csv", [reviewed("phantom_001"), new])
    labels = prepare_data(load_config(write_config(lab))).examples
    write_config(lab, corrections="review.csv", accepted_weight=0.5)
    validated, train = [], experiment.train

    def watched(state, config, data, *, loaded, **others):
        scans, held = (loaded.select(ids) for ids in (data.split.train_ids, data.split.val_ids))
        assert {*scans.ids} == {*SCAN_IDS[:3], "new"} - {*held.ids}
        for scan_id, point in zip(scans.ids, scans.points, strict=True):
            label = SMALL if scan_id in ("new", "phantom_001") else labels[scan_id].points_voxels[0]
            np.testing.assert_allclose(point[0], label, atol=1e-4)
        for scan_id, point in zip(held.ids, held.points, strict=True):
            np.testing.assert_allclose(point, labels[scan_id].points_voxels, atol=1e-4)
        validated.extend(held.ids)
        return train(state, config, data, loaded=loaded, **others)

    monkeypatch.setattr("jawloc.workflows.tune.trial.train", watched)
    result = jawloc(*words, "--trials", 1, "--folds", 3)
    assert result.exit_code == 0, result.output
    assert "corrections: 2 positions in 2 scans train: 1 corrected, 1 accepted" in result.stderr
    assert sorted(validated) == SCAN_IDS[:3]


def test_a_study_warns_once_of_a_specimen_that_is_divided(lab):
    """And not again in each of its workers; a list that folds leave behind divides nothing."""
    for scan_id, name in zip(SCAN_IDS, ["a1", "b1_left", "b1_right", "c1", "d1"], strict=True):
        path = lab / "dicoms" / "labelled" / f"{scan_id}.dcm"
        path.rename(path.with_name(f"{name}.dcm"))
    config = load_config(write_config(lab, test_scans=["b1_left"]))
    with pytest.warns(UserWarning, match=r"b1 \(training: b1_right; test: b1_left\)"):
        prepare_data(config, folds=2)
    task = Task(config, Space("s", {}), StudyConfig("s", folds=2), "run")
    with warnings.catch_warnings(action="error"):
        set_up(task, "token", lambda _: None)
        prepare_data(load_config(write_config(lab, validation_scans=["b1_left"])), folds=2)


def test_a_worker_that_finds_other_scans_than_the_study_began_with_is_refused(lab, words, jawloc):
    """Regression guard: a scan that came meanwhile moved the split of the trials to come."""
    assert jawloc(*words, "--trials", 1).exit_code == 0
    first = next(path for path in (lab / "dicoms" / "labelled").glob("*.dcm"))
    shutil.copy(first, first.with_name("zebra.dcm"))
    told = "trials can't be compared with these: scans new: zebra; choose another name"
    assert told in only_sentence(jawloc(*words, "--trials", 2))
    config = load_config(lab / "userconf.yml", overrides=["num_epochs=2", "cpu_threads=1"])
    options = StudyConfig("space", trials=2)
    task = Task(config, read_space(lab / "space.yml"), options, runs(lab)[0].info.run_id)
    with pytest.raises(InputError, match="scans new: zebra"):
        work(task, deadline=math.inf)
    assert len(study(lab).trials) == 1


def test_a_study_in_another_storage_does_not_replace_the_results_of_one_of_its_name(
    lab, words, jawloc
):
    assert jawloc(*words, "--trials", 1).exit_code == 0
    before = {name: (folder(lab) / name).read_bytes() for name in ("trials.csv", "best.yml")}
    said = only_sentence(jawloc(*words, "--trials", 1, "--storage", "other.journal"))
    assert "--study-name: 'space' has results of a study that is not in other.journal (" in said
    assert {name: (folder(lab) / name).read_bytes() for name in before} == before
    assert jawloc(*words, "--trials", 2).exit_code == 0  # the study itself goes on


def test_a_pruned_trial_is_shown_as_such(lab, words, jawloc, monkeypatch):
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda trial: trial.number == 1)
    result = jawloc(*words, "--trials", 2)
    assert result.exit_code == 0, result.output
    assert "1 complete, 1 pruned" in result.output
    assert [row["state"] for row in table(lab)] == ["complete", "pruned"]
    assert [row["epochs"] for row in table(lab)] == ["2", "1"]
    _, nested = runs(lab)
    assert [r.data.tags["optuna.state"] for r in nested] == ["complete", "pruned"]
    assert {r.info.status for r in nested} == {"FINISHED"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--trials", 0), "--trials: at least 1; received 0"),
        (("--sampler", "best"), "--sampler: one of tpe, random, gp, qmc; received 'best'"),
        (("--space", "absent.yml"), "absent.yml: no such space file; --space must name one"),
        (("--set", "initial_kernel_size=2"), "curriculum.minimum_sigma must not exceed"),
        (("--folds", 9), "as folds; received 9 for 4 specimens in 4 scans"),
    ],
)
def test_bad_input_is_refused_before_the_first_trial(lab, words, jawloc, options, sentence):
    assert sentence in only_sentence(jawloc(*words, *options))
    assert not (lab / "script_output").exists()


@pytest.mark.slow
def test_two_workers_and_the_death_of_one(make_lab, tmp_path):
    """Every trial is accounted for in the study and in MLflow, the lost one as such."""
    lab = make_lab(tmp_path / "lab")
    machine = Machine(lab, [*tune_words(lab), "--trials", "4", "--workers", "2"])
    try:
        journal = folder(lab) / "study.journal"
        begun = machine.wait_for_trials(lambda: trials_in(journal), 2)
        os.kill(pid_of(begun[0]), signal.SIGKILL)
        machine.go_on()
        machine.ends_with(0)
    finally:
        machine.kill()
    trials = study(lab).trials
    states = [trial.state.name for trial in trials]
    assert states.count("COMPLETE") == 4
    assert states.count("FAIL") == 1
    assert len(states) == 5
    lost = trials[states.index("FAIL")]
    assert lost.number == begun[0].number
    again = [t for t in trials if t.params == lost.params and t is not lost]
    assert [trial.state.name for trial in again] == ["COMPLETE"]
    parent, nested = runs(lab)
    shown = {run.info.run_id: run.data.tags["optuna.state"] for run in nested}
    assert sorted(shown.values()) == ["complete"] * 4 + ["lost"]
    assert {t.user_attrs["mlflow_run_id"] for t in trials} == set(shown)
    assert parent.data.metrics["trials_complete"] == 4
    assert parent.data.metrics["full_size_scans_read_during_trials"] == 0


def test_a_study_of_the_intensity_is_not_taken_for_one_of_other_scans(lab, words, jawloc):
    """Regression: a key of its description ends as those of the scans do."""
    space = {"search": {**SPACE["search"], "intensity.low": {"low": 0.5, "high": 2.0}}}
    (lab / "space.yml").write_text(yaml.safe_dump(space))
    result = jawloc(*words, "--trials", 1)
    assert result.exit_code == 0, result.output
