"""Each kind of input by the code that a user's command reaches, and whether it was read right."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from inputs.scans import ScanContent, judge_scan, read_all
from inputs.settings import GRID, plain_trials, study_parts, study_storage, trials_of
from jawloc.config import load_config
from jawloc.errors import InputError
from jawloc.inference.models import ModelOptions, load_model
from jawloc.scans.cache import CacheConfig, build_cache
from jawloc.scans.convert import plan_conversion
from jawloc.scans.convert.points import (
    convert_points,
    holds_points,
    plan_point_conversion,
    read_points,
)
from jawloc.scans.downsample import downsample_image
from jawloc.scans.labelled import find_labelled_dicoms, open_labelled
from jawloc.scans.listing import list_scans
from jawloc.scans.reading import open_scan
from jawloc.training.network import build_network
from jawloc.workflows.prepare_data import decide_size, find_scans
from jawloc.workflows.tune.lost_trials import finished, recover_lost, to_start
from jawloc.workflows.tune.search_space import read_space
from jawloc.workflows.tune.study import known_threads, one_at_a_time, open_study, reachable

# What is read as the units of 3D Slicer's points
_UNITS = (1.0, 1e-7, 1e-6, 1e-3, 10.0, 25.4, 1000.0)
IMAGE = np.arange(np.prod(GRID), dtype=np.float32).reshape(GRID)


@dataclass(frozen=True)
class Kind:
    """How a kind of input is read (folder, target), and judged where it was read differently."""

    read: Callable[[Path, str], Any]
    # (result, result of the whole original, folder, target) -> what is wrong; empty: nothing
    judge: Callable[[Any, Any, Path, str], str]


def read_labelled(folder: Path, target: str) -> ScanContent:
    find_labelled_dicoms([folder])
    scan = open_labelled(folder / target)
    config = CacheConfig(("",), GRID if min(scan.grid.shape_zyx) >= 8 else (2, 2, 2), "cache")
    build_cache([folder / target], config, base=folder, progress=False)
    return read_all(scan)


def read_scan_files(folder: Path, target: str) -> ScanContent:
    for listed in list_scans([folder / target], exclude=folder / "out"):
        scan = open_scan(listed.path)
        downsample_image(scan, [min(n, 8) for n in scan.grid.shape_zyx])
        found = read_all(scan)
    return found


# Points


def read_point_file(folder: Path, target: str) -> list[tuple[Any, ...]]:
    images, points, out = folder / "images", folder / target, folder / "out"
    if not holds_points(images, points):
        plan_conversion(images, points, out)
        return []
    given = read_points(points)
    plan = plan_point_conversion(images, points, out)
    done = [convert_points(item) for item in plan if item.skip_reason is None]
    reasons = [item.skip_reason for item in plan + done if item.skip_reason is not None]
    if not done or done[0].skip_reason:
        raise InputError(reasons[0])
    read_all(open_scan(done[0].target))
    rows = [(p.scan, p.object, *p.position_zyx) for p in given.points]
    return [*rows, *((scan, None) for scan, _ in given.skipped)]


def judge_points(found: Any, whole: Any, folder: Path, target: str) -> str:
    """Every number and name must be in the file, and no row of it left out."""
    text = (folder / target).read_text(encoding="utf-8-sig")
    numbers = {abs(float(word)) for word in re.findall(r"\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+", text)}
    stated = np.array(sorted(n * unit for n in numbers for unit in _UNITS if math.isfinite(n)))
    for row in found:
        if any(np.abs(stated - abs(value)).min() > 1e-9 * abs(value) for value in row[2:]):
            return f"{row} is not in the file"
        if isinstance(row[1], str) and row[1] not in text and row[1] not in _json_texts(text):
            return f"no object {row[1]!r} in the file"
    rows = _rows(text, target)
    return "" if rows is None or rows == len(found) else f"{len(found)} points of {rows} rows"


def _json_texts(text: str) -> str:
    try:
        return str(json.loads(text))
    except ValueError:
        return ""


def _rows(text: str, target: str) -> int | None:
    """Return how many points a file has; None where that isn't plain."""
    if target.endswith(".json"):
        return sum(len(markup["controlPoints"]) for markup in json.loads(text)["markups"])
    if any(mark in text for mark in '"\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029') or "_z" in text:
        return None
    lines = [line for line in text.split("\n") if any(map(str.strip, re.split("[,;\t]", line)))]
    if target.endswith(".fcsv"):
        return sum(not line.startswith("#") for line in text.split("\n") if line.strip())
    return len(list(csv.reader(StringIO("\n".join(lines))))) - 1


# Models


def read_model(folder: Path, target: str) -> Any:
    options = ModelOptions()
    if target.startswith("lab"):
        options = ModelOptions("attention-unet", GRID)
    locator = load_model(folder / target, options)
    scan = open_scan(folder / ".." / ".." / "scan.mha")
    image = downsample_image(scan, locator.downsampled_size)
    found = locator.localise("a", locator.predict(image), scan.grid)
    return found, locator.crop_size, locator.provenance and locator.provenance.ids("train")


