"""An evaluation as one HTML page that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from jawloc.inference.evaluate_scan import ScanEvaluation
from jawloc.inference.metrics import AXES, ObjectMetrics
from jawloc.reporting.evaluation_files import (
    CSV_FILE,
    HTML_FILE,
    JSON_FILE,
    NO_MM,
    USE_WORDS,
    ModelEvaluation,
    csv_text,
    plain_content,
)
from jawloc.reporting.text_files import write_json, write_text

UNIT_WORDS = {
    "full_size_voxels": "voxels of the full-size scan",
    "downsampled_voxels": "voxels of the downsampled scan",
    "mm": "mm",
}
PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 76rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #bbb; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .92rem; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; }
th { background: #f2f2f2; vertical-align: bottom; }
th:first-child, td.text { text-align: left; }
td.path { word-break: break-all; text-align: left; }
tr.flagged td { background: #fff3dc; } tr.lost td { background: #fde0d8; }
.wide { overflow-x: auto; }
.note { background: #fff3dc; border-left: 5px solid #e69f00; padding: .5rem 1rem; margin: 1rem 0; }
img { max-width: 100%; height: auto; display: block; margin: 1rem 0; }
</style>
</head>
<body>
$body
</body>
</html>
""")


def html_report(evaluation: ModelEvaluation, pictures: Mapping[str, Sequence[Path]]) -> str:
    """Return the report.

    Parameters
    ----------
    pictures : the object's name -> its figures and its worst scans' pictures, PNG files that are
        embedded.
    """
    body = [
        f"<h1>How well {_text(evaluation.model)} finds the {_text(', '.join(evaluation.objects))}"
        "</h1>",
        _summary(evaluation),
        *_notes(evaluation),
    ]
    scores, fair = evaluation.metrics(), evaluation.fair_metrics()
    for name, of_object in scores.items():
        body.append(f"<h2>{_text(name)}: {of_object.scans} scans</h2>")
        body.append(_errors_table(of_object))
        body += [_sentences(of_object), _bias_table(of_object)]
        if name in fair:
            title = f"The {fair[name].scans} scans on which the model's errors are fair"
            body.append(f"<h3>{_text(title)} ({_text(name)})</h3>")
            body += [_errors_table(fair[name]), _sentences(fair[name], fair=True)]
        body += [_image(path) for path in pictures.get(name, ()) if "worst" not in path.stem]
        body.append(f"<h3>Every scan, the worst first ({_text(name)})</h3>")
        body.append(_ranking(evaluation, evaluation.select(name)))
        worst = [path for path in pictures.get(name, ()) if "worst" in path.stem]
        if worst:
            body.append(f"<h3>What the worst look like ({_text(name)})</h3>")
            body += [_image(path) for path in worst]
    body.append(_failures(evaluation))
    title = f"Evaluation of {evaluation.model}"
    return PAGE.substitute(title=_text(title), body="\n".join(body))


def write_files(
    folder: Path, evaluation: ModelEvaluation, pictures: Mapping[str, Sequence[Path]]
) -> list[Path]:
    """Write an evaluation as JSON, CSV and HTML, and return the files; `pictures` as above."""
    write_json(folder / JSON_FILE, plain_content(evaluation))
    write_text(folder / CSV_FILE, csv_text(evaluation))
    write_text(folder / HTML_FILE, html_report(evaluation, pictures))
    return [folder / JSON_FILE, folder / CSV_FILE, folder / HTML_FILE]


def _text(value: object) -> str:
    return escape(str(value), quote=True)


def _image(path: Path) -> str:
    content = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{_text(path.stem)}" src="data:image/png;base64,{content}">'


def _table(head: Sequence[str], body: Iterable[Sequence[Any]], kinds: Sequence[str] = ()) -> str:
    """Return a table; the first column, and those of kind text or path, are set to the left."""
    kinds = kinds or ["text"] + [""] * (len(head) - 1)
    lines = ["<tr>" + "".join(f"<th>{_text(cell)}</th>" for cell in head) + "</tr>"]
    for row in body:
        *cells, row_class = row
        inner = "".join(
            f'<td class="{kind}">{_text(cell)}</td>' if kind else f"<td>{_text(cell)}</td>"
            for cell, kind in zip(cells, kinds, strict=True)
        )
        lines.append(f'<tr class="{row_class}">{inner}</tr>' if row_class else f"<tr>{inner}</tr>")
    return '<div class="wide"><table>\n' + "\n".join(lines) + "\n</table></div>"


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _summary(evaluation: ModelEvaluation) -> str:
    crop = " × ".join(str(n) for n in evaluation.crop_size)
    said = f"{len(evaluation.scans)} labelled scans were evaluated"
    if evaluation.failed:
        said += f", {len(evaluation.failed)} could not be (see the end)"
    return (
        f"<p>{said}. An error is the distance between the position that the model found and the "
        f"centroid of the mask at full size. Crops have {crop} voxels (z, y, x). The model's file "
        f"has the SHA-256 <code>{_text(evaluation.digest[:16])}</code>…"
        + (f", its run the id <code>{_text(evaluation.run_id)}</code>" if evaluation.run_id else "")
        + ".</p>"
    )


