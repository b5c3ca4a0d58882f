"""The originals that are no scans: models, settings, search spaces and studies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import torch
import yaml
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

import jawloc.workflows.tune
from jawloc.config import check_config
from jawloc.geometry import Grid
from jawloc.inference.calibrate import ReferenceRange
from jawloc.inference.conformal import Conformal
from jawloc.inference.locator import Locator, save_locator
from jawloc.inference.quality import Calibration, PositionReference, ScanReference
from jawloc.scans.dicom import write_labelled_dicom
from jawloc.training.intensity import IntensityConfig
from jawloc.training.network import build_network
from jawloc.training.provenance import NetworkRecord, Provenance, identify
from jawloc.training.splits import SPECIMEN_PATTERN
from jawloc.training.stages import NetworkConfig
from jawloc.workflows.tune.search_space import read_space
from jawloc.workflows.tune.study import StudyConfig, open_study, search_definition

GRID = (8, 8, 8)  # that the models work on
Written = tuple[str, Sequence[str]]

SETTINGS = {
    "downsampled_dicom_size": list(GRID),
    "initial_kernel_size": 3,
    "num_epochs": 3,
    "crop_size": [4, 4, 4],
    "dicom_dirs": ["dicoms"],
    "objects": {"jaw": None, "left": [1, 2]},
    "network": {"channels": [4, 8], "stride": 2},
    "curriculum": {"threshold": 1.0, "minimum_sigma": 1.5},
}
LAB = """rdsf_dir: /mnt/rdsf
unet_params:
  batch_size: 3
  layers: &layers [1, 2, 3]
  more: *layers
jaw_loc_config:
  downsampled_dicom_size: [8, 8, 8]
  initial_kernel_size: 8
  batch_size: 8
  n_workers: 10
  device: "cuda"
  learning_rate: 0.0001
  num_epochs: 250
  crop_size: [192, 192, 192]
  dicom_dirs: ["dicoms", other/dicoms]
