"""What a model's file says of itself: how it was made, with which scans, and how good it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jawloc.config import Config, check_config, load_config
from jawloc.errors import InputError
from jawloc.inference.held_out_errors import HeldOutErrors, held_out_errors
from jawloc.inference.locator import FORMATS, Locator, load_locator
from jawloc.inference.models import file_digest
from jawloc.inference.quantities import UNIT_NAMES, counted
from jawloc.reporting.terminal_table import number, table_lines
from jawloc.reporting.tracking.model_files import model_file
from jawloc.scans.messages import names_shown
from jawloc.training.checkpoint import read_weights_file
from jawloc.training.provenance import PURPOSES, Provenance, Purpose

MOST_IDS = 6  # of the scans of one use
USES: Mapping[Purpose, str] = {
    "train": "trained it",
    "validation": "validated its training",
    "calibration": "calibrated radius and status",
    "test": "tested it",
}
WHEN_BARE = "unknown: the file holds bare weights; `jawloc locate --help` says how to use them"


@dataclass(frozen=True)
class ModelDescription:
    """A model's file, as lines of text; `is_useful` as in its held-out errors."""

    lines: tuple[str, ...]
    is_useful: bool

    def __str__(self) -> str:
        return "\n".join(self.lines)


def describe_model(model: str, base: Path) -> ModelDescription:
    """Describe a model by its name, its file or its MLflow URI.

    Raises
    ------
    InputError
        If there is no such model, or its file is no model.
    """
    with model_file(model, base) as path:
        content = read_weights_file(path)
        about = [
            ("file", f"{model if model.startswith(('models:', 'runs:')) else path}"),
            ("SHA-256", file_digest(path)),
        ]
        if content.get("format") not in FORMATS:
            rows = [*about, ("made by", WHEN_BARE), ("tensors", str(len(content)))]
            return ModelDescription(tuple(table_lines(["model", model], rows, indent=0)), True)
        locator = load_locator(path)
        errors = locator.errors or _errors_beside(path)
        lines = table_lines(["model", model], [*about, *_rows(locator)], indent=0)
        lines += _error_lines(errors) + _radius_lines(locator) + _scan_lines(locator.provenance)
        lines += _setting_lines(path.with_name("config.yml"))
        return ModelDescription(tuple(lines), errors is None or errors.is_useful)


def _rows(locator: Locator) -> list[tuple[str, str]]:
    record, network = locator.provenance, locator.network_config
    names = [stage.name for stage in network.stages()]
    weights = sum(p.numel() for net in locator.networks for p in net.parameters())
    run = "" if record is None or record.run_id is None else f", run {record.run_id}"
    objects = [
        name if values is None else f"{name} (label {', '.join(map(str, values))})"
        for name, values in locator.objects.items()
    ]
    rule = locator.intensity
    grey = f"{rule.rule} {rule.low:g} to {rule.high:g}" if rule.rule == "percentile" else rule.rule
    crop = "none kept" if locator.crop_size is None else f"{_times(locator.crop_size)} voxels"
    flips = ", ".join(locator.flipped_axes)
    return [
        ("made by", f"jawloc {locator.jawloc_version}{run}"),
        (
            "networks",
            f"{counted(len(locator.networks), network.name)} of "
            f"{counted(len(names), 'stage')}, {weights / 1e6:.2f} million weights",
        ),
        ("grid", f"{_times(locator.downsampled_size)} downsampled voxels (z, y, x)"),
        ("objects", ", ".join(objects)),
        ("grey values", grey),
        ("sigma", f"{_sigmas(locator, names)} downsampled voxels at its weights' epoch"),
        ("crop", f"{crop} of the full-size scan"),
        ("averaged over", f"a shifted{f' and a flipped ({flips})' * bool(flips)} copy of each scan")
        if locator.test_time_augmentation
        else ("averaged over", "nothing: each scan as it is"),
        ("presence classifier", "yes" if locator.presence_classifiers else "none"),
    ]