def _notes(evaluation: ModelEvaluation) -> list[str]:
    notes = [f"{said[0].upper()}{said[1:]}." for said in evaluation.optimism()]
    if notes:
        notes[-1] += " The last column but one of the ranking says which scans."
    if evaluation.evaluated and evaluation.unit != "mm":
        notes.append(f"Radii and ranks are in voxels of the full-size scan: {NO_MM}.")
    if evaluation.decision is not None:
        notes.append(f"Registry: {evaluation.decision.reason}")
    return [f'<div class="note">{_text(note)}</div>' for note in notes]


def _errors_table(scores: ObjectMetrics) -> str:
    head = ["radial error", "mean (MRE)", "median", "95th percentile", "worst"]
    body = [
        (UNIT_WORDS[unit], *(_number(v) for v in vars(scores.errors[unit]).values()), "")
        for unit in ("mm", "full_size_voxels", "downsampled_voxels")
        if unit in scores.errors
    ]
    unit = UNIT_WORDS[scores.success_unit]
    rates = [
        (
            f"{rate.radius:g} {unit}",
            f"{100 * rate.share:.1f} %",
            f"{rate.scans} of {scores.scans}",
            "",
        )
        for rate in scores.success
    ]
    return _table(head, body) + _table(["error of at most", "SDR", "scans"], rates)


def _sentences(scores: ObjectMetrics, *, fair: bool = False) -> str:
    crops, coverage = scores.crops, scores.coverage
    said = [
        f"{crops.whole} of {crops.scans} crops hold all of the labelled voxels; on average a crop "
        f"holds {100 * crops.mean_share:.1f} % of them, in the worst scan "
        f"{100 * crops.least_share:.1f} %."
    ]
    if coverage is None and fair:
        said.append(
            "None of these scans can say how often the stated radius holds the truth: there is no "
            "radius, or it was calibrated on them."
        )
    elif coverage is None:
        said.append("The model states no radius: too few scans were held out to calibrate it on.")
    else:
        said.append(
            f"The truth lies inside the stated radius in {coverage.inside} of {coverage.scans} "
            f"scans of {coverage.specimens} specimens, {100 * coverage.share:.1f} % (95 % interval "
            f"{100 * coverage.lowest:.0f} to {100 * coverage.highest:.0f} %); the model states at "
            f"least {100 * coverage.stated:.0f} %."
        )
    if scores.spread_correlation is not None:
        said.append(
            "Rank correlation (Spearman) between the width of the probability map and the error: "
            f"{scores.spread_correlation:.2f}."
        )
    for status, of_status in scores.statuses.items():
        errors = " and ".join(
            f"{of_status.mean_error[unit]:.3f} (worst {of_status.worst_error[unit]:.3f}) "
            f"{UNIT_WORDS[unit]}"
            for unit in of_status.mean_error
        )
        said.append(f"Status “{status}”: {of_status.scans} scans, mean error {errors}.")
    return "<ul>" + "".join(f"<li>{_text(one)}</li>" for one in said) + "</ul>"


def _bias_table(scores: ObjectMetrics) -> str:
    body = []
    for unit, by_axis in scores.bias.items():
        cells = []
        for axis in AXES:
            bias = by_axis[axis]
            error = "" if bias.standard_error is None else f" ± {bias.standard_error:.3f}"
            cells.append(f"{bias.mean:+.3f}{error}")
        body.append((UNIT_WORDS[unit], *cells, ""))
    head = "bias: mean of found minus true ± standard error, over specimens"
    return _table([head, *AXES], body)


def _ranking(evaluation: ModelEvaluation, ranked: Sequence[ScanEvaluation]) -> str:
    head = ["rank", "scan", "mm", "voxels", "downsampled voxels", "z", "y", "x"]
    head += [
        "spread",
        "radius",
        "in radius",
        "status",
        "in crop",
        "used by the model",
        "what is odd",
    ]
    kinds = ["text", "text", *[""] * 9, "text", "", "text", "text"]
    body = []
    for rank, m in enumerate(ranked, 1):
        e, found = m.error, m.found
        radius = found.radius_voxels
        held = "" if radius is None else "yes" if e.error_full_size_voxels <= radius else "no"
        body.append(
            (
                rank,
                e.scan_id,
                _number(e.error_mm),
                _number(e.error_full_size_voxels, 2),
                _number(e.error_downsampled_voxels, 2),
                *(f"{v:+.1f}" for v in m.offset_voxels),
                _number(found.spread_voxels, 2),
                _number(radius, 2),
                held,
                found.status,
                f"{100 * m.inside:.1f} %",
                USE_WORDS[m.use],
                found.reason,
                {"uncertain": "flagged", "not found": "lost"}.get(found.status, ""),
            )
        )
    return _table(head, body, kinds) + (
        "<p>z, y and x are found minus true; these, spread and radius are in voxels of the "
        "full-size scan.</p>"
    )


def _failures(evaluation: ModelEvaluation) -> str:
    if not evaluation.failed:
        return ""
    body = [(f.scan, f.reason, f.path, "lost") for f in evaluation.failed]
    table = _table(["scan", "why", "file"], body, ["text", "text", "path"])
    return f"<h2>Scans that failed: {len(evaluation.failed)}</h2>\n{table}"
