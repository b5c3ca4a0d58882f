"""Which files in a folder of results are jawloc's, and which it is going to write there.

Where a folder keeps a list of what jawloc wrote (see `jawloc.scans.manifest`), that alone counts.
jawloc 0.1.0 kept none; of its files only names that it certainly wrote are taken for its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from jawloc.errors import InputError
from jawloc.reporting.evaluation_files import CSV_FILE, HTML_FILE, JSON_FILE
from jawloc.reporting.location_files import TABLES, files_of_earlier
from jawloc.scans.manifest import start_manifest, written_files

CHECKPOINT = "checkpoint.pt"
_TEST_PICTURES = (
    *("test_heatmap", "test_cropped", "test_centroid", "test_centroid_downsampled"),
    *("test_centroid_truth", "truth_cropped"),
)
_RUN_FILES = {
    *(f"{split}_heatmap_{kind}.png" for split in ("train", "val") for kind in ("example", "pred")),
    *(f"{split}_heatmap_example_fine.png" for split in ("train", "val")),
    *(f"{name}.png" for name in ("losses", "metrics", "sigma", *_TEST_PICTURES)),
    *("metrics.csv", "summary.json", "config.yml", "out_of_fold.csv", CHECKPOINT),
}
_EPOCH_PICTURE = re.compile(r"heatmap_epoch_\d+_(?:(?:coarse|fine)_)?sigma_\d+\.\d\d\.png")
_FIGURES = ("success", "trust", "bias")
_EVALUATION_PICTURE = re.compile(r"(?:(?:success|trust|bias)(?:_[^/]+)?|worst_\d{2,}_[^/]+)\.png")
_WORST_PICTURE = re.compile(r"worst_\d{2,}_(.+)\.png")

Names = Callable[[str], bool]  # whether a file of this name is meant


def run_names(folder_name: str, objects: Sequence[str]) -> Names:
    """Return which files a training for these objects writes into a folder of this name."""
    several = objects if len(objects) > 1 else ()
    of_objects = {f"{name}_{o}.png" for name in _TEST_PICTURES for o in several}
    exact = {*_RUN_FILES, f"{folder_name}.pth", *of_objects}
    return lambda name: name in exact or _EPOCH_PICTURE.fullmatch(name) is not None


def evaluation_names(objects: Sequence[str], scans: Iterable[str]) -> Names:
    """Return which files an evaluation writes of these objects and scans."""
    endings = picture_endings(objects).values()
    exact = {JSON_FILE, CSV_FILE, HTML_FILE, *(f"{f}{e}.png" for f in _FIGURES for e in endings)}
    shown = {f"{scan}{ending}" for scan in scans for ending in endings}

    def written(name: str) -> bool:
        worst = _WORST_PICTURE.fullmatch(name)
        return name in exact or (worst is not None and worst[1] in shown)

    return written


def picture_endings(objects: Sequence[str]) -> dict[str, str]:
    """Return what the names of each object's pictures of an evaluation end with."""
    several = len(objects) > 1
    return {name: f"_{name}".replace("/", "_") if several else "" for name in objects}


def evaluation_pictures(folder: Path) -> list[Path]:
    """Return the pictures that earlier evaluations left in a folder."""
    own = written_files(folder) or set()
    return [folder / name for name in sorted(own) if _EVALUATION_PICTURE.fullmatch(name)]


def own_names(folder: Path, *, run: bool = False) -> set[str]:
    """Return the names of jawloc's files in a folder; `run`: that a training wrote into."""
    listed = written_files(folder)
    if listed is not None:
        return listed
    there = set(names_in(folder))
    own = there & (_evaluation_of_0_1_0(folder) | files_of_earlier(folder))
    if run:
        own |= set(filter(run_names(folder.name, _objects_of_0_1_0(folder)), there))
    return own


def own_run_names(folder: Path) -> set[str]:
    """Return the names of the files that a training, or evaluations of it, left in its folder."""
    own = own_names(folder, run=True)
    # not of `jawloc locate`, which may have been told to write into the same folder
    return {name for name in own if "/" not in name and name not in TABLES}


def open_manifest(folder: Path, option: str, writes: Names, *, run: bool = False) -> None:
    """Go on with a folder's list of jawloc's files, once nothing of others is to be overwritten.

    Parameters
    ----------
    option : by which the user chose the folder
    writes : which files are going to be written

    Raises
    ------
    InputError
        If the folder holds a file that is to be written and is not jawloc's.
    """
    own = own_names(folder, run=run)
    refuse_foreign(folder, option, writes, own)
    start_manifest(folder, own)


def refuse_foreign(folder: Path, option: str, writes: Names, own: set[str]) -> None:
    """Refuse to write over a file that is not among jawloc's own."""
    for name in names_in(folder):
        if name not in own and writes(name):
            raise InputError(
                f"{option}: {folder} holds {name}, which jawloc didn't write and would overwrite; "
                f"move it away first"
            )


def names_in(folder: Path) -> list[str]:
    """Return what is in a folder and in the folders in it, by names relative to it, sorted."""
    if not folder.is_dir():
        return []
    names = []
    for path in sorted(folder.iterdir()):
        names.append(path.name)
        if path.is_dir():
            with suppress(OSError):  # not for everybody's eyes
                names += sorted(f"{path.name}/{below.name}" for below in path.iterdir())
    return names


# Before there were lists


def _evaluation_of_0_1_0(folder: Path) -> set[str]:
    """Return what the evaluation wrote that an `evaluation.json` is of, if jawloc made it."""
    try:
        content: dict[str, Any] = json.loads((folder / JSON_FILE).read_text(encoding="utf-8"))
        if not {"model", "weights_sha256", "jawloc_version"} <= set(content):
            return set()
        # with the object's name, unless that was the only one asked for
        endings = ["", *(f"_{name}".replace("/", "_") for name in content["objects"])]
        ranked = {f"worst_{r['rank']:02d}_{r['scan']}" for r in content["rows"] if r.get("rank")}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return set()
    pictures = {f"{stem}{ending}.png" for stem in (*_FIGURES, *ranked) for ending in endings}
    return {JSON_FILE, CSV_FILE, HTML_FILE, *pictures}


def _objects_of_0_1_0(folder: Path) -> list[str]:
    """Return the objects that a run's `config.yml` names."""
    try:
        content = yaml.safe_load((folder / "config.yml").read_text(encoding="utf-8"))
        return [str(name) for name in content["jaw_loc_config"]["objects"]]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return []
