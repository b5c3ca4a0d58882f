"""Is one locator better than another? Their errors on the same scans, paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from jawloc.locating.measuring import Measured

TEST = "Wilcoxon signed-rank test, paired by scan, one-sided"
SIGNIFICANCE = 0.05
LEAST_SCANS = 6  # with fewer, a single scan that goes the other way decides


@dataclass(frozen=True)
class Comparison:
    """The radial errors of a challenger and of the champion on the scans that both were tried on.

    Attributes
    ----------
    test : the test's name
    scans : how many pairs there are
    objects : whose errors are meant over, in each scan
    p_value : chance of errors that are so much lower, were both equally good; None where there are
        too few scans to tell
    challenger_mean, champion_mean : mean radial error on these scans, in `unit`
    better, equal, worse : scans in which the challenger's error is lower, the same or higher
    """

    test: str
    scans: int
    objects: tuple[str, ...]
    unit: str
    p_value: float | None
    significance: float
    challenger_mean: float | None
    champion_mean: float | None
    better: int
    equal: int
    worse: int

    @property
    def challenger_wins(self) -> bool:
        """Say whether the challenger's errors are lower beyond what chance explains."""
        return self.p_value is not None and self.p_value < self.significance

    def describe(self) -> str:
        """Say it in a sentence."""
        of = f"on {self.scans} scan{'' if self.scans == 1 else 's'} that both were tried on"
        if self.p_value is None:
            return (
                f"{of}: at least {LEAST_SCANS} are needed to tell two models apart "
                f"({self.test}), so the champion stays"
            )
        unit = self.unit.replace("_", " ")
        verdict = "the new model is better" if self.challenger_wins else "the champion stays"
        sign = "<" if self.challenger_wins else "≥"
        return (
            f"{of}, mean radial error {self.challenger_mean:.3f} {unit} against the champion's "
            f"{self.champion_mean:.3f}: {self.test}, p = {self.p_value:.3g} "
            f"({sign} {self.significance:g}), {verdict}"
        )


def compare(challenger: Sequence[Measured], champion: Sequence[Measured]) -> Comparison:
    """Compare the errors of two locators in the scans and objects that both were tried on.

    Of several objects, a scan's error is the mean: objects of one scan are not independent. The
    unit is mm where every scan's spacing is known, else voxels of the full-size scan.
    """
    pairs = [
        (mine, theirs)
        for mine in challenger
        for theirs in champion
        if (mine.path, mine.error.object_name) == (theirs.path, theirs.error.object_name)
    ]
    in_mm = all(m.error.error_mm is not None for pair in pairs for m in pair)
    unit = "mm" if in_mm else "full_size_voxels"
    ours, champions = (_by_scan([pair[i] for pair in pairs], unit) for i in (0, 1))
    a, b = np.array([*ours.values()]), np.array([champions[path] for path in ours])
    return Comparison(
        test=TEST,
        scans=len(a),
        objects=tuple(dict.fromkeys(mine.error.object_name for mine, _ in pairs)),
        unit=unit,
        p_value=p_value(a, b),
        significance=SIGNIFICANCE,
        challenger_mean=float(a.mean()) if len(a) else None,
        champion_mean=float(b.mean()) if len(b) else None,
        better=int(np.sum(a < b)),
        equal=int(np.sum(a == b)),
        worse=int(np.sum(a > b)),
    )


def p_value(challenger: np.ndarray, champion: np.ndarray) -> float | None:
    """Return the one-sided p value of the challenger's errors being lower; None for few scans.

    Scans with equal errors say nothing and are left out, as Wilcoxon did (Biometrics Bulletin 1,
    1945); where all are equal the p value is 1.
    """
    if len(challenger) < LEAST_SCANS:
        return None
    difference = np.asarray(challenger) - np.asarray(champion)
    difference = difference[difference != 0]
    if len(difference) == 0:
        return 1.0
    return float(stats.wilcoxon(difference, alternative="less").pvalue)


def _by_scan(measured: Sequence[Measured], unit: str) -> Mapping[object, float]:
    errors: dict[object, list[float]] = {}
    for m in measured:
        errors.setdefault(m.path, []).append(getattr(m.error, f"error_{unit}"))
    return {path: float(np.mean(values)) for path, values in errors.items()}
