"""Where the cache's files lie: the tree of the full-size scans, mirrored for each target size."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from jawloc.errors import InputError
from jawloc.geometry import Shape
from jawloc.scans.atomic import target_of_temporary, with_room

LOCKS_FOLDER = ".locks"
_LOCK = re.compile(r"[0-9a-f]{16}\.(lock|lease)")
_SIZE_FOLDER = re.compile(r"[1-9]\d*x[1-9]\d*x[1-9]\d*")


def _as_tuple(given: object) -> object:
    """Let one label value stand without a list; JSON and YAML have lists for tuples."""
    if isinstance(given, int) and not isinstance(given, bool):
        return (given,)
    return tuple(given) if isinstance(given, list) else given


_Size = Annotated[int, Field(ge=2)]
_LabelValues = Annotated[
    tuple[Annotated[int, Field(ge=1, le=255)], ...],
    Field(min_length=1),
    BeforeValidator(_as_tuple),
]


DEFAULT_SIZE: Shape = (512, 128, 128)


@dataclass(frozen=True)
class CacheConfig:
    """Settings of the cache of downsampled scans."""

    dicom_dirs: tuple[str, ...] = ()  # of labelled DICOMs, with their sub-folders; or a review.csv
    # (z, y, x) of the grid that the locator works on, in voxels; no larger than any scan, those
    # included that will be located later. `auto`: the default, on each axis no longer than the
    # shortest scan of the training.
    downsampled_dicom_size: tuple[_Size, _Size, _Size] | Literal["auto"] = DEFAULT_SIZE
    # Folder of the downsampled scans.
    cache_dir: Annotated[str, Field(min_length=1)] = "dicoms/downsampled_dicoms"
    n_workers: Annotated[int, Field(gt=0)] = 10  # scans downsampled at once; at most one a core
    # Names of the objects to locate, each with its label value or a list of them; `null` stands for
    # every non-zero one. A scan may lack some of several objects. The cache doesn't depend on it.
    objects: Annotated[Mapping[str, _LabelValues | None], Field(min_length=1)] = field(
        default_factory=lambda: {"jaw": None}
    )

    @property
    def shape_zyx(self) -> Shape:
        """Return the downsampled size; ValueError if it is still to be decided."""
        if self.downsampled_dicom_size == "auto":
            raise ValueError("downsampled_dicom_size depends on the scans; decide it first")
        return self.downsampled_dicom_size


def cache_folder(config: CacheConfig, base: Path) -> Path:
    """Return the cache's folder; a relative one is relative to `base`."""
    return absolute(Path(config.cache_dir), base)


def cached_paths(scans: Sequence[Path], config: CacheConfig, base: Path) -> list[Path]:
    """Return where each scan's downsampled file lies: the source tree, mirrored for each size.

    Raise InputError if two scans would share one cached file.
    """
    folder = cache_folder(config, base) / _size_name(config.shape_zyx)
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


def _size_name(shape_zyx: Sequence[int]) -> str:
    return "x".join(str(n) for n in shape_zyx)


def _with_ending(path: Path) -> Path:
    return path if path.suffix == ".dcm" else path.with_name(with_room(path.name + ".dcm"))


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
        # The name alone does not identify the folder: others in the config have it, or may have it
        # in another project that uses the same cache.
        identity = folder.as_posix() if shared else relative(folder, base)
        name = f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
    return _with_ending(Path(name) / scan.relative_to(folder))


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
    # a temporary file of a very long name leads to the same lock
    place = relative(cached.with_name(with_room(cached.name)), folder)
    name = hashlib.sha256(place.encode()).hexdigest()[:16]
    return folder / LOCKS_FOLDER / f"{name}.lock"


def is_lock(path: Path, folder: Path) -> bool:
    """Return whether a file below the cache's folder is one of its locks, which are empty.

    A lease, of drives that have no locks, holds the name of its holder.
    """
    ours = path.parent == folder / LOCKS_FOLDER and _LOCK.fullmatch(path.name) is not None
    try:
        empty = path.suffix == ".lease" or path.stat().st_size == 0
        return ours and not path.is_symlink() and empty
    except FileNotFoundError:  # another process has just removed it
        return False


def may_be_cached(path: Path, folder: Path) -> bool:
    """Return whether a path below the cache's folder is a possible one of a cached file."""
    parts = path.relative_to(folder).parts
    size_folder = len(parts) > 2 and _SIZE_FOLDER.fullmatch(parts[0]) is not None
    return size_folder and path.suffix == ".dcm"


def shape_of(path: Path, folder: Path) -> Shape | None:
    """Return the downsampled size that a path below the cache's folder belongs to; None of none."""
    if not may_be_cached(path, folder):
        return None
    z, y, x = (int(number) for number in path.relative_to(folder).parts[0].split("x"))
    return z, y, x


def mirrors(path: Path, folder: Path, source: Path, shape_zyx: Sequence[int]) -> bool:
    """Return whether a path below the cache's folder is that of `source`'s cached file.

    The DICOM folder to which the source belonged isn't known, so every folder above it will do.
    """
    size, top, *below = path.relative_to(folder).parts if may_be_cached(path, folder) else ("", "")
    if size != _size_name(shape_zyx) or len(source.parts) <= len(below):
        return False
    of_folder, *wanted = _with_ending(source).parts[-len(below) - 1 :]
    named_so = re.fullmatch(re.escape(of_folder) + r"(-[0-9a-f]{8})?", top) is not None
    return named_so and below == wanted


def leftovers(cached: Path) -> list[Path]:
    """Return the temporary files that killed writers of a cached file left beside it."""
    target = cached.with_name(with_room(cached.name))
    return [path for path in cached.parent.glob(".*") if target_of_temporary(path) == target]
