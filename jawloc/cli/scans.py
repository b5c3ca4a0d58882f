"""Commands that look after scans: labelled DICOMs from images and masks, and the cache."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jawloc.cli.options import SETTINGS, numbers, plain_errors, takes_config
from jawloc.errors import InputError

if TYPE_CHECKING:
    from jawloc.config import Config

MOST_NOTES = 5  # shown of a conversion


@click.command(**SETTINGS)
@click.argument("images", type=click.Path(path_type=Path))
@click.argument("labels", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--label-values", metavar="N[,N...]", help="Keep these label values only.")
@click.option(
    "--spacing",
    metavar="Z,Y,X",
    help="Voxel size in mm, for formats that lose it; one number for cubes.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@plain_errors
def dicoms(
    images: Path,
    labels: Path,
    out: Path,
    label_values: str | None,
    spacing: str | None,
    dry_run: bool,
) -> None:
    """Pair IMAGES with LABELS by file name and write labelled DICOMs into OUT.

    Both are folders (or single files) of NIfTI, NRRD, MHA, 3-D TIFF, folders of 2-D TIFFs, or
    DICOM series. What exists already is skipped.
    """
    from tqdm import tqdm

    from jawloc.scans.convert import convert, plan_conversion

    values = None if label_values is None else _label_values(label_values)
    mm = None if spacing is None else _spacing(spacing)
    plan = plan_conversion(images, labels, out)
    todo = [item for item in plan if item.skip_reason is None]
    if dry_run:
        for item in todo:
            click.echo(f"would write {item.target} from {item.image} and {item.label}")
    else:
        bar = tqdm(todo, desc="dicoms", unit="scan", disable=None if todo else True)
        done = [convert(item, label_values=values, spacing_mm_zyx=mm) for item in bar]
        plan = [item for item in plan if item.skip_reason is not None] + done
    plan = sorted(plan, key=lambda item: item.scan_id)
    notes = [f"{item.scan_id}: {note}" for item in plan for note in item.notes]
    for note in notes[:MOST_NOTES]:
        click.echo(note)
    if len(notes) > MOST_NOTES:
        click.echo(f"... and {len(notes) - MOST_NOTES} more notes like these")
    for item in plan:
        if item.skip_reason is not None:
            click.echo(f"skipped {item.scan_id}: {item.skip_reason}")
    written = sum(item.skip_reason is None for item in plan)
    verb = "would be written" if dry_run else "written"
    click.echo(f"{written} labelled DICOMs {verb} to {out}, {len(plan) - written} skipped")
    if not written and not any(item.target.exists() for item in plan):
        sys.exit(1)  # a script should not go on to train


@click.group(**SETTINGS)
def cache() -> None:
    """Look after the downsampled scans that every run shares."""


@cache.command("build", **SETTINGS)
@takes_config
def cache_build(config: Config) -> None:
    """Downsample the scans that aren't in the cache yet."""
    from jawloc.scans.cache import build_cache
    from jawloc.workflows.prepare_data import find_scans

    report = build_cache(find_scans(config), config.cache, base=config.base)
    click.echo(
        f"{len(report.cached)} scans in the cache: {report.built} built, "
        f"{report.refreshed} refreshed, {report.reused} already there"
    )


@cache.command("verify", **SETTINGS)
@takes_config
def cache_verify(config: Config) -> None:
    """Check every cached file against its full-size scan, bit by bit."""
    from jawloc.scans.cache.upkeep import verify_cache

    statuses = verify_cache(config.cache, base=config.base)
    bad = [s for s in statuses if s.status != "ok"]
    for status in bad:
        click.echo(f"{status.path}: {status.status}; {status.detail}")
    click.echo(f"{len(statuses)} cached files checked, {len(bad)} not in order")
    if bad:
        if any(status.status != "source missing" for status in bad):
            click.echo("jawloc cache build makes them again")
        if any(status.status == "source missing" for status in bad):
            click.echo("jawloc cache clear removes those whose source is missing, and all others")
        sys.exit(1)


@cache.command("clear", **SETTINGS)
@takes_config
def cache_clear(config: Config) -> None:
    """Remove the cached files (and nothing that jawloc did not write)."""
    from jawloc.scans.cache.upkeep import clear_cache

    cleared = clear_cache(config.cache, base=config.base)
    for path in cleared.left:
        click.echo(f"left alone, not written by jawloc: {path}")
    click.echo(f"{cleared.files} files removed, {cleared.size_bytes / 1e6:.1f} MB")


def _label_values(text: str) -> tuple[int, ...]:
    values = numbers(text, int)
    if not values or not all(1 <= value <= 255 for value in values):
        raise InputError(
            f"--label-values: whole numbers from 1 to 255, separated by commas; received {text!r}"
        )
    return values


def _spacing(text: str) -> tuple[float, float, float]:
    sizes = numbers(text, float)
    if len(sizes) not in (1, 3) or not all(0 < size < math.inf for size in sizes):
        raise InputError(
            f"--spacing: one positive number or three (z,y,x), in mm; received {text!r}"
        )
    z, y, x = sizes * 3 if len(sizes) == 1 else sizes
    return z, y, x
