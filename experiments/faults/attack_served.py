"""Paths, links and headers that lead a served model out of its folder, also while it looks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from attack_files import SECRET, outcome
from campaign import Outcome, Plan

from jawloc.errors import InputError
from jawloc.reporting.tracking.served_model import checked_path
from jawloc.scans.opening import open_binary, reading_below
from jawloc.scans.reading import read_scan

WAYS = ("../secret", "link", "up/secret", "up/../../secret", "./../secret", "//etc/hosts")


def served_faults(plan: Plan) -> Iterator[Outcome]:
    yield from _served_paths(plan)
    yield from _races(plan)


def _served_paths(plan: Plan) -> Iterator[Outcome]:
    """Paths, links and headers that lead a served model out of its folder."""
    scans = plan.work / "served" / "scans"
    scans.mkdir(parents=True)
    secret = scans.parent / "secret"
    secret.write_bytes(SECRET)
    (scans / "link").symlink_to(secret)
    (scans / "up").symlink_to("..")
    for given in (*WAYS, str(secret)):
        yield outcome("a served path", given, partial(_leak, scans, given))
        for ending, text in _HEADERS.items():
            header = scans / f"a.{ending}"
            header.write_text(text.format(given), "utf-8")
            yield outcome(
                "a header that names a file elsewhere",
                f"{ending} {given}",
                partial(_serve, scans, header),
            )


_HEADERS = {
    "mhd": "ObjectType = Image\nNDims = 3\nDimSize = 4 3 10\nElementType = MET_UCHAR\n"
    "ElementDataFile = {}\n",
    "nhdr": "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 3 10\nencoding: raw\ndata file: {}\n",
}


def _leak(scans: Path, given: str) -> None:
    path = checked_path(given, str(scans))
    with reading_below(scans), open_binary(path) as file:
        raise AssertionError(f"read {file.read()[:6]!r}")


def _serve(scans: Path, path: Path) -> None:
    with reading_below(scans):
        raise AssertionError(f"read {read_scan(path).image.tobytes()[:6]!r}")


def _races(plan: Plan) -> Iterator[Outcome]:
    """A link that is changed all the time, while a served model checks and opens it."""
    scans = plan.work / "races" / "scans"
    (scans / "own").mkdir(parents=True)
    (scans.parent / "other").mkdir()
    (scans / "own" / "a").write_bytes(b"own")
    (scans.parent / "other" / "a").write_bytes(SECRET)
    stop = threading.Event()
    thread = threading.Thread(target=_swap, args=(scans / "turning", stop))
    thread.start()
    try:
        for number in range(300 if plan.short else 20_000):
            yield _open_turning(scans, number)
    finally:
        stop.set()
        thread.join()


def _swap(link: Path, stop: threading.Event) -> None:
    targets = (link.parent / "own", link.parent.parent / "other")
    while not stop.is_set():
        for target in targets:
            new = link.with_name("new")
            new.symlink_to(target)
            new.replace(link)


def _open_turning(scans: Path, number: int) -> Outcome:
    fault, detail = "a link that changes between check and opening", str(number)
    try:
        path = checked_path("turning/a", str(scans))
        with reading_below(scans), open_binary(scans / "turning" / "a") as file:
            read = file.read()
        return Outcome(fault, "read" if read == b"own" else "LOST", f"{detail} {path}")
    except (InputError, FileNotFoundError):  # before the first link is there
        return Outcome(fault, "refused", detail)
