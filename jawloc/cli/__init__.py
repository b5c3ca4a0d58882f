"""The terminal; the only part that imports click.

Everything heavy is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from jawloc import __version__
from jawloc.cli.evaluate import evaluate
from jawloc.cli.locate import locate
from jawloc.cli.options import (
    DEFAULT_CONFIG,
    SETTINGS,
    config_option,
    experiment_option,
    load_settings,
    plain_errors,
    set_option,
)
from jawloc.cli.scans import cache, dicoms
from jawloc.errors import InputError

# Read when torch is loaded. Threads that wait by spinning starve each other as soon as another
# program wants a core (measured: a training step 15 times slower); waiting asleep costs nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

DEFAULT_SPACE = (
    Path(__file__).parents[1] / "workflows" / "tune" / "curriculum.yml"
)  # in a wheel too
PORT = click.IntRange(1, 65535)


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
@click.option("--folds", type=int, help="Train so many times, and test every scan once.")
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
    folds: int | None,
    no_shrink_heatmap: bool,
    overwrite: bool,
    resume: bool,
) -> None:
    """Train a locator: scans in, a model and a report of how well it finds the jaw out."""
    if overwrite and resume:
        raise InputError("--resume goes on with a run and --overwrite replaces it; give only one")
    if demo and (experiment is not None or config_path != DEFAULT_CONFIG):
        raise InputError("--demo has settings of its own; change them with --set, not with a file")
    if folds is not None:
        _check_folds(folds)
    from jawloc.training.distributed import distributed_training
    from jawloc.workflows.cross_validate import run_cross_validation
    from jawloc.workflows.demo import run_demo
    from jawloc.workflows.train import run_training

    if no_shrink_heatmap:
        overrides = (*overrides, "curriculum.shrink_factor=1.0")
    with distributed_training() as processes:
        how: dict[str, Any] = {"overwrite": overwrite, "resume": resume}
        if demo:
            result = run_demo(
                Path.cwd(), model_name, overrides, folds=folds, processes=processes, **how
            )
        else:
            config = load_settings(config_path, experiment, overrides)
            name = "locator" if model_name is None else model_name
            if folds is None:
                result = run_training(config, name, processes=processes, **how)
            else:
                result = run_cross_validation(config, name, folds, **how)
    if result is not None:
        click.echo(str(result))


def _check_folds(folds: int) -> None:
    """Refuse, before anything is imported for it, what no scans could make right."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "--folds trains its folds one after the other, each alone: not by torchrun"
        )
    from jawloc.training.splits import check_folds

    check_folds(folds)


@jawloc.command(**SETTINGS)
@click.option("--trials", type=int, default=30, show_default=True, help="Of the whole study.")
@click.option(
    "--space",
    "space_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=DEFAULT_SPACE,
    help="What is searched: a YAML file of ranges and choices.  [default: the curriculum's "
    "threshold and minimum sigma]",
)
@click.option("--study-name", help="Name of the study and of its run.  [default: the space's]")
@click.option(
    "--storage",
    metavar="URL",
    help="Where the study is kept: a database's URL, or a journal file.  [default: a journal "
    "file in the study's folder]",
)
@click.option("--workers", type=int, default=1, show_default=True, help="Processes that share it.")
@click.option("--epochs", type=int, help="Of a trial at most, in the place of num_epochs.")
@click.option("--folds", type=int, help="Judge by the mean over so many folds.")
@click.option("--timeout", type=float, metavar="HOURS", help="Begin no trial after so many hours.")
@click.option("--sampler", default="tpe", show_default=True, help="tpe, gp, qmc or random.")
@click.option(
    "--pruner", default="median", show_default=True, help="none, median, hyperband or wilcoxon."
)
@config_option
@experiment_option
@set_option
@plain_errors
def tune(
    trials: int,
    space_path: Path,
    study_name: str | None,
    storage: str | None,
    workers: int,
    epochs: int | None,
    folds: int | None,
    timeout: float | None,
    sampler: Any,
    pruner: Any,
    config_path: Path,
    experiment: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Search the curriculum's settings: a study of many trainings on the one cache."""
    from jawloc.workflows.tune import StudyConfig, tune
    from jawloc.workflows.tune.search_space import read_space

    if epochs is not None:
        if epochs < 1:
            raise InputError(f"--epochs: at least 1; received {epochs}")
        if any(text.partition("=")[0].strip() == "num_epochs" for text in overrides):
            raise InputError("--epochs sets num_epochs; give only one of --epochs and --set")
        overrides = (*overrides, f"num_epochs={epochs}")
    study = StudyConfig(
        name=space_path.stem if study_name is None else study_name,
        trials=trials,
        storage=storage,
        workers=workers,
        sampler=sampler,
        pruner=pruner,
        folds=folds,
        timeout_seconds=None if timeout is None else 3600 * timeout,
    )
    space = read_space(space_path)
    config = load_settings(config_path, experiment, overrides)
    click.echo(str(tune(config, space, study)))


@jawloc.command(**SETTINGS)
@config_option
@click.option("--port", type=PORT, default=5000, show_default=True, help="Where pages are served.")
@plain_errors
def ui(config_path: Path, port: int) -> None:
    """Open the MLflow pages where runs are compared."""
    from jawloc.reporting.tracking.runs import open_ui

    if config_path != DEFAULT_CONFIG and not config_path.is_file():
        raise InputError(f"{config_path}: no such config file")
    open_ui(config_path.resolve().parent, port=port)


jawloc.add_command(locate)
jawloc.add_command(evaluate)
jawloc.add_command(dicoms)
jawloc.add_command(cache)
