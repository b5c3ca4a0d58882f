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
from jawloc.viewer.marks import (
    BALL,
    BOX_COLOUR,
    NO_BALL,
    OUTLINES,
    POINT,
    RADIUS_COLOUR,
    add_mark_layers,
    draw_lines,
)
from jawloc.viewer.outlines import box_edges, box_in_slice, circle_in_slice, sphere

SCAN, DETAIL, HEATMAP = "scan", "full detail", "heatmap"
_LAYERS = (SCAN, DETAIL, HEATMAP, OUTLINES, BALL, POINT)  # from below
_ORDERS = ((0, 1, 2), (1, 0, 2), (2, 0, 1))  # across z, y, x; the last two are shown
_NEAR_PIXELS = 12  # of a press that takes hold of the position
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
        self.dragging = False  # whether the mouse holds the position
        self._on_move, self._spacing = on_move, (1.0, 1.0, 1.0)
        self._point: np.ndarray | None = None
        self._radius: float | None = None
        self._window: CropBox | None = None
        self._marks: tuple[object, ...] = (None, None, None)
        self._is_moving, self._is_cleared = False, False
        self._visible: dict[tuple[str, bool], bool] = {}  # of layers, as the person left them
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

    def clear(self) -> None:
        """Show nothing until `begin`; layers stay, since making them takes a second."""
        for model in self.all:
            if HEATMAP in model.layers:
                model.layers.remove(HEATMAP)
        if not self._is_cleared:
            self._visible = {key: layer.visible for key, layer in self._images()}
        self._is_cleared = True
        for _, layer in self._images():
            layer.visible = False
        self.mark(None, None, None)

    def begin(self, spacing: Triple) -> None:
        """Begin with a scan of this voxel size."""
        self._is_cleared = False
        self._spacing = spacing
        for model in self.all:
            for layer in model.layers:
                if layer.name in (OUTLINES, BALL, POINT):
                    _change(layer, "scale", spacing)

    def _images(self) -> Iterator[tuple[tuple[str, bool], Any]]:
        """Yield layers of grey values; those in the other slices are linked to these."""
        for name, projected in ((SCAN, False), (DETAIL, False), (SCAN, True)):
            model = self.space if projected else self.slices[0]
            if name in model.layers:
                yield (name, projected), model.layers[name]

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
                    _change(layer, key, value)
            models[0].layers[name].visible = self._visible.get((name, projected), True)
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
        before, marks = self._marks, (None if point is None else tuple(point), radius, window)
        self._marks, self._point = marks, None if point is None else np.asarray(point, float)
        self._radius, self._window = radius, window
        new = [model for model in self.all if model.layers and POINT not in model.layers]
        for model in new:
            add_mark_layers(model, self._spacing, in_space=model is self.space)
        for model in self.all if marks != before else new:
            self._update_marks(model)

    def _update_marks(self, model: Any) -> None:
        if POINT not in model.layers:
            return
        at = np.empty((0, 3)) if self._point is None else self._point[None]
        model.layers[POINT].data = at
        if model is self.space:
            self._mark_space()
        else:
            self._outline(self.slices.index(model))

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
        draw_lines(
            model, self._spacing, [(lines, colour) for lines, colour in found if lines is not None]
        )

    def _mark_space(self) -> None:
        if OUTLINES not in self.space.layers:
            return
        edges = [] if self._window is None else box_edges(self._window)
        boxed = [(edge, BOX_COLOUR) for edge in edges]
        draw_lines(self.space, self._spacing, boxed, "line")
        mesh = NO_BALL
        if self._point is not None and self._radius is not None:
            mesh = sphere(self._point, self._radius, self._spacing)
        self.space.layers[BALL].data = mesh

    def look_at(self, point: Sequence[float], lengths_voxels: Sequence[float]) -> None:
        """Show the slices through a position, and so much round it along each axis."""
        world = np.asarray(point) * self._spacing
        lengths = np.asarray(lengths_voxels) * self._spacing * _MARGIN
        for number, (model, order) in enumerate(zip(self.slices, _ORDERS, strict=True)):
            if model.dims.ndim == 3:
                self._frame(number, world[list(order[1:])], lengths[list(order[1:])])
        self.follow(point)

    def look_from_afar(self) -> None:
        """Show all of the scan in space."""
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
        self.dragging = True
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
            self.dragging, model.camera.mouse_pan = False, pans

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


def _change(layer: Any, key: str, value: Any) -> None:
    """Set what is different: each change is drawn anew in all views."""
    if not np.array_equal(getattr(layer, key), value):
        setattr(layer, key, value)
