"""One process at a time: real second processes, killed ones, drives without locks."""

import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

import jawloc.reporting.folders.folder_lock as folder_lock
from jawloc.errors import InputError
from jawloc.reporting.folders.folder_lock import exclusive_lock, living_holder

ROOT = Path(__file__).parents[3]
# patches what was asked for, then does as the second part says
PREPARED = """
import errno, fcntl, os, socket, sys, time
from pathlib import Path
import jawloc.reporting.folders.folder_lock as folder_lock
from jawloc.errors import InputError

def refuse(*_):
    raise OSError(getattr(errno, sys.argv[2]), "no locks here")

place = Path(sys.argv[1])
if sys.argv[2] != "locks":
    fcntl.flock = refuse
if sys.argv[3] != "here":
    socket.gethostname = lambda: sys.argv[3]
folder_lock.LEASE_SECONDS, folder_lock.RENEWAL_SECONDS = map(float, sys.argv[4:])
"""
HOLDING = """
with folder_lock.exclusive_lock(place, "x"):
    print("held", flush=True)
    sys.stdin.readline()
"""
FORKING = """
with folder_lock.exclusive_lock(place, "x"):
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(600)
    sys.stdin.readline()
"""
RACING = """
held = 0
for _ in range(30):
    try:
        with folder_lock.exclusive_lock(place, "x"):
            os.close(os.open(place.with_name("inside"), os.O_CREAT | os.O_EXCL))
            held += 1
            time.sleep(0.005)
            os.unlink(place.with_name("inside"))
    except InputError:
        time.sleep(0.003)
print(held, flush=True)
"""
MODES = ["locks", "ENOTSUP", "ENOLCK", "ENOSYS"]


