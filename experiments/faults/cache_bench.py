"""What the faults of the cache share: scans, a whole cache of them, and what its examples are."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tiny_project as tiny
from campaign import Plan

SCANS = 6
SIZE, OTHER_SIZE = (24, 12, 12), (20, 10, 10)
JAW: dict[str, Sequence[int] | None] = {"jaw": None}


class Bench:
    """Scans, a whole cache of them to copy, and what its examples are."""

    def __init__(self, plan: Plan) -> None:
        from jawloc.scans.cache import CacheConfig

        self.plan, self.work, self.random = plan, plan.work, plan.random
        self.scans = sorted(tiny.write_scans(self.work / "scans", SCANS).glob("*.dcm"))
        self.config = CacheConfig((str(self.work / "scans"),), SIZE, n_workers=2)
        self.number = 0
        self.whole = self.folder()
        self.build(self.whole)
        self.right = self.examples(self.whole)

    def folder(self, copy: bool = False) -> Path:
        """Return a new folder, empty or with a copy of the whole cache."""
        self.number += 1
        folder = self.work / f"cache{self.number}"
        if copy:
            shutil.copytree(self.whole, folder)
        return folder

    def of(self, folder: Path, **settings: Any) -> Any:
        return replace(self.config, cache_dir=str(folder), **settings)

    def build(self, folder: Path, **settings: Any) -> Any:
        from jawloc.scans.cache import build_cache

        config = self.of(folder, **settings)
        return build_cache(self.scans, config, base=self.work, progress=False)

    def files(self, folder: Path) -> list[Path]:
        from jawloc.scans.cache.layout import cached_paths

        return cached_paths(self.scans, self.of(folder), self.work)

    def examples(self, folder: Path) -> dict[str, str]:
        """Build the cache, and return a digest of each example that a training would use."""
        from jawloc.scans.cache import open_example

        digests = {}
        for path in self.build(folder).cached:
            example = open_example(path, JAW).read()
            digests[example.scan_id] = digest_of(example)
        return digests

    def wrong(self, folder: Path) -> list[str]:
        """Build the cache and use it; say what is wrong with its examples and files."""
        from jawloc.scans.cache.upkeep import verify_cache

        try:
            found = self.examples(folder)
        except Exception as error:
            return [f"can't be built: {type(error).__name__}: {error}"]
        wrong = [f"wrong examples: {k}" for k in self.right if found.get(k) != self.right[k]]
        wrong += [f"left: {left}"] if (left := tiny.temporary_files(folder)) else []
        checked = verify_cache(self.of(folder), base=self.work, progress=False)
        return wrong + [f"{s.path.name} is {s.status}: {s.detail}" for s in checked if is_bad(s)]

    def partial_files(self, folder: Path) -> list[str]:
        """Name the files with a final name that can't be read to their end."""
        from jawloc.scans.cache.files import read_cached

        broken = []
        for path in folder.rglob("*.dcm"):
            if not path.name.startswith("."):
                try:
                    read_cached(path)
                except Exception as error:
                    broken.append(f"{path.name}: {error}")
        return broken


def digest_of(example: Any) -> str:
    digest = hashlib.sha256()
    for array in (example.image, example.mask, example.points_voxels):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def is_bad(status: Any) -> bool:
    return bool(status.status != "ok")
