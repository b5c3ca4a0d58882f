"""The page that shows every labelled scan with its points, to look at before training."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from jawloc.config import Config
from jawloc.reporting.folders.own_files import own_names, refuse_foreign
from jawloc.reporting.folders.run_folder import is_run_folder
from jawloc.reporting.label_sheet import LABEL_SHEET, write_label_sheet
from jawloc.reporting.terminal_table import from_here
from jawloc.scans.atomic import make_writable
from jawloc.scans.cache import open_example
from jawloc.scans.manifest import start_manifest
from jawloc.workflows.prepare_data import Data


def show_labels(folder: Path, folds: Iterable[Data]) -> None:
    """Write the page of a training's scans, or those of all folds, and say where it is."""
    examples = {e.scan_id: e for data in folds for e in data.examples.values()}
    page = write_label_sheet(folder, [examples[scan_id] for scan_id in sorted(examples)])
    print(f"note: {from_here(page)} shows each label on its scan: look at it", file=sys.stderr)


def open_label_folder(folder: Path) -> None:
    """Make ready the folder that `--labels` names.

    Raises InputError if it can't be written to, or holds a page that jawloc did not write.
    """
    make_writable(folder, f"--labels: {folder} must be a folder that can be written to")
    own = own_names(folder, run=is_run_folder(folder))
    refuse_foreign(folder, "--labels", LABEL_SHEET.__eq__, own)
    start_manifest(folder, own)


def show_cached_labels(folder: Path, cached: Iterable[Path], config: Config) -> Path:
    """Write the page of scans in the cache into a folder that is ready, and return its path."""
    return write_label_sheet(folder, [open_example(path, config.cache.objects) for path in cached])
