"""Faults of the cache: no wrong example is ever used, no partial file has a final name.

`jawloc cache verify` must find every damage that is planted, and `--repair` must make the file
again.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import tiny_project as tiny
from cache_bench import JAW, OTHER_SIZE, SIZE, Bench, digest_of, is_bad
from cache_disks import full_disks, read_only_folders
from campaign import Outcome, Plan
from tiny_project import judged


def faults(plan: Plan) -> Iterator[Outcome]:
    """Plant every fault; in the short form, fewer of each."""
    bench = Bench(plan)
    for kind in (
        *(damaged, misplaced, other_versions, changing_sources, killed, several_builders),
        *(without_locks, full_disks, read_only_folders),
    ):
        yield from kind(bench)


# --- damaged files ------------------------------------------------------------------------------


def damaged(bench: Bench) -> Iterator[Outcome]:
    """Bits are flipped, and ends cut off, at random places of a cached file."""
    folder = bench.folder(copy=True)
    for number in range(20 if bench.plan.short else 1000):
        path = bench.random.choice(bench.files(folder))
        good = path.read_bytes()
        place = bench.random.randrange(len(good))
        if number % 2:
            content = good[:place]
            fault, detail = "a cached file cut off", f"{path.name} at byte {place}"
        else:
            bit = 1 << bench.random.randrange(8)
            content = good[:place] + bytes([good[place] ^ bit]) + good[place + 1 :]
            fault, detail = (
                "a bit of a cached file flipped",
                f"{path.name}, byte {place}, bit {bit}",
            )
        path.write_bytes(content)
        yield judged(fault, detail, _found_and_repaired(bench, folder, path))


def _found_and_repaired(bench: Bench, folder: Path, victim: Path) -> list[str]:
    """Say what is wrong with a damaged file: used, not found, or not repaired."""
    from jawloc.scans.cache.upkeep import repair_cache

    config, wrong = bench.of(folder), _used(bench, victim)
    bad = _verified(folder, victim, bench)
    if [status.path for status in bad] != [victim]:
        wrong.append("not found by verify")
    after = repair_cache(config, bad, bench.scans, base=bench.work, progress=False)
    wrong += [f"not repaired: {s.status}, {s.detail}" for s in after if is_bad(s)]
    return wrong + _used(bench, victim)


def _verified(folder: Path, victim: Path, bench: Bench) -> list[Any]:
    """Return what `cache verify` finds; of the other files, only some are looked at."""
    from jawloc.scans.cache import upkeep

    others = [path for path in bench.files(folder) if path != victim]
    looked_at = {victim, bench.random.choice(others)}
    files = upkeep._files
    with mock.patch.object(upkeep, "_files", lambda f: (p for p in files(f) if p in looked_at)):
        statuses = upkeep.verify_cache(bench.of(folder), base=bench.work, progress=False)
    return [status for status in statuses if is_bad(status)]


def _used(bench: Bench, path: Path) -> list[str]:
    """Say whether a training that finds this file would use a wrong example."""
    from jawloc.errors import InputError
    from jawloc.scans.cache import open_example

    try:
        example = open_example(path, JAW).read()
    except InputError:
        return []  # refused, so made again
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]
    right = digest_of(example) == bench.right.get(example.scan_id)
    return [] if right and example.scan_id == path.stem else ["a wrong example was used"]


def misplaced(bench: Bench) -> Iterator[Outcome]:
    """The cached file of one scan lies at the place of another."""
    folder = bench.folder(copy=True)
    for _ in range(2 if bench.plan.short else 30):
        one, other = bench.random.sample(bench.files(folder), 2)
        shutil.copy(other, one)
        found = [s.path for s in _verified(folder, one, bench)]
        wrong = [] if found == [one] else [f"verify found {found}"]
        detail = f"{other.name} as {one.name}"
        yield judged("another scan's cached file", detail, wrong + bench.wrong(folder))


def other_versions(bench: Bench) -> Iterator[Outcome]:
    """The cache is of another version of the algorithm, or of another size."""
    from jawloc.scans.cache import files

    for change in (-1, 1):
        folder = bench.folder()
        with mock.patch.object(files, "ALGORITHM_VERSION", files.ALGORITHM_VERSION + change):
            bench.build(folder)
        report = bench.build(folder)
        wrong = [] if report.reused == 0 else [f"{report.reused} files were reused"]
        yield judged("a cache of another version", f"{change:+}", wrong + bench.wrong(folder))
    folder = bench.folder(copy=True)
    bench.build(folder, downsampled_dicom_size=OTHER_SIZE)
    name, other = ("x".join(map(str, size)) for size in (SIZE, OTHER_SIZE))
    shutil.rmtree(folder / name)
    shutil.copytree(folder / other, folder / name)  # as somebody might do by hand
    yield judged("a cache of another size", "", bench.wrong(folder))


# --- sources and builders -----------------------------------------------------------------------


def changing_sources(bench: Bench) -> Iterator[Outcome]:
    """A source is written to while it is read: refused, and the next command uses the new one."""
    from jawloc.errors import InputError
    from jawloc.scans import cache

    mine = Bench(replace(bench.plan, work=bench.work / "changing"))
    for _ in range(3 if bench.plan.short else 30):
        victim, donor = mine.random.sample(mine.scans, 2)
        good, other = victim.read_bytes(), donor.read_bytes()
        cut, real = mine.random.randrange(1, len(other)), cache.downsample

        def disturbed(scan: Any, *given: Any, **more: Any) -> Any:
            if scan.path != victim:  # noqa: B023 - called before the next one
                return real(scan, *given, **more)  # noqa: B023
            victim.write_bytes(other[:cut] + good[cut:])  # noqa: B023
            try:
                return real(scan, *given, **more)  # noqa: B023
            finally:
                time.sleep(0.01)  # a clock tick of the file system
                victim.write_bytes(other)  # noqa: B023

        folder, wrong = mine.folder(), list[str]()
        with mock.patch.object(cache, "downsample", disturbed):
            try:
                mine.build(folder)
                wrong.append("what was read half old and half new was used")
            except InputError as error:
                sentence = str(error).startswith(f"{victim.name}: ") and "\n" not in str(error)
                wrong += [] if sentence else [f"said {error}"]
        made = mine.build(folder).built
        wrong += [] if made == 1 else [f"{made} scans were read again"]
        victim.write_bytes(good)
        wrong += mine.wrong(folder)
        yield judged("a source that changes while it is read", f"{victim.name} at {cut}", wrong)


def killed(bench: Bench) -> Iterator[Outcome]:
    """A builder is killed at a random moment; the next one goes on."""
    for _ in range(4 if bench.plan.short else 100):
        folder = bench.folder()
        process = tiny.in_child(partial(bench.build, folder, n_workers=1))
        patience = bench.random.uniform(0.0, 0.12)
        time.sleep(patience)
        os.kill(process, signal.SIGKILL)
        end, made = tiny.end_of(process), len(list(folder.rglob("[!.]*.dcm")))
        detail = f"after {patience:.3f} s, ended with {end}, {made} files made"
        wrong = bench.partial_files(folder)
        yield judged("a builder is killed", detail, wrong + bench.wrong(folder))
        shutil.rmtree(folder)


def several_builders(bench: Bench) -> Iterator[Outcome]:
    """Four processes build one cache at once, and sometimes one or two of them are killed."""
    for number in range(2 if bench.plan.short else 40):
        folder = bench.folder()
        builders = [tiny.in_child(partial(bench.build, folder)) for _ in range(4)]
        victims = builders[: number % 3]
        time.sleep(bench.random.uniform(0.0, 0.25))
        for process in victims:
            os.kill(process, signal.SIGKILL)
        ends = [tiny.end_of(process) for process in builders]
        wrong = [f"ended with {end}" for end in ends[len(victims) :] if end]
        wrong += bench.partial_files(folder) + bench.wrong(folder)
        yield judged("four builders at once", f"{len(victims)} of them killed, {ends}", wrong)
        shutil.rmtree(folder)


def without_locks(bench: Bench) -> Iterator[Outcome]:
    """The drive has no locks: four builders at once, of which one is killed."""
    for name in ("ENOLCK", "ENOSYS", "EOPNOTSUPP"):

        def missing(*_: Any) -> None:
            raise OSError(getattr(errno, name), "no locks")  # noqa: B023 - called at once

        for number in range(1 if bench.plan.short else 10):
            folder = bench.folder()
            with mock.patch("fcntl.flock", missing):
                builders = [tiny.in_child(partial(bench.build, folder)) for _ in range(4)]
                time.sleep(bench.random.uniform(0.0, 0.25))
                if number % 2 == 0:
                    os.kill(builders[0], signal.SIGKILL)
                ends = [tiny.end_of(process) for process in builders]
                wrong = [f"ended with {end}" for end in ends[1:] if end]
                wrong += bench.partial_files(folder) + bench.wrong(folder)
            yield judged("a drive without locks", f"{name}, {ends}", wrong)
            shutil.rmtree(folder)
