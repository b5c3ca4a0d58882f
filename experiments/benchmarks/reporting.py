"""Report a benchmark's results: a printed table, a CSV file, a PNG and a run in MLflow.

Every script of this folder ends with one call::

    table = Table("one", "One scan", rows, Bars("seconds", "wall time (s)"))
    report("cache", [table], params={"shape_zyx": (2000, 600, 600)})

which prints the tables, writes `results/cache.csv` and `results/cache.png`, and logs the numbers
and both files to the experiment `benchmarks`.
"""

from __future__ import annotations

import os
import platform
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from charts import draw
from tables import Bars, Lines, Row, Table, aligned, columns_of, write_csv

__all__ = ["Bars", "Lines", "Row", "Table", "machine", "report"]

ROOT = Path(__file__).resolve().parents[2]  # of the repository; MLflow's store is there
RESULTS = Path(__file__).resolve().parent / "results"
EXPERIMENT = "benchmarks"


def report(
    name: str,
    tables: Sequence[Table],
    *,
    params: Mapping[str, object],
    note: str = "",
    results: Path = RESULTS,
    root: Path = ROOT,
) -> None:
    """Print a benchmark's tables, write its CSV and PNG, and log all of it to MLflow.

    Parameters
    ----------
    name : str
        Name of the files and of the run.
    tables : sequence of Table
    params : mapping
        What the numbers depend on: sizes, repeats, seeds.
    note : str
        A sentence below the tables: what a column means, what was left out of the times.
    results, root : Path
        Where the files go, and the folder that has `mlruns/`.
    """
    caption = " ".join(part for part in (machine(), note) if part)
    for table in tables:
        print(f"\n{table.title}\n{aligned(table.rows)}")
    print(f"\n{textwrap.fill(caption, 100)}")
    results.mkdir(parents=True, exist_ok=True)
    files = [results / f"{name}.csv"]
    write_csv(files[0], tables)
    drawn = [table for table in tables if table.panel is not None]
    if drawn:
        files.append(results / f"{name}.png")
        draw(files[1], drawn, caption)
    _log(name, tables, params, caption, files, root)


def machine() -> str:
    """Describe the machine in a sentence: processor, cores, memory, versions, threads."""
    import numpy as np
    import torch

    from jawloc.scans.cores import usable_cores

    model = platform.processor() or platform.machine()
    about = Path("/proc/cpuinfo")
    if about.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", about.read_text(), re.MULTILINE)
        model = found[1] if found else model
    memory = ""
    if hasattr(os, "sysconf"):
        gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        memory = f", {gb:.0f} GB of memory"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{model}, {usable_cores()} cores{memory}, {gpu}; Python {platform.python_version()}, "
        f"NumPy {np.__version__}, PyTorch {torch.__version__} with {torch.get_num_threads()} "
        "threads."
    )


def _log(
    name: str,
    tables: Sequence[Table],
    params: Mapping[str, object],
    caption: str,
    files: Sequence[Path],
    root: Path,
) -> None:
    from jawloc.reporting.tracking.runs import tracked_run

    with tracked_run(
        root, name, params=params, tags={"machine": caption}, experiment=EXPERIMENT
    ) as run:
        run.log_summary(_metrics(tables))
        for file in files:
            run.log_file(file)


def _metrics(tables: Sequence[Table]) -> dict[str, float]:
    metrics = {}
    for table in tables:
        first = columns_of(table.rows)[0]
        for row in table.rows:
            for column, value in row.items():
                if isinstance(value, int | float) and column != first:
                    key = f"{table.name}/{row[first]}/{column}"
                    # MLflow takes 250 characters of these kinds
                    metrics[re.sub(r"[^\w\-. /:]", "_", key, flags=re.ASCII)[:250]] = float(value)
    return metrics
