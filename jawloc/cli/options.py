"""What the commands share: help under headings, common options, errors in one sentence."""

from __future__ import annotations

import functools
import math
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from jawloc.errors import InputError, TrainingError, printable, without_secrets

if TYPE_CHECKING:
    from jawloc.config import Config
    from jawloc.geometry import Shape

DEFAULT_CONFIG = Path("userconf.yml")
FILE = click.Path(path_type=Path, dir_okay=False)
FILE_OR_FOLDER = click.Path(path_type=Path)
CONTEXT: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
    "show_default": True,
}
HELP_HEADING = "Help and debugging"
INTERRUPTED = "interrupted; the same command begins again"
EXIT_CODES: dict[type[BaseException], int] = {
    InputError: 2,
    OSError: 2,
    TrainingError: 1,
    KeyboardInterrupt: 130,
}


class Option(click.Option):
    """An option that --help lists under a heading."""

    def __init__(self, param_decls: Sequence[str], *, heading: str, **attributes: Any) -> None:
        super().__init__(param_decls, **attributes)
        self.heading = heading


def option_under(heading: str) -> Callable[..., Any]:
    """Return a `click.option` whose options --help lists under a heading."""
    return functools.partial(click.option, cls=Option, heading=heading)


class Command(click.Command):
    """A command with `--debug`, options under headings, and errors in one sentence."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **{"context_settings": CONTEXT} | attributes)
        debug = "Show the traceback of an error."
        self.params.append(Option(["--debug"], is_flag=True, help=debug, heading=HELP_HEADING))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, heading by heading."""
        headings: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if isinstance(param, click.Option) and record is not None:
                heading = HELP_HEADING if param.is_eager else "Options"
                headings.setdefault(getattr(param, "heading", heading), []).append(record)
        for heading, records in headings.items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def invoke(self, ctx: click.Context) -> None:
        """Run the command; turn an error that a user can correct into a sentence and exit code."""
        debug = ctx.params.pop("debug")
        # a closed terminal or a cluster's time limit ends a run as Ctrl-C does: cleanly
        received: list[int] = []

        def interrupt(number: int, _frame: object) -> NoReturn:
            received.append(number)
            raise KeyboardInterrupt

        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores
                signal.signal(number, interrupt)
        warnings.showwarning = _show_warning
        try:
            super().invoke(ctx)
        except tuple(EXIT_CODES) as error:
            if debug:
                sys.excepthook = show_traceback
                raise
            code = next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))
            if received and isinstance(error, KeyboardInterrupt):
                code = 128 + received[0]  # as a shell states it
            # of torchrun's processes, only the first prints the error
            if os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0":
                click.echo(f"Error: {without_secrets(str(error)) or INTERRUPTED}", err=True)
            sys.exit(code)
        except Exception:
            sys.excepthook = show_traceback
            raise


def _show_warning(message: Warning | str, *_args: object, **_kwargs: object) -> None:
    click.echo(f"warning: {printable(without_secrets(str(message)))}", err=True)


