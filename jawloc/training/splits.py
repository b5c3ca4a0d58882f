"""Which scans train, validate and test; scans of one specimen stay together.

Scans of one fish look alike. If some of them train and others test, the error says how well the
network remembers fish, not how well it finds the jaw in a new one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from jawloc.errors import InputError

ScanIds = tuple[str | int, ...]
MINIMUM_SCANS = 3
LEAST_FOLDS = 2
# The name in front of what tells the scans of one specimen apart, of which there may be several:
# a side, a single letter, or a word for a scan or a repeat, with its number or without; and a
# letter right behind a digit. A bare number at the end never counts: it numbers specimens as often.
SPECIMEN_PATTERN = (
    r"(?i)(.+?)"
    r"(?:(?:[ _.-]+|(?<=\d))(?:left|right|(?:re)?scan|rep|repeat|retest|ses|session|run|take|copy)"
    r"(?:[ _.-]?\d+)?"
    r"|[ _.-]+[a-z]"
    r"|(?<=\d)[a-z])*$"
)


def checked_pattern(pattern: str) -> str:
    """Return a regular expression that has exactly one group.

    Raises
    ------
    ValueError
        If it is not one.
    """
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    if groups != 1:
        raise ValueError(f"{groups} groups")
    return pattern


@dataclass(frozen=True)
class SplitConfig:
    """Which scans validate and which test: so many from the end of the sorted ids, or these ids."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    validation_scans: Annotated[int, Field(ge=1)] | ScanIds = 1
    test_scans: Annotated[int, Field(ge=1)] | ScanIds = 1
    # Its one group is what the ids of all scans of one specimen have in common; with --folds.
    specimen_pattern: Annotated[str, AfterValidator(checked_pattern)] = SPECIMEN_PATTERN


@dataclass(frozen=True)
class Split:
    """Scan ids by what they are used for; no id is in two."""

    train_ids: tuple[str, ...]
    val_ids: tuple[str, ...]
    test_ids: tuple[str, ...]

    def titled(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Return, by short name, the title and ids of the splits that training looks at."""
        return {"train": ("Training", self.train_ids), "val": ("Validation", self.val_ids)}


def choose_split(scan_ids: Sequence[str], config: SplitConfig) -> Split:
    """Split sorted ids; by default the last tests, the last but one validates, the rest train.

    Raises
    ------
    InputError
        Fewer than three scans, an unknown id, an id used twice, or nothing left to train on.
    """
    ids = sorted(scan_ids)
    if len(ids) < MINIMUM_SCANS:
        raise InputError(
            f"dicom_dirs: training needs at least {MINIMUM_SCANS} scans (one each to train, "
            f"validate and test); found {len(ids)}"
        )
    wanted = {"validation_scans": config.validation_scans, "test_scans": config.test_scans}
    named = {key: _choose(v, ids) for key, v in wanted.items() if not isinstance(v, int)}
    for key, chosen in named.items():
        _check_named(key, chosen, ids)
    taken = [i for chosen in named.values() for i in chosen]
    for scan_id in taken:
        if taken.count(scan_id) > 1:
            raise InputError(
                f"validation_scans, test_scans: a scan can be used for one purpose only; "
                f"{scan_id!r} is named twice"
            )
    free = [i for i in ids if i not in taken]
    test = _choose(config.test_scans, free)
    free = [i for i in free if i not in test]
    val = _choose(config.validation_scans, free)
    train = [i for i in free if i not in val]
    if not train or not val or not test:
        raise InputError(
            f"validation_scans, test_scans: at least one scan must be left to train on, one to "
            f"validate and one to test; of {len(ids)} scans these leave {len(train)}, {len(val)} "
            f"and {len(test)}"
        )
    return Split(tuple(train), tuple(sorted(val)), tuple(sorted(test)))


def choose_folds(split: Split, folds: int) -> tuple[Split, ...]:
    """Share all but the test scans out among so many folds: each scan validates in one of them.

    Raises
    ------
    InputError
        Fewer than two folds, or fewer scans than folds.
    """
    ids = sorted((*split.train_ids, *split.val_ids))
    if not 2 <= folds <= len(ids):
        raise InputError(
            f"--folds: from 2 to the number of scans that aren't for testing ({len(ids)}); "
            f"received {folds}"
        )
    parts = [ids[first::folds] for first in range(folds)]
    return tuple(
        Split(tuple(i for i in ids if i not in part), tuple(part), split.test_ids) for part in parts
    )


def check_objects(
    split: Split, shown: Mapping[str, Collection[str]], names: Sequence[str], *, fold: bool = False
) -> None:
    """Refuse objects that can't be learned, judged or tested for want of a scan that shows them.

    Parameters
    ----------
    shown : the names of the objects in each scan, by scan id
    names : of all objects
    fold : whether the split is one of several, which judge together: each has only to learn.

    Raises
    ------
    InputError
        About every object that no training, validation or test scan shows.
    """
    uses = {"training": split.train_ids}
    if not fold:
        uses |= {"validation": split.val_ids, "test": split.test_ids}
    complaints = []
    for name in names:
        lacking = [use for use, ids in uses.items() if not any(name in shown[i] for i in ids)]
        if not any(name in objects for objects in shown.values()):
            complaints.append(f"{name!r} is in no scan at all")
        elif lacking:
            complaints.append(f"{name!r} is in no {' and no '.join(lacking)} scan")
    if complaints:
        needed = "training scan of each fold" if fold else "training, validation and test scan"
        raise InputError(f"objects: each must be in at least one {needed}; {', '.join(complaints)}")


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


def specimen_of(scan_id: str, pattern: str) -> str:
    """Return the name of the specimen that a scan shows.

    Parameters
    ----------
    pattern : regular expression that matches an id from its beginning; its one group is the
        specimen's name.

    Raises
    ------
    InputError
        It doesn't match the id, or the name would be empty.
    """
    found = re.match(pattern, scan_id)
    if found is None or not found[1]:
        raise InputError(
            f"specimen_pattern: it must find a specimen's name in the id of every scan; in "
            f"{scan_id!r} {pattern!r} finds none"
        )
    return found[1]


def specimens_of(scan_ids: Iterable[str], pattern: str) -> dict[str, str]:
    """Return each scan's specimen by scan id, sorted; parameters and errors as `specimen_of`."""
    return {scan_id: specimen_of(scan_id, pattern) for scan_id in sorted(scan_ids)}


def group_by_specimen(scan_ids: Iterable[str], pattern: str) -> dict[str, list[str]]:
    """Return the sorted scan ids of each specimen, by the specimen's name, sorted too.

    Parameters and errors as `specimen_of`.
    """
    groups: dict[str, list[str]] = {}
    for scan_id, specimen in specimens_of(scan_ids, pattern).items():
        groups.setdefault(specimen, []).append(scan_id)
    return dict(sorted(groups.items()))


def _choose(wanted: int | ScanIds, free: list[str]) -> list[str]:
    """Return so many of the last free ids, or the ids that are named."""
    if isinstance(wanted, int):
        return free[max(0, len(free) - wanted) :]
    return [str(scan_id) for scan_id in wanted]


def _check_named(key: str, chosen: list[str], ids: list[str]) -> None:
    for scan_id in chosen:
        if scan_id not in ids:
            raise InputError(f"{key}: {scan_id!r} is not among the scans; they are {_some(ids)}")


def _some(ids: list[str]) -> str:
    shown = ", ".join(ids[:5])
    return shown if len(ids) <= 5 else f"{shown} ... {ids[-1]} ({len(ids)} in all)"
