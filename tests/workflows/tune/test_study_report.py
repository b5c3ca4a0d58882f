"""What a study's run says of its best trial, in a store of the test's own."""

import math

import optuna
from mlflow import MlflowClient
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import create_trial

from jawloc.config import load_config
from jawloc.reporting.tracking.runs import tracked_run
from jawloc.reporting.tracking.store import tracking_uri
from jawloc.workflows.tune import study_report
from jawloc.workflows.tune.search_space import Choice, Range, Space
from jawloc.workflows.tune.study import StudyConfig
from jawloc.workflows.tune.trial import Task

SIGMA, THRESHOLD = "initial_kernel_size", "curriculum.threshold"
DISTRIBUTIONS = {
    SIGMA: CategoricalDistribution(("auto", 8.0)),
    THRESHOLD: FloatDistribution(0.5, 4.0),
}


def test_a_best_setting_that_is_a_text_now_has_no_number(lab, monkeypatch):
    """Regression: the number of an earlier best trial stayed beside the text."""
    monkeypatch.setattr(study_report, "_write_pictures", lambda *_: [])
    monkeypatch.setattr(study_report, "describe_study", lambda *_: None)
    space = Space("space.yml", {SIGMA: Choice(("auto", 8.0)), THRESHOLD: Range(0.5, 4.0)})
    config, study = load_config(lab / "userconf.yml"), optuna.create_study()
    config.base.joinpath("script_output/tuning/s").mkdir(parents=True)
    reported = []
    with tracked_run(lab, "s", params={}) as run:
        task = Task(config, space, StudyConfig("s"), run.run_id)
        for sigma, error in ((8.0, 0.5), ("auto", 0.3), (8.0, 0.1)):
            params = {SIGMA: sigma, THRESHOLD: 1.0}
            study.add_trial(create_trial(params=params, distributions=DISTRIBUTIONS, value=error))
            study_report.report_study(study, task, run)
            found = MlflowClient(tracking_uri(lab)).get_run(run.run_id).data
            assert found.tags[f"best.{SIGMA}"] == str(sigma)
            assert found.metrics[f"best.{THRESHOLD}"] == 1.0
            reported.append(found.metrics[f"best.{SIGMA}"])
    first, second, third = reported
    assert (first, third) == (8.0, 8.0)
    assert math.isnan(second)
