"""An evaluation as files: `evaluation.json`, `evaluation.csv`, and numbers for the run."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from jawloc import __version__
from jawloc.geometry import Shape
from jawloc.inference.comparison import Comparison
from jawloc.inference.evaluate_scan import ScanEvaluation
from jawloc.inference.metrics import (
    AXES,
    ObjectMetrics,
    common_unit,
    object_metrics,
    radius_coverage,
    ranked,
)
from jawloc.training.provenance import LEARNED_FROM, ScanUse

JSON_FILE, CSV_FILE, HTML_FILE = "evaluation.json", "evaluation.csv", "evaluation.html"
USE_WORDS: dict[ScanUse, str] = {
    "train": "trained on",
    "validation": "weights chosen by",
    "specimen": "of a specimen learned from",
    "calibration": "radius calibrated on",
    "test": "tested on",
    "new": "never used",
    "unknown": "unknown",
}
# A scan that the radius was calibrated on had no part in training, so that its error is fair; how
# often the radius holds the truth says something new on these only:
SAYS_COVERAGE: frozenset[ScanUse] = frozenset({"test", "new"})
NO_MM = "the files of some scans don't say how large a voxel is"
DECIMALS = 6


@dataclass(frozen=True)
class Failure:
    """A scan that could not be evaluated."""

    scan: str
    path: str
    reason: str


@dataclass(frozen=True)
class Decision:
    """What became of the model in the registry.

    Attributes
    ----------
    version : of the registered model; None where it was not registered
    champion_before : the version that was the champion, or None
    promoted : whether the model became champion now
    reason : in a sentence
    """

    version: str | None
    champion_before: str | None
    promoted: bool
    reason: str
    comparison: Comparison | None = None


@dataclass(frozen=True)
class ModelEvaluation:
    """All that was found out about a model on some scans.

    Attributes
    ----------
    model, digest : what the user calls it, and the SHA-256 of its file
    crop_size : (z, y, x) in voxels of the full-size scan
    objects : that were looked for
    evaluated : every object of every scan that could be read
    radii : that the user asked for; empty: the usual ones
    """

    model: str
    digest: str
    crop_size: Shape
    objects: tuple[str, ...]
    evaluated: tuple[ScanEvaluation, ...]
    failed: tuple[Failure, ...]
    radii: tuple[float, ...]
    run_id: str | None = None
    decision: Decision | None = None

    @property
    def unit(self) -> str:
        """Return the unit of radii and ranks: mm where every scan's spacing is known."""
        return common_unit(self.evaluated)

    @property
    def scans(self) -> list[str]:
        """Return the names of the scans that were evaluated."""
        return list(dict.fromkeys(m.error.scan_id for m in self.evaluated))

    @property
    def provenance_is_unknown(self) -> bool:
        """Say whether the model's file doesn't tell which scans it learned from."""
        return any(m.use == "unknown" for m in self.evaluated)

    def select(self, name: str, *, fair: bool = False) -> list[ScanEvaluation]:
        """Return one object's scans, the worst first; `fair`: only those whose errors are."""
        own = [m for m in self.evaluated if m.error.object_name == name]
        return ranked([m for m in own if m.is_fair or not fair])

    def fair_scans(self) -> int:
        """Count the scans on which the model's errors are fair."""
        return len({m.path for m in self.evaluated if m.is_fair})

    def fair_specimens(self) -> int:
        """Count the specimens of which these scans are."""
        return len({m.specimen for m in self.evaluated if m.is_fair})

    def metrics(self) -> dict[str, ObjectMetrics]:
        """Return the scores of each object that any of the scans shows."""
        every = {name: self.select(name) for name in self.objects}
        return {
            name: object_metrics(own, self.radii, self.unit) for name, own in every.items() if own
        }

    def fair_metrics(self) -> dict[str, ObjectMetrics]:
        """Return the scores in the fair scans, where others are among them.

        Their coverage is that of the scans that the radius was not calibrated on either.
        """
        if all(m.is_fair for m in self.evaluated):
            return {}
        every = {name: self.select(name, fair=True) for name in self.objects}
        scored = {
            name: object_metrics(own, self.radii, self.unit) for name, own in every.items() if own
        }
        return {
            name: replace(
                scores, coverage=radius_coverage([m for m in every[name] if m.use in SAYS_COVERAGE])
            )
            for name, scores in scored.items()
        }

    def optimism(self) -> list[str]:
        """Say in sentences which figures are optimistic, and why."""
        used, every = self.scans_by_use(), len(self.scans)
        if self.provenance_is_unknown:
            return [
                "the model is of unknown provenance: its file does not say which scans it learned "
                "from (it was made by jawloc 0.1.0, or holds bare weights), so that no figure here "
                "is known to be fair"
            ]
        said = []
        learned = [f"{len(used[u])} {USE_WORDS[u]}" for u in used if u in LEARNED_FROM]
        if learned:
            said.append(
                f"of these {every} scans the model has used {' and '.join(learned)}: its errors "
                f"there are optimistic"
            )
        calibrated = len(used.get("calibration", ()))
        if calibrated:
            said.append(
                f"on {calibrated} of these {every} scans (or others of their specimens) the radius "
                f"was calibrated: how often it holds the truth there says nothing new, the errors "
                f"are fair"
            )
        namesakes = sorted(
            {m.error.scan_id for m in self.evaluated if m.only_the_name_is_known and m.use == "new"}
        )
        if namesakes:
            said.append(
                f"the model learned from other scans of the same name as {', '.join(namesakes)}; "
                f"these have other content, and count as new"
            )
        return said

    def scans_by_use(self) -> dict[ScanUse, list[str]]:
        """Return the names of the scans by what the model has to do with them."""
        found: dict[ScanUse, dict[str, None]] = {}
        for m in self.evaluated:
            found.setdefault(m.use, {})[m.error.scan_id] = None
        return {use: list(found[use]) for use in USE_WORDS if use in found}


