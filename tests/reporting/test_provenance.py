"""Which commit and which packages a run came from."""

import importlib.metadata
import subprocess

import pytest

from jawloc.reporting import provenance
from jawloc.reporting.provenance import locator_requirements, source_tags


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
