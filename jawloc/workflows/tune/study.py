"""The study: its options, where it is stored, and whether a command may go on with it."""

from __future__ import annotations

import json
import math
import random
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import optuna
import sqlalchemy
from filelock import FileLock
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, WilcoxonPruner
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage

from jawloc.config import Config
from jawloc.errors import InputError
from jawloc.reporting.tracking.waiting_sqlite import CONNECT_ARGUMENTS, LOCK_SECONDS
from jawloc.scans.atomic import refuse_links
from jawloc.workflows.tune.database import (
    Database,
    is_postgresql,
    postgresql_lock,
    with_driver,
)
from jawloc.workflows.tune.differences import SCANS, difference, scans_of
from jawloc.workflows.tune.journal import Journal
from jawloc.workflows.tune.lost_trials import queue_again
from jawloc.workflows.tune.search_space import Space
from jawloc.workflows.tune.stored_trials import count_trials

SamplerName = Literal["tpe", "random", "gp", "qmc"]
PrunerName = Literal["none", "median", "hyperband", "wilcoxon"]
SAMPLERS: dict[str, Callable[..., BaseSampler]]
SAMPLERS = {"tpe": TPESampler, "random": RandomSampler, "gp": GPSampler, "qmc": QMCSampler}

OUTPUT_FOLDER = Path("script_output") / "tuning"
RESULTS = "trials.csv"  # in a study's folder
DESCRIPTION = "jawloc"  # the study's attribute with its search definition
# A database gets a heartbeat of each running trial this often; without one for the grace period, a
# trial is lost.
HEARTBEAT_SECONDS, GRACE_SECONDS = 10, 40
STARTUP_TRIALS = 5  # that no pruner stops, so that there is something to compare with
# What may differ between two commands on one study: none changes a trial's result.
FREE_SETTINGS = frozenset(
    {"dicom_dirs", "cache_dir", "n_workers", "device", "memory_budget_gb", "compare_with"}
)


@dataclass(frozen=True)
class StudyConfig:
    """The options of a study; an InputError names one that no study can have."""

    name: str
    trials: int = 30  # of the whole study, those of earlier commands included
    storage: str | None = None  # a database's URL or a journal file; None: in the study's folder
    workers: int = 1  # processes on this machine
    sampler: SamplerName = "tpe"
    pruner: PrunerName = "median"
    folds: int | None = None  # None: the split of the settings
    timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("trials", "workers"):
            if (number := getattr(self, name)) < 1:
                raise InputError(f"--{name}: at least 1; received {number}")
        if self.timeout_seconds is not None and not 0 < self.timeout_seconds < math.inf:
            hours = self.timeout_seconds / 3600
            raise InputError(f"--timeout: a number of hours above 0; received {hours:g}")
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9 ._+=-]*", self.name):
            raise InputError(
                "--study-name: letters, digits, spaces and . _ + = - only, not beginning with a "
                f"dot; received {self.name!r}"
            )
        for name, known in (("sampler", SamplerName), ("pruner", PrunerName)):
            if (value := getattr(self, name)) not in get_args(known):
                names = ", ".join(get_args(known))
                raise InputError(f"--{name}: one of {names}; received {value!r}")
        if self.pruner == "wilcoxon" and self.folds is None:
            raise InputError(
                "--pruner: wilcoxon compares trials fold by fold and needs --folds; received none"
            )

    @property
    def is_in_a_database(self) -> bool:
        """Whether the storage is a database's URL, rather than a journal file."""
        return self.storage is not None and "://" in self.storage

    def folder(self, base: Path) -> Path:
        """Return the folder of the study's files."""
        return base / OUTPUT_FOLDER / self.name

    def as_params(self) -> dict[str, Any]:
        """Return the options as params for tracking."""
        return {f"study.{key}": value for key, value in asdict(self).items() if key != "storage"}


def search_definition(
    config: Config, space: Space, study: StudyConfig, data: Mapping[str, str]
) -> dict:
    """Return what all commands on one study must have in common."""
    settings = {k: v for k, v in config.as_params().items() if k not in FREE_SETTINGS}
    searched = {f"search {key}": value for key, value in space.as_mapping().items()}
    if any(key.startswith("intensity.") for key in space.parameters):
        # version 0.1.0 ignored a trial's own
        searched["intensity of the scans"] = "each trial's own"
    # what "auto" chooses for each value, which differs where another setting was set by hand
    searched |= {f"search {k}, which sets": v for k, v in space.consequences(config).items()}
    scans = {f"{name}{SCANS}": ids for name, ids in data.items()}
    # as the study stores it
    every = {**settings, **searched, **scans, "folds": study.folds, "objective": "validation error"}
    return json.loads(json.dumps(every, default=str))


@contextmanager
def one_at_a_time(study: StudyConfig, config: Config) -> Iterator[None]:
    """Let one process at a time begin or report a study in a shared folder or PostgreSQL."""
    folder = study.folder(config.base)
    own = () if study.storage else (_journal(study, config.base),)
    refuse_links("--study-name", folder, folder / "workers", *own)
    with ExitStack() as locks:
        if study.storage is not None and is_postgresql(study.storage):
            try:
                with postgresql_lock(study.storage, "jawloc"):
                    load(study, config)  # one at a time makes the tables that all studies share
            except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
                raise _unusable(study, "can't be reached", error) from error
            locks.enter_context(postgresql_lock(study.storage, f"jawloc {study.name}"))
        elif study.is_in_a_database:
            load(study, config)  # raises if it can't be reached, before the folder is made
        folder.mkdir(parents=True, exist_ok=True)
        locks.enter_context(FileLock(folder / "opening.lock"))
        yield