def show_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print an error that ends the process as Python does, without the secrets in addresses."""
    text = "".join(traceback.format_exception(kind, error, trace))
    click.echo(without_secrets(text), err=True, nl=False)


setting = option_under("Settings")
config_option = setting(
    "--config",
    "config_path",
    type=FILE,
    default=DEFAULT_CONFIG,
    help="YAML file with the settings, in a mapping `jaw_loc_config`.",
)
crop_size_option = option_under("Output")(
    "--crop-size",
    metavar="Z,Y,X",
    help="Size of the crops, in voxels of the full-size scan.  [default: the model's, else the "
    "settings']",
)


series_option = option_under("Scans")(
    "--series",
    metavar="UID",
    multiple=True,
    help="SeriesInstanceUID of the series to read in folders with several DICOM series; may be "
    "repeated.  [default: the only one that is a volume]",
)


@dataclass(frozen=True)
class SettingsOptions:
    """The options that choose a command's settings."""

    config_path: Path
    experiment: Path | None
    overrides: tuple[str, ...]

    def load(self, *more_overrides: str) -> Config:
        """Read and check the settings, with further KEY=VALUE laid over them."""
        from jawloc.config import load_config

        overrides = (*self.overrides, *more_overrides)
        return load_config(self.config_path, experiment=self.experiment, overrides=overrides)

    def load_for_scans(self, *more_overrides: str) -> Config:
        """Read and check the settings as `load`, and decide what depends on the scans."""
        from jawloc.workflows.prepare_data import decide_size

        return decide_size(self.load(*more_overrides))


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Add --config, --experiment and --set, and pass them to the command as `settings`."""

    @config_option
    @setting(
        "--experiment",
        type=FILE,
        help="YAML file with settings that replace those of --config.  [default: none]",
    )
    @setting(
        "--set",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        help="Change one setting, for instance curriculum.minimum_sigma=1; may be repeated.",
    )
    @functools.wraps(command)
    def run(
        config_path: Path, experiment: Path | None, overrides: tuple[str, ...], **others: Any
    ) -> None:
        command(settings=SettingsOptions(config_path, experiment, overrides), **others)

    return run


def takes_model(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a model, and pass `model_options` and `device` to the command."""
    model_option = option_under("Model")

    @model_option(
        "--object",
        "objects",
        metavar="NAME",
        multiple=True,
        help="Name of an object to find; may be repeated.  [default: all objects of the model]",
    )
    @model_option(
        "--device", default="auto", help="Device to compute on: auto, cpu, cuda or cuda:N."
    )
    @model_option(
        "--network",
        type=click.Choice(["unet", "attention-unet"]),
        help="Network of a file with bare weights; the lab's is attention-unet.  [default: as the "
        "model's file states]",
    )
    @model_option(
        "--downsampled-size",
        metavar="Z,Y,X",
        help="Grid that a file with bare weights was trained on, in voxels.  [default: as the "
        "model's file states]",
    )
    @functools.wraps(command)
    def run(
        objects: tuple[str, ...],
        device: str,
        network: str | None,
        downsampled_size: str | None,
        **others: Any,
    ) -> None:
        from jawloc.inference.models import ModelOptions
        from jawloc.training.device import choose_device

        size = parse_size(downsampled_size, "--downsampled-size")
        model_options = ModelOptions(network, size, tuple(dict.fromkeys(objects)))
        command(model_options=model_options, device=str(choose_device(device)), **others)

    return run


def config_crop_size(config_path: Path) -> Shape:
    """Return the settings' crop size; the standard one if there is no config file."""
    from jawloc.inference.crop import CropConfig

    if config_path == DEFAULT_CONFIG and not config_path.exists():
        return CropConfig().crop_size
    return SettingsOptions(config_path, None, ()).load().crop.crop_size


def refuse_missing(named: Sequence[Path]) -> None:
    """Raise InputError if a file or folder that the user named does not exist.

    A link that leads nowhere exists: it is one bad scan, perhaps among the many of a pattern.
    """
    from jawloc.scans.messages import names_shown

    missing: dict[str, OSError] = {}
    for place in named:
        try:
            place.lstat()
        except OSError as error:  # or its folder may not be searched, or its name is too long
            missing[str(place)] = error
    if missing:
        why = next(iter(missing.values())).strerror
        raise InputError(f"{names_shown([*missing])}: a file or folder of scans must exist; {why}")


def parse_size(text: str | None, option: str) -> Shape | None:
    """Return (z, y, x) in voxels from one whole number or three; None of None."""
    return parse_zyx(text, int, f"{option}: one positive whole number or three (z,y,x), in voxels")


def parse_crop_size(text: str | None) -> Shape | None:
    """Return --crop-size as `parse_size` does; InputError if memory has no room for a crop."""
    import psutil

    size, memory = parse_size(text, "--crop-size"), psutil.virtual_memory().total
    if size is not None and 2 * math.prod(size) > memory:  # bytes, of 16-bit voxels
        raise InputError(
            f"--crop-size: a crop must fit into this machine's memory, {memory / 1e9:.1f} GB; "
            f"received {text!r}"
        )
    return size


def parse_zyx(text: str | None, kind: type, rule: str) -> tuple[Any, Any, Any] | None:
    """Return (z, y, x) from one positive number or three separated by commas; None of None."""
    if text is None:
        return None
    values = parse_numbers(text, kind)
    if len(values) not in (1, 3) or not all(0 < value < math.inf for value in values):
        raise InputError(f"{rule}; received {text!r}")
    z, y, x = values * 3 if len(values) == 1 else values
    return z, y, x


def parse_numbers(text: str, kind: type) -> tuple[Any, ...]:
    """Return the numbers of a text separated by commas; none if one of them is not a number."""
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        return ()
