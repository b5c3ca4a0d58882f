"""The terminal; the only module that imports click.

Everything heavy is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import functools
import math
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from jawloc import __version__
from jawloc.errors import InputError, TrainingError

if TYPE_CHECKING:
    from jawloc.config import Config

# Read when torch is loaded. Threads that wait by spinning starve each other as soon as another
# program wants a core (measured: a training step 15 times slower); waiting asleep costs nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

DEFAULT_CONFIG = Path("userconf.yml")
MOST_NOTES = 5  # shown of a conversion
PORT = click.IntRange(1, 65535)
SETTINGS: dict[str, Any] = {
    "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 100}
}

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=DEFAULT_CONFIG,
    show_default=True,
    help="The settings: a YAML file with a mapping `jaw_loc_config`.",
)
set_option = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change one setting, for instance `--set curriculum.threshold=0.4`; repeatable.",
)
experiment_option = click.option(
    "--experiment",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A YAML file whose settings are laid over the config's.",
)
debug_option = click.option("--debug", is_flag=True, help="Show the traceback of an error.")


def plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what a user can mend into one sentence and exit code 2; add `--debug`."""

    @functools.wraps(command)
    def run(*args: Any, debug: bool, **kwargs: Any) -> None:
        # a closed terminal or a cluster's time limit ends a run as Ctrl-C does: cleanly
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores
                signal.signal(number, _interrupt)
        warnings.showwarning = _show_warning
        try:
            command(*args, **kwargs)
        except (InputError, OSError) as error:
            if debug:
                raise
            _fail(str(error), 2)
        except KeyboardInterrupt as error:
            if debug:
                raise
            _fail(str(error) or "interrupted", 130)
        except TrainingError as error:
            if debug:
                raise
            _fail(str(error), 1)

    return debug_option(run)


def takes_config(command: Callable[[Config], None]) -> Callable[..., None]:
    """Add the options that say which settings hold, and hand these to the command, checked."""

    @functools.wraps(command)
    def run(config_path: Path, experiment: Path | None, overrides: tuple[str, ...]) -> None:
        command(_load(config_path, experiment, overrides))

    return config_option(experiment_option(set_option(plain_errors(run))))


@click.group(**SETTINGS)
@click.version_option(__version__, prog_name="jawloc")
def jawloc() -> None:
    """Find the jaw in zebrafish micro-CT scans.

    `jawloc train --demo` shows all of it on made-up scans.
    """


@jawloc.command(**SETTINGS)
@click.option("--model-name", help="Name of the model and of its run.  [default: locator]")
@config_option
@click.option("--demo", is_flag=True, help="Train on phantom scans made for the purpose.")
@experiment_option
@set_option
@click.option("--no-shrink-heatmap", is_flag=True, help="Keep sigma as wide as it starts.")
@click.option("--overwrite", is_flag=True, help="Replace the model of this name.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run of this name.")
@plain_errors
def train(
    model_name: str | None,
    config_path: Path,
    demo: bool,
    experiment: Path | None,
    overrides: tuple[str, ...],
    no_shrink_heatmap: bool,
    overwrite: bool,
    resume: bool,
) -> None:
    """Train a locator: scans in, a model and a report of how well it finds the jaw out."""
    if overwrite and resume:
        raise InputError("--resume goes on with a run and --overwrite replaces it; give only one")
    if demo and (experiment is not None or config_path != DEFAULT_CONFIG):
        raise InputError("--demo has settings of its own; change them with --set, not with a file")
    from jawloc.demo import run_demo
    from jawloc.experiment import run_experiment
    from jawloc.training.team import joined_team

    if no_shrink_heatmap:
        overrides = (*overrides, "curriculum.shrink_factor=1.0")
    with joined_team() as team:
        how: dict[str, Any] = {"overwrite": overwrite, "resume": resume, "team": team}
        if demo:
            result = run_demo(Path.cwd(), model_name, overrides, **how)
        else:
            config = _load(config_path, experiment, overrides)
            name = "locator" if model_name is None else model_name
            result = run_experiment(config, name, **how)
    if result is not None:
        click.echo(result.describe())


@jawloc.command(**SETTINGS)
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


@jawloc.group(**SETTINGS)
def cache() -> None:
    """Look after the downsampled scans that every run shares."""


@cache.command("build", **SETTINGS)
@takes_config
def cache_build(config: Config) -> None:
    """Downsample the scans that aren't in the cache yet."""
    from jawloc.experiment import find_scans
    from jawloc.scans.cache import build_cache

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


@jawloc.command(**SETTINGS)
@config_option
@click.option("--port", type=PORT, default=5000, show_default=True, help="Where pages are served.")
@plain_errors
def ui(config_path: Path, port: int) -> None:
    """Open the MLflow pages where runs are compared."""
    from jawloc.reporting.tracking import open_ui

    if config_path != DEFAULT_CONFIG and not config_path.is_file():
        raise InputError(f"{config_path}: no such config file")
    open_ui(config_path.resolve().parent, port=port)


def _load(config_path: Path, experiment: Path | None, overrides: tuple[str, ...]) -> Config:
    from jawloc.config import load_config

    return load_config(config_path, experiment=experiment, overrides=overrides)


def _label_values(text: str) -> tuple[int, ...]:
    values = _numbers(text, int)
    if not values or not all(1 <= value <= 255 for value in values):
        raise InputError(
            f"--label-values: whole numbers from 1 to 255, separated by commas; received {text!r}"
        )
    return values


def _spacing(text: str) -> tuple[float, float, float]:
    sizes = _numbers(text, float)
    if len(sizes) not in (1, 3) or not all(0 < size < math.inf for size in sizes):
        raise InputError(
            f"--spacing: one positive number or three (z,y,x), in mm; received {text!r}"
        )
    z, y, x = sizes * 3 if len(sizes) == 1 else sizes
    return z, y, x


def _numbers(text: str, kind: type) -> tuple[Any, ...]:
    """Return numbers separated by commas; none where one of them isn't a number."""
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        return ()


def _interrupt(signum: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _show_warning(message: Warning | str, *_args: object, **_kwargs: object) -> None:
    click.echo(f"warning: {message}", err=True)


def _fail(message: str, code: int) -> NoReturn:
    if os.environ.get("RANK", "0") == "0":  # of torchrun's processes one says it for all
        click.echo(f"Error: {message}", err=True)
    sys.exit(code)
