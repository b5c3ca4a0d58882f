"""Which commit and which packages a run came from."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jawloc.reporting.tracking import source as provenance
from jawloc.reporting.tracking.source import LOCATOR_REQUIREMENTS, locator_requirements, source_tags
from tests.test_architecture import imports, read_package

CHECKOUT = Path(__file__).parents[3]
LOADED = """
import sys
import jawloc.inference.locator, jawloc.reporting.tracking.served_model
print(*(name for name in sys.modules if name.split(".")[0] == "jawloc"))
"""


def git(folder, *arguments):
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository that holds the package's folder, with nothing committed yet."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("1\n")
    (tmp_path / "README").touch()
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "README")
    git(tmp_path, "commit", "-qm", "first")
    monkeypatch.setattr(provenance, "PACKAGE", package)
    return tmp_path


def test_commit_of_a_checkout_and_whether_it_was_changed(checkout):
    git(checkout, "add", "package")
    git(checkout, "commit", "-qm", "second")
    tags = source_tags()
    assert tags["mlflow.source.git.commit"] == git(checkout, "rev-parse", "HEAD")
    assert tags["mlflow.source.git.dirty"] == "false"
    (checkout / "package" / "__init__.py").write_text("2\n")
    assert source_tags()["mlflow.source.git.dirty"] == "true"


def test_an_installed_package_does_not_claim_the_commit_of_a_repository_round_it(checkout):
    assert not [key for key in source_tags() if "git" in key]


def test_no_git_no_commit(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    tags = source_tags()
    assert not [key for key in tags if "git" in key]
    assert tags["mlflow.user"]


def test_requirements_are_pinned_to_what_is_installed_without_local_versions(monkeypatch):
    versions = {"torch": "2.13.0+cpu"}
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda n: versions.get(n) or real(n))
    pinned = locator_requirements()
    assert "torch==2.13.0" in pinned
    assert f"mlflow=={real('mlflow')}" in pinned


@pytest.mark.slow
def test_requirements_are_what_the_locators_modules_import_and_no_more():
    """Regression guard: a package was missing, and one listed that only phantoms use."""
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LOADED]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    sources = {name.removesuffix(".__init__"): (name, s) for name, s in read_package().items()}
    libraries: set[str] = set()
    seen: set[str] = set()
    waiting = run.stdout.split()
    while waiting:
        module = waiting.pop()
        if module in seen or module not in sources:
            continue
        seen.add(module)
        for _, origin, name in imports(*sources[module]):
            if origin.split(".")[0] == "jawloc":
                # what is imported within a function; but a served locator draws nothing
                if not origin.startswith("jawloc.reporting.figures"):
                    waiting += [origin, f"{origin}.{name}"]
            else:
                libraries.add(origin.split(".")[0])
    assert {"jawloc.scans.tiff", "jawloc.scans.volumes"} <= seen
    outside = libraries - set(sys.stdlib_module_names)
    distributions = importlib.metadata.packages_distributions()
    # some libraries come in several distributions, one of which has the library's name
    offered = {library: distributions[library] for library in outside}
    expected = {(k if k in names else names[0]).lower() for k, names in offered.items()}
    assert {name.lower() for name in LOCATOR_REQUIREMENTS} == expected