def plain_content(evaluation: ModelEvaluation) -> dict[str, Any]:
    """Return what `evaluation.json` holds."""
    used = evaluation.scans_by_use()
    fair = evaluation.fair_metrics()
    without_mm = evaluation.evaluated and evaluation.unit != "mm"
    return {
        "model": evaluation.model,
        "weights_sha256": evaluation.digest,
        "jawloc_version": __version__,
        "run_id": evaluation.run_id,
        "crop_size_voxels_zyx": list(evaluation.crop_size),
        "provenance": "unknown" if evaluation.provenance_is_unknown else "recorded in the model",
        "scans": {"evaluated": len(evaluation.scans), "failed": len(evaluation.failed)},
        "fair_scans": evaluation.fair_scans(),
        "fair_specimens": evaluation.fair_specimens(),
        "radius_unit": evaluation.unit,
        "why_no_mm": NO_MM if without_mm else None,
        "objects": {name: asdict(scores) for name, scores in evaluation.metrics().items()},
        "seen_scans": {
            USE_WORDS[use]: names for use, names in used.items() if use not in SAYS_COVERAGE
        },
        "objects_in_unseen_scans": {name: asdict(scores) for name, scores in fair.items()},
        "failed": [asdict(failure) for failure in evaluation.failed],
        "registry": None if evaluation.decision is None else asdict(evaluation.decision),
        "rows": rows(evaluation),
    }


def rows(evaluation: ModelEvaluation) -> list[dict[str, Any]]:
    """Return a row an object of a scan, each object's worst first, then those that failed."""
    every = [
        _row(rank, m)
        for name in evaluation.objects
        for rank, m in enumerate(evaluation.select(name), 1)
    ]
    columns = list(every[0]) if every else ["scan", "status", "reason", "path"]
    for failure in evaluation.failed:
        said = {"scan": failure.scan, "status": "failed", "path": failure.path}
        reason = {"reason": " ".join(failure.reason.split())}
        every.append({**dict.fromkeys(columns), **said, **reason})
    return every