def start(place, script, mode="locks", machine="here"):
    lease = (str(folder_lock.LEASE_SECONDS), str(folder_lock.RENEWAL_SECONDS))
    return subprocess.Popen(
        [sys.executable, "-c", PREPARED + script, str(place), mode, machine, *lease],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@contextmanager
def another_process(place, mode="locks", machine="here", script=HOLDING):
    """Let another process hold the lock; it is killed in the end if it still lives."""
    process = start(place, script, mode, machine)
    try:
        process.said = process.stdout.readline().strip()
        assert process.said
        yield process
    finally:
        process.kill()
        process.communicate()


def holder_of(place):
    """Return the number of the process that the lease names."""
    return folder_lock._lease(place).pid


@pytest.fixture
def place(tmp_path):
    return tmp_path / "runs" / ".locks" / "x"


@pytest.fixture
def without(monkeypatch):
    """Return a function that takes the locks of this process away, as `mode` says."""

    def take(mode):
        def refuse(*_):
            raise OSError(getattr(errno, mode), "no locks here")

        if mode != "locks":
            monkeypatch.setattr(fcntl, "flock", refuse)

    return take


@pytest.fixture
def short_lease(monkeypatch):
    """Let a lease that isn't renewed end within a second, here and in processes started later."""
    monkeypatch.setattr(folder_lock, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(folder_lock, "RENEWAL_SECONDS", 0.05)


@pytest.mark.parametrize("mode", MODES)
def test_the_second_is_refused_while_the_first_lives_and_told_which_that_is(place, mode, without):
    without(mode)
    with another_process(place, mode) as first:
        refused = pytest.raises(InputError, match=r"^'x' \(there\) is in use by process ")
        with refused as said, exclusive_lock(place, "'x' (there)"):
            pytest.fail("two at once")
        assert re.search(
            rf" process {first.pid} on \S+ since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d; wait until ",
            str(said.value),
        )
        first.communicate("go\n")
    assert first.returncode == 0
    with exclusive_lock(place, "x"):
        assert place.parent.is_dir()
    assert not place.parent.exists()  # nothing is left of either


def test_who_holds_a_lock_is_known_without_taking_it(place, short_lease):
    assert living_holder(place) is None
    with another_process(place) as holder:
        assert re.match(rf"process {holder.pid} on \S+ since \d{{4}}-", living_holder(place))
        holder.kill()
        holder.communicate()
        assert place.with_name("x.lease").exists()
        assert living_holder(place) is None
    with another_process(place, machine="elsewhere") as holder:
        assert living_holder(place).startswith(f"process {holder.pid} on elsewhere")
        holder.kill()
        holder.communicate()
        time.sleep(1.1)
        assert living_holder(place) is None


@pytest.mark.parametrize("mode", MODES)
def test_a_killed_process_holds_nothing(place, mode, without):
    without(mode)
    with another_process(place, mode) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert place.with_name("x.lease").exists()  # it had no time to tidy up
    with exclusive_lock(place, "x"):
        pass
    assert not place.parent.exists()


def test_a_killed_process_that_its_parent_was_not_told_of_holds_nothing(place, short_lease):
    with another_process(place) as first:
        os.kill(first.pid, signal.SIGKILL)
        os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)  # it stays as a zombie
        assert holder_of(place) == first.pid
        with exclusive_lock(place, "x"):
            assert holder_of(place) == os.getpid()


@pytest.mark.parametrize("mode", ["locks", "ENOTSUP"])
def test_another_process_with_the_number_of_a_dead_one_is_not_taken_for_it(place, mode, without):
    without(mode)
    with another_process(place, mode) as first, another_process(place.with_name("y")) as other:
        first.kill()
        first.wait()
        lease = place.with_name("x.lease")
        lease.write_text(
            lease.read_text(encoding="utf-8").replace(f"pid={first.pid}", f"pid={other.pid}")
        )
        assert holder_of(place) == other.pid
        with exclusive_lock(place, "x"):
            assert holder_of(place) == os.getpid()


def test_a_stopped_process_keeps_its_lock(place, short_lease, without):
    without("ENOLCK")
    with another_process(place, "ENOLCK") as first:
        os.kill(first.pid, signal.SIGSTOP)
        with pytest.raises(InputError, match=f"process {first.pid} "), exclusive_lock(place, "x"):
            pytest.fail("two at once")


@pytest.mark.parametrize("mode", ["locks", "ENOTSUP"])  # of this process; the other has none
def test_a_process_of_another_machine_lives_while_it_renews_its_lease(
    place, mode, without, short_lease
):
    """As on a drive whose locks don't reach other machines, or that has none."""
    without(mode)
    with another_process(place, "ENOTSUP", machine="far-away") as first:
        refused = pytest.raises(InputError, match=f"process {first.pid} on far-away since ")
        with refused, exclusive_lock(place, "x"):
            pytest.fail("two at once")
        first.kill()
        first.wait()
        with exclusive_lock(place, "x"):
            pass


def test_what_a_killed_process_has_started_does_not_hold_its_lock(place):
    with another_process(place, script=FORKING) as first:
        first.kill()
        first.wait()
        os.kill(int(first.said), 0)  # the copy lives
        try:
            assert holder_of(place) == first.pid
            with exclusive_lock(place, "x"):
                assert holder_of(place) == os.getpid()
        finally:
            os.kill(int(first.said), signal.SIGKILL)


@pytest.mark.parametrize("mode", ["locks", "ENOLCK"])
def test_of_many_that_come_and_go_no_two_are_ever_inside(place, mode):
    place.parent.mkdir(parents=True)
    processes = [start(place, RACING, mode) for _ in range(4)]
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4  # O_EXCL never failed
    assert sum(map(int, said)) > 4


def test_a_lock_within_a_lock_is_granted_but_not_to_another_thread(place):
    refused = []

    def other():
        try:
            with exclusive_lock(place, "x"):
                pass
        except InputError as error:
            refused.append(str(error))

    with exclusive_lock(place, "x"), exclusive_lock(place, "x"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1 and f"process {os.getpid()} " in refused[0]
    other()
    assert len(refused) == 1


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path):
    (tmp_path / "file").touch()
    refused = pytest.raises(InputError, match=r"^x can't be locked against other processes; ")
    with refused, exclusive_lock(tmp_path / "file" / "x", "x"):
        pytest.fail("it was locked")
