"""Faults: what an overnight run meets, planted with a fixed seed; nothing may be lost.

    python experiments/faults/campaign.py              # everything; hours
    python experiments/faults/campaign.py --short      # a little of everything: 2 minutes
    python experiments/faults/campaign.py --only kills

Each area is a module beside this one with a function `faults(plan)` that plants faults one by one
and yields an Outcome for each. A fault is survived if nothing was lost, nothing wrong was used, and
what was said was one sentence; for inputs, `what` says whether it was read or refused. The table
is printed and kept in `results/`; the exit code is 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

AREAS = ("kills", "caches", "stores", "inputs", "attacks", "load")
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Plan:
    """How much to try, and where."""

    short: bool
    seed: int
    work: Path  # an empty folder for this area

    @property
    def random(self) -> random.Random:
        return random.Random(self.seed)


@dataclass(frozen=True)
class Outcome:
    """One fault that was planted."""

    fault: str  # its kind: a row of the table
    what: str  # "survived", "read", "refused" or "LOST"
    detail: str = ""  # one line that lets somebody repeat it

    @property
    def lost(self) -> bool:
        return self.what == "LOST"


def main() -> None:
    options = _options()
    # a shell starts what it runs in the background with SIGINT ignored, and so would this its own
    signal.signal(signal.SIGINT, signal.default_int_handler)
    lost = 0
    for area in options.only or AREAS:
        started = time.monotonic()
        outcomes = []
        with tempfile.TemporaryDirectory(prefix=f"jawloc-{area}-") as work:
            plan = Plan(short=options.short, seed=options.seed, work=Path(work))
            for outcome in _area(area)(plan):
                outcomes.append(outcome)
                if outcome.lost:
                    print(f"{area}: LOST: {outcome.fault}: {outcome.detail}", flush=True)
        print(_table(area, outcomes, time.monotonic() - started), flush=True)
        if not options.short:
            _write(RESULTS / f"{area}.csv", outcomes)
        lost += sum(outcome.lost for outcome in outcomes)
    sys.exit(1 if lost else 0)


def _area(name: str) -> Callable[[Plan], Iterator[Outcome]]:
    return importlib.import_module(name).faults


def _counts(outcomes: list[Outcome]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        counts.setdefault(outcome.fault, Counter())[outcome.what] += 1
    return counts


def _table(area: str, outcomes: list[Outcome], seconds: float) -> str:
    rows = [
        f"  {fault:<60} tried {sum(of_kind.values()):>6}   "
        + "   ".join(f"{what} {number}" for what, number in sorted(of_kind.items()))
        for fault, of_kind in _counts(outcomes).items()
    ]
    return "\n".join([f"{area}: {len(outcomes)} faults in {seconds:.0f} s", *rows])


def _write(path: Path, outcomes: list[Outcome]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["fault", "tried", "survived", "read", "refused", "lost"])
        for fault, of_kind in _counts(outcomes).items():
            kinds = (of_kind[kind] for kind in ("survived", "read", "refused", "LOST"))
            table.writerow([fault, sum(of_kind.values()), *kinds])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="a little of everything")
    parser.add_argument("--only", action="append", choices=AREAS, help="one area; repeatable")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
