"""Damaged volumes by the hundred: each is read right or refused in one sentence.

    python -m tests.scans.mutations 2000      # of each kind; some seconds a kind

Files are damaged by a seeded generator: flipped bits, truncations, zeroed stretches, and header
fields that are swapped, dropped or replaced by values from the edge. What is then read other than
the volume that was written must be what another library (nibabel, SimpleITK) reads.
"""

from __future__ import annotations

import bz2
import gzip
import os
import re
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK
import tifffile
from PIL import Image, ImageSequence

from jawloc.errors import InputError
from jawloc.scans.reading import read_scan

SECONDS = 10
PEAK_BYTES = 2 * 10**9
PEAK_RESET = Path("/proc/self/clear_refs")  # takes a 5, and the peak counts from there
VOXELS = np.random.default_rng(0).integers(0, 900, (7, 6, 5)).astype(np.int16)
NUMBERS = ("0", "-1", "1", "3", "nan", "inf", "1e400", "65535", "2147483648", "9" * 30, "x", "")
NUMBERS_OF_64_BITS = (0, 1, 0xFFFF, 0x7FFF, 0x7FC0, 0x7F80, 0xFF80, 0x8000, 0x80, 0xFFFFFFFF)

ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "bzip2": bz2.compress,
    "text": lambda raw: " ".join(map(str, np.frombuffer(raw, "<i2"))).encode(),
    "hex": lambda raw: raw.hex("\n", 35).encode(),
}

Damage = Callable[[bytes, np.random.Generator], bytes]


class HangError(BaseException):
    """A file took too long to read; no Exception, which a reader could take for damage."""


@dataclass(frozen=True)
class Kind:
    """A kind of volume: how it is written, and which of its files are damaged."""

    name: str  # of the file that is opened
    compressed: bool = False
    beside: str = ""  # the ending of the file of voxels, if it isn't the same
    encoding: str = ""  # of a NRRD that SimpleITK doesn't write, or of a TIFF
    version: int = 1  # of NIfTI


KINDS = {
    "nrrd": Kind("a.nrrd"),
    "nrrd, gzip": Kind("a.nrrd", compressed=True),
    "nrrd, bzip2": Kind("a.nrrd", compressed=True, encoding="bzip2"),
    "nrrd, text": Kind("a.nrrd", encoding="text"),
    "nrrd, hexadecimal": Kind("a.nrrd", encoding="hex"),
    "nhdr and raw": Kind("a.nhdr", beside=".raw"),
    "mha": Kind("a.mha"),
    "mha, compressed": Kind("a.mha", compressed=True),
    "mhd and raw": Kind("a.mhd", beside=".raw"),
    "mhd and zraw": Kind("a.mhd", compressed=True, beside=".zraw"),
    "nii": Kind("a.nii"),
    "nii.gz": Kind("a.nii.gz"),
    "nii, version 2": Kind("a.nii", version=2),
    "tif": Kind("a.tif"),
    "tif, ImageJ": Kind("a.tif", encoding="imagej"),
    "tif, zlib": Kind("a.tif", encoding="zlib"),
    "tif, LZW": Kind("a.tif", encoding="lzw"),
}


def check(kind: Kind, count: int, folder: Path, seed: int = 0) -> Counter[str]:
    """Damage a volume `count` times, and count what became of it.

    Raise AssertionError where one is neither read right nor refused in one sentence, takes more
    than 10 s or lets the process grow by more than 2 GB.
    """
    _write(kind, folder / kind.name)
    intact = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    np.testing.assert_array_equal(read_scan(folder / kind.name).image, VOXELS)
    found = Counter[str]()
    for number in range(count):
        random = np.random.default_rng([seed, number])
        files = dict(intact)
        target = list(files)[random.integers(len(files))]
        files[target] = _damaged(files[target], target, random)
        for path, content in files.items():
            path.write_bytes(content)
        found[_outcome(folder / kind.name, f"mutation {number}")] += 1
    return found


