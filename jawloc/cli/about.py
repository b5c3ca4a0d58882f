"""Commands that only look: at a model, and at the machine and the folder."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from jawloc.cli.options import Command, config_option


@click.command(cls=Command)
@click.argument("model")
@config_option
def info(model: str, config_path: Path) -> None:
    """Describe a trained MODEL: how it was made, its scans, its errors.

    MODEL is the name of a model that jawloc-train made, a .pth file, or an MLflow URI such as
    models:/jaw_locator@champion.

    \b
    Examples:
      jawloc info my_locator
      jawloc info models:/jaw_locator@champion
    """
    from jawloc.workflows.describe_model import describe_model

    click.echo(str(describe_model(model, config_path.resolve().parent)))


@click.command(cls=Command)
@config_option
def doctor(config_path: Path) -> None:
    """Check versions, device, memory, settings, scans, cache and store.

    Each finding says what to do about it. The exit code is 0 if there is nothing to do, else 1.

    \b
    Example:
      jawloc doctor
    """
    from jawloc.workflows.doctor import diagnose

    diagnosis = diagnose(config_path)
    click.echo(str(diagnosis))
    if not diagnosis.is_well:
        sys.exit(1)
