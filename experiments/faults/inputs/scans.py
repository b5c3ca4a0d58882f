"""What is in a scan, and whether another library finds the same in a damaged one."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import SimpleITK
import tifffile
from PIL import Image, ImageSequence

from jawloc.scans.scan import ScanFile

SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
_MM = {1: 1000.0, 3: 0.001}  # of NIfTI's units


@dataclass(frozen=True)
class ScanContent:
    """All that jawloc reads of a scan."""

    image: np.ndarray
    mask: np.ndarray | None
    points: tuple[Any, ...]
    spacing: tuple[float, float, float] | None
    placement: Any


def read_all(scan: ScanFile) -> ScanContent:
    slabs = [scan.read_grey_values(*ends) for ends in scan.slab_ranges()]
    mask = None
    if scan.read_mask is not None:
        mask = np.concatenate([scan.read_mask(*ends) for ends in scan.slab_ranges()])
    image = np.concatenate(slabs)
    return ScanContent(image, mask, scan.points, scan.grid.spacing_mm_zyx, scan.read_placement())


def judge_scan(found: ScanContent, whole: Any, folder: Path, target: str) -> str:
    """Return what was read that nothing but jawloc reads in the damaged file."""
    path = folder / target
    known = isinstance(whole, ScanContent)
    others = list(_others(path))
    voxels = [image for image, _ in others]
    if known:
        voxels.append(whole.image)
        with suppress(OSError, ValueError):  # damage that left their type and place alone
            voxels.append(_stored(path, whole.image))
    voxels += [~v if v.dtype.kind in "iub" else v.max() - v for v in voxels]  # 0 is white
    if voxels and not any(_alike(found.image, other) for other in voxels):
        return f"only jawloc reads these voxels, {found.image.shape} {found.image.dtype}"
    if (broken := _broken_seal(path)) and known and not np.array_equal(found.image, whole.image):
        return f"read other voxels although {broken}"
    sizes = [size for _, size in others] + ([whole.spacing] if known else [])
    sizes += [[size] * 3 for size in _logged(path)]
    sizes = [size for size in sizes if size is not None]
    if found.spacing is None or not sizes:
        return ""
    if any(np.allclose(found.spacing, size, rtol=1e-4) for size in sizes):
        return ""
    return f"only jawloc reads the spacing {found.spacing}; others read {sizes}"


def _alike(own: np.ndarray, other: np.ndarray) -> bool:
    if other.ndim == 3 and len(other) == len(own) + 1:  # a slice that jawloc itself adds
        other = other[:-1]
    if own.size != other.size or own.shape[-2:] != other.shape[-2:]:
        return False
    other = other.reshape(own.shape)
    with np.errstate(all="ignore"):
        if np.allclose(own, other, rtol=1e-4, equal_nan=True):
            return True
        usual = np.isfinite(other.astype(float)) & (np.abs(other.astype(float)) < 1e30)
        return own.dtype.kind == "f" and np.allclose(own[usual], other[usual], rtol=1e-4)


def _others(path: Path) -> Iterator[tuple[np.ndarray, Any]]:
    """Yield voxels and spacing, if it has one, by every other library that reads a file."""
    name = path.name
    if path.is_dir():
        yield from _others_of_folder(path)
    elif ".nii" in name:
        with suppress(Exception):
            yield _by_nibabel(path)
    elif name.endswith(".dcm"):
        with suppress(Exception):
            yield _by_pydicom(pydicom.dcmread(path, force=True))
    elif name.endswith(".tif"):
        with suppress(Exception), Image.open(path) as picture:
            yield np.stack([np.asarray(page) for page in ImageSequence.Iterator(picture)]), None
        with suppress(Exception):
            yield tifffile.imread(path), _tiff_spacing(path)
    # (SimpleITK never ends with a TIFF whose pages go round in a circle)
    if not path.is_dir() and not name.endswith((".dcm", ".tif")):
        with suppress(Exception):
            image = SimpleITK.ReadImage(str(path))
            yield SimpleITK.GetArrayFromImage(image), image.GetSpacing()[:3][::-1]


def _tiff_spacing(path: Path) -> Any:
    """Return the voxel size of ImageJ, in mm, as tifffile reads its tags; None without one."""
    with suppress(Exception), tifffile.TiffFile(path) as file:
        tags, about = file.pages[0].tags, file.imagej_metadata
        widths = (tags[name].value for name in ("YResolution", "XResolution"))
        return (about["spacing"], *(below / above for above, below in widths))
    return None


def _by_nibabel(path: Path) -> tuple[np.ndarray, Any]:
    content = path.read_bytes()
    content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    kind = nibabel.Nifti2Image if 0x1C in content[:4] else nibabel.Nifti1Image
    image = kind.from_bytes(content)
    scale = _MM.get(int(image.header["xyzt_units"]) & 7, 1.0)
    zooms = [abs(float(n)) * scale for n in image.header["pixdim"][1:4]][::-1]
    if 0 in zooms:
        zooms = (np.linalg.norm(image.header.get_sform()[:3, :3], axis=0) * scale).tolist()[::-1]
    values = np.asanyarray(image.dataobj)
    return values.reshape(values.shape[:3]).T, zooms


def _by_pydicom(ds: Any) -> tuple[np.ndarray, Any]:
    values = ds.pixel_array.astype(np.float64)
    slope, intercept = ds.get("RescaleSlope"), ds.get("RescaleIntercept")
    return values * float(1 if slope is None else slope) + float(intercept or 0), None


def _others_of_folder(folder: Path) -> Iterator[tuple[np.ndarray, Any]]:
    files = sorted(path for path in folder.iterdir() if path.suffix != ".log" and path.is_file())
    with suppress(Exception):
        slices = [pydicom.dcmread(path, force=True) for path in files]
        for key in (_depth, _number):
            with suppress(Exception):
                kept = sorted(slices, key=key)
                yield np.stack([_by_pydicom(ds)[0] for ds in kept]), None
    for kept in (files, *([p for p in files if p is not left] for left in files)):
        with suppress(Exception):
            yield np.stack([np.asarray(Image.open(path)) for path in kept]), None
        with suppress(Exception):  # of a palette, the colours
            yield np.stack([np.asarray(Image.open(path).convert("L")) for path in kept]), None
        with suppress(Exception):
            yield np.stack([tifffile.imread(path) for path in kept]), None


def _logged(folder: Path) -> Iterator[float]:
    """Yield the pixel sizes in mm that the logs in a folder state."""
    for path in filter(Path.is_file, sorted(folder.glob("*.log"))):
        for line in path.read_text(encoding="latin-1").splitlines():
            name, _, value = line.partition("=")
            if name.strip().lower() == "image pixel size (um)":
                with suppress(ArithmeticError, IndexError):
                    yield float(Decimal(value.split()[0].replace(",", "."))) / 1000


def _depth(ds: Any) -> float:
    axes = np.array(ds.ImageOrientationPatient, float)
    return float(np.array(ds.ImagePositionPatient, float) @ np.cross(axes[:3], axes[3:]))


def _number(ds: Any) -> float:
    return float(ds.InstanceNumber)


def _stored(path: Path, whole: np.ndarray) -> np.ndarray:
    """Return the last bytes of a raw file as voxels of the original's type and shape."""
    (raw,) = [file for file in path.parent.iterdir() if file.suffix == ".raw"] or [path]
    order = ">" if path.suffix == ".mha" and b"OrderMSB = True" in path.read_bytes()[:300] else "<"
    content = raw.read_bytes()[-whole.nbytes :]
    return np.frombuffer(content, whole.dtype.newbyteorder(order)).reshape(whole.shape)


def _broken_seal(path: Path) -> str:
    """Return which checksum of a file doesn't fit; empty where all do, or there is none."""
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.suffix == ".png":
            with suppress(OSError):
                if not _png_fits(file.read_bytes()):
                    return f"{file.name} doesn't fit its checksums"
    return ""


def _png_fits(content: bytes) -> bool:
    at = 8
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunk = content[at + 4 : at + 8 + length]
        code = content[at + 8 + length : at + 12 + length]
        if zlib.crc32(chunk) != int.from_bytes(code, "big"):
            return False
        at += 12 + length
        if chunk[:4] == b"IEND":
            return True
    return False
