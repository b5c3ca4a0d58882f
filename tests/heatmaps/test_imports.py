"""The heatmaps need nothing but NumPy, pydantic and PyTorch, and start fast."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import jawloc.heatmaps

ROOT = Path(__file__).parents[2]
HEATMAPS = [f"jawloc.heatmaps.{p.stem}" for p in Path(jawloc.heatmaps.__file__).parent.glob("*.py")]
HEAVY = ("matplotlib", "mlflow", "optuna", "scipy.stats")


def imported_by(*modules: str) -> list[str]:
    """Return the heavy libraries that a fresh process has imported after these modules."""
    code = (
        "import importlib, sys\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        f"print(*(name for name in {HEAVY} if name in sys.modules))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.split()


def test_importing_the_heatmaps_imports_no_heavy_library():
    assert len(HEATMAPS) >= 6
    assert imported_by(*HEATMAPS) == []


@pytest.mark.parametrize("name", ["jawloc.inference.locator", "jawloc.inference.models"])
def test_importing_a_locator_imports_no_heavy_library(name):
    """SciPy's statistics and MLflow take seconds, longer than locating one scan."""
    assert imported_by(name) == []


def test_a_heavy_library_would_be_noticed():
    """Shows that the tests above can fail."""
    assert imported_by("scipy.stats") == ["scipy.stats"]
