"""Images with masks or points -> labelled DICOMs, here one after the other or on a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jawloc.geometry import Triple
from jawloc.scans.convert import check_mask, convert
from jawloc.scans.convert.abandoned import remove_abandoned
from jawloc.scans.convert.conversion import Conversion
from jawloc.scans.convert.points import convert_points
from jawloc.scans.progress import Progress
from jawloc.workflows.cluster import ClusterOptions, Lost
from jawloc.workflows.cluster.client import open_cluster


@dataclass(frozen=True)
class Converting:
    """What the conversion of every scan needs; the attributes as in `convert`."""

    label_values: tuple[int, ...] | None = None
    spacing_mm_zyx: Triple | None = None
    series: tuple[str, ...] = ()


def convert_scans(
    plan: Sequence[Conversion], how: Converting, cluster: ClusterOptions | None = None
) -> list[Conversion]:
    """Write the labelled DICOMs that are planned; return each with its notes or its skip reason.

    What earlier conversions that were killed had begun to write is removed.
    """
    for folder in {item.target.parent for item in plan}:
        remove_abandoned(folder)
    done: dict[int, Conversion] = {}
    with (
        open_cluster(cluster if plan else None) as opened,
        Progress(total=len(plan), desc="dicoms", unit="scan", shown=bool(plan)) as bar,
    ):
        results: Iterator[tuple[int, Conversion | Lost]]
        if opened is None:
            results = ((n, convert_task(how, item)) for n, item in enumerate(plan))
        else:
            results = opened.run(convert_task, how, plan)
        for number, result in results:
            target = plan[number].target
            if isinstance(result, Lost):
                reason = f"{target.name}: {result.reason}"
                result = replace(plan[number], skip_reason=reason)
            elif opened is not None and result.skip_reason == f"{target.name} exists":
                # a worker was killed between writing it and saying so
                result = replace(result, skip_reason=None)
            done[number] = result
            bar.update()
    return [done[number] for number in range(len(plan))]


def check_masks(plan: Sequence[Conversion], how: Converting) -> list[Conversion]:
    """Read the masks of what is planned; return each, with the reason where it can't be done."""
    about: dict[str, Any] = {"label_values": how.label_values, "series": how.series}
    masks = Progress(plan, desc="reading masks", unit="scan", brief=True)
    return [check_mask(item, **about) for item in masks]


def convert_task(how: Converting, item: Conversion) -> Conversion:
    """Write one labelled DICOM."""
    about: dict[str, Any] = {"spacing_mm_zyx": how.spacing_mm_zyx, "series": how.series}
    if item.points:
        return convert_points(item, **about)
    return convert(item, label_values=how.label_values, **about)
