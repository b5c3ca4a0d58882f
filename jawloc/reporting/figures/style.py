"""What all pictures share: colours that colour-blind readers can tell apart, sizes, PNG files."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from PIL import Image

from jawloc.scans.atomic import atomic_path
from jawloc.scans.manifest import record_file

Style = dict[str, Any]

WIDTH = 12.0  # inches
DOTS_PER_INCH = 100
STYLE: Any = {"font.size": 12, "axes.titlesize": 12, "legend.frameon": False}
ROUND = [1, 2, 5, 10]  # steps between ticks
LARGEST_FILE_BYTES = 400_000


class Colour(StrEnum):
    """Okabe and Ito's palette, which colour-blind readers can tell apart."""

    ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
    BLUE, VERMILION, PURPLE, BLACK = "#0072B2", "#D55E00", "#CC79A7", "#000000"


def blank_chart(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure of this size in inches, which finds the room for its labels."""
    return Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")


def label_log_axis(axis: Axis, steps: tuple[int, ...] = (1, 2, 5)) -> None:
    """Label a logarithmic axis with plain numbers, these multiples of powers of ten."""
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def figure_to_array(figure: Figure) -> np.ndarray:
    """Render a figure to an array of uint8, shape (rows, columns, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_figure(figure: Figure, path: Path) -> np.ndarray:
    """Write a figure as a small PNG, whole or not at all; return it as an array."""
    picture = figure_to_array(figure)
    write_png(picture, path)
    return picture


def write_png(picture: np.ndarray, path: Path) -> None:
    """Write a picture (uint8, shape (rows, columns, 3)) as a PNG of about 400 kB at most.

    A scan's noise hardly compresses; a large picture gets a palette, of ever fewer colours. That of
    maximum coverage keeps the few pixels of a marker.
    """
    reduced = image = Image.fromarray(picture)
    # bands of an eighth of its rows take about an eighth of its bytes
    bands = np.arange(len(picture)) % 64 < 8
    noisy = 8 * _encoded(Image.fromarray(picture[bands])).tell() > 2 * LARGEST_FILE_BYTES
    for colours in (256, 128, 64, 32) if noisy else (None, 256, 128, 64, 32):
        if colours is not None:
            method = Image.Quantize.MAXCOVERAGE
            reduced = image.quantize(colours, method, dither=Image.Dither.NONE)
        buffer = _encoded(reduced)
        if buffer.tell() <= LARGEST_FILE_BYTES:
            break
    record_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path, buffer.tell()) as temporary:
        temporary.write_bytes(buffer.getvalue())


def _encoded(image: Image.Image) -> io.BytesIO:
    buffer, dpi = io.BytesIO(), (DOTS_PER_INCH, DOTS_PER_INCH)
    image.save(buffer, "PNG", dpi=dpi, compress_level=3)  # 6: a tenth smaller, twice the time
    return buffer


def save_drawn(
    draw: Callable[[], Any],
    path: Path,
    size_inches: tuple[float, float],
    title: str,
    labels: Mapping[str, str],
    counts: Collection[str] = (),
) -> None:
    """Save what a library draws with pyplot, and leave pyplot as it was.

    `draw` returns axes, or an array of axes of one figure; `title` replaces the library's own, and
    `labels` some of the labels of its axes and legends. `counts` are the library's labels of axes
    with whole numbers.
    """
    import matplotlib.pyplot as plt

    known = set(plt.get_fignums())
    with rc_context():  # libraries have styles of their own
        try:
            axes = draw()
            figure: Any = (axes if isinstance(axes, Axes) else axes.flat[0]).figure
            figure.set_size_inches(size_inches)
            _tidy(figure, title, labels, counts)
            record_file(path)
            with atomic_path(path) as temporary:
                figure.savefig(temporary, dpi=DOTS_PER_INCH, bbox_inches="tight")
        finally:
            for number in set(plt.get_fignums()) - known:
                plt.close(number)


def _tidy(figure: Any, title: str, labels: Mapping[str, str], counts: Collection[str]) -> None:
    """Set a library's titles and labels, and colours that show on white."""
    for axes in figure.axes:
        for place in ("left", "center"):
            axes.set_title("", loc=place)
        x, y = axes.get_xlabel(), axes.get_ylabel()
        axes.set(xlabel=labels.get(x, x), ylabel=labels.get(y, y))
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log":
                label_log_axis(axis)
        if x in counts:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for text in axes.get_legend().get_texts() if axes.get_legend() is not None else ():
            text.set_text(labels.get(text.get_text(), text.get_text()))
        if axes.containers and axes.get_legend() is not None:  # one kind of bar needs no legend
            axes.get_legend().remove()
        for drawn in axes.collections:
            if drawn.get_array() is not None and not drawn.get_facecolors().size > 4 * 64:
                drawn.set_cmap("viridis")
    figure.suptitle(title, y=1.0)
