"""The command that measures how well a model finds the jaw."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    from jawloc.scans.listing import ListedScan

DEFAULT_OUTPUT = Path("script_output") / "evaluations"
output = option_under("Output")
registry = option_under("Model registry")


@click.command(cls=Command)
@click.argument("model")
@click.argument("scans", metavar="DICOM... | IMAGES LABELS", nargs=-1, type=FILE_OR_FOLDER)
@series_option
@takes_model
@option_under("Measures")(
    "--radius",
    "radii",
    metavar="R",
    type=float,
    multiple=True,
    help="Largest error of a scan that counts as a success: in mm if every scan states its voxel "
    "size, else in voxels; may be repeated.  [default: 0.1, 0.2, 0.5 and 1 mm; 5, 10, 25 and 50 "
    "voxels]",
)
@output(
    "--output-dir",
    "folder",
    type=FILE_OR_FOLDER,
    help=f"Folder for tables, pictures and the report.  [default: {DEFAULT_OUTPUT}/<model>]",
)
@crop_size_option
@output(
    "--pictures",
    type=click.IntRange(0),
    default=6,
    metavar="N",
    help="Number of scans to draw, those with the largest errors.",
)
@registry("--register", is_flag=True, help="Register the model in MLflow as jaw_locator.")
@registry(
    "--promote",
    is_flag=True,
    help="Register the model, and make it the champion if it beats the present champion on these "
    "scans.",
)
@takes_cluster
@config_option
def evaluate(
    model: str,
    scans: tuple[Path, ...],
    series: tuple[str, ...],
    folder: Path | None,
    radii: tuple[float, ...],
    crop_size: str | None,
    register: bool,
    promote: bool,
    config_path: Path,
    **options: Any,
) -> None:
    """Measure the errors of a trained MODEL on labelled scans.

    MODEL is the name of a model that jawloc-train made, a .pth file, or an MLflow URI such as
    models:/jaw_locator@champion. A DICOM is a labelled file or a folder of them. IMAGES and LABELS
    are two folders (or two files) of any formats, which are paired by file name as by jawloc
    dicoms.

    \b
    Examples:
      jawloc evaluate my_locator dicoms/new_scans --radius 0.2 --radius 0.5
      jawloc evaluate my_locator dicoms/new_scans --promote
      jawloc evaluate my_locator images/ masks/
      jawloc evaluate my_locator dicoms/new_scans --workers 4
    """
    if not all(0 < radius < float("inf") for radius in radii):
        received = ", ".join(f"{radius:g}" for radius in radii)
        raise InputError(f"--radius: must be above 0 and finite; received {received}")
    from jawloc.workflows.evaluate import EvaluateRequest, evaluate_model, folder_name

    folder = DEFAULT_OUTPUT / folder_name(model) if folder is None else folder
    request = EvaluateRequest(
        model=model,
        base=config_path.resolve().parent,
        folder=folder,
        crop_size=parse_crop_size(crop_size),
        default_crop_size=config_crop_size(config_path),
        radii=radii,
        register=register or promote,
        promote=promote,
        **options,  # model_options, device, pictures, cluster
    )
    result = evaluate_model(request, _list(scans, series, folder))
    click.echo(str(result))
    if result.evaluation.failed:
        sys.exit(1)


def _list(scans: tuple[Path, ...], series: tuple[str, ...], folder: Path) -> list[ListedScan]:
    """List labelled DICOMs, or images with their labels where two places of such are named."""
    from jawloc.scans.convert.points import holds_points
    from jawloc.scans.labelled import list_labelled
    from jawloc.scans.pairs import are_images, list_pairs

    refuse_missing(scans)
    if len(scans) == 2 and are_images(scans[0], series=series):
        if scans[1].exists() and holds_points(*scans):
            raise InputError(
                f"{scans[1]}: points must be brought together with their images first: jawloc "
                f"dicoms {scans[0]} {scans[1]} OUT, then jawloc evaluate MODEL OUT"
            )
        return list_pairs(*scans, series=series)
    if series:
        raise InputError(
            "--series: only images that are folders of DICOM slices have several series, and an "
            f"evaluation takes such with IMAGES and LABELS; received {series[0]}"
        )
    return list_labelled(scans, exclude=folder)
