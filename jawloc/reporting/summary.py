"""A finished run in numbers (`summary.json`) and in sentences (the terminal)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jawloc.heatmaps.metrics import HeatmapMetrics
from jawloc.inference.evaluate_scan import ScanError
from jawloc.inference.metrics import UNITS, PositionErrors
from jawloc.inference.quality import Calibration
from jawloc.training.loop import TrainingState
from jawloc.training.records import EpochRecord
from jawloc.training.splits import Split

OUT_OF_FOLD = "out_of_fold"


def summarise_run(
    name: str,
    split: Split,
    state: TrainingState,
    evaluations: Mapping[str, PositionErrors],
    seconds: float,
    specimens: Mapping[str, str],
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """Return what `summary.json` holds; errors are radial, in the units that their names say.

    Parameters
    ----------
    evaluations : by name, of the test scans: `test` (the locator) and what needs no network.
    specimens : each scan's, by scan id
    calibration : the locator's

    Returns
    -------
    Of several objects each has, under `objects`, the errors that the top has of all of them.
    """
    records, best = state.records, state.records[state.best_epoch - 1]
    several = {"objects": _by_object(best, evaluations)} if best.val.by_object else {}
    scans = {
        "train": list(split.train_ids),
        "validation": list(split.val_ids),
        "test": list(split.test_ids),
    }
    return {
        "name": name,
        "scans": scans,
        "specimens": {use: len({specimens[i] for i in ids}) for use, ids in scans.items()},
        "epochs": len(records),
        "best_epoch": best.epoch,
        "final_sigma_voxels": records[-1].sigma_voxels,
        "best_sigma_voxels": best.sigma_voxels,
        **_earlier_sigmas("final", records[-1]),
        **_earlier_sigmas("best", best),
        "seconds": round(seconds, 1),
        **_errors(best.val, evaluations),
        **several,
        "radius": radius_summary(calibration),
        "test_scans": [_row(error) for error in evaluations["test"].errors],
    }


def radius_summary(calibration: Calibration | None) -> dict[str, dict[str, Any]]:
    """Return what each object's stated radius rests on, or why there is none, by its name."""
    if calibration is None:
        return {}
    return {
        name: {
            "confidence": None if known.conformal is None else known.conformal.confidence,
            "specimens": known.specimens,
            "note": known.why_no_radius,
        }
        for name, known in calibration.objects.items()
    }


