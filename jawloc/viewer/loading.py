"""Reads scans beside the window that shows them: the next one while a person looks at this one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jawloc.scans.reading import open_scan
from jawloc.scans.scan import ScanFile
from jawloc.viewer.blocks import Block, read_detail, read_overview, read_projected, spanning_block

KEPT = 3  # scans whose overviews stay in memory

# of an opened scan and an object's name, where the model expects the object, (z, y, x) on a grid
# of its own that spans the scan
Heatmap = Callable[[ScanFile, str], np.ndarray]


@dataclass(frozen=True)
class Overview:
    """All of a scan, coarsely: for slices, and more coarsely for a projection."""

    sliced: Block
    projected: Block


class Loader:
    """Opens scans and reads their blocks, each in a thread, and keeps the last few."""

    def __init__(self, heatmap: Heatmap | None = None) -> None:
        # so that full detail need not wait until a whole scan has been averaged
        self._near, self._far = (ThreadPoolExecutor(1, name) for name in ("near", "far"))
        self._scans: OrderedDict[str, Future[ScanFile]] = OrderedDict()
        self._overviews: OrderedDict[str, Future[Overview]] = OrderedDict()
        self._heatmap = heatmap

    def scan(self, path: str) -> Future[ScanFile]:
        """Open a scan."""
        return _kept(self._scans, path, lambda: self._near.submit(open_scan, Path(path)))

    def detail(self, scan: ScanFile, point_voxels: Sequence[float]) -> Future[Block]:
        """Read full detail round a point."""
        return self._near.submit(read_detail, scan, point_voxels)

    def overview(self, path: str) -> Future[Overview]:
        """Read a whole scan coarsely."""
        opened = self.scan(path)

        def read() -> Overview:
            scan = opened.result()
            sliced = read_overview(scan)
            return Overview(sliced, read_projected(sliced, scan))

        return _kept(self._overviews, path, lambda: self._far.submit(read))

    def heatmap(self, scan: ScanFile, object_name: str) -> Future[Block] | None:
        """Compute an object's heatmap; None where no model was named."""
        compute = self._heatmap
        if compute is None:
            return None
        return self._far.submit(lambda: spanning_block(compute(scan, object_name), scan.grid))

    def close(self) -> None:
        """End the threads, at the end of what they are reading."""
        for executor in (self._near, self._far):
            executor.shutdown(wait=False, cancel_futures=True)


def _kept(known: OrderedDict, path: str, begin: Callable[[], Future]) -> Future:
    """Return what is known of a path, or begin it, anew where it failed; the last ones stay."""
    before = known.get(path)
    if before is None or (before.done() and (before.cancelled() or before.exception())):
        known[path] = begin()
    known.move_to_end(path)
    while len(known) > KEPT:
        known.popitem(last=False)[1].cancel()
    return known[path]
