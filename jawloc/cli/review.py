"""The command with which a person decides about located positions."""

from __future__ import annotations

import getpass
from pathlib import Path

import click

from jawloc.cli.options import FILE, FILE_OR_FOLDER, Command, option_under
from jawloc.errors import InputError

output = option_under("Output")


@click.command(cls=Command)
@click.argument("locations", type=FILE_OR_FOLDER)
@output("--sheet", is_flag=True, help="Make a page for a browser.")
@output(
    "--output",
    "file",
    type=FILE,
    help="File of the page.  [default: review.html in LOCATIONS]",
)
@option_under("Review")(
    "--reviewer", metavar="NAME", help="Who decides.  [default: your login name]"
)
def review(locations: Path, sheet: bool, file: Path | None, reviewer: str | None) -> None:
    """Look at located positions, correct them, and keep the decisions in review.csv.

    LOCATIONS is a folder of results of `jawloc locate`, or its locations.csv. `jawloc dicoms`
    makes labels of review.csv.

    \b
    Examples:
      jawloc review script_output/locations --sheet
      jawloc review script_output/locations --sheet --reviewer Ana
    """
    name = _login_name() if reviewer is None else reviewer
    if not sheet:
        raise InputError("jawloc review: --sheet makes a page for a browser; give --sheet")
    from jawloc.workflows.review import make_review_sheet

    click.echo(str(make_review_sheet(locations, file, name)))


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container whose user has no name
        return ""
