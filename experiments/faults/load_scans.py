"""The scans of the load: phantoms in every format, some under odd names, and corrupt files."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import SimpleITK
import tifffile
from PIL import Image

from jawloc.phantom import make_phantom
from jawloc.scans.dicom import write_labelled_dicom
from jawloc.scans.scan import Scan

SHAPE = (32, 24, 24)  # (z, y, x)
FIRST_SEED, ALIKE = 1000, 12  # the trainings have other phantoms
FORMATS = (".dcm", ".tif", ".nii.gz", ".nrrd", ".mha", "")  # "": a folder of slices
ODD_NAMES = (
    "two\nlines.tif",
    "long" * 62 + ".tif",  # 252 bytes: some disks take no more than 255
    os.fsdecode(b"lat\xefn-1.tif"),
    "fish#3.nrrd",
    "naïve 鱼 🐟.nrrd",
    "-rf.nii.gz",
    "'quoted'.tif",
    "up...tif",
    "a,b;c.tif",
    "fish 12.tif",
    " # 4.tif",
    '"double".dcm',
    "=1+1.tif",
    "100%41.dcm",
    "blank .tif",
    "con.tif",
    "鱼" * 80 + ".mha",
)


@dataclass(frozen=True)
class Scans:
    """What `jawloc locate` is told to locate, and what is known of it."""

    given: list[str]  # its arguments: a list, and a folder with the odd names
    good: list[Path]
    bad: dict[Path, str]  # with what is wrong
    twice: list[Path]  # of the good ones, those that are listed again


def write_load(folder: Path, number: int, bad_share: float) -> Scans:
    """Write so many scans below a folder, a share of them corrupt, in a mixed order."""
    scans, odd, order = folder / "scans", folder / "odd", list[Path]()
    for place in (scans, odd):
        place.mkdir(parents=True)
    bad = write_corrupt(scans, round(number * bad_share))
    good, odd_names = [], iter(ODD_NAMES)
    for i in range(number - len(bad)):
        name = next(odd_names, None) if i % 20 == 1 or (number < 100 and i % 2 == 1) else None
        path = scans / f"fish_{i:03d}{FORMATS[i % len(FORMATS)]}"
        if name is None:
            order.append(path)
        else:
            path = odd / name
        write_scan(path, _fish(i))
        good.append(path)
    step = max(1, len(order) // len(bad))
    for i, path in enumerate(bad):
        order.insert((step + 1) * i + step // 2, path)
    twice = [path for path in good if path.parent == scans][::25]
    lines = [str(path.relative_to(folder)) for path in order]
    lines += [way for path in twice for way in _other_ways(path, folder)]
    (folder / "list.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Scans([str(folder / "list.txt"), str(odd)], good, bad, twice)


def _fish(number: int) -> Scan:
    """Return a phantom; of each that is rendered there are ALIKE, turned, moved and dimmed."""
    scan = _rendered(FIRST_SEED + number // ALIKE)
    turn, other = number % ALIKE % 4, number % ALIKE // 4
    image, mask = (
        np.roll(np.rot90(array, turn, (1, 2)), other, 0) for array in (scan.image, scan.mask)
    )
    return replace(scan, image=(image * (1 - 0.05 * other)).astype(image.dtype), mask=mask)


@lru_cache(maxsize=2)
def _rendered(seed: int) -> Scan:
    return make_phantom(seed, SHAPE)


def _other_ways(path: Path, folder: Path) -> list[str]:
    """Name a scan once more by its absolute path, with `..`, and by a link."""
    link = folder / "links" / path.name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(path)
    return [str(path), f"scans/../scans/{path.name}", f"links/{path.name}"]


def write_scan(path: Path, scan: Scan) -> None:
    """Write a scan in the format of the path's ending, or as a folder of slices."""
    if path.suffix == ".dcm":
        write_labelled_dicom(path, scan.image, scan.mask, scan.grid)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, scan.image, photometric="minisblack")
    elif path.suffix:
        image = SimpleITK.GetImageFromArray(scan.image)
        image.SetSpacing([float(mm) for mm in (scan.grid.spacing_mm_zyx or (1, 1, 1))[::-1]])
        plain = path.with_name("plain" + next(e for e in FORMATS if path.name.endswith(e)))
        SimpleITK.WriteImage(image, plain, useCompression=True)
        plain.rename(path)  # ITK takes no name that isn't UTF-8
    else:
        path.mkdir()
        for z, plane in enumerate(scan.image):
            tifffile.imwrite(path / f"slice_{z:03d}.tif", plane, photometric="minisblack")


def write_corrupt(folder: Path, number: int) -> dict[Path, str]:
    """Write so many files that are no scans; return them with what is wrong with each."""
    scan = make_phantom(FIRST_SEED - 1, SHAPE)
    faults = _faults()
    if os.geteuid() != 0:  # to root nothing is forbidden
        faults.append(("not to be read", ".dcm", lambda path: path.chmod(0)))
    bad = {}
    for i in range(number):
        what, ending, damage = faults[i % len(faults)]
        path = folder / f"bad_{i:03d}, {what}{ending}"
        write_scan(path, scan)
        damage(path)
        bad[path] = what
    return bad


Damage = Callable[[Path], object]


def _faults() -> list[tuple[str, str, Damage]]:
    return [
        ("truncated", ".dcm", _truncate),
        ("a flipped byte", ".nii.gz", _flip),
        ("empty", ".dcm", lambda path: path.write_bytes(b"")),
        ("another kind", ".tif", _png),
        ("an empty folder", ".dcm", lambda path: _folder(path)),
        ("a link to itself", ".dcm", lambda path: _link(path, path)),
        *(("truncated", ending, _truncate) for ending in FORMATS[1:] if ending),
        ("a flipped byte", ".nrrd", _flip),
        ("empty", ".nii.gz", lambda path: path.write_bytes(b"")),
        ("text", ".dcm", lambda path: path.write_text("a list of fish\n" * 99)),
        ("another kind", ".mha", _zip),
        ("one slice", ".tif", lambda path: tifffile.imwrite(path, np.eye(9, dtype=np.uint16))),
        ("a folder of texts", ".tif", lambda path: _folder(path, "notes.txt")),
        ("a link to nothing", ".tif", lambda path: _link(path, path.with_name("gone.tif"))),
        ("gone", ".nrrd", Path.unlink),
        ("a slice is missing", "", lambda path: (path / "slice_007.tif").unlink()),
        ("a slice is truncated", "", lambda path: _truncate(path / "slice_007.tif")),
    ]


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    """Change a byte of compressed voxels, which have a check sum."""
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4] ^= 0xFF
    path.write_bytes(content)


def _png(path: Path) -> None:
    Image.fromarray(np.eye(9, dtype=np.uint8)).save(path, format="PNG")


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("scan.raw", bytes(1000))


def _folder(path: Path, *names: str) -> None:
    path.unlink()
    path.mkdir()
    for name in names:
        (path / name).write_text("no scan\n")


def _link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)
