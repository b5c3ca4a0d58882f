"""Whether this machine and this folder are ready: each finding with what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from jawloc import __version__
from jawloc.config import Config, load_config
from jawloc.errors import InputError, one_line
from jawloc.reporting.folders.run_folder import CHECKPOINT, OUTPUT_FOLDER
from jawloc.reporting.terminal_table import table_lines
from jawloc.scans.cache.jobs import largest_size
from jawloc.scans.cache.layout import cache_folder, cached_paths
from jawloc.scans.cores import usable_cores
from jawloc.scans.dicom import open_labelled_dicom
from jawloc.scans.downsample import TargetTooLargeError, check_target
from jawloc.scans.messages import names_shown
from jawloc.scans.progress import Progress
from jawloc.workflows.prepare_data import decide_size, find_scans

PACKAGES = ("torch", "monai", "mlflow", "optuna", "numpy", "pydicom", "SimpleITK", "matplotlib")
LEAST_FREE_GB = 2.0  # of the disk: cache, models and pictures of a small study
LEAST_SCANS = 3  # one each to train on, to validate on, and to test


@dataclass(frozen=True)
class Finding:
    """The result of one check; with something to do, all is not well."""

    name: str
    text: str
    to_do: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings."""

    findings: tuple[Finding, ...]

    @property
    def is_well(self) -> bool:
        """Return whether there is nothing to do."""
        return not any(finding.to_do for finding in self.findings)

    def __str__(self) -> str:
        rows = [["TO DO" if f.to_do else "ok", f.name, f.text] for f in self.findings]
        lines = table_lines(["", "check", "found"], rows, indent=0)
        to_do = [f"- {f.name}: {f.to_do}" for f in self.findings if f.to_do]
        return "\n".join([*lines, *(["What to do:", *to_do] if to_do else ["All is well."])])


def diagnose(config_path: Path) -> Diagnosis:
    """Check versions, device, memory, settings, scans, cache, store and models; never raises."""
    findings = [_checked("versions", _versions), *_settings(config_path)]
    return Diagnosis(tuple(findings))


def _settings(config_path: Path) -> Iterator[Finding]:
    base, config = config_path.resolve().parent, None
    try:
        config = load_config(config_path)
        yield Finding("settings", str(config_path))
    except Exception as error:
        to_do = "correct it, or name another with --config; `jawloc-train --demo` needs none"
        if not config_path.exists():
            to_do = "copy userconf.yml of jawloc's own folder here, or name one with --config"
        yield Finding("settings", one_line(error), to_do)
    yield _checked("device", lambda: _device("auto" if config is None else config.training.device))
    budget = 4.0 if config is None else config.training.memory_budget_gb
    yield _checked("memory", lambda: _memory(budget))
    yield _checked("disk", lambda: _disk(base))
    if config is not None:
        yield from _scans(config)
    yield _checked("store", lambda: _store(base))
    yield _checked("models", lambda: _models(base))


def _checked(name: str, check: Callable[[], Finding]) -> Finding:
    """Return a check's finding, or what kept it from one: a doctor does not break down."""
    try:
        return check()
    except Exception as error:
        return Finding(name, one_line(error), "see what the message says; --debug has no more")


def _versions() -> Finding:
    found, missing = [f"jawloc {__version__}", f"Python {platform.python_version()}"], []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    if missing:
        to_do = "install jawloc with its dependencies: pip install -e ."
        return Finding("versions", f"not installed: {', '.join(missing)}", to_do)
    return Finding("versions", ", ".join(found))


def _device(wanted: str) -> Finding:
    import torch

    from jawloc.training.device import choose_device

    # with a driver that PyTorch can't use, GPUs are counted, but not available
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [torch.cuda.get_device_name(i) for i in range(count)]
    found = f"{', '.join(names) or 'no GPU, so networks run on the CPU'}; {usable_cores()} cores"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is the finding
            device = choose_device(wanted)
    except InputError as error:
        return Finding("device", one_line(error), "set device: auto")
    if wanted.startswith("cuda") and device.type != "cuda":
        to_do = "set device: auto, or install PyTorch with CUDA and the GPU's driver"
        return Finding("device", f"device {wanted} is set, and there is none; {found}", to_do)
    return Finding("device", found)


