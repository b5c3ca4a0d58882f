"""`jawloc locate` through a long list: what it found, what it held, what stopped it half-way."""

from __future__ import annotations

import csv
import json
import signal
import statistics
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import dist
from pathlib import Path
from typing import Any

import numpy as np
from campaign import Outcome
from load_project import MODEL, Command, Project, judged
from load_samples import Sample, between, watched
from load_scans import Scans, write_load

Point = tuple[float, float, float]  # (z, y, x) in voxels of the full-size scan
SAME = 2e-6  # voxels: the table has six decimals
APART = 10 * SAME  # the least distance of two scans' answers, so that one can't pass for another
FIRST_SCANS = 0.1  # the share after which memory must not grow
MOST_GROWTH_MB = 16.0
FEWEST_SCANS = 50  # between the two; with fewer, what is loaded at the first use counts
COME_AND_GO = 8  # files or threads that scans which are worked on have beside those of the start
# In the full form pictures, which take most of the time, are drawn of a part only.
PICTURES, INTERRUPTED = 60, 40  # scans
Figures = list[tuple[str, object]]


@dataclass(frozen=True)
class Known:
    """Scans with the answers of a locator that was asked alone, in one thread."""

    scans: Scans
    points: Mapping[Path, Point]
    model: Path


def locating(
    project: Project, number: int, bad_share: float, short: bool, figures: Figures
) -> Generator[Outcome, None, tuple[Known, list[Sample]]]:
    """Locate everything in a list with corrupt scans, then a part of it, interrupted."""
    scans = write_load(project.folder.with_name("load"), number, bad_share)
    model = project.results(f"{MODEL}_0") / f"{MODEL}_0.pth"
    known = Known(scans, _alone(model, scans.good), model)
    # in the short form, the one list is interrupted too, and has all pictures
    ends, options = ((signal.SIGINT,), ()) if short else ((), ("--no-pictures",))
    out = project.folder / "out"
    with project.timed(figures, "locate, seconds"):
        samples, codes, wrong = _locate(project, scans, out, ends, options, refuse_second=True)
    yield judged("a second locate into the same folder", "at a quarter", wrong)
    yield from _checked(known, scans, out, codes[-1], figures)
    yield from _held(samples, "", figures)
    if short:
        yield judged("locate ended half-way, resumed", f"exit codes {codes}", _ends(codes))
        return known, samples
    yield from _with_pictures(project, known, figures)
    yield from _interrupted(project, known)
    return known, samples


def _with_pictures(project: Project, known: Known, figures: Figures) -> Iterator[Outcome]:
    some, out = _part(known.scans, PICTURES), project.folder / "out_pictures"
    with project.timed(figures, f"locate {PICTURES} scans with pictures, seconds"):
        samples, codes, _ = _locate(project, some, out, (), (), refuse_second=False)
    yield from _checked(known, some, out, codes[-1], [])
    yield from _held(samples, " with pictures", figures)


def _interrupted(project: Project, known: Known) -> Iterator[Outcome]:
    some, out = _part(known.scans, INTERRUPTED), project.folder / "out_interrupted"
    kills, options = (signal.SIGINT, signal.SIGKILL), ("--no-pictures",)
    _, codes, _ = _locate(project, some, out, kills, options, refuse_second=False)
    outcomes = list(_checked(known, some, out, codes[-1], []))
    wrong = [*_ends(codes), *(f"{o.fault}: {o.detail}" for o in outcomes if o.lost)]
    yield judged("locate ended half-way, resumed", f"exit codes {codes}", wrong)


def _alone(model: Path, paths: Sequence[Path]) -> dict[Path, Point]:
    """Locate scan after scan in one thread of this process."""
    import torch

    from jawloc.inference.locator import load_locator

    torch.set_num_threads(1)
    locator = load_locator(model)
    points = {path: locator.locate(path)[0].point_voxels for path in paths}
    nearest = min(dist(one, other) for one, other in combinations(points.values(), 2))
    assert nearest > APART, f"two scans have nearly the same answer: {nearest}"
    return points


