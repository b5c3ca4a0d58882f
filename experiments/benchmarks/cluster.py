"""Locating many scans with several processes: the plain loop, one worker, two workers.

    python experiments/benchmarks/cluster.py             # minutes

Each contender is the whole command `jawloc locate`, with tables, crops and pictures. It is run with
two scans and with many, so that the time a further scan takes is told apart from the start of
processes. All scans are one file under several names, in the page cache; the network is untrained.
Processor times, unlike the others, are hardly moved by what else the machine does.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from locate import GRID, QUICK_GRID, QUICK_SCAN, SCAN, WORK, _prepare, _read_through
from reporting import RESULTS, ROOT, Bars, Row, Table, report

PLAIN, ONE, TWO = "the plain loop", "--workers 1", "--workers 2"
CONTENDERS: dict[str, list[str]] = {
    PLAIN: [],
    ONE: ["--workers", "1", "--worker-memory", "4GB"],
    TWO: ["--workers", "2", "--worker-memory", "4GB"],
}
FEW = 2  # scans, which are located before a further one is timed
PAPER_SCANS, PAPER_GB = 10_000, 2.2  # a survey of full-size labelled DICOMs
DRIVE_GB_A_SECOND = 1.25  # of a network drive: 10 Gbit/s
NOTE = (
    "Load average before: {load:.1f} on {cores} cores. Limit, on paper: {scans} scans of {gb} GB "
    "are {tb:.0f} TB, {hours:.1f} h at {rate} GB/s, which {busy:.1f} cores keep busy."
)


def main() -> None:
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    shape, grid = (QUICK_SCAN, QUICK_GRID) if options.quick else (SCAN, GRID)
    scan = options.work / f"phantom_{'x'.join(map(str, shape))}.dcm"
    model = options.work / f"untrained_{'x'.join(map(str, grid))}.pth"
    load = os.getloadavg()[0]
    _prepare(scan, shape, model, grid)
    rows = _measure(scan, model, options.scans, options.repeats)
    cpu = float(str(rows[0]["cpu_seconds_a_scan"]))
    tables = [
        Table(
            "locate",
            f"Scans of {'x'.join(map(str, shape))} ({scan.stat().st_size / 1e9:.2f} GB), located",
            rows,
            Bars("scans_a_minute", "further scans a minute"),
        ),
        Table("paper", f"{PAPER_SCANS} scans of {PAPER_GB} GB, on paper", on_paper(cpu)),
    ]
    hours = PAPER_SCANS * PAPER_GB / DRIVE_GB_A_SECOND / 3600
    note = NOTE.format(
        load=load,
        cores=os.cpu_count(),
        scans=PAPER_SCANS,
        gb=PAPER_GB,
        tb=PAPER_SCANS * PAPER_GB / 1000,
        hours=hours,
        rate=DRIVE_GB_A_SECOND,
        busy=cpu * PAPER_SCANS / 3600 / hours,
    )
    quick = {"results": options.work / "results", "root": options.work}
    report(
        "cluster",
        tables,
        params={"shape_zyx": shape, "grid_zyx": grid, "scans": options.scans},
        note=note,
        **(quick if options.quick else {"results": RESULTS, "root": ROOT}),
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scans", type=int, default=14, help="of the longer command")
    parser.add_argument("--repeats", type=int, default=2, help="of each command")
    parser.add_argument("--work", type=Path, default=WORK, help="where the phantom is kept")
    parser.add_argument(
        "--quick", action="store_true", help="small scans; results stay in the work folder"
    )
    options = parser.parse_args()
    options.work = options.work.resolve()
    return options


def _measure(scan: Path, model: Path, count: int, repeats: int) -> list[Row]:
    """Run every contender with few scans and with all, in turns; take the fastest of each."""
    names = [scan.with_name(f"{number:02d}_{scan.name}") for number in range(count)]
    for name in names:
        name.unlink(missing_ok=True)
        name.hardlink_to(scan)
    best: dict[tuple[str, int], tuple[float, float]] = {}
    try:
        for _ in range(repeats):
            for contender in CONTENDERS:
                for number in (FEW, count):
                    _read_through(scan)
                    took = _locate(names[:number], model, scan.parent, CONTENDERS[contender])
                    known = best.get((contender, number), took)
                    best[contender, number] = min(known[0], took[0]), min(known[1], took[1])
    finally:
        for name in names:
            name.unlink()
    return [_row(contender, best, count) for contender in CONTENDERS]


def _row(contender: str, best: dict[tuple[str, int], tuple[float, float]], count: int) -> Row:
    few, every = best[contender, FEW], best[contender, count]
    further = count - FEW
    seconds, cpu = ((every[i] - few[i]) / further for i in (0, 1))
    return {
        "contender": contender,
        "scans_a_minute": 60 / seconds,
        "seconds_a_scan": seconds,
        "cpu_seconds_a_scan": cpu,
        "start_seconds": few[0] - FEW * seconds,
        "whole_seconds": every[0],
    }


def _locate(
    scans: Sequence[Path], model: Path, work: Path, more: Sequence[str]
) -> tuple[float, float]:
    """Return wall and processor seconds of a command and all its processes."""
    folder = work / "located"
    shutil.rmtree(folder, ignore_errors=True)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "jawloc", "locate", model, *scans, "--output-dir", folder, *more],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    shutil.rmtree(folder)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def on_paper(cpu_seconds: float) -> list[Row]:
    """Return the hours that processors and a network drive need for a survey, by cores."""
    drive = PAPER_SCANS * PAPER_GB / DRIVE_GB_A_SECOND / 3600
    rows: list[Row] = []
    for cores in (1, 2, 8, 32):
        work = PAPER_SCANS * cpu_seconds / cores / 3600
        binds = "processors" if work > drive else "network drive"
        rows.append({"cores": cores, "cpu_hours": work, "drive_hours": drive, "binds": binds})
    return rows


if __name__ == "__main__":
    main()
