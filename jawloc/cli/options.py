"""What the commands have in common: options, and errors in one sentence."""

from __future__ import annotations

import functools
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from jawloc.errors import InputError, TrainingError

if TYPE_CHECKING:
    from jawloc.config import Config
    from jawloc.geometry import Shape

DEFAULT_CONFIG = Path("userconf.yml")
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
crop_size_option = click.option(
    "--crop-size", metavar="Z,Y,X", help="Of the crops, in voxels.  [default: the model's]"
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


def takes_model(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say what is asked of a model, and hand over `model_options` and `device`."""

    @functools.wraps(command)
    def run(
        *args: Any,
        objects: tuple[str, ...],
        device: str,
        network: str | None,
        downsampled_size: str | None,
        **kwargs: Any,
    ) -> None:
        from jawloc.inference.models import ModelOptions
        from jawloc.training.network import choose_device

        option = "--downsampled-size"
        size = None if downsampled_size is None else sizes_zyx(downsampled_size, option)
        model_options = ModelOptions(network, size, tuple(dict.fromkeys(objects)))
        command(*args, model_options=model_options, device=str(choose_device(device)), **kwargs)

    options = (
        click.option(
            "--object", "objects", metavar="NAME", multiple=True, help="Only this; repeatable."
        ),
        click.option(
            "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
        ),
        click.option(
            "--network",
            type=click.Choice(["unet", "attention-unet"]),
            help="Of bare weights, which don't say it: attention-unet is the lab's.",
        ),
        click.option(
            "--downsampled-size", metavar="Z,Y,X", help="The grid of bare weights, in voxels."
        ),
    )
    for option in reversed(options):  # as decorators, the last one comes first
        run = option(run)
    return run


def takes_config(command: Callable[[Config], None]) -> Callable[..., None]:
    """Add the options that say which settings hold, and hand these to the command, checked."""

    @functools.wraps(command)
    def run(config_path: Path, experiment: Path | None, overrides: tuple[str, ...]) -> None:
        command(load_settings(config_path, experiment, overrides))

    return config_option(experiment_option(set_option(plain_errors(run))))


def load_settings(config_path: Path, experiment: Path | None, overrides: tuple[str, ...]) -> Config:
    """Read the settings and what is laid over them."""
    from jawloc.config import load_config

    return load_config(config_path, experiment=experiment, overrides=overrides)


def numbers(text: str, kind: type) -> tuple[Any, ...]:
    """Return numbers separated by commas; none where one of them isn't a number."""
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        return ()


def crop_option(crop_size: str | None) -> Shape | None:
    """Return what --crop-size says, if anything."""
    return None if crop_size is None else sizes_zyx(crop_size, "--crop-size")


def config_crop_size(config_path: Path) -> Shape:
    """Return the config's size of crops, for models that don't say; without a config, the usual."""
    from jawloc.inference.crop import CropConfig

    if config_path == DEFAULT_CONFIG and not config_path.exists():
        return CropConfig().crop_size
    return load_settings(config_path, None, ()).crop.crop_size


def sizes_zyx(text: str, option: str) -> Shape:
    """Return the size (z, y, x) that an option says, of one number or three."""
    sizes = numbers(text, int)
    if len(sizes) not in (1, 3) or not all(size >= 1 for size in sizes):
        raise InputError(
            f"{option}: one positive whole number or three (z,y,x), in voxels; received {text!r}"
        )
    z, y, x = sizes * 3 if len(sizes) == 1 else sizes
    return z, y, x


def _interrupt(signum: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _show_warning(message: Warning | str, *_args: object, **_kwargs: object) -> None:
    click.echo(f"warning: {message}", err=True)


def _fail(message: str, code: int) -> NoReturn:
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    if alone or os.environ.get("RANK", "0") == "0":  # of torchrun's processes one says it for all
        click.echo(f"Error: {message}", err=True)
    sys.exit(code)
