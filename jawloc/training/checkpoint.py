"""Everything that resuming needs, in one file that loads without running code."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from jawloc.errors import InputError
from jawloc.heatmaps.curriculum import CurriculumState
from jawloc.scans.atomic import atomic_path
from jawloc.scans.manifest import record_file
from jawloc.training.changed_scans import lists_scans, tell_changed_scans
from jawloc.training.loop import TrainingState
from jawloc.training.records import EpochRecord
from jawloc.training.unfinished import from_plain

FORMAT = "jawloc-checkpoint-3"
FOLDS_FORMAT = "jawloc-folds-3"  # of a cross-validation, whose folds have checkpoints of their own
# Of jawloc 0.1.0: one curriculum for all stages, whose sigmas were not those trained at. Then: not
# the coarse stage's stride.
OLD_FORMATS = ("jawloc-checkpoint-1", "jawloc-folds-1", "jawloc-checkpoint-2", "jawloc-folds-2")

# May differ when a run is resumed: none changes what the networks learn or, as for the pattern,
# only by way of the split, which is compared itself. (Of scans that don't all fit into the memory
# budget, those that teach the presence classifier are drawn by it.)
FREE_SETTINGS = frozenset(
    {
        *("n_workers", "device", "dicom_dirs", "cache_dir", "memory_budget_gb"),
        *("specimen_pattern", "compare_with"),
    }
)
GROWING = "num_epochs"


def save_checkpoint(
    path: Path, state: TrainingState, settings: Mapping[str, object], run_id: str
) -> None:
    """Write the state after an epoch or a part of one, with the run's settings and tracking id."""
    content = {
        **_header(FORMAT, settings, run_id),
        "network": state.network.state_dict(),
        "average": state.average.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "curricula": [asdict(stage) for stage in state.curricula],
        "generator": state.generator.get_state(),
        "torch_random": torch.get_rng_state(),
        "cuda_random": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "records": [asdict(record) for record in state.records],
        "best_weights": state.best_weights,
        "best_epoch": state.best_epoch,
        "best_error_voxels": state.best_error_voxels,
        "cooldown_from": state.cooldown_from,
        "unfinished": state.unfinished and state.unfinished.to_plain(),
    }
    save_atomically(content, path)


def check_settings(path: Path, settings: Mapping[str, object]) -> None:
    """Raise InputError if the file is not a checkpoint, or its settings differ from these."""
    _read_checkpoint(path, settings)


