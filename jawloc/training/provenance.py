"""What a model has seen: the record that its file carries of the scans that it learned from.

An error is fair only on a scan that neither trained a network nor chose its weights, and that is
not of a specimen which did. Only the model itself can say which scans those are: names of files
change, folders are copied, and a scan may come back in another format. So the record holds, of each
scan, its id, its specimen, the hash of its full-size content and a small fingerprint of its image.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from jawloc import __version__
from jawloc.scans.cache import ExampleFile
from jawloc.training.splits import SPECIMEN_PATTERN

# What a network used a scan for, the strongest first.
Purpose = Literal["train", "validation", "calibration", "test"]
PURPOSES: tuple[Purpose, ...] = ("train", "validation", "calibration", "test")
# What a model has to do with a scan: as above; or it learned from another scan of the specimen;
# or nothing; or its file doesn't say.
ScanUse = Literal["train", "validation", "specimen", "calibration", "test", "new", "unknown"]
# Uses that make errors optimistic.
LEARNED_FROM: frozenset[ScanUse] = frozenset({"train", "validation", "specimen"})

FINGERPRINT_SHAPE = (16, 8, 8)  # blocks along (z, y, x)
GREY_RANGE = (1.0, 99.0)  # percentiles of the blocks that become 0 and 255
# Root mean square difference of two fingerprints, in steps of 1/255 of the grey range, up to which
# they are of one image: what rounding to another format leaves is below 1; of 120 hippocampus
# volumes, which look much alike, no two differ by less than 20.
SAME_IMAGE = 3.0


@dataclass(frozen=True, eq=False)
class ScanIdentity:
    """By what a scan is known again.

    Attributes
    ----------
    scan_id : the name of its file, without the ending
    specimen : what it is a scan of
    content_hash : SHA-256 of the full-size scan and mask, as `jawloc.scans.downsample` computes it
    fingerprint : array of uint8, shape FINGERPRINT_SHAPE
    """

    scan_id: str
    specimen: str
    content_hash: str
    fingerprint: np.ndarray

    def is_same_image(self, other: ScanIdentity) -> bool:
        """Say whether both are of one image, whatever its file's name, format or mask."""
        if self.content_hash and self.content_hash == other.content_hash:
            return True
        difference = self.fingerprint.astype(float) - other.fingerprint
        return bool(np.sqrt(np.mean(difference**2)) <= SAME_IMAGE)


@dataclass(frozen=True)
class NetworkRecord:
    """What one network of a model has seen.

    Attributes
    ----------
    scan_ids : by purpose; what trained it, chose its weights, calibrated and tested it
    sigma_voxels : that the kept weights of each of its stages were trained at, in downsampled
        voxels, the last stage's last
    run_id : of the tracking store, where a run of its own trained it
    """

    scan_ids: Mapping[Purpose, tuple[str, ...]]
    sigma_voxels: tuple[float, ...]
    run_id: str | None = None


@dataclass(frozen=True)
class Provenance:
    """What a model has seen, all its networks together.

    Attributes
    ----------
    scans : by scan id, every scan that any network's record names
    networks : one record a network, in the order of the model's
    specimen_pattern : regular expression that told the specimen from a scan's id
    run_id : of the tracking store: the run that made the model
    jawloc_version : that trained it
    """

    scans: Mapping[str, ScanIdentity]
    networks: tuple[NetworkRecord, ...]
    specimen_pattern: str
    run_id: str | None
    jawloc_version: str = __version__

    def ids(self, purpose: Purpose) -> tuple[str, ...]:
        """Return the ids of the scans that any network used for a purpose, sorted."""
        return tuple(sorted({i for n in self.networks for i in n.scan_ids.get(purpose, ())}))

    def known_as(self, scan: ScanIdentity) -> ScanIdentity | None:
        """Return the recorded scan that is this image, if there is one."""
        return next((s for s in self.scans.values() if s.is_same_image(scan)), None)

    def identify(self, scan_id: str, content_hash: str, image: np.ndarray) -> ScanIdentity:
        """Return a scan's identity; a recorded image keeps the specimen that the record says.

        Another image under a recorded scan's name is of a specimen of its own, unless the name
        itself says which specimen it is of.

        Parameters
        ----------
        image : array, shape (z, y, x), downsampled
        """
        found = identify(scan_id, content_hash, image, self.specimen_pattern)
        recorded = self.known_as(found)
        if recorded is not None:
            return replace(found, specimen=recorded.specimen)
        if scan_id in self.scans and found.specimen == scan_id:
            return replace(found, specimen=f"{found.specimen} (another scan of this name)")
        return found

    def use_of(self, scan: ScanIdentity) -> ScanUse:
        """Say what the model has to do with a scan.

        The image decides, never the name alone: a copy under another name is the same scan, and
        another image under a known scan's name is a new one. Names count only where they say that
        two scans are of one specimen. Of several recorded copies, the use nearest to training
        counts.
        """
        copies = {s.scan_id for s in self.scans.values() if s.is_same_image(scan)}
        if copies:
            purposes = [p for p in PURPOSES if copies & {*self.ids(p)}]
            own: ScanUse = purposes[0] if purposes else "new"
            if own in ("train", "validation"):
                return own
        else:
            own = "new"
        learned = {*self.ids("train"), *self.ids("validation")}
        if self._has_sibling(scan, learned - copies):
            return "specimen"
        if own == "new" and self._has_sibling(scan, self.ids("calibration")):
            return "calibration"
        return own

    def shares_name_only(self, scan: ScanIdentity) -> bool:
        """Say whether a scan has the name of one that the model learned from, but other content."""
        learned = {*self.ids("train"), *self.ids("validation")}
        return scan.scan_id in learned and self.known_as(scan) is None

    def _has_sibling(self, scan: ScanIdentity, ids: Iterable[str]) -> bool:
        named_after_itself = {scan.scan_id} if scan.specimen == scan.scan_id else set()
        others = (self.scans[i] for i in {*ids} - named_after_itself)
        return any(other.specimen == scan.specimen for other in others)