def _sigmas(locator: Locator, names: Sequence[str]) -> str:
    texts = []
    for index, name in enumerate(names):
        own = sorted({f"{sigmas[index]:.2f}" for sigmas in locator.sigma_voxels})
        of = f" ({name} stage)" if name else ""
        texts.append(f"{own[0]}{f' to {own[-1]}' if len(own) > 1 else ''}{of}")
    return ", ".join(texts)


def _errors_beside(path: Path) -> HeldOutErrors | None:
    """Return the errors in the summary beside a file of an earlier version, which has none."""
    try:
        summary: dict[str, Any] = json.loads(
            path.with_name("summary.json").read_text(encoding="utf-8")
        )
        return held_out_errors(summary) if summary.get("name") == path.stem else None
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None


def _error_lines(errors: HeldOutErrors | None) -> list[str]:
    if errors is None:
        return ["errors  unknown: its file does not state them; see `jawloc evaluate`"]
    scans = counted(errors.scans, "test scan" if errors.how == "test" else "scan")
    kind = scans if errors.how == "test" else f"{scans}, out of fold"
    rows = [
        [label, *(number(means.get(unit), 3) for unit in errors.locator)]
        for label, means in (
            (f"the model ({kind})", errors.locator),
            ("mean position (the same scans)", errors.mean_position),
            ("heatmaps (validation scans)", errors.validation),
        )
        if means
    ]
    units = [UNIT_NAMES[unit] for unit in errors.locator]
    lines = table_lines(["mean radial error", *units], rows, indent=0)
    return lines + [f"WARNING: {warning}" for warning in errors.warnings()]


def _radius_lines(locator: Locator) -> list[str]:
    if locator.calibration is None:
        return ["radius  unknown: no scan was held out to calibrate it"]
    lines = []
    for name, known in locator.calibration.objects.items():
        text = known.radius_note
        if known.conformal is not None:
            share = 100 * known.conformal.confidence
            text = f"holds the truth in {share:.0f} %, from {known.specimens} specimens"
        lines.append(f"radius of the {name}  {text}")
        if known.status_note:
            lines.append(f"status of the {name}  {known.status_note}")
    return lines


def _scan_lines(record: Provenance | None) -> list[str]:
    if record is None:
        return ["scans  unknown: its file does not state which scans it learned from"]
    rows = []
    for purpose in PURPOSES:
        ids = record.ids(purpose)
        specimens = len({record.scans[i].specimen for i in ids})
        rows.append([USES[purpose], len(ids), specimens, names_shown(ids, MOST_IDS)])
    lines = table_lines(["scans that", "scans", "specimens", "ids"], rows, indent=0)
    return lines + _correction_lines(record)


def _correction_lines(record: Provenance) -> list[str]:
    """Return which positions that people corrected trained a model, and who corrected them."""
    if not record.corrections:
        return []
    rows = [
        [
            f"{one.scan_id}, {one.object_name}",
            *("corrected" if one.verdict == "moved" else one.verdict, f"{one.weight:g}"),
            *(one.reviewer, one.time, one.model, one.earlier_use),
        ]
        for one in record.corrections
    ]
    header = ["corrections", "", "weight", "by", "when", "of model", "whose use of it"]
    return table_lines(header, rows, indent=0)


def _setting_lines(path: Path) -> list[str]:
    """Return the settings of the `config.yml` beside a model that differ from the defaults."""
    try:
        config = load_config(path)
    except InputError:
        return ["settings  unknown here; its run has them (`jawloc ui`)"]
    own, standard = config.as_params(), _defaults(config).as_params()
    others = [
        [key, str(value), str(standard[key])]
        for key, value in own.items()
        if value != standard[key] and key not in ("dicom_dirs", "cache_dir", "corrections")
    ]
    if not others:
        return ["settings  all the default ones"]
    return table_lines(["settings", "value", "default"], others, indent=0)


def _defaults(config: Config) -> Config:
    """Return the defaults, those that depend on the grid and the network as theirs decide them."""
    kept = {"downsampled_dicom_size": list(config.cache.shape_zyx)}
    return check_config(
        kept | {"network": {"name": config.network.name}}, base=config.base, source="defaults"
    )


def _times(numbers: Sequence[int]) -> str:
    return "×".join(map(str, numbers))
