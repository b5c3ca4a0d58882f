"""One model on many labelled scans: its metrics for each object, and which errors are fair."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jawloc.geometry import Shape
from jawloc.inference.evaluate_scan import ScanEvaluation
from jawloc.inference.held_out_errors import HeldOutErrors
from jawloc.inference.metrics import (
    ObjectMetrics,
    common_unit,
    object_metrics,
    radius_coverage,
    ranked,
)
from jawloc.training.provenance import ScanUse

# Errors are also fair on the scans that the radius was calibrated on; its coverage only on these:
COVERAGE_IS_FAIR: frozenset[ScanUse] = frozenset({"test", "new"})


@dataclass(frozen=True)
class Failure:
    """A scan that could not be evaluated."""

    scan: str
    path: str
    reason: str


@dataclass(frozen=True)
class ModelEvaluation:
    """A model's errors on some scans.

    Attributes
    ----------
    model, digest : the name that the user gave, and the SHA-256 of its file
    crop_size : (z, y, x) in voxels of the full-size scan
    objects : that were looked for
    evaluated : every object of every scan that could be read
    radii : that the user asked for; empty: the default ones
    errors : that the model's file states; None if it states none
    """

    model: str
    digest: str
    crop_size: Shape
    objects: tuple[str, ...]
    evaluated: tuple[ScanEvaluation, ...]
    failed: tuple[Failure, ...]
    radii: tuple[float, ...]
    run_id: str | None = None
    errors: HeldOutErrors | None = None

    @property
    def unit(self) -> str:
        """Return the unit of radii and ranks: mm where every scan's spacing is known."""
        return common_unit(self.evaluated)

    @property
    def scans(self) -> list[str]:
        """Return the names of the scans that were evaluated."""
        return list(dict.fromkeys(scan.error.scan_id for scan in self.evaluated))

    @property
    def provenance_is_unknown(self) -> bool:
        """Return whether the model's file doesn't tell which scans it learned from."""
        return any(scan.use == "unknown" for scan in self.evaluated)

    @property
    def fair(self) -> list[ScanEvaluation]:
        """Return the objects and scans on which the model's errors are fair."""
        return [scan for scan in self.evaluated if scan.is_fair]

    def select(self, name: str) -> list[ScanEvaluation]:
        """Return one object's scans, the worst first."""
        return ranked([scan for scan in self.evaluated if scan.error.object_name == name])

    def metrics(self) -> dict[str, ObjectMetrics]:
        """Return the metrics of each object that any of the scans shows."""
        every = {name: self.select(name) for name in self.objects}
        return {n: object_metrics(own, self.radii, self.unit) for n, own in every.items() if own}

    def fair_metrics(self) -> dict[str, ObjectMetrics]:
        """Return the metrics in the fair scans, where others are among them.

        Their coverage is that of the scans that the radius was not calibrated on either.
        """
        if len(self.fair) == len(self.evaluated):
            return {}
        found = {}
        for name in self.objects:
            if own := [scan for scan in self.select(name) if scan.is_fair]:
                coverage = radius_coverage([scan for scan in own if scan.use in COVERAGE_IS_FAIR])
                metrics = object_metrics(own, self.radii, self.unit)
                found[name] = replace(metrics, coverage=coverage)
        return found
