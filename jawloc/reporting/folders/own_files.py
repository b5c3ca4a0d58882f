"""Which files in a folder of results are jawloc's, and which it is going to write there.

Where a folder has a manifest (see `jawloc.scans.manifest`), that alone counts. jawloc 0.1.0 kept
none; of its files only names that it certainly wrote count as its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from jawloc.errors import InputError
from jawloc.reporting.evaluation_report import CSV_FILE, HTML_FILE, JSON_FILE
from jawloc.reporting.file_names import object_endings
from jawloc.reporting.location_files import CONTACT_SHEET, TABLES, files_of_0_1_0
from jawloc.scans.manifest import written_files

CHECKPOINT = "checkpoint.pt"
UNSENT = "unsent.jsonl"  # what a run logged and its store has not taken yet
_TEST_PICTURE = r"test_heatmap|test_cropped|test_centroid(?:_downsampled|_truth)?|truth_cropped"
_RUN_FILE = (
    r"(?:train|val)_heatmap_(?:example|pred|example_fine)\.png|(?:losses|metrics|sigma|curriculum)\.png"
    r"|heatmap_epoch_\d+_(?:(?:coarse|fine)_)?sigma_\d+\.\d\d\.png"
    r"|metrics\.csv|summary\.json|config\.yml|out_of_fold\.csv|labels\.html"
    rf"|{re.escape(CHECKPOINT)}|{re.escape(UNSENT)}"
)
_EVALUATION_FILES = {JSON_FILE, CSV_FILE, HTML_FILE}
_FIGURES = ("success", "trust", "bias")

Names = Callable[[str], object]  # true of a file name that is among them
is_evaluation_picture: Names = re.compile(
    rf"(?:(?:{'|'.join(_FIGURES)})(?:[_@][^/]+)?|worst_\d{{2,}}_[^/]+)\.png"
).fullmatch


def run_names(folder_name: str, objects: Sequence[str]) -> Names:
    """Return which files a training for these objects writes into a folder of this name."""
    of_object = _any_of(object_endings(objects).values())
    own = rf"(?:{_TEST_PICTURE})(?:{of_object})?\.png|{re.escape(folder_name)}\.pth"
    return re.compile(f"{_RUN_FILE}|{own}").fullmatch


def evaluation_names(objects: Sequence[str], scans: Iterable[str]) -> Names:
    """Return which files an evaluation of these objects and scans writes."""
    endings, shown = _any_of(object_endings(objects).values()), _any_of(scans)
    pictures = rf"(?:{_any_of(_FIGURES)}|worst_\d{{2,}}_(?:{shown}))(?:{endings})\.png"
    return re.compile(f"{_any_of(_EVALUATION_FILES)}|{pictures}").fullmatch


def _any_of(texts: Iterable[str]) -> str:
    return "|".join(map(re.escape, texts))


def own_names(folder: Path, *, run: bool = False) -> set[str]:
    """Return the names of jawloc's files in a folder; `run`: that a training wrote into."""
    if (listed := written_files(folder)) is not None:
        return listed
    present = set(_names_in(folder))
    own = present & (_evaluation_of_0_1_0(folder) | files_of_0_1_0(folder))
    if run:
        own |= set(filter(run_names(folder.name, _objects_of_0_1_0(folder)), present))
    return own


def own_run_names(folder: Path) -> set[str]:
    """Return the names of the files that a training, or evaluations of it, left in its folder."""
    own = own_names(folder, run=True)
    # not those of `jawloc locate`, which may write into the same folder
    return {name for name in own if "/" not in name and name not in (*TABLES, CONTACT_SHEET)}


def refuse_foreign(folder: Path, option: str, writes: Names, own: set[str]) -> None:
    """Raise InputError, naming the folder's option, if a file to be written isn't jawloc's own."""
    for name in _names_in(folder):
        if name not in own and writes(name):
            raise InputError(
                f"{option}: {folder} holds {name}, which jawloc didn't write and would overwrite; "
                f"move it away first"
            )


def _names_in(folder: Path) -> list[str]:
    """Return what is in a folder and in the folders in it, as sorted names relative to it."""
    paths = sorted([*folder.glob("*"), *folder.glob("*/*")])
    return [path.relative_to(folder).as_posix() for path in paths]


def _evaluation_of_0_1_0(folder: Path) -> set[str]:
    """Return the files of the evaluation that `evaluation.json` describes, if jawloc wrote it."""
    try:
        content: dict[str, Any] = json.loads((folder / JSON_FILE).read_text(encoding="utf-8"))
        if not {"model", "weights_sha256", "jawloc_version"} <= set(content):
            return set()
        # names end with the object's, unless only one was asked for
        endings = ["", *(f"_{name}".replace("/", "_") for name in content["objects"])]
        ranked = {f"worst_{r['rank']:02d}_{r['scan']}" for r in content["rows"] if r.get("rank")}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return set()
    return _EVALUATION_FILES | {f"{s}{end}.png" for s in (*_FIGURES, *ranked) for end in endings}


def _objects_of_0_1_0(folder: Path) -> list[str]:
    """Return the objects that a run's `config.yml` names."""
    try:
        content = yaml.safe_load((folder / "config.yml").read_text(encoding="utf-8"))
        return [str(name) for name in content["jaw_loc_config"]["objects"]]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return []
