"""Evaluated scans with known errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jawloc.inference.crop import CropBox
from jawloc.inference.evaluate_scan import ScanError, ScanEvaluation
from jawloc.inference.locator import Localisation
from jawloc.training.provenance import ScanIdentity, ScanUse

TRUTH = np.array([50.0, 20.0, 30.0])


def evaluated(
    scan: str,
    offset=(0.0, 0.0, 0.0),
    *,
    spacing=None,
    name: str = "jaw",
    inside: int | None = 100,
    specimen: str | None = None,
    use: ScanUse = "new",
    spread: float = 1.0,
    **trust,
) -> ScanEvaluation:
    """Return a scan in which the position is wrong by `offset` voxels of the full-size scan.

    Its grid is half as fine on every axis; of 100 labelled voxels the crop holds `inside`,
    or the scan has a point in place of a mask (None).
    """
    offset = np.asarray(offset, float)
    mm = None if spacing is None else offset * spacing
    point = tuple(float(v) for v in TRUTH + offset)
    error = ScanError(
        scan_id=scan,
        object_name=name,
        predicted_voxels=TRUTH + offset,
        truth_voxels=TRUTH,
        error_downsampled_voxels=float(np.linalg.norm(offset)) / 2,
        error_full_size_voxels=float(np.linalg.norm(offset)),
        error_mm=None if mm is None else float(np.linalg.norm(mm)),
    )
    return ScanEvaluation(
        path=Path(f"{scan}.dcm"),
        scan_id=scan,
        error=error,
        found=Localisation(scan, name, point, None, spread, spread, **trust),
        offset_voxels=offset,
        offset_mm=mm,
        window=CropBox((40, 10, 20), (20, 20, 20), "centred"),
        labelled_voxels=None if inside is None else 100,
        inside_voxels=inside,
        identity=ScanIdentity(scan, specimen or scan, scan, np.zeros((1, 1, 1), np.uint8)),
        use=use,
    )
