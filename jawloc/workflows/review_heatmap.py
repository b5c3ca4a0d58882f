"""Heatmaps of a model, computed while a person looks at a scan: results don't keep them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from jawloc.errors import InputError
from jawloc.inference.locator import Locator
from jawloc.inference.models import ModelOptions, load_model
from jawloc.reporting.tracking.model_files import model_file
from jawloc.scans.scan import ScanFile
from jawloc.training.device import choose_device

_KEPT = 8  # heatmaps in memory, for going to and fro


def heatmaps_of(model: str, base: Path) -> Callable[[ScanFile, str], np.ndarray]:
    """Load a model, and return what computes an object's heatmap in a scan.

    Parameters
    ----------
    model : as `jawloc locate` takes it; a name is of a model in the folder `base`

    Returns
    -------
    A function of an opened scan and an object's name. It returns the probabilities (z, y, x) of a
    grid that spans the scan, and raises InputError for an object that the model doesn't find.
    """
    with model_file(model, base) as path:
        locator = load_model(path, ModelOptions(), str(choose_device("auto")))
    return lru_cache(_KEPT)(lambda scan, name: heatmap_of(locator, scan, name))


def heatmap_of(locator: Locator, scan: ScanFile, object_name: str) -> np.ndarray:
    """Return an object's heatmap (z, y, x) in a scan, on a coarser grid that spans it."""
    names = [*locator.objects]
    if object_name not in names:
        raise InputError(
            f"--model: it must find {object_name!r} to show where; it finds {', '.join(names)}"
        )
    prediction = locator.predict(locator.downsample(scan))
    return prediction.probability[names.index(object_name)]
