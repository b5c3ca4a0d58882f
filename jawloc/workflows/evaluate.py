"""Evaluate one model on labelled scans: from their files to a report and a place in the registry.

The steps of `jawloc evaluate` from top to bottom; a scan that fails is named in the report.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from jawloc.errors import InputError
from jawloc.geometry import Shape
from jawloc.inference.comparison import Decision, compare, lacking_specimens
from jawloc.inference.evaluate_scan import ScanEvaluation
from jawloc.inference.locator import Locator, load_locator
from jawloc.inference.model_evaluation import ModelEvaluation
from jawloc.inference.models import ModelOptions, file_digest, load_model
from jawloc.inference.quantities import counted
from jawloc.reporting.evaluation_pictures import write_pictures
from jawloc.reporting.evaluation_report import (
    HTML_FILE,
    decision_tags,
    evaluation_metrics,
    provenance_notes,
    write_report,
)
from jawloc.reporting.evaluation_text import describe_evaluation
from jawloc.reporting.folders.own_files import evaluation_names, own_names, refuse_foreign
from jawloc.reporting.folders.run_folder import is_run_folder, locked_output_folder
from jawloc.reporting.tracking import registry
from jawloc.reporting.tracking.model_files import STORE_SCHEMES, model_file
from jawloc.scans.atomic import is_file_name
from jawloc.scans.listing import ListedScan
from jawloc.scans.manifest import start_manifest
from jawloc.workflows.cluster import ClusterOptions
from jawloc.workflows.cluster.client import open_cluster
from jawloc.workflows.cluster.tasks import Cluster
from jawloc.workflows.evaluate_scans import evaluate_scans


@dataclass(frozen=True)
class EvaluateRequest:
    """Which model is evaluated, and how.

    Attributes
    ----------
    model : a name, a path or a URI, as the user gave it
    base : folder of the config, beside which the store is
    folder : where results go
    crop_size : (z, y, x) in voxels of the full-size scan; None: the model's
    default_crop_size : where the model has none either
    radii : of the successful detection rate; empty: the default ones
    pictures : how many of the worst scans are shown
    register, promote : `promote` implies `register`
    cluster : where the scans are evaluated; None: in this process
    """

    model: str
    base: Path
    model_options: ModelOptions
    device: str
    folder: Path
    crop_size: Shape | None
    default_crop_size: Shape
    radii: tuple[float, ...] = ()
    pictures: int = 6
    register: bool = False
    promote: bool = False
    cluster: ClusterOptions | None = None


@dataclass(frozen=True)
class Champion:
    """The present champion, loaded to be evaluated on the same scans."""

    version: registry.Version
    locator: Locator
    digest: str


@dataclass(frozen=True)
class EvaluateResult:
    """An evaluation, what became of the model in the registry, and the folder of the report."""

    evaluation: ModelEvaluation
    folder: Path
    decision: Decision | None = None

    def __str__(self) -> str:
        """Return the result as tables and notes."""
        lines = describe_evaluation(self.evaluation)
        if self.decision is not None:
            lines.append(self.decision.reason)
        return "\n".join([*lines, f"Report: {self.folder / HTML_FILE}"])


def folder_name(model: str) -> str:
    """Return a folder's name for a model's name, path or URI."""
    name = Path(model).expanduser().absolute().name.removesuffix(".pth")
    if model.startswith(STORE_SCHEMES):
        name = re.sub(r"[^\w.@+=-]+", "_", model.partition(":/")[2].strip("/"))
    return name if is_file_name(name) else "model"


def evaluate_model(request: EvaluateRequest, scans: Sequence[ListedScan]) -> EvaluateResult:
    """Evaluate a model on labelled scans, write the report, and log it to the model's run.

    Raises
    ------
    InputError
        Before any slow work, if there is no such model, it or the champion can't be used, or the
        folder can't be written to, holds a file of others that would be overwritten, or is in use;
        later, if no scan can be evaluated. An earlier evaluation stays then.
    ConnectionError
        If the store of the runs can't be reached.
    """
    folder = request.folder
    with (
        open_cluster(request.cluster) as cluster,
        locked_output_folder(folder),
        model_file(request.model, request.base) as weights,
    ):
        locator = load_model(weights, request.model_options, request.device)
        objects = request.model_options.objects or tuple(locator.objects)
        written = evaluation_names(objects, [scan.name for scan in scans])
        own = own_names(folder, run=is_run_folder(folder))
        refuse_foreign(folder, "--output-dir", written, own)
        if request.register:
            load_locator(weights)  # refuses bare weights, which could not be served
        run_id = None if locator.provenance is None else locator.provenance.run_id
        known = registry.find_model(request.base, request.model, weights, run_id)
        with present_champion(request) as champion:
            evaluation = evaluate_locator(request, locator, known, objects, scans, cluster)
            start_manifest(folder, own)
            pictures = write_pictures(folder, locator, evaluation, request.pictures)
            write_report(folder, evaluation, pictures)  # even if the store can't be reached now
            shown = [path for of_object in pictures.values() for path in of_object]
            known = registry.log_evaluation(
                request.base, known, evaluation_metrics(evaluation), shown
            )
            evaluation = replace(evaluation, run_id=known.run_id)
            decision = (
                decide(request, known, champion, evaluation, scans, cluster)
                if request.register
                else None
            )
        files = write_report(folder, evaluation, pictures, decision)
        registry.log_evaluation(request.base, known, {}, files)
    return EvaluateResult(evaluation, folder, decision)


@contextmanager
def present_champion(request: EvaluateRequest) -> Iterator[Champion | None]:
    """Load the champion, for as long as the block lasts, where it is to be compared with."""
    version = registry.find_champion(request.base) if request.promote else None
    if version is None:
        yield None
        return
    with model_file(version.uri, request.base) as weights:
        locator = load_model(weights, ModelOptions(), request.device)
        yield Champion(version, locator, file_digest(weights))


def evaluate_locator(
    request: EvaluateRequest,
    locator: Locator,
    known: registry.KnownModel,
    objects: tuple[str, ...],
    scans: Sequence[ListedScan],
    cluster: Cluster | None = None,
) -> ModelEvaluation:
    """Evaluate a locator on all scans; InputError if it can be on none."""
    crop_size = request.crop_size or locator.crop_size or request.default_crop_size
    evaluated, failed = evaluate_scans(locator, scans, crop_size, objects, "evaluate", cluster)
    if not evaluated:
        raise InputError(
            f"{request.model}: an evaluation needs at least one scan that can be evaluated; none "
            f"of the scans ({len(scans)}) can, and an earlier evaluation stays"
        )
    return ModelEvaluation(
        model=request.model,
        digest=known.digest,
        crop_size=crop_size,
        objects=objects,
        evaluated=tuple(evaluated),
        failed=tuple(failed),
        radii=request.radii,
        run_id=known.run_id,
        errors=locator.errors,
    )


# The registry


def decide(
    request: EvaluateRequest,
    known: registry.KnownModel,
    champion: Champion | None,
    evaluation: ModelEvaluation,
    scans: Sequence[ListedScan],
    cluster: Cluster | None,
) -> Decision:
    """Register the model, and make it the champion if that was asked for and it is better."""
    verdict = Decision()
    if request.promote:
        verdict = compare_with_champion(champion, evaluation, scans, cluster)
    version = registry.register(request.base, known)
    if verdict.promoted:
        verdict = _unless_overtaken(request.base, champion, version, verdict)
    registered = f"the model is version {version.number} of {registry.REGISTERED}"
    reason = "; ".join(filter(None, (registered, verdict.reason)))
    decision = replace(verdict, version=version.number, reason=reason)
    if request.promote:
        registry.tag_version(request.base, version, decision_tags(decision, evaluation))
    if decision.promoted:
        registry.make_champion(request.base, version)
    return decision


def _unless_overtaken(
    base: Path, champion: Champion | None, version: registry.Version, verdict: Decision
) -> Decision:
    """Return the verdict, or another one if a champion that it doesn't know was made meanwhile."""
    now = registry.find_champion(base)
    known = {version.number} if champion is None else {version.number, champion.version.number}
    if now is None or now.number in known:
        return verdict
    reason = (
        f"the champion, version {now.number}, stays: it became that during this evaluation, which "
        f"did not compare with it; the same command does"
    )
    return Decision(champion_before=now.number, reason=reason)


