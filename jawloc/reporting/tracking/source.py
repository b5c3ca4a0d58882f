"""Which code, user and packages a run came from."""

from __future__ import annotations

import getpass
import importlib.metadata
import subprocess
from pathlib import Path

import jawloc

PACKAGE = Path(jawloc.__file__).parent

# What loading and running a locator imports; the other dependencies are for training and reports.
LOCATOR_REQUIREMENTS = (
    *("filelock", "mlflow", "monai", "nibabel", "numpy", "pandas", "pillow"),
    *("pydantic", "pydicom", "scikit-learn", "scipy", "threadpoolctl", "tifffile", "torch", "tqdm"),
)


def source_tags() -> dict[str, str]:
    """Return MLflow's tags of the user, the package, and the commit of a git checkout."""
    tags = {"mlflow.source.name": "jawloc", "mlflow.source.type": "LOCAL", "mlflow.user": _user()}
    tags["jawloc_version"] = jawloc.__version__
    # asks for a file of jawloc's, since an installed one may lie inside another repository
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:
        return tags
    commit = _git("rev-parse", "HEAD")
    if commit:
        changed = _git("status", "--porcelain", "--untracked-files=no", ".")
        tags["mlflow.source.git.commit"] = commit
        tags["mlflow.source.git.dirty"] = str(bool(changed)).lower()
    return tags


def locator_requirements() -> list[str]:
    """Return the installed versions as pins, without local parts, which no index offers."""
    return [
        f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in LOCATOR_REQUIREMENTS
    ]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return "unknown"


def _git(*arguments: str) -> str | None:
    """Return git's output in jawloc's folder; None where there is no git or no checkout."""
    command = ["git", "-C", str(PACKAGE), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
