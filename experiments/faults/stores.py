"""Disks and stores that fail while jawloc trains, logs and locates.

The training must go on, or end in a sentence that names the folder and the bytes that it needs; its
last checkpoint and its finished scans must survive; and once the fault is over, the same command
with --resume must leave a store that has each metric of each epoch once, every file and the model.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from unittest import mock

import tiny_project as tiny
from campaign import Outcome, Plan
from store_bench import Bench
from store_databases import killed_while_made, locked, other_schemas
from store_disks import full_store, full_while_locating, full_while_training, read_only_store
from store_servers import dead_server, killed_while_sending


def faults(plan: Plan) -> Iterator[Outcome]:
    """Plant every fault; in the short form, fewer moments and shorter waits."""
    with mock.patch.dict(os.environ), tiny.without_pictures(), _quickly(plan):
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        bench = Bench(plan)
        mounted = tiny.may_mount()
        kinds: list[Callable[[Bench], Iterator[Outcome]]]
        kinds = [full_while_training, full_store, full_while_locating, read_only_store]
        for kind in kinds:
            if mounted:
                yield from kind(bench)
            else:
                yield Outcome(f"{kind.__name__}: not tried, no disk can be mounted", "refused")
        kinds = [locked, other_schemas, killed_while_made, killed_while_sending]
        for kind in kinds if plan.short else [*kinds, dead_server]:
            yield from kind(bench)


@contextlib.contextmanager
def _quickly(plan: Plan) -> Iterator[None]:
    """Shorten the waits, in the short form."""
    from jawloc.reporting.tracking import spool

    names = ("FIRST_PAUSE_SECONDS", "LAST_TRIES_SECONDS", "BETWEEN_LAST_TRIES_SECONDS")
    values = (0.2, 0.5, 0.1) if plan.short else (2.0, 6.0, 0.5)
    with mock.patch.multiple(spool, **dict(zip(names, values, strict=True))):
        yield
