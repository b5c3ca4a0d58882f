"""Trainings, studies and evaluations without the time that drawing takes.

Their pictures are made and written, blank; tests/reporting has those that look at pictures. A test
that looks at them here asks for `drawn`.
"""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

DRAW = FigureCanvasAgg.draw


def draw_nothing(canvas):
    """Leave a figure's canvas blank."""
    canvas.renderer = canvas.get_renderer()
    canvas.renderer.clear()


@pytest.fixture(scope="package", autouse=True)
def blank():
    """Draw nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FigureCanvasAgg, "draw", draw_nothing)
        yield


@pytest.fixture
def drawn(blank, monkeypatch):
    """Draw pictures as they are."""
    monkeypatch.setattr(FigureCanvasAgg, "draw", DRAW)
