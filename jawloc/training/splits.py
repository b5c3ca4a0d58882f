"""Split scans into training, validation and test, and into folds; specimens stay whole.

Scans of one fish are alike. If some of them train and others test, the error tells how well the
network remembers fish, not how well it finds the jaw in a new one.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

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
    """Return a regular expression; raise ValueError unless it is one with exactly one group."""
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    if groups != 1:
        raise ValueError(f"{groups} groups")
    return pattern


@dataclass(frozen=True)
class SplitConfig:
    """Which scans validate and test: at least so many, by whole specimens, or these ids."""

    # At least so many, whole specimens before the test scans in the order of ids; or these ids.
    validation_scans: Annotated[int, Field(ge=1)] | ScanIds = 1
    # At least so many, whole specimens from the end of the sorted ids; or these ids.
    test_scans: Annotated[int, Field(ge=1)] | ScanIds = 1
    # A regular expression whose one group is what the ids of a specimen's scans have in common.
    specimen_pattern: Annotated[str, AfterValidator(checked_pattern)] = SPECIMEN_PATTERN


@dataclass(frozen=True)
class Split:
    """Scan ids by purpose; no id has two."""

    train_ids: tuple[str, ...]
    val_ids: tuple[str, ...]
    test_ids: tuple[str, ...]

    def titled(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Return the title and ids of the training and validation scans by short name."""
        return {"train": ("Training", self.train_ids), "val": ("Validation", self.val_ids)}


def specimens_of(scan_ids: Iterable[str], pattern: str) -> dict[str, str]:
    """Return the pattern's group by scan id, sorted; raise InputError if an id has none."""
    specimens = {}
    for scan_id in sorted(scan_ids):
        found = re.match(pattern, scan_id)
        if found is None or not found[1]:
            raise InputError(
                f"specimen_pattern: it must find a specimen's name in the id of every scan; in "
                f"{scan_id!r} {pattern!r} finds none"
            )
        specimens[scan_id] = found[1]
    return specimens


def group_by_specimen(scan_ids: Iterable[str], pattern: str) -> dict[str, list[str]]:
    """Return each specimen's scan ids by its name, all sorted; errors as `specimens_of`."""
    groups: dict[str, list[str]] = {}
    for scan_id, specimen in specimens_of(scan_ids, pattern).items():
        groups.setdefault(specimen, []).append(scan_id)
    return dict(sorted(groups.items()))


def choose_split(scan_ids: Sequence[str], config: SplitConfig) -> Split:
    """Split the scans; by default the last specimen tests and the last but one validates.

    Specimens are in the order of their last scan's id. A number of scans is taken from the end, by
    whole specimens until there are so many or more, without specimens that a list names; what is
    left of those trains. A list of ids is taken as it is.

    Raises InputError for too few scans or specimens, and for an unknown or repeated id.
    """
    ids = sorted(scan_ids)
    if len(ids) < MINIMUM_SCANS:
        raise InputError(
            f"dicom_dirs: training needs at least {MINIMUM_SCANS} scans (one each to train, "
            f"validate and test); found {len(ids)}"
        )
    wanted = {"validation_scans": config.validation_scans, "test_scans": config.test_scans}
    named = _named_ids(wanted, ids)
    specimens = group_by_specimen(ids, config.specimen_pattern)
    if all(isinstance(count, int) for count in wanted.values()) and len(specimens) < MINIMUM_SCANS:
        raise InputError(
            f"dicom_dirs: training needs scans of at least {MINIMUM_SCANS} specimens (one each to "
            f"train, validate and test); found {_in_words(specimens)}"
        )
    # in this order, the last scan tests where every specimen has one
    free = sorted((each for each in specimens.values() if named.isdisjoint(each)), key=max)
    test, val = _take(config.test_scans, free), _take(config.validation_scans, free)
    train = tuple(i for i in ids if i not in {*val, *test})
    split = Split(train, tuple(sorted(val)), tuple(sorted(test)))
    _check_sizes(split, wanted, specimens)
    return split


def _named_ids(wanted: Mapping[str, int | ScanIds], ids: Sequence[str]) -> set[str]:
    """Return the ids of all lists; refuse unknown ones and those named twice."""
    named: set[str] = set()
    lists = {key: value for key, value in wanted.items() if not isinstance(value, int)}
    for key, chosen in lists.items():
        for scan_id in map(str, chosen):
            if scan_id not in ids:
                shown = ", ".join(ids[:5])
                some = shown if len(ids) <= 5 else f"{shown} ... {ids[-1]} ({len(ids)} in all)"
                raise InputError(f"{key}: {scan_id!r} is not among the scans; they are {some}")
            if scan_id in named:
                raise InputError(
                    f"validation_scans, test_scans: a scan can be used for one purpose only; "
                    f"{scan_id!r} is named twice"
                )
            named.add(scan_id)
    return named


def _take(wanted: int | ScanIds, free: list[list[str]]) -> list[str]:
    """Return the ids of a list, or take specimens off the end until they have so many scans."""
    if not isinstance(wanted, int):
        return [str(scan_id) for scan_id in wanted]
    taken: list[str] = []
    while free and len(taken) < wanted:
        taken += free.pop()
    return taken


