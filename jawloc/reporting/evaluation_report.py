"""An evaluation as files: `evaluation.json`, `evaluation.csv`, and one self-contained HTML page."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from jawloc import __version__
from jawloc.inference.comparison import Decision
from jawloc.inference.evaluate_scan import ScanEvaluation
from jawloc.inference.exports import by_axis, rounded, table_text
from jawloc.inference.held_out_errors import MANY_TIMES
from jawloc.inference.metrics import AXES, ObjectMetrics, errors_in
from jawloc.inference.model_evaluation import COVERAGE_IS_FAIR, ModelEvaluation
from jawloc.inference.quantities import UNIT_NAMES, counted, short
from jawloc.reporting.content_policy import page_templates
from jawloc.reporting.summary import flatten
from jawloc.reporting.text_files import write_json, write_text
from jawloc.training.provenance import LEARNED_FROM, ScanUse

JSON_FILE, CSV_FILE, HTML_FILE = "evaluation.json", "evaluation.csv", "evaluation.html"
TEMPLATE = "evaluation_report.html.j2"
USE_NAMES: dict[ScanUse, str] = {
    "train": "trained on",
    "validation": "validated on",
    "specimen": "of a specimen learned from",
    "calibration": "radius calibrated on",
    "test": "tested on",
    "new": "never used",
    "unknown": "unknown",
}
ENOUGH_SCANS = 3  # that say together that a model is better than its own test
NO_MM = "the files of some scans don't say how large a voxel is"


def write_report(
    folder: Path,
    evaluation: ModelEvaluation,
    pictures: Mapping[str, Sequence[Path]],
    decision: Decision | None = None,
) -> list[Path]:
    """Write an evaluation as JSON, CSV and HTML, and return the files.

    `pictures` are, by object, its figures and its worst scans' pictures, PNG files that are
    embedded; `decision` is about the model's place in the registry.
    """
    table = rows(evaluation)
    write_json(folder / JSON_FILE, json_content(evaluation, decision))
    write_text(folder / CSV_FILE, table_text(table) if table else "")
    write_text(folder / HTML_FILE, html_report(evaluation, pictures, decision))
    return [folder / name for name in (JSON_FILE, CSV_FILE, HTML_FILE)]


def html_report(
    evaluation: ModelEvaluation,
    pictures: Mapping[str, Sequence[Path]],
    decision: Decision | None = None,
) -> str:
    """Return the HTML page; parameters as for `write_report`."""
    environment = page_templates()
    environment.filters["base64"] = lambda path: base64.b64encode(path.read_bytes()).decode()
    environment.filters["counted"] = counted
    environment.tests["worst"] = lambda path: "worst" in path.stem
    return environment.get_template(TEMPLATE).render(
        evaluation=evaluation,
        fair_metrics=evaluation.fair_metrics(),
        decision=decision,
        notes=[*accuracy_notes(evaluation), *provenance_notes(evaluation)],
        why_no_mm=_why_no_mm(evaluation),
        pictures=pictures,
        use_names=USE_NAMES,
        unit_names=UNIT_NAMES,
    )


def json_content(evaluation: ModelEvaluation, decision: Decision | None = None) -> dict[str, Any]:
    """Return what `evaluation.json` holds."""
    seen = {u: own for u, own in scans_by_use(evaluation).items() if u not in COVERAGE_IS_FAIR}
    fair = evaluation.fair_metrics()
    return {
        "model": evaluation.model,
        "weights_sha256": evaluation.digest,
        "jawloc_version": __version__,
        "run_id": evaluation.run_id,
        "crop_size_voxels_zyx": list(evaluation.crop_size),
        "provenance": "unknown" if evaluation.provenance_is_unknown else "recorded in the model",
        "scans": {"evaluated": len(evaluation.scans), "failed": len(evaluation.failed)},
        **_fair_counts(evaluation),
        "radius_unit": evaluation.unit,
        "why_no_mm": _why_no_mm(evaluation),
        "objects": {name: asdict(metrics) for name, metrics in evaluation.metrics().items()},
        "seen_scans": {USE_NAMES[use]: names for use, names in seen.items()},
        "objects_in_unseen_scans": {name: asdict(metrics) for name, metrics in fair.items()},
        "failed": [asdict(failure) for failure in evaluation.failed],
        "warnings": accuracy_notes(evaluation),
        "registry": None if decision is None else asdict(decision),
        "rows": rows(evaluation),
    }


def rows(evaluation: ModelEvaluation) -> list[dict[str, Any]]:
    """Return a row per object of a scan, each object's worst first, then those that failed."""
    every = [
        _row(rank, scan)
        for name in evaluation.objects
        for rank, scan in enumerate(evaluation.select(name), 1)
    ]
    columns = list(every[0]) if every else ["scan", "status", "reason", "path"]
    for failure in evaluation.failed:
        reason = " ".join(failure.reason.split())
        known = {"status": "failed", **asdict(failure), "reason": reason}
        every.append(dict.fromkeys(columns) | known)
    return every


