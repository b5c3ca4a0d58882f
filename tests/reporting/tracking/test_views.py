"""The experiment's kind and saved views, as MLflow's page reads them."""

import json

import pytest
from mlflow import MlflowClient

from jawloc.reporting.tracking.store import prepare_store
from jawloc.reporting.tracking.views import describe_experiment, save_study_view

KIND, VIEW = "mlflow.experimentKind", "mlflow.sharedViewState."


@pytest.fixture
def client(copy_store, tmp_path):
    """A client of a store whose experiment jawloc has made."""
    copy_store(tmp_path)
    return MlflowClient(prepare_store(tmp_path))


def known(client):
    return client.get_experiment_by_name("jaw_location")


def state(tag):
    """Return what a view's tag holds; its parts are those that MLflow's page asks for."""
    view = json.loads(tag)
    assert isinstance(view["name"], str) and isinstance(view["createdAt"], int)
    return json.loads(view["state"])


def test_the_experiment_opens_on_the_pages_for_training(client):
    """Regression: it opened on those for language models."""
    assert known(client).tags[KIND] == "custom_model_development"


def test_the_columns_that_matter_come_first(client):
    columns = state(known(client).tags[VIEW + "results"])["selectedColumns"]
    assert columns[0] == "metrics.`test/error_mm`"
    assert "params.`curriculum.minimum_sigma`" in columns


def test_the_pictures_of_the_view_are_without_params_and_begin_where_there_are_some(client):
    charts = state(known(client).tags[VIEW + "heatmaps"])["compareRunCharts"]
    pictures = [chart for chart in charts if chart["type"] == "IMAGE"]
    assert [(chart["imageKeys"], chart["step"]) for chart in pictures] == [
        (["heatmap/val"], 0),
        (["heatmap/train"], 0),
    ]
    assert not any(chart["showRunParams"] for chart in pictures)


def test_a_kind_that_the_user_chose_stays_and_a_view_of_an_older_jawloc_is_renewed(client):
    number = known(client).experiment_id
    client.set_experiment_tag(number, KIND, "finetuning")
    client.set_experiment_tag(number, VIEW + "results", "{}")
    describe_experiment(client, known(client))
    tags = known(client).tags
    assert tags[KIND] == "finetuning"
    assert state(tags[VIEW + "results"])


def test_a_studys_view_shows_its_trials_best_first(client):
    number = known(client).experiment_id
    page = save_study_view(client, number, "my+study", ["a.b", "c"], "error")
    assert page == (
        f"#/experiments/{number}/runs?workflowType=machine_learning"
        "&viewStateShareKey=study-my_2bstudy&compareRunsMode=CHART"
    )
    view = state(known(client).tags[VIEW + "study-my_2bstudy"])
    (chart,) = view["compareRunCharts"]
    assert (chart["type"], chart["selectedParams"]) == ("PARALLEL", ["a.b", "c"])
    assert view["searchFilter"] == "tags.`optuna.study` = 'my+study' AND tags.kind = 'trial'"
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`error`", True)


def test_studies_of_similar_names_have_views_of_their_own(client):
    number = known(client).experiment_id
    pages = {save_study_view(client, number, name, [], "e") for name in ("a b", "a+b", "a_b")}
    assert len(pages) == 3
