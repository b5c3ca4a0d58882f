"""Points and scenes that somebody saved from 3D Slicer: no later command may replace them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from jawloc.errors import InputError
from jawloc.inference.exports import Row, slicer_text
from jawloc.inference.slicer_scene import SCENE_START
from jawloc.reporting.location_files import MARKUPS, SCENES
from jawloc.scans.manifest import written_files
from jawloc.scans.messages import names_shown
from jawloc.scans.points.slicer import read_markups
from jawloc.scans.text_input import read_text

MOVED = 1e-3  # mm, or voxels; less is rounding
SAVED_BY_SLICER = '"orientation"'  # which it gives every point, and jawloc none
# of a point, beside its position
_FIELDS = ("label", "description", "positionStatus", "locked", "selected", "visibility")


def refuse_slicer_edits(
    folder: Path, scans: Collection[str], rows: Iterable[Row], stays: Callable[[str], bool]
) -> None:
    """Raise InputError if points that somebody changed since, or a saved scene, would be replaced.

    A scene that 3D Slicer saved has all that it showed, such as segments and views, so that it is
    kept whatever it has, and so are the crop boxes in it.

    Parameters
    ----------
    folder : of the results
    scans : names of those to be located
    rows : that the folder has; none where its table can't be read
    stays : whether a scan's results stay as they are, by its name
    """
    written = written_files(folder) or set()  # jawloc replaces no others
    found: dict[str, list[Row]] = {scan: [] for scan in scans if _name(scan) in written}
    for row in rows:
        found.setdefault(row.scan, []).append(row)
    changed = [
        str(path)
        for scan, own in found.items()
        for path in _changed_files(folder, scan, own, written)
        if not stays(scan)
    ]
    if changed:
        one = len(changed) == 1
        raise InputError(
            f"--output-dir: {names_shown(changed)} {'was' if one else 'were'} changed in 3D "
            f"Slicer, and would be replaced; {'it is' if one else 'they are'} kept: move "
            f"{'it' if one else 'them'} away first, or choose another folder"
        )


def _name(scan: str) -> str:
    return f"{MARKUPS}/{scan}.mrk.json"


def _changed_files(
    folder: Path, scan: str, rows: Sequence[Row], written: Collection[str]
) -> Iterator[Path]:
    """Yield the files of a scan that jawloc would replace, and that somebody changed."""
    if _was_changed(folder / _name(scan), rows):
        yield folder / _name(scan)
    boxes = (f"{SCENES}/{scan}.box{number}.mrk.json" for number in count(1))
    for name in (f"{SCENES}/{scan}.mrml", *takewhile(written.__contains__, boxes)):
        if name in written and _is_saved_scene(folder / name):
            yield folder / name


def _is_saved_scene(path: Path) -> bool:
    """Return whether 3D Slicer saved a scene, or a crop box in it, that jawloc wrote."""
    try:
        text = read_text(path, "a scene", errors="replace")
    except OSError:
        return False
    except InputError:
        return True
    if path.suffix == ".mrml":
        return not text.startswith(SCENE_START)
    return text.count(SAVED_BY_SLICER) != 1  # jawloc gives one to the box, and none to its point


def _was_changed(path: Path, rows: Sequence[Row]) -> bool:
    """Return whether a file was saved by 3D Slicer with other points than jawloc wrote of rows.

    A file that jawloc wrote may have other points, too: of a command that was killed before it
    had written its table.
    """
    try:
        text = read_text(path, "a markups file")
        lists = json.loads(text)["markups"]
        points = read_markups(path, "").points
    except OSError:
        return False
    except (InputError, ValueError, LookupError, TypeError, RecursionError):
        return True
    (own,) = json.loads(slicer_text(rows))["markups"]
    if SAVED_BY_SLICER not in text and all(markup.keys() == own.keys() for markup in lists):
        return False
    if len(lists) != 1 or lists[0].get("locked"):
        return True
    now, written = lists[0]["controlPoints"], own["controlPoints"]
    at = [point.position_zyx[::-1] for point in points]  # without those that have no position
    return (
        len(now) != len(written)
        or len(at) != len(written)
        or any(map(_differs, now, written))
        or not np.allclose(at, [point["position"] for point in written], rtol=0, atol=MOVED)
    )


def _differs(now: dict[str, Any], written: dict[str, Any]) -> bool:
    return any(now.get(name, written[name]) != written[name] for name in _FIELDS)
