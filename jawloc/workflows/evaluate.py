"""One model over many labelled scans, from their files to a report and a place in the registry.

The main path of `jawloc evaluate`, read top to bottom; a scan that fails is named in the report.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from jawloc.errors import InputError
from jawloc.geometry import Shape
from jawloc.inference.comparison import LEAST_SPECIMENS, compare
from jawloc.inference.evaluate_scan import ScanEvaluation, evaluate_scan
from jawloc.inference.locator import Locator, load_locator
from jawloc.inference.metrics import ObjectMetrics
from jawloc.inference.models import ModelOptions, file_digest, load_model
from jawloc.reporting.evaluation_files import (
    HTML_FILE,
    Decision,
    Failure,
    ModelEvaluation,
    flat_numbers,
)
from jawloc.reporting.evaluation_pictures import write_pictures
from jawloc.reporting.evaluation_report import write_files
from jawloc.reporting.folders.own_files import evaluation_names, open_manifest
from jawloc.reporting.folders.run_folder import is_run_folder, locked_output_folder
from jawloc.reporting.tracking.model_files import STORE_SCHEMES, model_file
from jawloc.reporting.tracking.registry import (
    REGISTERED,
    KnownModel,
    Version,
    find_champion,
    find_model,
    log_evaluation,
    make_champion,
    register,
    tag_version,
)
from jawloc.scans.listing import ListedScan, describe_failure


@dataclass(frozen=True)
class EvaluateRequest:
    """What is to be evaluated, how, and what is to become of it.

    Attributes
    ----------
    model : what the user calls it
    base : folder of the config, beside which the store is
    folder : where results go
    crop_size : (z, y, x) in voxels of the full-size scan; None: the model's
    usual_crop_size : where the model doesn't say either
    radii : of the successful detection rate; empty: the usual ones
    pictures : how many of the worst scans are shown
    register, promote : `promote` implies `register`
    """

    model: str
    base: Path
    model_options: ModelOptions
    device: str
    folder: Path
    crop_size: Shape | None
    usual_crop_size: Shape
    radii: tuple[float, ...] = ()
    pictures: int = 6
    register: bool = False
    promote: bool = False


@dataclass(frozen=True)
class Champion:
    """The present champion, ready to be tried on the same scans."""

    version: Version
    locator: Locator
    digest: str


@dataclass(frozen=True)
class EvaluateResult:
    """What an evaluation showed, and where it is."""

    evaluation: ModelEvaluation
    folder: Path

    def describe(self) -> str:
        """Say it in a few lines."""
        lines, fair = [], self.evaluation.fair_metrics()
        for name, scores in self.evaluation.metrics().items():
            lines.append(f"{name}: {_in_short(scores)}")
            if name in fair:
                lines.append(f"{name}, fair scans only: {_in_short(fair[name])}")
        lines += [f"note: {said}" for said in self.evaluation.optimism()]
        failed = len(self.evaluation.failed)
        if failed:
            lines.append(f"{failed} scan{'' if failed == 1 else 's'} failed (the report says why)")
        if self.evaluation.decision is not None:
            lines.append(self.evaluation.decision.reason)
        return "\n".join([*lines, f"Report: {self.folder / HTML_FILE}"])


def _in_short(scores: ObjectMetrics) -> str:
    unit, known = scores.success_unit.replace("_", " "), scores.errors[scores.success_unit]
    count = f"{scores.scans} scan{'' if scores.scans == 1 else 's'}"
    return (
        f"mean radial error {known.mean:.3f} {unit} in {count} (median {known.median:.3f}, 95th "
        f"percentile {known.percentile_95:.3f}, worst {known.worst:.3f}); {scores.crops.whole} of "
        f"{scores.crops.scans} crops hold all of it"
    )


def plain_name(model: str) -> str:
    """Return a folder's name for what a user calls a model, a path or URI perhaps."""
    if model.startswith(STORE_SCHEMES):
        return re.sub(r"[^\w.@+=-]+", "_", model.partition(":/")[2].strip("/"))
    return Path(model).expanduser().absolute().name.removesuffix(".pth") or "model"


