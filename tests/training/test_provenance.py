"""Which scans a model was trained on is told by the scans themselves, not by their names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from jawloc import __version__
from jawloc.phantom import make_phantom
from jawloc.scans.downsample import downsample_image
from jawloc.training.provenance import (
    FINGERPRINT_SHAPE,
    SAME_IMAGE,
    CorrectionRecord,
    NetworkRecord,
    Provenance,
    ScanIdentity,
    from_plain,
    identify,
    image_fingerprint,
    joined,
    to_plain,
    use_of,
)
from jawloc.training.splits import SPECIMEN_PATTERN

SHAPE = (24, 12, 12)


def image_of(seed: int, shape=SHAPE) -> np.ndarray:
    """Return a small image of large, smooth blobs that only this seed gives."""
    coarse = torch.from_numpy(np.random.default_rng(seed).uniform(0, 1000, (1, 1, 6, 3, 3)))
    return torch.nn.functional.interpolate(coarse, shape, mode="trilinear")[0, 0].numpy()


def scan(scan_id: str, seed: int | None = None, content_hash: str | None = None) -> ScanIdentity:
    number = abs(hash(scan_id)) % 1000 if seed is None else seed
    return identify(scan_id, content_hash or f"hash of {number}", image_of(number))


def record(**uses: list[ScanIdentity]) -> Provenance:
    """Return the record of one network that used these scans."""
    scans = {one.scan_id: one for of_use in uses.values() for one in of_use}
    ids = {purpose: tuple(one.scan_id for one in of_use) for purpose, of_use in uses.items()}
    return Provenance(scans, (NetworkRecord(ids, (3.0, 1.5), "run"),), SPECIMEN_PATTERN, "run")


A, B, C, D = (scan(name, seed) for seed, name in enumerate(("a1", "b1", "c1", "d1")))
KNOWN = record(train=[A], validation=[B], calibration=[C, B], test=[C, D])


@pytest.mark.parametrize(
    ("one", "use"),
    [
        (A, "train"),
        (B, "validation"),
        (C, "calibration"),
        (D, "test"),
        (scan("e1", 9), "new"),
        # the image decides, not the name
        (scan("renamed", 0), "train"),
        (scan("a1", 9), "new"),
        (scan("d1", 0), "train"),
        (scan("other hash", 0, "after the mask was mended"), "train"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.scan_id,
)
def test_what_a_model_has_to_do_with_a_scan(one, use):
    assert KNOWN.use_of(one) == use_of(KNOWN, one) == use
    assert use_of(None, one) == "unknown"


def test_one_image_by_its_content_alone():
    blank = np.zeros(SHAPE)
    assert identify("x", "same", blank).is_same_image(identify("y", "same", image_of(1)))
    assert not identify("x", "one", blank).is_same_image(identify("y", "other", image_of(1)))


def test_other_scans_of_a_specimen():
    left, right = scan("fish1_left", 1), scan("fish1_right", 2)
    for use, sibling in (
        ("train", "specimen"),
        ("validation", "specimen"),
        ("calibration", "calibration"),
        ("test", "new"),
    ):
        assert record(**{use: [left]}).use_of(right) == sibling
    # a calibration scan whose other side was trained on is not fair either
    assert record(train=[left], calibration=[right]).use_of(right) == "specimen"
    # what has another image has nothing to do with the scan whose name it bears
    namesake = record(train=[A]).identify("a1", "x", image_of(7))
    assert (namesake.specimen, record(train=[A]).use_of(namesake)) == (
        "a1 (another scan of this name)",
        "new",
    )
    # but where the name says which fish it is of, it is of that fish
    namesake = record(train=[left]).identify("fish1_left", "x", image_of(7))
    assert (namesake.specimen, record(train=[left]).use_of(namesake)) == ("fish1", "specimen")
    # of two copies, one of which trained, neither is fair
    twin = replace(left, scan_id="backup", specimen="backup")
    both = record(test=[twin], train=[left])
    assert (both.use_of(twin), both.use_of(left)) == ("train", "train")
    # a copy of the left side under a name of its own is known, with its specimen
    known = record(train=[left])
    assert known.identify("copy", "x", image_of(1)).specimen == "fish1"
    assert known.use_of(known.identify("copy", "x", image_of(1))) == "train"


def test_several_networks_have_seen_what_any_of_them_has():
    both = joined([record(train=[A], test=[B]), record(train=[B], test=[A])], "all")
    assert (both.use_of(A), both.use_of(B)) == ("train", "train")
    assert (both.run_id, len(both.networks)) == ("all", 2)
    assert both.ids("test") == ("a1", "b1")
    assert joined([KNOWN, None], "all") is None


def test_a_name_that_another_scan_has():
    assert KNOWN.shares_name_only(scan("a1", 9))
    assert not KNOWN.shares_name_only(A)
    assert not KNOWN.shares_name_only(scan("d1", 9))  # nothing was learned from that one


def test_plain_values_and_back(tmp_path):
    torch.save(to_plain(KNOWN), tmp_path / "x.pth")
    again = from_plain(torch.load(tmp_path / "x.pth", weights_only=True))
    assert (again.run_id, again.jawloc_version) == ("run", __version__)
    assert again.networks == KNOWN.networks
    for one in (A, B, C, D):
        assert again.scans[one.scan_id].specimen == one.specimen
        assert again.scans[one.scan_id].content_hash == one.content_hash
        assert again.use_of(one) == KNOWN.use_of(one)
    empty = Provenance({}, (), SPECIMEN_PATTERN, None)
    assert from_plain(to_plain(empty)) == empty


def distance(a: np.ndarray, b: np.ndarray) -> float:
    difference = image_fingerprint(a).astype(float) - image_fingerprint(b)
    return float(np.sqrt(np.mean(difference**2)))


def test_a_fingerprint_tells_scans_apart_whatever_their_grey_scale_and_format():
    """Also by a good margin: see SAME_IMAGE."""
    full = (96, 48, 48)
    scans = [make_phantom(seed, full).image for seed in range(6)]
    small = [downsampled(image, (48, 24, 24)) for image in scans]
    assert image_fingerprint(small[0]).shape == FINGERPRINT_SHAPE
    between = [distance(a, b) for i, a in enumerate(small) for b in small[:i]]
    assert min(between) > 2 * SAME_IMAGE
    for image, own in zip(scans, small, strict=True):
        quantised = np.rint(own.astype(float) / 50)  # as 8 bits would
        coarser = downsampled(downsampled(image, (72, 40, 40)), (48, 24, 24))
        for other in (own * 3.5 - 200, quantised, coarser):
            assert distance(own, other) < SAME_IMAGE / 2
    assert distance(np.full(SHAPE, 7), np.full(SHAPE, 9)) == 0


def downsampled(image: np.ndarray, shape) -> np.ndarray:
    from pathlib import Path

    from jawloc.geometry import Grid
    from jawloc.scans.scan import ScanFile

    z, y, x = image.shape
    file = ScanFile("x", Path("x"), Grid((z, y, x)), image.dtype, lambda a, b: image[a:b], None)
    return downsample_image(file, shape)


def test_corrections_are_kept_and_joined_and_files_without_them_have_none():
    one = CorrectionRecord("a1", "jaw", "moved", 1.0, "Ana", "2026-01-02T03:04:05Z", "old", "test")
    other = replace(one, verdict="accepted", weight=0.5, object_name="otolith")
    corrected = replace(KNOWN, corrections=(one,))
    assert from_plain(to_plain(corrected)).corrections == (one,)
    both = joined([corrected, replace(KNOWN, corrections=(other, one))], "run")
    assert both is not None
    assert both.corrections == (one, other)
    earlier_version = {k: v for k, v in to_plain(corrected).items() if k != "corrections"}
    assert from_plain(earlier_version).corrections == ()
