"""Compare settings by their errors on the test scans, over several seeds.

    python experiments/curriculum/compare.py experiments/curriculum/ablation.yml \\
        --experiment experiments/curriculum/phantoms.yml

The file names arms, each a mapping of settings that are laid over the experiment's. Every training
is a run of its own in MLflow; one that is finished already is not repeated. Prints a table, and
writes `results/NAME.csv` (a row a training) and `results/NAME.png` beside this script. With
`--divide`, each seed has a division of its own (all arms the same), and the results are named after
the experiment too.
"""

from __future__ import annotations

import json
import random
import re
import textwrap
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import yaml
from tqdm import tqdm

from jawloc.cli.options import Command, SettingsOptions, takes_settings
from jawloc.config import Config, change_config
from jawloc.reporting.folders.run_folder import OUTPUT_FOLDER
from jawloc.reporting.text_files import write_text
from jawloc.scans.cores import usable_cores
from jawloc.training.splits import Split
from jawloc.workflows.prepare_data import prepare_data
from jawloc.workflows.train import run_training

RESULTS = Path(__file__).resolve().parent / "results"
Row = dict[str, Any]


@click.command(cls=Command)
@click.argument("arms_path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=usable_cores(), show_default=True)
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
@click.option("--divide", is_flag=True, help="Divide the scans anew for each seed.")
@takes_settings
def main(
    arms_path: Path,
    seeds: int,
    workers: int,
    results: Path,
    divide: bool,
    settings: SettingsOptions,
) -> None:
    """Train every arm of ARMS_PATH with every seed, and compare their test errors."""
    config = settings.load()
    arms: dict[str, Mapping[str, Any]] = yaml.safe_load(arms_path.read_text())["arms"]
    split = prepare_data(config).split  # the one cache is full before the trainings share it
    jobs = [
        (arm, seed, change_config(config, {**settings, **seeded}, source=str(arms_path)))
        for seed in range(seeds)
        for seeded in [{"seed": seed, **(divided(split, seed) if divide else {})}]
        for arm, settings in arms.items()
    ]
    experiment = f"_{settings.experiment.stem}" if divide and settings.experiment else ""
    name = arms_path.stem + experiment
    rows = run_all(jobs, name, workers)
    rows.sort(key=lambda row: (list(arms).index(row["arm"]), row["seed"]))
    results.mkdir(parents=True, exist_ok=True)
    write_rows(results / f"{name}.csv", rows)
    draw(results / f"{name}.png", rows)
    click.echo(table(rows))


def divided(split: Split, seed: int) -> dict[str, list[str]]:
    """Return a division of all scans by a seed, in parts as large as those of the split."""
    ids = sorted([*split.train_ids, *split.val_ids, *split.test_ids])
    random.Random(seed).shuffle(ids)
    tests, validation = len(split.test_ids), len(split.val_ids)
    return {
        "test_scans": ids[:tests],
        "validation_scans": ids[tests : tests + validation],
    }


def run_all(jobs: Sequence[tuple[str, int, Config]], name: str, workers: int) -> list[Row]:
    """Run the trainings in processes of their own, and return a row for each."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(run_one, *job, name) for job in jobs]
        done = tqdm(as_completed(futures), total=len(jobs), unit="training", desc=name)
        return [future.result() for future in done]


def run_one(arm: str, seed: int, config: Config, name: str) -> Row:
    """Train one arm with one seed, unless it was done before."""
    model = f"{name} {re.sub(r'[^A-Za-z0-9._]+', ' ', arm).strip()} {seed}"
    path = config.base / OUTPUT_FOLDER / model / "summary.json"
    kept = path.with_name("config.yml")
    if path.is_file() and kept.read_text() == config.as_yaml():
        summary = json.loads(path.read_text())
    else:
        result = run_training(config, model, overwrite=True)
        assert result is not None  # this process leads
        summary = result.summary
    errors = [scan["error_downsampled_voxels"] for scan in summary["test_scans"]]
    return {
        "arm": arm,
        "seed": seed,
        "epochs": summary["epochs"],
        "validation_error_voxels": summary["validation_error"]["downsampled_voxels"],
        "test_error_voxels": summary["test_error"]["downsampled_voxels"],
        "test_error_mm": summary["test_error"]["mm"],
        "worst_test_error_voxels": max(errors),
        "mean_position_error_voxels": summary["mean_position_error"]["downsampled_voxels"],
    }


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write a row a training."""
    write_text(path, pd.DataFrame(rows).to_csv(index=False))


def of_arm(rows: Sequence[Row], arm: str, key: str = "test_error_voxels") -> np.ndarray:
    """Return one number of each of an arm's trainings."""
    return np.array([row[key] for row in rows if row["arm"] == arm], dtype=float)


def table(rows: Sequence[Row]) -> str:
    """Return mean and standard deviation of every arm as text."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    width = max(map(len, arms))
    lines = [f"{'':{width}}  test error (voxels)  mm     worst  epochs"]
    for arm in arms:
        errors = of_arm(rows, arm)
        mm, worst, epochs = (
            of_arm(rows, arm, key).mean()
            for key in ("test_error_mm", "worst_test_error_voxels", "epochs")
        )
        spread = errors.std(ddof=1) if len(errors) > 1 else float("nan")
        words = f"{errors.mean():.3f} +- {spread:.3f}"
        lines.append(f"{arm:{width}}  {words:19}  {mm:.3f}  {worst:5.2f}  {epochs:6.0f}")
    return "\n".join(lines)


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Draw each training as a point, and each arm's mean and standard deviation."""
    from jawloc.reporting.figures import Figure, save_figure
    from jawloc.reporting.figures.style import Colour

    arms = list(dict.fromkeys(row["arm"] for row in rows))
    figure = Figure((9, 1.6 + 0.6 * len(arms)), layout="constrained")
    axes = figure.subplots()
    for place, arm in enumerate(arms):
        errors = of_arm(rows, arm)
        axes.plot(errors, [place - 0.15] * len(errors), "o", color=Colour.BLUE, alpha=0.6)
        spread = errors.std(ddof=1) if len(errors) > 1 else 0.0
        axes.errorbar(
            errors.mean(), place + 0.15, xerr=spread, fmt="D", color=Colour.VERMILION, capsize=4
        )
        axes.annotate(
            f"{errors.mean():.2f}",
            (errors.mean() + spread, place + 0.15),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(range(len(arms)), [textwrap.fill(arm, 34) for arm in arms])
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.set_xlim(0, 1.15 * axes.get_xlim()[1])  # room for the last label
    axes.set_xlabel("mean test error (voxels of the downsampled grid)")
    seeds = len({row["seed"] for row in rows})
    axes.set_title(
        f"Blue: each of {seeds} seeds. Red: their mean and standard deviation", loc="left"
    )
    save_figure(figure, path)


if __name__ == "__main__":
    main()
