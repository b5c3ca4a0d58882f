"""The cache: one full-size scan, several at once, and how exact the downsampled images are.

    python experiments/benchmarks/cache.py                  # about 10 minutes, 11 GB of disk
    python experiments/benchmarks/cache.py --quick          # a minute; into script_output

Peers: `scipy.ndimage.zoom` on whole arrays (cubic for the image, nearest for the mask: the lab's
way), and SimpleITK. Limit: reading the file's bytes once, from the disk or from the page cache.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from contenders import Contender, measure, summarise, with_ratios
from downsampling import (
    CHUNK_BYTES,
    Shape,
    by_scipy_zoom,
    by_simpleitk,
    jawloc_cache,
    jawloc_downsample,
    read_bytes,
)
from reporting import RESULTS, ROOT, Bars, Row, Table, report
from smooth_density import NOISE, write_smooth_scan

from jawloc.phantom import write_phantoms
from jawloc.scans.cores import usable_cores

FULL_SIZE, TARGET = (2000, 600, 600), (512, 128, 128)
QUICK_SIZE, QUICK_TARGET = (250, 150, 150), (64, 32, 32)
SCANS = 4
SEED = 0
GOAL_MB = 600.0
LAB = "scipy zoom (the lab's way)"
LIMIT, COLD_LIMIT = "limit: read the bytes", "limit: read the bytes, cold"


def main() -> None:
    """Measure everything and report it."""
    wanted = _arguments()
    source, target = (QUICK_SIZE, QUICK_TARGET) if wanted.quick else (FULL_SIZE, TARGET)
    with _folder(wanted.scans) as folder:
        phantoms = folder / "x".join(map(str, source))
        paths = write_phantoms(phantoms, SCANS, source, seed=SEED)
        sizes = [" × ".join(map(str, shape)) for shape in (source, target)]
        what = f"{sizes[0]} of 16 bits with mask ({paths[0].stat().st_size / 1e9:.2f} GB)"
        one = _one_scan(paths[0], target, wanted.repeats)
        several = _several_scans(paths, target, wanted.repeats)
        accuracy = _accuracy(phantoms / "smooth.dcm", source, target)
    title = f"A scan of {what} down to {sizes[1]}"
    report(
        "cache_quick" if wanted.quick else "cache",
        _tables(title, one, several, accuracy),
        params={"source_zyx": source, "target_zyx": target, "repeats": wanted.repeats},
        note=(
            "Medians of interleaved runs, each in a process of its own; whiskers from the fastest "
            "to the slowest. Imports are left out of the times and count for the memory. Files "
            "are in the page cache unless marked cold; jawloc's times include the hash of the "
            "content and, for build_cache, the search for labels, checksum and the cached DICOM."
        ),
        results=ROOT / "script_output" / "benchmarks" if wanted.quick else RESULTS,
    )


def _tables(
    title: str, one: Sequence[Row], several: Sequence[Row], accuracy: Sequence[Row]
) -> list[Table]:
    read = float(str(_row_of(LIMIT, one)["seconds"]))
    half = float(str(_row_of(LAB, accuracy)["rms_error_greys"])) / 2
    truth = f"Smooth known density, noise of {NOISE:.0f}: error against the noise-free average"
    seconds, grey_error = "wall time (s), logarithmic", "root-mean-square error (grey values)"
    limit, goal, half_the_lab = (read, LIMIT), (GOAL_MB, "goal"), (half, "goal: half the lab's")
    return [
        Table("one_scan", title, one, Bars("seconds", seconds, log=True, limit=limit)),
        Table(
            "memory",
            f"{title}: memory",
            _memory(one),
            Bars("peak_mb", "peak memory of the process (MB)", limit=goal),
        ),
        Table("several", "Several such scans", several, Bars("seconds", "wall time (s)")),
        Table("accuracy", truth, accuracy, Bars("rms_error_greys", grey_error, limit=half_the_lab)),
    ]


def _row_of(name: str, rows: Sequence[Row]) -> Row:
    return next(row for row in rows if row["contender"] == name)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="small scans")
    parser.add_argument("--scans", type=Path, help="a folder to keep the scans in and reuse")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        yield kept
        return
    with TemporaryDirectory() as folder:
        yield Path(folder)


def _one_scan(path: Path, target: Shape, repeats: int) -> list[Row]:
    contenders: dict[str, Contender] = {
        LIMIT: partial(read_bytes, [path]),
        "jawloc downsample": partial(jawloc_downsample, path, target),
        "jawloc build_cache": partial(jawloc_cache, [path], target, 1),
        "SimpleITK smooth + resample": partial(by_simpleitk, path, target),
        LAB: partial(by_scipy_zoom, path, target),
    }
    if hasattr(os, "posix_fadvise"):
        contenders[COLD_LIMIT] = partial(read_bytes, [path])
        contenders["jawloc build_cache, cold"] = partial(jawloc_cache, [path], target, 1)
    runs = measure(contenders, repeats, before=partial(_set_page_cache, [path]))
    rows = with_ratios(summarise(runs), against_limit=LIMIT, of_lab=LAB)
    cold = next((row for row in rows if row["contender"] == COLD_LIMIT), None)
    for row in rows:
        row["lab_takes_times"] = 1 / float(str(row.pop("of_lab")))
        if cold is not None and "cold" in str(row["contender"]):
            row["against_limit"] = float(str(row["seconds"])) / float(str(cold["seconds"]))
    return rows


def _memory(rows: Sequence[Row]) -> list[Row]:
    return [
        {"contender": row["contender"], "peak_mb": row["peak_mb"]}
        for row in rows
        if "cold" not in str(row["contender"])
    ]


def _several_scans(paths: Sequence[Path], target: Shape, repeats: int) -> list[Row]:
    rows: list[Row] = []
    cores = usable_cores()
    for count in (2, SCANS):
        some = paths[:count]
        names = {1: f"{count} scans, 1 worker", cores: f"{count} scans, {cores} workers"}
        contenders: dict[str, Contender] = {
            f"{count} scans, {LIMIT}": partial(read_bytes, some),
            **{name: partial(jawloc_cache, some, target, n) for n, name in names.items()},
        }
        runs = measure(contenders, repeats, before=partial(_set_page_cache, some))
        found = with_ratios(summarise(runs), against_limit=f"{count} scans, {LIMIT}")
        for row in found:
            seconds = float(str(row["seconds"]))
            busy = float(str(row["cpu_seconds"])) / seconds
            rows.append({**row, "seconds_a_scan": seconds / count, "cores_busy": busy})
    return rows


def _accuracy(path: Path, source: Shape, target: Shape) -> list[Row]:
    averages = write_smooth_scan(path, source, target, SEED)
    truth = path.with_name("truth.npy")
    np.save(truth, averages["truth"])
    contenders: dict[str, Contender] = {
        "jawloc": partial(jawloc_downsample, path, target, truth),
        "SimpleITK smooth + resample": partial(by_simpleitk, path, target, truth),
        "scipy zoom, voxels in their place": partial(
            by_scipy_zoom, path, target, truth, same_space=True
        ),
        LAB: partial(by_scipy_zoom, path, target, truth),
    }
    errors = {row["contender"]: row["rms_error_greys"] for row in summarise(measure(contenders, 1))}
    path.unlink()
    limit = float(np.sqrt(np.mean((averages["noisy"] - averages["truth"]) ** 2)))
    errors = {"limit: exact average of the noisy scan": limit, **errors}
    return [
        {
            "contender": name,
            "rms_error_greys": error,
            "share_of_lab": float(str(error)) / float(str(errors[LAB])),
        }
        for name, error in errors.items()
    ]


def _set_page_cache(paths: Sequence[Path], name: str) -> None:
    """Put the files into the page cache, or out of it where the contender is to start cold."""
    for path in paths:
        with path.open("rb", buffering=0) as file:
            if "cold" in name:
                os.fsync(file.fileno())  # pages that aren't on the disk yet would stay
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                continue
            while file.read(CHUNK_BYTES):
                pass


if __name__ == "__main__":
    main()