def use_of(provenance: Provenance | None, scan: ScanIdentity) -> ScanUse:
    """Say what a model has to do with a scan; `unknown` where its file holds no record."""
    return "unknown" if provenance is None else provenance.use_of(scan)


# Making it


def identify(
    scan_id: str, content_hash: str, image: np.ndarray, specimen_pattern: str = SPECIMEN_PATTERN
) -> ScanIdentity:
    """Return a scan's identity.

    Parameters
    ----------
    image : array, shape (z, y, x), downsampled
    specimen_pattern : see `specimen_name`
    """
    specimen = specimen_name(scan_id, specimen_pattern)
    return ScanIdentity(scan_id, specimen, content_hash, image_fingerprint(image))


def specimen_name(scan_id: str, pattern: str) -> str:
    """Return what a scan is of: as its id says, or, where the pattern finds nothing, the id."""
    found = re.match(pattern, scan_id)
    return found[1] if found is not None and found[1] else scan_id


def image_fingerprint(image: np.ndarray) -> np.ndarray:
    """Return how bright a downsampled image (z, y, x) is, coarsely.

    Gain and offset of the grey values leave no trace, nor do voxel sizes, masks and formats.
    Fingerprints of one downsampled size can be compared.

    Returns
    -------
    array of uint8, shape FINGERPRINT_SHAPE: block means, 0 and 255 at `GREY_RANGE`
    """
    values = torch.from_numpy(np.asarray(image, np.float32))
    blocks = F.adaptive_avg_pool3d(values[None, None], FINGERPRINT_SHAPE)[0, 0].numpy()
    low, high = np.percentile(blocks, GREY_RANGE)  # of the blocks, which hold hardly any noise
    scaled = ((blocks - low) / max(high - low, 1e-6)).clip(0, 1)
    return np.rint(255 * scaled).astype(np.uint8)


def record_network(
    uses: Mapping[Purpose, Sequence[ExampleFile]],
    sigma_voxels: Sequence[float],
    *,
    specimen_pattern: str,
    run_id: str | None,
) -> Provenance:
    """Record what one network has seen; its scans are read once, downsampled, for fingerprints."""
    files = {file.scan_id: file for of_use in uses.values() for file in of_use}
    scans = {
        scan_id: identify(scan_id, file.content_hash, file.read().image, specimen_pattern)
        for scan_id, file in files.items()
    }
    ids = {purpose: tuple(file.scan_id for file in of_use) for purpose, of_use in uses.items()}
    network = NetworkRecord(ids, tuple(sigma_voxels), run_id)
    return Provenance(scans, (network,), specimen_pattern, run_id)


def joined(every: Sequence[Provenance | None], run_id: str | None) -> Provenance | None:
    """Return the record of several models' networks together; None where one has no record."""
    known = [one for one in every if one is not None]
    if not known or len(known) < len(every):
        return None
    scans = {scan_id: scan for one in known for scan_id, scan in one.scans.items()}
    networks = tuple(network for one in known for network in one.networks)
    return Provenance(scans, networks, known[0].specimen_pattern, run_id)


# As plain values and tensors, which a model file may hold


def to_plain(provenance: Provenance) -> dict[str, Any]:
    """Return a record as plain values and one tensor."""
    scans = list(provenance.scans.values())
    shape = (len(scans), *FINGERPRINT_SHAPE)
    prints = np.stack([s.fingerprint for s in scans]) if scans else np.empty(shape, np.uint8)
    return {
        "scans": [[s.scan_id, s.specimen, s.content_hash] for s in scans],
        "fingerprints": torch.from_numpy(prints),
        "networks": [
            {
                "scan_ids": {purpose: list(ids) for purpose, ids in network.scan_ids.items()},
                "sigma_voxels": [float(sigma) for sigma in network.sigma_voxels],
                "run_id": network.run_id,
            }
            for network in provenance.networks
        ],
        "specimen_pattern": provenance.specimen_pattern,
        "run_id": provenance.run_id,
        "jawloc_version": provenance.jawloc_version,
    }


def from_plain(content: Mapping[str, Any]) -> Provenance:
    """Return the record that `to_plain` made plain."""
    prints = content["fingerprints"].numpy()
    named = zip(content["scans"], prints, strict=True)
    scans = {one[0]: ScanIdentity(one[0], one[1], one[2], own) for one, own in named}
    networks = tuple(
        NetworkRecord(
            {purpose: tuple(ids) for purpose, ids in network["scan_ids"].items()},
            tuple(network["sigma_voxels"]),
            network["run_id"],
        )
        for network in content["networks"]
    )
    return Provenance(
        scans,
        networks,
        content["specimen_pattern"],
        content["run_id"],
        content["jawloc_version"],
    )