def evaluate_model(request: EvaluateRequest, scans: Sequence[ListedScan]) -> EvaluateResult:
    """Evaluate a model on labelled scans, write the report, and log it to the model's run.

    Raises
    ------
    InputError
        If there is no such model, it or the champion can't be used, or the folder can't be written
        to, holds a file of others that would be overwritten, or is in use; before any slow work.
    ConnectionError
        If the store of the runs can't be reached.
    """
    with (
        locked_output_folder(request.folder),
        model_file(request.model, request.base) as weights,
    ):
        locator = load_model(weights, request.model_options, request.device)
        objects = request.model_options.objects or tuple(locator.objects)
        written = evaluation_names(objects, [scan.name for scan in scans])
        into_run = is_run_folder(request.folder)
        open_manifest(request.folder, "--output-dir", written, run=into_run)
        if request.register:
            load_locator(weights)  # bare weights could not be served, which this says
        known = find_model(request.base, request.model, weights, _run_id(locator))
        with present_champion(request, known) as champion:
            evaluation = evaluate_all(request, locator, known, scans)
            pictures = write_pictures(request.folder, locator, evaluation, request.pictures)
            write_files(request.folder, evaluation, pictures)  # whatever the store says later
            shown = [path for of_object in pictures.values() for path in of_object]
            known = log_evaluation(request.base, known, flat_numbers(evaluation), shown)
            evaluation = replace(evaluation, run_id=known.run_id)
            if request.register:
                decision = decide(request, known, champion, evaluation, scans)
                evaluation = replace(evaluation, decision=decision)
        files = write_files(request.folder, evaluation, pictures)
        log_evaluation(request.base, known, {}, files)
    return EvaluateResult(evaluation, request.folder)


@contextmanager
def present_champion(request: EvaluateRequest, known: KnownModel) -> Iterator[Champion | None]:
    """Load the champion, for as long as the block lasts, where it is to be compared with."""
    version = find_champion(request.base) if request.promote else None
    if version is None:
        yield None
        return
    with model_file(version.uri, request.base) as weights:
        locator = load_model(weights, ModelOptions(), request.device)
        yield Champion(version, locator, file_digest(weights))


def _run_id(locator: Locator) -> str | None:
    return None if locator.provenance is None else locator.provenance.run_id


def evaluate_all(
    request: EvaluateRequest, locator: Locator, known: KnownModel, scans: Sequence[ListedScan]
) -> ModelEvaluation:
    """Evaluate scan after scan; those that fail are named."""
    objects = request.model_options.objects or tuple(locator.objects)
    crop_size = request.crop_size or locator.crop_size or request.usual_crop_size
    evaluated, failed = evaluate_scans(locator, scans, crop_size, objects, "evaluate")
    return ModelEvaluation(
        model=request.model,
        digest=known.digest,
        crop_size=crop_size,
        objects=objects,
        evaluated=tuple(evaluated),
        failed=tuple(failed),
        radii=request.radii,
        run_id=known.run_id,
    )


def evaluate_scans(
    locator: Locator,
    scans: Sequence[ListedScan],
    crop_size: Shape,
    objects: Sequence[str],
    title: str,
) -> tuple[list[ScanEvaluation], list[Failure]]:
    """Measure scan after scan, whatever is wrong with one of them."""
    evaluated: list[ScanEvaluation] = []
    failed: list[Failure] = []
    with tqdm(scans, desc=title, unit="scan", disable=None) as bar:
        for scan in bar:
            try:
                evaluated += _of_known_specimens(
                    evaluate_scan(locator, scan, crop_size, objects), evaluated
                )
            except Exception as error:  # one scan must not end a night's work, whatever is wrong
                said = str(error)
                if not isinstance(error, InputError):
                    said = f"{type(error).__name__}: {error}"
                failed.append(Failure(scan.name, str(scan.path), said))
                bar.write(describe_failure(scan, said), file=sys.stderr)
    return evaluated, failed


def _of_known_specimens(
    new: Sequence[ScanEvaluation], known: Sequence[ScanEvaluation]
) -> list[ScanEvaluation]:
    """Give a copy of a scan, whatever its name, that scan's specimen: it is no further evidence."""
    every = []
    for m in new:
        twin = next((k for k in known if k.identity.is_same_image(m.identity)), m)
        every.append(replace(m, identity=replace(m.identity, specimen=twin.specimen)))
    return every


# The registry


