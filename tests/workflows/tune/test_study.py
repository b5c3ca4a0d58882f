"""Studies: what may be gone on with, which trials count, and what becomes of a dead worker's."""

import math
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from jawloc.config import load_config
from jawloc.errors import InputError
from jawloc.reporting.tracking import waiting_sqlite
from jawloc.workflows.tune import study as study_module
from jawloc.workflows.tune import workers
from jawloc.workflows.tune.cluster_workers import Trials, trials_task
from jawloc.workflows.tune.lost_trials import (
    asking,
    finished,
    is_under_way,
    queue_again,
    recover_lost,
    to_start,
    worker_token,
)
from jawloc.workflows.tune.search_space import Range, Space
from jawloc.workflows.tune.study import (
    SAMPLERS,
    StudyConfig,
    load,
    open_study,
    reachable,
    search_definition,
)
from jawloc.workflows.tune.trial import Task, is_comparison_due
from tests.lab import Payload, write_config
from tests.workflows.tune.machines import FORKS

SPACE = Space("space.yml", {"curriculum.threshold": Range(0.5, 2.0)})
WIDER = Space("space.yml", {"curriculum.threshold": Range(0.5, 3.0)})
STUDY = StudyConfig("sigma", trials=3, sampler="random", pruner="none")
DEFAULT = {"curriculum.threshold": 1.0}


@pytest.mark.parametrize("epochs", [15, 47, 67, 250])
def test_a_trial_of_any_length_is_compared_with_the_others(epochs, config):
    """Regression: comparisons were planned for 250 epochs, which no cycle of 600 steps has."""
    assert not any(is_comparison_due("median", epoch, epochs) for epoch in range(1, epochs // 5))
    due = [epoch for epoch in range(1, epochs) if is_comparison_due("median", epoch, epochs)]
    assert 4 <= len(due) <= 7
    pruned = {due[1]: [], due[2]: []}
    study = load(replace(STUDY, pruner="median"), config)
    for error in [1.0] * 6 + [9.0]:
        trial = study.ask()
        for epoch in range(1, epochs):
            trial.report(error, epoch)
            if epoch in pruned:
                pruned[epoch].append(trial.should_prune())
        study.tell(trial, error)
    assert list(pruned.values()) == [[False] * 6 + [True]] * 2


@pytest.fixture
def config(tmp_path):
    return load_config(write_config(tmp_path))


@pytest.fixture
def opened(config):
    return open_study(STUDY, config, search_definition(config, SPACE, STUDY, {}), DEFAULT)


def ask(study):
    trial = study.ask()
    return trial, trial.suggest_float("curriculum.threshold", 0.5, 2.0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"trials": 0}, "--trials: at least 1; received 0"),
        ({"trials": -3}, "--trials: at least 1; received -3"),
        ({"workers": 0}, "--workers: at least 1; received 0"),
        ({"timeout_seconds": 0.0}, "--timeout: a number of hours above 0; received 0"),
        ({"timeout_seconds": math.nan}, "--timeout: a number of hours above 0; received nan"),
        ({"timeout_seconds": math.inf}, "--timeout: a number of hours above 0; received inf"),
        ({"name": "../else"}, "--study-name: letters, digits"),
        ({"pruner": "wilcoxon"}, "--pruner: wilcoxon compares trials fold by fold"),
        ({"sampler": "best"}, "--sampler: one of tpe, random, gp, qmc; received 'best'"),
        (
            {"pruner": "shears"},
            "--pruner: one of none, median, hyperband, wilcoxon; received",
        ),
    ],
)
def test_options_that_no_study_can_have(changes, sentence):
    with pytest.raises(InputError) as error:
        replace(STUDY, **changes)
    assert str(error.value).startswith(sentence)


def test_the_first_trial_is_that_of_the_default_settings(opened):
    assert ask(opened)[1] == 1.0
    assert ask(opened)[1] != 1.0


def test_opening_again_goes_on_and_queues_the_default_once(opened, config):
    trial, _ = ask(opened)
    opened.tell(trial, 0.5)
    again = open_study(STUDY, config, search_definition(config, SPACE, STUDY, {}), DEFAULT)
    assert [t.state for t in again.trials] == [TrialState.COMPLETE]


