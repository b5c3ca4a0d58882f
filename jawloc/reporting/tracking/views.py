"""What MLflow's pages show first: the kind of the experiment, and saved views of its runs.

A saved view is a tag of the experiment, in the form in which MLflow's page writes and reads it. The
page offers it under "Views"; its link is the page's with `viewStateShareKey=` and the view's id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from mlflow import MlflowClient, MlflowException
from mlflow.entities import Experiment

PAGES_KIND = {"mlflow.experimentKind": "custom_model_development"}  # those for training models
# The tags by which the views and the pages' filters find runs: what a run is, and of a study and
# its trials, whose they are and how they ended.
KIND, STUDY, STATE = "kind", "optuna.study", "optuna.state"
VIEW = "mlflow.sharedViewState."  # begins a view's tag; its id follows
# Of a page's address: MLflow's menu shows what training models needs. Without it, the menu is that
# for language models, whatever the kind of the experiment, until the user changes it.
TRAINING = "workflowType=machine_learning"
RESULTS, HEATMAPS = "results", "heatmaps"
WRITTEN_MS = 1_700_000_000_000  # a fixed time: the tag is written once, not with every run

# The columns of the table of runs, as MLflow calls them; it shows metrics first, by their names.
COLUMNS = (
    *("metrics.`test/error_mm`", "metrics.`test/error_full_size_voxels`"),
    *("metrics.`out_of_fold/error_mm`", "metrics.`evaluation_error_mm_mean`"),
    *("metrics.`validation_error_mm`", "metrics.`objective_error_voxels`"),
    *("params.`curriculum.threshold`", "params.`curriculum.minimum_sigma`"),
    *("params.`learning_rate`", f"tags.`{KIND}`", "tags.`objects`", "tags.`grid`"),
)
# The charts of the view of heatmaps, and the metrics beside them.
PICTURES = ("heatmap/val", "heatmap/train")
CURVES = (
    "val/error_voxels",
    "curriculum/sigma",
    "curriculum/sigma_coarse",
    "curriculum/sigma_fine",
)


def describe_experiment(client: MlflowClient, known: Experiment) -> None:
    """Give an experiment its kind, if it has none, and jawloc's views of its runs.

    A store in which this user may not change experiments keeps its own.
    """
    wanted = {
        **({} if known.tags.keys() & PAGES_KIND.keys() else PAGES_KIND),
        VIEW + RESULTS: _view("Results", {"selectedColumns": list(COLUMNS)}),
        VIEW + HEATMAPS: _view("Heatmaps and curriculum", _heatmap_charts()),
    }
    for key, value in wanted.items():
        if known.tags.get(key) != value:
            with suppress(MlflowException):
                client.set_experiment_tag(known.experiment_id, key, value)


def save_study_view(
    client: MlflowClient, experiment_id: str, study: str, settings: Sequence[str], error: str
) -> str:
    """Save the view of a study's trials, in parallel coordinates; return the page's path."""
    # each name has its own, in the characters that MLflow allows in a tag's key
    view_id = "study-" + re.sub(r"[^A-Za-z0-9.-]", lambda found: f"_{ord(found[0]):x}", study)
    chart = {"type": "PARALLEL", "selectedParams": list(settings), "selectedMetrics": [error]}
    state = {
        "searchFilter": f"tags.`{STUDY}` = '{study}' AND tags.{KIND} = 'trial'",
        "orderByKey": f"metrics.`{error}`",
        "orderByAsc": True,
        "selectedColumns": [
            f"metrics.`{error}`",
            *(f"params.`{setting}`" for setting in settings),
            f"tags.`{STATE}`",
        ],
        **_charts("Trials", [{**chart, "showAllRuns": True}], columns=1, height=420),
    }
    client.set_experiment_tag(experiment_id, VIEW + view_id, _view(f"Study {study}", state))
    return f"{view_page(experiment_id, view_id)}&compareRunsMode=CHART"


def view_page(experiment_id: str, view_id: str) -> str:
    """Return the address of a saved view, relative to the server's."""
    return f"#/experiments/{experiment_id}/runs?{TRAINING}&viewStateShareKey={view_id}"


def _view(name: str, state: Mapping[str, Any]) -> str:
    return json.dumps(
        {"name": name, "createdAt": WRITTEN_MS, "updatedAt": WRITTEN_MS, "state": json.dumps(state)}
    )


def _heatmap_charts() -> dict[str, Any]:
    cards: list[dict[str, Any]] = [
        # without the params, which push a picture out of its tile
        {"type": "IMAGE", "imageKeys": [key], "step": 0, "showRunParams": False}
        for key in PICTURES
    ]
    cards += [{"type": "LINE", "metricKey": key, "selectedMetricKeys": [key]} for key in CURVES]
    return _charts("Heatmaps and curriculum", cards, columns=2, height=470)


def _charts(
    section: str, cards: Sequence[Mapping[str, Any]], columns: int, height: int
) -> dict[str, Any]:
    """Return one section of the page with these charts, first on the page; height in pixels."""
    place = {"uuid": "jawloc", "name": section, "display": True, "isReordered": True}
    place |= {"deleted": False, "isGenerated": False, "columns": columns, "cardHeight": height}
    common = {"metricSectionId": "jawloc", "deleted": False, "isGenerated": False}
    return {
        "compareRunSections": [place],
        "compareRunCharts": [
            {"uuid": f"jawloc-{number}", **common, "runsCountToCompare": 10, **card}
            for number, card in enumerate(cards)
        ],
        "isAccordionReordered": True,
    }
