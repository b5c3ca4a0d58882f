"""Small files that promise gigabytes, each refused before memory goes."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from campaign import Outcome, Plan

MOST_MEMORY = 300_000  # kB, which a bomb may add to the peak of a process


def bomb_faults(plan: Plan) -> Iterator[Outcome]:
    """Small files that promise gigabytes, each read by a process whose memory is watched."""
    folder = plan.work / "bombs"
    folder.mkdir()
    for ending, write in _WRITERS.items():
        write(folder / f"a.{ending}")
    if plan.short:  # one process for all
        yield from _watched(sorted(folder.iterdir()))
    else:
        for path in sorted(folder.iterdir()):
            yield from _watched([path])


_WATCH = """
import re, sys
from pathlib import Path
from jawloc.errors import InputError
from jawloc.scans.reading import read_scan
def most():  # of this process alone: getrusage begins with what its parent had
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
before = most()
for place in sys.argv[1:]:
    try:
        read_scan(Path(place))
        said = "read"
    except InputError as error:
        said = str(error).replace(chr(10), "LOST")
    print(most() - before, said, flush=True)
"""


def _watched(paths: list[Path]) -> Iterator[Outcome]:
    command = [sys.executable, "-W", "ignore", "-c", _WATCH, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    for path, line in zip(paths, [*lines, *[""] * len(paths)], strict=False):
        memory, _, said = line.partition(" ")
        lost = not said or said == "read" or "LOST" in said or int(memory) > MOST_MEMORY
        detail = f"{path.name}: {memory} kB, {said or done.stderr[-200:]}"
        yield Outcome("a file that unpacks to gigabytes", "LOST" if lost else "refused", detail)


def _write_nifti(path: Path) -> None:
    header = bytearray(352)
    struct.pack_into("<i8h", header, 0, 348, *[0] * 8)
    struct.pack_into("<8h", header, 40, 3, 32767, 32767, 3, 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, 2, 8)  # bytes
    struct.pack_into("<8f", header, 76, *[1.0] * 8)
    struct.pack_into("<ff", header, 108, 352.0, 1.0)
    header[344:348] = b"n+1\0"
    with gzip.open(path, "wb", 9) as file:
        file.write(bytes(header) + bytes(2**23))
    _pad(path, 4_000_000)


def _write_nrrd(path: Path) -> None:
    text = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 60000 60000 2\nencoding: bzip2\n\n"
    path.write_bytes(text.encode() + b"BZh9" + bytes(100))


def _write_metaimage(path: Path) -> None:
    text = (
        "ObjectType = Image\nNDims = 3\nDimSize = 40000 40000 2\nElementType = MET_UCHAR\n"
        "CompressedData = True\nElementDataFile = LOCAL\n"
    )
    path.write_bytes(text.encode() + zlib.compress(bytes(2**23)))
    _pad(path, 4_000_000)


def _pad(path: Path, size: int) -> None:
    with path.open("ab") as file:
        file.truncate(size)


def _write_pngs(folder: Path) -> None:
    """Write a folder of two pictures of 40,000 x 40,000 pixels."""
    folder.mkdir()
    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(bytes(2**20)) for _ in range(20)) + packer.flush()
    parts = {b"IHDR": struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0), b"IDAT": data}
    content = b"\x89PNG\r\n\x1a\n"
    for kind, body in {**parts, b"IEND": b""}.items():
        content += struct.pack(">I", len(body)) + kind + body
        content += struct.pack(">I", zlib.crc32(kind + body))
    for number in (1, 2):
        (folder / f"{number}.png").write_bytes(content)


def _write_tiff(path: Path) -> None:
    """Write two compressed pages, whose headers are then changed to 60,000 x 60,000 pixels."""
    import tifffile

    image = np.zeros((2, 16, 16), np.uint8)
    tifffile.imwrite(path, image, compression="zlib", photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as tiff:
        places = [page.tags[tag].valueoffset for page in tiff.pages for tag in (256, 257)]
        kinds = [page.tags[tag].dtype for page in tiff.pages for tag in (256, 257)]
    content = bytearray(path.read_bytes())
    for place, kind in zip(places, kinds, strict=True):
        struct.pack_into("<H" if kind == 3 else "<I", content, place, 60_000)
    path.write_bytes(content)


def _write_deflated(path: Path) -> None:
    syntax = b"1.2.840.10008.1.2.1.99"
    group = struct.pack("<HH2sH", 2, 0x10, b"UI", len(syntax)) + syntax
    length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(group))
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data = packer.compress(b"\x09\x00\x01\x00OB\x00\x00\xff\xff\xff\x3f")
    data += b"".join(packer.compress(bytes(2**24)) for _ in range(8)) + packer.flush()
    path.write_bytes(bytes(128) + b"DICM" + length + group + data)


_WRITERS: dict[str, Callable[[Path], None]] = {
    "nii.gz": _write_nifti,
    "nrrd": _write_nrrd,
    "mha": _write_metaimage,
    "png": _write_pngs,
    "tif": _write_tiff,
    "dcm": _write_deflated,
}
