"""Train with 4, 8, 16, ... scans, and see how far off the positions in other scans are.

    python experiments/few_scans/learning_curve.py experiments/few_scans/learning_curve.yml

For each kind of scans and each division, the scans are shuffled: the last ones (at most 40) are
held out, the others train, validate (1) and calibrate (6). A training that is in `results/NAME.csv`
is not repeated. Writes that table, a row a training, and `results/NAME.png` beside this script.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import yaml

from jawloc.cli.options import Command, SettingsOptions, takes_settings
from jawloc.config import Config, change_config
from jawloc.inference.evaluate_scan import evaluate_scan
from jawloc.inference.locator import load_locator
from jawloc.inference.metrics import radius_coverage
from jawloc.reporting.folders.run_folder import OUTPUT_FOLDER
from jawloc.reporting.text_files import write_text
from jawloc.scans.listing import list_scans
from jawloc.workflows.train import run_training

RESULTS = Path(__file__).resolve().parent / "results"
VALIDATION, CALIBRATION, HELD_OUT = 1, 6, 40  # scans; the last at most
Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One training: which scans train, validate and calibrate, and which are held out."""

    kind: str
    division: int
    number: int  # of scans that train
    known: tuple[Path, ...]  # in this order: training, validation, calibration
    held_out: tuple[Path, ...]
    settings: Mapping[str, Any]


@click.command(cls=Command)
@click.argument("plan_path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--divisions", type=click.IntRange(1), default=3, show_default=True)
@click.option("--kind", "kinds", multiple=True, help="Only these kinds of scans.")
@takes_settings
def main(
    plan_path: Path, divisions: int, kinds: tuple[str, ...], settings: SettingsOptions
) -> None:
    """Train with every number of scans in PLAN_PATH, and test on scans that are held out."""
    config = settings.load()
    plan = yaml.safe_load(plan_path.read_text(encoding="utf-8"))["kinds"]
    table = RESULTS / f"{plan_path.stem}.csv"
    rows: list[Row] = pd.read_csv(table).to_dict("records") if table.exists() else []
    done = {(row["kind"], row["division"], row["number"]) for row in rows}
    for job in jobs(config.base, plan, divisions, kinds):
        if (job.kind, job.division, job.number) in done:
            continue
        rows.append(run_one(job, config))
        table.parent.mkdir(exist_ok=True)
        write_text(table, pd.DataFrame(rows).to_csv(index=False))
    draw(table.with_suffix(".png"), pd.DataFrame(rows))
    click.echo(pd.DataFrame(rows).groupby(["kind", "number"]).mean(numeric_only=True).to_string())


def jobs(
    base: Path, plan: Mapping[str, Any], divisions: int, kinds: Sequence[str]
) -> Iterator[Job]:
    """Yield each division's trainings; those of few scans have a part of those of many."""
    for division in range(divisions):
        for kind, about in plan.items():
            if kinds and kind not in kinds:
                continue
            paths = sorted((base / about["scans"]).glob("*.dcm"))
            random.Random(division).shuffle(paths)
            others = VALIDATION + CALIBRATION
            held_out = min(HELD_OUT, len(paths) - others - max(about["numbers"]))
            assert held_out > 0, f"{kind}: {len(paths)} scans are too few"
            rest, tests = paths[:-held_out], paths[-held_out:]
            for number in about["numbers"]:
                known = (*rest[others:][:number], *rest[:others])
                yield Job(kind, division, number, known, tuple(tests), about["settings"])


def run_one(job: Job, config: Config) -> Row:
    """Train with some scans, and look for the objects in those held out."""
    name = f"few_{job.kind}_{job.division}_{job.number}"
    folder = config.base / "dicoms" / "few_scans" / name
    for place, path in enumerate(job.known):  # scans are divided in the order of their names
        link = folder / f"n{place:03d}x{path.stem}.dcm"
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            os.link(path, link)
    changes = {
        "dicom_dirs": [str(folder)],
        "validation_scans": VALIDATION,
        "test_scans": CALIBRATION,
        "seed": job.division,
    }
    changed = change_config(config, {**job.settings, **changes}, source="the plan")
    result = run_training(changed, name, overwrite=True)
    assert result is not None  # one process
    locator = load_locator(config.base / OUTPUT_FOLDER / name / f"{name}.pth")
    crop = locator.crop_size
    assert crop is not None
    found = [one for scan in list_scans(job.held_out) for one in evaluate_scan(locator, scan, crop)]
    coverage = radius_coverage(found)
    return {
        "kind": job.kind,
        "division": job.division,
        "number": job.number,
        "epochs": result.summary["epochs"],
        "error_mm": float(np.mean([one.error.error_mm for one in found])),
        "error_voxels": float(np.mean([one.error.error_downsampled_voxels for one in found])),
        "mean_position_mm": result.summary["mean_position_error"]["mm"],
        "coverage": None if coverage is None else coverage.share,
        "flagged": float(np.mean([one.found.status != "ok" for one in found])),
    }


def draw(path: Path, rows: pd.DataFrame) -> None:
    """Draw error, coverage and flags against the number of scans, a line a kind."""
    from matplotlib.ticker import NullLocator

    from jawloc.reporting.figures import Figure, save_figure
    from jawloc.reporting.figures.style import Colour, label_log_axis

    panels = {
        "error_mm": "mean error (mm)",
        "coverage": "share within the radius (stated: 0.86)",
        "flagged": "share flagged",
    }
    figure = Figure((12, 4.2), layout="constrained")
    styles = zip((Colour.BLUE, Colour.VERMILION, Colour.GREEN), "osD", strict=True)
    looks = dict(zip(rows["kind"].unique(), styles, strict=False))
    numbers = sorted(rows["number"].unique())
    for axes, (column, label) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for kind, of_kind in rows.groupby("kind", sort=False):
            colour, marker = looks[kind]
            axes.plot(of_kind["number"], of_kind[column], marker, color=colour, alpha=0.4)
            mean = of_kind.groupby("number")[column].mean()
            axes.plot(mean.index, mean, marker + "-", color=colour, label=str(kind))
            if column == "error_mm":
                base = of_kind.groupby("number")["mean_position_mm"].mean()
                axes.plot(base.index, base, ":", color=colour)
        axes.set_xscale("log")
        axes.set_xticks(numbers, [str(number) for number in numbers])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("scans that train")
        axes.set_ylabel(label)
        if column == "error_mm":
            axes.set_yscale("log")
            label_log_axis(axes.yaxis)
            axes.set_title("dotted: the mean position", loc="left")
        else:
            axes.set_ylim(-0.03, 1.03)
            axes.legend(frameon=False, loc="center right")
    save_figure(figure, path)


if __name__ == "__main__":
    main()
