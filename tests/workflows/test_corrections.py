"""A corrected scan trains once, with its corrected label, and never if its specimen is held out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jawloc.geometry import Grid
from jawloc.scans.cache import ExampleFile
from jawloc.scans.points.corrections import CorrectedScan, Correction
from jawloc.training.splits import SPECIMEN_PATTERN, Split
from jawloc.workflows.corrections import CorrectedExample, add_corrected
from tests.scans.points.test_corrections import decided

GRID, NAN = Grid((8, 8, 8)), np.nan
SPLIT = Split(("f1", "f2_left"), ("f3",), ("f4", "f5_left"))
OBJECTS = ("jaw", "otolith")


def example(scan_id: str, *points) -> ExampleFile:
    at = np.array(points or [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0)])
    cached, key = Path(f"cache/{scan_id}.dcm"), f"key of {points}"
    return ExampleFile(cached, scan_id, at, GRID, GRID, key, Path(f"{scan_id}.dcm"), OBJECTS)


EXAMPLES = {i: example(i) for i in (*SPLIT.train_ids, *SPLIT.val_ids, *SPLIT.test_ids)}


def reviewed(scan_id, copies=(), verdict="moved", weight=1.0, objects=("jaw",), use="new"):
    """Return a scan whose objects were decided about, all at (5, 5, 5)."""
    positions = tuple(
        Correction(decided(scan_id, verdict, object=name), name, (5.0, 5.0, 5.0), weight, "line")
        for name in objects
    )
    points = [(5.0, 5.0, 5.0) if name in objects else (NAN, NAN, NAN) for name in OBJECTS]
    scan = CorrectedScan(scan_id, Path(f"{scan_id}.tif"), positions)
    file = replace(example(scan_id, *points), has_mask=False)
    return CorrectedExample(scan, file, frozenset(copies), use)


def add(*corrected):
    return add_corrected(SPLIT, EXAMPLES, corrected, SPECIMEN_PATTERN)


def test_a_new_scan_trains_with_what_was_corrected():
    changed = add(reviewed("f6"))
    assert changed.split == replace(SPLIT, train_ids=("f1", "f2_left", "f6"))
    np.testing.assert_array_equal(
        changed.examples["f6"].points_voxels, [(5.0, 5.0, 5.0), (NAN, NAN, NAN)]
    )
    assert changed.examples["f6"].label_weights == ()
    (record,) = changed.records
    assert (record.scan_id, record.object_name, record.verdict) == ("f6", "jaw", "moved")
    assert (record.reviewer, record.model, record.earlier_use) == ("Ana", "old", "new")
    assert changed.kept_out == ()


@pytest.mark.parametrize("name", ["f1", "another_name"])
def test_a_copy_of_a_training_scan_trains_once_with_the_corrected_label(name):
    changed = add(reviewed(name, copies=["f1"]))
    assert changed.split.train_ids == tuple(sorted([name, "f2_left"]))
    assert set(changed.examples) == {*EXAMPLES} - {"f1"} | {name}
    # the other object keeps its label
    np.testing.assert_array_equal(
        changed.examples[name].points_voxels, [(5.0, 5.0, 5.0), (2.0, 2.0, 2.0)]
    )
    assert not changed.examples[name].has_mask


@pytest.mark.parametrize(
    ("corrected", "sentence"),
    [
        (reviewed("f4", ["f4"]), "f4 is kept out of training: it is a test scan"),
        (reviewed("n", ["f4"]), "n is kept out of training: it is a copy of f4, a test scan"),
        (reviewed("f3", ["f3"]), "f3 is kept out of training: it is a validation scan"),
        (reviewed("f5_right"), "it is of the same specimen as the test scan f5_left"),
        # a copy of a training scan under a test scan's name, too
        (reviewed("f4_right", ["f1"]), "it is of the same specimen as the test scan f4"),
    ],
)
def test_a_held_out_scan_its_copies_and_its_specimen_never_train(corrected, sentence):
    changed = add(corrected)
    assert changed.split == SPLIT
    assert changed.examples == EXAMPLES
    assert changed.records == ()
    assert sentence in changed.kept_out[0]


def test_an_accepted_position_counts_less_and_replaces_no_label():
    changed = add(
        reviewed("f6", verdict="accepted", weight=0.5),
        reviewed("f1", ["f1"], verdict="accepted", weight=0.5),
    )
    assert changed.split.train_ids == ("f1", "f2_left", "f6")
    assert changed.examples["f6"].label_weights == (0.5, 1.0)
    assert changed.examples["f1"] is EXAMPLES["f1"]
    assert [record.weight for record in changed.records] == [0.5]
    assert changed.kept_out == ("f1 keeps its own label: its position was only accepted",)


def test_where_one_object_was_corrected_an_accepted_one_leaves_the_label():
    both = reviewed("f1", ["f1"], objects=OBJECTS)
    accepted = replace(
        both.scan.positions[1], review=decided("f1", "accepted", object="otolith"), weight=0.5
    )
    scan = replace(both.scan, positions=(both.scan.positions[0], accepted))
    changed = add(replace(both, scan=scan))
    np.testing.assert_array_equal(
        changed.examples["f1"].points_voxels, [(5.0, 5.0, 5.0), (2.0, 2.0, 2.0)]
    )
    assert changed.examples["f1"].label_weights == ()
    assert [record.object_name for record in changed.records] == ["jaw"]