def decide(
    request: EvaluateRequest,
    known: KnownModel,
    champion: Champion | None,
    evaluation: ModelEvaluation,
    scans: Sequence[ListedScan],
) -> Decision:
    """Register the model, and make it the champion where it is to be and deserves it."""
    if not evaluation.evaluated:
        reason = "no scan could be evaluated, so the model was not registered"
        return Decision(None, None, False, reason)
    verdict = (
        compare_with_champion(request, known, champion, evaluation, scans)
        if request.promote
        else None
    )
    version = register(request.base, known)
    called = f"the model is version {version.number} of {REGISTERED}"
    if verdict is None:
        return Decision(version.number, None, False, called)
    decision = replace(verdict, version=version.number, reason=f"{called}; {verdict.reason}")
    tag_version(request.base, version, decision_tags(decision, evaluation))
    if decision.promoted:
        make_champion(request.base, version)
    return decision


def compare_with_champion(
    request: EvaluateRequest,
    known: KnownModel,
    champion: Champion | None,
    evaluation: ModelEvaluation,
    scans: Sequence[ListedScan],
) -> Decision:
    """Try the champion on the same scans, and say whether the model takes its place."""
    if champion is None:
        reason = "there was no champion, so it becomes the champion"
        return Decision(None, None, True, "; ".join([reason, *evaluation.optimism()[:1]]))
    before = champion.version.number
    if champion.digest == known.digest:
        return Decision(None, before, False, "it is the champion already")
    shared = [name for name in evaluation.objects if name in champion.locator.objects]
    if not shared:
        reason = f"the champion, version {before}, finds none of its objects, so it stays"
        return Decision(None, before, False, reason)
    if evaluation.provenance_is_unknown:
        reason = (
            f"the champion, version {before}, stays: which scans the new model learned from is "
            f"unknown, and a comparison on scans that it may have learned from says nothing"
        )
        return Decision(None, before, False, reason)
    too_few = f"the champion, version {before}, stays"
    if evaluation.fair_specimens() < LEAST_SPECIMENS:  # before it is tried on all scans
        return Decision(None, before, False, f"{too_few}: {_needed(evaluation.evaluated)}")
    evaluated, _ = evaluate_scans(
        champion.locator, scans, evaluation.crop_size, shared, f"champion (version {before})"
    )
    theirs = {m.path for m in evaluated if m.is_fair or m.use == "unknown"}
    fair = [m for m in evaluation.evaluated if m.is_fair and m.path in theirs]
    if len({m.specimen for m in fair}) < LEAST_SPECIMENS:
        return Decision(None, before, False, f"{too_few}: {_needed(fair)}")
    comparison = compare(fair, evaluated)
    reason = f"compared with the champion, version {before}, {comparison.describe()}"
    if comparison.challenger_wins:
        reason += ", so it becomes the champion"
    left_out = len({m.path for m in evaluation.evaluated} - {m.path for m in fair})
    if left_out:
        reason += f"; {left_out} scans that one of the two had learned from were left out"
    if any(m.use == "unknown" for m in evaluated):
        reason += (
            "; which scans the champion learned from is unknown: if it knows some of these, that "
            "was to its advantage"
        )
    return Decision(None, before, comparison.challenger_wins, reason, comparison)


def _needed(evaluated: Sequence[ScanEvaluation]) -> str:
    """Say that too few specimens are fair, and how many more it takes."""
    fair = [m for m in evaluated if m.is_fair]
    scans, specimens = len({m.path for m in fair}), len({m.specimen for m in fair})
    of = f"{scans} scan{'' if scans == 1 else 's'} of {specimens} specimen"
    more = LEAST_SPECIMENS - specimens
    return (
        f"a fair comparison needs scans of {LEAST_SPECIMENS} specimens that neither model learned "
        f"from, and there are only {of}{'' if specimens == 1 else 's'}; give scans of at least "
        f"{more} more specimen{'' if more == 1 else 's'}"
    )


def decision_tags(decision: Decision, evaluation: ModelEvaluation) -> dict[str, str]:
    """Return what a version's tags say of the comparison that it was promoted by, or not."""
    tags = {
        "evaluation.promoted": str(decision.promoted).lower(),
        "evaluation.reason": decision.reason,
        "evaluation.scans": str(len(evaluation.scans)),
        "evaluation.champion_before": decision.champion_before or "none",
    }
    known = decision.comparison
    if known is not None:
        p = "none (too few scans)" if known.p_value is None else f"{known.p_value:.6g}"
        tags |= {
            "evaluation.test": known.test,
            "evaluation.p_value": p,
            "evaluation.scans": str(known.scans),
            "evaluation.specimens": str(known.specimens),
            "evaluation.mean_error": f"{known.challenger_mean} {known.unit}",
            "evaluation.champion_mean_error": f"{known.champion_mean} {known.unit}",
        }
    return tags
