"""What a study's and a trial's pages in MLflow say: what was searched, what won, by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from jawloc.inference.quantities import UNIT_NAMES, short
from jawloc.reporting.descriptions import artifact_page
from jawloc.reporting.tracking.pages import describe, page_of, study_page
from jawloc.reporting.tracking.runs import TrackedRun
from jawloc.workflows.tune.search_space import Range, Space

OBJECTIVE = "objective_error_voxels"
UNIT = UNIT_NAMES["downsampled_voxels"]
LONGEST_NAME = 120  # characters


def trial_name(study: str, number: int, settings: Mapping[str, Any]) -> str:
    """Return a trial's name, with its settings by the last part of their keys."""
    values = ", ".join(f"{key.rpartition('.')[2]} {short(v)}" for key, v in settings.items())
    name = f"{study} trial {number}: {values}"
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."


def describe_trial(
    run: TrackedRun, study: str, number: int, settings: Mapping[str, Any], result: str
) -> None:
    """Describe a trial: its settings, and how it ended."""
    rows = "\n".join(f"| `{key}` | {short(value)} |" for key, value in settings.items())
    text = f"Trial {number} of the study `{study}`: {result}.\n\n| Setting | Value |\n|---|---|\n"
    describe(run, text + rows)


def describe_study(
    run: TrackedRun,
    study: optuna.Study,
    space: Space,
    states: Mapping[str, int],
    complete: Sequence[FrozenTrial],
    files: Sequence[str],
    training_options: Sequence[str],
) -> None:
    """Describe a study by its results until now.

    Parameters
    ----------
    states : how many of the trials that count ended how
    complete : those of them that are complete
    files : the names of the study's own files among the run's artifacts
    training_options : of `jawloc-train` in the project's folder, for the best settings
    """
    counts = ", ".join(f"{n} {state}" for state, n in states.items() if n)
    lines = [  # the page shows the first few lines, and the rest when asked
        f"{_winner(complete)} A search for the settings with the lowest validation error: "
        f"{sum(states.values())} trials ({counts}), each a run below this one.",
        "",
        *_table(space, complete),
    ]
    if complete:
        # several lines, since a long one makes the page wider than the window
        command = "jawloc-train " + " \\\n    ".join(training_options)
        lines += ["", "Train with the best settings, in the project's folder:", ""]
        lines += [f"```\n{command}\n```"]
    page = page_of(run)
    if page is not None:
        view = study_page(run, study.study_name, list(space.parameters), OBJECTIVE)
        shown = [f"[all trials in parallel coordinates]({view})"] if view else []
        shown += [
            f"[{n}]({artifact_page(page, n)})" for n in files if n.endswith((".html", ".csv"))
        ]
        lines += ["", f"Look at {', '.join(shown)}."] if shown else []
    describe(run, "\n".join(lines))


def _winner(complete: Sequence[FrozenTrial]) -> str:
    """Return in a sentence or two what won, and by how much."""
    best, first = _best_and_first(complete)
    if best is None:
        return "No trial is complete yet."
    error = f"with a validation error of {short(best.value)} {UNIT}"
    if first is None or not first.value or first is best:
        return f"**Trial {best.number} is the best until now, {error}.**"
    less = 100 * (1 - (best.value or 0) / first.value)
    return (
        f"**Trial {best.number} won, {error}: {less:.0f} % less than trial 0**, which has the "
        "settings as they were, as far as the search space allows."
    )


def _best_and_first(
    complete: Sequence[FrozenTrial],
) -> tuple[FrozenTrial | None, FrozenTrial | None]:
    best = min(complete, key=lambda t: (t.value, t.number), default=None)
    return best, next((t for t in complete if t.number == 0), None)


def _table(space: Space, complete: Sequence[FrozenTrial]) -> list[str]:
    """Return the table of what was searched and what won."""
    best, first = _best_and_first(complete)
    heads = ["Setting", "Searched", *(["Best"] if best else []), *(["Trial 0"] if first else [])]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for key, each in space.parameters.items():
        searched = ", ".join(map(short, each.ends))
        if isinstance(each, Range):
            searched = f"{short(each.low)} to {short(each.high)}"
        values = [t.params.get(key) for t in (best, first) if t is not None]
        lines.append(f"| `{key}` | {' | '.join([searched, *map(short, values)])} |")
    if best is not None:
        errors = [f"**{short(best.value)}**", *([short(first.value)] if first else [])]
        lines.append(f"| validation error, {UNIT} | | {' | '.join(errors)} |")
    return lines