def _write(kind: Kind, path: Path) -> None:
    if path.suffix == ".tif":
        imagej = kind.encoding == "imagej"
        how = {"metadata": {"axes": "ZYX"}} if imagej else {"compression": kind.encoding or None}
        tifffile.imwrite(path, VOXELS, photometric="minisblack", imagej=imagej, **how)
        return
    if kind.version == 2:
        nibabel.Nifti2Image(VOXELS.T, np.diag([0.02, 0.03, 0.04, 1])).to_filename(path)
        return
    image = SimpleITK.GetImageFromArray(VOXELS)
    image.SetSpacing((0.02, 0.03, 0.04))
    SimpleITK.WriteImage(image, str(path), kind.compressed and not kind.encoding)
    if kind.encoding:
        header, blank, raw = path.read_bytes().partition(b"\n\n")
        header = header.replace(b"encoding: raw", b"encoding: " + kind.encoding.encode())
        path.write_bytes(header + blank + ENCODERS[kind.encoding](raw))


@contextmanager
def _no_larger_than(limit: int, name: str) -> Iterator[None]:
    """Let the process grow by so many bytes at most, whatever other libraries needed before."""
    if not PEAK_RESET.exists():  # not on Linux
        yield
        return
    PEAK_RESET.write_text("5")
    before = _peak_bytes()
    try:
        yield
    finally:
        assert _peak_bytes() - before < limit, name


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def _outcome(path: Path, name: str) -> str:
    with _no_longer_than(SECONDS, name), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _no_larger_than(PEAK_BYTES, name):
                image = read_scan(path).image
        except InputError as error:
            assert re.fullmatch(r"a\.[a-z.]+: [^\n]+", str(error)), f"{name}: {error}"
            return "refused"
    if image.dtype == VOXELS.dtype and np.array_equal(image, VOXELS):
        return "read as written"
    if path.suffix == ".tif":
        # others don't invert where a flipped bit says that 0 is white
        others = list(_tiffs_of_others(path))
        others += [~other for other in others if other.dtype.kind in "iub"]
        assert any(np.array_equal(image, other) for other in others), (
            f"{name}: only jawloc reads it, as {image.shape} {image.dtype}"
        )
        return "read as another library does"
    other = _read_by_another_library(path)
    if other is None and np.array_equal(image, _stored_voxels(path)):
        return "voxels as stored"
    assert other is not None, f"{name}: only jawloc reads it, as {image.shape} {image.dtype}"
    np.testing.assert_allclose(image, other, rtol=1e-5, err_msg=name)
    return "read as another library does"


def _read_by_another_library(path: Path) -> np.ndarray | None:
    try:
        if ".nii" in path.name:
            with path.open("rb") as file:
                packed = file.read(2) == b"\x1f\x8b"
            content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
            kind = nibabel.Nifti2Image if 0x1C in content[:4] else nibabel.Nifti1Image
            image = np.asanyarray(kind.from_bytes(content).dataobj)
            return image.reshape(image.shape[:3]).T
        return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    except Exception:  # whatever it raises
        return None


def _tiffs_of_others(path: Path) -> Iterator[np.ndarray]:
    """Yield what readers that accept a damaged TIFF make of it; they differ."""
    with suppress(Exception), Image.open(path) as picture:
        yield np.stack([np.asarray(page) for page in ImageSequence.Iterator(picture)])
    with suppress(Exception):
        yield SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    with suppress(Exception):
        yield tifffile.imread(path)


def _stored_voxels(path: Path) -> np.ndarray | None:
    """Return what the bytes are, if the damage left type, shape and place of the voxels alone."""
    (raw,) = [file for file in path.parent.iterdir() if file.suffix == ".raw"] or [path]
    content = raw.read_bytes()[-VOXELS.nbytes :]
    return np.frombuffer(content, VOXELS.dtype).reshape(VOXELS.shape)


