"""The container recipes: their steps install jawloc, and what they install answers."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
CONTAINERS = CHECKOUT / "containers"


def steps(recipe: str) -> list[str]:
    """Return the commands that a recipe runs when it is built."""
    text = (CONTAINERS / recipe).read_text(encoding="utf-8")
    if recipe == "Dockerfile":
        return re.findall(r"^RUN (.+)$", text, flags=re.MULTILINE)
    section = re.search(r"^%post\n((?: +.+\n)+)", text, flags=re.MULTILINE)
    assert section is not None
    return [line.strip() for line in section[1].splitlines()]


@pytest.mark.parametrize("recipe", ["Dockerfile", "jawloc.def"])
def test_a_recipe_copies_the_checkout_and_runs_the_shared_steps_and_nothing_else(recipe):
    assert steps(recipe) == ["sh /opt/jawloc/containers/install.sh"]
    text = (CONTAINERS / recipe).read_text(encoding="utf-8")
    assert re.search(r"^(?:COPY| +)\s*\. /opt/jawloc$", text, flags=re.MULTILINE)


def test_a_recipes_python_is_one_that_jawloc_supports():
    for recipe in ("Dockerfile", "jawloc.def"):
        text = (CONTAINERS / recipe).read_text(encoding="utf-8")
        version = re.search(r"^(?:FROM|From:) python:3\.(\d+)-slim$", text, flags=re.MULTILINE)
        assert version is not None
        assert int(version[1]) >= 11


@pytest.mark.slow
def test_the_steps_install_a_jawloc_that_answers_without_the_checkout(tmp_path):
    checkout, environment = tmp_path / "jawloc", tmp_path / "environment"
    names = ("jawloc", "containers", "pyproject.toml", "README.md", "LICENSE")
    for name in names:
        source = CHECKOUT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        checkout.mkdir(exist_ok=True)
        copy(source, checkout / name)
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    # the libraries are those of these tests: only jawloc itself is built and installed
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables |= {"PIP_NO_DEPS": "1", "PATH": f"{environment / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", checkout / "containers" / "install.sh"],
        env=variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^jawloc, version \d+\.\d+", done.stdout, flags=re.MULTILINE)
    assert (site / "jawloc" / "cli" / "__init__.py").exists()
    assert (environment / "bin" / "jawloc-tune").exists()
