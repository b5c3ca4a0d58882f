"""The layers that mark a position in a view: a ring, and the lines of its radius and crop box."""

from __future__ import annotations

from typing import Any

import numpy as np

from jawloc.geometry import Triple

POINT, OUTLINES, BALL = "position", "radius and crop", "radius"
BOX_COLOUR, RADIUS_COLOUR, POINT_COLOUR = "#56b4e9", "#f0e442", "#d55e00"
NO_BALL = np.zeros((3, 3)), np.array([[0, 1, 2]])
_LINE_PIXELS = 1.8
_POINT_PIXELS, _POINT_PIXELS_IN_SPACE = 14, 8


def add_mark_layers(model: Any, spacing: Triple, *, in_space: bool) -> None:
    """Add the layers, empty, above those of a view."""
    active = model.layers.selection.active
    pixels = _POINT_PIXELS_IN_SPACE if in_space else _POINT_PIXELS
    model.add_shapes(ndim=3, name=OUTLINES, scale=spacing, opacity=1)
    if in_space:
        model.add_surface(
            NO_BALL,
            name=BALL,
            scale=spacing,
            opacity=0.35,
            colormap="yellow",
            shading="smooth",
            blending="translucent_no_depth",
        )
    model.add_points(
        ndim=3,
        name=POINT,
        scale=spacing,
        size=6,
        symbol="disc",
        face_color="#0000",  # what it marks stays visible
        border_color=POINT_COLOUR,
        border_width=0.12,
        canvas_size_limits=(pixels, pixels),
        blending="translucent_no_depth",
    )
    model.layers.selection.active = active


def draw_lines(
    model: Any, spacing: Triple, lines: list[tuple[np.ndarray, str]], kind: str = "polygon"
) -> None:
    """Draw lines (n, 3), each with its colour, in place of the earlier ones of a view."""
    layer = model.layers[OUTLINES]
    layer.data = []
    if lines:
        shapes, colours = (list(each) for each in zip(*lines, strict=True))
        width = _LINE_PIXELS / (model.camera.zoom * min(spacing))
        layer.add(shapes, shape_type=kind, edge_width=width, edge_color=colours, face_color="#0000")
