"""The command with which a person decides about located positions."""

from __future__ import annotations

import getpass
from pathlib import Path

import click

from jawloc.cli.options import FILE, FILE_OR_FOLDER, Command, option_under
from jawloc.errors import InputError

output = option_under("Output")
decisions = option_under("Review")


@click.command(cls=Command)
@click.argument("locations", type=FILE_OR_FOLDER)
@output("--sheet", is_flag=True, help="Make a page for a browser, instead of opening napari.")
@output(
    "--output",
    "file",
    type=FILE,
    help="File of the page.  [default: review.html in LOCATIONS]",
)
@decisions("--reviewer", metavar="NAME", help="Who decides.  [default: your login name]")
@decisions(
    "--model", help="Model whose heatmaps napari can show, as for `jawloc locate`.  [default: none]"
)
def review(
    locations: Path, sheet: bool, file: Path | None, reviewer: str | None, model: str | None
) -> None:
    """Look at located positions, correct them, and keep the decisions in review.csv.

    LOCATIONS is a folder of results of `jawloc locate`, or its locations.csv. Training takes
    review.csv as labels (`jawloc-train --corrections`, or in `dicom_dirs`).

    \b
    Examples:
      jawloc review script_output/locations                  # in napari
      jawloc review script_output/locations --sheet --reviewer Ana
    """
    name = _login_name() if reviewer is None else reviewer
    if sheet:
        from jawloc.workflows.review import make_review_sheet

        if model is not None:
            raise InputError("--model is for napari; a page has no heatmaps")
        result = make_review_sheet(locations, file, name)
        _say(result.note)
        click.echo(str(result))
        return
    if file is not None:
        raise InputError("--output names the page that --sheet makes; give --sheet too")
    from jawloc.viewer.availability import require_viewer

    require_viewer()
    from jawloc.workflows.review_heatmap import heatmaps_of
    from jawloc.workflows.review_session import ReviewSession

    session = ReviewSession(locations, name)
    _say(session.note)
    heatmap = None if model is None else heatmaps_of(model, Path.cwd())
    from jawloc.viewer.review import review_in_napari  # takes seconds

    review_in_napari(session, heatmap)
    click.echo(str(session))


def _say(note: str) -> None:
    if note:
        click.echo(note, err=True)


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container whose user has no name
        return ""
