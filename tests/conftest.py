"""A lab's project folder with tiny phantom scans, and the command line to use it with."""

import shutil
import signal
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.lab import write_config

SCANS = 5
SCAN_SHAPE = (48, 24, 24)


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory):
    """Five phantoms with spacing, labels 1 and 2 for the two jaw arches."""
    from jawloc.scans.phantom import write_phantoms

    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, SCANS, SCAN_SHAPE, progress=False, arch_labels=True)
    return folder


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """The database of a tracking store without any experiment: making one takes seconds."""
    from jawloc.reporting.tracking import prepare_store

    root = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        prepare_store(root)
    return root / "mlruns" / "mlflow.db"


@pytest.fixture(scope="session")
def make_lab(phantom_folder, empty_store):
    """Return a function that makes a project folder: settings, scans, tracking store."""

    def make(folder: Path, **settings) -> Path:
        shutil.copytree(phantom_folder, folder / "dicoms" / "labelled")
        write_config(folder, **settings)
        (folder / "mlruns").mkdir()
        database = folder / "mlruns" / "mlflow.db"
        with (
            closing(sqlite3.connect(empty_store)) as source,
            closing(sqlite3.connect(database)) as copy,
        ):
            source.backup(copy)
            # its artifacts would go to the folder that it was made in
            copy.execute("UPDATE experiments SET name = 'other' WHERE name = 'jaw_location'")
            copy.commit()
        return folder

    return make


@pytest.fixture
def lab(make_lab, tmp_path, monkeypatch):
    """A project folder of its own for one test, which runs in it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = make_lab(tmp_path / "lab")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def jawloc():
    """Return a function that runs a command line in this process, leaving nothing changed."""

    def run(*arguments: object):
        from jawloc.cli import jawloc as command

        names = [n for n in ("SIGTERM", "SIGHUP") if hasattr(signal, n)]
        handlers = {name: signal.getsignal(getattr(signal, name)) for name in names}
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            try:
                return CliRunner().invoke(command, [str(a) for a in arguments])
            finally:
                for name, handler in handlers.items():
                    signal.signal(getattr(signal, name), handler)

    return run


@pytest.fixture
def no_pictures(monkeypatch):
    """Leave a run's pictures out, which take most of its time, where a test is about others."""
    import numpy as np

    import jawloc.experiment as experiment

    blank = np.zeros((4, 4, 3), np.uint8)
    monkeypatch.setattr(experiment, "target_picture", lambda *_: blank)
    monkeypatch.setattr(experiment, "predicted_picture", lambda *_: blank)
    monkeypatch.setattr(experiment, "write_pictures", lambda *_: None)
    monkeypatch.setattr(experiment, "save_figure", lambda _, path: path.touch())


@pytest.fixture
def one_thread():
    """Sums depend on how many threads share them: for comparisons to the last bit."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