def _part(scans: Scans, number: int) -> Scans:
    good = [path for path in scans.good if path.name.isprintable()][:number]
    bad = dict(list(scans.bad.items())[: number // 10])
    place = good[0].parents[1] / f"list_{number}.txt"  # named alone, an empty folder is refused
    place.write_text("\n".join(map(str, [*bad, *good])) + "\n", encoding="utf-8")
    return Scans([str(place)], good, bad, [])


def _locate(
    project: Project,
    scans: Scans,
    out: Path,
    ends: Sequence[signal.Signals],
    options: Sequence[str],
    *,
    refuse_second: bool,
) -> tuple[list[Sample], list[int], list[str]]:
    """Locate, ended by each signal in turn and resumed; return also what a second command did."""
    words = ["locate", f"{MODEL}_0", *scans.given, "--output-dir", str(out), *options]
    total, codes, wrong = len(scans.good) + len(scans.bad), list[int](), list[str]()
    for number, end in enumerate([*ends, None]):
        command = project.start(*words, *(["--resume"] if number else []))
        with watched(command.process.pid, lambda: _done(out)) as samples:
            if refuse_second and number == 0:
                _wait_for(command, out, total // 4)
                wrong = _wrong_second(project, words)
            if end is not None:
                _wait_for(command, out, total * (number + 1) // (len(ends) + 1))
                command.process.send_signal(end)
            said = command.wait()
        codes.append(said.code)
    return samples, codes, wrong


def _done(out: Path) -> int:
    try:
        return len(_rows(out))
    except FileNotFoundError:
        return 0


def _rows(out: Path) -> list[dict[str, Any]]:
    text = (out / "locations.json").read_text(encoding="utf-8", errors="surrogateescape")
    rows: list[dict[str, Any]] = json.loads(text)
    return rows


def _wait_for(command: Command, out: Path, number: int) -> None:
    while command.process.poll() is None and _done(out) < number:
        time.sleep(0.05)


def _wrong_second(project: Project, words: Sequence[str]) -> list[str]:
    said = project.start(*words, "--resume").wait()
    one = said.error.strip().splitlines()[-1:] == [said.last_line] and "in use by" in said.last_line
    return [] if said.code == 2 and one else [f"exit code {said.code}: {said.last_line}"]


def _ends(codes: Sequence[int]) -> list[str]:
    """Return what is wrong with exit codes after SIGINT, after SIGKILL, and of the last command."""
    wanted = [130, -signal.SIGKILL][: len(codes) - 1]
    return [] if [*wanted, 1] == list(codes) else [f"exit codes {codes}"]


def _checked(
    known: Known, scans: Scans, out: Path, code: int, figures: Figures
) -> Iterator[Outcome]:
    """Compare the tables and files with what is known of each scan."""
    rows = _rows(out)
    by_path: dict[Path, list[dict[str, Any]]] = {}
    for row in rows:
        by_path.setdefault(Path(row["path"]), []).append(row)
    right = 0
    for path in scans.good:
        wrong = _wrong_good(by_path.pop(path, []), known.points[path], path, out)
        right += not wrong
        yield judged("a good scan among corrupt ones", repr(path.name), wrong)
    figures += [("scans", len(scans.good) + len(scans.bad)), ("good ones located", right)]
    named = 0
    for path, what in scans.bad.items():
        wrong = _wrong_bad(by_path.pop(path, []), path)
        named += not wrong
        yield judged(f"a corrupt scan: {what}", path.name, wrong)
    figures += [("corrupt ones", len(scans.bad)), ("corrupt ones named", named)]
    wrong = [f"a row of {path}" for path in by_path]  # also of a scan that is listed twice
    wrong += [] if code == 1 else [f"exit code {code}"]
    wrong += [f"left behind: {path.name}" for path in out.rglob(".*.part.*")]
    place = out / "locations.csv"
    with place.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        count = len(list(csv.DictReader(file)))
    wrong += [] if count == len(rows) else [f"{count} rows in locations.csv, not {len(rows)}"]
    yield judged("a list with corrupt scans, odd names and repetitions", out.name, wrong)


def _wrong_good(
    rows: Sequence[Mapping[str, Any]], point: Point, path: Path, out: Path
) -> list[str]:
    if len(rows) != 1:
        return [f"{len(rows)} rows"]
    row = rows[0]
    if row["status"] == "failed":
        return [row["reason"]]
    found = tuple(float(row[f"{axis}_voxels"]) for axis in "zyx")
    wrong = [] if dist(found, point) < SAME else [f"{found} is not {point}"]
    picture = row["picture_file"]
    wrong += [] if picture is None or (out / picture).stat().st_size else ["an empty picture"]
    markups = out / "markups" / f"{row['scan']}.mrk.json"
    wrong += [] if markups.is_file() else ["no markups"]
    return wrong + _wrong_crop(row, path, out)


def _wrong_crop(row: Mapping[str, Any], path: Path, out: Path) -> list[str]:
    import tifffile

    from jawloc.scans.reading import read_scan

    crop = tifffile.imread(out / row["crop_file"])
    start = [int(row[f"crop_{axis}"]) for axis in "zyx"]
    window = tuple(slice(first, first + n) for first, n in zip(start, crop.shape, strict=True))
    same = np.array_equal(read_scan(path).image[window], crop)
    return [] if same else ["the crop is of another place or scan"]


def _wrong_bad(rows: Sequence[Mapping[str, Any]], path: Path) -> list[str]:
    if [row["status"] for row in rows] != ["failed"]:
        return [f"rows: {[row['status'] for row in rows]}"]
    reason = rows[0]["reason"]
    wrong = [] if reason and "\n" not in reason else ["not one sentence"]
    return wrong + ([f"unexpected: {reason}"] if "unexpectedly" in reason else [])


def _held(samples: Sequence[Sample], how: str, figures: Figures) -> Iterator[Outcome]:
    """Compare what was held after the first scans with what was held at the last ones."""
    if not samples:  # no /proc
        return
    begun, last = (choose(s.done for s in samples if s.done) for choose in (min, max))
    share = max(1, round((last - begun) * FIRST_SCANS))
    begun += share
    early, late = between(samples, begun, begun + share), between(samples, last - share, last)
    early_mb, late_mb = (statistics.median(s.memory_mb for s in part) for part in (early, late))
    figures += [
        (f"memory at scan {begun}{how}, MB", round(early_mb, 1)),
        (f"memory at scan {last}{how}, MB", round(late_mb, 1)),
        (f"most memory{how}, MB", round(max(s.memory_mb for s in samples), 1)),
    ]
    few = last - begun <= FEWEST_SCANS
    if few:
        early, late = samples[:1], between(samples, last - 1, last - 1)
    else:
        grown = late_mb - early_mb
        detail = f"{grown:+.1f} MB from scan {begun} to {last}; at most {MOST_GROWTH_MB:g}"
        yield judged(f"memory{how}", detail, [detail] if grown > MOST_GROWTH_MB else [])
    for what in ("files", "threads"):
        first, end = (min(getattr(s, what) for s in part) for part in (early, late))
        figures.append((f"open {what} at scans {begun} and {last}{how}", f"{first}, {end}"))
        wrong = [f"{first} became {end}"] if end > first + few * COME_AND_GO else []
        yield judged(f"open {what}{how}", f"{first}, {end}", wrong)
