"""Imports point one way: the whole package is walked, and a violation fails with its reason.

cli -> viewer -> workflows -> reporting -> inference -> training -> scans, phantom, heatmaps ->
geometry and errors. Imports inside functions and under TYPE_CHECKING count as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "jawloc"

# A part may import itself and the parts of lower rank; parts of one rank don't know each other.
RANKS = {
    "errors": 0,
    "geometry": 1,
    "scans": 2,
    "heatmaps": 2,
    "phantom": 3,  # writes its scans with the writer of `scans`
    "training": 3,
    "inference": 4,
    "reporting": 5,
    "config": 5,
    "workflows": 6,
    "viewer": 7,
    "cli": 8,
    "__main__": 9,
}
# The only packages that may import these libraries.
OWNERS = {
    "click": "jawloc.cli",
    "matplotlib": "jawloc.reporting.figures",
    "mlflow": "jawloc.reporting.tracking",
    "optuna": "jawloc.workflows.tune",
    **dict.fromkeys(("napari", "qtpy", "magicgui", "npe2", "vispy"), "jawloc.viewer"),
}
# A module -> the only one that may import it.
SOLE_IMPORTERS = {
    # one way to log a model: as part of a run
    "jawloc.reporting.tracking.model_logging": "jawloc.reporting.tracking.sending",
}
# No file, no clock, no global random state in these.
PURE_PARTS = {"geometry", "heatmaps"}
IMPURE_LIBRARIES = {
    *("datetime", "glob", "io", "os", "pathlib", "random", "secrets", "shutil", "socket"),
    *("subprocess", "sys", "tempfile", "time", "urllib"),
}
IMPURE_NAMES = {
    *("bernoulli", "manual_seed", "multinomial", "normal", "open", "rand", "randint"),
    *("randn", "random", "randperm", "seed"),
}


def read_package() -> dict[str, str]:
    """Return the source of every module by its dotted name."""
    sources = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        sources[".".join(parts)] = path.read_text(encoding="utf-8")
    return sources


def imports(module: str, source: str) -> Iterator[tuple[int, str, str | None]]:
    """Yield (line, module, name) for each name imported anywhere in a module."""
    package = module.split(".")[:-1]  # of x.y.__init__ this is x.y, which is right too
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, None
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, origin, alias.name
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
            named = called.id if isinstance(called, ast.Name) else called
            if named in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value), None


def part_of(module: str, name: str | None = None) -> str | None:
    """Return the part of jawloc that an import reaches; None for its version and the like."""
    parts = module.split(".")
    if len(parts) > 1:
        return None if parts[1] == "__init__" else parts[1]
    return name if name in RANKS else None


def violations(sources: Mapping[str, str]) -> list[str]:
    """Return a line for each import that the design forbids."""
    found = []
    for module, source in sources.items():
        part = part_of(module)
        if part is not None and part not in RANKS:
            found.append(f"{module}: {part} has no place in the house")
            continue
        for line, origin, name in imports(module, source):
            where = f"{module}:{line}"
            if origin.split(".")[0] == "jawloc":
                found += _within(where, part, part_of(origin, name), name)
                found += _sole(where, module, {origin, f"{origin}.{name}"})
            else:
                found += _outside(where, module, part, origin.split(".")[0])
        if part in PURE_PARTS:
            found += [
                f"{module}:{line}: {part} is pure, but uses {n}" for line, n in _impure(source)
            ]
    return found


def _within(where: str, part: str | None, target: str | None, name: str | None) -> Iterator[str]:
    if target is None or target == part:
        return
    if part is None or target not in RANKS or RANKS[target] >= RANKS[part]:
        yield f"{where}: {part or 'the package itself'} must not import {target}"
    elif part == "config" and target != "errors" and not (name or "").endswith("Config"):
        yield f"{where}: config knows config classes only, not {target}'s {name}"


def _sole(where: str, module: str, reached: set[str]) -> Iterator[str]:
    for target in reached & set(SOLE_IMPORTERS):
        if SOLE_IMPORTERS[target] != module:
            yield f"{where}: only {SOLE_IMPORTERS[target]} may import {target}"


def _outside(where: str, module: str, part: str | None, library: str) -> Iterator[str]:
    owner = OWNERS.get(library, module)
    if module != owner and not module.startswith(f"{owner}."):
        yield f"{where}: only {owner} may import {library}"
    if part in PURE_PARTS and library in IMPURE_LIBRARIES:
        yield f"{where}: {part} is pure, but imports {library}"


def _impure(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in IMPURE_NAMES:
            yield node.lineno, node.attr
        if isinstance(node, ast.Name) and node.id in IMPURE_NAMES:
            yield node.lineno, node.id


def test_imports_point_one_way():
    assert violations(read_package()) == []


def test_the_walk_sees_the_whole_package():
    """Else the test above would pass on an empty folder."""
    sources = read_package()
    seen = {part_of(module) for module in sources} - {None}
    assert seen == set(RANKS)
    reached = {
        (part_of(module), part_of(origin, name))
        for module, source in sources.items()
        for _, origin, name in imports(module, source)
        if origin.split(".")[0] == "jawloc"
    }
    expected = [("cli", "workflows"), ("workflows", "reporting"), ("reporting", "inference")]
    expected += [("inference", "training"), ("training", "heatmaps"), ("training", "scans")]
    assert set(expected) <= reached


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("jawloc.geometry", "from jawloc.scans.scan import Scan"),
        ("jawloc.errors", "from jawloc.geometry import Grid"),
        ("jawloc.scans.x", "from jawloc.heatmaps.target import render"),
        ("jawloc.scans.x", "from jawloc.phantom import write_phantoms"),
        ("jawloc.heatmaps.x", "import jawloc.scans.scan"),
        ("jawloc.scans.dicom.x", "from jawloc.training.loop import fit"),
        ("jawloc.training.x", "from jawloc.inference.locator import Locator"),
        ("jawloc.training.x", "from jawloc.phantom import write_phantoms"),
        ("jawloc.inference.x", "from jawloc import reporting"),
        ("jawloc.inference.x", "from ..reporting import run_pictures"),
        ("jawloc.inference.__init__", "from .. import workflows"),
        ("jawloc.reporting.x", "from jawloc.config import Config"),
        ("jawloc.reporting.x", "def f():\n    from jawloc.workflows.train import run_training"),
        ("jawloc.reporting.x", "import importlib\nimportlib.import_module('jawloc.cli')"),
        ("jawloc.training.x", "if TYPE_CHECKING:\n    from jawloc.reporting.summary import a"),
        ("jawloc.workflows.train", "from jawloc.cli import options"),
        ("jawloc.config.x", "from jawloc.training.loop import fit"),
        ("jawloc.config.x", "import jawloc.training.loop"),
        ("jawloc.config.x", "from jawloc.reporting import figures"),
        ("jawloc.__init__", "from jawloc.geometry import Grid"),
        ("jawloc.utils", ""),
        ("jawloc.training.x", "from jawloc.utils import helper"),
        ("jawloc.training.x", "import mlflow"),
        ("jawloc.reporting.summary", "from mlflow.pyfunc import PythonModel"),
        ("jawloc.reporting.summary", "from jawloc.reporting.tracking.model_logging import x"),
        ("jawloc.workflows.train", "from jawloc.reporting.tracking import model_logging"),
        ("jawloc.reporting.tracking.x", "import matplotlib.pyplot as plt"),
        ("jawloc.reporting.figures_of_mine", "import matplotlib"),
        ("jawloc.workflows.train", "import click"),
        ("jawloc.workflows.train", "import optuna"),
        ("jawloc.workflows.review", "from jawloc.viewer.review import review_in_napari"),
        ("jawloc.cli.review", "import napari"),
        ("jawloc.geometry", "import os.path"),
        ("jawloc.heatmaps.x", "from pathlib import Path"),
        ("jawloc.heatmaps.x", "import time"),
        ("jawloc.heatmaps.x", "import torch\nnoise = torch.rand(3)"),
        ("jawloc.heatmaps.x", "import numpy as np\nnoise = np.random.default_rng()"),
        ("jawloc.heatmaps.x", "text = open('x').read()"),
    ],
)
def test_a_module_that_breaks_the_rule_is_found(module, source):
    """Shows that the first test can fail, and for what."""
    found = violations({module: source})
    assert len(found) == 1, found
    assert found[0].startswith(module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("jawloc.training.x", "from jawloc.scans.cache import Example"),
        ("jawloc.training.x", "from jawloc.training.loop import fit"),
        ("jawloc.inference.x", "from jawloc import __version__"),
        ("jawloc.inference.x", "from . import crop"),
        ("jawloc.phantom.x", "from jawloc.scans.dicom.writing import write_labelled_dicom_slabs"),
        ("jawloc.config.x", "from jawloc.training.loop import TrainingConfig"),
        ("jawloc.config.x", "from jawloc.errors import InputError"),
        ("jawloc.workflows.train", "from jawloc.config import Config"),
        ("jawloc.workflows.tune", "import optuna\nfrom jawloc.workflows.train import run_training"),
        ("jawloc.reporting.figures.x", "from matplotlib.figure import Figure"),
        ("jawloc.reporting.tracking.x", "import mlflow.pyfunc"),
        (
            "jawloc.reporting.tracking.sending",
            "from jawloc.reporting.tracking import model_logging",
        ),
        ("jawloc.cli", "import click\nfrom jawloc.scans.convert import convert"),
        ("jawloc.scans.x", "import os, time, random"),
    ],
)
def test_a_module_that_keeps_the_rule_is_left_alone(module, source):
    assert violations({module: source}) == []