def _row(rank: int, scan: ScanEvaluation) -> dict[str, Any]:
    error, found = scan.error, scan.found
    radius, in_voxels = found.radius_voxels, error.error_full_size_voxels
    values: dict[str, Any] = {
        "rank": rank,
        "scan": error.scan_id,
        "object": error.object_name,
        "specimen": scan.specimen,
        "error_full_size_voxels": in_voxels,
        "error_downsampled_voxels": error.error_downsampled_voxels,
        "error_mm": error.error_mm,
        **by_axis("found_{}_voxels", error.predicted_voxels.tolist()),
        **by_axis("true_{}_voxels", error.truth_voxels.tolist()),
        **by_axis("bias_{}_voxels", scan.offset_voxels.tolist()),
        **by_axis("bias_{}_mm", None if scan.offset_mm is None else scan.offset_mm.tolist()),
        "spread_voxels": found.spread_voxels,
        "heatmap_width_voxels": found.width_voxels,
        "radius_voxels": radius,
        "confidence": found.confidence,
        "radius_note": found.radius_note or None,
        "truth_inside_radius": None if radius is None else bool(in_voxels <= radius),
        "status": found.status,
        "reason": found.reason or None,
        "share_inside_crop": scan.inside,
        "labelled_voxels": scan.labelled_voxels,
        "labelled_voxels_inside_crop": scan.inside_voxels,
        "crop_fit": scan.window.fit,
        "model_has_seen": None if scan.use == "new" else USE_NAMES[scan.use],
        "fair": None if scan.use == "unknown" else scan.is_fair,
        "path": str(scan.path),
    }
    return rounded(values)


def evaluation_metrics(evaluation: ModelEvaluation) -> dict[str, float]:
    """Return the numbers by which runs are compared under flat names, `evaluation_...`.

    Of several objects, the object's name comes after `evaluation_` or `evaluation_unseen_`.
    """
    several = len(evaluation.objects) > 1
    every, fair = (
        {name if several else "": _nested(metrics) for name, metrics in of.items()}
        for of in (evaluation.metrics(), evaluation.fair_metrics())
    )
    counts = {"scans": len(evaluation.scans), "failed_scans": len(evaluation.failed)}
    return flatten({"evaluation": counts | _fair_counts(evaluation) | {"": every, "unseen": fair}})


def _nested(metrics: ObjectMetrics) -> dict[str, Any]:
    crops, coverage = metrics.crops, metrics.coverage
    return {
        "rows": metrics.scans,
        "error": asdict(metrics)["errors"],
        "sdr": {f"{rate.radius:g}_{metrics.success_unit}": rate.share for rate in metrics.success},
        "crops_whole": crops and crops.whole,
        "crop_share": crops and {"": crops.mean_share, "least": crops.least_share},
        "coverage": coverage and {"": coverage.share, "stated": coverage.stated},
        "spread_correlation": metrics.spread_correlation,
        "scans": {status.replace(" ", "_"): own.scans for status, own in metrics.statuses.items()},
        "bias": {
            axis: {unit: by_axis[axis].mean for unit, by_axis in metrics.bias.items()}
            for axis in AXES
        },
    }


