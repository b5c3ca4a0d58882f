"""Damaged inputs through the whole command line: exit code, output, no traceback."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from click.testing import CliRunner

from inputs.originals import Original

MOST_LINES, LONGEST_LINE = 15, 2000
_FORBIDDEN = ("Traceback", "failed unexpectedly", "not enough memory")


def command_mistake(original: Original, folder: Path, work: Path, became: str) -> str:
    """Run the command on the damaged file; return what is wrong with its answer, or nothing."""
    from jawloc.cli import jawloc

    words = _command(original, folder, work)
    if words is None:
        return ""
    here = Path.cwd()
    os.chdir(folder.parent)
    try:
        done = CliRunner().invoke(jawloc, words)
    finally:
        os.chdir(here)
        shutil.rmtree(folder.parent / "out", ignore_errors=True)
    lines = done.output.splitlines()
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return f"{words[0]} raises {type(done.exception).__name__}: {str(done.exception)[:200]}"
    if any(word in done.output for word in _FORBIDDEN):
        return f"{words[0]} says {done.output[:300]!r}"
    if len(lines) > MOST_LINES or max(map(len, lines), default=0) > LONGEST_LINE:
        return f"{words[0]} says {len(lines)} lines, the longest {max(map(len, lines))} characters"
    # locating needs no labels, so a labelled DICOM of which only these are damaged is located
    unlabelled = original.kind == "labelled DICOM"
    if became != "read" and done.exit_code not in ((0, 1, 2) if unlabelled else (1, 2)):
        return f"{words[0]} ends with {done.exit_code} where the file is {became}"
    return ""


def _command(original: Original, folder: Path, work: Path) -> list[str] | None:
    path, out = str(folder / original.target), str(folder.parent / "out")
    locate = ["--no-pictures", "--output-dir", out]
    model, scan = str(work / "m.pth"), str(work / "scan.mha")
    match original.kind:
        case "labelled DICOM" | "DICOM series" | "TIFF" | "NIfTI" | "NRRD" | "MetaImage":
            return ["locate", model, path, *locate]
        case "list of scans":
            return ["locate", model, path, *locate]
        case "model" if not original.target.startswith("lab"):
            return ["locate", path, scan, *locate]
        case "points":
            return ["dicoms", str(folder / "images"), path, out]
        case "userconf.yml":
            return ["cache", "build", "--config", path]
    return None
