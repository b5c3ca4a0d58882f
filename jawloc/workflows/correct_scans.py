"""review.csv -> corrected scans in the cache, and what is known of them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jawloc.config import Config
from jawloc.errors import InputError
from jawloc.inference.comparison import counted
from jawloc.scans.cache import ExampleFile, build_cache, open_example
from jawloc.scans.convert.corrected import CORRECTED_FOLDER, write_corrected
from jawloc.scans.points.corrections import CorrectedScan, Corrections, read_corrections
from jawloc.training.distributed import SINGLE_PROCESS, Processes
from jawloc.training.provenance import (
    PURPOSES,
    Provenance,
    ScanIdentity,
    ScanUse,
    identify,
    use_of,
)
from jawloc.workflows.corrections import CorrectedExample, CorrectedSplit


def read_reviews(config: Config) -> Corrections:
    """Read the reviews that the config names; errors as `read_corrections`."""
    own = config.corrections
    files = [config.base / name for name in own.corrections]
    return read_corrections(files, list(config.cache.objects), own.accepted_weight)


def corrected_folder(config: Config) -> Path:
    """Return the folder of the labelled DICOMs that are made of corrected scans."""
    return config.base / CORRECTED_FOLDER


def correct_scans(
    config: Config,
    corrections: Corrections,
    examples: Mapping[str, ExampleFile],
    processes: Processes = SINGLE_PROCESS,
    earlier: Provenance | None = None,
) -> list[CorrectedExample]:
    """Make labelled DICOMs of corrected scans, downsample them, and find their copies.

    Parameters
    ----------
    examples : of the scans of `dicom_dirs`, by scan id
    earlier : the record of the earlier model, which says what that used each scan for

    Raises
    ------
    InputError
        If a scan can't be read, a position lies outside its scan, or a scan has the name of another
        one in `dicom_dirs`.
    """
    if not corrections.scans:
        return []
    shown = processes.is_main
    with processes.main_process_first():
        written = write_corrected(corrections.scans, corrected_folder(config), progress=shown)
        report = build_cache(written, config.cache, base=config.base, progress=shown)
    files = [open_example(path, config.cache.objects) for path in report.cached]
    for file, made in zip(files, written, strict=True):
        if file.source.resolve() != made.resolve():
            raise InputError(
                f"{file.cached.name}: one training at a time may use a cache with its own "
                f"corrections of a scan; another one has {file.source} in it"
            )
    known = {scan_id: _identity(file, config) for scan_id, file in examples.items()}
    found, seen = list[CorrectedExample](), list[tuple[CorrectedScan, ScanIdentity]]()
    for scan, file in zip(corrections.scans, files, strict=True):
        identity = _identity(file, config)
        copies = frozenset(i for i, other in known.items() if other.is_same_image(identity))
        if file.scan_id in known and file.scan_id not in copies:
            raise InputError(
                f"{scan.positions[0].source}: two scans must not share an id (file name); "
                f"{scan.path} is another scan than {examples[file.scan_id].source}"
            )
        for other, image in seen:
            if image.is_same_image(identity):
                raise InputError(
                    f"{scan.positions[0].source}: a scan must be reviewed under one name; "
                    f"{other.path} and {scan.path} are copies"
                )
        seen.append((scan, identity))
        use = _earlier_use([identity, *(known[i] for i in copies)], earlier)
        found.append(CorrectedExample(scan, file, copies, use))
    return found


def _identity(file: ExampleFile, config: Config) -> ScanIdentity:
    pattern = config.split.specimen_pattern
    return identify(file.scan_id, file.content_hash, file.read().image, pattern)


def _earlier_use(identities: Iterable[ScanIdentity], earlier: Provenance | None) -> ScanUse:
    """Return what the earlier model used any of a scan's copies for, the strongest use first."""
    order: list[ScanUse] = [*PURPOSES[:2], "specimen", *PURPOSES[2:], "new", "unknown"]
    uses = {use_of(earlier, identity) for identity in identities}
    # every test scan calibrates, too
    if earlier is not None and "calibration" in uses:
        tested = {*earlier.ids("test")}
        same = (earlier.known_as(identity) for identity in identities)
        if any(one is not None and one.scan_id in tested for one in same):
            return "test"
    return min(uses, key=order.index)


def refuse_without_corrections(corrections: Corrections, changed: CorrectedSplit) -> None:
    """Raise InputError if reviews were named, and none of their positions may train."""
    if corrections.scans and not changed.records:
        raise InputError(
            f"corrections: at least one position must be of a scan that may train; "
            f"{'; '.join(changed.kept_out)}"
        )


def tell_corrections(corrections: Corrections, changed: CorrectedSplit) -> None:
    """Print which corrections train, which do not and why, and which tested an earlier model."""
    if not corrections.scans:
        return
    records = changed.records
    moved = sum(record.verdict == "moved" for record in records)
    scans = {record.scan_id for record in records}
    parts = [f"{moved} corrected"]
    if len(records) > moved:
        weight = min(record.weight for record in records)
        parts.append(f"{len(records) - moved} accepted, which count {weight:g} each")
    trained = f"{counted(len(records), 'position')} in {counted(len(scans), 'scan')}"
    lines = [f"{trained} train: {', '.join(parts)}"]
    if corrections.unused:
        unused = ", ".join(f"{number} {reason}" for reason, number in corrections.unused.items())
        lines.append(f"not used: {unused}")
    lines += changed.kept_out
    lines += earlier_test_sentences(changed)
    for line in lines:
        print(f"corrections: {line}", file=sys.stderr)


def earlier_test_sentences(changed: CorrectedSplit) -> list[str]:
    """Return, in a sentence, which scans train now that tested the earlier model."""
    tested = earlier_test_ids(changed)
    if not tested:
        return []
    now = "train" if len(tested) > 1 else "trains"
    return [
        f"{', '.join(tested)} tested the earlier model and {now} now: its reported error is of "
        f"other scans than the new one's"
    ]


def earlier_test_ids(changed: CorrectedSplit) -> Sequence[str]:
    """Return the ids of the scans that train now and tested the earlier model."""
    return sorted({r.scan_id for r in changed.records if r.earlier_use == "test"})
