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

# Of the mean position's error; a network above this has hardly learned where the object is. On
# skulls and phantoms, 0.01 to 0.12 of it was reached; on the hippocampus, whose scans were cut
# round it, 0.4 to 0.75 with 60 scans to train or more, at most 0.8 in 34 of 35 trainings with 40,
# and with 4 to 32 between 0.43 and 0.98, by how much the test scans vary (experiments/log.md,
# experiments/curriculum/results).
HARDLY_BETTER = 0.8

# Test error by validation error, or by the model's own test error, from which labels are to be
# checked. In the 183 trainings of experiments/curriculum/results it is at most 1.25 with 10
# validation scans or more, and 3.4 with one. Errors of two single scans, the default, differ as
# much by chance in 2 of 100 pairs of the phantoms in experiments/uncertainty/results; means of two
# validation and six test scans in 1 of 1000.
MANY_TIMES = 5.0

TO_CHECK = (
    "check that points are in the order z, y, x and that each mask is its own scan's (labels.html "
    "of the training shows them), and train for longer or on more scans"
)


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
        """Return why the locator is useless, or nearly so; empty if it isn't."""
        own, mean = self.locator.get(self.unit), self.mean_position.get(self.unit)
        if self.is_useful and (own is None or mean is None or own <= HARDLY_BETTER * mean):
            return ""
        better = "hardly" if self.is_useful else "no"
        return (
            f"this model is {better} better than a guess, whatever a scan's status: "
            f"{self.sentence()}"
        )

    def warnings(self) -> list[str]:
        """Return what is wrong with the training, in at most two sentences with what to check."""
        warnings = [f"{self.warning()}; {TO_CHECK}"] if self.warning() else []
        unit = "mm" if self.validation.get("mm") is not None else "downsampled_voxels"
        own, validation = self.locator.get(unit), self.validation.get(unit)
        if own is not None and validation is not None and own > MANY_TIMES * validation:
            warnings.append(
                f"the error on the test scans, {short(own)} {UNIT_NAMES[unit]}, is many times that "
                f"on the validation scans, {short(validation)}; check whether the test scans have "
                f"the labels of other scans (labels.html shows them) or are of another kind"
            )
        return warnings


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
