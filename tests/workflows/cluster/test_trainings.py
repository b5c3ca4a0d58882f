"""Folds and trials on a real scheduler with three worker processes, one of which is killed."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tests.lab import write_config
from tests.workflows.cluster.conftest import interrupt, kill_first

pytest.importorskip("distributed", reason="needs jawloc[cluster]")
pytestmark = pytest.mark.slow


@pytest.fixture
def quick(lab):
    """A lab whose trainings take a moment."""
    write_config(lab, num_epochs=2, presence_classifier={"steps": 0})
    return lab


def folds_of(name: str) -> list:
    """Return what a cross-validation says of each scan."""
    path = Path("script_output/jaw_location", name, "summary.json")
    return json.loads(path.read_text(encoding="utf-8"))["out_of_fold_scans"]


def test_folds_are_those_of_one_machine_although_a_worker_is_killed(
    quick, jawloc, address, held, one_thread, no_pictures
):
    plain = jawloc("train", "--folds", "2", "--model-name", "plain")
    assert plain.exit_code == 0, plain.output
    words = ("train", "--folds", "2", "--model-name", "out")
    with held("jawloc.workflows.train", "log_epoch", kill_first, 2):
        result = jawloc(*words, "--scheduler", address)
    assert result.exit_code == 0, result.output
    assert folds_of("out") == folds_of("plain")


def test_folds_that_are_interrupted_go_on_on_one_machine(quick, jawloc, address, held, no_pictures):
    words = ("train", "--folds", "2", "--model-name", "out")
    with held("jawloc.workflows.train", "log_epoch", interrupt, 2):
        result = jawloc(*words, "--scheduler", address)
    assert result.exit_code == 130, result.output
    assert "--resume goes on from its last checkpoint" in result.stderr
    result = jawloc(*words, "--resume")
    assert result.exit_code == 0, result.output
    assert len(folds_of("out")) == 5


def test_a_study_has_its_trials_although_a_worker_is_killed(
    quick, jawloc, address, held, monkeypatch
):
    monkeypatch.setattr("jawloc.workflows.tune.study_report._write_pictures", lambda *_: [])
    with held("jawloc.workflows.tune.trial", "log_epoch", kill_first, 3):
        result = jawloc(
            "tune",
            "--trials",
            "4",
            "--sampler",
            "random",
            "--pruner",
            "none",
            "--study-name",
            "s",
            "--scheduler",
            address,
        )
    assert result.exit_code == 0, result.output
    storage = JournalStorage(JournalFileBackend("script_output/tuning/s/study.journal"))
    trials = optuna.load_study(study_name="s", storage=storage).trials
    states = [trial.state.name for trial in trials]
    assert states.count("COMPLETE") == 4
    assert states.count("FAIL") == 1  # it was tried again
    assert len(trials) == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "--scheduler", "tcp://127.0.0.1:1"), "--scheduler and --workers train folds"),
        (("tune", "--scheduler", "tcp://127.0.0.1:1", "--workers", "2"), "--scheduler has workers"),
    ],
)
def test_what_does_not_go_together_is_refused(quick, jawloc, words, said):
    assert jawloc(*words).stderr.startswith(f"Error: {said}")