def judge_model(found: Any, whole: Any, folder: Path, target: str) -> str:
    for one in found[0]:
        if not all(map(math.isfinite, one.point_voxels)):
            return f"a position of {one.point_voxels}"
    path = folder / target
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    if zipped and found != whole and not _intact(path):
        return "read although its checksums don't fit"
    return ""


def _intact(path: Path) -> bool:
    import zipfile

    with zipfile.ZipFile(path) as archive:
        return archive.testzip() is None


# Lists


def read_list(folder: Path, target: str) -> list[str]:
    names, problem = [], None
    for listed in list_scans([folder / target]):
        try:
            read_all(open_scan(listed.path))
            names.append(listed.path.relative_to(folder).as_posix())
        except InputError as error:
            problem = error
    if problem is not None and not names:
        raise problem
    return names


def judge_list(found: Any, whole: Any, folder: Path, target: str) -> str:
    text = (folder / target).read_text(encoding="utf-8-sig").replace("\\", "/")
    lines = [line.strip() for line in text.splitlines() if line.strip() and "\0" not in line]
    places = [(folder / line).resolve() for line in lines]
    wrong = [
        name
        for name in found
        if name not in text
        and Path(name).parent.as_posix() not in text
        and not any((folder / name).resolve().is_relative_to(place) for place in places)
    ]
    return f"{wrong} are not in the list" if wrong else ""


# Settings


def read_settings(folder: Path, target: str) -> dict[str, Any]:
    config = decide_size(load_config(folder / target))
    scans = find_scans(config)
    build_cache(scans, config.cache, base=config.base, progress=False)
    build_network(config.network, len(config.cache.objects))
    params = config.as_params()
    return {key: value for key, value in params.items() if not _has_path(value, folder)}


def _has_path(value: Any, folder: Path) -> bool:
    return str(folder) in str(value)


def judge_settings(found: Any, whole: Any, folder: Path, target: str) -> str:
    """Every setting of the file that is plain must be there as the file has it."""
    given = yaml.safe_load((folder / target).read_text(encoding="utf-8"))["jaw_loc_config"]
    for key, value in given.items():
        own = found.get(key)
        if isinstance(value, int | float | str) and key in found and own != value:
            return f"{key} is {own!r}, not {value!r}"
        if isinstance(value, dict) and key != "objects":
            section = {"presence": "presence_classifier"}.get(key, key)
            for name, part in value.items():
                own = found.get(f"{section}.{name}", part)
                if isinstance(part, int | float) and own != part:
                    return f"{key}.{name} is {own!r}, not {part!r}"
    return ""


def read_search_space(folder: Path, target: str) -> dict[str, Any]:
    space = read_space(folder / target)
    space.check(decide_size(load_config(folder / "userconf.yml")))
    return space.as_mapping()


def judge_space(found: Any, whole: Any, folder: Path, target: str) -> str:
    given = yaml.safe_load((folder / target).read_text(encoding="utf-8"))["search"]
    for key, value in given.items():
        if isinstance(value, list) and list(found[key]) != value:
            return f"{key} is {found[key]}, not {value}"
        if isinstance(value, dict) and any(found[key][name] != value[name] for name in value):
            return f"{key} is {found[key]}, not {value}"
    return "" if len(given) == len(found) else f"{len(found)} of {len(given)} settings"


# Studies


def read_study(folder: Path, target: str) -> Any:
    config, space, study, definition = study_parts(folder, study_storage(folder / target))
    with one_at_a_time(study, config):
        known_threads(study, config)
        opened = open_study(study, config, definition, space.default(config))
    recover_lost(opened, study.folder(config.base))
    found, plain, known = trials_of(opened), plain_trials(folder / target), opened.user_attrs
    finished(opened)

    def objective(trial: Any) -> float:
        space.suggest(trial)
        trial.report(1.0, 0)
        trial.should_prune()
        return 1.0

    if to_start(opened, 30) > 0:
        with reachable(study):
            opened.optimize(objective, n_trials=1)
    best, count = opened.best_trial, len(opened.trials)
    again = open_study(study, config, definition, space.default(config))
    return found, dict(known), best.params, plain, count - len(again.trials)


def judge_study(found: Any, whole: Any, folder: Path, target: str) -> str:
    """The trials must be those that Optuna by itself reads, and the next command must find them."""
    trials, _, _, plain, forgotten = found
    if forgotten:
        return f"the next command finds {forgotten} trials less"
    return "" if plain == trials else f"{trials}, by Optuna itself {plain}"


KINDS: dict[str, Kind] = {
    "labelled DICOM": Kind(read_labelled, judge_scan),
    **dict.fromkeys(
        ("DICOM series", "TIFF", "NIfTI", "NRRD", "MetaImage"), Kind(read_scan_files, judge_scan)
    ),
    "points": Kind(read_point_file, judge_points),
    "model": Kind(read_model, judge_model),
    "list of scans": Kind(read_list, judge_list),
    "userconf.yml": Kind(read_settings, judge_settings),
    "search space": Kind(read_search_space, judge_space),
    "study": Kind(read_study, judge_study),
}


def same(one: Any, other: Any) -> bool:
    """Return whether two results are equal, arrays and all."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, ScanContent) and isinstance(other, ScanContent):
        return all(
            same(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True)
        )
    return bool(one == other)


torch.set_num_threads(1)
