"""Commands for scans: labelled DICOMs from images and masks or points, and the cache."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jawloc.cli.cluster import takes_cluster
from jawloc.cli.options import (
    CONTEXT,
    FILE_OR_FOLDER,
    Command,
    SettingsOptions,
    option_under,
    parse_numbers,
    parse_zyx,
    series_option,
    takes_settings,
)
from jawloc.errors import InputError

if TYPE_CHECKING:
    from jawloc.scans.convert.conversion import Conversion
    from jawloc.workflows.cluster import ClusterOptions

MAX_NOTES = 5  # of a conversion that are printed, without those to check
conversion = option_under("Conversion")


@click.command(cls=Command)
@click.argument("images", type=FILE_OR_FOLDER)
@click.argument("labels", type=FILE_OR_FOLDER)
@click.argument("out", type=FILE_OR_FOLDER)
@conversion(
    "--label-values", metavar="N[,N...]", help="Label values to keep, 1 to 255.  [default: all]"
)
@conversion(
    "--spacing",
    metavar="Z,Y,X",
    help="Voxel size in mm for formats that do not state it; one number means cubic voxels.  "
    "[default: as the file states]",
)
@series_option
@option_under("Output")(
    "--dry-run", is_flag=True, help="Read the masks, list what would be written, and write nothing."
)
@takes_cluster
def dicoms(
    images: Path,
    labels: Path,
    out: Path,
    label_values: str | None,
    spacing: str | None,
    series: tuple[str, ...],
    dry_run: bool,
    cluster: ClusterOptions | None,
) -> None:
    """Pair IMAGES with LABELS, and write labelled DICOMs into OUT.

    They are paired by file name. Both are folders (or single files) of NIfTI, NRRD, MHA, 3-D
    TIFF, folders of 2-D TIFFs, or DICOM series. Files that exist already are skipped. The exit code
    is 1 if nothing is there at the end, and 0 if at least one labelled DICOM is.

    In place of masks, LABELS may be points: a CSV table with the columns scan, z, y, x (voxels) or
    scan, x_mm, y_mm, z_mm (LPS) and, for several objects, object; jawloc's locations.csv; napari's
    CSV; or 3D Slicer's .mrk.json or .fcsv. The last three are named like the scan.

    \b
    Examples:
      jawloc dicoms images/ masks/ dicoms/labelled --dry-run
      jawloc dicoms images/ masks/ dicoms/labelled --label-values 2,3 --spacing 0.021
      jawloc dicoms images/ clicked.csv dicoms/labelled
      jawloc dicoms images/ masks/ dicoms/labelled --workers 4
    """
    from jawloc.scans.convert import plan_conversion
    from jawloc.scans.convert.points import holds_points, plan_point_conversion
    from jawloc.workflows.convert_scans import Converting, check_masks, convert_scans

    values = None if label_values is None else _parse_label_values(label_values)
    rule = "--spacing: one positive number or three (z,y,x), in mm"
    spacing_mm_zyx = parse_zyx(spacing, float, rule)
    about: dict[str, Any] = {"spacing_mm_zyx": spacing_mm_zyx, "series": series}
    if holds_points(images, labels):
        if values is not None:
            raise InputError(f"--label-values: chooses from masks; {labels} holds points")
        plan = plan_point_conversion(images, labels, out, **about)
    else:
        plan = plan_conversion(images, labels, out, label_values=values, **about)
    todo = [item for item in plan if item.skip_reason is None]
    skipped, how = [item for item in plan if item.skip_reason], Converting(values, **about)
    if dry_run:
        todo = check_masks(todo, how)
        for item in todo:
            if item.skip_reason is None:
                click.echo(f"would write {item.target} from {item.image} and {item.label}")
    else:
        todo = convert_scans(todo, how, cluster)
    plan = skipped + todo
    _report(sorted(plan, key=lambda item: item.scan_id), out, dry_run)
    if all(item.skip_reason and not item.target.exists() for item in plan):
        sys.exit(1)  # a script should not go on to train


def _report(plan: Sequence[Conversion], out: Path, dry_run: bool) -> None:
    from jawloc.scans.messages import TO_CHECK

    notes = [f"{item.scan_id}: {note}" for item in plan for note in item.notes]
    routine = [note for note in notes if not note.endswith(TO_CHECK)]
    for note in routine[:MAX_NOTES]:
        click.echo(note)
    if len(routine) > MAX_NOTES:
        click.echo(f"... and {len(routine) - MAX_NOTES} more notes")
    for note in notes:
        if note.endswith(TO_CHECK):
            click.echo(note)
    for item in plan:
        for point in item.left_out:
            click.echo(f"skipped a point of {item.scan_id}: {point}")
        if item.skip_reason is not None:
            reason = item.skip_reason.removeprefix(f"{item.scan_id}: ")  # of a folder: its name
            click.echo(f"skipped {item.scan_id}: {reason}")
    written = sum(item.skip_reason is None for item in plan)
    verb = "would be written" if dry_run else "written"
    files = f"{written} labelled DICOM{'' if written == 1 else 's'}"
    click.echo(f"{files} {verb} to {out}, {len(plan) - written} skipped")


def _parse_label_values(text: str) -> tuple[int, ...]:
    values = parse_numbers(text, int)
    if not values or not all(1 <= value <= 255 for value in values):
        raise InputError(
            f"--label-values: whole numbers from 1 to 255, separated by commas; received {text!r}"
        )
    return values


@click.group(context_settings=CONTEXT)
def cache() -> None:
    """Manage the downsampled scans that all runs share.

    \b
    Example:
      jawloc cache build && jawloc cache verify
    """


@cache.command("build", cls=Command)
@takes_settings
@option_under("Output")(
    "--labels",
    metavar="FOLDER",
    type=FILE_OR_FOLDER,
    help="Folder for labels.html, which shows each label on its scan.  [default: not written]",
)
@takes_cluster
def cache_build(
    settings: SettingsOptions, labels: Path | None, cluster: ClusterOptions | None
) -> None:
    """Downsample the scans that are not in the cache yet.

    \b
    Examples:
      jawloc cache build --labels script_output/labels
      jawloc cache build --set downsampled_dicom_size=[256,64,64]
      jawloc cache build --scheduler tcp://10.0.0.1:8786
    """
    from jawloc.inference.quantities import counted
    from jawloc.scans.cache import build_cache
    from jawloc.workflows.cluster.client import open_cluster
    from jawloc.workflows.prepare_data import find_scans
    from jawloc.workflows.show_labels import open_label_folder, show_cached_labels

    config = settings.load_for_scans()
    scans = find_scans(config)
    if labels is not None:
        open_label_folder(labels)
    with open_cluster(cluster) as opened:
        elsewhere = None if opened is None else opened.elsewhere
        report = build_cache(scans, config.cache, base=config.base, elsewhere=elsewhere)
    click.echo(
        f"{counted(len(report.cached), 'scan')} in the cache: {report.built} built, "
        f"{report.refreshed} refreshed, {report.reused} already there"
    )
    if labels is not None:
        click.echo(f"Labels: {show_cached_labels(labels, report.cached, config)}")


@cache.command("verify", cls=Command)
@takes_settings
@option_under("Output")(
    "--repair", is_flag=True, help="Make damaged and outdated files again, from their scans."
)
def cache_verify(settings: SettingsOptions, repair: bool) -> None:
    """Check every cached file against its full-size scan, bit by bit.

    \b
    Example:
      jawloc cache verify --repair
    """
    from jawloc.scans.cache.upkeep import repair_cache, verify_cache
    from jawloc.workflows.prepare_data import find_scans

    config = settings.load()
    statuses = verify_cache(config.cache, base=config.base)
    bad = [status for status in statuses if status.status != "ok"]
    for status in bad:
        click.echo(f"{status.path}: {status.status}; {status.detail}")
    click.echo(f"{len(statuses)} cached files checked, {len(bad)} not in order")
    if repair and bad:
        after = repair_cache(config.cache, bad, find_scans(config), base=config.base)
        bad = [status for status in after if status.status != "ok"]
        for status in bad:
            click.echo(f"{status.path}: can't be made again; {status.detail}")
        click.echo(f"{len(after) - len(bad)} cached files made again, {len(bad)} not in order")
    elif any(status.status != "source missing" for status in bad):
        click.echo("jawloc cache verify --repair makes them again")
    if any(status.status == "source missing" for status in bad):
        click.echo("jawloc cache clear removes those whose source is missing, and all others")
    if bad:
        sys.exit(1)


@cache.command("clear", cls=Command)
@takes_settings
def cache_clear(settings: SettingsOptions) -> None:
    """Remove the cached files (and nothing that jawloc did not write).

    \b
    Example:
      jawloc cache clear --config other.yml
    """
    from jawloc.scans.cache.upkeep import clear_cache

    config = settings.load()
    cleared = clear_cache(config.cache, base=config.base)
    for path in cleared.left:
        click.echo(f"left alone, not written by jawloc: {path}")
    click.echo(f"{cleared.files} files removed, {cleared.size_bytes / 1e6:.1f} MB")
