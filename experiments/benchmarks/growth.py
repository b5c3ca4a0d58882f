"""Growth: time and memory against the number of scans and against the size of a scan.

    python experiments/benchmarks/growth.py            # about 10 minutes, 4 GB of disk
    python experiments/benchmarks/growth.py --quick    # a minute or two; into script_output

Time should be linear in scans and in bytes: flat seconds a scan. Memory should be flat, but for
training with all scans in memory. Limit: reading the bytes once, from the page cache: those of the
full-size files for the cache and for locating, of the cached files for what starts from them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from contenders import Contender, Work, measure, summarise
from downsampling import Shape, jawloc_cache, read_bytes
from locate import locating
from reporting import RESULTS, ROOT, Lines, Row, Table, report

from jawloc.phantom import write_phantoms
from jawloc.scans.cache import CacheConfig, build_cache
from jawloc.scans.cores import usable_cores

if TYPE_CHECKING:
    from jawloc.config import Config

COUNTS, QUICK_COUNTS = (10, 40, 160), (2, 4, 8)
SCAN, SCAN_GRID = (288, 96, 96), (96, 48, 48)  # (z, y, x)
SIZES = ((250, 75, 75), (500, 150, 150), (1000, 300, 300), (2000, 600, 600))
QUICK_SIZES, SIZE_GRID = SIZES[:2], (128, 64, 64)
EPOCHS = 3  # the first reads the scans or warms up
VALIDATION_SHARE = 5  # one scan in so many validates
READ, READ_CACHED = "limit: read the files", "limit: read the cached files"
FILES = "the files themselves"
NOTE = (
    "Medians of interleaved runs, each in a process of its own, with the files in the page cache. "
    "Imports are left out of the times and count for the memory. Dotted: linear growth. An epoch "
    f"is the median of {EPOCHS} but the first, of 4 scans in 5, validated on the others; reading "
    "from the cache file by file is what memory_budget_gb = 0 does."
)


@dataclass(frozen=True)
class Case:
    """One point of a line: what is done, to how much, and which limit it is held against."""

    what: str
    files: Sequence[Path]  # that are read
    amount: float  # scans, or megabytes
    limit: str
    contender: Contender

    def name(self, unit: str) -> str:
        """Name the row."""
        return f"{self.what}, {self.amount:.0f} {unit}"


def main() -> None:
    """Measure everything and report it."""
    wanted = _arguments()
    # as jawloc's own command does; it keeps threads from starving each other
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    counts, sizes = (QUICK_COUNTS, QUICK_SIZES) if wanted.quick else (COUNTS, SIZES)
    with TemporaryDirectory() as work, nullcontext(wanted.scans or Path(work)) as folder:
        by_count = _cases_of_counts(folder / _times(SCAN), Path(work), counts)
        by_size = _cases_of_sizes(folder, Path(work), sizes)
        tables = [
            *_tables(by_count, "scans", f"Scans of {_times(SCAN)} at {_times(SCAN_GRID)}", wanted),
            *_tables(by_size, "MB", f"One scan, ever larger, at {_times(SIZE_GRID)}", wanted),
        ]
    report(
        "growth_quick" if wanted.quick else "growth",
        tables,
        params={"scans": counts, "sizes_zyx": sizes, "repeats": wanted.repeats, "epochs": EPOCHS},
        note=NOTE,
        results=ROOT / "script_output" / "benchmarks" if wanted.quick else RESULTS,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="few and small scans")
    parser.add_argument("--scans", type=Path, help="a folder to keep the scans in and reuse")
    parser.add_argument("--repeats", type=int, default=2)
    return parser.parse_args()


def _times(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _cases_of_counts(folder: Path, work: Path, counts: Sequence[int]) -> list[Case]:
    scans = write_phantoms(folder, max(counts), SCAN)
    config = CacheConfig(downsampled_dicom_size=SCAN_GRID, cache_dir=str(work / "cache"))
    cached = build_cache(scans, config, base=work).cached
    cases = []
    for n in counts:
        some, small = scans[:n], cached[:n]
        in_memory = partial(training, small, SCAN_GRID, EPOCHS, memory_budget_gb=1000.0)
        from_cache = partial(training, small, SCAN_GRID, EPOCHS, memory_budget_gb=0.0)
        build = partial(jawloc_cache, some, SCAN_GRID, usable_cores())
        check = partial(opening, some, config, work)
        cases += [
            Case(READ, some, n, READ, partial(read_bytes, some)),
            Case("build the cache", some, n, READ, build),
            Case(READ_CACHED, small, n, READ_CACHED, partial(read_bytes, small)),
            Case("start a run: check the cache", small, n, READ_CACHED, check),
            Case("an epoch, scans in memory", small, n, READ_CACHED, in_memory),
            Case("an epoch, read file by file", small, n, READ_CACHED, from_cache),
        ]
    return cases


def _cases_of_sizes(folder: Path, work: Path, sizes: Sequence[Shape]) -> list[Case]:
    model = work / "untrained.pth"
    write_locator(model, SIZE_GRID)
    cases = []
    for shape in sizes:
        scans = write_phantoms(folder / _times(shape), 1, shape)
        size = scans[0].stat().st_size / 1e6
        cases += [
            Case(READ, scans, size, READ, partial(read_bytes, scans)),
            Case("build the cache", scans, size, READ, partial(jawloc_cache, scans, SIZE_GRID, 1)),
            Case("locate", scans, size, READ, partial(locating, scans[0], model)),
        ]
    return cases


def _tables(
    cases: Sequence[Case], unit: str, title: str, wanted: argparse.Namespace
) -> tuple[Table, Table]:
    """Measure the cases; return all numbers, drawn as time, and the memory for its own panel."""
    named = {case.name(unit): case for case in cases}
    runs = measure(
        {name: case.contender for name, case in named.items()},
        wanted.repeats,
        before=lambda name: _fill_page_cache(named[name].files),
    )
    found = {str(row["contender"]): row for row in summarise(runs)}
    rows = [_row(case, unit, found) for case in cases]
    axis = "scans" if unit == "scans" else "size of the file (MB)"
    lines = partial(Lines, x=unit, series="what", x_axis=axis, log_x=True, log_y=True)
    took = lines(y="seconds", y_axis="wall time (s)", linear=True)
    held = lines(y="peak_mb", y_axis="peak memory (MB)")
    return (
        Table(unit, f"{title}: time", rows, took),
        Table(f"{unit}_memory", f"{title}: memory", _memory(cases, rows, unit), held),
    )


def _row(case: Case, unit: str, found: Mapping[str, Row]) -> Row:
    def seconds(row: Row) -> float:  # of an epoch, where that is what counts
        return float(str(row.get("seconds_per_epoch", row["seconds"])))

    own = found[case.name(unit)]
    limit = found[Case(case.limit, (), case.amount, "", []).name(unit)]
    per, share = ("scan", case.amount) if unit == "scans" else ("gb", case.amount / 1e3)
    return {
        "row": case.name(unit),
        "what": case.what,
        unit: case.amount,
        "seconds": seconds(own),
        f"seconds_per_{per}": seconds(own) / share,
        "times_the_limit": seconds(own) / seconds(limit),
        "peak_mb": own["peak_mb"],
    }


def _memory(cases: Sequence[Case], rows: Sequence[Row], unit: str) -> list[Row]:
    """Return what memory is drawn of, beside what the files would take."""
    columns = ("row", "what", unit, "peak_mb")
    done = [{key: row[key] for key in columns} for row in rows if "limit" not in str(row["what"])]
    files = []
    for case in cases:
        if case.what == READ:
            megabytes = sum(path.stat().st_size for path in case.files) / 1e6
            name = f"{FILES}, {case.amount:.0f} {unit}"
            files.append(dict(zip(columns, (name, FILES, case.amount, megabytes), strict=True)))
    return [*done, *files]


def _fill_page_cache(files: Sequence[Path]) -> None:
    read: Work = read_bytes(files)
    read()


# What runs in the child processes


def training(cached: Sequence[Path], grid: Shape, epochs: int, *, memory_budget_gb: float) -> Work:
    """Train for a few epochs; an epoch's seconds are the median of all but the first's."""
    import torch

    from jawloc.scans.cache import open_example
    from jawloc.training.splits import Split
    from jawloc.workflows.prepare_data import Data
    from jawloc.workflows.train import start_state, train

    config = _config(cached[0].parent, grid, memory_budget_gb)
    examples = {e.scan_id: e for e in (open_example(p, config.cache.objects) for p in cached)}
    ids = tuple(examples)
    held_out = max(1, len(ids) // VALIDATION_SHARE)
    data = Data(Split(ids[held_out:], ids[:held_out], ()), examples)
    state = start_state(config, torch.device("cpu"))

    def work() -> dict[str, float]:
        ends = [time.perf_counter() for _ in islice(train(state, config, data), epochs)]
        return {"seconds_per_epoch": statistics.median(b - a for a, b in pairwise(ends))}

    return work


def opening(scans: Sequence[Path], config: CacheConfig, base: Path) -> Work:
    """Do what every run begins with: see that the cache is up to date, and open its examples."""
    from jawloc.scans.cache import open_example

    def work() -> None:
        found = build_cache(scans, config, base=base, progress=False)
        if found.reused != len(scans):
            raise RuntimeError(f"{found.reused} of {len(scans)} scans were in the cache")
        for path in found.cached:
            open_example(path, config.objects)

    return work


def write_locator(path: Path, grid: Shape) -> None:
    """Write an untrained default locator: it is only the time and the memory that count."""
    from jawloc.inference.locator import Locator, save_locator
    from jawloc.training.network import build_network

    config = _config(path.parent, grid, memory_budget_gb=0.0)
    schedules = config.curriculum.per_stage(len(config.network.stages()))
    locator = Locator(
        networks=(build_network(config.network, len(config.cache.objects)),),
        network_config=config.network,
        downsampled_size=grid,
        intensity=config.intensity,
        objects=config.cache.objects,
        sigma_voxels=(tuple(schedule.minimum_sigma_voxels for schedule in schedules),),
        flipped_axes=config.augmentation.flip_axes,
    )
    save_locator(locator, path)


def _config(base: Path, grid: Shape, memory_budget_gb: float) -> Config:
    from jawloc.config import check_config

    settings = {
        "downsampled_dicom_size": list(grid),
        "crop_size": list(grid),
        "device": "cpu",
        "memory_budget_gb": memory_budget_gb,
    }
    return check_config(settings, base=base, source="the benchmark")


if __name__ == "__main__":
    main()
