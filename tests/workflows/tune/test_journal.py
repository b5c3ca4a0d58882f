"""A study's journal after a power cut or a full disk: whole lines stay, and the study goes on."""

import os

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from jawloc.workflows.tune.journal import Journal


def study(backend) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        study_name="sigma", storage=JournalStorage(backend), load_if_exists=True
    )


@pytest.fixture
def path(tmp_path):
    """A journal of two trials."""
    begun = study(JournalFileBackend(str(tmp_path / "study.journal")))
    for _ in range(2):
        begun.ask()
    return tmp_path / "study.journal"


def cut(path):
    os.truncate(path, path.stat().st_size - 20)  # within the line of the second trial


def zeros(path):  # as a journalling file system leaves them
    os.truncate(path, path.stat().st_size + 2**22)


def part(path):
    path.write_bytes(path.read_bytes() + b'{"op_code":4,"work')


@pytest.mark.parametrize(("damage", "trials"), [(cut, 1), (zeros, 2), (part, 2)])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_line_that_was_cut_off_does_not_spoil_the_next(path, damage, trials, when):
    if when == "before":
        damage(path)
    backend = Journal(path)
    if when == "meanwhile":  # another worker's disk was full
        damage(path)
    study(backend).ask()
    assert [t.number for t in study(JournalFileBackend(str(path))).trials] == [*range(trials + 1)]


def test_a_file_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "scan.mha").write_bytes(b"ObjectType = Image\n\0\1\2")
    Journal(tmp_path / "scan.mha")
    assert (tmp_path / "scan.mha").read_bytes() == b"ObjectType = Image\n\0\1\2"


def test_an_interruption_while_the_lock_is_taken_stays_one(path, monkeypatch):
    """Regression: Optuna gave up a lock that it did not have, and `jawloc tune` ended with that."""
    journal = Journal(path)
    before = path.read_bytes()

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "symlink", interrupted)
        with pytest.raises(KeyboardInterrupt):
            journal.append_logs([{"op_code": 0}])
    assert path.read_bytes() == before
    monkeypatch.setattr(os, "symlink", lambda *_: (_ for _ in ()).throw(OSError(30, "read-only")))
    with pytest.raises(OSError, match="read-only"):
        journal.append_logs([{"op_code": 0}])
