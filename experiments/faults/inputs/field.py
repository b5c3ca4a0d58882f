"""The originals, and which damage a number plants in which of them."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from campaign import Plan

from inputs.damage import choose, in_its_place
from inputs.originals import Original, write_originals
from inputs.plans import damage_of
from inputs.readers import KINDS
from jawloc.errors import InputError

LARGEST_ODD_FILE = 200_000  # bytes of a file of pydicom's that is damaged: others only cost time


@dataclass(frozen=True)
class Whole:
    """An original and its content."""

    original: Original
    files: dict[str, bytes]


class Field:
    """The originals, and the damage of each number."""

    def __init__(self, plan: Plan) -> None:
        self.seed, self.work = plan.seed, plan.work
        by_kind: dict[str, list[Whole]] = {kind: [] for kind in KINDS}
        for original in write_originals(plan.work / "originals"):
            by_kind[original.kind].append(Whole(original, original.files))
        self.by_kind = by_kind
        self.others = [
            own[0].files[own[0].original.target]
            for own in by_kind.values()
            if own[0].original.target in own[0].files
        ]
        self.odd = [w for w in by_kind["DICOM series"] if "pydicom" in w.original.variant]
        shutil.copyfile(self._path("MetaImage", "mha") / "a.mha", plan.work / "scan.mha")
        shutil.copyfile(self._path("model", "one_object") / "m.pth", plan.work / "m.pth")
        self._known: dict[str, Any] = {}

    @property
    def place(self) -> Path:
        """Return the folder of the damaged files: each process has one."""
        return self.work / f"process{os.getpid()}" / "here"

    def _path(self, kind: str, variant: str) -> Path:
        return self.work / "originals" / kind / variant

    def whole_of(self, number: int) -> tuple[Whole, bool]:
        """Return an original, and whether it stays as it is (pydicom's odd files, once each)."""
        kind, turn = list(KINDS)[number % len(KINDS)], number // len(KINDS)
        every = self.by_kind[kind]
        if kind == "DICOM series":
            if turn % 2 == 0 and turn // 2 < len(self.odd):
                return self.odd[turn // 2], True
            own = [w for w in every if w not in self.odd]
            small = [w for w in self.odd if len(w.files["a.dcm"]) < LARGEST_ODD_FILE]
            every = small if turn % 4 == 1 else own
        at = int(self._random(number).integers(len(every)))
        if kind == "study" and turn % 4:  # a database takes thirty times as long
            at = 0
        return every[at], False

    def _random(self, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, number])

    def write(self, files: dict[str, bytes]) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        for name, content in files.items():
            (self.place / name).parent.mkdir(parents=True, exist_ok=True)
            (self.place / name).write_bytes(content)

    def plant(self, number: int) -> tuple[str, str]:
        """Write the damaged files of a number; return the family of the damage and what it is."""
        whole, as_it_is = self.whole_of(number)
        self.write(whole.files)
        random = self._random(number)
        random.integers(9, size=3)
        damaged = choose(random, whole.original.damaged)
        if as_it_is:
            return "pydicom's odd files as they are", ""
        if random.random() < 0.1:
            what = in_its_place(self.place / damaged, self.others, random)
            return "something else in its place", f"{damaged}: {what}"
        family, what, damage = damage_of(damaged, random, self.work)
        with suppress(ValueError):  # of a text that has nothing to change
            (self.place / damaged).write_bytes(damage(whole.files[damaged], random))
        return family, f"{damaged}: {what}"

    def describe(self, number: int) -> tuple[str, str]:
        """Return the row and the description of a mutation."""
        family, what = self.plant(number)
        original = self.whole_of(number)[0].original
        detail = f"seed {self.seed}, mutation {number} of {original.variant}, {what}"
        return f"{original.kind}: {family}", detail

    def found_in(self, whole: Whole) -> Any:
        """Return what is read of a whole original: a result or its refusal."""
        original = whole.original
        key = f"{original.kind} {original.variant}"
        if key not in self._known:
            self.write(whole.files)
            try:
                self._known[key] = KINDS[original.kind].read(self.place, original.target)
            except InputError as error:
                self._known[key] = error
        return self._known[key]
