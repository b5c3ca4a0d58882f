"""Runs that killed processes left RUNNING."""

from __future__ import annotations

from contextlib import suppress

from mlflow import MlflowClient

from jawloc.reporting.tracking.processes import HOST, host, is_dead
from jawloc.reporting.tracking.spool import STORE_ERRORS
from jawloc.reporting.tracking.store import briefly


def end_dead_runs(client: MlflowClient, experiment: str) -> None:
    """End the runs of an experiment as KILLED that are RUNNING, but whose process is gone.

    Only processes of this machine are known to be. A store that does not answer keeps them until
    the next command.
    """
    mine = f"attributes.status = 'RUNNING' and tags.`{HOST}` = '{host()}'"
    with suppress(*STORE_ERRORS), briefly():
        known = client.get_experiment_by_name(experiment).experiment_id
        for run in client.search_runs([known], mine):
            # asked anew: another process may have resumed it since
            if is_dead(run.data.tags) and is_dead(client.get_run(run.info.run_id).data.tags):
                client.set_terminated(run.info.run_id, "KILLED")
