"""The terminal; the only part that imports click.

Everything heavy is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jawloc import __version__
from jawloc.cli.about import doctor, info
from jawloc.cli.cluster import cluster_options, scheduler_option, takes_cluster
from jawloc.cli.evaluate import evaluate
from jawloc.cli.locate import locate
from jawloc.cli.options import (
    CONTEXT,
    DEFAULT_CONFIG,
    FILE,
    Command,
    SettingsOptions,
    config_option,
    option_under,
    setting,
    takes_settings,
)
from jawloc.cli.review import review
from jawloc.cli.scans import cache, dicoms
from jawloc.errors import InputError

if TYPE_CHECKING:
    from jawloc.workflows.cluster import ClusterOptions

# Read when torch is loaded. Threads that wait by spinning starve each other as soon as another
# program wants a core (measured: a training step 15 times slower); waiting asleep costs nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Commands draw into files. Where there is a display, and napari's Qt, pyplot would open that.
os.environ["MPLBACKEND"] = "agg"

# in a wheel too
DEFAULT_SPACE = Path(__file__).parents[1] / "workflows" / "tune" / "curriculum.yml"
target = option_under("What to train")
repeat = option_under("Interrupted and repeated runs")
study_option = option_under("Study")
trial = option_under("Trials")


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="jawloc", help="Show the version and exit.")
def jawloc() -> None:
    """Find the jaw in zebrafish micro-CT scans.

    \b
    Examples:
      jawloc train --demo                   # every step, on phantom scans
      jawloc train --model-name my_locator
      jawloc locate my_locator scan.tif
    """


@jawloc.command(cls=Command)
@target(
    "--model-name",
    help="Name of the model, of its folder and of its run.  [default: locator, or demo]",
)
@target("--demo", is_flag=True, help="Train on phantom scans that are made for the purpose.")
@target(
    "--folds",
    type=int,
    help="Number of networks to train, so that each scan is tested once, by a network that has "
    "not seen it.  [default: one network, no folds]",
)
@target(
    "--corrections",
    metavar="REVIEW",
    type=FILE,
    multiple=True,
    help="File of decisions (review.csv) whose corrected positions are trained on; may be "
    "repeated.  [default: none]",
)
@target(
    "--compare-with",
    metavar="MODEL",
    help="Model whose errors in the same test scans are reported beside the new one's.  [default: "
    "with --corrections, the one that was corrected]",
)
@takes_settings
@setting("--no-shrink-heatmap", is_flag=True, help="Keep sigma at its initial value.")
@takes_cluster
@repeat("--resume", is_flag=True, help="Continue an interrupted run of this name.")
@repeat("--overwrite", is_flag=True, help="Replace the model of this name.")
def train(
    model_name: str | None,
    demo: bool,
    folds: int | None,
    corrections: tuple[Path, ...],
    compare_with: str | None,
    settings: SettingsOptions,
    no_shrink_heatmap: bool,
    resume: bool,
    overwrite: bool,
    cluster: ClusterOptions | None,
) -> None:
    """Train a locator on labelled scans, and report its errors.

    \b
    Examples:
      jawloc-train --demo
      jawloc-train --model-name my_locator --folds 5
      jawloc-train --model-name my_locator --folds 5 --scheduler tcp://10.0.0.1:8786
      jawloc-train --model-name my_locator --set curriculum.minimum_sigma=1 --overwrite
      jawloc-train --model-name second --corrections script_output/locations/review.csv
    """
    if overwrite and resume:
        raise InputError("--resume goes on with a run and --overwrite replaces it; give only one")
    if demo and (settings.experiment is not None or settings.config_path != DEFAULT_CONFIG):
        raise InputError("--demo has settings of its own; change them with --set, not with a file")
    if cluster is not None and folds is None:
        raise InputError("--scheduler and --workers train folds at once; give --folds, too")
    if folds is not None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise InputError("--folds trains fold after fold in one process: not by torchrun")
        from jawloc.training.splits import check_folds

        check_folds(folds)  # before the slow imports
    from jawloc.training.distributed import distributed_training
    from jawloc.workflows.cross_validate import run_cross_validation
    from jawloc.workflows.demo import run_demo
    from jawloc.workflows.train import run_training

    more = ["curriculum.shrink_factor=1.0"] if no_shrink_heatmap else []
    if corrections:
        more.append(f"corrections={json.dumps([str(path) for path in corrections])}")
    if compare_with is not None:
        more.append(f"compare_with={json.dumps(compare_with)}")
    flags: dict[str, Any] = {"overwrite": overwrite, "resume": resume}
    with distributed_training() as processes:
        if demo:
            flags |= {"folds": folds, "processes": processes, "cluster": cluster}
            result = run_demo(Path.cwd(), model_name, (*settings.overrides, *more), **flags)
        else:
            config = settings.load_for_scans(*more)
            name = "locator" if model_name is None else model_name
            if folds is None:
                result = run_training(config, name, processes=processes, **flags)
            else:
                result = run_cross_validation(config, name, folds, cluster=cluster, **flags)
    if result is not None:
        click.echo(str(result))


@jawloc.command(cls=Command)
@study_option("--trials", default=30, help="Number of trials of the whole study.")
@study_option(
    "--space",
    "space_path",
    type=FILE,
    default=DEFAULT_SPACE,
    show_default=False,
    help="YAML file with the ranges and choices to search.  [default: the curriculum's threshold "
    "and minimum sigma, and whether there is one]",
)
@study_option(
    "--study-name",
    "name",
    help="Name of the study and of its run.  [default: the --space file's name]",
)
@study_option(
    "--storage",
    metavar="URL",
    help="Database or journal file that holds the study.  [default: a journal file in the study's "
    "folder]",
)
@study_option("--workers", default=1, help="Number of processes that share the study.")
@scheduler_option
@study_option(
    "--timeout",
    type=float,
    metavar="HOURS",
    help="Time in hours after which no trial begins.  [default: no limit]",
)
@study_option(
    "--sampler", default="tpe", help="Method that chooses settings: tpe, gp, qmc or random."
)
@trial(
    "--epochs",
    type=int,
    help="Largest number of epochs of a trial.  [default: num_epochs of the settings]",
)
@trial(
    "--folds",
    type=int,
    help="Number of folds that a trial's error is averaged over.  [default: no folds]",
)
@trial(
    "--pruner",
    default="median",
    help="Method that stops poor trials early: none, median, hyperband or wilcoxon (with --folds).",
)
@takes_settings
def tune(
    space_path: Path,
    name: str | None,
    timeout: float | None,
    epochs: int | None,
    settings: SettingsOptions,
    scheduler: str | None,
    **options: Any,
) -> None:
    """Search for better settings in a study of many trainings.

    \b
    Examples:
      jawloc-tune --trials 30
      jawloc-tune --trials 100 --space experiments/tune/all.yml --folds 5 --pruner wilcoxon
    """
    from jawloc.workflows.tune import StudyConfig, tune
    from jawloc.workflows.tune.search_space import read_space

    more = [] if epochs is None else [f"num_epochs={epochs}"]
    if epochs is not None and epochs < 1:
        raise InputError(f"--epochs: at least 1; received {epochs}")
    if more and any(text.partition("=")[0].strip() == "num_epochs" for text in settings.overrides):
        raise InputError("--epochs sets num_epochs; give only one of --epochs and --set")
    if scheduler is not None and options["workers"] != 1:
        raise InputError("--scheduler has workers of its own; give no --workers with it")
    cluster = cluster_options(scheduler)
    study = StudyConfig(
        name=space_path.stem if name is None else name,
        timeout_seconds=None if timeout is None else 3600 * timeout,
        **options,  # trials, storage, workers, sampler, folds, pruner
    )
    space = read_space(space_path)
    # those of the trials are in `best.yml`
    whole = None if epochs is None else settings.load().training.num_epochs
    click.echo(str(tune(settings.load_for_scans(*more), space, study, cluster, whole)))


@jawloc.command(cls=Command)
@option_under("Server")(
    "--port",
    type=click.IntRange(1, 65535),
    default=5000,
    help="Port that the pages are served on.",
)
@option_under("Server")(
    "--host",
    default="127.0.0.1",
    help="Address of this machine that the pages are served on; 0.0.0.0 for other machines, too, "
    "which need no password.",
)
@config_option
def ui(port: int, host: str, config_path: Path) -> None:
    """Open the MLflow pages, where runs are compared.

    \b
    Example:
      jawloc ui --port 6001
    """
    from jawloc.reporting.tracking.ui_server import open_ui

    if config_path != DEFAULT_CONFIG and not config_path.is_file():
        raise InputError(f"{config_path}: no such config file")
    open_ui(config_path.resolve().parent, port=port, host=host)


for command in (locate, review, evaluate, dicoms, cache, info, doctor):
    jawloc.add_command(command)
