"""Where napari or a display is missing, `jawloc review` says in a sentence what to do."""

from __future__ import annotations

import socket
import sys

import pytest

from jawloc.inference.exports import csv_text
from jawloc.viewer import availability
from tests.lab import only_sentence
from tests.reporting.test_location_text import row

ON_X = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="has a display of its own")


@pytest.fixture
def results(tmp_path):
    (tmp_path / "locations.csv").write_text(csv_text([row("a")]), encoding="utf-8")
    return tmp_path


def test_without_napari_the_extra_is_named(results, jawloc, monkeypatch):
    monkeypatch.setattr(availability, "find_spec", lambda name: None)
    said = only_sentence(jawloc("review", results))
    assert "pip install 'jawloc[napari]'" in said
    assert "--sheet" in said


@ON_X
def test_without_a_display_the_page_is_named(results, jawloc, monkeypatch):
    monkeypatch.setattr(availability, "find_spec", lambda name: True)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    said = only_sentence(jawloc("review", results))
    assert said == (
        "jawloc review: napari needs a display, and there is none; --sheet makes a page for a "
        "browser instead"
    )


@ON_X
def test_a_display_counts_where_somebody_answers(monkeypatch):
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1] - 6000
        monkeypatch.setenv("DISPLAY", f"127.0.0.1:{number}.0")
        assert availability.has_display()
    assert not availability.has_display()  # as of an ssh connection that has ended
    for display in ("", ":4711", "nonsense"):
        monkeypatch.setenv("DISPLAY", display)
        assert not availability.has_display()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--output", "x.html"], "--output names the page that --sheet makes; give --sheet too"),
        (["--sheet", "--model", "m"], "--model is for napari; a page has no heatmaps"),
    ],
)
def test_options_that_do_not_fit_are_refused(results, jawloc, options, said):
    assert only_sentence(jawloc("review", results, *options)) == said
