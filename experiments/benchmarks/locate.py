"""Locating: a full-size scan file in, the position of the jaw out, by jawloc and the lab's way.

    python experiments/benchmarks/locate.py              # minutes; the lab's way takes 12 GB
    python experiments/benchmarks/locate.py --scans 20   # only several scans, with all files
    python experiments/benchmarks/locate.py --scans 20 --from-disk   # the same, 45 GB of files

Networks are untrained, as it is only the time that counts. Every contender runs in a process of
its own; the file is read once before each run, so that all find it in the page cache. With
`--from-disk`, every scan is a file of its own, and what the system kept of it in memory is dropped
before each run: more scans than fit into memory are read from the disk.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from contenders import Work, measure, summarise, with_ratios
from reporting import RESULTS, ROOT, Bars, Table, report

WORK = ROOT / "dicoms" / "benchmarks"  # git ignores it
SCAN, GRID = (2000, 600, 600), (512, 128, 128)  # (z, y, x)
QUICK_SCAN, QUICK_GRID = (288, 96, 96), (96, 48, 48)
CHUNK = 2**23  # bytes
READ, LOCATE, LAB = "reading the bytes", "jawloc's locate", "the lab's way"
AVERAGE = "reading and averaging alone"
SHRINK = "downsampling alone"  # of the image, as locating begins with it
SHRINK_ALL = "downsampling for the cache"  # of image and mask, with centroids and hash
IMPORTS = "importing torch, a whole process"
JAWLOC_PROCESS, LAB_PROCESS = "jawloc's, a whole process", "the lab's, a whole process"
JAWLOC_CODE = (
    "from pathlib import Path; from jawloc.inference.locator import load_locator; "
    "print(load_locator(Path({model!r})).locate(Path({scan!r})))"
)
LAB_CODE = (
    "import sys; sys.path.insert(0, {here!r}); from pathlib import Path; import lab_recipe; "
    "print(lab_recipe.locate(lab_recipe.build_network().eval(), Path({scan!r}), {grid}))"
)
NOTE = (
    "Limit: reading the file's bytes once, from the page cache. Loading the network is left out "
    "but for the whole processes, which import everything anew. Goals: locating at most 1.25 "
    "times the downsampling alone, at most 1000 MB, and the lab's way at least 15 times as long."
)
GOAL_SEVERAL = (
    "Goal: locating takes at most 1.25 times as long as reading and averaging alone, and at most "
    "1000 MB."
)
CACHED = "All scans are one file under several names, in the page cache."
FROM_DISK = "Every scan is a file of its own, of which nothing is in memory before each run."


def main() -> None:
    options = _options()
    # as jawloc's own command does; it keeps threads from starving each other, the lab's too
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options.work.mkdir(parents=True, exist_ok=True)
    shape, grid = (QUICK_SCAN, QUICK_GRID) if options.quick else (SCAN, GRID)
    scan = options.work / f"phantom_{'x'.join(map(str, shape))}.dcm"
    model = options.work / f"untrained_{'x'.join(map(str, grid))}.pth"
    _prepare(scan, shape, model, grid)
    about = (
        f"{'x'.join(map(str, shape))} ({scan.stat().st_size / 1e9:.2f} GB) at "
        f"{'x'.join(map(str, grid))}"
    )
    if options.scans:
        table = Table(
            "several",
            f"{options.scans} scans of {about}: from the files to tables, crops and pictures",
            _measure_several(scan, model, grid, options),
            Bars("seconds", "wall time (s), median and range"),
        )
    else:
        table = Table(
            "locate",
            f"A scan of {about}: from the file to the position",
            _measure(scan, model, grid, options.repeats),
            Bars("seconds", "wall time (s), median and range", log=True),
        )
    quick = {"results": options.work / "results", "root": options.work}
    several = f"{FROM_DISK if options.from_disk else CACHED} {GOAL_SEVERAL}"
    name = "locate_from_disk" if options.from_disk else "locate_several"
    report(
        name if options.scans else "locate",
        [table],
        params={"shape_zyx": shape, "grid_zyx": grid, "repeats": options.repeats},
        note=several if options.scans else NOTE,
        **(quick if options.quick else {"results": RESULTS, "root": ROOT}),
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="of all but the lab's (once)")
    parser.add_argument("--scans", type=int, default=0, help="locate so many scans, nothing else")
    parser.add_argument("--from-disk", action="store_true", help="with --scans: no page cache")
    parser.add_argument("--work", type=Path, default=WORK, help="where the phantom is kept")
    parser.add_argument(
        "--quick", action="store_true", help="a small scan; results stay in the work folder"
    )
    options = parser.parse_args()
    if options.from_disk and not options.scans:
        parser.error("--from-disk needs --scans")
    options.work = options.work.resolve()
    return options


def _prepare(scan: Path, shape: Sequence[int], model: Path, grid: Sequence[int]) -> None:
    """Write the phantom, unless it is there, and an untrained default locator.

    In a process of its own: what this one imports would count as memory of its commands.
    """
    child = multiprocessing.get_context("spawn").Process(
        target=_write_scan_and_model, args=(scan, shape, model, grid)
    )
    child.start()
    child.join()
    if child.exitcode:
        raise RuntimeError(f"phantom and model: ended with exit code {child.exitcode}")


def _write_scan_and_model(
    scan: Path, shape: Sequence[int], model: Path, grid: Sequence[int]
) -> None:
    import torch

    from jawloc.config import check_config
    from jawloc.inference.locator import save_locator
    from jawloc.phantom import write_phantom
    from jawloc.workflows.log_training import best_locator
    from jawloc.workflows.train import start_state

    if not scan.exists():
        write_phantom(scan, 0, shape)
    settings = {"downsampled_dicom_size": list(grid), "device": "cpu"}
    config = check_config(settings, base=scan.parent, source="the benchmark")
    state = start_state(config, torch.device("cpu"))
    # as if one epoch had been trained, at the sigma that training ends with
    state.best_weights, state.best_epoch = state.network.state_dict(), 1
    schedules = config.curriculum.per_stage(len(state.curricula))
    sigmas = tuple(schedule.minimum_sigma_voxels for schedule in schedules)
    state.records = [SimpleNamespace(sigmas_voxels=sigmas)]  # type: ignore[list-item]
    save_locator(best_locator(state, config), model)


def _measure(scan: Path, model: Path, grid: Sequence[int], repeats: int) -> list[dict[str, object]]:
    here = str(Path(__file__).parent)
    jawloc_code = JAWLOC_CODE.format(model=str(model), scan=str(scan))
    lab_code = LAB_CODE.format(here=here, scan=str(scan), grid=tuple(grid))
    often = {
        READ: partial(reading, scan),
        SHRINK: partial(downsampling, scan, grid),
        SHRINK_ALL: partial(downsampling_for_the_cache, scan, grid),
        LOCATE: partial(locating, scan, model),
        IMPORTS: [sys.executable, "-c", "import torch"],
        JAWLOC_PROCESS: [sys.executable, "-c", jawloc_code],
    }
    once = {
        LAB: partial(locating_by_the_lab, scan, grid),
        LAB_PROCESS: [sys.executable, "-c", lab_code],
    }

    def warm(_: str) -> None:
        _read_through(scan)

    runs = measure(often, repeats, before=warm) + measure(once, 1, before=warm)
    rows = with_ratios(summarise(runs), times_the_limit=READ, times_downsampling=SHRINK)
    return [{**row, "times_jawloc": _times_jawloc(rows, row)} for row in rows]


def _measure_several(
    scan: Path, model: Path, grid: Sequence[int], options: argparse.Namespace
) -> list[dict[str, object]]:
    names = [scan.with_name(f"{number:02d}_{scan.name}") for number in range(options.scans)]
    for name in names:
        name.unlink(missing_ok=True)
        if options.from_disk:
            _copy_to_disk(scan, name)
        else:
            name.hardlink_to(scan)
    contenders = {
        AVERAGE: partial(averaging_several, names, grid),
        LOCATE: partial(locating_several, names, model, scan.with_name("located")),
    }
    try:
        runs = measure(
            contenders,
            options.repeats,
            before=lambda _: _drop(names) if options.from_disk else _read_through(scan),
        )
    finally:
        for name in names:
            name.unlink()
    return with_ratios(summarise(runs), times_averaging=AVERAGE)


def _times_jawloc(rows: Sequence[Mapping[str, object]], row: Mapping[str, object]) -> float:
    """Hold a whole process against jawloc's whole process, and work alone against locating."""
    ours = JAWLOC_PROCESS if "process" in str(row["contender"]) else LOCATE
    seconds = next(other["seconds"] for other in rows if other["contender"] == ours)
    return float(str(row["seconds"])) / float(str(seconds))


