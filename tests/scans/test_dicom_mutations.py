"""Damaged DICOM files: each is read, or refused in one sentence, quickly and in little memory.

`python -m tests.scans.test_dicom_mutations 2000` tries so many, and counts what became of them.
"""

from __future__ import annotations

import contextlib
import struct
import sys
import tempfile
import time
import tracemalloc
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch
from uuid import UUID

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from jawloc.errors import InputError
from jawloc.geometry import Grid
from jawloc.scans.dicom import write_labelled_dicom
from jawloc.scans.listing import list_scans
from jawloc.scans.reading import open_scan
from tests.lab import lab_dicom, write_lab_dicom
from tests.scans.test_volumes import write_series

IMAGE = np.random.default_rng(0).integers(0, 4000, (6, 9, 8)).astype(np.uint16)
MASK = (IMAGE > 3000).astype(np.uint8)
MOST_SECONDS, MOST_BYTES = 10.0, 2**28
# What real files have where it is wrong: the largest number, a negative one, zero, texts.
NUMBERS = [b"\xff\xff", b"\x00\x00", b"\x00\x80", b"\x01\x00", b"\xff\x7f"]
TEXTS = [b"nan", b"inf", b"-1", b"0", b"1e400", b"\\\\\\", b"x", b"65535"]
TAGS = [
    *("Rows", "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored", "PixelRepresentation"),
    *("SamplesPerPixel", "RescaleSlope", "RescaleIntercept", "PixelSpacing", "SliceThickness"),
    *("ImagePositionPatient", "ImageOrientationPatient", "InstanceNumber", "PixelData"),
    *("SeriesInstanceUID", "ImageType", "PhotometricInterpretation", "SharedFunctionalGroups"),
    "PerFrameFunctionalGroupsSequence",
]


