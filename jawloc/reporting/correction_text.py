"""Corrections and the comparison with the earlier model, in words: for terminal and MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jawloc.inference.quantities import counted
from jawloc.scans.messages import names_shown
from jawloc.training.provenance import CorrectionRecord


def summarise_corrections(
    records: tuple[CorrectionRecord, ...], kept_out: tuple[str, ...]
) -> dict[str, Any]:
    """Return what summary.json says of corrections; nothing if there are none."""
    if not records and not kept_out:
        return {}
    tested = sorted({r.scan_id for r in records if r.earlier_use == "test"})
    return {
        "corrections": {
            "scans": sorted({record.scan_id for record in records}),
            "corrected": sum(record.verdict == "moved" for record in records),
            "accepted": sum(record.verdict == "accepted" for record in records),
            "reviewers": sorted({record.reviewer for record in records if record.reviewer}),
            "models": sorted({record.model for record in records if record.model}),
            "tested_the_earlier_model": tested,
            "kept_out": list(kept_out),
        }
    }


def correction_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return, in sentences, what was corrected and how the earlier model compares."""
    lines = []
    own = summary.get("corrections")
    if own is not None:
        line = f"{counted(own['corrected'], 'corrected position')}"
        if own["accepted"]:
            line += f" and {counted(own['accepted'], 'accepted one')}"
        by = f", by {', '.join(own['reviewers'])}" if own["reviewers"] else ""
        lines.append(f"trained on {line} in {counted(len(own['scans']), 'scan')}{by}")
        lines += own["kept_out"]
        if tested := own["tested_the_earlier_model"]:
            names = names_shown(tested, most=6)
            lines.append(f"{names}: tested the earlier model, and trained this one")
    earlier = summary.get("earlier_model")
    if earlier is not None:
        lines.append(
            f"earlier model: {earlier['name']}; the new one is closer in "
            f"{earlier['new_is_closer']} of {counted(earlier['positions'], 'position')}"
        )
        learned = earlier["learned_from"]
        if learned is None:
            lines.append("which scans the earlier model learned from is unknown")
        elif learned:
            lines.append(
                f"the earlier model learned from {names_shown(learned, most=6)}, so that its error "
                f"here looks better than it is in new scans"
            )
    return lines