"""


def make_locator(
    objects: Sequence[str] = ("jaw",), *, networks: int = 1, coarse: int = 1
) -> Locator:
    """Return a small locator with fresh weights that looks as if it had been calibrated."""
    torch.manual_seed(0)
    config = NetworkConfig(coarse=coarse, channels=(4, 8), stride=2).for_grid(GRID)
    sigmas = (2.0,) * len(config.stages())
    image = np.arange(np.prod(GRID), dtype=np.float32).reshape(GRID)
    record = NetworkRecord({"train": ("a",)}, sigmas)
    provenance = Provenance(
        {"a": identify("a", "", image)}, (record,) * networks, SPECIMEN_PATTERN, None
    )
    ranges = {"peak": ReferenceRange(0.5, 0.2, 9)}
    scans = ScanReference((np.eye(2, 8) + 0.5,) * 3, (None,) * 3, ranges)
    reference = PositionReference(Conformal(1.5, 0.9, 9), ranges, 9)
    locator = Locator(
        tuple(build_network(config, len(objects)) for _ in range(networks)),
        config,
        GRID,
        IntensityConfig(),
        dict.fromkeys(objects),
        (sigmas,) * networks,
        crop_size=(4, 4, 4),
        calibration=Calibration(scans, dict.fromkeys(objects, reference)),
    )
    return replace(locator, provenance=provenance)


def write_models(folder: Path) -> Iterator[tuple[str, Written]]:
    for variant, locator in {
        "one object": make_locator(),
        "two objects, two networks": make_locator(("jaw", "left"), networks=2),
        "two stages": make_locator(coarse=2),
    }.items():
        save_locator(locator, folder / "m.pth")
        yield variant, ("m.pth", ())
    save_locator(make_locator(), folder / "m.pth")
    content = torch.load(folder / "m.pth", weights_only=True)
    torch.save(content, folder / "m.pth", _use_new_zipfile_serialization=False)
    yield "without checksums", ("m.pth", ())
    torch.manual_seed(0)
    lab = build_network(NetworkConfig(name="attention-unet").for_grid(GRID), 1)
    torch.save(lab.state_dict(), folder / "lab.pth")
    yield "the lab's", ("lab.pth", ())


def write_configs(folder: Path) -> Iterator[tuple[str, Written]]:
    for variant, text in {
        "ours": yaml.safe_dump({"other_tool": {"x": 1}, "jaw_loc_config": SETTINGS}),
        "ours, every key": _every_key(),
        "the lab's": LAB,
    }.items():
        _write_scans(folder / "dicoms")
        _write_scans(folder / "other" / "dicoms", first=3)
        (folder / "userconf.yml").write_text(text, encoding="utf-8")
        yield variant, ("userconf.yml", ())


def _every_key() -> str:
    config = check_config(SETTINGS, base=Path(), source="settings")
    return config.as_yaml().replace(str(Path.cwd()), ".")


def _write_scans(folder: Path, first: int = 0) -> None:
    folder.mkdir(parents=True)
    for number in range(first, first + 3):
        image = np.random.default_rng(number).integers(0, 900, (10, 9, 8)).astype(np.uint16)
        write_labelled_dicom(folder / f"s{number}.dcm", image, image % 3, Grid(image.shape))


def write_spaces(folder: Path) -> Iterator[tuple[str, Written]]:
    own = Path(jawloc.workflows.tune.__file__).parent / "curriculum.yml"
    choices = (
        "search:\n  initial_kernel_size: {low: 2.0, high: 4.0, step: 0.5}\n"
        "  batch_size: {low: 1, high: 4}\n  network.channels: [[4, 8], [8, 16]]\n"
        "  curriculum.shrink_factor:\n    low: 0.6\n    high: 0.95\n"
        "  skip: &x [1]\n".replace(
            "  skip: &x [1]\n", "  learning_rate_schedule: [constant, cooldown]\n"
        )
    )
    for variant, text in {"curriculum": own.read_text(encoding="utf-8"), "more": choices}.items():
        (folder / "space.yml").write_text(text, encoding="utf-8")
        config = yaml.safe_dump({"jaw_loc_config": SETTINGS | {"initial_kernel_size": 4}})
        (folder / "userconf.yml").write_text(config, encoding="utf-8")
        yield variant, ("space.yml", ())


def write_studies(folder: Path) -> Iterator[tuple[str, Written]]:
    space = "search:\n  curriculum.threshold: {low: 0.25, high: 4.0, log: true}\n"
    settings = SETTINGS | {"initial_kernel_size": 4}
    for name in ("study.journal", "study.db"):
        (folder / "space.yml").write_text(space, encoding="utf-8")
        (folder / "userconf.yml").write_text(
            yaml.safe_dump({"jaw_loc_config": settings}), encoding="utf-8"
        )
        _begin_study(folder, name)
        if name == "study.journal":
            text = (folder / name).read_text(encoding="utf-8")
            text = re.sub(r'"\d{4}-\d\d-\d\dT[\d:.]+"', '"2026-01-02T03:04:05.678901"', text)
            (folder / name).write_text(text, encoding="utf-8")
        yield name.partition(".")[2], (name, ())


def study_storage(path: Path) -> str:
    """Return what `--storage` calls a study's file."""
    return f"sqlite:///{path}" if path.suffix == ".db" else str(path)


def study_parts(folder: Path, storage: str):
    """Return the config, the space, the study and what they search, as `jawloc tune` does."""
    from jawloc.config import load_config

    config = load_config(folder / "userconf.yml")
    space = read_space(folder / "space.yml")
    study = StudyConfig("space", storage=storage)
    definition = search_definition(config, space, study, {"train_ids": "a b"})
    # its paths are other ones in each folder
    plain = {k: v for k, v in definition.items() if str(folder) not in str(v)}
    return config, space, study, plain


def _begin_study(folder: Path, name: str) -> None:
    config, space, study, definition = study_parts(folder, study_storage(folder / name))
    opened = open_study(study, config, definition, space.default(config))
    key, ranges = "curriculum.threshold", FloatDistribution(0.25, 4.0, log=True)
    for number in range(4):
        value = 0.5 + 0.25 * number
        opened.add_trial(
            create_trial(
                state=TrialState.COMPLETE if number != 2 else TrialState.PRUNED,
                params={key: value},
                distributions={key: ranges},
                value=3.5 - number,
                user_attrs={"epochs": 3, "mlflow_run_id": "0" * 32},
                intermediate_values={0: 9.5, 1: 4.25},
            )
        )


def plain_trials(path: Path) -> list[tuple[str, dict, float | None]]:
    """Return a study's trials as Optuna by itself reads them."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = JournalStorage(JournalFileBackend(str(path))) if path.suffix != ".db" else None
    opened = optuna.load_study(study_name="space", storage=storage or study_storage(path))
    return trials_of(opened)


def trials_of(study: optuna.Study) -> list[tuple[str, dict, float | None]]:
    """Return the state, parameters and value of each trial."""
    return [(t.state.name, dict(t.params), t.value) for t in study.get_trials(deepcopy=False)]