def write_originals(folder: Path) -> list[tuple[Path, Path]]:
    """Write whole scans; return the file of each to damage, and the scan (a file or folder).

    They are the same each time, with their UIDs, so that a seed makes the same damage.
    """
    with (
        patch("secrets.randbelow", lambda limit: limit // 3),
        patch("uuid.uuid4", lambda: UUID(int=2**127 // 3)),
    ):
        return _write_originals(folder)


def _write_originals(folder: Path) -> list[tuple[Path, Path]]:
    write_labelled_dicom(folder / "ours.dcm", IMAGE, MASK, Grid(IMAGE.shape, (0.02, 0.02, 0.02)))
    write_lab_dicom(folder / "labs.dcm", IMAGE, MASK)
    packed = lab_dicom(IMAGE, MASK)
    packed.compress(RLELossless)
    packed.save_as(folder / "packed.dcm", enforce_file_format=True)
    write_series(folder / "series", IMAGE)
    files = [folder / f"{name}.dcm" for name in ("ours", "labs", "packed")]
    return [*zip(files, files, strict=True), (folder / "series" / "003.dcm", folder / "series")]


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Damage a file in one of five ways, nearly always in its header."""
    changed = bytearray(content)
    header = max(400, min(len(content), 4000))
    way = rng.integers(5)
    if way == 0:  # bits that flipped
        for at in rng.integers(128, header if rng.random() < 0.8 else len(content), 3):
            changed[min(at, len(changed) - 1)] ^= 1 << int(rng.integers(8))
    elif way == 1:  # a copy that broke off
        del changed[int(rng.integers(len(content))) :]
    elif way == 2:  # a value of an element, or its type and length, is another
        found = element_at(changed, rng)
        values = [*NUMBERS, *TEXTS]
        new = values[rng.integers(len(values))]
        start = found + int(rng.choice([4, 6, 8]))
        changed[start : start + len(new)] = new
    elif way == 3:  # two pieces of the header swapped
        one, other = sorted(int(n) & ~1 for n in rng.integers(132, header - 40, 2))
        size = int(rng.integers(2, 40))
        pieces = changed[one : one + size], changed[other : other + size]
        changed[one : one + size], changed[other : other + size] = pieces[::-1]
    else:  # a piece is lost
        at = int(rng.integers(132, header))
        del changed[at : at + int(rng.integers(1, 60))]
    return bytes(changed)


def element_at(content: bytes, rng: np.random.Generator) -> int:
    """Return where a random one of the elements that matter begins."""
    tag = pydicom.datadict.tag_for_keyword(TAGS[rng.integers(len(TAGS))]) or 0x00280010
    found = content.find(struct.pack("<HH", tag >> 16, tag & 0xFFFF))
    return found if found > 0 else int(rng.integers(132, 400))


def outcome(scan: Path) -> str:
    """Open a scan and read all of it, as locating and caching do."""
    try:
        for listed in list_scans([scan]):
            opened = open_scan(listed.path)
            for start, stop in opened.slab_ranges():
                opened.read_grey_values(start, stop)
                if opened.read_mask is not None:
                    opened.read_mask(start, stop)
            opened.read_placement()
    except InputError as error:
        assert "\n" not in str(error), str(error)
        return "refused"
    return "read"


def try_mutations(number: int, folder: Path, seed: int = 0) -> Counter[str]:
    """Damage and read so many files; return the counts, and raise for one that goes wrong."""
    rng, counts = np.random.default_rng(seed), Counter[str]()
    originals = write_originals(folder)
    contents = {file: file.read_bytes() for file, _ in originals}
    for attempt in range(number):
        file, scan = originals[rng.integers(len(originals))]
        file.write_bytes(mutated(contents[file], rng))
        with limits(f"mutation {attempt} of {file.name}, seed {seed}"):
            counts[outcome(scan)] += 1
        file.write_bytes(contents[file])
    return counts


@contextlib.contextmanager
def limits(what: str) -> Iterator[None]:
    """Fail if the block raises, takes long, or allocates much."""
    started = time.perf_counter()
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
        _, most = tracemalloc.get_traced_memory()
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - started < MOST_SECONDS, f"{what}: too slow"
    assert most < MOST_BYTES, f"{what}: {most} bytes"


def test_damaged_files_are_read_or_refused_in_one_sentence(tmp_path):
    counts = try_mutations(300, tmp_path)
    assert counts.total() == 300
    assert counts["refused"] > 100
    assert counts["read"] > 30


def test_every_odd_file_of_pydicom_is_read_or_refused():
    """Also those without an ending, which only a folder of slices may have."""
    found = [p for p in (Path(pydicom.__file__).parent / "data").rglob("*") if p.is_file()]
    assert len(found) > 150
    for path in found:
        with limits(path.name):
            outcome(path)


@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_promises_too_many_voxels_is_refused_before_they_are_allocated(
    tmp_path, packed
):
    ds = lab_dicom(IMAGE, MASK if not packed else None)
    if packed:
        ds.compress(RLELossless)
    ds.NumberOfFrames, ds.Rows, ds.Columns = 65535, 65535, 65535
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with limits("65,535 cubed"), pytest.raises(InputError, match=r"^a\.dcm: pixel data must hold"):
        open_scan(tmp_path / "a.dcm")


def test_a_deflated_file_is_refused_before_it_is_inflated(tmp_path):
    """Regression: pydicom inflated all of it, here 1 GB of zeros in 1 MB."""
    ds = lab_dicom(IMAGE[:2], None)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    bomb = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    content = bomb.compress(b"\x09\x00\x01\x00OB\x00\x00\xff\xff\xff\x3f")
    content += b"".join(bomb.compress(bytes(2**24)) for _ in range(64)) + bomb.flush()
    meta = (tmp_path / "a.dcm").read_bytes()
    length = 132 + 12 + struct.unpack("<I", meta[140:144])[0]
    (tmp_path / "a.dcm").write_bytes(meta[:length] + content)
    with limits("a bomb"), pytest.raises(InputError, match=r"^a\.dcm: deflated DICOM isn't read"):
        open_scan(tmp_path / "a.dcm")
    with limits("a bomb in a folder"):
        assert outcome(tmp_path) == "refused"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        print(dict(try_mutations(int(sys.argv[1]), Path(place), seed=1)))
