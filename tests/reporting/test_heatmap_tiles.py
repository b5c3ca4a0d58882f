"""The image grid's pictures: what is drawn, with which texts, and that it can be seen."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from jawloc.geometry import Grid
from jawloc.reporting.figures.style import figure_to_array
from jawloc.reporting.heatmap_tiles import heatmap_tiles
from jawloc.scans.cache import Example
from jawloc.training.stages import Stage

SHAPE, TRUTH, FOUND = (24, 12, 12), (15.0, 5.0, 6.0), (15.0, 8.0, 10.0)
STAGES = [Stage(stride=2, pool=2, window=None, name="coarse"), Stage(2, 1, (8, 8, 8), "fine")]


@pytest.fixture
def example():
    image = np.zeros(SHAPE, np.float32)
    spacing = (0.1, 0.1, 0.1)
    where = Grid(SHAPE, spacing), Grid((48, 24, 24), (0.05, 0.05, 0.05))
    return Example("fish", image, None, np.array([TRUTH]), *where, "key", Path("fish.dcm"))


def locator():
    probability = np.zeros((1, 12, 6, 6))
    probability[0, 7, 4, 5] = 1.0
    coarse = np.zeros((1, 6, 3, 3))
    coarse[0, 3, 2, 1] = 1.0
    heatmaps = {"probability": probability, "coarse_probability": coarse}
    found = SimpleNamespace(points_voxels=np.array([FOUND]), **heatmaps)
    return SimpleNamespace(predict=lambda image: found)


def texts(figure):
    return [text.get_text() for text in figure.texts]


def test_the_texts_say_when_and_how_good(example):
    figure = heatmap_tiles(example, STAGES, (4.0, 1.5), "Best of 12 epochs", locator())[""]
    assert texts(figure)[:2] == [
        "Best of 12 epochs: sigma 1.50",
        "scan fish, error 0.500 mm",
    ]
    for text in figure.texts:  # nothing is cut off
        assert text.get_window_extent(FigureCanvasAgg(figure).get_renderer()).x1 < figure.bbox.x1


def test_the_target_is_on_the_left_and_the_prediction_on_the_right(example):
    figure = heatmap_tiles(example, STAGES, (4.0, 1.5), "e", locator())[""]
    left, below, right, _ = figure.axes
    assert left.get_position().x1 < right.get_position().x0
    assert below.get_position().y1 <= left.get_position().y0
    target, predicted = (axes.images[1].get_array() for axes in (left, right))
    assert np.unravel_index(target.argmax(), target.shape) == (7, 3)  # (z, x) of the heatmap grid
    assert np.unravel_index(predicted.argmax(), predicted.shape) == (7, 5)
    assert left.images[1].get_clim() == right.images[1].get_clim()  # one scale
    assert [line.get_xdata()[0] for line in left.lines] == [6.0]
    assert [line.get_xdata()[0] for line in right.lines] == [6.0, 10.0]


def test_the_coarse_stage_has_a_tile_of_its_own(example):
    figure = heatmap_tiles(example, STAGES, (4.0, 1.5), "Epoch 12", locator())["_coarse"]
    assert texts(figure) == [
        *("Epoch 12: sigma 4.00", "scan fish", "coarse target", "coarse predicted")
    ]
    left, _, right, _ = figure.axes
    target, predicted = (axes.images[1].get_array() for axes in (left, right))
    assert target.shape == predicted.shape == (6, 3)  # (z, x) of the coarse heatmap's grid
    assert np.unravel_index(predicted.argmax(), predicted.shape) == (3, 1)
    assert [len(axes.lines) for axes in (left, right)] == [1, 1]  # the position is the fine one's


def test_one_stage_has_one_tile(example):
    assert [*heatmap_tiles(example, [Stage(1)], (4.0,), "e", locator())] == [""]


def test_before_training_there_is_no_prediction(example):
    figure = heatmap_tiles(example, STAGES, (4.0, 1.5), "Before training")[""]
    assert texts(figure)[:2] == ["Before training: sigma 1.50", "scan fish"]
    assert [len(axes.images) for axes in figure.axes] == [2, 2, 1, 1]


def test_it_is_square_so_that_the_grid_shows_it_as_large_as_it_can(example):
    rows, columns, _ = figure_to_array(heatmap_tiles(example, STAGES, (4.0, 1.5), "e")[""]).shape
    assert rows == columns


def test_an_object_that_a_scan_lacks_is_left_out(example):
    points = np.array([TRUTH, (np.nan,) * 3])
    two = Example(**vars(example) | {"points_voxels": points, "object_names": ("a", "b")})
    figure = heatmap_tiles(two, STAGES, (4.0, 1.5), "e")[""]
    assert [len(axes.lines) for axes in figure.axes] == [1, 1, 1, 1]
