"""A finished run as text for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jawloc.inference.held_out_errors import held_out_errors
from jawloc.inference.quantities import UNIT_NAMES, counted
from jawloc.reporting.correction_text import correction_lines
from jawloc.reporting.summary import OUT_OF_FOLD
from jawloc.reporting.terminal_table import from_here, number, shortened, table_lines

DECIMALS = {"downsampled_voxels": 2, "full_size_voxels": 2, "mm": 3}
WORST_SCANS = 5  # listed, of at least as many again


def describe_run(summary: Mapping[str, Any], folder: Path, ui_command: str = "jawloc ui") -> str:
    """Return, in lines, the errors of the locator and the baselines, and where to look further.

    mm are given only where the scans' spacing is known. Of several objects, each has its own line.
    """
    tested = OUT_OF_FOLD if "folds" in summary else "test"
    n = len({row["scan"] for row in summary[f"{tested}_scans"]})
    if tested == "test":
        specimens = summary["specimens"]["test"]
        of = f" of {counted(specimens, 'specimen')}" if specimens != n else ""
        lines = [f"Mean radial error on {counted(n, 'test scan')}{of} (not seen in training):"]
    else:
        lines = [
            f"Mean radial error on all {n} scans of {summary['specimens']} specimens, each by the "
            f"one of {summary['folds']} networks that has not seen its specimen:"
        ]
    lines += _error_lines(summary, tested, n)
    if summary[f"{tested}_error"]["mm"] is None:
        lines.append("  (no mm: the scans' files don't say how large a voxel is)")
    lines += _fold_lines(summary) if tested == OUT_OF_FOLD else [_training_line(summary)]
    lines += _worst_lines(summary, tested)
    lines += _crop_lines(summary) + _radius_lines(summary)
    lines += [f"  {line}" for line in correction_lines(summary)]
    known = held_out_errors(summary)
    lines += [f"WARNING: {warning}" for warning in ([] if known is None else known.warnings())]
    lines.append(f"Pictures, tables and the model: {from_here(folder)}")
    lines.append(f"Compare runs in the browser: {ui_command}")
    return "\n".join(lines)


def _error_lines(summary: Mapping[str, Any], tested: str, n: int) -> list[str]:
    labels = {f"{tested}_error": "jawloc"} | {
        key: key.removesuffix("_error").replace("_", " ")
        for key in summary
        if key.endswith("_error") and key not in (f"{tested}_error", "validation_error")
    }
    units = [unit for unit in DECIMALS if summary[f"{tested}_error"][unit] is not None]
    header = ["", *(UNIT_NAMES[unit] for unit in units)]
    spread = [(end, word) for end, word in (("_median", "median"), ("_max", "worst"))]
    unit = units[-1]
    if f"{unit}_median" not in summary[f"{tested}_error"]:
        spread = []
    header += [f"{word} ({UNIT_NAMES[unit]})" for _, word in spread]

    def row(label: str, errors: Mapping[str, float]) -> list[str | None]:
        means = [number(errors[one], DECIMALS[one]) for one in units]
        return [label, *means, *(number(errors[unit + end], DECIMALS[unit]) for end, _ in spread)]

    rows = []
    for key, label in labels.items():
        rows.append(row(label, summary[key]))
        for name, own in summary.get("objects", {}).items():
            scans = own[f"{tested}_scans"]
            few = "" if scans == n else f" ({counted(scans, 'scan')})"
            rows.append(row(f"  {name}{few}", own[key]))
    return table_lines(header, rows)


def _training_line(summary: Mapping[str, Any]) -> str:
    validation = summary["validation_error"]["downsampled_voxels"]
    trained = f"{counted(summary['epochs'], 'epoch')} in {duration(summary['seconds'])}"
    kept = f"those of epoch {summary['best_epoch']}, at sigma {summary['best_sigma_voxels']:.2f}"
    return f"  {trained}; the weights are {kept} (validation {validation:.2f} voxels)"


def _fold_lines(summary: Mapping[str, Any]) -> list[str]:
    unit = "downsampled_voxels" if summary[f"{OUT_OF_FOLD}_error"]["mm"] is None else "mm"
    short = "voxels" if unit != "mm" else unit
    header = ["fold", "scans", "epochs", "kept", f"validation ({short})", f"test ({short})"]
    rows = [
        [
            one["fold"],
            len(summary["scans"][f"fold_{one['fold']}"]),
            one.get("epochs"),
            one.get("best_epoch"),
            *(number(one.get(f"{kind}_error", {}).get(unit), 3) for kind in ("validation", "test")),
        ]
        for one in summary["fold_results"]
    ]
    return [*table_lines(header, rows), f"  trained in {duration(summary['seconds'])}"]


def _worst_lines(summary: Mapping[str, Any], tested: str) -> list[str]:
    """Return a table of the scans with the largest errors, where there are many more."""
    scans = summary[f"{tested}_scans"]
    if len(scans) < 2 * WORST_SCANS:
        return []
    unit = "mm" if all(row["error_mm"] is not None for row in scans) else "full_size_voxels"
    worst = sorted(scans, key=lambda row: -row[f"error_{unit}"])[:WORST_SCANS]
    several = len({row["object"] for row in scans}) > 1
    header = ["largest errors", *(["object"] * several), UNIT_NAMES[unit]]
    rows = [
        [shortened(row["scan"]), *([row["object"]] * several), number(row[f"error_{unit}"], 3)]
        for row in worst
    ]
    return table_lines(header, rows)


def _crop_lines(summary: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, crops in summary.get("crops", {}).items():
        of = f"the {name}" if len(summary["crops"]) > 1 else "it"
        held = "unknown, as no scan has a mask"
        if crops is not None:
            held = f"{crops['whole']} of {crops['scans']}"
        lines.append(f"  crops that hold all of {of}: {held}")
    return lines


def _radius_lines(summary: Mapping[str, Any]) -> list[str]:
    radii = summary.get("radius", {})
    lines = []
    for name, known in radii.items():
        of = f" of the {name}" if len(radii) > 1 else ""
        text = f"stated with a confidence of {100 * (known['confidence'] or 0):.0f} %, from "
        text += f"{known['specimens']} specimens"
        lines.append(f"  radius{of} {known['note'] if known['confidence'] is None else text}")
    return lines


def duration(seconds: float) -> str:
    """Return a time in words: 45 s, 3 min 20 s, 2 h 5 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {left} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.0f} s"
