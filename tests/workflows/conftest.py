"""Trainings, studies and evaluations without the time that drawing takes.

Their pictures are made and written, blank; tests/reporting has those that look at pictures. A test
that looks at them here asks for `drawn`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

DRAW = FigureCanvasAgg.draw


def draw_nothing(canvas: FigureCanvasAgg) -> None:
    """Leave a figure's canvas blank."""
    canvas.renderer = canvas.get_renderer()
    canvas.renderer.clear()


@contextmanager
def drawing(draw=DRAW) -> Iterator[None]:
    """Draw pictures as they are, or with another function."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FigureCanvasAgg, "draw", draw)
        yield


@pytest.fixture(scope="package", autouse=True)
def blank():
    """Draw nothing."""
    with drawing(draw_nothing):
        yield


@pytest.fixture
def drawn(blank):
    """Draw pictures as they are."""
    with drawing():
        yield
