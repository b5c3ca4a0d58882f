"""The command that finds the jaw in new scans."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jawloc.cli.cluster import takes_cluster
from jawloc.cli.options import (
    FILE_OR_FOLDER,
    Command,
    config_crop_size,
    config_option,
    crop_size_option,
    option_under,
    parse_crop_size,
    refuse_missing,
    series_option,
    takes_model,
)
from jawloc.errors import InputError

if TYPE_CHECKING:
    from jawloc.inference.locator import Locator
    from jawloc.inference.models import ModelOptions
    from jawloc.workflows.cluster import ClusterOptions

DEFAULT_OUTPUT = Path("script_output") / "locations"
output = option_under("Output")
repeat = option_under("Interrupted and repeated runs")


@click.command(cls=Command)
@click.argument("model")
@click.argument("scans", metavar="SCAN...", nargs=-1, required=True, type=FILE_OR_FOLDER)
@series_option
@takes_model
@output(
    "--output-dir",
    "folder",
    type=FILE_OR_FOLDER,
    default=DEFAULT_OUTPUT,
    help="Folder for tables, crops and pictures.",
)
@crop_size_option
@output(
    "--crop-format",
    type=click.Choice(["tif", "nrrd", "nii.gz", "dicom"]),
    default="tif",
    help="File format of the crops; all but tif keep spacing and origin.",
)
@output("--no-crops", is_flag=True, help="Write no crops.")
@output("--no-pictures", is_flag=True, help="Draw no pictures.")
@repeat(
    "--resume", is_flag=True, help="Skip scans that are done, and add the others to the tables."
)
@repeat("--overwrite", is_flag=True, help="Replace the tables in the output folder.")
@takes_cluster
@config_option
def locate(
    model: str,
    scans: tuple[Path, ...],
    series: tuple[str, ...],
    folder: Path,
    resume: bool,
    overwrite: bool,
    crop_size: str | None,
    crop_format: str,
    no_crops: bool,
    no_pictures: bool,
    config_path: Path,
    model_options: ModelOptions,
    device: str,
    cluster: ClusterOptions | None,
) -> None:
    """Find the jaw in SCANs with a trained MODEL.

    MODEL is the name of a model that jawloc-train made, a .pth file, or an MLflow URI such as
    models:/jaw_locator@champion. A SCAN is a file, a folder with one scan's slices, a folder of
    scans, or a .txt list of them.

    \b
    Examples:
      jawloc locate my_locator scan.tif
      jawloc locate models:/jaw_locator@champion scans/ --crop-format nrrd --resume
      jawloc locate my_locator scans/ --workers 4 --worker-memory 8GB
      jawloc locate lab.pth scans/ --network attention-unet --downsampled-size 512,128,128
    """
    if resume and overwrite:
        raise InputError("--resume adds to the tables and --overwrite replaces them; give only one")
    if not any(map(os.path.lexists, scans)):  # among others, one that is missing gets a row
        refuse_missing(scans)
    from jawloc.reporting.folders.run_folder import locked_output_folder
    from jawloc.reporting.location_files import LocateRequest, earlier_rows, owners
    from jawloc.scans.listing import list_scans
    from jawloc.workflows.locate import locate_scans

    crop = parse_crop_size(crop_size)
    locator, digest = _load(model, config_path, model_options, device)
    with locked_output_folder(folder):  # from here, another command adds no results
        rows = earlier_rows(folder, resume=resume, overwrite=overwrite)
        known = {Path(scan_rows[0].path): name for name, scan_rows in rows.items()}
        listed = list_scans(scans, exclude=folder, known=known, series=series)
        request = LocateRequest(
            locator=locator,
            model=model,
            digest=digest,
            model_options=model_options,
            folder=folder,
            crop_size=crop or locator.crop_size or config_crop_size(config_path),
            crop_format=None if no_crops else crop_format,
            pictures=not no_pictures,
            earlier=owners(rows),
        )
        result = locate_scans(request, listed, rows, cluster)
    click.echo(str(result))
    if result.failed:
        sys.exit(1)


def _load(
    model: str, config_path: Path, model_options: ModelOptions, device: str
) -> tuple[Locator, str]:
    """Return the locator, and a text that changes with its weights and options."""
    from jawloc.inference.models import file_digest, load_model
    from jawloc.reporting.tracking.model_files import model_file

    with model_file(model, config_path.resolve().parent) as path:
        locator = load_model(path, model_options, device)
        if locator.provenance is None:
            note = "its file does not state which scans it was trained on"
            click.echo(f"note: {model} is of unknown provenance: {note}", err=True)
        for note in () if locator.calibration is None else locator.calibration.status_notes:
            click.echo(f"note: {model}: {note}", err=True)
        if locator.errors is not None and (warning := locator.errors.warning()):
            click.echo(f"warning: {model}: {warning}", err=True)
        return locator, f"{file_digest(path)} {model_options}"