@pytest.mark.parametrize(
    ("space", "study", "settings", "key"),
    [
        (
            Space("s", {"curriculum.threshold": Range(0.5, 3.0)}),
            {},
            {},
            "search curriculum.threshold",
        ),
        (SPACE, {"folds": 3}, {}, "folds"),
        (SPACE, {}, {"learning_rate": 0.001}, "learning_rate"),
    ],
)
def test_a_study_of_something_else_is_not_gone_on_with(
    opened, config, tmp_path, space, study, settings, key
):
    other = load_config(write_config(tmp_path, **settings))
    described = search_definition(other, space, replace(STUDY, **study), {})
    with pytest.raises(InputError, match=f"'sigma' is a study of something else, .*: {key} was"):
        open_study(replace(STUDY, **study), other, described, DEFAULT)


def test_where_the_scans_lie_and_how_they_are_downsampled_may_differ(opened, config, tmp_path):
    other = load_config(write_config(tmp_path, n_workers=1, dicom_dirs=["elsewhere"]))
    again = open_study(STUDY, other, search_definition(other, SPACE, STUDY, {}), DEFAULT)
    assert [t.number for t in again.trials] == [t.number for t in opened.trials] == [0]


def test_a_value_that_only_the_study_has_is_named(opened, config):
    described = search_definition(config, SPACE, STUDY, {})
    opened.set_user_attr(study_module.DESCRIPTION, {**described, "other": None})
    with pytest.raises(
        InputError, match=r"something else, .*: other was null and is now not there"
    ):
        open_study(STUDY, config, described, DEFAULT)
    opened.set_user_attr(study_module.DESCRIPTION, ["x"])
    with pytest.raises(InputError, match="'sigma' doesn't say what it searches"):
        open_study(STUDY, config, described, DEFAULT)


@pytest.mark.parametrize("damage", [b"{}\n", b"[]\n", b"x\n", b'{"op_code":99}\n', b"\xff\n"])
def test_a_journal_that_is_damaged_is_refused_in_one_sentence(opened, config, damage):
    path = STUDY.folder(config.base) / "study.journal"
    path.write_bytes(damage + path.read_bytes())
    with pytest.raises(
        InputError, match=r"study\.journal: the study's journal can't be read; "
    ) as e:
        load(STUDY, config)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        (b'"value":0.5', b'"value":[0.5]', "the errors of its trials must be numbers"),
        (b'"system_attrs":{', b'"system_attrs":"x","y":{', "attributes of its trials must be map"),
        (b'"value":0.5', b'"eulav":0.5', "a complete trial must have one error"),
        (b'"system_attrs":{', b'"system_attrs":{"fixed_params":1,"y":{}},"y":{', "to try must be"),
    ],
)
def test_values_of_another_kind_are_refused(opened, config, before, after, rule):
    """Regression: an AttributeError or TypeError from within Optuna."""
    opened.add_trial(optuna.trial.create_trial(value=0.5))
    path = STUDY.folder(config.base) / "study.journal"
    whole = path.read_bytes()
    assert before in whole
    path.write_bytes(whole.replace(before, after))
    with pytest.raises(InputError, match=f"the study's journal can't be read; .*{rule}"):
        load(STUDY, config)


@pytest.mark.parametrize("form", ["journal", "sqlite"])
def test_a_pipe_is_no_study(config, tmp_path, form):
    os.mkfifo(tmp_path / "pipe")
    storage = str(tmp_path / "pipe") if form == "journal" else f"sqlite:///{tmp_path / 'pipe'}"
    with pytest.raises(InputError, match=r"--storage: a study must be a file; .*pipe is none"):
        load(replace(STUDY, storage=storage), config)


@pytest.mark.parametrize("number", [b"\xff", 2**62])
def test_trials_without_a_number_each_are_refused(config, tmp_path, number):
    """Regression: of several trials of one number, all but one were left out in silence."""
    study = replace(STUDY, storage=f"sqlite:///{tmp_path / 'study.db'}")
    opened = open_study(study, config, search_definition(config, SPACE, study, {}), DEFAULT)
    opened.add_trial(optuna.trial.create_trial(value=0.5))
    with closing(sqlite3.connect(tmp_path / "study.db")) as database, database:
        database.execute("UPDATE trials SET number = ?", (number,))
    with pytest.raises(InputError, match="isn't a study's; its trials must have a number each"):
        load(study, config)


@pytest.mark.parametrize(
    "storage", ["sqlite:////nowhere/at/all/study.db", "nonsense://", "postgresql://localhost:1/x"]
)
def test_a_storage_that_cannot_be_reached(config, storage):
    study = replace(STUDY, storage=storage)
    with pytest.raises(InputError) as error:
        load(study, config)
    assert str(error.value).startswith(f"--storage: {storage} can't be reached; ")
    assert "\n" not in str(error.value)


