"""Where the cache's files lie: the tree of the full-size scans, mirrored for each target size."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from jawloc.errors import InputError

LOCKS_FOLDER = ".locks"
_LEFTOVER = re.compile(r"\.(.+\.dcm)\.\d+-[0-9a-f]{8}\.part")  # as jawloc.scans.dicom names them
_LOCK = re.compile(r"[0-9a-f]{16}\.lock")
_SIZE_FOLDER = re.compile(r"[1-9]\d*x[1-9]\d*x[1-9]\d*")


def _as_tuple(given: object) -> object:
    """Let one label value stand without a list; a list is what JSON and YAML have for a tuple."""
    if isinstance(given, int) and not isinstance(given, bool):
        return (given,)
    return tuple(given) if isinstance(given, list) else given


_Size = Annotated[int, Field(ge=2)]
_LabelValues = Annotated[
    tuple[Annotated[int, Field(ge=1, le=255)], ...],
    Field(min_length=1),
    BeforeValidator(_as_tuple),
]


@dataclass(frozen=True)
class CacheConfig:
    """Settings of the cache of downsampled scans.

    Attributes
    ----------
    dicom_dirs : tuple of str
        Folders of full-size labelled DICOMs.
    downsampled_dicom_size : (z, y, x)
        Voxels of a downsampled scan.
    cache_dir : str
        Folder of the cache.
    n_workers : int
        How many scans are downsampled at once; never more than there are cores.
    objects : mapping of object name -> label values
        What to locate; null stands for every non-zero voxel. A scan may lack some of several
        objects. Cached files don't depend on it.
    """

    dicom_dirs: tuple[str, ...] = ()
    downsampled_dicom_size: tuple[_Size, _Size, _Size] = (512, 128, 128)
    cache_dir: Annotated[str, Field(min_length=1)] = "dicoms/downsampled_dicoms"
    n_workers: Annotated[int, Field(gt=0)] = 10
    objects: Annotated[Mapping[str, _LabelValues | None], Field(min_length=1)] = field(
        default_factory=lambda: {"jaw": None}
    )


def cache_folder(config: CacheConfig, base: Path) -> Path:
    """Return the cache's folder; a relative one is relative to `base`."""
    return Path(os.path.abspath(base / config.cache_dir))  # noqa: PTH100  (keeps links as they are)


def cached_paths(scans: Sequence[Path], config: CacheConfig, base: Path) -> list[Path]:
    """Return where each scan's downsampled file lies: the source tree, mirrored for each size.

    Raises
    ------
    InputError
        If two scans would share one cached file.
    """
    size = "x".join(str(n) for n in config.downsampled_dicom_size)
    folder = cache_folder(config, base) / size
    paths = [folder / _mirrored(scan, config, base) for scan in scans]
    owners: dict[Path, Path] = {}
    for scan, path in zip(scans, paths, strict=True):
        other = owners.setdefault(path, scan)
        if absolute(other, base) != absolute(scan, base):
            raise InputError(
                f"{scan.name}: two scans of one folder must differ in more than the ending .dcm; "
                f"{other} and {scan} do not"
            )
    return paths


def _mirrored(scan: Path, config: CacheConfig, base: Path) -> Path:
    """Return a scan's path from its DICOM folder on, the folder's own name included."""
    scan, base = absolute(scan, base), absolute(Path(), base)
    folders = {absolute(Path(name), base) for name in config.dicom_dirs}
    # Of nested folders the innermost is the scan's own.
    own = max((f for f in folders if f in scan.parents), key=lambda f: len(f.parts), default=None)
    shared = not cache_folder(config, base).is_relative_to(base)
    folder = own or scan.parent
    namesakes = [f for f in folders if f.name.casefold() == folder.name.casefold()]
    name = folder.name
    if own is None or len(namesakes) > 1 or shared or not name:
        # The name alone does not tell the folder: others in the config have it, or may have it
        # in another project that uses the same cache.
        identity = folder.as_posix() if shared else relative(folder, base)
        name = f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
    mirrored = Path(name) / scan.relative_to(folder)
    return mirrored if mirrored.suffix == ".dcm" else mirrored.with_name(mirrored.name + ".dcm")


def absolute(path: Path, base: Path) -> Path:
    """Return `path`, relative to `base` unless it is absolute, without resolving links."""
    return Path(os.path.abspath(base / path))  # noqa: PTH100  (resolve() would follow links)


def relative(path: Path, folder: Path) -> str:
    """Return `path` as seen from `folder`, with forward slashes; absolute on another drive."""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # on another drive
        return path.as_posix()


def lock_path(cached: Path, folder: Path) -> Path:
    """Return the lock file that guards a cached file below the cache's folder."""
    name = hashlib.sha256(relative(cached, folder).encode()).hexdigest()[:16]
    return folder / LOCKS_FOLDER / f"{name}.lock"


def owner_of_leftover(path: Path) -> Path | None:
    """Return the cached file that a killed writer's temporary file was to become, if it is one."""
    match = _LEFTOVER.fullmatch(path.name)
    return path.with_name(match[1]) if match else None


def is_lock(path: Path, folder: Path) -> bool:
    """Say whether a file below the cache's folder is one of its locks, which are empty."""
    ours = path.parent == folder / LOCKS_FOLDER and _LOCK.fullmatch(path.name) is not None
    try:
        return ours and not path.is_symlink() and path.stat().st_size == 0
    except FileNotFoundError:  # another process has just removed it
        return False


def may_be_cached(path: Path, folder: Path) -> bool:
    """Say whether a path below the cache's folder is one at which cached files are put."""
    parts = path.relative_to(folder).parts
    return len(parts) > 2 and _SIZE_FOLDER.fullmatch(parts[0]) is not None


def mirrors(path: Path, folder: Path, source: Path, shape_zyx: Sequence[int]) -> bool:
    """Say whether a path below the cache's folder is where `source`'s cached file is put.

    The DICOM folder to which the source belonged isn't known, so every folder above it will do.
    """
    size, top, *below = path.relative_to(folder).parts if may_be_cached(path, folder) else ("", "")
    if size != "x".join(str(n) for n in shape_zyx) or len(source.parts) <= len(below):
        return False
    *between, name = source.parts[-len(below) :]
    wanted = name if Path(name).suffix == ".dcm" else f"{name}.dcm"
    of_folder = source.parts[-len(below) - 1]
    named_so = re.fullmatch(re.escape(of_folder) + r"(-[0-9a-f]{8})?", top) is not None
    return named_so and below == [*between, wanted]


def leftovers(cached: Path) -> list[Path]:
    """Return the temporary files that killed writers of a cached file left beside it."""
    if not cached.parent.is_dir():
        return []
    return [path for path in cached.parent.iterdir() if owner_of_leftover(path) == cached]
