"""A finished run as numbers: `summary.json`, and the metrics of the run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jawloc.heatmaps.metrics import HeatmapMetrics
from jawloc.inference.evaluate_scan import ScanError
from jawloc.inference.exports import by_axis, table_text
from jawloc.inference.metrics import UNITS, PositionErrors
from jawloc.inference.quality import Calibration
from jawloc.training.loop import TrainingState
from jawloc.training.splits import Split

OUT_OF_FOLD = "out_of_fold"
STATISTICS = {"": "mean", "_median": "median", "_max": "worst"}  # ending of a name -> which it is

Errors = dict[str, dict[str, float | None]]


def summarise_run(
    name: str,
    split: Split,
    state: TrainingState,
    evaluations: Mapping[str, PositionErrors],  # in the test scans: `test` and the baselines
    seconds: float,
    specimens: Mapping[str, str],  # by scan id
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """Return what `summary.json` holds; errors are radial, in the units that their names say.

    Of several objects, each has its own errors under `objects`; those at the top are of all.
    """
    last, best = state.records[-1], state.records[state.best_epoch - 1]
    ids = {"train": split.train_ids, "validation": split.val_ids, "test": split.test_ids}
    objects = {}
    for one in _objects(evaluations["test"]):
        own = {key: errors.select(one) for key, errors in evaluations.items()}
        mean = _mean_errors(best.val.by_object.get(one), own)
        objects[one] = {"test_scans": len(own["test"].errors), **mean}
    return {
        "name": name,
        "scans": {use: list(own) for use, own in ids.items()},
        "specimens": {use: len({specimens[i] for i in own}) for use, own in ids.items()},
        "epochs": len(state.records),
        "best_epoch": best.epoch,
        "final_sigma_voxels": last.sigma_voxels,
        "best_sigma_voxels": best.sigma_voxels,
        **{
            f"{which}_sigma_{stage.name}_voxels": stage.sigma_voxels
            for which, record in (("final", last), ("best", best))
            for stage in record.earlier_stages
        },
        "seconds": round(seconds, 1),
        **_mean_errors(best.val, evaluations),
        **({"objects": objects} if best.val.by_object else {}),
        "radius": radius_summary(calibration),
        "test_scans": [_row(error) for error in evaluations["test"].errors],
    }


def radius_summary(calibration: Calibration | None) -> dict[str, dict[str, Any]]:
    """Return the confidence of each object's radius and its specimens, or why there is none."""
    return {
        name: {
            "confidence": None if known.conformal is None else known.conformal.confidence,
            "specimens": known.specimens,
            "note": known.radius_note,
        }
        for name, known in ({} if calibration is None else calibration.objects).items()
    }


def summarise_folds(
    name: str,
    splits: Sequence[Split],
    specimens: Mapping[str, str],  # by scan id
    evaluations: Mapping[str, PositionErrors],  # in all scans: `out_of_fold` and the baselines
    folds: Sequence[Mapping[str, Any]],  # each one's own summary
    calibration: Calibration | None = None,  # of the locator with all networks
) -> dict[str, Any]:
    """Return what `summary.json` holds of a cross-validation."""
    tested = {scan_id: k for k, split in enumerate(splits, start=1) for scan_id in split.test_ids}
    errors = evaluations[OUT_OF_FOLD]
    by_object = {
        one: {
            f"{OUT_OF_FOLD}_scans": len(errors.select(one).errors),
            **_errors({key: every.select(one) for key, every in evaluations.items()}),
        }
        for one in _objects(errors)
    }
    kept = ["epochs", "best_epoch", "best_sigma_voxels", "best_sigma_coarse_voxels"]
    kept += ["validation_error", "test_error"]
    return {
        "name": name,
        "folds": len(splits),
        "specimens": len(set(specimens.values())),
        "scans": {f"fold_{k}": list(s.test_ids) for k, s in enumerate(splits, start=1)},
        "seconds": round(sum(fold["seconds"] for fold in folds), 1),
        **_errors(evaluations),
        **({"objects": by_object} if len(by_object) > 1 else {}),
        "radius": radius_summary(calibration),
        "fold_results": [
            {"fold": k, **{key: fold[key] for key in kept if key in fold}}
            for k, fold in enumerate(folds, start=1)
        ],
        f"{OUT_OF_FOLD}_scans": [
            {**_row(error), "fold": tested[error.scan_id], "specimen": specimens[error.scan_id]}
            for error in errors.errors
        ],
    }


