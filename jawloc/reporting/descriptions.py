"""What a run's page in MLflow says of it, in Markdown: what was done, how well, where to look."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from jawloc.inference.held_out_errors import held_out_errors
from jawloc.inference.metrics import CropCoverage
from jawloc.inference.quantities import UNIT_NAMES, counted, short
from jawloc.reporting.correction_text import correction_lines
from jawloc.reporting.run_text import duration
from jawloc.reporting.summary import OUT_OF_FOLD
from jawloc.scans.messages import names_shown

EVALUATION = "\n\n### Evaluation\n"  # begins what `jawloc evaluate` adds to a description
# Stems of the files that descriptions link to, in order.
TRAINING_FILES = (
    *("sigma", "curriculum", "losses", "val_heatmap_pred", "test_centroid", "test_cropped"),
    *("metrics", "summary"),
)
FOLDS_FILES = ("evaluation", "success", "test_cropped", "out_of_fold", "summary")
WHAT_TO_LOOK_AT = """
### What to look at
*Model metrics* has a section for each kind of number:

- **curriculum**: with `initial_kernel_size: auto` sigma is the same all the time. From a wider one it falls in steps, down to its minimum, and `val/error_mm` with it; if it stays there, the network has not learned the first heatmaps.
- **train**, **val**: where sigma falls, `kl` jumps up, since a narrower heatmap is harder to learn. If `train/error_mm` goes on falling and `val/error_mm` rises, there are too few scans.
- **heatmap**: the target and the predicted heatmap of one training and one validation scan. Move the slider: step 0 is before training.
"""  # noqa: E501


def picture(run_id: str, path: str, title: str) -> str:
    """Return a picture among a run's artifacts, as Markdown."""
    return f"![{title}](get-artifact?{urlencode({'path': path, 'run_uuid': run_id})})"


def artifact_page(page: str, path: str) -> str:
    """Return the address of an artifact on a run's page."""
    return f"{page}/artifacts/{path}?workflowType=machine_learning"


def describe_scans(
    scans: Mapping[str, Sequence[str]], objects: Sequence[str], grid: Sequence[int], state: str
) -> str:
    """Return what is, or was, trained on what.

    Parameters
    ----------
    scans : ids by their use: train, validation, test
    state : `is trained` or `was trained`
    """
    what = " and ".join(objects) if len(objects) < 3 else f"{len(objects)} objects"
    trained, chosen, tested = (scans[use] for use in ("train", "validation", "test"))
    return (
        f"A network that finds the **{what}** {state} on {counted(len(trained), 'scan')}, "
        f"downsampled to {' × '.join(map(str, grid))} voxels. "
        f"{counted(len(chosen), 'scan')} for validation: {_ids(chosen)}. "
        f"{counted(len(tested), 'scan')} for the test: {_ids(tested)}."
    )


def _ids(ids: Sequence[str]) -> str:
    return names_shown([f"`{scan_id}`" for scan_id in ids], most=4)


def describe_training(
    summary: Mapping[str, Any],
    scans: str,
    crops: Mapping[str, CropCoverage | None],
    crop_size: Sequence[int],
    page: str | None,
    files: Collection[str],
    thumbnails: Collection[str] = (),
) -> str:
    """Return a finished training's description.

    Parameters
    ----------
    summary : as in summary.json
    scans : of `describe_scans`
    crops : of each object, in the test scans; None where none has a mask
    page : the run's page; None where it is unknown
    files : the names of the run's outputs
    thumbnails : of the image grid, paths among the run's artifacts; the page shows them as they are
    """
    run_id = str(summary["run_id"])
    sigma = f"sigma {short(summary['best_sigma_voxels'])} voxels"
    lines = [
        *_result(summary, _crop_lines(crops, crop_size, "test scan")),
        "",
        f"{scans} {summary['epochs']} epochs in {duration(summary['seconds'])}; the weights are "
        f"those of epoch {summary['best_epoch']} ({sigma}).",
        "",
        *_errors_table(summary, "test", len(summary["scans"]["test"])),
        *_correction_list(summary),
        WHAT_TO_LOOK_AT,
        " ".join(picture(run_id, path, "") for path in thumbnails),
        "",
        *_files(page, "outputs", files, TRAINING_FILES),
    ]
    return "\n".join(lines).strip()


