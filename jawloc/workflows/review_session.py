"""Deciding about located positions one after another, the most doubtful first.

Each decision is in review.csv before the next one is asked for, so a crash loses none. Whatever
shows the scans (`jawloc.viewer`) only asks this session what to show, and tells it what a person
decided.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout

from jawloc.errors import InputError
from jawloc.geometry import Shape, Triple
from jawloc.inference.exports import Row
from jawloc.inference.quantities import counted
from jawloc.reporting.location_files import read_locations
from jawloc.reporting.location_text import by_doubt
from jawloc.reporting.review_sheet import match_reviews
from jawloc.scans.locks import locked
from jawloc.scans.points.review import (
    REVIEW,
    WITH_POSITION,
    Review,
    Verdict,
    read_review,
    review_cells,
    review_text,
    time_of_review,
    write_review,
)
from jawloc.scans.reading import open_scan
from jawloc.scans.text_input import read_text

_LOCK, _PATIENCE_SECONDS = ".review.lock", 1.0


class ReviewSession:
    """Which position is looked at, and what was decided about each.

    Parameters
    ----------
    place : a folder of results of `jawloc locate`, or its locations.csv
    reviewer : who decides

    Raises
    ------
    InputError
        If there are no such results, or review.csv is no review. So may each decision, and
        `undo`, where somebody has replaced the file meanwhile.
    """

    def __init__(self, place: Path, reviewer: str = "") -> None:
        self.folder, self._table = read_locations(place)
        self.file, self.reviewer = self.folder / REVIEW, reviewer
        numbers = {id(row): number for number, row in enumerate(self._table)}
        self.order = tuple(numbers[id(row)] for row in by_doubt(self._table))
        self._undo: list[tuple[int, int, Review | None]] = []  # place, row, decision before
        self._begin()

    def __str__(self) -> str:
        total = len(self.order)
        return f"{total - self.left} of {counted(total, 'position')} decided about: {self.file}"

    def _begin(self) -> None:
        """Read the decisions that are there, and look at the first row without one."""
        self._content = self._on_disk()
        reviews = () if self._content is None else read_review(self.file)
        earlier = match_reviews(self.folder, self._table, reviews)
        self._decisions, self._others = dict(earlier.of_rows), earlier.others
        self.note = earlier.note  # of decisions that aren't shown
        self.place = next(self._undecided_from(0), 0)

    def _on_disk(self) -> str | None:
        """Return what the file holds; None where there is none, InputError if it isn't readable."""
        try:
            return read_text(self.file, "a review", errors="surrogateescape")
        except FileNotFoundError:
            return None
        except OSError as error:
            rule = f"{self.file}: a review must be readable; {error.strerror}"
            raise InputError(rule) from error

    def _take_over(self) -> None:
        """Take over the file where somebody else has replaced it: with what a page saved, say.

        What it says otherwise about a row can't be undone here.
        """
        content = self._on_disk()
        if content in (self._content, None):  # a file that was removed is written again
            return
        now = match_reviews(self.folder, self._table, read_review(self.file))
        own, theirs = (
            {number: review_cells(review) for number, review in of_rows.items()}
            for of_rows in (self._decisions, now.of_rows)
        )
        self._undo = [done for done in self._undo if own.get(done[1]) == theirs.get(done[1])]
        self._decisions, self._others = dict(now.of_rows), now.others
        self._content = content

    @property
    def row(self) -> Row:
        """Return the row of the table that is looked at."""
        return self._table[self.order[self.place]]

    @property
    def upcoming(self) -> Row | None:
        """Return the row that a decision leads to; None after the last."""
        place = next(self._undecided_from(self.place + 1), None)
        return None if place is None or place == self.place else self._table[self.order[place]]

    @property
    def decision(self) -> Review | None:
        """Return what was decided about the row that is looked at."""
        return self._decisions.get(self.order[self.place])

    @property
    def left(self) -> int:
        """Return how many rows nobody has decided about."""
        return len(self.order) - len(self._decisions)

    @property
    def crop_size(self) -> Shape | None:
        """Return the crop's size in voxels (z, y, x); None where there is no crop to be read."""
        if self.row.crop_file is None:
            return None
        try:
            return open_scan(self.folder / self.row.crop_file).grid.shape_zyx
        except (InputError, OSError):
            return None

    @property
    def position_voxels_zyx(self) -> Triple | None:
        """Return where the object is: as somebody corrected it, or else as it was found."""
        if self.decision is not None and self.decision.position_voxels_zyx is not None:
            return self.decision.position_voxels_zyx
        return found_position(self.row)

    def accept(self) -> None:
        """Decide that the position is right, as it was found or as it was moved, and go on."""
        if self.decision is None or self.decision.verdict != "moved":
            position = found_position(self.row)
            if position is None:
                raise InputError(f"{self.row.scan}: a position must be found to be accepted")
            self._decide("accepted", position)
        self.go_on()

    def move(self, position_voxels_zyx: Triple) -> None:
        """Decide that the object is somewhere else, and stay: it may be moved once more."""
        if self.row.object is None:
            raise InputError(f"{self.row.scan}: a scan that failed has no object to be moved")
        self._decide("moved", position_voxels_zyx)

    def absent(self) -> None:
        """Decide that the scan does not show the object, and go on."""
        self._decide("absent", None)
        self.go_on()

    def skip(self) -> None:
        """Decide that nobody can tell, and go on."""
        self._decide("skipped", None)
        self.go_on()

    def undo(self) -> bool:
        """Take the last decision back, and look at its row; return whether there was one."""
        self._take_over()
        if not self._undo:
            return False
        place, number, before = self._undo[-1]
        self._save({k: v for k, v in self._decisions.items() if k != number}, number, before)
        self._undo.pop()
        self.place = place
        return True

    def next(self) -> None:
        """Look at the next row; stay at the last."""
        self.place = min(self.place + 1, len(self.order) - 1)

    def back(self) -> None:
        """Look at the row before; stay at the first."""
        self.place = max(self.place - 1, 0)

    def go_on(self) -> None:
        """Look at the next row that nobody has decided about; without one, at the next."""
        self.place = next(
            self._undecided_from(self.place + 1), min(self.place + 1, len(self.order) - 1)
        )

    def _undecided_from(self, start: int) -> Iterator[int]:
        """Yield the places of undecided rows, from one on and then from the first on."""
        count = len(self.order)
        for place in (*range(start, count), *range(min(start, count))):
            if self.order[place] not in self._decisions:
                yield place

    def _decide(self, verdict: Verdict, position: Triple | None) -> None:
        self._take_over()
        row, number = self.row, self.order[self.place]
        at = position if verdict in WITH_POSITION else None
        about = (self.reviewer, time_of_review(), row.model, row.path)
        before = self._decisions.get(number)
        self._save(self._decisions, number, Review(row.scan, row.object, verdict, at, *about))
        self._undo.append((self.place, number, before))

    def _save(self, decisions: dict[int, Review], number: int, decision: Review | None) -> None:
        """Write all decisions, with another one about a row; only then they count."""
        after = decisions | ({number: decision} if decision is not None else {})
        decided = {(review.scan, review.object) for review in after.values()}
        # of the same name in another file, this one takes the place: a review decides once
        others = [one for one in self._others if (one.scan, one.object) not in decided]
        reviews = [*(after[n] for n in sorted(after)), *others]
        write_review(self.file, reviews)
        # what was written, not what is there by now: somebody may have replaced it since
        self._decisions, self._content = after, review_text(reviews)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others from deciding in this folder at the same time; InputError if one does."""
        try:
            with locked(self.folder / _LOCK, _PATIENCE_SECONDS):
                self._begin()  # somebody may have decided since this session read the file
                yield
        except Timeout:
            raise InputError(
                f"{self.folder}: one `jawloc review` at a time may decide about results; another "
                f"one is open"
            ) from None


def found_position(row: Row) -> Triple | None:
    """Return the position (z, y, x) that a row has in voxels."""
    if row.z_voxels is None or row.y_voxels is None or row.x_voxels is None:
        return None
    return row.z_voxels, row.y_voxels, row.x_voxels
