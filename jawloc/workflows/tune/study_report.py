"""The results of a study: the best settings as a file, all trials as a table, and pictures."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from jawloc.errors import one_line
from jawloc.inference.exports import table_text
from jawloc.reporting.content_policy import plotly_policy
from jawloc.reporting.figures import save_drawn
from jawloc.reporting.terminal_table import from_here, number, table_lines
from jawloc.reporting.text_files import write_text
from jawloc.reporting.tracking.runs import TrackedRun
from jawloc.scans.progress import Progress
from jawloc.workflows.tune.describe_study import OBJECTIVE, describe_study
from jawloc.workflows.tune.lost_trials import counting, finished
from jawloc.workflows.tune.study import RESULTS
from jawloc.workflows.tune.trial import FULL_SIZE_READ, Task

ERROR = "validation error (voxels)"
BEST = "best."  # begins the names of the best trial's settings among the run's tags and metrics
PLOTS = {
    "history": ("plot_optimization_history", "Validation error of each trial, and the best so far"),
    "importances": ("plot_param_importances", "How much each setting matters"),
    "slice": ("plot_slice", "Validation error over each setting"),
    "parallel_coordinates": ("plot_parallel_coordinate", "Each trial's settings and error"),
    "contour": ("plot_contour", "Validation error over two settings, filled in between the trials"),
    "intermediate_values": (
        "plot_intermediate_values",
        "Best validation error (voxels) so far, over epochs (or of folds)",
    ),
}
# The settings of the contour if both are searched; else the first two.
PAIR = ["curriculum.threshold", "curriculum.minimum_sigma"]
PANEL_INCHES = 4.0
LEADING = 5  # trials in the table on the terminal
ENOUGH_TRIALS = 20  # to tell how much a setting matters
COUNTS = ("Trial", "Step")
LABELS = {
    "Step": "epoch (or fold)",
    "Intermediate Value": ERROR,
    "Trial": "trial",
    "Best Value": "best so far",
    "Hyperparameter": "",
    "Hyperparameter Importance": "share of what makes trials good or bad",
}


@dataclass(frozen=True)
class TuneResult:
    """The results of a study until now; its text is a summary in a few lines."""

    folder: Path  # of `best.yml`, `trials.csv` and the pictures
    best: FrozenTrial | None  # None: no trial is complete
    states: dict[str, int]  # number of trials by state
    tied: tuple[int, ...] = ()  # other trials with the best one's error, to the last digit
    leading: tuple[FrozenTrial, ...] = ()  # the complete trials with the smallest errors
    training_options: Sequence[str] = ()  # of `jawloc-train`, for the best settings

    def __str__(self) -> str:
        counts = ", ".join(f"{n} {state}" for state, n in self.states.items() if n)
        if self.best is None:
            return f"no trial is complete yet ({counts or 'none begun'}): {from_here(self.folder)}"
        number = sum(self.states.values())
        tied = ""
        if self.tied:
            others = ", ".join(map(str, self.tied))
            tied = f"\n  Trial {others} gave the very same: what differs between them had no effect"
        settings = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in self.best.params.items()
        )
        return (
            f"best of {number} trial{'s' if number > 1 else ''} ({counts}): "
            f"number {self.best.number} with a validation error of {self.best.value:.3f} "
            "downsampled voxels\n"
            f"  {settings}{tied}\n"
            f"{self._table()}\n"
            f"Table, pictures and settings: {from_here(self.folder)}\n"
            f"Train with them: jawloc-train {' '.join(self.training_options)}"
        )

    def _table(self) -> str:
        names = list(dict.fromkeys(name for trial in self.leading for name in trial.params))
        rows = [
            [
                trial.number,
                number(trial.value, 3),
                trial.user_attrs.get("epochs"),
                *(_shown(trial.params.get(name)) for name in names),
            ]
            for trial in self.leading
        ]
        return "\n".join(table_lines(["trial", "error (voxels)", "epochs", *names], rows))


def _shown(value: Any) -> str | None:
    return None if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def report_study(study: optuna.Study, task: Task, run: TrackedRun) -> TuneResult:
    """Write and log the results of the study until now."""
    folder = task.study.folder(task.config.base)
    trials = finished(study)
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    best = min(complete, key=lambda t: (t.value, t.number), default=None)
    states = {s.name.lower(): sum(t.state == s for t in trials) for s in TrialState}
    states["failed"] = states.pop("fail")
    _write_table(counting(study), folder / RESULTS)
    files = [folder / RESULTS]
    numbers: dict[str, float] = {f"trials_{state}": n for state, n in states.items()}
    # by the trials, without those that were read to fill the cache
    numbers["full_size_scans_read_during_trials"] = sum(
        t.user_attrs.get(FULL_SIZE_READ, 0) for t in study.get_trials(deepcopy=False)
    )
    numbers["epochs_of_all_trials"] = sum(t.user_attrs.get("epochs", 0) for t in trials)
    if best is not None:
        write_text(folder / "best.yml", _best_yaml(best, task))
        numbers |= {"best_trial": best.number, OBJECTIVE: best.value}
        settings = {f"{BEST}{key}": value for key, value in best.params.items()}
        numbers |= {k: v for k, v in settings.items() if isinstance(v, int | float)}
        run.tag({key: str(value) for key, value in settings.items()})
        files += [folder / "best.yml", *_write_pictures(study, folder)]
    # a study that goes on has others, and where its best setting is a text now, no number of that
    run.log_summary(numbers, step=len(trials), replaced=BEST)
    for path in files:
        run.log_file(path)
    best_file = (folder / "best.yml").relative_to(task.config.base).as_posix()
    names = [path.name for path in files]
    train = task.training_options(best_file)
    describe_study(run, study, task.space, states, complete, names, train)
    tied = [t.number for t in complete if best and t.value == best.value and t != best]
    complete.sort(key=lambda t: (t.value, t.number))
    train = task.training_options(from_here(folder / "best.yml").as_posix())
    return TuneResult(folder, best, states, tuple(tied), tuple(complete[:LEADING]), train)


def _best_yaml(best: FrozenTrial, task: Task) -> str:
    values = task.space.suggest(optuna.trial.FixedTrial(best.params))
    config, folds = task.space.apply(task.config, values), task.study.folds
    over = "" if folds is None else f", the mean over {folds} folds"
    return (
        f"# Trial {best.number} of the study {task.study.name!r}: validation error "
        f"{best.value:.6g} downsampled voxels{over}.\n"
        f"# jawloc-train {' '.join(task.training_options('best.yml'))}\n"
        f"{config.as_yaml()}"
    )


def _write_table(trials: list[FrozenTrial], path: Path) -> None:
    rows = [
        {
            "trial": trial.number,
            "state": "failed" if trial.state == TrialState.FAIL else trial.state.name.lower(),
            "error_voxels": trial.value if trial.state == TrialState.COMPLETE else None,
            **trial.params,
            "epochs": trial.user_attrs.get("epochs"),
            "seconds": None if trial.duration is None else trial.duration.total_seconds(),
            "retry_of": trial.system_attrs.get("failed_trial"),
            "reason": trial.user_attrs.get("reason"),
            "mlflow_run_id": trial.user_attrs.get("mlflow_run_id"),
        }
        for trial in trials
    ]
    write_text(path, table_text(rows))


def _write_pictures(study: optuna.Study, folder: Path) -> list[Path]:
    """Draw each picture as PNG, and all of them as one interactive HTML page."""
    import optuna.visualization as interactive
    from optuna.visualization import matplotlib as still

    written: list[Path] = []
    size = (max(10.0, PANEL_INCHES * len(study.best_params)), 6.0)  # a panel per setting
    pages: list[str] = []
    plots = Progress(PLOTS.items(), desc="drawing the study", unit="picture", brief=True)
    complete = sum(t.state == TrialState.COMPLETE for t in finished(study))
    for name, (function, title) in plots:
        if name == "importances" and complete < ENOUGH_TRIALS:
            title = f"{title}: a guess, from {complete} trials"
        options, path = _options(study, name), folder / f"{name}.png"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that some trials are left out
                draw = partial(getattr(still, function), study, **options)
                save_drawn(draw, path, size, title, LABELS, COUNTS)
                figure = getattr(interactive, function)(study, **options)
                figure.update_layout(title=title)
        except (ValueError, RuntimeError) as error:  # too few trials for it, most often
            plots.write(f"note: {path.name} is left out; {one_line(error)}", file=sys.stderr)
            continue
        written.append(path)
        pages.append(figure.to_html(full_html=False, include_plotlyjs=not pages))
    if pages:
        page = folder / "study.html"
        title, body = f"<title>{escape(study.study_name)}</title>", "".join(pages)
        policy = f'<meta http-equiv="Content-Security-Policy" content="{plotly_policy(body)}">'
        write_text(page, f"<!doctype html><meta charset=utf-8>{policy}{title}{body}")
        written.append(page)
    return written


def _options(study: optuna.Study, name: str) -> dict[str, Any]:
    searched = list(study.best_params)
    options: dict[str, Any] = {} if name == "intermediate_values" else {"target_name": ERROR}
    if name == "contour":
        options["params"] = PAIR if set(PAIR) <= set(searched) else searched[:2]
    return options