def _row(rank: int, m: ScanEvaluation) -> dict[str, Any]:
    error, found = m.error, m.found
    mm = [None] * 3 if m.offset_mm is None else m.offset_mm.tolist()
    numbers: dict[str, Any] = {
        "rank": rank,
        "scan": error.scan_id,
        "object": error.object_name,
        "specimen": m.specimen,
        "error_full_size_voxels": error.error_full_size_voxels,
        "error_downsampled_voxels": error.error_downsampled_voxels,
        "error_mm": error.error_mm,
        **_by_axis("found_{}_voxels", error.predicted_voxels.tolist()),
        **_by_axis("true_{}_voxels", error.truth_voxels.tolist()),
        **_by_axis("bias_{}_voxels", m.offset_voxels.tolist()),
        **_by_axis("bias_{}_mm", mm),
        "spread_voxels": found.spread_voxels,
        "heatmap_width_voxels": found.width_voxels,
        "radius_voxels": found.radius_voxels,
        "confidence": found.confidence,
        "radius_note": found.radius_note or None,
        "truth_inside_radius": None
        if found.radius_voxels is None
        else bool(error.error_full_size_voxels <= found.radius_voxels),
        "status": found.status,
        "reason": found.reason or None,
        "share_inside_crop": m.inside,
        "labelled_voxels": m.labelled_voxels,
        "labelled_voxels_inside_crop": m.inside_voxels,
        "crop_fit": m.window.fit,
        "model_has_seen": None if m.use == "new" else USE_WORDS[m.use],
        "fair": None if m.use == "unknown" else m.is_fair,
        "path": str(m.path),
    }
    return {k: round(v, DECIMALS) if isinstance(v, float) else v for k, v in numbers.items()}


def _by_axis(name: str, values: Sequence[float | None]) -> dict[str, float | None]:
    return {name.format(axis): value for axis, value in zip(AXES, values, strict=True)}


def csv_text(evaluation: ModelEvaluation) -> str:
    """Return the rows as CSV, with an empty cell for None."""
    table, text = rows(evaluation), io.StringIO()
    if table:
        writer = csv.DictWriter(text, fieldnames=list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    return text.getvalue()


def flat_numbers(evaluation: ModelEvaluation) -> dict[str, float]:
    """Return the plain numbers under flat names, `evaluation_...`, to compare runs by.

    Of several objects, the object's name comes after `evaluation_`.
    """
    numbers: dict[str, float] = {
        "scans": len(evaluation.scans),
        "fair_scans": evaluation.fair_scans(),
        "fair_specimens": evaluation.fair_specimens(),
        "failed_scans": len(evaluation.failed),
    }
    several = len(evaluation.objects) > 1
    for kind, every in (("", evaluation.metrics()), ("unseen_", evaluation.fair_metrics())):
        for name, scores in every.items():
            prefix = kind + (f"{name}_" if several else "")
            numbers |= {f"{prefix}{key}": value for key, value in _flat(scores).items()}
    return {f"evaluation_{key}": float(value) for key, value in numbers.items()}


def _flat(scores: ObjectMetrics) -> dict[str, float]:
    flat: dict[str, float] = {"rows": scores.scans}
    for unit, errors in scores.errors.items():
        flat |= {f"error_{unit}_{key}": value for key, value in asdict(errors).items()}
    for rate in scores.success:
        flat[f"sdr_{rate.radius:g}_{scores.success_unit}"] = rate.share
    flat |= {"crops_whole": scores.crops.whole, "crop_share": scores.crops.mean_share}
    flat["crop_share_least"] = scores.crops.least_share
    if scores.coverage is not None:
        flat |= {"coverage": scores.coverage.share, "coverage_stated": scores.coverage.stated}
    if scores.spread_correlation is not None:
        flat["spread_correlation"] = scores.spread_correlation
    for status, of_status in scores.statuses.items():
        flat[f"scans_{status.replace(' ', '_')}"] = of_status.scans
    for unit, by_axis in scores.bias.items():
        flat |= {f"bias_{axis}_{unit}": bias.mean for axis, bias in by_axis.items()}
    return flat