def out_of_fold_csv(summary: Mapping[str, Any]) -> str:
    """Return a cross-validation's errors as CSV, a row per object of a scan."""
    return table_text(
        [
            {key: value for key, value in row.items() if not isinstance(value, list)}
            | by_axis("predicted_{}_voxels", row["predicted_voxels_zyx"])
            | by_axis("truth_{}_voxels", row["truth_voxels_zyx"])
            for row in summary[f"{OUT_OF_FOLD}_scans"]
        ]
    )


def _objects(errors: PositionErrors) -> list[str]:
    return list(dict.fromkeys(error.object_name for error in errors.errors))


def _row(error: ScanError) -> dict[str, Any]:
    return {
        "scan": error.scan_id,
        "object": error.object_name,
        **{f"error_{unit}": getattr(error, f"error_{unit}") for unit in UNITS},
        "predicted_voxels_zyx": error.predicted_voxels.tolist(),
        "truth_voxels_zyx": error.truth_voxels.tolist(),
    }


def _errors(
    evaluations: Mapping[str, PositionErrors], endings: Collection[str] = STATISTICS
) -> Errors:
    """Return errors in every unit, named as those of an epoch are; None for mm without spacing."""
    return {
        f"{key}_error": {
            f"{unit}{ending}": getattr(errors.summary(unit), STATISTICS[ending], None)
            for ending in endings
            for unit in UNITS
        }
        for key, errors in evaluations.items()
    }


def _mean_errors(
    validation: HeatmapMetrics | None, evaluations: Mapping[str, PositionErrors]
) -> Errors:
    in_voxels, in_mm = (getattr(validation, f"error_{unit}", None) for unit in ("voxels", "mm"))
    mean = {"downsampled_voxels": in_voxels, "mm": in_mm}
    return {"validation_error": mean, **_errors(evaluations, [""])}


def flatten(nested: Mapping[str, Any]) -> dict[str, float]:
    """Return the known numbers of nested mappings, their keys joined by underscores.

    None and the empty key leave no trace: {"error": {"": 2, "mm": {"a": 3}, "b": None}} becomes
    {"error": 2.0, "error_mm_a": 3.0}.
    """
    flat: dict[str, float] = {}
    for key, value in nested.items():
        inner = flatten(value) if isinstance(value, Mapping) else {"": value}
        flat |= {
            "_".join(filter(None, (key, name))): float(number)
            for name, number in inner.items()
            if number is not None
        }
    return flat


def summary_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return the summary's numbers under their names in the store, to sort and compare runs by.

    The errors in scans that did not train are a section: `test/error_mm`, and beside it
    `test/mean_position_error_mm`; of a cross-validation `out_of_fold/...`.
    """
    numbers = {key: value for key, value in summary.items() if isinstance(value, int | float)}
    numbers["total_seconds"] = numbers.pop("seconds")  # `seconds` is an epoch's in the store
    every = {"": summary, **summary.get("objects", {})}
    section = OUT_OF_FOLD if "folds" in summary else "test"
    errors = {
        _in_section(section, key): {name: own[key] for name, own in every.items()}
        for key in summary
        if key.endswith("_error")
    }
    shares = summary.get("mask_share", {})
    if len(shares) == 1:  # the name of an only object may be any text
        shares = {"": next(iter(shares.values()))}
    return flatten({**numbers, **errors, "mask_share": shares})


def _in_section(section: str, key: str) -> str:
    return key if key == "validation_error" else f"{section}/{key.removeprefix(f'{section}_')}"
