"""Run a command of jawloc on workers that Slurm starts, by dask-jobqueue.

    python experiments/cluster/slurm.py --jobs 8 --memory 8GB locate my_locator scans/ --resume

Run it where Slurm's jobs can reach this process (a login node, or in a job of its own), in a folder
that all nodes share. Each job is one worker with one thread. Jobs are asked for as there is work,
and given back. Everything but dask-jobqueue is jawloc[cluster].
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main() -> None:
    from dask_jobqueue import SLURMCluster

    options, command = _options(sys.argv[1:])
    with SLURMCluster(**job_of(options)) as cluster:
        cluster.adapt(minimum_jobs=1, maximum_jobs=options.jobs)
        sys.exit(run(command, cluster.scheduler_address))


def _options(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=4, help="at most, one worker each")
    parser.add_argument("--memory", default="8GB", help="of each worker")
    parser.add_argument("--walltime", default="12:00:00", help="of each job, H:M:S")
    parser.add_argument("--queue", help="Slurm's partition")
    parser.add_argument("--gpu", action="store_true", help="one for each job")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="of jawloc, with its options")
    options = parser.parse_args(words)
    if not options.command:
        parser.error("a command of jawloc is missing, for instance: locate my_locator scans/")
    return options, options.command


def job_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return what dask-jobqueue needs to know of a job."""
    logs = Path("script_output") / "workers"
    logs.mkdir(parents=True, exist_ok=True)
    return {
        "cores": 1,
        "processes": 1,
        "memory": options.memory,
        "walltime": options.walltime,
        "queue": options.queue,
        "python": sys.executable,  # jawloc's own environment, which all nodes see
        "log_directory": str(logs),
        "job_extra_directives": ["--gres=gpu:1"] if options.gpu else [],
        # a worker ends between two scans, before Slurm ends its job in the middle of one
        "worker_extra_args": ["--lifetime", f"{_seconds(options.walltime) * 9 // 10}s"],
    }


def _seconds(walltime: str) -> int:
    """Return a time of Slurm's as H:M:S in seconds."""
    hours, minutes, seconds = map(int, walltime.split(":"))
    return (hours * 60 + minutes) * 60 + seconds


def run(command: Sequence[str], address: str) -> int:
    """Run a command of jawloc on the workers of a scheduler; return its exit code."""
    words = [sys.executable, "-m", "jawloc", *command, "--scheduler", address]
    try:
        return subprocess.run(words, check=False).returncode
    except KeyboardInterrupt:  # which the command got as well
        return 130


if __name__ == "__main__":
    main()