def _memory(budget_gb: float) -> Finding:
    memory = psutil.virtual_memory()
    total, free = memory.total / 1e9, memory.available / 1e9
    text = f"{free:.1f} of {total:.1f} GB free; memory_budget_gb is {budget_gb:g}"
    if free < budget_gb:
        least = max(round(free / 2, 1), 0.1)
        to_do = f"end other programs, or set memory_budget_gb to {least:g}"
        return Finding("memory", text, f"{to_do}: scans beyond it are read batch by batch")
    return Finding("memory", text)


def _disk(base: Path) -> Finding:
    usage = shutil.disk_usage(base)
    text = f"{usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB free for {base}"
    if not os.access(base, os.W_OK):
        return Finding("disk", f"{base} can't be written to", "run jawloc in a folder of your own")
    to_do = "free some room" if usage.free < LEAST_FREE_GB * 1e9 else ""
    return Finding("disk", text, to_do)


def _scans(config: Config) -> Iterator[Finding]:
    try:
        scans = find_scans(config)
        config = decide_size(config)
    except (InputError, OSError) as error:
        to_do = "correct dicom_dirs, or make labelled DICOMs with `jawloc dicoms`"
        yield Finding("scans", one_line(error), to_do)
        return
    yield _checked("scans", lambda: _headers(config, scans))
    yield _checked("cache", lambda: _cache(config, scans))


def _headers(config: Config, scans: Sequence[Path]) -> Finding:
    bad, too_small = list[str](), 0
    for path in Progress(scans, desc="reading headers", unit="scan", brief=True):
        try:
            check_target(open_labelled_dicom(path), config.cache.shape_zyx)
        except (InputError, OSError) as error:
            bad.append(one_line(error))
            too_small += isinstance(error, TargetTooLargeError)
    text = f"{len(scans)} labelled DICOMs in {', '.join(config.cache.dicom_dirs)}"
    if bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        to_do = ["move such files away, or make them again; training refuses them"]
        if too_small:
            size = list(largest_size(scans, config.cache.shape_zyx))
            fits = f"set downsampled_dicom_size to {size}, or to auto, which fits all scans"
            to_do = [fits, *(to_do if len(bad) > too_small else [])]
        found = f"{len(bad)} of {text} can't be used: {bad[0]}{more}"
        return Finding("scans", found, "; ".join(to_do))
    few = f"at least {LEAST_SCANS} scans are needed, and a dozen to learn anything"
    return Finding("scans", text, few if len(scans) < LEAST_SCANS else "")


def _cache(config: Config, scans: Sequence[Path]) -> Finding:
    folder = cache_folder(config.cache, config.base)
    cached = [path for path in cached_paths(scans, config.cache, config.base) if path.is_file()]
    size = sum(path.stat().st_size for path in cached) / 1e9
    grid = "×".join(map(str, config.cache.shape_zyx))
    text = f"{len(cached)} of {len(scans)} scans at {grid} ({size:.2f} GB) in {folder}"
    if folder.exists() and not os.access(folder, os.W_OK):
        return Finding(
            "cache", f"{text}, which can't be written to", "set cache_dir to one that can"
        )
    left = "; the next training, or `jawloc cache build`, adds the others"
    return Finding("cache", text + left * (len(cached) < len(scans)))


def _store(base: Path) -> Finding:
    from jawloc.reporting.tracking.store_check import describe_store

    try:
        return Finding("store", describe_store(base))
    except InputError as error:
        return Finding("store", one_line(error), "move the database away; models are not in it")
    except ConnectionError as error:
        to_do = "start the server, or unset MLFLOW_TRACKING_URI to use mlruns/ here"
        return Finding("store", one_line(error), to_do)
    except PermissionError as error:
        return Finding("store", one_line(error), "make it writable for you")


def _models(base: Path) -> Finding:
    folders = sorted(p for p in (base / OUTPUT_FOLDER).glob("[!.]*") if p.is_dir())
    models = [p.name for p in folders if (p / f"{p.name}.pth").is_file()]
    begun = [p.name for p in folders if (p / CHECKPOINT).is_file()]
    text = f"{len(models)}{': ' * bool(models)}{names_shown(models)} in {base / OUTPUT_FOLDER}"
    if begun:
        text += f"; interrupted: {names_shown(begun)} (--resume goes on)"
    return Finding("models", text if folders else "none yet")
