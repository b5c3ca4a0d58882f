"""The window in which a person decides about located positions, one after another."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import napari
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QShortcut

from jawloc.errors import InputError, one_line
from jawloc.geometry import Shape, Triple
from jawloc.inference.crop import CropBox, crop_box_around
from jawloc.scans.scan import ScanFile
from jawloc.viewer.bar import Action, Bar
from jawloc.viewer.blocks import Block, grey_limits, shows_detail
from jawloc.viewer.loading import Heatmap, Loader, Overview
from jawloc.viewer.views import DETAIL, HEATMAP, SCAN, Views
from jawloc.workflows.review_session import ReviewSession

ACTIONS = {
    "accept": Action("a", "accept", "The position is right, as found or as moved."),
    "place": Action(
        "m", "move", "Click where it is, in any slice; dragging the ring moves it too."
    ),
    "absent": Action("x", "not in this scan", "The scan does not show the object."),
    "skip": Action("s", "skip", "Nobody can tell."),
    "undo": Action("u", "undo", "Take the last decision back."),
    "next": Action("n", "next", "Decide nothing about this one now."),
    "back": Action("b", "back", "Look at the one before."),
    "heatmap": Action("h", "heatmap", "Show where the model expects the object."),
    "near": Action("f", "find", "Go back to the position."),
}
_POLL_MILLISECONDS = 30
DEFAULT_LENGTHS = (192, 192, 192)  # in voxels, looked at where there is no crop box
_NO_HEATMAP = "no heatmap: the results keep none; `jawloc review --model MODEL` computes it"


class ReviewWindow:
    """The window: what is shown follows the session, and the session what a person does."""

    def __init__(
        self, session: ReviewSession, heatmap: Heatmap | None = None, *, show: bool = True
    ) -> None:
        self.session = session
        self.viewer = napari.Viewer(title=f"jawloc review {session.folder}", show=show)
        self.views = Views(self.viewer, self._moved)
        self.bar = Bar(ACTIONS)
        self.loader = Loader(heatmap)
        self.scan: ScanFile | None = None
        self._detail: Block | None = None
        self._crop_size: Shape | None = None
        self._limits: tuple[float, float] | None = None
        self._pending: dict[str, tuple[Future[Any], Callable[[Any], None]]] = {}
        self._shown_place: tuple[int, str] | None = None
        self._lay_out()
        self._timer = QTimer(self.viewer.window._qt_window)
        self._timer.timeout.connect(self.poll)
        self._timer.start(_POLL_MILLISECONDS)
        self.refresh()

    def _lay_out(self) -> None:
        window = self.viewer.window
        window.add_dock_widget(self.bar, name="review", area="bottom")
        frame = window._qt_window
        for name, action in ACTIONS.items():
            self.bar.buttons[name].clicked.connect(lambda _=False, n=name: self.do(n))
            # of the whole window, wherever the focus is: the canvases have keys of their own
            shortcut = QShortcut(QKeySequence(action.key.upper()), frame)
            shortcut.setContext(Qt.ShortcutContext.WindowShortcut)
            shortcut.activated.connect(lambda n=name: self.do(n))
        frame.destroyed.connect(lambda *_: self.close())

    def do(self, name: str) -> None:
        """Do what a key or a button asks for."""
        if self.views.dragging:  # what is let go belongs to the row that it was taken in
            return
        own = {"place": self._place, "heatmap": self._show_heatmap, "near": self._look}
        try:
            if name in own:
                own[name]()
            else:
                if name == "undo" and not self.session.undo():
                    self.bar.said.setText("nothing to undo")
                    return
                if name != "undo":
                    getattr(self.session, name)()
                self.refresh()
        except (InputError, OSError) as error:
            self.bar.said.setText(one_line(error))

    def refresh(self) -> None:
        """Show what the session looks at."""
        row = self.session.row
        self._placing(False)
        self._describe()
        shown = (self.session.place, row.path)
        if shown == self._shown_place:
            self._mark()
            if (point := self.session.position_voxels_zyx) is not None:
                self.views.follow(point)
            return
        self._shown_place = shown
        self.scan = self._detail = self._limits = None
        self._pending.clear()
        self.views.clear()
        self.bar.said.setText("opening ...")
        self._await("scan", self.loader.scan(row.path), self._opened)

    def _describe(self) -> None:
        session, row = self.session, self.session.row
        parts = [row.scan, row.object, row.status, row.reason]
        if row.radius_voxels is not None:
            mm = "" if row.radius_mm is None else f", {row.radius_mm:.2f} mm"
            parts.append(f"radius {row.radius_voxels:.0f} voxels{mm}")
        if session.decision is not None:
            parts.append(f"decided: {session.decision.verdict}")
        text = " · ".join(part for part in parts if part)
        self.bar.title.setText(" ".join(text.split()))  # a reason may have several lines
        self.bar.show_left(session.left, len(session.order))

    # --- what is read meanwhile ---------------------------------------------------------------

    def _await(self, what: str, future: Future[Any], then: Callable[[Any], None]) -> None:
        self._pending[what] = future, then

    def poll(self) -> None:
        """Show what has been read since."""
        for what, (future, then) in list(self._pending.items()):
            if not future.done() or self._pending.get(what, (None,))[0] is not future:
                continue
            del self._pending[what]
            try:
                then(future.result())
            except Exception as error:  # of a damaged scan: the person may still decide
                self.bar.said.setText(f"it can't be shown: {one_line(error)}")

    @property
    def is_reading(self) -> bool:
        """Return whether something is still being read for the view."""
        return bool(self._pending)

    def _opened(self, scan: ScanFile) -> None:
        self.scan = scan
        self._crop_size = self.session.crop_size
        self.views.begin(scan.grid.spacing_mm_zyx or (1.0, 1.0, 1.0))
        middle = tuple((n - 1) / 2 for n in scan.grid.shape_zyx)
        point = self.session.position_voxels_zyx or middle
        self._await("detail", self.loader.detail(scan, point), self._show_detail)

    def _show_detail(self, block: Block) -> None:
        if self.scan is None:
            return
        first = self._detail is None
        self._detail = block
        self._limits = self._limits or grey_limits(block.image)
        self.views.show(DETAIL, block, contrast_limits=self._limits)
        if first:
            self._mark()
            self._look()
            self.bar.said.setText("reading the whole scan ...")
            path = self.session.row.path
            self._await("overview", self.loader.overview(path), self._show_overview)

    def _show_overview(self, overview: Overview) -> None:
        self.views.show(SCAN, overview.sliced, contrast_limits=self._limits)
        self.views.show(SCAN, overview.projected, projected=True)
        self._mark()
        self.views.look_from_afar()
        self.bar.said.setText("")
        if (upcoming := self.session.upcoming) is not None:  # while this one is looked at
            self.loader.overview(upcoming.path)

    # --- position -----------------------------------------------------------------------------

    def _mark(self, at: Triple | None = None) -> None:
        if self.scan is None or self._detail is None:
            return
        row, point = self.session.row, at or self.session.position_voxels_zyx
        verdict = None if self.session.decision is None else self.session.decision.verdict
        if verdict == "absent" and at is None:
            point = None
        in_mm = self.scan.grid.spacing_mm_zyx is not None
        radius = row.radius_mm if in_mm else row.radius_voxels
        self.views.mark(point, radius, None if point is None else self._window(point))

    def _window(self, point: Triple) -> CropBox | None:
        """Return the crop box: of the results, or round where the position was moved to."""
        if self._crop_size is None or self.scan is None:
            return None
        return crop_box_around(point, self._crop_size, self.scan.grid.shape_zyx)

    def _look(self) -> None:
        if self.scan is not None and self._detail is not None:
            shape = self.scan.grid.shape_zyx
            middle = tuple((n - 1) / 2 for n in shape)
            lengths = [
                min(pair) for pair in zip(self._crop_size or DEFAULT_LENGTHS, shape, strict=True)
            ]
            self.views.look_at(self.session.position_voxels_zyx or middle, lengths)

    def _place(self) -> None:
        self._placing(not self.views.placing)

    def _placing(self, on: bool) -> None:
        self.views.placing = on
        self.bar.buttons["place"].setDown(on)
        self.bar.said.setText("click where it is, in any slice" if on else "")

    def _moved(self, position: Triple, released: bool) -> None:
        """Follow the mouse; where it is released, that is the decision."""
        if self.scan is None:
            return
        shape = self.scan.grid.shape_zyx
        z, y, x = (min(max(value, 0.0), n - 1.0) for value, n in zip(position, shape, strict=True))
        inside: Triple = (z, y, x)
        if not released:
            self._mark(inside)
            return
        try:
            self.session.move(inside)
        except (InputError, OSError) as error:
            self.bar.said.setText(one_line(error))
            return
        self.refresh()
        if self._detail is not None and not shows_detail(self._detail, shape, inside):
            self._await("detail", self.loader.detail(self.scan, inside), self._show_detail)

    def _show_heatmap(self) -> None:
        name = self.session.row.object
        if self.scan is None or name is None:
            return
        future = self.loader.heatmap(self.scan, name)
        if future is None:
            self.bar.said.setText(_NO_HEATMAP)
            return
        self.bar.said.setText("computing the heatmap ...")
        self._await("heatmap", future, self._heatmap_computed)

    def _heatmap_computed(self, block: Block) -> None:
        about: dict[str, Any] = {
            "colormap": "magma",
            "blending": "additive",
            "opacity": 0.6,
            "contrast_limits": (0.0, max(float(block.image.max()), 1e-12)),
        }
        self.views.show(HEATMAP, block, **about)
        self.views.show(HEATMAP, block, projected=True, **about)
        self.bar.said.setText("")

    def close(self) -> None:
        """End what is read in the background."""
        self.loader.close()


def review_in_napari(session: ReviewSession, heatmap: Heatmap | None = None) -> None:
    """Open the window, and return when it has been closed."""
    with session.alone():
        window = ReviewWindow(session, heatmap)
        napari.run()
        window.close()
