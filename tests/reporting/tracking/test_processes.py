"""A run's tags tell whether its process lives; where that is unknown, it counts as alive."""

import os
import subprocess
import sys
import time

import pytest

from jawloc.reporting.tracking.processes import BEGAN, HOST, PROCESS, is_dead, process_tags

DEAD = {PROCESS: str(2**22 + 1)}  # above the largest number that Linux gives


def test_this_process_lives():
    tags = process_tags()
    assert tags[PROCESS] == str(os.getpid())
    assert not is_dead(tags)


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps no ended processes")
def test_a_killed_process_is_dead_also_before_its_parent_knows():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    tags = {**process_tags(), PROCESS: str(child.pid), BEGAN: str(time.time())}
    assert not is_dead(tags)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it stays there, as a zombie
    assert is_dead(tags)
    child.communicate()
    assert is_dead(tags)


def test_another_process_of_the_same_number_is_not_the_runs():
    began = float(process_tags()[BEGAN])
    assert is_dead({**process_tags(), BEGAN: f"{began - 60}"})
    assert not is_dead({**process_tags(), BEGAN: f"{began + 1}"})  # the clock was set


@pytest.mark.parametrize(
    "tags",
    [{HOST: "another"}, {PROCESS: ""}, {PROCESS: "one"}],
    ids=["host", "none", "no number"],
)
def test_what_is_unknown_counts_as_alive(tags):
    assert is_dead({**process_tags(), **DEAD})
    assert not is_dead({**process_tags(), **DEAD, **tags})
    assert not is_dead({**process_tags(), BEGAN: ""})
