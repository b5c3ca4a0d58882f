"""Commands in processes of their own, forked from a server that has imported everything.

Importing takes longer than what most of these commands do. A command stays in the middle of a trial
as long as its folder has a file `hold`, so that no test depends on how long a training takes.
"""

import functools
import multiprocessing
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import optuna
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.pool import NullPool

SECONDS = 300  # a test's patience; other tests may run beside it
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["jawloc.cli", "jawloc.workflows.tune", "mlflow.cli"])


class Machine:
    """A command that runs in a folder; what it says is in the folder's file `said`."""

    def __init__(self, lab, words, hold=True, waits=None, environment=None):
        self.hold, self.said = lab / "hold", lab / "said"
        if hold:
            self.hold.touch()
        arguments = (lab, [str(word) for word in words], waits or {}, environment or {})
        self.process = FORKS.Process(target=run_command, args=arguments)
        self.process.start()

    def go_on(self):
        self.hold.unlink(missing_ok=True)

    def ends_with(self, exit_code):
        """Wait for its end and return what it said."""
        self.process.join(SECONDS)
        code = self.process.exitcode
        self.kill()
        assert code == exit_code, self.said.read_text(encoding="utf-8")
        return self.said.read_text(encoding="utf-8")

    def kill(self):
        self.process.kill()
        self.process.join()

    def wait_for_trials(self, trials, number=1, beside=()):
        """Wait until the study has `number` trials that are in the middle, and return them.

        `beside` are machines that work on the same study.
        """
        until, known = time.monotonic() + SECONDS, []
        while time.monotonic() < until:
            for machine in (self, *beside):
                assert machine.process.is_alive(), machine.said.read_text(encoding="utf-8")
            with suppress(Exception):  # the tables, or the study, are not there yet
                known = trials()
            begun = [
                trial
                for trial in known
                if trial.state.name == "RUNNING"
                and trial.intermediate_values  # it is held after an epoch
            ]
            if len(begun) >= number:
                return begun
            time.sleep(0.3)
        states = [(trial.state.name, len(trial.intermediate_values)) for trial in known]
        raise AssertionError(
            [states, *(m.said.read_text(encoding="utf-8") for m in (self, *beside))]
        )


def pid_of(trial):
    """Return the process id of a trial's worker."""
    return int(trial.user_attrs["worker"].rsplit("-", 2)[1])


def trials_in(storage, name="space"):
    """Return the trials of a study in a database or a journal file."""
    return optuna.load_study(study_name=name, storage=_storage(str(storage))).trials


@functools.cache
def _storage(place):
    if "://" not in place:
        return JournalStorage(JournalFileBackend(place))
    url = place.replace("postgresql://", "postgresql+psycopg://")
    # a pool would keep connections to a server that a test stops
    return RDBStorage(url, engine_kwargs={"poolclass": NullPool})


def run_command(lab, words, waits, environment):
    """Be a machine: run a command line of jawloc in a folder."""
    from jawloc.cli import jawloc
    from jawloc.workflows.tune import study, study_report, workers

    settle(lab, environment)
    for name, seconds in waits.items():
        setattr(study, name, seconds)
    study_report._write_pictures = lambda *_: []
    workers._work_here = work_here
    hold_trainings()
    jawloc(words)


def run_server(folder, words):
    """Be an MLflow server with its processes in a group of their own."""
    from mlflow.cli import cli

    os.setsid()
    settle(folder, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
    cli(words)


def settle(folder, environment):
    """Use a folder, and say everything there."""
    os.chdir(folder)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ |= {"OMP_NUM_THREADS": "1", **environment}
    said = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.stdout.reconfigure(line_buffering=True)


def work_here(*arguments):
    """Do as one of jawloc's own workers, which are fresh interpreters; but hold its trainings."""
    from jawloc.workflows.tune import workers

    hold_trainings()
    workers._work_here(*arguments)


def hold_trainings():
    """Have every training wait after each epoch while the folder has a file `hold`; no pictures."""
    from matplotlib.figure import Figure

    from jawloc.workflows import log_training, train

    whole = train.fit

    def fit(*arguments):
        for record in whole(*arguments):
            yield record
            while Path("hold").exists():
                time.sleep(0.05)

    train.fit = fit
    blank = Figure(figsize=(0.1, 0.1))
    log_training.target_picture = lambda *_: blank
    log_training.heatmap_tiles = lambda *_: {"": blank}
