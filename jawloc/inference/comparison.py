"""Is one locator better than another? Their errors on the same scans, paired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jawloc.inference.evaluate_scan import ScanEvaluation
from jawloc.inference.metrics import by_specimen, errors_in
from jawloc.inference.quantities import UNIT_NAMES, counted

TEST = "Wilcoxon signed-rank test, paired by specimen, one-sided"
SIGNIFICANCE = 0.05
LEAST_SPECIMENS = 6  # with fewer, a single one decides


@dataclass(frozen=True)
class Comparison:
    """Radial errors of a challenger and of the champion on the scans that both were evaluated on.

    Attributes
    ----------
    specimens : how many pairs of errors there are
    objects : whose errors are averaged in each specimen
    p_value : probability of a difference this large if both were equally good; None where there
        are too few specimens
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
        """Return whether the challenger's errors are lower beyond what chance explains."""
        return self.p_value is not None and self.p_value < self.significance

    def sentence(self) -> str:
        """Return the result and its reason as a sentence."""
        of = f"on {counted(self.scans, 'scan')}"
        if self.specimens != self.scans:
            of += f" of {counted(self.specimens, 'specimen')}"
        of += " that both were evaluated on"
        if self.p_value is None:
            return (
                f"{of}: at least {LEAST_SPECIMENS} specimens are needed to tell two models apart "
                f"({self.test}), so the champion stays"
            )
        unit = UNIT_NAMES[self.unit]
        verdict = "the new model is better" if self.challenger_wins else "the champion stays"
        sign = "<" if self.challenger_wins else "≥"
        return (
            f"{of}, mean radial error {self.challenger_mean:.3f} {unit} against the champion's "
            f"{self.champion_mean:.3f}: {self.test}, p = {self.p_value:.3g} "
            f"({sign} {self.significance:g}), {verdict}"
        )


@dataclass(frozen=True)
class Decision:
    """Whether a model was registered and became the champion.

    Attributes
    ----------
    version : of the registered model; None where it was not registered
    champion_before : the version that was the champion, or None
    reason : in a sentence
    """

    version: str | None = None
    champion_before: str | None = None
    promoted: bool = False
    reason: str = ""
    comparison: Comparison | None = None


def compare(challenger: Sequence[ScanEvaluation], champion: Sequence[ScanEvaluation]) -> Comparison:
    """Compare two locators in the scans and objects that both were evaluated on.

    Errors are averaged over the objects and scans of a specimen, which are not independent. The
    unit is mm where every scan's spacing is known, else voxels of the full-size scan.
    """
    pairs = [
        (mine, theirs)
        for mine in challenger
        for theirs in champion
        if (mine.path, mine.error.object_name) == (theirs.path, theirs.error.object_name)
    ]
    own = [mine for mine, _ in pairs]
    in_mm = all(scan.error.error_mm is not None for pair in pairs for scan in pair)
    unit = "mm" if in_mm else "full_size_voxels"
    # the models may record different names of a specimen: the challenger's counts for both
    a, b = (
        np.array([*by_specimen(own, errors_in(scans, unit)).values()])
        for scans in (own, [theirs for _, theirs in pairs])
    )
    return Comparison(
        test=TEST,
        scans=len({scan.path for scan in own}),
        specimens=len(a),
        objects=tuple(dict.fromkeys(scan.error.object_name for scan in own)),
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

    Specimens with equal errors are left out, as in Wilcoxon, Biometrics Bulletin 1, 1945; where all
    are equal the p-value is 1.
    """
    if len(challenger) < LEAST_SPECIMENS:
        return None
    difference = np.asarray(challenger) - np.asarray(champion)
    difference = difference[difference != 0]
    if len(difference) == 0:
        return 1.0
    from scipy import stats  # takes seconds to import, and a training needs none of it

    return float(stats.wilcoxon(difference, alternative="less").pvalue)


def lacking_specimens(fair: Sequence[ScanEvaluation]) -> str:
    """Return how many specimens are missing for a fair comparison; empty if there are enough."""
    scans, specimens = len({s.path for s in fair}), len({s.specimen for s in fair})
    lacking = LEAST_SPECIMENS - specimens
    if lacking <= 0:
        return ""
    return (
        f"a fair comparison needs scans of {LEAST_SPECIMENS} specimens that neither model learned "
        f"from, and there are only {counted(scans, 'scan')} of {counted(specimens, 'specimen')}; "
        f"give scans of at least {counted(lacking, 'more specimen')}"
    )