def load_checkpoint(path: Path, state: TrainingState, settings: Mapping[str, object]) -> str:
    """Restore a checkpoint into a freshly started state; return its run id.

    Raises InputError as `check_settings`.
    """
    content = _read_checkpoint(path, settings)
    state.network.load_state_dict(content["network"])
    state.average.load_state_dict(content["average"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.curricula = tuple(CurriculumState(**stage) for stage in content["curricula"])
    state.generator.set_state(content["generator"].cpu())
    torch.set_rng_state(content["torch_random"].cpu())
    if torch.cuda.is_available():  # dropout on a GPU draws from the GPU's own numbers
        for device, random in enumerate(content["cuda_random"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(random.cpu(), device)
    state.records = TypeAdapter(list[EpochRecord]).validate_python(content["records"])
    for key in ("best_weights", "best_epoch", "best_error_voxels", "cooldown_from"):
        setattr(state, key, content[key])
    if (unfinished := content.get("unfinished")) is not None:
        state.unfinished = from_plain(unfinished, next(state.network.parameters()).device)
    return str(content["run_id"])


def planned_epochs(path: Path) -> int:
    """Return the `num_epochs` of the run that a checkpoint belongs to, which may grow."""
    return int(read_weights_file(path)["settings"][GROWING])


def save_folds_checkpoint(path: Path, settings: Mapping[str, object], run_id: str) -> None:
    """Write the settings and run id of a cross-validation beside the folders of its folds."""
    save_atomically(_header(FOLDS_FORMAT, settings, run_id), path)


def load_folds_checkpoint(path: Path, settings: Mapping[str, object]) -> str:
    """Return the run id of an interrupted cross-validation.

    Raises InputError as `check_settings`, and if the interrupted run was an ordinary training.
    """
    return str(_read_checkpoint(path, settings, FOLDS_FORMAT)["run_id"])


def _header(kind: str, settings: Mapping[str, object], run_id: str) -> dict[str, Any]:
    plain = {key: str(value) for key, value in settings.items()}
    return {"format": kind, "settings": plain, "run_id": run_id}


def save_atomically(content: Mapping[str, object], path: Path) -> None:
    """torch.save into a temporary file in the same folder, then rename.

    The same content gives the same bytes: torch puts the name of a path into its file, but not that
    of an open file.
    """
    record_file(path)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(dict(content), file)


def read_weights_file(path: Path) -> dict[str, Any]:
    """Load a `.pth` onto the CPU without running any code that it may hold.

    Raises InputError if there is no such file, or it is not plain weights (but, say, a pickle with
    code in it).
    """
    if not path.is_file():
        raise InputError(f"{path}: no such model file")
    try:
        with warnings.catch_warnings(action="ignore"):  # of files that are refused just below
            _refuse_damaged(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen unrelated types for a damaged file
        raise InputError(
            f"{path.name}: not a model file of plain weights "
            f"(damaged, or a pickle that holds code, which is never run)"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path.name}: a model file holds a mapping, not {type(content).__name__}")
    return content


def _refuse_damaged(path: Path) -> None:
    """Raise BadZipFile where a checksum doesn't fit: PyTorch writes them, and ignores them."""
    if not zipfile.is_zipfile(path):  # as PyTorch wrote them before version 1.6
        return
    with zipfile.ZipFile(path) as archive:
        if (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"{damaged} doesn't fit its checksum")


def _read_checkpoint(
    path: Path, settings: Mapping[str, object], kind: str = FORMAT
) -> dict[str, Any]:
    content = read_weights_file(path)
    if content.get("format") in OLD_FORMATS:
        raise InputError(
            f"{path.name}: the interrupted run was begun by an earlier version of jawloc, and only "
            f"that version can resume it; --overwrite trains anew"
        )
    if content.get("format") not in (FORMAT, FOLDS_FORMAT):
        raise InputError(f"{path.name}: not a checkpoint of an interrupted jawloc run")
    if content["format"] != kind:
        how = "without" if kind == FOLDS_FORMAT else "with"
        raise InputError(
            f"--resume: the interrupted run was begun {how} --folds, so go on {how} it"
        )
    refuse_changes(path.name, content["settings"], settings)
    return content


def refuse_changes(
    name: str, before: Mapping[str, str], now: Mapping[str, object], *, finished: bool = False
) -> None:
    """Raise InputError with every setting that differs and counts; an unfinished run may grow."""
    changes = []
    for key, value in now.items():
        was, text = before.get(key), str(value)
        grows = key == GROWING and not finished
        if key in FREE_SETTINGS or was == text or (grows and was and int(text) > int(was)):
            continue
        if lists_scans(key):  # of which there are many: they are told together
            continue
        but = f" ({key} may only grow)" if grows else ""
        changes.append(f"{key} was {_shorten(str(was))} and is now {_shorten(text)}{but}")
    lists = {key: str(value) for key, value in now.items() if lists_scans(key)}
    if scans := tell_changed_scans({key: before.get(key, "") for key in lists}, lists):
        changes.append(scans)
    if changes and finished:
        raise InputError(
            f"--resume: {name!r} is finished, with other settings than these: "
            f"{'; '.join(changes)}; --overwrite trains it anew"
        )
    if changes:
        raise InputError(
            f"{name}: a run goes on only with the settings and scans that it began with; "
            f"{'; '.join(changes)}"
        )


def _shorten(text: str, longest: int = 200) -> str:
    return text if len(text) <= longest else f"{text[:longest]}..."
