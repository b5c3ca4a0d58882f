"""Four views of one scan in napari: three orthogonal slices, and the projection in space.

napari's own canvas shows the slices across z, three more canvases beside it the others. Each has
layers of its own on the same arrays; all have the scan's voxels times their size as coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import napari
import numpy as np
from napari.components import ViewerModel
from napari.experimental import link_layers
from napari.qt import QtViewer
from qtpy.QtWidgets import QGridLayout, QWidget

from jawloc.geometry import Triple
from jawloc.inference.crop import CropBox
from jawloc.viewer.blocks import Block, grey_limits
from jawloc.viewer.outlines import ball, box_edges, box_in_slice, circle_in_slice

SCAN, DETAIL, HEATMAP, POINT = "scan", "full detail", "heatmap", "position"
OUTLINES, BALL = "radius and crop", "radius"
_LAYERS = (SCAN, DETAIL, HEATMAP, OUTLINES, BALL, POINT)  # from below
BOX_COLOUR, RADIUS_COLOUR, POINT_COLOUR = "#56b4e9", "#f0e442", "#d55e00"
_ORDERS = ((0, 1, 2), (1, 0, 2), (2, 0, 1))  # across z, y, x; the last two are shown
_NEAR_PIXELS = 12  # of a press that takes hold of the position
_POINT_PIXELS, _POINT_PIXELS_IN_SPACE = 14, 8
_LINE_PIXELS = 1.8
_NOTHING = np.zeros((2, 2, 2), np.uint8)
_NO_BALL = np.zeros((3, 3)), np.array([[0, 1, 2]])
_MARGIN = 1.4  # of what is shown at first: this times the crop box
_FROM = (0.3, 1.0, 0.35)  # (z, y, x): across y, a little turned; z points down as in the slices
_MARGIN_IN_SPACE = 1.15
_LINKED = ("visible", "opacity", "contrast_limits", "gamma", "colormap")


class Views:
    """The four views.

    Parameters
    ----------
    viewer : napari's viewer, for the slices across z
    on_move : called with a position in voxels, and whether the mouse button was released there
    """

    def __init__(self, viewer: napari.Viewer, on_move: Callable[[Triple, bool], None]) -> None:
        self.slices = [viewer, ViewerModel(), ViewerModel()]
        self.space = ViewerModel()
        self.placing = False  # whether a click anywhere moves the position
        self._on_move, self._spacing = on_move, (1.0, 1.0, 1.0)
        self._point: np.ndarray | None = None
        self._radius: float | None = None
        self._window: CropBox | None = None
        self._is_moving = False
        self._canvases = [viewer.window._qt_viewer, *map(QtViewer, self.all[1:])]
        self._lay_out(viewer.window._qt_window.centralWidget())
        for number, model in enumerate(self.slices):
            model.mouse_drag_callbacks.append(self._drag)
            model.dims.events.point.connect(lambda _, n=number: self._outline(n))

    def _lay_out(self, centre: QWidget) -> None:
        """Put the canvases where napari has its only one: two by two."""
        grid = QGridLayout()
        for number, canvas in enumerate(self._canvases):
            canvas.setAcceptDrops(number == 0)
            grid.addWidget(canvas, number // 2, number % 2)
        for number in range(2):
            grid.setRowStretch(number, 1)
            grid.setColumnStretch(number, 1)
        centre.layout().addLayout(grid)

    @property
    def all(self) -> list[Any]:
        """Return every view's model."""
        return [*self.slices, self.space]

    def clear(self, spacing: Triple) -> None:
        """Begin with a scan of this voxel size; layers stay, since making them takes a second."""
        self._point = self._radius = self._window = None
        self._spacing = spacing
        with self._moving():
            for model in self.all:
                if HEATMAP in model.layers:
                    model.layers.remove(HEATMAP)
                for name in {SCAN, DETAIL}.intersection(layer.name for layer in model.layers):
                    model.layers[name].data = _NOTHING
                for name in {OUTLINES, BALL, POINT}.intersection(
                    layer.name for layer in model.layers
                ):
                    if not np.array_equal(model.layers[name].scale, spacing):
                        model.layers[name].scale = spacing
            self._update_marks()

    @contextmanager
    def _moving(self) -> Iterator[None]:
        """Draw outlines once at the end, not at each step of a slider and a layer."""
        self._is_moving = True
        try:
            yield
        finally:
            self._is_moving = False
        for number in range(len(self.slices)):
            self._outline(number)

    def show(self, name: str, block: Block, *, projected: bool = False, **about: Any) -> None:
        """Show a block in the slices, or in space, in place of an earlier one of this name."""
        spacing = np.asarray(self._spacing)
        about["scale"] = spacing * block.step_voxels
        about["translate"] = spacing * block.start_voxels
        about.setdefault("contrast_limits", grey_limits(block.image))
        models = [self.space] if projected else self.slices
        if name in models[0].layers:
            for model in models:
                layer = model.layers[name]
                layer.data = block.image
                for key, value in about.items():
                    setattr(layer, key, value)
            return
        rendering = {"rendering": "mip"} if projected else {}
        layers = [self._add(model, name, block, about | rendering) for model in models]
        if len(layers) > 1:
            link_layers(layers, _LINKED)

    def _add(self, model: Any, name: str, block: Block, about: dict[str, Any]) -> Any:
        layer = model.add_image(block.image, name=name, **about)
        model.layers.move(len(model.layers) - 1, self._rank(model, name))
        if model is self.space:
            model.dims.ndisplay = 3
        else:  # at once, since shapes are made for the axes that are shown
            model.dims.order = _ORDERS[self.slices.index(model)]
        return layer

    @staticmethod
    def _rank(model: Any, name: str) -> int:
        return sum(_LAYERS.index(layer.name) < _LAYERS.index(name) for layer in model.layers)

    def mark(
        self, point: Sequence[float] | None, radius: float | None, window: CropBox | None
    ) -> None:
        """Show a position, its radius (in the unit of the voxel size) and its crop box."""
        self._point = None if point is None else np.asarray(point, float)
        self._radius, self._window = radius, window
        for model in self.all:
            if model.layers and POINT not in model.layers:
                self._add_marks(model)
        self._update_marks()

    def _add_marks(self, model: Any) -> None:
        active, scale = model.layers.selection.active, self._spacing
        pixels = _POINT_PIXELS_IN_SPACE if model is self.space else _POINT_PIXELS
        model.add_shapes(ndim=3, name=OUTLINES, scale=scale, opacity=1)
        if model is self.space:
            model.add_surface(
                _NO_BALL,
                name=BALL,
                scale=scale,
                opacity=0.35,
                colormap="yellow",
                shading="smooth",
                blending="translucent_no_depth",
            )
        model.add_points(
            ndim=3,
            name=POINT,
            scale=scale,
            size=6,
            symbol="disc",
            face_color="#0000",  # what it marks stays visible
            border_color=POINT_COLOUR,
            border_width=0.12,
            canvas_size_limits=(pixels, pixels),
            blending="translucent_no_depth",
        )
        model.layers.selection.active = active

    def _update_marks(self) -> None:
        for model in self.all:
            if POINT in model.layers:
                model.layers[POINT].data = (
                    np.empty((0, 3)) if self._point is None else [self._point]
                )
        for number in range(len(self.slices)):
            self._outline(number)
        self._mark_space()

    def _outline(self, number: int) -> None:
        """Draw circle and box of one view's slice."""
        model, axis = self.slices[number], _ORDERS[number][0]
        if self._is_moving or OUTLINES not in model.layers:
            return
        at, found = model.dims.point[axis] / self._spacing[axis], []
        if self._window is not None:
            found.append((box_in_slice(self._window, axis, at), BOX_COLOUR))
        if self._radius is not None and self._point is not None:
            outline = circle_in_slice(self._point, self._radius, self._spacing, axis, at)
            found.append((outline, RADIUS_COLOUR))
        self._draw(model, [(lines, colour) for lines, colour in found if lines is not None])

    def _mark_space(self) -> None:
        if OUTLINES not in self.space.layers:
            return
        edges = [] if self._window is None else box_edges(self._window)
        self._draw(self.space, [(edge, BOX_COLOUR) for edge in edges], "line")
        mesh = _NO_BALL
        if self._point is not None and self._radius is not None:
            mesh = ball(self._point, self._radius, self._spacing)
        self.space.layers[BALL].data = mesh

    def _draw(
        self, model: Any, shapes: list[tuple[np.ndarray, str]], kind: str = "polygon"
    ) -> None:
        layer = model.layers[OUTLINES]
        layer.data = []
        if shapes:
            lines, colours = (list(each) for each in zip(*shapes, strict=True))
            width = _LINE_PIXELS / (model.camera.zoom * min(self._spacing))
            layer.add(
                lines, shape_type=kind, edge_width=width, edge_color=colours, face_color="#0000"
            )

    def look_at(self, point: Sequence[float], lengths_voxels: Sequence[float]) -> None:
        """Show the slices through a position, and so much round it along each axis."""
        world = np.asarray(point) * self._spacing
        lengths = np.asarray(lengths_voxels) * self._spacing * _MARGIN
        for number, (model, order) in enumerate(zip(self.slices, _ORDERS, strict=True)):
            if model.dims.ndim == 3:
                self._frame(number, world[list(order[1:])], lengths[list(order[1:])])
        self.follow(point)
        if SCAN in self.space.layers:
            layer = self.space.layers[SCAN]
            self.space.reset_view(layers=[layer])
            self.space.camera.set_view_direction(_FROM, (-1.0, 0.0, 0.0))
            tall, *wide = np.diff(layer.extent.world, axis=0)[0]
            height, width = self._canvases[-1].canvas.size
            self.space.camera.zoom = min(height / tall, width / max(wide)) / _MARGIN_IN_SPACE
            self._mark_space()

    def _frame(self, number: int, centre: np.ndarray, lengths: np.ndarray) -> None:
        height, width = self._canvases[number].canvas.size
        camera = self.slices[number].camera
        camera.center = (0.0, *centre)
        camera.zoom = min(height / lengths[0], width / lengths[1])

    def follow(self, point: Sequence[float]) -> None:
        """Show the slices through a position, from where they are looked at."""
        with self._moving():
            for model in self.slices:
                if model.dims.ndim == 3:
                    model.dims.set_point(range(3), np.asarray(point) * self._spacing)

    def _drag(self, model: Any, event: Any) -> Iterator[None]:
        """Move the position with the mouse: from near it, or, while placing, from anywhere."""
        axes = list(model.dims.displayed)
        if event.button != 1 or len(axes) != 2 or (self._point is None and not self.placing):
            return
        if not (self.placing or self._is_near(model, event, axes)):
            return
        pans, model.camera.mouse_pan = model.camera.mouse_pan, False
        try:
            yield
            moved = self.placing
            while event.type == "mouse_move":
                moved = True
                self._on_move(self._position(event, axes), False)
                yield
            if moved:
                self._on_move(self._position(event, axes), True)
        finally:
            model.camera.mouse_pan = pans

    def _is_near(self, model: Any, event: Any, axes: list[int]) -> bool:
        assert self._point is not None
        away = (np.asarray(event.position) - self._point * self._spacing)[axes]
        return float(np.hypot(*away)) * model.camera.zoom <= _NEAR_PIXELS

    def _position(self, event: Any, axes: list[int]) -> Triple:
        """Return where the mouse is, in voxels; across the slice, where the position was."""
        voxels = np.asarray(event.position) / self._spacing
        if self._point is not None and not self.placing:
            across = next(axis for axis in range(3) if axis not in axes)
            voxels[across] = self._point[across]
        z, y, x = voxels.tolist()
        return z, y, x
