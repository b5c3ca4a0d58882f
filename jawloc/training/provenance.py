"""The record in a model's file of the scans that its networks were trained on.

An error is fair only on a scan that neither trained a network nor validated its training, and
whose specimen did neither. Only the model itself can tell which scans those are: file names change,
folders are copied, and a scan may be converted to another format. So the record holds, of each
scan, its id, its specimen, the hash of its full-size content and a small fingerprint of its image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter

from jawloc import __version__
from jawloc.scans.cache import ExampleFile
from jawloc.training.intensity import grey_range
from jawloc.training.splits import SPECIMEN_PATTERN

# What a network used a scan for, the strongest first.
Purpose = Literal["train", "validation", "calibration", "test"]
PURPOSES: tuple[Purpose, ...] = ("train", "validation", "calibration", "test")
# What a model used a scan for: as above; or it learned from another scan of the specimen; or
# nothing; or its file has no record.
ScanUse = Literal["train", "validation", "specimen", "calibration", "test", "new", "unknown"]
# Uses that make errors optimistic.
LEARNED_FROM: frozenset[ScanUse] = frozenset({"train", "validation", "specimen"})

FINGERPRINT_SHAPE = (16, 8, 8)  # blocks along (z, y, x)
GREY_RANGE = (1.0, 99.0)  # percentiles of the blocks that become 0 and 255
# Root mean square difference of two fingerprints, in steps of 1/255 of the grey range, up to which
# they are of one image: what rounding to another format leaves is below 1; of 120 hippocampus
# volumes, which are much alike, no two differ by less than 20.
SAME_IMAGE = 3.0


@dataclass(frozen=True, eq=False)
class ScanIdentity:
    """What identifies a scan."""

    scan_id: str  # the name of its file, without the ending
    specimen: str
    content_hash: str  # SHA-256 of the full-size scan and mask (`jawloc.scans.downsample`)
    fingerprint: np.ndarray  # uint8, shape FINGERPRINT_SHAPE

    def is_same_image(self, other: ScanIdentity) -> bool:
        """Return whether both are of one image, whatever its file's name, format or mask."""
        if self.content_hash and self.content_hash == other.content_hash:
            return True
        difference = self.fingerprint.astype(float) - other.fingerprint
        return bool(np.sqrt(np.mean(difference**2)) <= SAME_IMAGE)


@dataclass(frozen=True)
class NetworkRecord:
    """The scans and sigmas of one network of a model."""

    scan_ids: Mapping[Purpose, tuple[str, ...]]
    sigma_voxels: tuple[float, ...]  # of each stage's kept weights, in downsampled voxels
    run_id: str | None = None  # of the tracking store, where a run of its own trained the network


@dataclass(frozen=True)
class CorrectionRecord:
    """A position that a person corrected or accepted, and that trained a model."""

    scan_id: str
    object_name: str
    verdict: str  # as in review.csv: `moved` or `accepted`
    weight: float  # in the loss
    reviewer: str
    time: str  # of the decision, ISO 8601 in UTC
    model: str  # that was reviewed, as `jawloc locate` was given it
    earlier_use: ScanUse  # what the earlier model, whose errors were compared, used the scan for


@dataclass(frozen=True)
class Provenance:
    """The scans of all networks of a model."""

    scans: Mapping[str, ScanIdentity]  # by scan id, every scan that any network's record names
    networks: tuple[NetworkRecord, ...]
    specimen_pattern: str  # regular expression that finds the specimen in a scan's id
    run_id: str | None  # of the tracking store: the run that made the model
    jawloc_version: str = __version__  # that trained it
    corrections: tuple[CorrectionRecord, ...] = ()  # that trained any of the networks

    def ids(self, *purposes: Purpose) -> tuple[str, ...]:
        """Return the ids of the scans that any network used for one of the purposes, sorted."""
        used = (n.scan_ids.get(purpose, ()) for n in self.networks for purpose in purposes)
        return tuple(sorted({scan_id for ids in used for scan_id in ids}))

    def known_as(self, scan: ScanIdentity) -> ScanIdentity | None:
        """Return the recorded scan with the same image, if there is one."""
        return next((s for s in self.scans.values() if s.is_same_image(scan)), None)

    def identify(self, scan_id: str, content_hash: str, image: np.ndarray) -> ScanIdentity:
        """Return the identity of a scan with this downsampled image (z, y, x).

        A recorded image keeps its recorded specimen. Another image under a recorded scan's name is
        of a specimen of its own, unless the name contains the specimen's.
        """
        found = identify(scan_id, content_hash, image, self.specimen_pattern)
        recorded = self.known_as(found)
        if recorded is not None:
            return replace(found, specimen=recorded.specimen)
        if scan_id in self.scans and found.specimen == scan_id:
            return replace(found, specimen=f"{found.specimen} (another scan of this name)")
        return found

    def use_of(self, scan: ScanIdentity) -> ScanUse:
        """Return what the model used a scan for.

        The image decides: a copy under another name is the same scan, and another image under a
        recorded name is a new one. Names only tell whether two scans are of one specimen. Of
        several recorded copies, the use nearest to training counts.
        """
        copies = {s.scan_id for s in self.scans.values() if s.is_same_image(scan)}
        purposes = [purpose for purpose in PURPOSES if copies & {*self.ids(purpose)}]
        own: ScanUse = purposes[0] if purposes else "new"
        if own in ("train", "validation"):
            return own
        if self._has_sibling(scan, {*self.ids("train", "validation")} - copies):
            return "specimen"
        if own == "new" and self._has_sibling(scan, self.ids("calibration")):
            return "calibration"
        return own

    def shares_name_only(self, scan: ScanIdentity) -> bool:
        """Return whether a scan has the name, but not the image, of one that was learned from."""
        return scan.scan_id in self.ids("train", "validation") and self.known_as(scan) is None

    def _has_sibling(self, scan: ScanIdentity, ids: Iterable[str]) -> bool:
        named_after_itself = {scan.scan_id} if scan.specimen == scan.scan_id else set()
        return scan.specimen in {self.scans[i].specimen for i in {*ids} - named_after_itself}


