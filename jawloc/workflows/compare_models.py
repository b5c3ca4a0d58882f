"""The model before this one, in the same test scans: did the corrections help?"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jawloc.config import Config
from jawloc.errors import InputError
from jawloc.geometry import Grid, map_points
from jawloc.inference.evaluate_scan import PointFinder
from jawloc.inference.locator import Locator
from jawloc.inference.metrics import PositionErrors
from jawloc.inference.models import ModelOptions, load_model
from jawloc.reporting.tracking.model_files import model_file
from jawloc.scans.cache import Example, ExampleFile
from jawloc.scans.downsample import downsample_image
from jawloc.scans.reading import open_scan
from jawloc.training.device import choose_device
from jawloc.training.provenance import LEARNED_FROM, Provenance
from jawloc.workflows.correct_scans import read_reviews

EARLIER = "earlier_model"  # its name among the ways to find the objects


@dataclass(frozen=True)
class EarlierModel:
    """The model before, as one more way to find the objects.

    Attributes
    ----------
    name : as the user or review.csv calls it
    objects : of the new model; the earlier one finds all of them
    """

    name: str
    locator: Locator
    objects: tuple[str, ...]

    def __call__(self, example: Example) -> np.ndarray:
        """Return the objects' positions (object, 3), in the example's voxels.

        A model of another grid gets the full-size scan downsampled to its own.
        """
        size = tuple(self.locator.downsampled_size)
        image = example.image
        if size != example.grid.shape_zyx:
            image = downsample_image(open_scan(example.source), self.locator.downsampled_size)
        found = self.locator.predict(image).points_voxels
        points = map_points(found, Grid(self.locator.downsampled_size), example.grid)
        by_name = dict(zip(self.locator.objects, points, strict=True))
        return np.stack([by_name[name] for name in self.objects])


def find_earlier_model(config: Config, *, resumed: Path | None = None) -> EarlierModel | None:
    """Load the model to compare with: the one that is named, or whose positions were corrected.

    Say why if there is none of the reviewed one's name. Raise InputError if the named one can't be
    used, unless the run goes on in its folder `resumed`: it may have replaced that model since.
    """
    named = config.corrections.compare_with
    name = named or read_reviews(config).model
    if name is None:
        return None
    try:
        with model_file(name, config.base) as path:
            if resumed is not None and path.resolve().is_relative_to(resumed.resolve()):
                raise InputError(f"{name}: it was replaced by the model of this run")
            locator = load_model(path, ModelOptions(), str(choose_device(config.training.device)))
        objects = tuple(config.cache.objects)
        lacking = [one for one in objects if one not in locator.objects]
        if lacking:
            raise InputError(
                f"{name}: a model to compare with must find every object; it doesn't find "
                f"{', '.join(lacking)}"
            )
    except (InputError, ConnectionError, OSError) as error:
        _do_without(error, config, resumed)
        return None
    return EarlierModel(name, locator, objects)


def fitting_model(
    earlier: EarlierModel | None,
    config: Config,
    tested: Sequence[ExampleFile],
    *,
    resumed: Path | None = None,
) -> EarlierModel | None:
    """Return the earlier model if every test scan is at least as large as its grid.

    Otherwise as `find_earlier_model`: after the training would be too late.
    """
    if earlier is None:
        return None
    size = earlier.locator.downsampled_size
    small = [e for e in tested if any(np.greater(size, e.source_grid.shape_zyx))]
    if not small:
        return earlier
    error = InputError(
        f"{earlier.name}: a model to compare with must have a grid no larger than any test scan; "
        f"it has {list(size)}, and {small[0].scan_id} {list(small[0].source_grid.shape_zyx)}"
    )
    _do_without(error, config, resumed)
    return None


def _do_without(error: Exception, config: Config, resumed: Path | None) -> None:
    """Say why no earlier model is compared with; of a named one, raise it, but in a resumed run."""
    if config.corrections.compare_with is not None and resumed is None:
        raise error
    print(f"note: no comparison with an earlier model; {error}", file=sys.stderr)


def record_of(earlier: EarlierModel | None) -> Provenance | None:
    """Return the record of the scans that an earlier model learned from, if it is known."""
    return None if earlier is None else earlier.locator.provenance


def with_earlier_model(
    baselines: Mapping[str, PointFinder], earlier: EarlierModel | None
) -> dict[str, PointFinder]:
    """Return the baselines, and the earlier model as one more."""
    return {**baselines} if earlier is None else {**baselines, EARLIER: earlier}


def compare_with_earlier(
    baselines: Mapping[str, PointFinder],
    new: PositionErrors,
    evaluations: Mapping[str, PositionErrors],
    tested: Sequence[ExampleFile],
) -> dict[str, Any]:
    """Return what summary.json says of the earlier model; nothing if there is none.

    Parameters
    ----------
    new : the new model's errors in the scans that it was tested on
    evaluations : of the other ways to find the objects
    tested : those scans
    """
    earlier = baselines.get(EARLIER)
    if not isinstance(earlier, EarlierModel):
        return {}
    theirs = {(e.scan_id, e.object_name): e for e in evaluations[EARLIER].errors}
    differences = [
        own.error_full_size_voxels - theirs[own.scan_id, own.object_name].error_full_size_voxels
        for own in new.errors
    ]
    return {
        EARLIER: {
            "name": earlier.name,
            "positions": len(differences),
            "new_is_closer": sum(difference < 0 for difference in differences),
            "learned_from": _learned_from(earlier, tested),
        }
    }


def _learned_from(earlier: EarlierModel, tested: Sequence[ExampleFile]) -> list[str] | None:
    """Return the test scans that the earlier model learned from; None if that is unknown."""
    record = record_of(earlier)
    if record is None:
        return None
    own = []
    for file in tested:
        identity = record.identify(file.scan_id, file.content_hash, file.read().image)
        if record.use_of(identity) in LEARNED_FROM:
            own.append(file.scan_id)
    return own
