"""Several processes train as one: real ones, started by torchrun, against one alone."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from jawloc.errors import TrainingError
from jawloc.training.distributed import SINGLE_PROCESS, Processes, distributed_training
from tests.lab import erase_labels

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
TRAIN = ["-m", "jawloc", "train", "--config", "userconf.yml"]
LONGEST = 600  # seconds that anything may take; a machine may be slow, and have other tests to run
TWO_STAGES = ("network.coarse=2", "network.window=[16,16,16]")


@pytest.fixture
def together(lab):
    """Return a function that starts processes that train together in a lab's folder."""
    started = []

    def start(*arguments: str, processes: int = 2) -> subprocess.Popen:
        process = subprocess.Popen(
            [*TORCHRUN, str(processes), *TRAIN, *arguments],
            cwd=lab,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:  # torchrun ends its children when it is asked to end
            process.terminate()
            process.communicate(timeout=60)


def rows(lab: Path, name: str) -> list[dict[str, float]]:
    with (lab / "script_output/jaw_location" / name / "metrics.csv").open() as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [(), (*TWO_STAGES, "objects={left: 1, right: 2}")],
    ids=["one stage", "two stages, objects that some scans lack"],
)
def test_two_processes_give_what_one_gives_with_the_same_batch(
    lab, together, jawloc, no_pictures, settings
):
    """Three training scans in batches of two: the last batch leaves one process nothing to do,
    and so does the one validation scan."""
    for number, label in ((0, 1), (1, 2)):
        erase_labels(lab / f"dicoms/labelled/phantom_{number:03d}.dcm", label)
    options = [word for setting in settings for word in ("--set", setting)]
    process = together("--model-name", "two", *options)
    said, complaints = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, complaints
    assert said.count("Mean radial error") == 1  # one process speaks for both
    alone = jawloc("train", "--model-name", "one", *options)
    assert alone.exit_code == 0, alone.output
    one, two = rows(lab, "one"), rows(lab, "two")
    assert len(one) == len(two) == 3
    for first, second in zip(one, two, strict=True):
        assert first.keys() == second.keys()
        for name in first.keys() - {"seconds"}:
            assert second[name] == pytest.approx(first[name], abs=1e-4), name


@pytest.mark.slow
def test_a_single_process_of_torchrun_trains_as_without_it(lab, together, jawloc, no_pictures):
    process = together("--model-name", "single", processes=1)
    said, complaints = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, complaints
    assert said.count("Mean radial error") == 1
    assert jawloc("train", "--model-name", "alone").exit_code == 0
    first, second = rows(lab, "single"), rows(lab, "alone")
    assert len(first) == len(second) == 3
    for single, alone in zip(first, second, strict=True):
        for name in alone.keys() - {"seconds"}:
            assert single[name] == pytest.approx(alone[name], abs=1e-4), name


@pytest.mark.slow
def test_what_is_wrong_is_said_once_and_ends_both(together):
    process = together("--set", "dicom_dirs=[nowhere]")
    _, complaints = process.communicate(timeout=LONGEST)
    assert process.returncode != 0
    assert complaints.count("a folder of scans must exist") == 1
    assert "nowhere" in complaints
    assert "[rank" not in complaints  # how torch begins a traceback


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds its processes in /proc")
def test_a_killed_process_ends_the_other_and_the_run_goes_on_from_its_checkpoint(
    lab, together, jawloc
):
    process = together("--model-name", "two", "--set", "num_epochs=500")
    checkpoint = lab / "script_output/jaw_location/two/checkpoint.pt"
    deadline = time.monotonic() + LONGEST
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert checkpoint.exists(), process.communicate(timeout=60)
    os.kill(_follower_of(process.pid), signal.SIGKILL)
    process.communicate(timeout=LONGEST)
    assert process.returncode != 0
    assert checkpoint.exists()
    epochs = len(torch.load(checkpoint, weights_only=True)["records"])
    words = ("train", "--model-name", "two", "--set", "num_epochs=500", "--resume")
    # it goes on alone, and an interruption shows from where
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jawloc.workflows.train.save_checkpoint", _interrupted)
        assert jawloc(*words).exit_code == 130
    assert _seen_epochs == [epochs + 1]


_seen_epochs: list[int] = []


def _interrupted(_path, state, *_):
    _seen_epochs.append(len(state.records))
    raise KeyboardInterrupt


def _follower_of(parent: int) -> int:
    """Return the process of rank 1 among torchrun's own."""
    for folder in Path("/proc").iterdir():
        try:
            is_child = f"PPid:\t{parent}\n" in (folder / "status").read_text(encoding="utf-8")
            if is_child and b"\0RANK=1\0" in (folder / "environ").read_bytes():
                return int(folder.name)
        except OSError:
            continue
    raise AssertionError("no process of rank 1")


# --- without other processes -------------------------------------------------------------------


@pytest.mark.parametrize(("size", "batch"), [(1, 5), (2, 5), (2, 1), (3, 8), (4, 2), (8, 3)])
def test_the_shares_make_up_the_batch(size, batch):
    every = torch.arange(batch)
    shares = [every[Processes(rank, size).shard(batch)] for rank in range(size)]
    assert torch.equal(torch.cat(shares), every)
    assert max(map(len, shares)) == -(-batch // size)


def test_without_torchrun_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed_training() as processes:
        assert processes == SINGLE_PROCESS
        assert processes.is_main
        assert processes.all_gather([1, 2]) == [1, 2]


@pytest.mark.parametrize(
    ("rank", "error", "becomes"),
    [
        (0, RuntimeError("[pair.cc:5] Connection closed by peer [127.0.0.1]:1"), TrainingError),
        (1, RuntimeError("[pair.cc:5] Connection closed by peer [127.0.0.1]:1"), SystemExit),
        (0, RuntimeError("out of memory"), RuntimeError),
        (1, ValueError("x"), ValueError),
    ],
)
def test_losing_touch_is_told_from_other_errors(monkeypatch, rank, error, becomes):
    distributed = torch.distributed
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: None)
    monkeypatch.setattr(distributed, "get_rank", lambda: rank)
    with pytest.raises(becomes), distributed_training():
        raise error
