"""Training: the lab's recipe against jawloc's default, on the same phantoms with the same split.

    python experiments/benchmarks/training.py --part small   # curves to the end; an hour
    python experiments/benchmarks/training.py --part big     # seconds a scan; minutes
    python experiments/benchmarks/training.py --part full    # one whole training; minutes

Both start from the same cached examples, in processes of their own, on the CPU. The lab's recipe
is in lab_recipe.py. Phantoms, caches and whole curves stay in `dicoms/benchmarks/`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from contenders import Run, measure
from reporting import RESULTS, ROOT, Bars, Lines, Table, report
from training_runs import (
    BIG,
    BIG_STEPS,
    SCAN_SHAPES,
    SMALL,
    arithmetic,
    jawloc_curve,
    jawloc_epochs,
    lab_curve,
    lab_steps,
    make_task,
)

WORK = ROOT / "dicoms" / "benchmarks"  # git ignores it
CURVE_POINTS = 40  # of each curve that are printed and drawn, evenly on a logarithmic axis
ERRORS_VOXELS = (2.0, 1.0)  # the time to these is measured
GOAL_MINUTES, GOAL_GB = 30.0, 6.0
# CPU time tells what was worked, where other programs took a part of the machine.
CLOCKS = {"seconds": "seconds", "cpu_seconds": "CPU seconds"}
BEFORE, LAB, AFTER = "jawloc_before", "lab", "jawloc_after"

LIMIT_NOTE = (
    "Limit: as many additions and multiplications as the convolutions of an epoch, at the speed "
    "of a large matrix product in float32 on this machine ({:.0f} GFLOP/s)."
)
LAB_NOTE = (
    "The lab's seconds leave out the reading of cached scans, which jawloc's include, and our "
    "measuring of errors; of its two errors (as it validates, and with eval()) the lower counts."
)


def main() -> None:
    options = _options()
    # as jawloc's own command does; it keeps threads from starving each other, the lab's too
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options.work.mkdir(parents=True, exist_ok=True)
    parts = {"small": compare_curves, "big": compare_steps, "full": train_in_full}
    for name, run in parts.items():
        if options.part in (name, "all"):
            run(options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--part", choices=["small", "big", "full", "all"], default="all")
    parser.add_argument("--scans", type=int, default=30, help="phantoms, 4 + 4 of them held out")
    parser.add_argument("--lab-epochs", type=int, default=250)
    parser.add_argument("--work", type=Path, default=WORK, help="phantoms, caches, curves")
    parser.add_argument(
        "--quick", action="store_true", help="few scans and epochs; results stay in the work folder"
    )
    options = parser.parse_args()
    options.work = options.work.resolve()
    options.epochs = None
    if options.quick:
        options.scans, options.lab_epochs, options.epochs = 6, 2, 2
    return options


def _report(options: argparse.Namespace, part: str, tables: Sequence[Table], note: str) -> None:
    params = {"scans": options.scans, "lab_epochs": options.lab_epochs, "quick": options.quick}
    where = {"results": options.work / "results", "root": options.work} if options.quick else {}
    report(
        f"training_{part}",
        tables,
        params=params,
        note=note,
        **({"results": RESULTS, "root": ROOT} | where),
    )


# Whole trainings on the small grid


def compare_curves(options: argparse.Namespace) -> None:
    """Train by both recipes to the end: jawloc, the lab's, and jawloc again, to show drift."""
    config = make_task(options.work, options.scans, SMALL)
    curves = {name: config.parent / f"{name}.jsonl" for name in (BEFORE, LAB, AFTER)}
    runs = measure(
        {
            BEFORE: partial(jawloc_curve, config, curves[BEFORE], options.epochs),
            LAB: partial(lab_curve, config, curves[LAB], options.lab_epochs),
            AFTER: partial(jawloc_curve, config, curves[AFTER], options.epochs),
            "limit": partial(arithmetic, config),
        },
        repeats=1,
    )
    points = {name: _read_curve(path) for name, path in curves.items()}
    limit = next(run.numbers for run in runs if run.contender == "limit")
    grid = "x".join(map(str, SMALL))
    drawn = Lines(
        "seconds",
        "error_voxels",
        "contender",
        "wall time (s)",
        "validation error (downsampled voxels)",
        log_x=True,
        log_y=True,
    )
    curve = Table("curves", f"Validation error over time, {grid}", _thinned(points), drawn)
    rows = _time_rows(points, limit) + _end_rows(points, runs)
    title = f"{grid}, {options.scans} phantoms: times in seconds, errors in downsampled voxels"
    note = f"{LIMIT_NOTE.format(limit['per_second'] / 1e9)} {LAB_NOTE}"
    _report(options, "small", [curve, Table("small", title, rows)], note)


