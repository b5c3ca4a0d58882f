"""Which corrected scans train, in place of which others; never one whose specimen is held out.

A split is chosen without the corrections, so that the scans that test a model are those that tested
the model before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from jawloc.scans.cache import ExampleFile
from jawloc.scans.points.corrections import CORRECTED_WEIGHT, CorrectedScan
from jawloc.training.provenance import CorrectionRecord, ScanUse, specimen_name
from jawloc.training.splits import Split


@dataclass(frozen=True)
class CorrectedExample:
    """A corrected scan in the cache.

    Attributes
    ----------
    file : with the corrected positions only
    copies : ids of the scans of `dicom_dirs` that have the same image
    earlier_use : what the earlier model used the scan for
    """

    scan: CorrectedScan
    file: ExampleFile
    copies: frozenset[str] = frozenset()
    earlier_use: ScanUse = "unknown"


@dataclass(frozen=True)
class CorrectedSplit:
    """A split with the corrected scans among those that train.

    Attributes
    ----------
    examples : by scan id, without those whose place a corrected scan took
    records : of every position that trains
    kept_out : a sentence for each corrected scan that does not train
    """

    split: Split
    examples: dict[str, ExampleFile]
    records: tuple[CorrectionRecord, ...] = ()
    kept_out: tuple[str, ...] = ()


def add_corrected(
    split: Split,
    examples: Mapping[str, ExampleFile],
    corrected: Sequence[CorrectedExample],
    specimen_pattern: str,
) -> CorrectedSplit:
    """Let corrected scans train, each in place of its copies; keep out those of held-out specimens.

    Objects that were not corrected keep the label of the copy, if there is one. A scan that was
    only accepted does not replace a copy: a label is worth more.
    """
    train, known = list(split.train_ids), dict(examples)
    records: list[CorrectionRecord] = []
    kept_out: list[str] = []
    for one in corrected:
        labelled = sorted(one.copies & {*train})
        reason = _why_kept_out(one, split, specimen_pattern)
        if not reason and labelled and not one.scan.is_corrected:
            reason = f"{one.scan.scan_id} keeps its own label: its position was only accepted"
        if reason:
            kept_out.append(reason)
            continue
        file, own = _merged(one, known[labelled[0]] if labelled else None)
        for scan_id in labelled:
            train.remove(scan_id)
            del known[scan_id]
        train.append(file.scan_id)
        known[file.scan_id] = file
        records += own
    changed = replace(split, train_ids=tuple(sorted(train)))
    return CorrectedSplit(changed, known, tuple(records), tuple(kept_out))


def _why_kept_out(one: CorrectedExample, split: Split, pattern: str) -> str:
    """Return why a corrected scan must not train; empty if it may."""
    specimen, name = specimen_name(one.file.scan_id, pattern), one.scan.scan_id
    for use, ids in {"test": split.test_ids, "validation": split.val_ids}.items():
        if held := sorted(one.copies & {*ids}):
            same = "it is" if held[0] == name else f"it is a copy of {held[0]},"
            return f"{name} is kept out of training: {same} a {use} scan, which keeps its label"
        siblings = [i for i in ids if specimen_name(i, pattern) == specimen]
        if siblings:
            return (
                f"{name} is kept out of training: it is of the same specimen as the {use} scan "
                f"{siblings[0]}"
            )
    return ""


def _merged(
    one: CorrectedExample, labelled: ExampleFile | None
) -> tuple[ExampleFile, list[CorrectionRecord]]:
    """Return the example to train on, each object with its best label, and what was corrected."""
    by_object = {position.object: position for position in one.scan.positions}
    points, weights, records = one.file.points_voxels.copy(), [], []
    for index, name in enumerate(one.file.object_names):
        position, weight = by_object.get(name), CORRECTED_WEIGHT
        own = None if labelled is None else labelled.points_voxels[index]
        has_label = own is not None and not np.isnan(own).any()
        if position is None or (has_label and not position.is_corrected):
            points[index] = own if own is not None else np.nan
        else:
            weight = position.weight
            records.append(_record(one, name))
        weights.append(weight)
    changed = replace(one.file, points_voxels=points)
    if set(weights) != {CORRECTED_WEIGHT}:
        changed = replace(changed, label_weights=tuple(weights))
    return changed, records


def _record(one: CorrectedExample, name: str) -> CorrectionRecord:
    (position,) = (p for p in one.scan.positions if p.object == name)
    review = position.review
    return CorrectionRecord(
        scan_id=one.file.scan_id,
        object_name=name,
        verdict=review.verdict,
        weight=position.weight,
        reviewer=review.reviewer,
        time=review.time,
        model=review.model,
        earlier_use=one.earlier_use,
    )
