"""What the training and start benchmarks run: phantoms with their cache, and both recipes.

Every function that ends in `Work` is a contender (see contenders.py), sent to a process of its own.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import yaml
from contenders import Work

if TYPE_CHECKING:
    from lab_recipe import LabScan

    from jawloc.scans.cache import ExampleFile

Size = tuple[int, int, int]

SMALL, BIG = (96, 48, 48), (512, 128, 128)  # (z, y, x) of the grid that networks see
SCAN_SHAPES = {SMALL: (288, 96, 96), BIG: (1024, 256, 256)}
INITIAL_SIGMA = {SMALL: 6.0, BIG: 8.0}  # jawloc's: the demo's, and the default
MATMUL_SIZE, MATMULS = 3072, 12  # the fastest counts
BIG_STEPS = 3  # the first warms up


def make_task(folder: Path, scans: int, size: Size) -> Path:
    """Draw phantoms, write a config beside them and fill the cache; return the config's path."""
    from jawloc.config import load_config
    from jawloc.phantom import write_phantoms
    from jawloc.scans.cache import build_cache
    from jawloc.workflows.prepare_data import find_scans

    base = folder / f"{scans}_phantoms_{'x'.join(map(str, size))}"
    write_phantoms(base / "scans", scans, SCAN_SHAPES[size])
    held_out = min(4, max(1, scans // 6))
    settings = {
        "dicom_dirs": ["scans"],
        "downsampled_dicom_size": list(size),
        "initial_kernel_size": INITIAL_SIGMA[size],
        "crop_size": [192, 192, 192] if size == BIG else list(size),
        "validation_scans": held_out,
        "test_scans": held_out,
        "device": "cpu",
    }
    path = base / "userconf.yml"
    path.write_text(yaml.safe_dump({"jaw_loc_config": settings}))
    config = load_config(path)
    build_cache(find_scans(config), config.cache, base=config.base)
    return path


def jawloc_curve(path: Path, curve: Path, epochs: int | None) -> Work:
    """Train by jawloc's default recipe and write the validation error of every epoch."""
    import torch

    from jawloc.config import load_config
    from jawloc.workflows.finish_training import evaluate_test_scans
    from jawloc.workflows.log_training import best_locator
    from jawloc.workflows.prepare_data import prepare_data
    from jawloc.workflows.train import start_state, train

    config = load_config(path, overrides=[] if epochs is None else [f"num_epochs={epochs}"])
    data = prepare_data(config)

    def work() -> dict[str, float]:
        started, cpu_started = time.perf_counter(), time.process_time()
        state = start_state(config, torch.device("cpu"))
        with curve.open("w") as file:
            for record in train(state, config, data):
                # since the start, so that what happens between epochs counts too
                row = {
                    **record.flat(),
                    "seconds": time.perf_counter() - started,
                    "cpu_seconds": time.process_time() - cpu_started,
                }
                _write_point(file, row, row["val_error_voxels"])
        evaluation = evaluate_test_scans(best_locator(state, config), config, data, {})["test"]
        return {"test_error_voxels": evaluation.summary("downsampled_voxels").mean}

    return work


def lab_curve(path: Path, curve: Path, epochs: int) -> Work:
    """Train by the lab's recipe and write the validation error of every epoch."""
    import lab_recipe

    scans = {use: _lab_scans(examples) for use, examples in _examples(path).items()}
    lab = lab_recipe.LabTraining()

    def work() -> dict[str, float]:
        with curve.open("w") as file:
            for record in lab_recipe.train(lab, scans["train"], scans["val"], epochs):
                # whichever way of using their network is better: the factor owes nothing to it
                error = min(record.error_as_validated_voxels, record.error_eval_voxels)
                _write_point(file, vars(record), error)
                print(f"  the lab's recipe: {record}", file=sys.stderr, flush=True)
        return {"test_error_voxels": lab_recipe.mean_error(lab.network, scans["test"])}

    return work


def _examples(path: Path) -> dict[str, list[ExampleFile]]:
    from jawloc.config import load_config
    from jawloc.workflows.prepare_data import prepare_data

    data = prepare_data(load_config(path))
    split = data.split
    ids = {"train": split.train_ids, "val": split.val_ids, "test": split.test_ids}
    return {use: data.select(some) for use, some in ids.items()}


def _lab_scans(examples: Sequence[ExampleFile]) -> list[LabScan]:
    from lab_recipe import LabScan, decimated_centroid

    whole = [example.read() for example in examples]
    return [LabScan(e.image, decimated_centroid(e.mask), e.points_voxels) for e in whole]


def _write_point(file: TextIO, row: Mapping[str, Any], error: float) -> None:
    file.write(json.dumps({**row, "error_voxels": error}) + "\n")
    file.flush()  # hours of work; what is done should be readable whatever happens


def jawloc_epochs(path: Path, epochs: int = BIG_STEPS) -> Work:
    """Train for a few epochs; an epoch's seconds are the median of all but the first's."""
    import torch

    from jawloc.config import load_config
    from jawloc.workflows.prepare_data import prepare_data
    from jawloc.workflows.train import start_state, train

    config = load_config(path)
    data = prepare_data(config)
    state = start_state(config, torch.device("cpu"))

    def work() -> dict[str, float]:
        times = [time.perf_counter()]
        for _ in train(state, config, data):
            times.append(time.perf_counter())
            if len(times) > epochs:
                break
        seconds = statistics.median(_differences(times[1:]))
        trained = len(data.split.train_ids)
        return {"seconds_per_scan": seconds / trained, "seconds_per_epoch": seconds}

    return work


def lab_steps(path: Path, steps: int = BIG_STEPS) -> Work:
    """Train for a few steps of one scan each, validate once, and add up what an epoch takes."""
    import lab_recipe
    import torch

    examples = _examples(path)
    scans = _lab_scans(examples["train"][:1])
    lab = lab_recipe.LabTraining()
    images = lab_recipe.as_batch([scan.image for scan in scans])
    targets = lab_recipe.heatmaps(scans, lab.sigma)

    def work() -> dict[str, float]:
        times = [time.perf_counter()]
        for _ in range(steps):
            lab.step(images, targets)
            times.append(time.perf_counter())
        training = statistics.median(_differences(times[1:]) or _differences(times))
        with torch.no_grad():
            lab_recipe.kl_nats(lab.network(images), targets)
        validating = time.perf_counter() - times[-1]
        epoch = training * len(examples["train"]) + validating * len(examples["val"])
        return {"seconds_per_scan": training, "seconds_per_epoch": epoch}

    return work


def _differences(times: Sequence[float]) -> list[float]:
    return [b - a for a, b in pairwise(times)]


def arithmetic(path: Path) -> Work:
    """Count the additions and multiplications of an epoch, and time as many in matrix products."""
    import torch
    from lab_recipe import build_network
    from torch.utils.flop_counter import FlopCounterMode

    from jawloc.config import load_config
    from jawloc.workflows.prepare_data import prepare_data
    from jawloc.workflows.train import start_state, train

    config = load_config(path)
    data = prepare_data(config)

    def lab_operations() -> float:
        with torch.device("meta"):  # shapes without numbers
            network = build_network()
            image = torch.zeros(1, 1, *config.cache.downsampled_dicom_size)
        with FlopCounterMode(display=False) as forward, torch.no_grad():
            network(image)
        with FlopCounterMode(display=False) as both:
            network(image).sum().backward()
        trained, validated = len(data.split.train_ids), len(data.split.val_ids)
        return trained * both.get_total_flops() + validated * forward.get_total_flops()

    def work() -> dict[str, float]:
        with FlopCounterMode(display=False) as counted:
            next(train(start_state(config, torch.device("cpu")), config, data))
        per_second = _matmul_operations_per_second()
        return {
            "per_second": per_second,
            "jawloc": counted.get_total_flops() / per_second,
            "lab": lab_operations() / per_second,
        }

    return work


def _matmul_operations_per_second() -> float:
    import torch

    a, seconds = torch.randn(MATMUL_SIZE, MATMUL_SIZE), []
    for _ in range(MATMULS):
        started = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - started)
    return 2 * MATMUL_SIZE**3 / min(seconds)