def compare_with_champion(
    champion: Champion | None,
    evaluation: ModelEvaluation,
    scans: Sequence[ListedScan],
    cluster: Cluster | None,
) -> Decision:
    """Evaluate the champion on the same scans, and decide whether the model takes its place."""
    if champion is None:
        notes = ["there was no champion, so it becomes the champion", *provenance_notes(evaluation)]
        return Decision(promoted=True, reason="; ".join(notes[:2]))
    before = champion.version.number
    shared = [name for name in evaluation.objects if name in champion.locator.objects]
    reason = ""
    if champion.digest == evaluation.digest:
        reason = "it is the champion already"
    elif not shared:
        reason = f"the champion, version {before}, finds none of its objects, so it stays"
    elif evaluation.provenance_is_unknown:
        reason = (
            f"the champion, version {before}, stays: which scans the new model learned from is "
            f"unknown, and a comparison on scans that it may have learned from says nothing"
        )
    elif lacking := lacking_specimens(evaluation.fair):
        reason = f"the champion, version {before}, stays: {lacking}"
    if reason:
        return Decision(champion_before=before, reason=reason)
    theirs, _ = evaluate_scans(
        champion.locator,
        scans,
        evaluation.crop_size,
        shared,
        f"champion (version {before})",
        cluster,
    )
    return _compare_fairly(before, evaluation, theirs)


def _compare_fairly(
    before: str, evaluation: ModelEvaluation, theirs: Sequence[ScanEvaluation]
) -> Decision:
    usable = {scan.path for scan in theirs if scan.is_fair or scan.use == "unknown"}
    fair = [scan for scan in evaluation.fair if scan.path in usable]
    if lacking := lacking_specimens(fair):
        reason = f"the champion, version {before}, stays: {lacking}"
        return Decision(champion_before=before, reason=reason)
    comparison = compare(fair, theirs)
    reason = f"compared with the champion, version {before}, {comparison.sentence()}"
    if comparison.challenger_wins:
        reason += ", so it becomes the champion"
    left_out = {scan.path for scan in evaluation.evaluated} - {scan.path for scan in fair}
    failed = left_out - {scan.path for scan in theirs}
    for scans, why in (
        (left_out - failed, "that one of the two had learned from"),
        (failed, "on which the champion could not be evaluated"),
    ):
        if scans:
            reason += f"; left out: {counted(len(scans), 'scan')} {why}"
    if any(scan.use == "unknown" for scan in theirs):
        reason += (
            "; which scans the champion learned from is unknown: if it learned from some of "
            "these, that was to its advantage"
        )
    return Decision(None, before, comparison.challenger_wins, reason, comparison)
