"""Locate the objects in many scans: from their files to positions, crops and pictures.

A scan that can't be read is a row of the table that says why. A result that can't be written ends
the work, with everything written so far in order. While the objects of one scan are found and
written, a thread reads the next scan.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

from jawloc.inference.exports import FAILED, Row, failed_row
from jawloc.reporting.folders.own_files import own_names, refuse_foreign
from jawloc.reporting.folders.run_folder import is_run_folder, locked_output_folder
from jawloc.reporting.location_files import (
    CONTACT_SHEET,
    TABLE,
    TABLES,
    LocateRequest,
    Table,
    files_of,
    is_done,
    make_folders,
    refuse_fewer_objects,
    remove_replaced,
    rows_before,
)
from jawloc.reporting.location_text import padding_note
from jawloc.reporting.slicer_edits import refuse_slicer_edits
from jawloc.scans.listing import ListedScan, describe_failure
from jawloc.scans.manifest import record_names, start_manifest
from jawloc.scans.progress import Progress
from jawloc.workflows.cluster import ClusterOptions, Lost
from jawloc.workflows.cluster.client import open_cluster
from jawloc.workflows.cluster.tasks import Cluster
from jawloc.workflows.locate_result import LocateResult
from jawloc.workflows.locate_scan import ReadScan, locate_one, read_downsampled
from jawloc.workflows.writing_results import (
    in_listed_order,
    with_resume_hint,
    write_sheet,
    write_tables,
)

ToDo = tuple[ListedScan, str]  # a scan and its key

# For how long (s) a thread in Python's code, as that which draws, keeps another from running. The
# thread that reads needs only a moment for each slice, and waits for so long for each of them.
TURN = 0.0005


def locate_scans(
    request: LocateRequest,
    scans: Sequence[ListedScan],
    table: Table,
    cluster: ClusterOptions | None = None,
) -> LocateResult:
    """Locate scan after scan, or many at once on a cluster; the tables are complete after each.

    Parameters
    ----------
    table : the rows that are there already; those of scans that aren't listed stay as they are.

    Raises
    ------
    InputError
        If the folder can't be made or written to, its disk is full, another process writes into
        it, or it holds a file of others that would be overwritten, points that somebody changed
        in 3D Slicer, or results of objects that aren't asked for now; or the cluster can't be used;
        before any work.
    OSError
        If results can't be written any more, or the cluster is gone; says how to go on.
    KeyboardInterrupt
        Likewise.
    """
    refuse_fewer_objects(request, (scan.name for scan in scans), table)
    _refuse_slicer_edits(request, scans, table)
    table, padded = dict(table), False
    count = {"located": 0, "flagged": 0, "skipped": 0, "failed": 0}
    with (
        _old_objects_kept(),
        _short_turns(),
        open_cluster(cluster) as opened,
        _locked_folder(request, scans, several=cluster is not None),
        with_resume_hint(request.folder, count, len(scans)),
        Progress(total=len(scans), desc="locate", unit="scan") as bar,
    ):
        before = rows_before(request.folder) or []

        def to_do() -> Iterator[ToDo]:
            for scan in scans:
                key = request.key(scan.path, scan.series)
                if is_done(request, table.get(scan.name, []), key):
                    count["skipped"] += 1
                    bar.update()
                else:
                    yield scan, key

        for scan, rows in locate_each(request, to_do(), opened):
            table = in_listed_order({**table, scan.name: rows}, scans)
            write_tables(request.folder, table)
            failed = rows[0].status == FAILED
            count["failed" if failed else "located"] += 1
            count["flagged"] += not failed and any(row.status != "ok" for row in rows)
            bar.update()
            if failed:
                bar.write(describe_failure(scan, rows[0].reason or ""), file=sys.stderr)
            if not padded and any(row.crop_fit == "padded" for row in rows):
                padded = True
                bar.write(padding_note(request.crop_size, scan.name), file=sys.stderr)
        remove_replaced(request.folder, before, table)
        sheet = write_sheet(request, table)
    every = tuple(row for scan in scans for row in table[scan.name])
    return LocateResult(**count, table=request.folder / TABLE, rows=every, sheet=sheet)


def _refuse_slicer_edits(request: LocateRequest, scans: Sequence[ListedScan], table: Table) -> None:
    listed = {scan.name: scan for scan in scans}

    def stays(name: str) -> bool:
        rows, scan = table.get(name, []), listed.get(name)
        if scan is None or not rows:
            return bool(rows)
        return is_done(request, rows, request.key(scan.path, scan.series))

    before = rows_before(request.folder) or []
    refuse_slicer_edits(request.folder, listed, before, stays)


def locate_each(
    request: LocateRequest, to_do: Iterable[ToDo], cluster: Cluster | None
) -> Iterator[tuple[ListedScan, list[Row]]]:
    """Yield scans with their rows: here one after the other, on a cluster as they are done."""
    if cluster is None:
        for number, ((scan, key), reading) in enumerate(read_ahead(request, to_do)):
            if number == 0 and not reading.done():
                request.locator.warm_up()  # while the first scan is read
            yield scan, locate_one(request, scan, key, reading.result)
        return
    items = list(to_do)
    for number, rows in cluster.run(locate_task, replace(request, several=True), items):
        scan, key = items[number]
        if isinstance(rows, Lost):
            about = {"path": str(scan.path), "model": request.model, "key": key}
            rows = [failed_row(scan.name, f"{scan.path.name}: {rows.reason}", about)]
        yield scan, rows


def locate_task(request: LocateRequest, item: ToDo) -> list[Row]:
    """Locate the objects in one scan, on a worker."""
    scan, key = item
    return locate_one(request, scan, key, lambda: read_downsampled(request, scan))


@contextmanager
def _old_objects_kept() -> Iterator[None]:
    """Don't search for garbage among what exists already, all that was imported, at each picture.

    A picture makes so many objects that Python looks through all of them: 0.07 s a scan.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _short_turns() -> Iterator[None]:
    """Let Python's threads take turns of `TURN`, so that reading goes on while pictures are drawn.

    The whole process's setting.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(TURN)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@contextmanager
def _locked_folder(
    request: LocateRequest, scans: Sequence[ListedScan], *, several: bool
) -> Iterator[None]:
    """Lock the folder of results, and start its list of the files that jawloc wrote.

    `several`: processes will write, perhaps on several machines, whose lines in the list of a
    network drive might overwrite each other; so all names are in it before they begin.
    """
    written = {
        *TABLES,
        CONTACT_SHEET,
        *(name for scan in scans for name in files_of(request, scan.name)),
    }
    with locked_output_folder(request.folder):
        own = own_names(request.folder, run=is_run_folder(request.folder))
        refuse_foreign(request.folder, "--output-dir", written.__contains__, own)
        make_folders(request)
        start_manifest(request.folder, own)
        if several:
            record_names(request.folder, written)
        yield
        if several:  # scans may have failed
            start_manifest(request.folder)


def read_ahead(
    request: LocateRequest, scans: Iterable[ToDo]
) -> Iterator[tuple[ToDo, Future[ReadScan]]]:
    """Yield scans, with their keys, and what is read of each: the next one's while one is used."""
    reader, before = ThreadPoolExecutor(1, "reader"), None
    try:
        for scan in scans:
            reading = scan, reader.submit(read_downsampled, request, scan[0])
            if before is not None:
                yield before
            before = reading
        if before is not None:
            yield before
    finally:  # at an interruption too, at the end of the scan that is being read
        reader.shutdown(cancel_futures=True)
