"""Evaluate a locator on many labelled scans, here one after the other or on a cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from jawloc.errors import reason_of
from jawloc.geometry import Shape
from jawloc.inference.evaluate_scan import ScanEvaluation, evaluate_scan
from jawloc.inference.locator import Locator
from jawloc.inference.model_evaluation import Failure
from jawloc.scans.listing import ListedScan, describe_failure
from jawloc.scans.progress import Progress
from jawloc.workflows.cluster import Lost
from jawloc.workflows.cluster.tasks import Cluster


@dataclass(frozen=True)
class Evaluating:
    """What the evaluation of every scan needs."""

    locator: Locator
    crop_size: Shape  # (z, y, x) in voxels of the full-size scan
    objects: tuple[str, ...]


def evaluate_scans(
    locator: Locator,
    scans: Sequence[ListedScan],
    crop_size: Shape,
    objects: Sequence[str],
    title: str,
    cluster: Cluster | None = None,
) -> tuple[list[ScanEvaluation], list[Failure]]:
    """Evaluate every scan; one that fails doesn't stop the others. Both are in the scans' order.

    A copy of a scan, whatever its name, is of that scan's specimen: it is no further evidence.
    """
    evaluated: list[ScanEvaluation] = []
    failed: dict[int, Failure] = {}
    found: dict[int, list[ScanEvaluation]] = {}
    work = Evaluating(locator, crop_size, tuple(objects))
    with Progress(total=len(scans), desc=title, unit="scan") as bar:
        for number, result in _results(work, scans, cluster):
            bar.update()
            if isinstance(result, Failure):
                failed[number] = result
                bar.write(describe_failure(scans[number], result.reason), file=sys.stderr)
            else:
                found[number] = result
    for number in sorted(found):
        for own in found[number]:
            copies = (e for e in evaluated if e.identity.is_same_image(own.identity))
            specimen = next(copies, own).specimen
            evaluated.append(replace(own, identity=replace(own.identity, specimen=specimen)))
    return evaluated, [failed[number] for number in sorted(failed)]


def _results(
    work: Evaluating, scans: Sequence[ListedScan], cluster: Cluster | None
) -> Iterator[tuple[int, list[ScanEvaluation] | Failure]]:
    """Yield the number of a scan and what came of it, as soon as it is there."""
    if cluster is None:
        for number, scan in enumerate(scans):
            yield number, evaluate_task(work, scan)
        return
    for number, result in cluster.run(evaluate_task, work, scans):
        if isinstance(result, Lost):
            result = _failure(scans[number], f"{scans[number].path.name}: {result.reason}")
        yield number, result


def evaluate_task(work: Evaluating, scan: ListedScan) -> list[ScanEvaluation] | Failure:
    """Evaluate one scan, whatever is wrong with it."""
    try:
        return evaluate_scan(work.locator, scan, work.crop_size, work.objects)
    except Exception as error:
        return _failure(scan, reason_of(error, scan.path.name))


def _failure(scan: ListedScan, reason: str) -> Failure:
    return Failure(scan.name, str(scan.path), reason)
