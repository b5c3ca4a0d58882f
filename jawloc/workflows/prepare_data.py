"""The scans of a run: found, checked, downsampled into the cache, and split by their use."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from jawloc.config import Config, change_config
from jawloc.errors import InputError
from jawloc.geometry import Shape
from jawloc.inference.quantities import counted
from jawloc.scans.cache import ExampleFile, build_cache, largest_size, open_example
from jawloc.scans.cache.layout import DEFAULT_SIZE
from jawloc.scans.labelled import find_labelled_dicoms
from jawloc.scans.messages import names_shown
from jawloc.training.distributed import SINGLE_PROCESS, Processes
from jawloc.training.presence_training import warn_without_extents
from jawloc.training.provenance import CorrectionRecord, Provenance
from jawloc.training.splits import (
    Split,
    check_objects,
    choose_folds,
    choose_split,
    cross_validation_splits,
    group_by_specimen,
    specimens_of,
    warn_of_divided_specimens,
)
from jawloc.workflows.correct_scans import (
    correct_scans,
    corrected_folder,
    read_reviews,
    refuse_without_corrections,
    tell_corrections,
)
from jawloc.workflows.corrections import CorrectedSplit, add_corrected

FEW_SPECIMENS = 8  # with fewer, errors are much larger: experiments/few_scans


@dataclass(frozen=True)
class Data:
    """The examples of a run and what each is used for.

    Of several divisions of the same scans (`folds`), each has its own corrected scans; the split
    and examples of all together are those without corrections.
    """

    split: Split
    examples: dict[str, ExampleFile]  # by scan id
    full_size_scans_read: int = 0  # to bring the cache up to date
    corrections: tuple[CorrectionRecord, ...] = ()  # of every corrected position that trains
    kept_out: tuple[str, ...] = ()  # why a corrected scan does not train, a sentence a scan
    folds: tuple[Data, ...] = ()

    def select(self, ids: Sequence[str]) -> list[ExampleFile]:
        """Return the examples of these scan ids."""
        return [self.examples[scan_id] for scan_id in ids]

    def files(self) -> dict[tuple[str, str], ExampleFile]:
        """Return every example by scan id and key; of a scan, folds have labels and corrections."""
        parts = (self, *self.folds)
        return {(e.scan_id, e.key): e for part in parts for e in part.examples.values()}

    def fingerprint(self) -> dict[str, str]:
        """Return the ids and content keys of the scans of each split, as one text a split.

        The key of a corrected scan changes with its labels, too: some may be those of its copy in
        `dicom_dirs`. Corrections have a text of their own, which changes with every decision.
        """
        own = [{**asdict(record), "earlier_use": ""} for record in self.corrections]
        digest = hashlib.sha256(repr(own).encode(errors="surrogateescape")).hexdigest()[:8]
        corrected = {"corrected_positions": f"{len(own)} ({digest})"} if own else {}
        known = {(e.scan_id, e.key) for e in self.examples.values()}
        if own and (of_folds := sorted(self.files().keys() - known)):
            corrected["corrected_ids"] = " ".join(f"{i}:{key[:12]}" for i, key in of_folds)
        changed = {record.scan_id for record in self.corrections}
        return corrected | {
            name: " ".join(
                f"{e.scan_id}:{(_key_with_labels(e) if e.scan_id in changed else e.key)[:12]}"
                for e in self.select(ids)
            )
            for name, ids in vars(self.split).items()
        }


def _key_with_labels(example: ExampleFile) -> str:
    labels = example.points_voxels.round(6).tolist(), example.label_weights
    return hashlib.sha256(repr((example.key, labels)).encode()).hexdigest()


def find_scans(config: Config) -> list[Path]:
    """Return the labelled DICOMs that the config names; those of a review.csv are made first."""
    folders = [config.base / d for d in config.cache.dicom_dirs]
    if not folders:
        raise InputError("dicom_dirs: name at least one folder with labelled DICOMs; received []")
    made = config.base / config.cache.cache_dir, corrected_folder(config)
    return find_labelled_dicoms(folders, exclude=made)


def decide_size(config: Config) -> Config:
    """Return the config with a `downsampled_dicom_size` of "auto" decided by the scans' headers.

    It is the default one, on each axis no longer than the shortest scan. The config that is
    returned has it as if the user had set it, so that it is logged and a resumed run needs it.
    """
    if config.cache.downsampled_dicom_size != "auto":
        return config
    size = largest_size(find_scans(config), DEFAULT_SIZE)
    if os.environ.get("RANK", "0") == "0":  # the first of torchrun's processes
        note = "" if size == DEFAULT_SIZE else "; smaller scans than that can't be located"
        print(f"downsampled_dicom_size: auto is {list(size)}{note}", file=sys.stderr)
    return change_config(config, {"downsampled_dicom_size": list(size)}, source="the scans")


def prepare_data(
    config: Config,
    processes: Processes = SINGLE_PROCESS,
    *,
    folds: int | None = None,
    warn: bool = True,
    earlier: Provenance | None = None,
) -> Data:
    """Check the scans, bring the cache up to date, and find the examples in it.

    Parameters
    ----------
    folds : number of folds that the training and validation scans are divided into, if any. A
        corrected scan trains in every fold but those that validate on its specimen.
    warn : whether to warn of specimens that the config's lists of ids divide, and of scans without
        masks
    earlier : the record of the model before this one, where corrections of its positions train
    """
    corrections, scans = read_reviews(config), find_scans(config)
    split = choose_split([path.stem for path in scans], config.split)
    pattern = config.split.specimen_pattern
    splits = (split,) if folds is None else choose_folds(split, folds, pattern)
    if warn and processes.is_main:
        # folds divide no specimens but between the test scans and all others: one shows it
        warn_of_divided_specimens(splits[0], pattern)
    examples, read = _examples(config, scans, splits, processes, folds=folds is not None)
    corrected = correct_scans(config, corrections, examples, processes, earlier)
    every = [add_corrected(each, examples, corrected, pattern) for each in splits]
    # every scan but those that test trains in some fold
    training = replace(split, train_ids=(*split.train_ids, *split.val_ids), val_ids=())
    told = every[0] if folds is None else add_corrected(training, examples, corrected, pattern)
    refuse_without_corrections(corrections, told)
    data = _with_corrected(told, read)
    if folds is not None:
        own = tuple(_with_corrected(each, read) for each in every)
        data = replace(data, split=split, examples=examples, folds=own)
    if warn and processes.is_main:
        tell_corrections(corrections, told)
        warn_without_extents(data.select(data.split.train_ids), config.presence_classifier)
        tell_copies([*examples.values()], pattern)
        tell_small_scans([*examples.values()], config.crop.crop_size)
        tell_few_scans(data.split.train_ids, pattern)
    return data


def _with_corrected(changed: CorrectedSplit, read: int) -> Data:
    return Data(changed.split, changed.examples, read, changed.records, changed.kept_out)


def prepare_folds(
    config: Config, folds: int, *, earlier: Provenance | None = None
) -> tuple[Data, ...]:
    """Prepare the scans of a cross-validation; return the data of each fold.

    A corrected scan trains in every fold but those that test its specimen or validate on it.
    """
    corrections, scans = read_reviews(config), find_scans(config)
    splits = cross_validation_splits([path.stem for path in scans], folds, config.split)
    examples, read = _examples(config, scans, splits, SINGLE_PROCESS, folds=True)
    warn_without_extents(list(examples.values()), config.presence_classifier)
    tell_copies([*examples.values()], config.split.specimen_pattern)
    tell_small_scans([*examples.values()], config.crop.crop_size)
    tell_few_scans(splits[0].train_ids, config.split.specimen_pattern)
    corrected = correct_scans(config, corrections, examples, earlier=earlier)
    pattern = config.split.specimen_pattern
    every = [add_corrected(split, examples, corrected, pattern) for split in splits]
    records = tuple(dict.fromkeys(record for changed in every for record in changed.records))
    # that a fold keeps out its own test scans is no news
    told = replace(every[0], records=records, kept_out=every[0].kept_out if not records else ())
    refuse_without_corrections(corrections, told)
    tell_corrections(corrections, told)
    return tuple(_with_corrected(replace(changed, kept_out=()), read) for changed in every)


def tell_few_scans(train_ids: Sequence[str], pattern: str) -> None:
    """Print what to expect of a training on few specimens."""
    number = len(group_by_specimen(train_ids, pattern))
    if number < FEW_SPECIMENS:
        print(
            f"note: {counted(number, 'specimen')} will train; with 4, errors in new ones were up "
            f"to three times those with {FEW_SPECIMENS} (docs/training.md): label more, and look "
            f"at every position",
            file=sys.stderr,
        )


def tell_copies(examples: Sequence[ExampleFile], pattern: str) -> None:
    """Print the scans that are one and the same, image and labels, but count as two specimens."""
    specimens = specimens_of([example.scan_id for example in examples], pattern)
    same: dict[str, list[str]] = {}
    for example in examples:
        same.setdefault(example.content_hash, []).append(example.scan_id)
    copies = [ids for ids in same.values() if len({specimens[i] for i in ids}) > 1]
    if copies:
        print(
            f"note: the same scan has several names ({'; '.join(map(names_shown, copies))}): where "
            f"one of them trains and another tests, errors look better than they are in new scans; "
            f"keep one",
            file=sys.stderr,
        )


def tell_small_scans(examples: Sequence[ExampleFile], crop_size: Shape) -> None:
    """Print a note if the crop is larger than a scan, whose crop is then padded."""
    shapes = [example.source_grid.shape_zyx for example in examples]
    small = [shape for shape in shapes if any(np.greater(crop_size, shape))]
    if small:
        fits = np.minimum(crop_size, np.min(shapes, axis=0)).tolist()
        print(
            f"note: crop_size {list(crop_size)} is larger than {len(small)} of {len(shapes)} "
            f"scans, whose crops are padded; crop_size {fits} fits all",
            file=sys.stderr,
        )


def _examples(
    config: Config,
    scans: Sequence[Path],
    splits: Sequence[Split],
    processes: Processes,
    *,
    folds: bool,
) -> tuple[dict[str, ExampleFile], int]:
    """Return the examples by scan id, and how many full-size scans were read for them."""
    ids = [path.stem for path in scans]

    def check(shown: Sequence[frozenset[str]]) -> None:
        by_id = dict(zip(ids, shown, strict=True))
        for each in splits:
            check_objects(each, by_id, list(config.cache.objects), fold=folds)

    with processes.main_process_first():
        report = build_cache(
            scans, config.cache, base=config.base, progress=processes.is_main, check=check
        )
    examples = [open_example(path, config.cache.objects) for path in report.cached]
    return {example.scan_id: example for example in examples}, report.full_size_scans_read
