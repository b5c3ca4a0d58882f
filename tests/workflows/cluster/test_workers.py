"""Commands on a real scheduler with three worker processes, some of which are killed.

In one file, whose tests share the processes: importing PyTorch in each takes most of the time.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import optuna
import psutil
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from jawloc.phantom import write_phantoms
from jawloc.scans.reading import read_scan
from jawloc.workflows.cluster import Lost
from tests.lab import SCAN_IDS, SCAN_SHAPE, files_below, only_sentence, write_config, write_model
from tests.workflows.cluster.conftest import interrupt, kill_first
from tests.workflows.cluster.holding import begun, double, fill

pytest.importorskip("distributed", reason="needs jawloc[cluster]")
pytestmark = pytest.mark.slow
LABELLED = "dicoms/labelled"
LOCATE = "jawloc.workflows.locate_scan", "find_objects"
CROP = ("--crop-size", "20,10,12", "--no-pictures")


@pytest.fixture
def here(lab):
    """A lab's folder with a model and nine scans."""
    write_model(lab / "m.pth")
    write_phantoms(lab / "scans", 9, SCAN_SHAPE, progress=False)
    return lab


def rows(folder: str) -> list[dict[str, str]]:
    """Return the table without the columns that time and place decide."""
    with Path(folder, "locations.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in ("seconds", "key")} for row in table]


def outputs(folder: str) -> dict[str, bytes]:
    """Return what `locate` wrote but the tables that state seconds, and the list of files."""
    named = files_below(Path(folder)).items()
    return {name: content for name, content in named if "/" in name or name.endswith("points.csv")}


def test_every_scan_is_located_once_although_a_worker_is_killed(
    here, jawloc, address, held, tmp_path, one_thread
):
    """A run that one machine began, and the other way round, with the rows of one machine."""
    assert jawloc("locate", "m.pth", "scans", "--output-dir", "plain", *CROP).exit_code == 0
    first = [f"scans/phantom_00{n}.dcm" for n in (0, 4)]
    assert jawloc("locate", "m.pth", *first, "--output-dir", "out", *CROP).exit_code == 0
    whole = ("locate", "m.pth", "scans", "--output-dir", "out", "--resume", *CROP)
    with held(*LOCATE, kill_first):
        result = jawloc(*whole, "--scheduler", address)
    assert result.exit_code == 0, result.output
    assert "2 done before" in result.stdout
    assert rows("out") == rows("plain")
    assert outputs("out").keys() == outputs("plain").keys()
    differing = [
        name for name, content in outputs("out").items() if content != outputs("plain")[name]
    ]
    assert differing == []
    assert len(begun(tmp_path)) <= 8  # seven, and that of the killed worker again
    assert "9 done before" in jawloc(*whole).stdout
    assert not [name for name in files_below(Path("out")) if ".part." in name]


def test_ctrl_c_keeps_what_is_done_and_one_machine_goes_on(
    here, jawloc, address, held, heeds_ctrl_c
):
    with held(*LOCATE, interrupt):
        result = jawloc(
            "locate",
            "m.pth",
            "scans",
            "--output-dir",
            "out",
            *CROP,
            "--scheduler",
            address,
        )
    assert result.exit_code == 130, result.output
    assert result.stderr.endswith("of 9 scans are done; the same command with --resume goes on\n")
    result = jawloc("locate", "m.pth", "scans", "--output-dir", "out", *CROP, "--resume")
    assert result.exit_code == 0, result.output
    assert [row["scan"] for row in rows("out")] == [f"phantom_00{n}" for n in range(9)]


def test_an_evaluation_is_that_of_one_machine(here, jawloc, address, one_thread):
    def evaluate(folder, *more):
        ended = jawloc(
            "evaluate", "m.pth", LABELLED, "--output-dir", folder, "--pictures", 0, *more
        )
        content = json.loads(Path(folder, "evaluation.json").read_text(encoding="utf-8"))
        return ended.exit_code, content["rows"], content["failed"]

    (Path(LABELLED) / f"{SCAN_IDS[2]}.dcm").write_bytes(b"no scan")
    plain = evaluate("plain")
    assert plain[0] == 1
    assert len(plain[2]) == 1
    assert evaluate("out", "--scheduler", address) == plain


def test_cache_and_dicoms_are_those_of_one_machine(here, jawloc, address, held):
    assert jawloc("cache", "build").exit_code == 0
    plain = files_below(Path("dicoms/downsampled"))
    assert jawloc("cache", "clear").exit_code == 0
    with held("jawloc.scans.cache", "_make", kill_first):
        result = jawloc("cache", "build", "--scheduler", address)
    assert result.stdout == "5 scans in the cache: 5 built, 0 refreshed, 0 already there\n"
    assert files_below(Path("dicoms/downsampled")) == plain
    shutil.copytree(LABELLED, "masks")
    convert = ("dicoms", LABELLED, "masks")
    assert jawloc(*convert, "plain").exit_code == 0
    result = jawloc(*convert, "out", "--scheduler", address)
    assert result.stdout.splitlines()[-1] == "5 labelled DICOMs written to out, 0 skipped"
    for path in Path("plain").iterdir():
        same = read_scan(path), read_scan(Path("out", path.name))
        np.testing.assert_array_equal(same[0].image, same[1].image)
        np.testing.assert_array_equal(same[0].mask, same[1].mask)


def test_a_task_that_kills_its_workers_is_named_and_the_others_go_on(address, tmp_path):
    from jawloc.workflows.cluster import ClusterOptions
    from jawloc.workflows.cluster.client import open_cluster

    with open_cluster(ClusterOptions(scheduler=address)) as cluster:
        found = dict(cluster.run(double, tmp_path, range(8)))
    lost = found.pop(3)
    assert isinstance(lost, Lost)
    assert lost.reason.startswith("2 workers were killed while they worked on it")
    assert found == {n: 2 * n for n in (0, 1, 2, 4, 5, 6, 7)}


@pytest.mark.parametrize(
    ("killers", "order", "not_tried"),
    [({2}, [0, 3, 1, 2], []), ({0, 1, 2, 3}, [0, 1, 2, 3], [2, 3])],
    ids=["one", "all"],
)
def test_a_task_whose_worker_another_killed_is_tried_again_alone(killers, order, not_tried):
    """A worker may hold several tasks; when it dies, Dask suspects all of them."""
    from distributed import Future, KilledWorker

    from jawloc.workflows.cluster.tasks import Cluster
    from jawloc.workflows.cluster.worker import Outcome

    under_way = []

    class Suspecting(Future):
        def __init__(self, number, alone):
            self.number, self.alone = number, alone

        def add_done_callback(self, callback):
            under_way.append(self.number)
            assert under_way == [self.number] or not self.alone
            callback(self)

        def result(self):
            under_way.remove(self.number)
            if self.number in killers or (self.number == 1 and not self.alone):
                raise KilledWorker(self.number, None, 1)
            return Outcome("done", 10 * self.number)

        def release(self):
            pass

        __hash__, __del__, __repr__ = object.__hash__, release, object.__repr__

    class Client:
        def submit(self, _perform, _name, item, *, key, pure):
            return Suspecting(item, len(key) > 2)

    found = dict(Cluster(Client(), "cpu")._results("work", range(4), lambda: None))
    assert list(found) == order
    for number, result in found.items():
        if number in not_tried:
            assert result.reason.endswith("so it was not tried again")
        elif number in killers:
            assert result.reason.startswith("2 workers were killed while they worked on it")
        else:
            assert result == 10 * number


def test_workers_of_one_machine_have_bounded_memory_and_are_reached_from_no_other(watched):
    """They are processes that end with the command; the one that needs too much ends before."""
    from jawloc.workflows.cluster import ClusterOptions
    from jawloc.workflows.cluster.client import MOST_DEATHS, open_cluster

    with open_cluster(ClusterOptions(workers=2, worker_memory="1GB")) as cluster:
        found = dict(cluster.run(fill, Path(), range(4)))
    lost = found.pop(1)
    assert isinstance(lost, Lost)
    assert lost.reason.startswith(f"{MOST_DEATHS} workers were killed while they worked on it")
    assert found == {n: n for n in (0, 2, 3)}
    assert len(watched.processes) >= 2 + MOST_DEATHS - 1
    assert watched.addresses == {"127.0.0.1"}
    assert psutil.wait_procs(watched.processes, timeout=30)[1] == []


def test_a_scheduler_that_does_not_answer_is_refused_before_any_work(here, jawloc, monkeypatch):
    monkeypatch.setattr("jawloc.workflows.cluster.client.CONNECT_SECONDS", 0.5)
    nobody = "tcp://127.0.0.1:9"
    said = only_sentence(jawloc("locate", "m.pth", "scans", "--scheduler", nobody))
    assert said.startswith(f"--scheduler: a Dask scheduler must answer at {nobody}; ")
    assert not Path("script_output/locations").exists()


# --- folds and trials ------------------------------------------------------------


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
    quick, jawloc, address, held, one_thread, no_pictures, blank_workers
):
    plain = jawloc("train", "--folds", "2", "--model-name", "plain")
    assert plain.exit_code == 0, plain.output
    words = ("train", "--folds", "2", "--model-name", "out")
    with held("jawloc.workflows.train", "log_epoch", kill_first, 2):
        result = jawloc(*words, "--scheduler", address)
    assert result.exit_code == 0, result.output
    assert folds_of("out") == folds_of("plain")


def test_folds_that_are_interrupted_go_on_on_one_machine(
    quick, jawloc, address, held, no_pictures, blank_workers, heeds_ctrl_c
):
    words = ("train", "--folds", "2", "--model-name", "out")
    with held("jawloc.workflows.train", "log_epoch", interrupt, 2):
        result = jawloc(*words, "--scheduler", address)
    assert result.exit_code == 130, result.output
    assert "--resume goes on from its last checkpoint" in result.stderr
    result = jawloc(*words, "--resume")
    assert result.exit_code == 0, result.output
    assert len(folds_of("out")) == 5


def test_a_study_has_its_trials_although_a_worker_is_killed(
    quick, jawloc, address, held, blank_workers, monkeypatch
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
