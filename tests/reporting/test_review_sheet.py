"""The page on which a person decides about located positions; test_review_page.py uses it."""

from __future__ import annotations

import base64
import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from jawloc.errors import InputError
from jawloc.reporting.review_sheet import match_reviews, write_review_sheet
from jawloc.scans.points.review import Review
from tests.reporting.test_location_text import failed, row

TIME = "2026-01-02T03:04:05Z"
ACCEPTED = Review("a", "jaw", "accepted", (10.0, 10.0, 10.0), "Ana", TIME, "m", "p")
HOSTILE = "</script><script>alert(1)</script>"


def data_of(page: str) -> dict:
    (text,) = re.findall('<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(text)


def test_the_page_has_each_position_the_most_doubtful_first_and_its_picture(tmp_path):
    folder, page = tmp_path / "results", tmp_path / "pages" / "page.html"
    (folder / "thumbnails").mkdir(parents=True)
    (folder / "thumbnails" / "a b.png").write_bytes(b"small")
    page.parent.mkdir()
    rows = [row("good"), row("b", "uncertain", picture_file="pictures/a b.png"), failed("broken")]
    write_review_sheet(page, folder, rows, reviewer="<Ana>")
    text = page.read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?)</h2>", text) == ["broken", "b", "good"]
    assert [row["scan"] for row in data_of(text)["rows"]] == ["good", "b", "broken"]
    assert re.findall('data-row="(.)"', text) == ["2", "1", "0"]
    assert re.findall('href="(.*?)"', text) == ["../results/pictures/a%20b.png"]
    assert base64.b64encode(b"small").decode() in text
    assert 'value="&lt;Ana&gt;"' in text
    # nothing can be accepted or moved in a scan that could not be located
    assert text.count('value="accepted"') == text.count('value="moved"') == 2


def test_names_from_files_are_never_markup(tmp_path):
    rows = [row(HOSTILE, reason=HOSTILE, object=HOSTILE, model=HOSTILE, path=HOSTILE)]
    other = replace(ACCEPTED, scan=HOSTILE + "2")
    write_review_sheet(tmp_path / "p.html", tmp_path, rows, earlier=[other], reviewer=HOSTILE)
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert page.count("<script") == 2
    assert data_of(page)["rows"][0]["scan"] == HOSTILE
    policy = html.unescape(re.findall('Policy" content="(.*?)"', page)[0])
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[^' ]+'$", policy)


def test_reviews_are_of_the_same_object_in_the_same_file():
    of_another_file = replace(ACCEPTED, scan="b", path="elsewhere")
    gone = replace(ACCEPTED, scan="gone")
    absent = replace(ACCEPTED, scan="c", verdict="absent", position_voxels_zyx=None, path="")
    reviews = [ACCEPTED, of_another_file, gone, absent]
    found = match_reviews(Path("out"), [row("c"), row("b"), row("a")], reviews)
    assert found.of_rows == {0: absent, 2: ACCEPTED}
    assert found.others == (of_another_file, gone)
    assert found.note == (
        "note: 2 decisions in review.csv are about no file of locations.csv (scans b, gone): they "
        "are kept, and not shown"
    )


@pytest.mark.parametrize("path", ["../scans/a.tif", "{}/results/../scans/a.tif", "../link/a.tif"])
def test_a_path_in_a_review_is_of_the_folder_of_the_table(tmp_path, path):
    """Regression: such decisions, which training takes, were not shown."""
    (tmp_path / "results").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "scans")
    review = replace(ACCEPTED, path=path.format(tmp_path))
    rows = [row("a", path=str(tmp_path / "scans" / "a.tif"))]
    found = match_reviews(tmp_path / "results", rows, [review])
    assert (found.of_rows, found.others, found.note) == ({0: review}, (), "")


def test_an_accepted_position_stays_where_another_model_finds_another_one():
    rows = [row("a", z_voxels=12.0)]
    (review,) = match_reviews(Path("out"), rows, [ACCEPTED]).of_rows.values()
    assert review == replace(ACCEPTED, verdict="moved")


def test_another_position_is_decided_about_anew(tmp_path):
    ids = []
    for changed in ({}, {"z_voxels": 11.0}, {"key": "other"}, {"spread_voxels": 9.0}):
        write_review_sheet(tmp_path / "p.html", tmp_path, [row("a", **changed)])
        data = data_of((tmp_path / "p.html").read_text(encoding="utf-8"))
        ids.append((data["place"], data["rows"][0]["id"]))
    assert len(set(ids)) == 3
    assert ids[0] == ids[3]


def test_a_page_that_is_not_jawlocs_is_never_replaced(tmp_path):
    path = tmp_path / "review.html"
    for _ in range(2):
        write_review_sheet(path, tmp_path, [row("a")])
    path.write_text("mine", encoding="utf-8")
    for place, said in ((path, "didn't write this, and would"), (tmp_path, "must be a file; Is a")):
        with pytest.raises(InputError, match=f"{re.escape(str(place))}: .*{said}"):
            write_review_sheet(place, tmp_path, [row("a")])
    assert path.read_text(encoding="utf-8") == "mine"
