"""What a model's file says of its own errors: those of held-out scans, beside the mean position's.

A status compares a scan with the model's own scans, so it says nothing about how good the model
is: one that learned nothing finds nothing unusual. This record does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from jawloc.inference.quantities import UNIT_NAMES, short

Means = Mapping[str, float | None]  # unit -> mean radial error; None where it is unknown


@dataclass(frozen=True)
class HeldOutErrors:
    """Mean radial errors over all objects of scans that trained no network that found them.

    Attributes
    ----------
    how : `test` scans of one training, or all scans `out_of_fold`
    scans : number of them
    locator, mean_position : of the locator, and of predicting the training scans' mean position
    validation : of the scans that validated the training, by the heatmap alone (how much the
        mask counts is chosen by them afterwards); empty if unknown
    """

    how: Literal["test", "out_of_fold"]
    scans: int
    locator: Means
    mean_position: Means
    validation: Means

    @property
    def unit(self) -> str:
        """Return the unit of sentences: mm, or voxels of the full-size scan without spacing."""
        return "mm" if self.locator.get("mm") is not None else "full_size_voxels"

    @property
    def is_useful(self) -> bool:
        """Return whether the locator is better than predicting the mean position."""
        own, mean = self.locator.get(self.unit), self.mean_position.get(self.unit)
        return own is None or mean is None or own < mean

    def sentence(self) -> str:
        """Return both errors in words."""
        unit = self.unit
        own, mean = self.locator[unit], self.mean_position[unit]
        scans = f"{self.scans} {'test ' * (self.how == 'test')}scan{'s' * (self.scans != 1)}"
        scans += " out of fold" * (self.how == "out_of_fold")
        return (
            f"the mean error on {scans} is {short(own)} {UNIT_NAMES[unit]}, that of always "
            f"predicting the mean position {short(mean)}"
        )

    def warning(self) -> str:
        """Return why the locator is useless; empty if it isn't."""
        if self.is_useful:
            return ""
        return f"this model is no better than a guess, whatever a scan's status: {self.sentence()}"


def held_out_errors(summary: Mapping[str, Any]) -> HeldOutErrors | None:
    """Return the errors in a run's summary (`summary.json`); None if it has none."""
    for how in ("test", "out_of_fold"):
        if f"{how}_error" in summary and "mean_position_error" in summary:
            scans = {row["scan"] for row in summary.get(f"{how}_scans", ())}
            return HeldOutErrors(
                "test" if how == "test" else "out_of_fold",
                len(scans),
                _means(summary[f"{how}_error"]),
                _means(summary["mean_position_error"]),
                _means(summary.get("validation_error", {})),
            )
    return None


def plain_errors(errors: HeldOutErrors | None) -> dict[str, Any] | None:
    """Return errors as plain values, which a model's file may hold."""
    return None if errors is None else asdict(errors)


def errors_from_plain(content: Mapping[str, Any] | None) -> HeldOutErrors | None:
    """Return the errors that `plain_errors` made plain; ValueError if they are of another kind."""
    return None if content is None else TypeAdapter(HeldOutErrors).validate_python(content)


def _means(errors: Mapping[str, float | None]) -> dict[str, float | None]:
    units = [unit for unit in UNIT_NAMES if unit in errors]
    return {unit: None if errors[unit] is None else float(errors[unit] or 0) for unit in units}