def _check_sizes(
    split: Split, wanted: Mapping[str, int | ScanIds], specimens: Mapping[str, Sequence[str]]
) -> None:
    train, val, test = map(len, (split.train_ids, split.val_ids, split.test_ids))
    scans = sum(map(len, specimens.values()))
    every = f"{scans} scans" if len(specimens) == scans else _in_words(specimens)
    if not train or not val or not test:
        raise InputError(
            f"validation_scans, test_scans: at least one scan must be left to train on, one to "
            f"validate and one to test; of {every} these leave {train}, {val} and {test}"
        )
    for key, found in {"validation_scans": val, "test_scans": test}.items():
        count = wanted[key]
        if isinstance(count, int) and found < count:
            raise InputError(
                f"{key}: {count} scans must be of specimens that no list of ids names; there are "
                f"{found} (specimen_pattern says which scans are of one)"
            )


def _in_words(specimens: Mapping[str, Sequence[str]]) -> str:
    scans = sum(map(len, specimens.values()))
    number = f"{len(specimens)} specimen{'' if len(specimens) == 1 else 's'}"
    return f"{number} in {scans} scans (specimen_pattern says which scans are of one)"


def warn_of_divided_specimens(split: Split, pattern: str) -> None:
    """Warn of the specimens whose scans a split uses for several purposes, as lists of ids can."""
    uses = {"training": split.train_ids, "validation": split.val_ids, "test": split.test_ids}
    divided = []
    for specimen, scans in group_by_specimen(sum(uses.values(), ()), pattern).items():
        parts = {use: [i for i in scans if i in ids] for use, ids in uses.items()}
        listed = [f"{use}: {', '.join(part)}" for use, part in parts.items() if part]
        if len(listed) > 1:
            divided.append(f"{specimen} ({'; '.join(listed)})")
    if divided:
        warnings.warn(
            f"validation_scans, test_scans: the lists divide specimens, so that errors may look "
            f"better than they are in new ones: {', '.join(divided)}; specimen_pattern says which "
            f"scans are of one specimen",
            stacklevel=2,
        )


def check_objects(
    split: Split, shown: Mapping[str, Collection[str]], names: Sequence[str], *, fold: bool = False
) -> None:
    """Raise InputError for the objects that no training, validation or test scan shows.

    `shown` holds the names of each scan's objects. Of a fold, only the training scans are checked.
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


def choose_folds(split: Split, folds: int, pattern: str) -> tuple[Split, ...]:
    """Divide all but the test scans into folds by specimen; each scan validates in one of them.

    Raises InputError for fewer than two folds, or fewer specimens than folds.
    """
    check_folds(folds)
    ids = sorted((*split.train_ids, *split.val_ids))
    specimens = group_by_specimen(ids, pattern)
    if len(specimens) < folds:
        raise InputError(
            f"--folds: there must be at least as many specimens that aren't for testing as folds; "
            f"received {folds} for {_in_words(specimens)}"
        )
    parts = [_scans(part) for part in _parts(specimens, folds)]
    return tuple(
        Split(tuple(i for i in ids if i not in part), part, split.test_ids) for part in parts
    )


def cross_validation_splits(
    scan_ids: Sequence[str], folds: int, config: SplitConfig
) -> tuple[Split, ...]:
    """Divide all scans into folds by specimen: each fold tests one part of them.

    The specimens that validate are the smallest of the part that is tested next, then those of the
    part after it: at least one, until they have as many scans as `validation_scans` says (or has
    ids). The others train. `test_scans` is ignored, as every scan is tested.

    Raises InputError for fewer than two folds, too few specimens, or a fold without training scans.
    """
    check_folds(folds)
    specimens = group_by_specimen(scan_ids, config.specimen_pattern)
    if len(specimens) < max(folds, MINIMUM_SCANS):
        raise InputError(
            f"--folds: there must be at least as many specimens as folds, and three (to train, "
            f"validate and test); received {folds} for {_in_words(specimens)}"
        )
    parts = _parts(specimens, folds)
    wanted = config.validation_scans
    least = max(1, wanted if isinstance(wanted, int) else len(wanted))
    return tuple(_split(parts[first:] + parts[:first], least) for first in range(folds))


def check_folds(folds: int) -> None:
    """Raise InputError for fewer than two folds."""
    if folds < LEAST_FOLDS:
        raise InputError(
            f"--folds: at least {LEAST_FOLDS}, as each fold is tested by a network trained on the "
            f"others; received {folds}"
        )


def _parts(specimens: Mapping[str, Sequence[str]], folds: int) -> list[list[Sequence[str]]]:
    """Divide specimens evenly: the largest first, each to the part with the fewest scans."""
    # here, as it is slow to import
    from sklearn.model_selection import GroupKFold  # type: ignore[import-untyped]

    # of specimens of one size it takes the last number first
    numbered = dict(enumerate(reversed(list(specimens.values()))))
    groups = [number for number, specimen in numbered.items() for _ in specimen]
    parts = [{groups[i] for i in part} for _, part in GroupKFold(folds).split(groups, None, groups)]
    return [[numbered[number] for number in sorted(part, reverse=True)] for part in parts]


def _split(parts: Sequence[Sequence[Sequence[str]]], least: int) -> Split:
    """Return the fold that the first part tests and the next parts validate."""
    tested, *others = parts
    # the smallest first: whole specimens then exceed the number least
    rest, validating = [each for part in others for each in sorted(part, key=len)], list[str]()
    while rest and len(validating) < least:
        validating += rest.pop(0)
    if not rest:
        why = "take more folds" if least == 1 else f"{least} scans to validate with leave none"
        raise InputError(
            f"validation_scans: with --folds, at least one specimen must be left to train on in "
            f"every fold; {why}"
        )
    return Split(_scans(rest), tuple(sorted(validating)), _scans(tested))


def _scans(specimens: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(sorted(scan_id for specimen in specimens for scan_id in specimen))
