"""Whatever somebody changes in points or scenes in 3D Slicer, and saves, is not replaced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jawloc.errors import InputError
from jawloc.geometry import Grid
from jawloc.inference.crop import CropBox
from jawloc.inference.exports import slicer_text
from jawloc.inference.slicer_scene import crop_box_text, scene_text
from jawloc.reporting.slicer_edits import refuse_slicer_edits
from jawloc.scans.manifest import record_names, start_manifest
from tests.reporting.test_location_text import row

LPS_MM = {"z_lps_mm": 3.25, "y_lps_mm": -2.5, "x_lps_mm": 1.5}
ROWS = [row("fish", **LPS_MM), row("fish", "not found", object="eye", **LPS_MM)]
GRID = Grid((20, 20, 20), (0.1, 0.1, 0.1))
TURNED = [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0]


def saved_by_slicer(rows=ROWS) -> dict:
    """Return the markups in a file that jawloc wrote, as 3D Slicer 5 saves them."""
    (markups,) = json.loads(slicer_text(rows))["markups"]
    for point in markups["controlPoints"]:
        point |= {"orientation": TURNED, "associatedNodeID": "vtkMRMLScalarVolumeNode1"}
    about = {"locked": False, "labelFormat": "%N-%d", "lastUsedControlPointNumber": len(rows)}
    return markups | about | {"measurements": [], "display": {"opacity": 1.0}}


def write(folder: Path, *markups) -> None:
    (folder / "markups").mkdir(exist_ok=True)
    text = json.dumps({"markups": markups})
    (folder / "markups" / "fish.mrk.json").write_text(text, encoding="utf-8")


def is_refused(folder: Path, rows=ROWS, *, stays: bool = False) -> bool:
    try:
        refuse_slicer_edits(folder, ["fish"], rows, lambda _: stays)
    except InputError:
        return True
    return False


def in_ras(markups) -> None:
    markups["coordinateSystem"] = "RAS"
    for point in markups["controlPoints"]:
        x, y, z = point["position"]
        point["position"] = [-x, -y, z]


def rounded_by_slicer(markups) -> None:
    markups["controlPoints"][0]["position"][0] += 1e-6


@pytest.mark.parametrize("save", [lambda _: None, in_ras, rounded_by_slicer])
def test_points_that_were_saved_as_they_were_are_replaced(tmp_path, save):
    markups = saved_by_slicer()
    save(markups)
    write(tmp_path, markups)
    assert not is_refused(tmp_path)


def of_first(**changes):
    return lambda markups: markups["controlPoints"][0].update(changes)


def added(markups) -> None:
    markups["controlPoints"].append({**markups["controlPoints"][0], "id": "3", "label": "F-3"})


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(of_first(position=[1.5, -2.5, 3.75]), id="dragged"),
        pytest.param(of_first(positionStatus="undefined", position=[0.0] * 3), id="undefined"),
        pytest.param(of_first(position=None), id="without a position"),
        pytest.param(lambda markups: markups["controlPoints"].pop(), id="one deleted"),
        pytest.param(lambda markups: markups["controlPoints"].clear(), id="all deleted"),
        pytest.param(added, id="added"),
        pytest.param(lambda markups: markups["controlPoints"].reverse(), id="in another order"),
        pytest.param(of_first(locked=True), id="locked"),
        pytest.param(lambda markups: markups.update(locked=True), id="list locked"),
        pytest.param(of_first(selected=False), id="deselected"),
        pytest.param(of_first(visibility=False), id="hidden"),
        pytest.param(of_first(description="checked by Ana"), id="description"),
        pytest.param(of_first(label="tooth"), id="renamed"),
        pytest.param(lambda markups: markups.update(type="Line"), id="another kind"),
    ],
)
def test_points_that_were_changed_are_not_replaced(tmp_path, change):
    """Regression: all but a dragged point was gone after the next command."""
    markups = saved_by_slicer()
    change(markups)
    write(tmp_path, markups)
    assert is_refused(tmp_path)
    assert not is_refused(tmp_path, stays=True)


def test_points_are_not_replaced_where_no_row_is_known(tmp_path):
    """Regression: with a table that another program had saved, dragged points were gone."""
    write(tmp_path, saved_by_slicer())
    assert not is_refused(tmp_path, rows=[])  # another program's file, which is refused as such
    start_manifest(tmp_path)
    record_names(tmp_path, ["markups/fish.mrk.json"])
    assert is_refused(tmp_path, rows=[])


def test_a_second_list_or_a_file_that_is_none_is_not_replaced(tmp_path):
    write(tmp_path, saved_by_slicer(), saved_by_slicer())
    assert is_refused(tmp_path)
    no_points = '{"markups": [{"controlPoints": 1}]}'
    for text in ("", "[]", "{", '{"markups": 1}', no_points, "[" * 10**5):
        (tmp_path / "markups" / "fish.mrk.json").write_text(text, encoding="utf-8")
        assert is_refused(tmp_path), text


def test_what_jawloc_wrote_is_replaced_whatever_the_table_has(tmp_path):
    """A command that was killed wrote points, and its table not yet."""
    assert not is_refused(tmp_path)  # there is none
    (tmp_path / "markups").mkdir()
    (tmp_path / "markups" / "fish.mrk.json").write_text(slicer_text(ROWS), encoding="utf-8")
    for rows in (ROWS, [], [row("fish", z_lps_mm=1.0, y_lps_mm=1.0, x_lps_mm=1.0)]):
        assert not is_refused(tmp_path, rows)


def as_3d_slicer_saves_a_scene(text: str) -> str:
    return text.replace("<MRML>", '<MRML  version="Slicer4.4.0" userTags="">', 1)


def as_3d_slicer_saves_a_box(text: str) -> str:
    content = json.loads(text)
    content["markups"][0]["controlPoints"][0]["orientation"] = TURNED
    return json.dumps(content, indent=4)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("fish.mrml", as_3d_slicer_saves_a_scene),
        ("fish.box1.mrk.json", as_3d_slicer_saves_a_box),
        ("fish.box2.mrk.json", as_3d_slicer_saves_a_box),
        ("fish.box2.mrk.json", lambda _: ""),
    ],
)
def test_a_scene_that_was_saved_and_its_boxes_are_not_replaced(tmp_path, name, save):
    """Regression: only points were kept; segments that were saved with a scene were lost."""
    box = crop_box_text('"orientation"', CropBox((0, 0, 0), (4, 4, 4), "centred"), GRID, None)
    files = {"fish.mrml": scene_text("fish", Path("a"), Path("b"), {})}
    files |= {f"fish.box{number}.mrk.json": box for number in (1, 2)}
    (tmp_path / "scenes").mkdir()
    for own, text in files.items():
        (tmp_path / "scenes" / own).write_text(text, encoding="utf-8")
    start_manifest(tmp_path)
    record_names(tmp_path, [f"scenes/{own}" for own in files])
    assert not is_refused(tmp_path)
    (tmp_path / "scenes" / name).write_text(save(files[name]), encoding="utf-8")
    assert is_refused(tmp_path)
    assert not is_refused(tmp_path, stays=True)
    (tmp_path / "scenes" / name).unlink()
    assert not is_refused(tmp_path)


def test_several_files_are_named(tmp_path):
    (tmp_path / "markups").mkdir()
    for name in "abcde":
        (tmp_path / "markups" / f"{name}.mrk.json").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        refuse_slicer_edits(tmp_path, [], map(row, "abcde"), lambda _: False)
    names = ", ".join(f"{tmp_path}/markups/{name}.mrk.json" for name in "abc")
    assert str(caught.value) == (
        f"--output-dir: {names} and 2 more were changed in 3D Slicer, and would be replaced; they "
        "are kept: move them away first, or choose another folder"
    )
