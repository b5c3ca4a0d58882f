"""Is one locator better than another? Their errors on the same scans, paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from jawloc.inference.evaluate_scan import ScanEvaluation
from jawloc.inference.metrics import by_specimen

TEST = "Wilcoxon signed-rank test, paired by specimen, one-sided"
SIGNIFICANCE = 0.05
LEAST_SPECIMENS = 6  # with fewer, a single one that goes the other way decides


@dataclass(frozen=True)
class Comparison:
    """The radial errors of a challenger and of the champion on the scans that both were tried on.

    Attributes
    ----------
    test : the test's name
    scans, specimens : how many there are; a specimen is a pair
    objects : whose errors are averaged, in each specimen
    p_value : chance of errors that are so much lower, were both equally good; None where there are
        too few specimens to tell
    challenger_mean, champion_mean : mean radial error over these specimens, in `unit`
    better, equal, worse : specimens in which the challenger's error is lower, the same or higher
    """

    test: str
    scans: int
    specimens: int
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
        of = f"on {self.scans} scan{'' if self.scans == 1 else 's'}"
        if self.specimens != self.scans:
            of += f" of {self.specimens} specimen{'' if self.specimens == 1 else 's'}"
        of += " that both were tried on"
        if self.p_value is None:
            return (
                f"{of}: at least {LEAST_SPECIMENS} specimens are needed to tell two models apart "
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


def compare(challenger: Sequence[ScanEvaluation], champion: Sequence[ScanEvaluation]) -> Comparison:
    """Compare the errors of two locators in the scans and objects that both were tried on.

    Of several objects or scans of one specimen, its error is the mean: they are not independent.
    The unit is mm where every scan's spacing is known, else voxels of the full-size scan.
    """
    pairs = [
        (mine, theirs)
        for mine in challenger
        for theirs in champion
        if (mine.path, mine.error.object_name) == (theirs.path, theirs.error.object_name)
    ]
    in_mm = all(m.error.error_mm is not None for pair in pairs for m in pair)
    unit = "mm" if in_mm else "full_size_voxels"
    ours, champions = (_errors(pairs, k, unit) for k in (0, 1))
    a, b = np.array([*ours.values()]), np.array([*champions.values()])
    return Comparison(
        test=TEST,
        scans=len({mine.path for mine, _ in pairs}),
        specimens=len(a),
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
    """Return the one-sided p-value of the challenger's errors being lower; None for few specimens.

    Specimens with equal errors say nothing and are left out, as Wilcoxon did (Biometrics Bulletin
    1, 1945); where all are equal the p-value is 1.
    """
    if len(challenger) < LEAST_SPECIMENS:
        return None
    difference = np.asarray(challenger) - np.asarray(champion)
    difference = difference[difference != 0]
    if len(difference) == 0:
        return 1.0
    return float(stats.wilcoxon(difference, alternative="less").pvalue)


def _errors(
    pairs: Sequence[tuple[ScanEvaluation, ScanEvaluation]], which: int, unit: str
) -> Mapping[str, float]:
    # each of the two models may know another name of a specimen: the challenger's counts for both
    values = [getattr(pair[which].error, f"error_{unit}") for pair in pairs]
    return by_specimen([mine for mine, _ in pairs], values)
