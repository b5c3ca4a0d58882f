"""The command that says how good a model is."""

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
    from jawloc.inference.models import ModelOptions

DEFAULT_OUTPUT = Path("script_output") / "evaluations"


@click.command(**SETTINGS)
@click.argument("model")
@click.argument("dicoms", metavar="DICOM...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--output-dir",
    "folder",
    type=click.Path(path_type=Path),
    help=f"Where tables, pictures and the report go.  [default: {DEFAULT_OUTPUT}/<model>]",
)
@click.option(
    "--radius",
    "radii",
    metavar="R",
    type=float,
    multiple=True,
    help="Count the scans with an error of at most R: in mm where every scan says how large a "
    "voxel is, else in voxels; repeatable.  [default: 0.1, 0.2, 0.5 and 1 mm; 5, 10, 25 and 50 "
    "voxels]",
)
@crop_size_option
@click.option(
    "--pictures",
    type=click.IntRange(0),
    default=6,
    show_default=True,
    metavar="N",
    help="Show so many of the worst scans.",
)
@click.option("--register", is_flag=True, help="Register the model in MLflow as jaw_locator.")
@click.option(
    "--promote",
    is_flag=True,
    help="Register it, and make it the champion if it beats the present one on these scans.",
)
@config_option
@plain_errors
@takes_model
def evaluate(
    model: str,
    dicoms: tuple[Path, ...],
    folder: Path | None,
    radii: tuple[float, ...],
    crop_size: str | None,
    pictures: int,
    register: bool,
    promote: bool,
    config_path: Path,
    model_options: ModelOptions,
    device: str,
) -> None:
    """Say how well a trained MODEL finds the jaw in labelled DICOMs.

    MODEL is the name of a model that jawloc-train made, a .pth file, or an MLflow URI such as
    models:/jaw_locator@champion. A DICOM is a labelled file or a folder of them.
    """
    if not all(0 < radius < float("inf") for radius in radii):
        said = ", ".join(f"{radius:g}" for radius in radii)
        raise InputError(f"--radius: must be above 0 and finite; received {said}")
    from jawloc.scans.labelled import list_labelled
    from jawloc.workflows.evaluate import EvaluateRequest, evaluate_model, plain_name

    crop = crop_option(crop_size)
    folder = DEFAULT_OUTPUT / plain_name(model) if folder is None else folder
    request = EvaluateRequest(
        model=model,
        base=config_path.resolve().parent,
        model_options=model_options,
        device=device,
        folder=folder,
        crop_size=crop,
        usual_crop_size=config_crop_size(config_path),
        radii=radii,
        pictures=pictures,
        register=register or promote,
        promote=promote,
    )
    outcome = evaluate_model(request, list_labelled(dicoms, exclude=folder))
    click.echo(outcome.describe())
    if outcome.evaluation.failed:
        sys.exit(1)
