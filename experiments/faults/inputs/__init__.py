"""Damaged inputs of the twelve kinds: each is read right, or refused in one sentence.

    cd experiments/faults; python -m inputs 417 1203   # plant these mutations again, and show them

Of each kind a few tiny whole files are written (`originals.py`) and damaged by a seeded generator
(`plans.py`), then read by the code that a user's command reaches (`readers.py`), in a process of
its own that must not exceed 2 GB or 10 s a file. Some go through the whole command besides
(`commands.py`). "Read" means: as the whole file, or as another library reads the damaged one, with
checksums that fit.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

from campaign import Outcome, Plan

from inputs.field import Field
from inputs.reading import MOST_BYTES, outcome
from jawloc.scans.cores import usable_cores

MUTATIONS = {True: 300, False: 10_000}  # by whether the form is the short one
PATIENCE = 200  # seconds until a process that doesn't answer is killed
MOST_PROCESSES = 2


def faults(plan: Plan) -> Iterator[Outcome]:
    field = Field(plan)
    count, processes = MUTATIONS[plan.short], min(MOST_PROCESSES, usable_cores())
    at_work = [Worker(field, range(first, count, processes)) for first in range(processes)]
    while at_work:
        ready = wait([worker.pipe for worker in at_work], 1.0)
        for worker in at_work.copy():
            if worker.pipe in ready or time.monotonic() > worker.patient_until:
                yield from worker.answer(worker.pipe in ready)
                if not worker.numbers:
                    worker.end()
                    at_work.remove(worker)


class Worker:
    """A process that plants the mutations of some numbers, and is replaced where it dies."""

    def __init__(self, field: Field, numbers: Iterable[int]) -> None:
        self.field, self.numbers = field, deque(numbers)
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        arguments = (self.field, list(self.numbers), theirs)
        self.process = context.Process(target=_serve, args=arguments)
        self.process.start()
        theirs.close()
        self.patient_until = time.monotonic() + PATIENCE

    def answer(self, ready: bool) -> Iterator[Outcome]:
        """Yield what became of the next number, for which the process may have died."""
        self.patient_until = time.monotonic() + PATIENCE
        how = "it doesn't answer"
        if ready:
            try:
                yield self.pipe.recv()
                self.numbers.popleft()
                return
            except EOFError:
                how = "the process dies"
        self.process.kill()
        self.process.join()
        row, detail = self.field.describe(self.numbers.popleft())
        yield Outcome(row, "LOST", f"{detail}: {how}, exit code {self.process.exitcode}")
        if self.numbers:
            self._start()

    def end(self) -> None:
        self.process.join()


def _serve(field: Field, numbers: Sequence[int], pipe: Connection) -> None:
    """Send the outcome of each number, in a process whose terminal is a file."""
    said = field.work / f"said{os.getpid()}"
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + MOST_BYTES,) * 2)
    for number in numbers:
        pipe.send(outcome(field, number, said))
    os._exit(0)


def _data_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith("VmData:")), 0)
