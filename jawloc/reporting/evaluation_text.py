"""An evaluation as text for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from jawloc.inference.metrics import ObjectMetrics
from jawloc.inference.model_evaluation import ModelEvaluation
from jawloc.inference.quantities import UNIT_NAMES, counted
from jawloc.reporting.evaluation_report import accuracy_notes, provenance_notes
from jawloc.reporting.terminal_table import number, shortened, table_lines

MOST_FAILURES = 10  # printed with their reasons
WORST_SCANS = 3


def describe_evaluation(evaluation: ModelEvaluation) -> list[str]:
    """Return the errors of each object as a table, the worst scans, notes, and what failed."""
    every, fair, unit = evaluation.metrics(), evaluation.fair_metrics(), UNIT_NAMES[evaluation.unit]
    rows, lines = [], list[str]()
    for name, metrics in every.items():
        rows.append([name, *_cells(metrics)])
        if name in fair:
            rows.append([f"{name}, fair scans only", *_cells(fair[name])])
    if rows:
        header = ["", "scans", "mean", "median", "95th percentile", "worst"]
        lines.append(f"Radial error ({unit}):")
        lines += table_lines([*header, "crops that hold all of it"], rows)
        header = ["largest errors", unit, "status"]
        lines += table_lines(header, _worst(evaluation))
    lines += [f"WARNING: {note}" for note in accuracy_notes(evaluation)]
    lines += [f"note: {note}" for note in provenance_notes(evaluation)]
    return [*lines, *_failures(evaluation)]


def _cells(metrics: ObjectMetrics) -> list[object]:
    errors, crops = metrics.errors[metrics.success_unit], metrics.crops
    values = (errors.mean, errors.median, errors.percentile_95, errors.worst)
    held = f"{crops.whole} of {crops.scans}" if crops else "unknown, without masks"
    return [metrics.scans, *(number(value, 3) for value in values), held]


def _worst(evaluation: ModelEvaluation) -> list[list[str | None]]:
    several, rows = len(evaluation.objects) > 1, list[list[str | None]]()
    for name in evaluation.objects:
        for scan in evaluation.select(name)[:WORST_SCANS]:
            error = getattr(scan.error, f"error_{evaluation.unit}")
            shown = shortened(scan.error.scan_id) + f", {name}" * several
            rows.append([shown, number(error, 3), scan.found.status])
    return rows


def _failures(evaluation: ModelEvaluation) -> Iterator[str]:
    failed = evaluation.failed
    if not failed:
        return
    yield f"{counted(len(failed), 'scan')} failed, so the exit code is 1:"
    for failure in failed[:MOST_FAILURES]:
        reason = " ".join(failure.reason.split())
        yield f"  {reason if failure.scan in reason else f'{failure.scan}: {reason}'}"
    if len(failed) > MOST_FAILURES:
        yield f"  ... and {len(failed) - MOST_FAILURES} more, which the report lists"
