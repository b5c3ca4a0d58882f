"""A heatmap for a person who reviews: the model's, of the object that is looked at."""

from __future__ import annotations

import numpy as np
import pytest

from jawloc.errors import InputError
from jawloc.inference.locator import load_locator
from jawloc.phantom import write_phantom
from jawloc.scans.downsample import downsample_image
from jawloc.scans.reading import open_scan
from jawloc.workflows.review_heatmap import heatmaps_of
from tests.lab import SCAN_SHAPE, write_model


def test_a_heatmap_is_that_of_the_object_in_the_prediction(tmp_path):
    write_phantom(tmp_path / "a.dcm", 0, SCAN_SHAPE)
    write_model(tmp_path / "m.pth", ("jaw", "eye"))
    scan, heatmap = open_scan(tmp_path / "a.dcm"), heatmaps_of(str(tmp_path / "m.pth"), tmp_path)
    locator = load_locator(tmp_path / "m.pth")
    expected = locator.predict(downsample_image(scan, locator.downsampled_size)).probability
    assert not np.allclose(expected[0], expected[1])
    for name, probability in zip(("jaw", "eye"), expected, strict=True):
        np.testing.assert_allclose(heatmap(scan, name), probability, atol=1e-6)
        assert heatmap(scan, name).sum() == pytest.approx(1, abs=1e-4)
    assert heatmap(scan, "eye") is heatmap(scan, "eye")  # not computed anew
    with pytest.raises(InputError, match="must find 'fin' to show where; it finds jaw, eye"):
        heatmap(scan, "fin")


def test_a_model_that_is_not_there_is_refused_before_a_window_opens(tmp_path):
    with pytest.raises(InputError, match=r"nobody"):
        heatmaps_of("nobody", tmp_path)
