"""Which code, whose hands and which packages a run came from."""

from __future__ import annotations

import getpass
import importlib.metadata
import subprocess
from pathlib import Path

import jawloc

PACKAGE = Path(jawloc.__file__).parent

# What loading and running a locator imports; all else jawloc needs is for training and looking.
LOCATOR_REQUIREMENTS = (
    "filelock",
    "mlflow",
    "monai",
    "numpy",
    "pandas",
    "pydantic",
    "pydicom",
    "scikit-learn",
    "scipy",
    "SimpleITK",
    "threadpoolctl",
    "tifffile",
    "torch",
    "tqdm",
)


def source_tags() -> dict[str, str]:
    """Say in MLflow's tags who ran what: user, package, and the commit of a git checkout."""
    tags = {"mlflow.source.name": "jawloc", "mlflow.source.type": "LOCAL", "mlflow.user": _user()}
    # asked about a file of ours, since an installed jawloc may lie inside somebody's repository
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:
        return tags
    commit = _git("rev-parse", "HEAD")
    if commit:
        changed = _git("status", "--porcelain", "--untracked-files=no", ".")
        tags["mlflow.source.git.commit"] = commit
        tags["mlflow.source.git.dirty"] = str(bool(changed)).lower()
    return tags


def locator_requirements() -> list[str]:
    """Pin what is installed, without the local part of a version, which no index offers."""
    return [
        f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in LOCATOR_REQUIREMENTS
    ]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return "unknown"


def _git(*arguments: str) -> str | None:
    """Return what git says in jawloc's folder; None where there is no git or no checkout."""
    command = ["git", "-C", str(PACKAGE), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