def test_failed_trials_count_and_lost_ones_are_replaced(opened):
    failed, _ = ask(opened)
    opened.tell(failed, state=TrialState.FAIL)
    assert to_start(opened, 3) == 2
    lost, value = ask(opened)
    assert to_start(opened, 3) == 1  # it is under way
    opened.tell(lost, state=TrialState.FAIL)
    queue_again(opened, opened.trials[lost.number])
    assert to_start(opened, 3) == 2
    assert [t.number for t in finished(opened)] == [failed.number]
    again, same = ask(opened)
    assert same == value
    opened.tell(again, 0.1)
    assert [t.number for t in finished(opened)] == [failed.number, again.number]
    assert to_start(opened, 3) == 1


def test_what_waits_beyond_the_wanted_trials_keeps_nobody_waiting(opened):
    """Regression: machines with a trial too many would have waited for a queued one for ever."""
    assert [t.state for t in opened.trials] == [TrialState.WAITING]
    assert not is_under_way(opened)
    trial, _ = ask(opened)
    assert is_under_way(opened)
    opened.tell(trial, 0.1)
    assert not is_under_way(opened)


def test_no_scan_is_loaded_after_the_deadline(opened, config, monkeypatch):
    """Regression: each task that was left on a cluster loaded all of them, and ran no trial."""
    loaded = []
    monkeypatch.setattr(workers, "set_up", lambda *_: loaded.append("all scans"))
    task, over = Task(config, SPACE, STUDY, "run"), time.time() - 1
    trials_task(Trials(task, over), 0)
    workers.work(task, over)
    assert loaded == []


def test_the_trial_of_a_living_worker_is_left_alone(opened, config):
    folder = STUDY.folder(config.base)
    with worker_token(folder) as token:
        trial, _ = ask(opened)
        trial.set_user_attr("worker", token)
        assert recover_lost(opened, folder) == []
        assert opened.trials[trial.number].state == TrialState.RUNNING


def test_the_file_of_a_worker_killed_before_its_first_trial_goes(opened, config):
    """Regression: it stayed for ever."""
    folder = STUDY.folder(config.base)
    with worker_token(folder) as living:
        (folder / "workers" / f"{living[:-1]}x.lock").touch()
        assert recover_lost(opened, folder) == []
        assert [path.stem for path in (folder / "workers").iterdir()] == [living]


def test_a_trial_whose_worker_died_before_it_wrote_its_token_is_queued_again(opened, config):
    """Regression: it counted as running for ever, and the study ended one trial short."""
    folder = STUDY.folder(config.base)
    _, value = ask(opened)
    assert recover_lost(opened, folder, heartbeats=True) == []  # a database finds it by itself
    assert len(recover_lost(opened, folder)) == 1
    assert ask(opened)[1] == value
    with ThreadPoolExecutor(1) as others:
        with asking(folder):  # a worker that is about to write its token is waited for
            waiting = others.submit(recover_lost, opened, folder)
            with pytest.raises(TimeoutError):
                waiting.result(0.3)
            optuna.Trial(opened, opened.trials[-1]._trial_id).set_user_attr("worker", "another")
        assert waiting.result(60) == []


@pytest.mark.slow
def test_the_trial_of_a_killed_worker_is_queued_again(opened, config):
    folder = STUDY.folder(config.base)
    receive, send = FORKS.Pipe(duplex=False)
    worker = FORKS.Process(target=begin_and_stay, args=(folder, send))
    worker.start()
    value = receive.recv()
    assert recover_lost(opened, folder) == []
    worker.kill()
    worker.join()
    (lost,) = recover_lost(opened, folder)
    assert lost.state == TrialState.FAIL
    assert recover_lost(opened, folder) == []  # once is enough
    assert ask(opened)[1] == value
    assert (
        optuna.storages.RetryHeartbeatStaleTrialCallback.retried_trial_number(opened.trials[-1])
        == lost.number
    )


def begin_and_stay(folder, send):
    """Be a worker in the middle of a trial."""
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    study = optuna.load_study(study_name="sigma", storage=storage)
    with worker_token(folder) as token:
        trial, value = ask(study)
        trial.set_user_attr("worker", token)
        send.send(value)
        time.sleep(600)


