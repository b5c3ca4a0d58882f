"""A real Dask scheduler with three worker processes, one for all tests of a module."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager, suppress

import psutil
import pytest

from tests.workflows.cluster.holding import SECONDS, begun, hold, let_go

REPLACING_SECONDS = 30  # that a new process takes at most on most machines
ALLOWED_FAILURES = 1  # of a task: the second worker that it kills is the last


@pytest.fixture(scope="module")
def three_workers(tmp_path_factory):
    """A cluster of three processes, each with one thread."""
    distributed = pytest.importorskip("distributed", reason="needs jawloc[cluster]")
    import dask

    settings = {
        "distributed.scheduler.allowed-failures": ALLOWED_FAILURES,
        "distributed.scheduler.worker-saturation": 1.0,
        # deaths are the tests' business
        "distributed.worker.memory.terminate": False,
    }
    folder = tmp_path_factory.mktemp("workers")
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=3,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
            local_directory=str(folder),
            silence_logs=100,
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


def wait_for_three(client) -> None:
    """Wait for three workers; start another where Dask has given one up.

    On a busy machine Dask may fail to replace a process that was killed, and never tries again.
    """
    until = time.monotonic() + SECONDS
    while True:
        try:
            client.wait_for_workers(3, timeout=REPLACING_SECONDS)
        except TimeoutError:
            if time.monotonic() > until:
                raise
            client.cluster.scale(len(client.cluster.worker_spec) + 1)
        else:
            return


@pytest.fixture
def address(three_workers):
    """The address of the scheduler, with all three workers there."""
    wait_for_three(three_workers)
    return three_workers.scheduler.address


@pytest.fixture
def blank_workers(three_workers):
    """Workers that draw nothing, those that replace killed ones too."""
    from distributed import WorkerPlugin

    class Blank(WorkerPlugin):
        def setup(self, worker):
            from matplotlib.backends.backend_agg import FigureCanvasAgg

            from tests.workflows.conftest import draw_nothing

            FigureCanvasAgg.draw = draw_nothing

    three_workers.register_plugin(Blank(), name="blank")


@pytest.fixture
def held(three_workers, address, tmp_path):
    """Return a context in which a function of jawloc waits on every worker, and what happens then.

    `then` is called once as many tasks are held, with their processes; all go on after it.
    """

    @contextmanager
    def holding(module: str, name: str, then, number: int = 3):
        (tmp_path / "hold").touch()
        (tmp_path / "begun").unlink(missing_ok=True)
        three_workers.run(hold, str(tmp_path), module, name)

        def watch():
            until = time.monotonic() + SECONDS
            while len(begun(tmp_path)) < number and time.monotonic() < until:
                time.sleep(0.02)
            then(begun(tmp_path))
            (tmp_path / "hold").unlink()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            (tmp_path / "hold").unlink(missing_ok=True)
            thread.join()
            wait_for_three(three_workers)
            three_workers.run(let_go, module, name)

    return holding


def kill_first(processes):
    """Kill the process of the first task."""
    os.kill(processes[0], signal.SIGKILL)


def interrupt(_processes):
    """Press Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def heeds_ctrl_c():
    """Ctrl-C interrupts, as at a terminal; a job in the background of a script ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Watch:
    """The processes that this one starts, and the addresses at which all of them listen."""

    def __init__(self):
        self.processes, self.addresses = set(), set()
        self.stopped = threading.Event()
        me = psutil.Process()
        self.before = {*me.children(recursive=True)}
        self.listening = {found.laddr for found in self._listening(me)}

    @staticmethod
    def _listening(process):
        with suppress(psutil.Error):
            found = process.net_connections(kind="tcp")
            return [one for one in found if one.status == psutil.CONN_LISTEN]
        return []

    def watch(self):
        me = psutil.Process()
        while not self.stopped.wait(0.05):
            new = {*me.children(recursive=True)} - self.before
            for process in (me, *new):
                for found in self._listening(process):
                    if found.laddr not in self.listening:
                        self.addresses.add(found.laddr.ip)
                        self.processes |= {process} - {me}


@pytest.fixture
def watched():
    """What starts and listens from now on."""
    watch = Watch()
    thread = threading.Thread(target=watch.watch)
    thread.start()
    yield watch
    watch.stopped.set()
    thread.join()
