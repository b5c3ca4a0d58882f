"""Folds on workers: one that two workers have is trained once."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from jawloc.scans.locks import locked
from jawloc.training.interruption import interrupted_by
from jawloc.workflows import train_folds
from jawloc.workflows.train_folds import CrossValidation, FoldsToTrain, fold_task
from jawloc.workflows.train_folds import train_folds as train_all


def stop():
    raise KeyboardInterrupt


@pytest.fixture
def shared(tmp_path):
    work = CrossValidation("cv", SimpleNamespace(), (None, None), {}, tmp_path, {})
    return FoldsToTrain("run", work, keep_part=True)


def finish(shared, number):
    fold = shared.work.folder_of(number)
    fold.mkdir(exist_ok=True)
    (fold / f"{fold.name}.pth").touch()
    (fold / "summary.json").touch()


@pytest.fixture
def trained(shared, monkeypatch):
    """The numbers of the folds that were trained, each finished at once."""
    numbers = []

    def train(_run, work, number, **_):
        assert work == shared.work
        numbers.append(number)
        finish(shared, number)

    monkeypatch.setattr(train_folds, "train_fold", train)
    return numbers


def test_a_fold_that_a_silent_worker_has_is_waited_for_and_not_trained_again(shared, trained):
    second = threading.Thread(target=fold_task, args=(shared, 1))
    with locked(shared.work.folder / ".fold_1.lock"):
        second.start()
        second.join(0.5)
        assert second.is_alive()  # it waits
        finish(shared, 1)
    second.join(30)
    assert not second.is_alive()
    assert trained == []


def test_the_fold_of_a_worker_that_is_gone_is_trained(shared, trained):
    second = threading.Thread(target=fold_task, args=(shared, 1))
    with locked(shared.work.folder / ".fold_1.lock"):
        second.start()
    second.join(30)
    assert trained == [1]


def test_a_fold_without_its_summary_is_trained_again(shared, trained):
    """Regression: the cross-validation failed at its end, and with --resume each time again."""
    finish(shared, 1)
    finish(shared, 2)
    (shared.work.folder_of(2) / "summary.json").unlink()
    train_all(shared, None)
    assert trained == [2]


def test_no_lock_is_left(shared, trained):
    class Cluster:
        def run(self, task, shared, items):
            for index, item in enumerate(items):
                yield index, task(shared, item)

    train_all(shared, Cluster())
    assert trained == [1, 2]
    assert sorted(path.name for path in shared.work.folder.iterdir()) == ["fold_1", "fold_2"]


def test_a_command_that_is_over_waits_no_longer(shared, trained):
    stopped = []

    def wait():
        with interrupted_by(lambda: True), pytest.raises(KeyboardInterrupt):
            fold_task(shared, 1)
        stopped.append(True)

    with locked(shared.work.folder / ".fold_1.lock"):
        second = threading.Thread(target=wait)
        second.start()
        second.join(30)
    assert stopped == [True]
    assert trained == []


@pytest.mark.parametrize("cluster", [None, SimpleNamespace(run=lambda task, shared, items: stop())])
def test_no_lock_is_left_by_an_interruption(shared, monkeypatch, cluster):
    monkeypatch.setattr(train_folds, "train_fold", lambda *_, **__: stop())
    with pytest.raises(KeyboardInterrupt):
        train_all(shared, cluster)
    assert [*shared.work.folder.iterdir()] == []
