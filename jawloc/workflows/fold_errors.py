"""The errors of a cross-validation: each scan's by the fold that did not train on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jawloc.config import Config
from jawloc.inference.evaluate_scan import PointFinder
from jawloc.inference.locator import Locator
from jawloc.inference.metrics import PositionErrors
from jawloc.reporting.correction_text import summarise_corrections
from jawloc.reporting.summary import OUT_OF_FOLD
from jawloc.workflows.compare_models import compare_with_earlier
from jawloc.workflows.finish_training import evaluate_test_scans
from jawloc.workflows.prepare_data import Data


def out_of_fold_errors(
    config: Config,
    folds: Sequence[Data],
    baselines: Mapping[str, PointFinder],
    locators: Sequence[Locator],
) -> dict[str, PositionErrors]:
    """Return the out-of-fold errors of the locators and of each baseline, sorted by scan id."""
    pairs = zip(locators, folds, strict=True)
    every = [evaluate_test_scans(locator, config, data, baselines) for locator, data in pairs]
    return {
        OUT_OF_FOLD if key == "test" else key: PositionErrors(
            tuple(sorted((e for fold in every for e in fold[key].errors), key=lambda e: e.scan_id))
        )
        for key in every[0]
    }


def summarise_corrected_folds(
    folds: Sequence[Data],
    baselines: Mapping[str, PointFinder],
    evaluations: Mapping[str, PositionErrors],
) -> dict[str, Any]:
    """Return what summary.json says of corrected scans and of the earlier model."""
    records = tuple(dict.fromkeys(one for data in folds for one in data.corrections))
    files = [file for data in folds for file in data.select(data.split.test_ids)]
    compared = compare_with_earlier(baselines, evaluations[OUT_OF_FOLD], evaluations, files)
    return summarise_corrections(records, ()) | compared
