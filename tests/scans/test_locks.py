"""One process at a time, with the operating system's locks and on drives that have none."""

import errno
import os
import signal
import threading

import pytest
from filelock import Timeout

from jawloc.scans.locks import locked


@pytest.fixture(params=["", "ENOLCK", "ENOSYS"], ids=["locks", "ENOLCK", "ENOSYS"])
def drive(request, monkeypatch):
    """A drive with locks, and two kinds of drives without."""
    if request.param:

        def missing(*_):
            raise OSError(getattr(errno, request.param), "no locks")

        monkeypatch.setattr("fcntl.flock", missing)


def hold_in_another_process(path):
    """Return the id of a process that holds the lock until it is killed."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        try:
            with locked(path):
                os.write(writing, b"!")
                signal.pause()
        finally:
            os._exit(1)
    os.close(writing)
    assert os.read(reading, 1) == b"!"
    os.close(reading)
    return process


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.usefixtures("drive")
def test_the_second_waits_until_the_first_is_killed(tmp_path):
    path, checks = tmp_path / ".locks" / "a.lock", []
    process = hold_in_another_process(path)
    try:
        with pytest.raises(Timeout), locked(path, 0.0):
            pass

        def kill_it():
            checks.append(1)
            if len(checks) == 4:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)

        with locked(path, check=kill_it):
            assert len(checks) >= 4
    finally:
        if len(checks) < 4:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


@pytest.mark.usefixtures("drive")
def test_what_the_check_raises_ends_the_waiting(tmp_path):
    path, inside, over = tmp_path / "a.lock", threading.Event(), threading.Event()

    def hold():
        with locked(path):
            inside.set()
            over.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(60)

    def stop():
        raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt), locked(path, check=stop):
            pass
    finally:
        over.set()
        holder.join()
    with locked(path, 0.0):  # it is free again
        pass


@pytest.mark.parametrize("drive", ["ENOLCK"], indirect=True)
@pytest.mark.usefixtures("drive")
def test_a_lease_whose_holder_was_killed_before_it_wrote_its_name_ends(tmp_path, monkeypatch):
    """Regression: an empty lease was waited for without end."""
    monkeypatch.setattr("jawloc.scans.locks.LEASE_SECONDS", 0.3)
    monkeypatch.setattr("jawloc.scans.locks.RENEWAL_SECONDS", 0.1)
    lease = tmp_path / "a.lease"
    lease.touch()
    with locked(tmp_path / "a.lock", 60.0):
        assert lease.read_bytes()
    assert not lease.exists()


def test_another_error_is_not_taken_for_a_drive_without_locks(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("fcntl.flock", broken)
    with pytest.raises(OSError, match="Input/output"), locked(tmp_path / "a.lock"):
        pass