def known_threads(study: StudyConfig, config: Config) -> int | None:
    """Return the number of threads of the study's trials; None of a new study."""
    return (_description(load(study, config)) or {}).get("cpu_threads")


def open_study(
    study: StudyConfig, config: Config, description: Mapping[str, Any], defaults: Mapping[str, Any]
) -> optuna.Study:
    """Begin the study with a trial of the default settings, or go on with it.

    An InputError says that the storage can't be reached, or that a study of this name searches
    something else, or has its results where a new one's would be.
    """
    opened = load(study, config)
    known = _description(opened)
    if known is None:
        if (table := study.folder(config.base) / RESULTS).is_file():
            raise InputError(
                f"--study-name: {study.name!r} has results of a study that is not in "
                f"{study.storage or 'its folder'} ({table}); choose another name, give the "
                f"--storage that it was begun with, or move its folder away"
            )
        opened.set_user_attr(DESCRIPTION, dict(description))
        opened.enqueue_trial(dict(defaults), skip_if_exists=True)
    elif known != description:
        raise InputError(difference(study.name, known, description))
    return opened


def refuse_other_scans(opened: optuna.Study, data: Mapping[str, str]) -> None:
    """Raise an InputError if a worker, which may begin much later, finds other scans."""
    known, found = scans_of(_description(opened) or {}), {f"{k}{SCANS}": v for k, v in data.items()}
    if known != found:
        raise InputError(difference(opened.study_name, known, found))


def _description(study: optuna.Study) -> Mapping[str, Any] | None:
    known = study.user_attrs.get(DESCRIPTION)
    if known is not None and not isinstance(known, Mapping):
        raise InputError(
            f"--study-name: {study.study_name!r} doesn't say what it searches; choose another name"
        )
    return known


def load(study: StudyConfig, config: Config, worker: int = 0) -> optuna.Study:
    """Return the study with the sampler of one worker, counted from 0."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        storage = _storage(study, config.base)
        opened = optuna.create_study(
            study_name=study.name,
            storage=storage,
            pruner=_pruner(study),
            direction="minimize",
            load_if_exists=True,
        )
        # all of it is read here, so that damage shows before any work
        trials, _, _ = count_trials(storage, study.name), opened.direction, opened.user_attrs
    except InputError:
        raise
    # each database's driver has types of its own; Optuna reads a damaged journal with any
    except Exception as error:
        if not study.is_in_a_database:
            journal, reason = _journal(study, config.base), _reason(error)
            raise InputError(f"{journal}: the study's journal can't be read; {reason}") from error
        foreign = isinstance(error, ValueError)  # of text and JSON too
        problem = "holds what isn't a study's" if foreign else "can't be reached"
        raise _unusable(study, problem, error) from error
    # the machines that share a database must not all try the same values
    host = socket.gethostname() if study.is_in_a_database else ""
    seed = _seed(trials, config.training.seed, f"{host} {worker}")
    opened.sampler = SAMPLERS[study.sampler](seed=seed)
    return opened


def _unusable(study: StudyConfig, problem: str, error: Exception) -> InputError:
    return InputError(f"--storage: {study.storage} {problem}; {_reason(error)}")


def _journal(study: StudyConfig, base: Path) -> Path:
    return Path(study.storage or study.folder(base) / "study.journal")


def _refuse_no_file(path: Path) -> None:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise InputError(f"--storage: a study must be a file; {path} is none")


def _storage(study: StudyConfig, base: Path) -> BaseStorage:
    if study.storage is None or not study.is_in_a_database:
        path = _journal(study, base)
        _refuse_no_file(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(Journal(path))
    url, grace, connect = with_driver(study.storage), GRACE_SECONDS, {}
    if (parts := sqlalchemy.make_url(url)).get_backend_name() == "sqlite":
        _refuse_no_file(Path(parts.database or ""))
        # there are no heartbeats while another process holds the file locked
        grace, connect = grace + int(LOCK_SECONDS), CONNECT_ARGUMENTS
    return Database(
        url,
        engine_kwargs={"connect_args": connect},
        heartbeat_interval=HEARTBEAT_SECONDS,
        grace_period=grace,
        heartbeat_stale_trial_callback=queue_again,
    )


def _seed(trials: int, seed: int, worker: str) -> int:
    """Return a seed that differs between workers, and between commands by the number of trials."""
    return random.Random(f"{seed} {worker} {trials}").randrange(2**31)


def _pruner(study: StudyConfig) -> BasePruner:
    if study.pruner == "median":  # trial.py asks it a few times only
        return MedianPruner(n_startup_trials=STARTUP_TRIALS)
    if study.pruner == "hyperband":  # the most steps are then those of the first trial
        return HyperbandPruner(max_resource=study.folds or "auto")
    if study.pruner == "wilcoxon":
        return WilcoxonPruner(n_startup_steps=1)
    return NopPruner()


@contextmanager
def reachable(study: StudyConfig) -> Iterator[None]:
    """Raise an InputError where the storage can't be reached any more."""
    try:
        yield
    except optuna.exceptions.StorageInternalError as error:
        raise InputError(
            f"--storage: {study.storage} could not be reached any more; once it can, the same "
            f"command goes on with the study ({_reason(error)})"
        ) from error


def _reason(error: BaseException) -> str:
    """Return the first line of the database's own message, which Optuna's hides."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
