"""The command that finds the jaw in new scans."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jawloc.cli.options import (
    SETTINGS,
    config_crop_size,
    config_option,
    crop_option,
    crop_size_option,
    plain_errors,
    takes_model,
)
from jawloc.errors import InputError

if TYPE_CHECKING:
    from jawloc.inference.locator import Locator
    from jawloc.inference.models import ModelOptions

DEFAULT_OUTPUT = Path("script_output") / "locations"


@click.command(**SETTINGS)
@click.argument("model")
@click.argument(
    "scans", metavar="SCAN...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--output-dir",
    "folder",
    type=click.Path(path_type=Path),
    default=DEFAULT_OUTPUT,
    show_default=True,
    help="Where tables, crops and pictures go.",
)
@click.option("--resume", is_flag=True, help="Skip what is done already, and add to the tables.")
@click.option("--overwrite", is_flag=True, help="Replace the tables that are there.")
@crop_size_option
@click.option(
    "--crop-format",
    type=click.Choice(["tif", "nrrd", "nii.gz", "dicom"]),
    default="tif",
    show_default=True,
    help="Of the crops; all but tif keep spacing and origin.",
)
@click.option("--no-crops", is_flag=True, help="Write no crops.")
@click.option("--no-pictures", is_flag=True, help="Draw no pictures.")
@config_option
@plain_errors
@takes_model
def locate(
    model: str,
    scans: tuple[Path, ...],
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
) -> None:
    """Find the jaw in SCANs with a trained MODEL.

    MODEL is the name of a model that jawloc-train made, a .pth file, or an MLflow URI such as
    models:/jaw_locator@champion. A SCAN is a file, a folder with one scan's slices, a folder of
    scans, or a .txt list of them.
    """
    if resume and overwrite:
        raise InputError("--resume adds to the tables and --overwrite replaces them; give only one")
    from jawloc.reporting.location_files import LocateRequest, earlier_rows
    from jawloc.scans.listing import list_scans
    from jawloc.workflows.locate import locate_scans

    crop = crop_option(crop_size)
    rows = earlier_rows(folder, resume=resume, overwrite=overwrite)
    known = {Path(of_scan[0].path): name for name, of_scan in rows.items()}
    listed = list_scans(scans, exclude=folder, known=known)
    locator, digest = _load(model, config_path, model_options, device)
    request = LocateRequest(
        locator=locator,
        model=model,
        digest=digest,
        model_options=model_options,
        folder=folder,
        crop_size=crop or locator.crop_size or config_crop_size(config_path),
        crop_format=None if no_crops else crop_format,
        pictures=not no_pictures,
    )
    outcome = locate_scans(request, listed, rows)
    click.echo(str(outcome))
    if outcome.failed:
        sys.exit(1)


def _load(
    model: str, config_path: Path, model_options: ModelOptions, device: str
) -> tuple[Locator, str]:
    """Return the locator and a text that changes with its weights and what they are taken for."""
    from jawloc.inference.models import file_digest, load_model
    from jawloc.reporting.tracking.model_files import model_file

    with model_file(model, config_path.resolve().parent) as path:
        locator = load_model(path, model_options, device)
        if locator.provenance is None:
            click.echo(
                f"note: {model} is of unknown provenance: its file does not say which scans it "
                f"learned from",
                err=True,
            )
        return locator, f"{file_digest(path)} {model_options}"
