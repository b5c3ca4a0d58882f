"""A lab's project folder with tiny phantom scans, and the command line to use it with."""

import os
import shutil
import signal
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path

os.environ["MPLBACKEND"] = "agg"  # as the command line sets it, before matplotlib is imported
if "PYTEST_XDIST_WORKER" in os.environ:  # each core has a process of its own already
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from click.testing import CliRunner

from tests.lab import SCAN_IDS, SCAN_SHAPE, write_config


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory):
    """Five phantoms with spacing, labels 1 and 2 for the two jaw arches."""
    from jawloc.phantom import write_phantoms

    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(folder, len(SCAN_IDS), SCAN_SHAPE, progress=False, arch_labels=True)
    return folder


@pytest.fixture(autouse=True)
def no_store_of_others(monkeypatch):
    """Each test tracks where it says; MLflow's own set_tracking_uri leaves a variable behind."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def copy_store(tmp_path_factory):
    """Return a function that copies an empty tracking store into a folder; making one is slow.

    It is made once in a test session, also where that has several processes.
    """
    from jawloc.reporting.tracking.store import prepare_store, store_database

    parallel = "PYTEST_XDIST_WORKER" in os.environ
    session = tmp_path_factory.getbasetemp().parent if parallel else tmp_path_factory.getbasetemp()
    root = session / "empty_store"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        prepare_store(root)

    def copy(folder: Path) -> None:
        database = store_database(folder)
        database.parent.mkdir(parents=True)
        with (
            closing(sqlite3.connect(store_database(root))) as source,
            closing(sqlite3.connect(database)) as target,
        ):
            source.backup(target)
            # its artifacts would go to the folder that it was made in
            target.execute("UPDATE experiments SET name = 'other' WHERE name = 'jaw_location'")
            target.commit()

    return copy


@pytest.fixture(scope="session")
def make_lab(phantom_folder, copy_store):
    """Return a function that makes a project folder: settings, scans, tracking store."""

    def make(folder: Path, **settings) -> Path:
        shutil.copytree(phantom_folder, folder / "dicoms" / "labelled")
        write_config(folder, **settings)
        copy_store(folder)
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
            # what Python does by itself; pytest shows more
            warnings.simplefilter("default")
            warnings.simplefilter("ignore", DeprecationWarning)
            try:
                return CliRunner().invoke(command, [str(a) for a in arguments])
            finally:
                for name, handler in handlers.items():
                    signal.signal(getattr(signal, name), handler)

    return run


@pytest.fixture
def no_epoch_pictures(monkeypatch):
    """Leave out the pictures of a run's beginning and of its epochs."""
    from matplotlib.figure import Figure

    import jawloc.workflows.log_training as log_training
    from jawloc.reporting.figures import figure_to_array
    from jawloc.reporting.text_files import write_text

    blank, save = Figure(figsize=(0.1, 0.1)), log_training.save_figure

    def saved(figure, path):
        if figure is not blank:
            return save(figure, path)
        write_text(path, "")
        return figure_to_array(blank)

    monkeypatch.setattr(log_training, "target_picture", lambda *_: blank)
    monkeypatch.setattr(log_training, "heatmap_tiles", lambda *_: {"": blank})
    monkeypatch.setattr(log_training, "save_figure", saved)


@pytest.fixture
def no_pictures(monkeypatch, no_epoch_pictures):
    """Leave out all pictures, which take most of a run's time, where a test is about others."""
    import jawloc.workflows.cross_validate as cross_validate
    import jawloc.workflows.log_training as log_training

    def none_of_objects(_folder, _locator, evaluation, _worst):
        return {name: [] for name in evaluation.objects}

    monkeypatch.setattr(log_training, "write_pictures", lambda *_, **__: None)
    monkeypatch.setattr(cross_validate, "write_worst_pictures", lambda *_: None)
    monkeypatch.setattr(cross_validate, "write_evaluation_pictures", none_of_objects)


@pytest.fixture
def one_thread():
    """Sums depend on how many threads share them: for comparisons to the last bit."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
