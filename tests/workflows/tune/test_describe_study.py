"""A study's page says what was searched, what won and by how much."""

from types import SimpleNamespace

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from jawloc.workflows.tune import describe_study as module
from jawloc.workflows.tune.describe_study import describe_study, trial_name
from jawloc.workflows.tune.search_space import Range, Space

SPACE = Space("space.yml", {"curriculum.threshold": Range(0.5, 4.0)})


def test_a_trial_is_named_by_its_settings():
    """Regression: trials were called "curriculum 0"."""
    settings = {"curriculum.threshold": 0.70710678, "batch_size": 2}
    assert trial_name("search", 3, settings) == "search trial 3: threshold 0.707, batch_size 2"


def test_a_long_name_is_cut():
    assert len(trial_name("search", 3, {f"setting_{n}": 1 for n in range(50)})) < 130


@pytest.fixture
def described(monkeypatch):
    """Return what is described of trials with these errors (None: pruned)."""
    texts = []
    monkeypatch.setattr(module, "describe", lambda _, text: texts.append(text))
    monkeypatch.setattr(module, "page_of", lambda _: "#/page")
    monkeypatch.setattr(module, "study_page", lambda *_: "#/view")

    def of(*errors):
        study = optuna.create_study(study_name="search")
        for number, error in enumerate(errors):
            state = TrialState.PRUNED if error is None else TrialState.COMPLETE
            study.add_trial(
                create_trial(
                    params={"curriculum.threshold": 1.0 + number},
                    distributions={"curriculum.threshold": FloatDistribution(0.5, 9)},
                    value=error,
                    state=state,
                )
            )
        run = SimpleNamespace(run_id="r1")
        files = ["trials.csv", "study.html", "history.png"]
        complete = study.get_trials(states=(TrialState.COMPLETE,))
        states = {"complete": len(complete), "pruned": len(errors) - len(complete), "failed": 0}
        options = ["--model-name best-search", "--experiment tuning/best.yml"]
        describe_study(run, study, SPACE, states, complete, files, options)
        return texts[-1]

    return of


def test_it_says_what_won_and_by_how_much(described):
    text = described(2.0, 1.5, None)
    assert "3 trials (2 complete, 1 pruned)" in text
    assert "| `curriculum.threshold` | 0.5 to 4 | 2 | 1 |" in text
    assert "| validation error, downsampled voxels | | **1.5** | 2 |" in text
    assert text.startswith(
        "**Trial 1 won, with a validation error of 1.5 downsampled voxels: 25 % less than trial 0**"
    )
    assert "jawloc-train --model-name best-search \\\n    --experiment tuning/best.yml" in text
    assert "[study.html](#/page/artifacts/study.html?" in text
    assert "(#/view)" in text


def test_the_settings_as_they_were_may_be_the_best(described):
    assert "Trial 0 is the best until now" in described(1.0, 1.5)


def test_without_a_complete_trial_nothing_won(described):
    text = described(None)
    assert "No trial is complete yet." in text
    assert "jawloc-train" not in text