def _read_curve(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _thinned(points: Mapping[str, Sequence[Mapping[str, float]]]) -> list[dict[str, object]]:
    """Keep some epochs of each curve: the first, the last, and evenly on a logarithmic axis."""
    rows = []
    for name, curve in points.items():
        steps = max(1, CURVE_POINTS - 1)
        kept = sorted({round(len(curve) ** (i / steps)) for i in range(CURVE_POINTS)})
        columns = ("seconds", "epoch", "sigma_voxels", "error_voxels")
        rows += [{"contender": name, **{c: curve[k - 1][c] for c in columns}} for k in kept]
    return rows


def _time_rows(
    points: Mapping[str, Sequence[Mapping[str, float]]], limit: Mapping[str, float]
) -> list[dict[str, object]]:
    """Return how long an epoch and each error take, and how many times longer the lab's takes."""
    lab = [point["error_voxels"] for point in points[LAB]]
    per_epoch = {name: curve[-1]["seconds"] / len(curve) for name, curve in points.items()}
    rows = [_compared("seconds per epoch", per_epoch, per_epoch[LAB])]
    least = {BEFORE: limit["jawloc"], LAB: limit["lab"], AFTER: limit["jawloc"]}
    rows.append({"what": "limit of an epoch: arithmetic", **least})
    targets = {f"a validation error of {error:g}": error for error in ERRORS_VOXELS}
    targets |= {"the lab's last validation error": lab[-1], "the lab's best": min(lab)}
    for clock, name_of_clock in CLOCKS.items():
        totals = {name: curve[-1][clock] for name, curve in points.items()}
        for what, error in targets.items():
            times = {name: _first_below(curve, error, clock) for name, curve in points.items()}
            rows.append(_compared(f"{name_of_clock} to {what}, {error:.2f}", times, totals[LAB]))
        rows.append(_compared(f"{name_of_clock} in all", totals, totals[LAB]))
    return rows


def _first_below(curve: Sequence[Mapping[str, float]], error: float, clock: str) -> float | None:
    return next((p[clock] for p in curve if p["error_voxels"] <= error), None)


def _compared(
    what: str, seconds: Mapping[str, float | None], lab_total: float
) -> dict[str, object]:
    """Return a row with the lab's time over jawloc's slower one; a bound where the lab failed."""
    row: dict[str, object] = {"what": what}
    row |= {name: "never" if value is None else value for name, value in seconds.items()}
    slower = max(seconds[name] or float("inf") for name in (BEFORE, AFTER))
    if slower < float("inf"):
        lab = seconds[LAB]
        row["ratio"] = f"over {lab_total / slower:.0f}" if lab is None else lab / slower
    return row


def _end_rows(
    points: Mapping[str, Sequence[Mapping[str, float]]], runs: Sequence[Run]
) -> list[dict[str, object]]:
    """Return where each training ended: errors, epochs, sigma, memory."""
    ended = {run.contender: run for run in runs if run.contender in points}
    measured: dict[str, Any] = {
        "epochs": lambda name: len(points[name]),
        "sigma of the last epoch": lambda name: points[name][-1]["sigma_voxels"],
        "validation error, last epoch": lambda name: points[name][-1]["error_voxels"],
        "validation error, best epoch": lambda name: min(p["error_voxels"] for p in points[name]),
        "test error": lambda name: ended[name].numbers["test_error_voxels"],
        "peak memory (MB)": lambda name: ended[name].peak_mb,
    }
    return [
        {"what": what, **{name: value(name) for name in points}} for what, value in measured.items()
    ]


# Steps and epochs on the real grid


def compare_steps(options: argparse.Namespace) -> None:
    """Time a few steps of the lab's recipe and a few epochs of jawloc's."""
    size = SMALL if options.quick else BIG
    config = make_task(options.work, options.scans, size)
    ours = partial(jawloc_epochs, config)
    contenders = {BEFORE: ours, LAB: partial(lab_steps, config), AFTER: ours}
    measured = measure({**contenders, "limit": partial(arithmetic, config)}, repeats=1)
    runs = {run.contender: run for run in measured}
    limit = runs["limit"].numbers
    rows = [_epoch_row(runs[name], runs[LAB], limit) for name in contenders]
    title = f"{'x'.join(map(str, size))}, {options.scans} phantoms: an epoch of training"
    bars = Bars("seconds_per_epoch", "an epoch with its validation (s)", log=True)
    note = (
        f"{LIMIT_NOTE.format(limit['per_second'] / 1e9)} The lab's epoch is added up from "
        f"{BIG_STEPS} steps of one scan (its batch of 8 would take about 8 times the memory) and "
        "one validation scan; jawloc's are whole epochs, and its seconds per scan are those of "
        "an epoch over its training scans."
    )
    _report(options, "big", [Table("big", title, rows, bars)], note)


def _epoch_row(run: Run, lab: Run, limit: Mapping[str, float]) -> dict[str, object]:
    seconds = run.numbers["seconds_per_epoch"]
    least = limit["lab" if run.contender == LAB else "jawloc"]
    return {
        "recipe": run.contender,
        "seconds_per_scan": run.numbers["seconds_per_scan"],
        "seconds_per_epoch": seconds,
        "ratio": lab.numbers["seconds_per_epoch"] / seconds,
        "limit_seconds_per_epoch": least,
        "times_the_limit": seconds / least,
        "peak_mb": run.peak_mb,
    }


# The main job


def train_in_full(options: argparse.Namespace) -> None:
    """Run `jawloc train` on a full cache from its start to its end."""
    size = SMALL if options.quick else BIG
    config = make_task(options.work, options.scans, size)
    words = [sys.executable, "-m", "jawloc", "train", "--config", str(config), "--overwrite"]
    if options.epochs is not None:
        words += ["--set", f"num_epochs={options.epochs}"]
    runs = measure({"train": words, "limit": partial(arithmetic, config)}, repeats=1)
    run, limit = runs[0], runs[1].numbers
    outputs = config.parent / "script_output" / "jaw_location" / "locator"
    summary = json.loads((outputs / "summary.json").read_text())
    rows: list[dict[str, object]] = [
        {"what": "minutes", "measured": run.seconds / 60, "goal": GOAL_MINUTES},
        {"what": "peak memory (GB)", "measured": run.peak_mb / 1e3, "goal": GOAL_GB},
        {
            "what": "limit: arithmetic (minutes)",
            "measured": summary["epochs"] * limit["jawloc"] / 60,
        },
        {"what": "epochs", "measured": summary["epochs"]},
    ]
    for key in ("validation_error", "test_error", "mean_position_error"):
        error = summary[key]["downsampled_voxels"]
        rows.append({"what": f"{key.replace('_', ' ')} (downsampled voxels)", "measured": error})
    scan, grid = ("x".join(map(str, shape)) for shape in (SCAN_SHAPES[size], size))
    title = f"jawloc train: {options.scans} phantoms of {scan}, cached at {grid}"
    drawn = Lines(
        *("minutes", "error_voxels", "split"),
        *("minutes of training", "mean radial error (downsampled voxels)"),
        log_y=True,
    )
    curve = Table("full_curve", title, _error_rows(outputs / "metrics.csv"), drawn)
    note = LIMIT_NOTE.format(limit["per_second"] / 1e9)
    _report(options, "full", [curve, Table("full", title, rows)], note)


def _error_rows(metrics: Path) -> list[dict[str, object]]:
    """Return the errors of every epoch over the minutes that the epochs took."""
    with metrics.open() as file:
        epochs = list(csv.DictReader(file))
    minutes = list(accumulate(float(epoch["seconds"]) / 60 for epoch in epochs))
    return [
        {
            "split": words,
            "epoch": int(epoch["epoch"]),
            "minutes": minute,
            "sigma_voxels": float(epoch["sigma_voxels"]),
            "error_voxels": float(epoch[f"{split}_error_voxels"]),
        }
        for split, words in (("train", "training, augmented"), ("val", "validation"))
        for epoch, minute in zip(epochs, minutes, strict=True)
    ]


if __name__ == "__main__":
    main()