def test_of_two_processes_one_queues_a_lost_trial_again(opened, config, monkeypatch):
    """Regression: both did, if they found it lost at the same time."""
    folder = STUDY.folder(config.base)
    trial, _ = ask(opened)
    with worker_token(folder) as token:
        trial.set_user_attr("worker", token)
    (folder / "workers" / f"{token}.lock").touch()  # as a killed worker leaves it
    tell, others = opened.tell, []

    def late(number, **options):
        others.append(recover_lost(load(STUDY, config), folder, heartbeats=True))
        return tell(number, **options)

    monkeypatch.setattr(opened, "tell", late)
    (lost,) = recover_lost(opened, folder, heartbeats=True)  # without, one waits for the other
    assert (lost.number, others) == (trial.number, [[]])
    assert [t.state for t in opened.trials] == [TrialState.FAIL, TrialState.WAITING]


HOLD = """
import sqlite3, sys, time
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute(sys.argv[2])
if sys.argv[2] == "BEGIN":
    held.execute("SELECT count(*) FROM sqlite_master").fetchall()
    reading = held.execute("SELECT * FROM sqlite_master")
    reading.fetchone()
print("held", flush=True)
time.sleep(float(sys.argv[3]))
"""


@contextmanager
def held(path, how, seconds):
    """Have another process hold an SQLite file for some seconds."""
    words = [sys.executable, "-c", HOLD, str(path), how, str(seconds)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        began = time.monotonic()
        try:
            yield lambda: time.monotonic() - began
        finally:
            holder.kill()


@pytest.mark.parametrize("how", ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE", "BEGIN"])
def test_an_sqlite_file_that_another_process_holds_is_waited_for(
    config, tmp_path, monkeypatch, how
):
    """Regression: it was given up after SQLite's own wait, at the beginning and on the way."""
    monkeypatch.setitem(waiting_sqlite.CONNECT_ARGUMENTS, "timeout", 0.2)
    path, seconds = tmp_path / "study.db", 2.5
    study = replace(STUDY, storage=f"sqlite:///{path}?timeout=0.1")
    described = search_definition(config, SPACE, study, {})
    if how == "BEGIN EXCLUSIVE":
        with held(path, how, seconds) as waited:
            opened = open_study(study, config, described, DEFAULT)
            assert waited() >= seconds - 1
    else:  # who writes or reads lets others look, and there must be something to read
        opened = open_study(study, config, described, DEFAULT)
    with held(path, how, seconds) as waited:
        with reachable(study):
            trial, value = ask(opened)
            trial.report(0.75, 1)
            opened.tell(trial, 0.5)
        assert waited() >= seconds - 1
    (kept,) = load(study, config).trials
    assert (kept.value, kept.params) == (0.5, {"curriculum.threshold": value})
    assert kept.intermediate_values == {1: 0.75}


def test_an_sqlite_file_that_stays_locked_is_given_up_in_a_sentence(config, tmp_path, monkeypatch):
    monkeypatch.setattr(waiting_sqlite, "LOCK_SECONDS", 0.1)
    path = tmp_path / "study.db"
    study = replace(STUDY, storage=f"sqlite:///{path}")
    with held(path, "BEGIN EXCLUSIVE", 600), pytest.raises(InputError) as error:
        load(study, config)
    assert str(error.value).startswith(f"--storage: {study.storage} can't be reached; ")
    assert "database is locked" in str(error.value)


def test_a_trial_is_not_lost_while_its_sqlite_file_is_locked(config, tmp_path):
    """Others wait as long as its worker does, and then must not be the first to judge."""
    study = replace(STUDY, storage=f"sqlite:///{tmp_path / 'study.db'}")
    storage = load(study, config)._storage
    assert storage._backend.grace_period > waiting_sqlite.LOCK_SECONDS


def test_a_heartbeat_that_fails_leaves_the_trial_to_say_so(config, tmp_path, monkeypatch):
    """Regression: Optuna's thread ended with a traceback, and the trial had no heartbeats left."""
    ended = []
    monkeypatch.setattr(threading, "excepthook", ended.append)
    monkeypatch.setattr(study_module, "HEARTBEAT_SECONDS", 1)
    path = tmp_path / "study.db"
    study = load(replace(STUDY, storage=f"sqlite:///{path}"), config)

    def beats():
        with closing(sqlite3.connect(path)) as database:
            return database.execute("SELECT heartbeat FROM trial_heartbeats").fetchall()

    def rename(old, new):
        with closing(sqlite3.connect(path)) as database:
            database.execute(f"ALTER TABLE {old} RENAME TO {new}")

    def objective(_):
        while not beats():
            time.sleep(0.05)
        rename("trial_heartbeats", "away")
        time.sleep(2.5)
        rename("away", "trial_heartbeats")
        before, until = beats(), time.monotonic() + 60
        while beats() == before and time.monotonic() < until:
            time.sleep(0.05)
        return float(beats() > before)

    study.optimize(objective, n_trials=1)
    assert ended == []
    assert study.best_value == 1  # the heartbeats went on


def test_a_token_of_a_shared_study_names_no_file_elsewhere(config, opened, tmp_path):
    """Regression: a lock file anywhere was removed if a trial's attribute led to it."""
    folder = STUDY.folder(config.base)
    (folder / "workers").mkdir(parents=True)
    precious = tmp_path / "poetry.lock"
    precious.write_text("dependencies", encoding="utf-8")
    for token in (f"../../../../{tmp_path.name}/poetry", str(tmp_path / "poetry"), ["poetry"]):
        trial, _ = ask(opened)
        trial.set_user_attr("worker", token)
    assert recover_lost(opened, folder) == []
    assert precious.read_text(encoding="utf-8") == "dependencies"


@pytest.mark.parametrize("name", ["", "workers", "study.journal"])
def test_a_link_in_the_place_of_a_studys_files_is_refused(config, tmp_path, name):
    """Regression: trials were appended to whatever file a link study.journal led to."""
    place, elsewhere = STUDY.folder(config.base) / name, tmp_path / "elsewhere"
    elsewhere.mkdir()
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(elsewhere)
    with (
        pytest.raises(InputError, match=r"^--study-name: .* is a link"),
        study_module.one_at_a_time(STUDY, config),
    ):
        pass
    assert list(elsewhere.iterdir()) == []


# --- planted code --------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"%s", b"%s\n"], ids=["bytes", "line"])
def test_a_pickle_in_the_place_of_a_journal_is_refused_and_not_run(config, tmp_path, content):
    journal, trace = STUDY.folder(config.base) / "study.journal", tmp_path / "was_run"
    journal.parent.mkdir(parents=True)
    for protocol in (0, 4):
        journal.write_bytes(content % pickle.dumps(Payload(trace), protocol))
        with pytest.raises(InputError, match=r"study\.journal: .* can't be read; "):
            load(STUDY, config)
    assert not trace.exists()


COLUMNS = {
    "study_user_attributes": "value_json",
    "trial_user_attributes": "value_json",
    "trial_system_attributes": "value_json",
    "trial_params": "distribution_json",
}


def test_a_pickle_in_a_database_is_refused_and_not_run(config, tmp_path):
    """Regression: a study whose attributes aren't JSON ended in a traceback."""
    trace, database = tmp_path / "was_run", tmp_path / "x.db"
    shared = replace(STUDY, storage=f"sqlite:///{database}")
    opened = load(shared, config)
    opened.set_user_attr("note", 1)
    trial, _ = ask(opened)
    trial.set_user_attr("note", 1)
    opened._storage.set_trial_system_attr(trial._trial_id, "note", 1)
    code = (pickle.dumps(Payload(trace)),)
    with closing(sqlite3.connect(database)) as connection:
        for table, column in COLUMNS.items():
            (was,) = connection.execute(f"SELECT {column} FROM {table}").fetchall()
            connection.execute(f"UPDATE {table} SET {column} = ?", code)
            connection.commit()
            with pytest.raises(InputError, match=r"^--storage: .* holds what isn't a study's; "):
                load(shared, config)
            connection.execute(f"UPDATE {table} SET {column} = ?", was)
            connection.commit()
    load(shared, config)
    assert not trace.exists()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_sampler_runs_what_an_attribute_holds(config, tmp_path, sampler):
    """Optuna's CMA-ES keeps its state as a pickle in such attributes; jawloc doesn't use it."""
    trace, study = tmp_path / "was_run", replace(STUDY, sampler=sampler)
    state = pickle.dumps(Payload(trace)).hex()
    opened = load(study, config)
    trial, _ = ask(opened)
    for key in ("cma:optimizer", "cma:optimizer:0", "sepcma:optimizer:0", "cma:n_restarts"):
        opened._storage.set_study_system_attr(opened._study_id, key, state)
        opened._storage.set_trial_system_attr(trial._trial_id, key, state)
    opened.tell(trial, 1.0)
    assert 0.5 <= ask(load(study, config))[1] <= 2.0
    assert not trace.exists()