def describe_cross_validation(
    summary: Mapping[str, Any], page: str | None, files: Collection[str]
) -> str:
    """Return a finished cross-validation's description; parameters as for a training's."""
    scans = summary[f"{OUT_OF_FOLD}_scans"]
    number = len({row["scan"] for row in scans})
    crops = {
        name: None if own is None else CropCoverage(**own) for name, own in summary["crops"].items()
    }
    lines = [
        *_result(summary, _crop_lines(crops, (), "scan")),
        "",
        f"{summary['folds']} networks were trained, and each was tested on scans that it had not "
        f"seen: {number} scans of {summary['specimens']} specimens in all. Each network "
        f"is a run below this one. {duration(summary['seconds'])}.",
        "",
        *_errors_table(summary, OUT_OF_FOLD, number),
        *_correction_list(summary),
        "",
        *_files(page, "outputs", files, FOLDS_FILES),
    ]
    return "\n".join(lines).strip()


def add_evaluation(
    description: str, numbers: Mapping[str, float], model: str, page: str | None
) -> str:
    """Return a description with what `jawloc evaluate` found last, by its metrics' names."""
    known = (u for u in UNIT_NAMES if any(key.endswith(f"error_{u}_mean") for key in numbers))
    unit = next(known, "mm")
    keys = [k for k in numbers if k.endswith(f"error_{unit}_mean") and "unseen" not in k]
    lines = []
    for key in sorted(keys):
        name = key.removeprefix("evaluation_").removesuffix(f"error_{unit}_mean").strip("_")
        of = f" of {name}" if name else ""
        lines.append(f"mean error{of} {short(numbers[key])} {UNIT_NAMES[unit]}")
    scans = counted(int(numbers.get("evaluation_scans", 0)), "scan")
    fair = int(numbers.get("evaluation_fair_scans", 0))
    text = f"`jawloc evaluate {model}` on {scans}, {fair} of them fair: {', '.join(lines)}."
    files = "\n".join(_files(page, "evaluation", ["evaluation.html"], ["evaluation"]))
    return f"{description.partition(EVALUATION)[0]}{EVALUATION}{text}\n\n{files}".strip()


def _correction_list(summary: Mapping[str, Any]) -> list[str]:
    lines = [f"- {line}." for line in correction_lines(summary)]
    return ["", *lines] if lines else []


def _errors_table(summary: Mapping[str, Any], tested: str, number: int) -> list[str]:
    errors = {key: summary[key] for key in summary if key.endswith("_error")}
    units = [unit for unit in UNIT_NAMES if errors[f"{tested}_error"].get(unit) is not None]
    lines = [
        f"| Mean distance from the true centre | {' | '.join(UNIT_NAMES[u] for u in units)} |",
        "|---" * (len(units) + 1) + "|",
    ]
    names = {"validation_error": "validation", f"{tested}_error": f"**{tested.replace('_', ' ')}**"}
    for key, own in errors.items():
        label = names.get(key) or f"{key.removesuffix('_error').replace('_', ' ')} (to compare)"
        if key == f"{tested}_error":
            label += f", {counted(number, 'scan')}"
        lines.append(f"| {label} | {_cells(own, units)} |")
        for name, parts in summary.get("objects", {}).items():
            if key in parts:
                lines.append(f"| {label}: {name} | {_cells(parts[key], units)} |")
    if "mm" not in units:
        lines += ["", "No mm: the scans' files don't say how large a voxel is."]
    return lines


def _result(summary: Mapping[str, Any], crops: Sequence[str]) -> list[str]:
    """Return the result in few lines: the page shows these, and the rest when asked."""
    known = held_out_errors(summary)
    texts = [] if known is None else known.warnings() or [known.sentence()]
    return [*(f"**{text[0].upper()}{text[1:]}.**" for text in texts), *crops]


def _cells(errors: Mapping[str, float | None], units: Sequence[str]) -> str:
    known = (errors.get(unit) for unit in units)
    return " | ".join("" if value is None else short(value) for value in known)


def _crop_lines(
    crops: Mapping[str, CropCoverage | None], crop_size: Sequence[int], noun: str
) -> list[str]:
    size = f" of {' × '.join(map(str, crop_size))} voxels" if crop_size else ""
    return [
        f"Crops{size} round the found position that hold the whole {name}: "
        f"**{own.whole} of {counted(own.scans, noun)}**."
        for name, own in crops.items()
        if own is not None
    ]


def _files(
    page: str | None, folder: str, files: Collection[str], stems: Sequence[str]
) -> list[str]:
    """Return a line of links to artifacts on the run's page; none where that is unknown."""
    names = [name for stem in stems for name in _named(files, stem)]
    if page is None or not names:
        return []
    links = (f"[{name}]({artifact_page(page, f'{folder}/{name}')})" for name in names)
    return [f"Files: {', '.join(links)}."]


def _named(files: Collection[str], stem: str) -> list[str]:
    """Return the names with a stem, or, of several objects, with an object's name after it."""
    stems = {name: name.rpartition(".")[0] for name in sorted(files)}
    own = [name for name, known in stems.items() if known == stem]
    return own or [name for name, known in stems.items() if known.startswith(f"{stem}_")]