@contextmanager
def _no_longer_than(seconds: int, name: str):
    def stop(*_: object) -> None:
        raise HangError(f"{name}: it takes more than {seconds} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def _damaged(content: bytes, path: Path, random: np.random.Generator) -> bytes:
    if path.name.endswith(".gz") and random.random() < 0.5:  # what is inside of it
        return gzip.compress(_damaged(gzip.decompress(content), path.with_suffix(""), random))
    common: list[Damage] = [_flip_bits, _truncate, _zero]
    fields: list[Damage] = []
    if path.suffix in (".nrrd", ".nhdr", ".mha", ".mhd"):
        fields = [_change_text, _flip_bits_of_header]
    elif path.suffix in (".nii", ".tif"):
        fields = [_change_words, _flip_bits_of_header]
    chosen = common + fields + fields
    return chosen[random.integers(len(chosen))](content, random)


def _flip_bits(content: bytes, random: np.random.Generator, end: int | None = None) -> bytes:
    damaged = bytearray(content)
    for _ in range(random.integers(1, 5)):
        damaged[random.integers(len(damaged) if end is None else end)] ^= 1 << random.integers(8)
    return bytes(damaged)


def _flip_bits_of_header(content: bytes, random: np.random.Generator) -> bytes:
    return _flip_bits(content, random, min(348, len(content)))


def _truncate(content: bytes, random: np.random.Generator) -> bytes:
    return content[: random.integers(len(content))]


def _zero(content: bytes, random: np.random.Generator) -> bytes:
    start, stop = sorted(random.integers(len(content) + 1, size=2))
    return content[:start] + bytes(stop - start) + content[stop:]


def _change_text(content: bytes, random: np.random.Generator) -> bytes:
    """Swap, drop or repeat lines of the header, swap their values, or change one number."""
    end = content.find(b"\n\n") if content.startswith(b"NRRD") else content.find(b"DataFile")
    lines = content[:end].split(b"\n")
    first, second = random.integers(len(lines), size=2)
    mark = b":" if content.startswith(b"NRRD") else b"="
    match random.integers(5):
        case 0:
            lines[first], lines[second] = lines[second], lines[first]
        case 1:
            del lines[first]
        case 2:
            lines.insert(first, lines[second])
        case 3:
            names, values = zip(*(line.partition(mark)[::2] for line in lines), strict=True)
            values = list(values)
            values[first], values[second] = values[second], values[first]
            lines = [name + mark + value for name, value in zip(names, values, strict=True)]
        case _:
            numbers = list(re.finditer(rb"[\d.]+", content[:end]))
            chosen = numbers[random.integers(len(numbers))]
            value = NUMBERS[random.integers(len(NUMBERS))].encode()
            return content[: chosen.start()] + value + content[chosen.end() :]
    return b"\n".join(lines) + content[end:]


def _change_words(content: bytes, random: np.random.Generator) -> bytes:
    """Swap two 2-byte words of a binary header, or replace one by a value from the edge."""
    damaged = bytearray(content)
    first, second = (2 * int(n) for n in random.integers(174, size=2))
    if random.random() < 0.5:
        value = NUMBERS_OF_64_BITS[random.integers(len(NUMBERS_OF_64_BITS))] & 0xFFFF
        damaged[first : first + 2] = value.to_bytes(2, "little")
    else:
        one, other = damaged[first : first + 2], damaged[second : second + 2]
        damaged[first : first + 2], damaged[second : second + 2] = other, one
    return bytes(damaged)


def main() -> None:
    """Check every kind, and print the counts."""
    count = int(sys.argv[1])
    for title, kind in KINDS.items():
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            found = check(kind, count, Path(folder))
        counts = ", ".join(f"{number} {what}" for what, number in sorted(found.items()))
        print(f"{title}: {counts}; {time.perf_counter() - start:.0f} s", flush=True)
    print(f"peak memory {_peak_bytes() / 1e6:.0f} MB", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    main()