def _read_through(path: Path) -> None:
    buffer = bytearray(CHUNK)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def _copy_to_disk(source: Path, target: Path) -> None:
    # byte by byte: a copy that shares the source's blocks would share its pages in memory
    buffer = bytearray(CHUNK)
    with source.open("rb", buffering=0) as file, target.open("wb") as copy:
        while count := file.readinto(buffer):
            copy.write(memoryview(buffer)[:count])
        copy.flush()
        os.fsync(copy.fileno())  # pages that are not yet written can't be dropped


def _drop(paths: Sequence[Path]) -> None:
    """Make the system forget what it keeps of these files in memory."""
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# What runs in the child processes


def reading(scan: Path) -> Work:
    return partial(_read_through, scan)


def downsampling(scan: Path, grid: Sequence[int]) -> Work:
    from jawloc.scans.downsample import downsample_image
    from jawloc.scans.reading import open_scan

    def work() -> None:
        downsample_image(open_scan(scan), grid)

    return work


def downsampling_for_the_cache(scan: Path, grid: Sequence[int]) -> Work:
    from jawloc.scans.downsample import downsample
    from jawloc.scans.reading import open_scan

    def work() -> None:
        downsample(open_scan(scan), grid)

    return work


def locating(scan: Path, model: Path) -> Work:
    from jawloc.inference.locator import load_locator

    locator = load_locator(model)

    def work() -> None:
        locator.locate(scan)

    return work


