"""Cross-validation over all scans: each is tested once, by a network that knows no such fish."""

from __future__ import annotations

from collections.abc import Sequence

from jawloc.errors import InputError
from jawloc.training.dataset import Split, SplitConfig
from jawloc.training.specimens import group_by_specimen

LEAST_FOLDS = 2


def cross_validation_splits(
    scan_ids: Sequence[str], folds: int, config: SplitConfig
) -> tuple[Split, ...]:
    """Divide all scans into folds: in each, one part tests, some others validate, the rest trains.

    A specimen is never divided. In each fold, the specimens that validate are the smallest of the
    part that is tested next, then those of the part after it: as many whole ones as it takes for
    so many scans as `validation_scans` says (or has ids), and at least one. `test_scans` has no
    say, as every scan is tested.

    Raises
    ------
    InputError
        Fewer than two folds, more than there are specimens, or a fold with nothing to train on.
    """
    parts = _parts(list(group_by_specimen(scan_ids, config.specimen_pattern).values()), folds)
    wanted = config.validation_scans
    least = max(1, wanted if isinstance(wanted, int) else len(wanted))
    return tuple(_split(parts[first:] + parts[:first], least) for first in range(folds))


def check_folds(folds: int) -> None:
    """Refuse what can't be a number of folds, whatever the scans."""
    if folds < LEAST_FOLDS:
        raise InputError(
            f"--folds: at least {LEAST_FOLDS}, as each fold is tested by what the others taught; "
            f"received {folds}"
        )


def _parts(specimens: Sequence[Sequence[str]], folds: int) -> list[list[Sequence[str]]]:
    """Share specimens out evenly: the largest first, each to the part with the fewest scans."""
    check_folds(folds)
    if not LEAST_FOLDS < len(specimens) >= folds:
        scans = sum(map(len, specimens))
        raise InputError(
            f"--folds: there must be at least as many specimens as folds, and three (to train, "
            f"validate and test); received {folds} for {len(specimens)} specimens in {scans} "
            f"scans (specimen_pattern says which scans are of one)"
        )
    parts: list[list[Sequence[str]]] = [[] for _ in range(folds)]
    for specimen in sorted(specimens, key=len, reverse=True):
        min(parts, key=lambda part: sum(map(len, part))).append(specimen)
    return parts


def _split(parts: Sequence[Sequence[Sequence[str]]], least: int) -> Split:
    """Return the fold that the first part tests and the next parts validate."""
    tested, *others = parts
    # the smallest first: whole specimens are then the least too many
    rest = [specimen for part in others for specimen in sorted(part, key=len)]
    validating: list[str] = []
    while rest and len(validating) < least:
        validating += rest.pop(0)
    training = [scan_id for specimen in rest for scan_id in specimen]
    if not training:
        raise InputError(
            f"validation_scans: with --folds, at least one specimen must be left to train on in "
            f"every fold; {least} scans to validate with leave none"
        )
    testing = [scan_id for specimen in tested for scan_id in specimen]
    train, val, test = (tuple(sorted(ids)) for ids in (training, validating, testing))
    return Split(train, val, test)
