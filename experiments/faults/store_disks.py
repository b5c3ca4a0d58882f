"""Disks that fill up, or are read-only, while jawloc trains, logs and locates."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import tiny_project as tiny
from campaign import Outcome
from store_bench import (
    NEEDS,
    RESULTS,
    TRAIN,
    Bench,
    complete,
    moments_of_training,
    sent,
    sentence,
    some,
    waits,
)
from tiny_project import judged


def full_while_training(bench: Bench) -> Iterator[Outcome]:
    """The disk of the project fills up while it trains or logs; the user makes room and goes on."""
    moments = moments_of_training()
    for moment in some(bench, list(moments), 1):
        disk = bench.work / f"disk{bench.number}"  # MLflow keeps connections to the last one's
        with tiny.small_disk(disk, 16):
            base = bench.project(disk)
            (disk / "reserve").write_bytes(bytes(2_000_000))
            with tiny.at_call(*moments[moment], partial(_fill_up, disk)):
                said = tiny.run(base, *TRAIN)
            wrong = sentence(said, str(disk))
            wrong += [] if NEEDS.search(said.sentence) else [f"no bytes: {said.sentence!r}"]
            wrong += [f"left: {tiny.temporary_files(disk)}"] if tiny.temporary_files(disk) else []
            (disk / "filler").unlink()
            wrong += _goes_on(base, after_an_epoch="first" not in moment)
        yield judged("full disk while training", moment, wrong)


def _fill_up(disk: Path) -> None:
    (disk / "reserve").unlink(missing_ok=True)
    tiny.fill(disk)


def _goes_on(base: Path, *, after_an_epoch: bool) -> list[str]:
    """Go on with a run, once its fault is over; say what is wrong."""
    kept = (base / RESULTS / "checkpoint.pt").is_file()
    wrong = [] if kept or not after_an_epoch else ["the last checkpoint is gone"]
    said = tiny.run(base, *TRAIN, *(["--resume"] if kept else []))
    if said.code:
        return [*wrong, f"can't be gone on with: {said.error[-300:]!r}"]
    return wrong + complete(base)


def full_store(bench: Bench) -> Iterator[Outcome]:
    """Only the disk of the store is full: the training goes on, and --resume sends its log."""
    for moment in some(bench, list(moments_of_training())[:3], 1):
        base = bench.project(store=False)
        with tiny.small_disk(base / "mlruns", 16) as disk:
            shutil.copytree(bench.store, disk, dirs_exist_ok=True)
            with tiny.at_call(*moments_of_training()[moment], partial(tiny.fill, disk)):
                said = tiny.run(base, *TRAIN)
            wrong = waits(base, said)
            (disk / "filler").unlink()
            yield judged("full disk of the store", moment, wrong + sent(base))


def full_while_locating(bench: Bench) -> Iterator[Outcome]:
    """The disk fills up while scans are located: what is finished stays, and --resume goes on."""
    from jawloc.workflows import locate, locate_scan

    moments = {
        "before a crop": (locate_scan, "write_crop", 3),
        "before a picture": (locate_scan, "save_figure", 3),
        "before the markups": (locate_scan, "slicer_text", 3),
        "before the tables": (locate, "write_tables", 3),
    }
    formats = ["tif", "nrrd", "nii.gz", "dicom"]
    pairs = [f"{moment}, {name}" for moment in moments for name in formats]
    for pair in some(bench, pairs, 1):
        moment, crops = pair.split(", ")
        base, disk = bench.project(), bench.work / "disk"
        options = ("--output-dir", disk / "out", "--crop-format", crops)
        words = ("locate", bench.model, bench.scans, *options)
        with tiny.small_disk(disk, 12):
            with tiny.at_call(*moments[moment], partial(tiny.fill, disk)):
                said = tiny.run(base, *words)
            wrong = sentence(said, str(disk / "out"), "2 of 5 scans are done", "--resume")
            wrong += [] if NEEDS.search(said.sentence) else [f"no bytes: {said.sentence!r}"]
            wrong += [f"left: {tiny.temporary_files(disk)}"] if tiny.temporary_files(disk) else []
            (disk / "filler").unlink()
            again = tiny.run(base, *words, "--resume")
            if again.code or "2 done before" not in again.output:
                wrong.append(f"not gone on with: {again.error[-300:]!r} {again.output!r}")
            crop_files = list((disk / "out" / "imgs").iterdir())
            wrong += [] if len(crop_files) == 5 else [f"{len(crop_files)} crops"]
        yield judged("full disk while locating", pair, wrong)


def read_only_store(bench: Bench) -> Iterator[Outcome]:
    """`mlruns` is read-only, from the beginning or from the middle of a training."""
    moments = some(bench, list(moments_of_training())[:3], 0)
    for moment in ("from the beginning", *moments):
        base = bench.project(store=False)
        with tiny.small_disk(base / "mlruns", 16) as disk:
            shutil.copytree(bench.store, disk, dirs_exist_ok=True)
            if moment == "from the beginning":
                with tiny.read_only(disk):
                    said = tiny.run(base, *TRAIN)
                wrong = sentence(said, str(disk), "must be a folder that can be written to")
                wrong += ["something was left"] if (base / "script_output").exists() else []
            else:
                with contextlib.ExitStack() as stack:
                    hide = partial(_hide, stack, disk)
                    with tiny.at_call(*moments_of_training()[moment], hide):
                        said = tiny.run(base, *TRAIN)
                wrong = waits(base, said) + sent(base)
        yield judged("read-only mlruns", moment, wrong)


def _hide(stack: contextlib.ExitStack, disk: Path) -> None:
    """Mount a read-only disk over another one, on which files are open for writing."""
    stack.enter_context(tiny.small_disk(disk, 1))
    tiny.make_read_only(disk)