def _fair_counts(evaluation: ModelEvaluation) -> dict[str, Any]:
    return {
        "fair_scans": len({scan.path for scan in evaluation.fair}),
        "fair_specimens": len({scan.specimen for scan in evaluation.fair}),
    }


def _why_no_mm(evaluation: ModelEvaluation) -> str | None:
    return NO_MM if evaluation.evaluated and evaluation.unit != "mm" else None


def scans_by_use(evaluation: ModelEvaluation) -> dict[ScanUse, list[str]]:
    """Return the names of the scans by what the model used them for."""
    found = {
        use: dict.fromkeys(s.error.scan_id for s in evaluation.evaluated if s.use == use)
        for use in USE_NAMES
    }
    return {use: list(names) for use, names in found.items() if names}


def accuracy_notes(evaluation: ModelEvaluation) -> list[str]:
    """Return in sentences that the training was bad, or errors here much larger than there."""
    stated, fair, unit = evaluation.errors, evaluation.fair, evaluation.unit
    if stated is None:
        return []
    notes, before = stated.warnings(), stated.locator.get(unit)
    here = float(np.mean(errors_in(fair, unit))) if fair else 0.0
    if len(fair) >= ENOUGH_SCANS and before is not None and before > MANY_TIMES * here:
        return [
            f"the mean error when the model was tested, {short(before)} {UNIT_NAMES[unit]}, is "
            f"many times that here, {short(here)}; its test scans may have had the labels of "
            f"other scans"
        ]
    if before is not None and here > MANY_TIMES * before:
        notes.append(
            f"the mean error on scans that the model has not learned from, {short(here)} "
            f"{UNIT_NAMES[unit]}, is many times that when it was tested, {short(before)}; check "
            f"whether these scans have the labels of other scans, or points in another order than "
            f"z, y, x, or are of another kind"
        )
    return notes


def provenance_notes(evaluation: ModelEvaluation) -> list[str]:
    """Return in sentences which figures are optimistic, and why."""
    used, every = scans_by_use(evaluation), len(evaluation.scans)
    if evaluation.provenance_is_unknown:
        return [
            "the model is of unknown provenance: its file does not say which scans it learned from "
            "(it was made by jawloc 0.1.0, or holds bare weights), so that no figure here is known "
            "to be fair"
        ]
    notes = []
    if learned := [u for u in used if u in LEARNED_FROM]:
        uses = ", ".join(f"{USE_NAMES[use]}: {len(used[use])}" for use in learned)
        number = sum(len(used[use]) for use in learned)
        notes.append(
            f"the model has used {number} of these {every} scans ({uses}): its errors there are "
            f"optimistic"
        )
    has_radius = any(s.found.radius_voxels is not None for s in evaluation.evaluated)
    if "calibration" in used and has_radius:
        notes.append(
            f"on {len(used['calibration'])} of these {every} scans (or others of their specimens) "
            f"the radius was calibrated: how often it holds the truth there says nothing new, the "
            f"errors are fair"
        )
    evaluated = evaluation.evaluated
    if same := {s.error.scan_id for s in evaluated if s.shares_name_only and s.use == "new"}:
        notes.append(
            f"the model learned from other scans of the same name as {', '.join(sorted(same))}; "
            f"these have other content, and count as new"
        )
    return notes


def decision_tags(decision: Decision, evaluation: ModelEvaluation) -> dict[str, str]:
    """Return a version's tags: the decision, and the comparison that it rests on."""
    tags = {
        "evaluation.promoted": str(decision.promoted).lower(),
        "evaluation.reason": decision.reason,
        "evaluation.scans": str(len(evaluation.scans)),
        "evaluation.champion_before": decision.champion_before or "none",
    }
    if (compared := decision.comparison) is not None:
        p = compared.p_value
        tags |= {
            "evaluation.test": compared.test,
            "evaluation.p_value": "none (too few scans)" if p is None else f"{p:.6g}",
            "evaluation.scans": str(compared.scans),
            "evaluation.specimens": str(compared.specimens),
            "evaluation.mean_error": f"{compared.challenger_mean} {compared.unit}",
            "evaluation.champion_mean_error": f"{compared.champion_mean} {compared.unit}",
        }
    return tags
