"""A run's page in MLflow: its address, and the description at its top."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from jawloc.reporting.tracking import images
from jawloc.reporting.tracking.runs import TrackedRun
from jawloc.reporting.tracking.spool import STORE_ERRORS
from jawloc.reporting.tracking.store import briefly
from jawloc.reporting.tracking.views import save_study_view

DESCRIPTION = "mlflow.note.content"  # the tag that the page shows as Markdown


def page_of(run: TrackedRun) -> str | None:
    """Return the address of a run's page, relative to the server's; None if it is unknown."""
    with suppress(*STORE_ERRORS), briefly():
        known = run.client.get_run(run.run_id).info.experiment_id
        return f"#/experiments/{known}/runs/{run.run_id}"
    return None


def last_thumbnails(run: TrackedRun) -> list[str]:
    """Return the paths of the image grid's last thumbnails; none if the store fails."""
    with suppress(*STORE_ERRORS), briefly():
        return images.last_thumbnails(run.client, run.run_id)
    return []


def describe(run: TrackedRun, text: str) -> None:
    """Set a run's description, Markdown."""
    run.tag({DESCRIPTION: text})


def description_of(run: TrackedRun) -> str:
    """Return a run's description; empty if it has none."""
    return str(run.client.get_run(run.run_id).data.tags.get(DESCRIPTION, ""))


def study_page(run: TrackedRun, study: str, settings: Sequence[str], error: str) -> str | None:
    """Save the view of a study's trials, whose run is given, and return its address.

    None if the store fails, or this user may not change the experiment.
    """
    with suppress(*STORE_ERRORS), briefly():
        known = run.client.get_run(run.run_id).info.experiment_id
        return save_study_view(run.client, known, study, settings, error)
    return None
