"""Disks of the cache that are full, fill up, or are read-only."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import tiny_project as tiny
from cache_bench import SCANS, Bench
from campaign import Outcome
from tiny_project import judged


def full_disks(bench: Bench) -> Iterator[Outcome]:
    """The cache's disk is full at the start, or fills up: a sentence, and no partial file."""
    from jawloc.scans import cache

    fault = "a full disk"
    if not tiny.may_mount():
        yield Outcome(f"{fault}: not tried, no disk can be mounted", "refused")
        return
    for number in range(3 if bench.plan.short else 60):
        folder = bench.folder()
        with tiny.small_disk(folder, 2):
            left = bench.random.randrange(0, 90_000) if number else 0
            tiny.fill(folder, but=left)
            wrong = _refused(bench, folder, "needs", "MB", "bytes")
            wrong += bench.partial_files(folder)
            wrong += [f"left: {some}"] if (some := tiny.temporary_files(folder)) else []
            (folder / "filler").unlink()
            yield judged(fault, f"{left} bytes left", wrong + bench.wrong(folder))
    for _ in range(2 if bench.plan.short else 40):
        folder, after = bench.folder(), bench.random.randrange(SCANS)
        with tiny.small_disk(folder, 2):
            fill = partial(tiny.fill, folder)
            with tiny.at_call(cache, "write_cached", after + 1, fill):
                wrong = _refused(bench, folder, "the disk is full", "needs")
            wrong += bench.partial_files(folder)
            (folder / "filler").unlink()
            wrong += bench.wrong(folder)
        yield judged("a disk that fills up", f"before file {after + 1}", wrong)


def _refused(bench: Bench, folder: Path, *words: str) -> list[str]:
    """Build a cache that can't be, and say what is wrong with the sentence that says so."""
    from jawloc.errors import InputError

    try:
        bench.build(folder)
    except (InputError, OSError) as error:
        said = str(error)
        some = any(word in said for word in words)
        good = str(folder) in said and some and "\n" not in said
        return [] if good else [f"said {type(error).__name__}: {said!r}"]
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]
    return ["not refused"]


def read_only_folders(bench: Bench) -> Iterator[Outcome]:
    """The cache is read-only: a whole one is used, another one is refused in a sentence."""
    fault = "a read-only cache"
    if not tiny.may_mount():
        yield Outcome(f"{fault}: not tried, no disk can be mounted", "refused")
        return
    for missing in range(2 if bench.plan.short else SCANS + 1):
        folder = bench.folder()
        with tiny.small_disk(folder, 2):
            shutil.copytree(bench.whole, folder, dirs_exist_ok=True)
            for path in bench.random.sample(bench.files(folder), missing):
                path.unlink()
            with tiny.read_only(folder):
                if missing:
                    wrong = _refused(bench, folder, "Read-only")
                else:
                    found = bench.examples(folder)
                    wrong = [] if found == bench.right else ["wrong examples"]
            wrong += bench.wrong(folder)
        yield judged(fault, f"{missing} files missing", wrong)
