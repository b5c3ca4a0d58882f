"""Load: many scans at once, and many commands and clients on one cache, store, study and model.

Trainings start at once on a cold cache and a store that isn't there yet; a study has more workers
than there are cores; `jawloc locate` goes through a long list with corrupt scans in it; clients ask
a served model at once. All must finish, MLflow must have all of each run, and every answer must be
that of the same question asked alone. Memory, open files and threads must not grow.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from campaign import RESULTS, Outcome, Plan
from load_locate import locating
from load_project import MODEL, Project, judged
from load_samples import Sample, draw
from load_serve import serving
from load_store import wrong_study, wrong_training


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    scans: int
    bad_share: float
    trainings: int
    alone: int  # of the trainings, those that are repeated alone
    workers: int
    trials: int
    clients: int
    requests: int  # of each client


FULL = Size(500, 0.05, 4, 2, 8, 16, 16, 15)
SHORT = Size(24, 0.25, 2, 1, 2, 3, 4, 8)


def faults(plan: Plan) -> Iterator[Outcome]:
    size = SHORT if plan.short else FULL
    project = Project(plan.work / "lab")
    figures: list[tuple[str, object]] = []
    yield from training(project, size, figures)
    yield from tuning(project, size, figures)
    scans, located = yield from locating(project, size.scans, size.bad_share, plan.short, figures)
    served = yield from serving(project, scans, size.clients, size.requests, plan.seed, figures)
    for what, value in figures:
        print(f"load: {what}: {value}", flush=True)
    if not plan.short:
        _write(located, served, figures)


def _write(
    located: Sequence[Sample], served: Sequence[Sample], figures: Sequence[tuple[str, object]]
) -> None:
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "load_figures.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("what", "value"), *figures])
    columns = {
        ("jawloc locate, one process", "scans done"): located,
        ("mlflow models serve, all its processes", "requests answered"): served,
    }
    draw(RESULTS / "load.png", {title: samples for title, samples in columns.items() if samples})


def training(project: Project, size: Size, figures: list[tuple[str, object]]) -> Iterator[Outcome]:
    """Train with several seeds at once, then some of them alone, in another project."""
    names = [f"{MODEL}_{seed}" for seed in range(size.trainings)]
    with project.timed(figures, f"{size.trainings} trainings at once, seconds"):
        commands = [project.start(*_train(name, seed)) for seed, name in enumerate(names)]
        ended = [command.wait() for command in commands]
    alone = Project(project.folder.with_name("alone"))
    complete = 0
    for seed, (name, said) in enumerate(zip(names, ended, strict=True)):
        wrong = [] if said.code == 0 else [f"exit code {said.code}: {said.last_line}"]
        reference = None
        if seed < size.alone:
            assert alone.start(*_train(name, seed)).wait().code == 0
            reference = alone.results(name)
        wrong = wrong or wrong_training(project, name, reference)
        complete += not wrong
        yield judged("a training beside others on one cache and store", name, wrong)
    yield judged("the cache after trainings at once", "verify", _wrong_cache(project))
    figures += [("trainings", size.trainings), ("trainings complete in MLflow", complete)]


def _train(name: str, seed: int) -> tuple[str, ...]:
    return ("train", "--model-name", name, "--set", f"seed={seed}")


def _wrong_cache(project: Project) -> list[str]:
    said = project.start("cache", "verify").wait()
    wrong = [] if said.code == 0 else [f"exit code {said.code}: {said.last_line}"]
    return wrong + [f"left behind: {path.name}" for path in project.folder.rglob(".*.part.*")]


def tuning(project: Project, size: Size, figures: list[tuple[str, object]]) -> Iterator[Outcome]:
    """Run one study with more workers than cores."""
    words = ("--workers", str(size.workers), "--trials", str(size.trials), "--epochs", "2")
    with project.timed(figures, f"{size.workers} workers, {size.trials} trials, seconds"):
        said = project.start("tune", *words).wait()
    wrong = [] if said.code == 0 else [f"exit code {said.code}: {said.last_line}"]
    trials, of_trials = wrong_study(project, size.trials, size.workers)
    yield judged("a study of many workers", " ".join(words), wrong + trials)
    for number, wrong in of_trials.items():
        yield judged("a trial beside others", f"trial {number}", wrong)
    complete = sum(not wrong for wrong in of_trials.values())
    figures += [("tuning workers", size.workers), ("trials complete in MLflow", complete)]
