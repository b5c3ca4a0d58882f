"""Names and links that lead out of a folder: nothing elsewhere is written or removed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from campaign import Outcome, Plan

from jawloc.errors import InputError
from jawloc.inference.exports import Row, csv_text
from jawloc.reporting.file_names import object_endings
from jawloc.reporting.folders.run_folder import REPLACED, UNFINISHED, locked_run_folder
from jawloc.reporting.location_files import earlier_rows
from jawloc.workflows.tune.study import StudyConfig

SECRET = b"secret" * 20
STRAY = (
    *("..", ".", "", "../x", "../../x", "a/../../x", "/etc/x", "./../x", "a/b", "x\0y", "..\\x"),
    *("x/", "../" * 40 + "etc/x", "x" * 5000, "\n../x", "~/x", "C:/x", ".hidden/../../x"),
)


def file_faults(plan: Plan) -> Iterator[Outcome]:
    yield from _stray_names(plan)
    yield from _files_that_meet(plan)
    yield from _links(plan)


def outcome(
    fault: str,
    detail: str,
    attack: Callable[[], object],
    intact: Callable[[], bool] = lambda: True,
) -> Outcome:
    """Run an attack; it is lost if something outside changed, or no sentence said why not."""
    try:
        attack()
        what = "read"
    except InputError as error:
        what, detail = ("LOST" if "\n" in str(error) else "refused"), f"{detail}: {error}"
    except Exception as error:
        what, detail = "LOST", f"{detail}: {error!r}"
    return Outcome(fault, what if intact() else "LOST", detail)


def _listing(folder: Path, besides: Path) -> list[str]:
    inside = (path for path in folder.rglob("*") if not path.is_relative_to(besides))
    return sorted(str(path) for path in inside)


def _stray_names(plan: Plan) -> Iterator[Outcome]:
    """Names of models, studies and scans that lead somewhere else."""
    place = plan.work / "names" / "deep" / "project"
    place.mkdir(parents=True)
    outputs = place / "script_output" / "jaw_location"
    before = _listing(plan.work / "names", place)

    def intact() -> bool:
        beside = _listing(place, outputs) if outputs.exists() else []
        return _listing(plan.work / "names", place) == before and not [
            path for path in beside if Path(path) not in outputs.parents
        ]

    row = empty_row(scan="scan")
    table = place.parent / "table"
    table.mkdir()
    before = _listing(plan.work / "names", place)
    for name in STRAY:
        shown = repr(name[:30])
        yield outcome("a model's name", shown, partial(_train_into, place, name), intact)
        yield outcome("a study's name", shown, partial(_study_folder, place, name), intact)
        for column, folder in (("scan", ""), ("crop_file", "imgs/"), ("picture_file", "pictures/")):
            text = csv_text([replace(row, **{column: f"{folder}{name}"})])
            (table / "locations.csv").write_text(text, "utf-8")
            before = _listing(plan.work / "names", place)
            yield outcome(f"a table's {column}", shown, partial(_resume, table, column), intact)


_KNOWN = {"object": "jaw", "status": "found", "path": "", "model": "", "key": ""}


def empty_row(**known: Any) -> Row:
    """Return a row of `jawloc locate`'s table, of which little is known."""
    empty: dict[str, Any] = dict.fromkeys(field.name for field in fields(Row))
    return Row(**empty | _KNOWN | known)


def _train_into(place: Path, name: str) -> None:
    with locked_run_folder(place, name, ("jaw",), overwrite=True, resume=False) as folder:
        _refuse_outside(folder, place / "script_output")
        (folder / "metrics.csv").write_text("")


def _study_folder(place: Path, name: str) -> None:
    folder = StudyConfig(name, trials=1).folder(place)
    _refuse_outside(folder, place / "script_output")


def _resume(table: Path, column: str) -> None:
    """Read a table as --resume does; whatever it takes must lie in the folder."""
    for rows in earlier_rows(table, resume=True, overwrite=False).values():
        for row in rows:
            value = getattr(row, column)
            if value is not None:
                own = table / "imgs" if column == "scan" else table / Path(value).parts[0]
                _refuse_outside(own / value if column == "scan" else table / value, own)


def _refuse_outside(path: Path, folder: Path) -> None:
    if path == folder or not Path(os.path.normpath(path)).is_relative_to(folder):
        raise AssertionError(f"{path} is not below {folder}")


def _files_that_meet(plan: Plan) -> Iterator[Outcome]:
    """Two objects of two scans whose names could be put together to the same file."""
    rng = plan.random
    for _ in range(100 if plan.short else 5000):
        scans, objects = ({_word(rng) for _ in range(4)} for _ in range(2))
        endings = object_endings(sorted(objects))
        files = [f"{scan}{endings[name]}".casefold() for scan in scans for name in objects]
        lost = len(set(files)) < len({s.casefold() for s in scans}) * len(objects)
        detail = f"{sorted(scans)} {sorted(objects)}"
        yield Outcome("files of two objects that meet", "LOST" if lost else "survived", detail)


def _word(rng: object) -> str:
    letters = [rng.choice("ab") for _ in range(rng.randrange(1, 4))]  # type: ignore[attr-defined]
    return "_".join(letters)


def _links(plan: Plan) -> Iterator[Outcome]:
    """Links in output folders that lead to somebody's files."""
    for number, below in enumerate(("", REPLACED, UNFINISHED, "fold_1")):
        place, precious = plan.work / f"links_{number}", plan.work / f"precious_{number}"
        precious.mkdir()
        (precious / "thesis.txt").write_bytes(SECRET)
        link = place / "script_output" / "jaw_location" / "m" / below
        link.parent.mkdir(parents=True)
        link.symlink_to(precious)
        yield outcome(
            "a link in an output folder",
            below or "itself",
            lambda place=place: _train_into(place, "m"),
            lambda precious=precious: [p.name for p in precious.iterdir()] == ["thesis.txt"],
        )