def averaging_several(scans: Sequence[Path], grid: Sequence[int]) -> Work:
    from jawloc.scans.downsample import downsample_image
    from jawloc.scans.reading import open_scan

    def work() -> None:
        for scan in scans:
            downsample_image(open_scan(scan), grid)

    return work


def locating_several(scans: Sequence[Path], model: Path, folder: Path) -> Work:
    """Write what `jawloc locate` writes: tables, crops of the default size, pictures."""
    from jawloc.inference.locator import load_locator
    from jawloc.inference.models import ModelOptions
    from jawloc.reporting.location_files import LocateRequest
    from jawloc.scans.listing import list_scans
    from jawloc.workflows.locate import locate_scans

    locator = load_locator(model)
    crop = locator.crop_size or (192, 192, 192)
    request = LocateRequest(locator, str(model), "", ModelOptions(), folder, crop)
    shutil.rmtree(folder, ignore_errors=True)

    def work() -> None:
        result = locate_scans(request, list_scans(scans), {})
        if result.located != len(scans):
            raise RuntimeError(f"{result.located} of {len(scans)} scans were located")

    return work


def locating_by_the_lab(scan: Path, grid: Sequence[int]) -> Work:
    import lab_recipe

    network = lab_recipe.build_network().eval()

    def work() -> None:
        lab_recipe.locate(network, scan, grid)

    return work


if __name__ == "__main__":
    main()
