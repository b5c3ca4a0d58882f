"""What napari finds in jawloc: a valid manifest, a reader, and a widget that runs a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jawloc.errors import InputError
from jawloc.phantom import write_phantom, write_phantoms
from jawloc.scans.reading import read_scan
from jawloc.viewer.availability import has_display
from tests.lab import SCAN_SHAPE, write_model

pytest.importorskip("napari", reason="napari isn't installed (pip install '.[napari]')")
pytestmark = pytest.mark.slow
MANIFEST = Path(__file__).parents[2] / "jawloc" / "viewer" / "napari.yaml"


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    write_phantom(folder / "a.dcm", 0, SCAN_SHAPE)
    write_model(folder / "m.pth")
    return folder


def test_the_manifest_is_valid_and_what_it_names_is_there():
    from npe2 import PluginManifest

    manifest = PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    assert [widget.display_name for widget in manifest.contributions.widgets] == ["Find the jaw"]


def test_a_labelled_dicom_opens_as_image_and_mask(scans):
    from jawloc.viewer.plugin import get_reader

    scan = read_scan(scans / "a.dcm")
    read = get_reader(str(scans / "a.dcm"))
    assert read is not None
    (image, about, kind), (mask, about_mask, kind_of_mask) = read(str(scans / "a.dcm"))
    assert (kind, kind_of_mask) == ("image", "labels")
    np.testing.assert_array_equal(image, scan.image)
    np.testing.assert_array_equal(mask, scan.mask)
    assert tuple(about["scale"]) == tuple(about_mask["scale"]) == scan.grid.spacing_mm_zyx
    assert get_reader("notes.txt") is None


def test_results_open_as_scans_with_their_positions(scans, jawloc, tmp_path):
    from jawloc.viewer.plugin import get_reader

    where = ("--output-dir", tmp_path / "out", "--no-pictures", "--no-crops")
    assert jawloc("locate", scans / "m.pth", scans / "a.dcm", *where).exit_code == 0
    for place in (tmp_path / "out", tmp_path / "out" / "locations.csv"):
        read = get_reader(str(place))
        assert read is not None
        (_, _, image), (points, about, kind) = read(str(place))
        assert (image, kind) == ("image", "points")
        assert about["features"]["object"] == ["jaw"]
        assert np.shape(points) == (1, 3)


def test_of_many_scans_the_most_doubtful_open_and_it_is_said(jawloc, tmp_path, monkeypatch):
    import napari

    from jawloc.reporting.location_files import read_locations
    from jawloc.reporting.location_text import by_doubt
    from jawloc.viewer import plugin

    said = []
    monkeypatch.setattr(napari.utils.notifications, "show_warning", said.append)
    write_phantoms(tmp_path / "scans", 3, SCAN_SHAPE, progress=False)
    write_model(tmp_path / "m.pth")
    where = ("--output-dir", tmp_path / "out", "--no-pictures", "--no-crops")
    assert jawloc("locate", tmp_path / "m.pth", tmp_path / "scans", *where).exit_code == 0
    _, rows = read_locations(tmp_path / "out")
    found = [row.scan for row in by_doubt(rows) if row.status in ("ok", "uncertain")]
    read = plugin.get_reader(str(tmp_path / "out"))
    assert read is not None
    monkeypatch.setattr(plugin, "MOST_SCANS", len(found) - 1)
    layers = read(str(tmp_path / "out"))
    assert [about["name"] for _, about, kind in layers if kind == "image"] == found[:-1]
    assert said[0].startswith(f"{len(found)} scans have positions; the {len(found) - 1} most")
    monkeypatch.setattr(plugin, "MOST_SCANS", len(found))
    assert len(read(str(tmp_path / "out"))) == 2 * len(found)
    assert len(said) == 1


def test_find_the_jaw_is_what_locate_finds_in_a_file_and_in_a_layer(scans, jawloc, tmp_path):
    """Of a file that jawloc opened, the file itself; of any other layer, its voxels."""
    from napari.layers import Image

    from jawloc.inference.locator import load_locator
    from jawloc.viewer.plugin import find_in_layer, get_reader, position_layer, scan_of_layer

    (expected,) = load_locator(scans / "m.pth").locate(scans / "a.dcm")
    read = get_reader(str(scans / "a.dcm"))
    assert read is not None
    data, about, _ = read(str(scans / "a.dcm"))[0]
    opened = Image(data, **about)
    plain = Image(data, name="plain", scale=(2.0, 1.0, 1.0), translate=(5.0, 0.0, 0.0))
    for layer in (opened, plain):
        (found,) = find_in_layer(layer, scans / "m.pth")
        assert found.point_voxels == pytest.approx(expected.point_voxels, abs=1e-3)
        points, place, _ = position_layer(layer, [found])
        assert points == [found.point_voxels]
        assert tuple(place["scale"]) == tuple(layer.scale)
        assert tuple(place["translate"]) == tuple(layer.translate)
    cut = Image(data[2:], name="cut", metadata=about["metadata"])
    assert scan_of_layer(cut).grid.shape_zyx == cut.data.shape  # no longer the file's voxels
    flat = Image(np.zeros((4, 5)), name="flat")
    with pytest.raises(InputError, match="flat: a scan must have three axes; it has 2"):
        find_in_layer(flat, scans / "m.pth")


@pytest.mark.skipif(not has_display(), reason="there is no display (xvfb-run gives one)")
def test_the_widget_adds_the_positions_to_the_open_layer(scans):
    import napari

    from jawloc.viewer.widget import find_the_jaw

    viewer = napari.Viewer(show=False)
    try:
        viewer.add_image(read_scan(scans / "a.dcm").image, name="a")
        widget = find_the_jaw()
        viewer.window.add_dock_widget(widget)
        with pytest.raises(InputError, match="choose a layer with a scan, and a model"):
            widget()
        widget.model.value = scans / "m.pth"
        widget.call_button.native.click()
        assert [layer.name for layer in viewer.layers] == ["a", "a positions"]
        assert viewer.layers["a positions"].features["object"].tolist() == ["jaw"]
    finally:
        viewer.close()
