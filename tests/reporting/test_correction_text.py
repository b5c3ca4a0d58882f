"""What was corrected, and how the earlier model compares, in sentences."""

from __future__ import annotations

from dataclasses import replace

from jawloc.reporting.correction_text import correction_lines, summarise_corrections
from jawloc.training.provenance import CorrectionRecord

TIME = "2026-01-02T03:04:05Z"
MOVED = CorrectionRecord("f1", "jaw", "moved", 1.0, "Ana", TIME, "old", "test")
ACCEPTED = replace(MOVED, scan_id="f2", verdict="accepted", weight=0.5, earlier_use="new")


def test_without_corrections_or_earlier_model_nothing_is_said():
    assert summarise_corrections((), ()) == {}
    assert correction_lines({}) == []


def test_what_trained_what_was_kept_out_and_what_tested_the_earlier_model_is_said():
    summary = summarise_corrections((MOVED, ACCEPTED), ("f3 is kept out",))
    assert summary["corrections"]["scans"] == ["f1", "f2"]
    assert summary["corrections"]["tested_the_earlier_model"] == ["f1"]
    assert correction_lines(summary) == [
        "trained on 1 corrected position and 1 accepted one in 2 scans, by Ana",
        "f3 is kept out",
        "f1: tested the earlier model, and trained this one",
    ]


def test_an_earlier_model_that_learned_from_the_scans_looks_better_than_it_is():
    earlier = {"name": "old", "positions": 3, "new_is_closer": 2, "learned_from": []}

    def lines(**changes):
        return correction_lines({"earlier_model": earlier | changes})

    first = "earlier model: old; the new one is closer in 2 of 3 positions"
    assert lines() == [first]
    many = [f"f{number}" for number in range(8)]
    assert lines(learned_from=many)[1].startswith(
        "the earlier model learned from f0, f1, f2, f3, f4, f5 and 2 more, so that its error"
    )
    assert lines(learned_from=None)[1] == "which scans the earlier model learned from is unknown"