def use_of(provenance: Provenance | None, scan: ScanIdentity) -> ScanUse:
    """Return what a model used a scan for; `unknown` if its file has no record."""
    return "unknown" if provenance is None else provenance.use_of(scan)


def identify(
    scan_id: str, content_hash: str, image: np.ndarray, specimen_pattern: str = SPECIMEN_PATTERN
) -> ScanIdentity:
    """Return the identity of a scan with this downsampled image (z, y, x)."""
    specimen = specimen_name(scan_id, specimen_pattern)
    return ScanIdentity(scan_id, specimen, content_hash, image_fingerprint(image))


def specimen_name(scan_id: str, pattern: str) -> str:
    """Return the name of a scan's specimen; the scan's id if the pattern finds none."""
    found = re.match(pattern, scan_id)
    return found[1] if found is not None and found[1] else scan_id


def image_fingerprint(image: np.ndarray) -> np.ndarray:
    """Return block means of a downsampled image (z, y, x): uint8, shape FINGERPRINT_SHAPE.

    0 and 255 are at `GREY_RANGE`, so that gain and offset of the grey values don't matter.
    Fingerprints of one downsampled size can be compared.
    """
    values = torch.from_numpy(np.asarray(image, np.float32))
    blocks = F.adaptive_avg_pool3d(values[None, None], FINGERPRINT_SHAPE)[0, 0].numpy()
    low, high = np.percentile(blocks, GREY_RANGE)  # of the blocks, which hold hardly any noise
    scaled = ((blocks - low) / grey_range(float(low), float(high))).clip(0, 1)
    return np.rint(255 * scaled).astype(np.uint8)


def record_network(
    uses: Mapping[Purpose, Sequence[ExampleFile]],
    sigma_voxels: Sequence[float],
    *,
    specimen_pattern: str,
    run_id: str | None,
    corrections: tuple[CorrectionRecord, ...] = (),
) -> Provenance:
    """Record one network's scans; each downsampled image is read once, for its fingerprint."""
    files = {file.scan_id: file for of_use in uses.values() for file in of_use}
    scans = {
        scan_id: identify(scan_id, file.content_hash, file.read().image, specimen_pattern)
        for scan_id, file in files.items()
    }
    ids = {purpose: tuple(file.scan_id for file in of_use) for purpose, of_use in uses.items()}
    network = NetworkRecord(ids, tuple(map(float, sigma_voxels)), run_id)
    return Provenance(scans, (network,), specimen_pattern, run_id, corrections=corrections)


def joined(every: Sequence[Provenance | None], run_id: str | None) -> Provenance | None:
    """Return the joint record of several models' networks; None if a model has no record."""
    known = [one for one in every if one is not None]
    if not known or len(known) < len(every):
        return None
    scans = {scan_id: scan for one in known for scan_id, scan in one.scans.items()}
    networks = tuple(network for one in known for network in one.networks)
    corrections = tuple(dict.fromkeys(c for one in known for c in one.corrections))
    pattern = known[0].specimen_pattern
    return Provenance(scans, networks, pattern, run_id, corrections=corrections)


def to_plain(provenance: Provenance) -> dict[str, Any]:
    """Return a record as plain values and one tensor, which a model file may hold."""
    scans = list(provenance.scans.values())
    prints = [scan.fingerprint for scan in scans] or np.empty((0, *FINGERPRINT_SHAPE))
    return {
        "scans": [[s.scan_id, s.specimen, s.content_hash] for s in scans],
        "fingerprints": torch.from_numpy(np.asarray(prints, np.uint8)),
        "networks": [asdict(network) for network in provenance.networks],
        "specimen_pattern": provenance.specimen_pattern,
        "run_id": provenance.run_id,
        "jawloc_version": provenance.jawloc_version,
        "corrections": [asdict(correction) for correction in provenance.corrections],
    }


def from_plain(content: Mapping[str, Any]) -> Provenance:
    """Return the record that `to_plain` made plain."""
    prints = content["fingerprints"].numpy()
    named = zip(content["scans"], prints, strict=True)
    return Provenance(
        {i: ScanIdentity(i, specimen, code, own) for (i, specimen, code), own in named},
        TypeAdapter(tuple[NetworkRecord, ...]).validate_python(content["networks"]),
        content["specimen_pattern"],
        content["run_id"],
        content["jawloc_version"],
        TypeAdapter(tuple[CorrectionRecord, ...]).validate_python(content.get("corrections", ())),
    )
