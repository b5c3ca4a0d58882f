"""Options of a cluster that can't be followed are refused in a sentence, before any work."""

from __future__ import annotations

import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from jawloc.workflows.cluster import ClusterOptions
from tests.lab import only_sentence

CHECKOUT = Path(__file__).parents[3]
needs_dask = pytest.mark.skipif(find_spec("distributed") is None, reason="needs jawloc[cluster]")
HERE = "tcp://127.0.0.1:8786"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--scheduler", HERE, "--workers", "2"), "--scheduler has workers of its own and"),
        (("--scheduler", "127.0.0.1:8786"), "--scheduler: an address like tcp://host:8786"),
        (("--scheduler", "http://127.0.0.1:8786"), "--scheduler: an address like tcp://host:"),
        (("--workers", "0"), "--workers: at least 1; received 0"),
        (("--worker-memory", "2GB"), "--worker-memory limits the processes of --workers"),
        *(
            pytest.param(
                ("--workers", "1", "--worker-memory", memory),
                "--worker-memory: at least 1GB, with its unit",
                marks=needs_dask,  # which reads sizes
            )
            for memory in ("2", "900MB", "1e400GB")
        ),
    ],
)
@pytest.mark.parametrize("command", ["locate", "dicoms", "cache build", "evaluate"])
def test_options_that_cannot_be_followed_are_refused(
    jawloc, tmp_path, monkeypatch, command, options, said
):
    monkeypatch.chdir(tmp_path)
    words = {"locate": ["m.pth", "a.tif"], "dicoms": ["a", "b", "c"], "evaluate": ["m.pth", "a"]}
    given = [*command.split(), *words.get(command, []), *options]
    assert only_sentence(jawloc(*given)).startswith(said)
    assert [*tmp_path.iterdir()] == []


def test_without_dask_one_sentence_says_what_to_install(jawloc, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jawloc.workflows.cluster.find_spec", lambda _: None)
    assert only_sentence(jawloc("locate", "m.pth", "a.tif", "--workers", "2")) == (
        "--scheduler and --workers need Dask, which is not installed: pip install 'jawloc[cluster]'"
    )


@needs_dask
@pytest.mark.parametrize(("text", "size"), [("1GB", 10**9), ("1.5 gib", 3 * 2**29)])
def test_sizes_have_the_units_of_the_field(text, size):
    assert ClusterOptions(workers=1, worker_memory=text).memory_bytes() == size


def test_a_command_without_these_options_imports_no_dask(tmp_path):
    """Regression guard: every start of jawloc would take longer."""
    code = """
import sys
import jawloc.cli, jawloc.workflows.locate, jawloc.workflows.cross_validate
import jawloc.workflows.evaluate, jawloc.workflows.tune, jawloc.workflows.convert_scans
print([name for name in ("dask", "distributed") if name in sys.modules])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def test_slurm_is_asked_for_workers_with_one_thread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = runpy.run_path(str(CHECKOUT / "experiments" / "cluster" / "slurm.py"))
    options, command = script["_options"](["--jobs", "2", "--gpu", "locate", "m", "s", "--resume"])
    job = script["job_of"](options)
    assert command == ["locate", "m", "s", "--resume"]
    assert (job["cores"], job["processes"], job["memory"]) == (1, 1, "8GB")
    assert job["job_extra_directives"] == ["--gres=gpu:1"]
    assert script["run"](["locate", "m.pth", "s"], "nowhere") == 2  # as jawloc ends