def summarise_folds(
    name: str,
    splits: Sequence[Split],
    specimens: Mapping[str, str],
    evaluations: Mapping[str, PositionErrors],
    folds: Sequence[Mapping[str, Any]],
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """Return what `summary.json` holds of a cross-validation.

    Parameters
    ----------
    specimens : each scan's, by scan id
    evaluations : by name, of all scans: `out_of_fold` (each by the fold that tested it) and what
        needs no network.
    folds : each one's own summary
    calibration : that of the locator with all networks
    """
    tested = {scan_id: k for k, split in enumerate(splits, start=1) for scan_id in split.test_ids}
    every = evaluations[OUT_OF_FOLD]
    names = list(dict.fromkeys(e.object_name for e in every.errors))
    by_object = {
        name: {
            f"{OUT_OF_FOLD}_scans": len(every.select(name).errors),
            **{
                f"{key}_error": _error_range(value.select(name))
                for key, value in evaluations.items()
            },
        }
        for name in names
    }
    kept = [
        *("epochs", "best_epoch", "best_sigma_voxels"),
        *(key for key in ("best_sigma_coarse_voxels",) if key in folds[0]),
        *("validation_error", "test_error"),
    ]
    return {
        "name": name,
        "folds": len(splits),
        "specimens": len(set(specimens.values())),
        "scans": {f"fold_{k}": list(s.test_ids) for k, s in enumerate(splits, start=1)},
        "seconds": round(sum(fold["seconds"] for fold in folds), 1),
        **{f"{key}_error": _error_range(value) for key, value in evaluations.items()},
        **({"objects": by_object} if len(names) > 1 else {}),
        "radius": radius_summary(calibration),
        "fold_results": [
            {"fold": k, **{key: fold[key] for key in kept}} for k, fold in enumerate(folds, start=1)
        ],
        f"{OUT_OF_FOLD}_scans": [
            {**_row(error), "fold": tested[error.scan_id], "specimen": specimens[error.scan_id]}
            for error in every.errors
        ],
    }


def _earlier_sigmas(which: str, record: EpochRecord) -> dict[str, float]:
    return {
        f"{which}_sigma_{stage.name}_voxels": stage.sigma_voxels for stage in record.earlier_stages
    }


def _row(error: ScanError) -> dict[str, Any]:
    return {
        "scan": error.scan_id,
        "object": error.object_name,
        "error_downsampled_voxels": error.error_downsampled_voxels,
        "error_full_size_voxels": error.error_full_size_voxels,
        "error_mm": error.error_mm,
        "predicted_voxels_zyx": error.predicted_voxels.tolist(),
        "truth_voxels_zyx": error.truth_voxels.tolist(),
    }


def _error_range(errors: PositionErrors) -> dict[str, float | None]:
    """Return mean, median and largest error in every unit, named as those of an epoch are."""
    found = {unit: errors.summary(unit) for unit in UNITS}
    return {
        f"{unit}{ending}": None if known is None else getattr(known, key)
        for ending, key in (("", "mean"), ("_median", "median"), ("_max", "worst"))
        for unit, known in found.items()
    }


def _errors(
    validation: HeatmapMetrics | None, evaluations: Mapping[str, PositionErrors]
) -> dict[str, dict[str, float | None]]:
    return {
        "validation_error": {
            "downsampled_voxels": None if validation is None else validation.error_voxels,
            "mm": None if validation is None else validation.error_mm,
        },
        **{f"{key}_error": mean_errors(value) for key, value in evaluations.items()},
    }


def _by_object(
    best: EpochRecord, evaluations: Mapping[str, PositionErrors]
) -> dict[str, dict[str, Any]]:
    names = dict.fromkeys(e.object_name for e in evaluations["test"].errors)
    return {
        name: {
            "test_scans": len(evaluations["test"].select(name).errors),
            **_errors(
                best.val.by_object.get(name),
                {key: value.select(name) for key, value in evaluations.items()},
            ),
        }
        for name in names
    }


def mean_errors(evaluation: PositionErrors) -> dict[str, float | None]:
    """Return the mean radial error in every unit; None for mm without spacing."""
    found = {unit: evaluation.summary(unit) for unit in UNITS}
    return {unit: None if known is None else known.mean for unit, known in found.items()}


def flat_numbers(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return the summary's plain numbers under flat names, to sort and compare runs by."""
    numbers = {key: value for key, value in summary.items() if isinstance(value, int | float)}
    numbers["total_seconds"] = numbers.pop("seconds")  # `seconds` is the name of an epoch's
    for name, errors in {"": summary, **summary.get("objects", {})}.items():
        for key, value in errors.items():
            if key.endswith("_error"):
                of = f"{key}_{name}" if name else key
                numbers |= {f"{of}_{unit}": v for unit, v in value.items() if v is not None}
    return numbers


def describe_run(summary: Mapping[str, Any], folder: Path, ui_command: str = "jawloc ui") -> str:
    """Say how well the locator finds the objects, beside what needs no network, and where to look.

    Returns
    -------
    Several lines; mm only where the scans' spacing is known. Of several objects each has its own.
    """
    way = OUT_OF_FOLD if "folds" in summary else "test"
    n = len({row["scan"] for row in summary[f"{way}_scans"]})
    ways = {f"{way}_error": "jawloc"} | {
        key: key.removesuffix("_error").replace("_", " ")
        for key in summary
        if key.endswith("_error") and key not in (f"{way}_error", "validation_error")
    }
    rows = []
    for key, label in ways.items():
        rows.append((label, summary[key]))
        for name, own in summary.get("objects", {}).items():
            scans = own[f"{way}_scans"]
            few = "" if scans == n else f" ({scans} scan{'s' if scans > 1 else ''})"
            rows.append((f"  {name}{few}", own[key]))
    wide = max(16, *(len(name) for name, _ in rows))
    if way == "test":
        fish = summary["specimens"]["test"]
        of = f" of {fish} specimen{'s' if fish > 1 else ''}" if fish != n else ""
        seen = "(not seen in training)"
        lines = [f"Mean radial error on {n} test scan{'s' if n > 1 else ''}{of} {seen}:"]
    else:
        lines = [
            f"Mean radial error on all {n} scans of {summary['specimens']} specimens, each by the "
            f"one of {summary['folds']} networks that has not seen its specimen:"
        ]
    lines += [f"  {name:<{wide}} {_in_words(errors)}" for name, errors in rows]
    for name, crops in summary.get("crops", {}).items():
        of = f"the {name}" if len(summary["crops"]) > 1 else "it"
        lines.append(f"  crops that hold all of {of}: {crops['whole']} of {crops['scans']}")
    if summary[f"{way}_error"]["mm"] is None:
        lines.append("  (no mm: the scans' files don't say how large a voxel is)")
    lines += _radius_lines(summary.get("radius", {}))
    lines += [
        f"Pictures, tables and the model: {folder}",
        f"Compare runs in the browser: {ui_command}",
    ]
    return "\n".join(lines)


def _radius_lines(radii: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for name, known in radii.items():
        of = f" of the {name}" if len(radii) > 1 else ""
        if known["confidence"] is None:
            lines.append(f"  radius{of} {known['note']}")
        else:
            lines.append(
                f"  radius{of} stated with a confidence of {100 * known['confidence']:.0f} %, from "
                f"{known['specimens']} specimens"
            )
    return lines


def _in_words(errors: Mapping[str, float | None]) -> str:
    text = (
        f"{errors['downsampled_voxels']:6.2f} downsampled voxels, "
        f"{errors['full_size_voxels']:6.2f} full-size voxels"
    )
    return text if errors["mm"] is None else f"{text}, {errors['mm']:6.3f} mm"
