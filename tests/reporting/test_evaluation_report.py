"""The report and its tables: what a reader finds in them, and in which order."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
from PIL import Image

from jawloc.inference.held_out_errors import HeldOutErrors
from jawloc.inference.model_evaluation import Failure, ModelEvaluation
from jawloc.reporting.evaluation_report import (
    accuracy_notes,
    evaluation_metrics,
    html_report,
    json_content,
    provenance_notes,
    write_report,
)
from jawloc.reporting.evaluation_text import describe_evaluation
from tests.inference.evaluated import evaluated

TRUST = {"radius_voxels": 4.0, "confidence": 0.9}


def evaluation(use=(("between", "train"),), **changes) -> ModelEvaluation:
    """Return an evaluation; `use`: scan -> what the model has to do with it, if anything."""
    uses = dict(use)
    about = {
        "model": "m<1>",
        "digest": "abc" * 20,
        "crop_size": (20, 20, 20),
        "objects": ("jaw",),
        "evaluated": (
            evaluated("near", (1, 0, 0), use=uses.get("near", "new"), **TRUST),
            evaluated(
                "far",
                (0, 9, 0),
                inside=50,
                use=uses.get("far", "new"),
                status="uncertain",
                reason="odd & old",
                **TRUST,
            ),
            evaluated("between", (0, 0, -3), use=uses.get("between", "new"), **TRUST),
        ),
        "failed": (Failure("bad", "bad.dcm", "the mask\nis <empty>"),),
        "radii": (3.0,),
    }
    return ModelEvaluation(**(about | changes))


def test_rows_are_ranked_by_error_and_failures_come_last(tmp_path):
    _, table_file, _ = write_report(tmp_path, evaluation(), {})
    table = list(csv.DictReader(io.StringIO(table_file.read_text(encoding="utf-8"))))
    assert [row["scan"] for row in table] == ["far", "between", "near", "bad"]
    assert [row["rank"] for row in table] == ["1", "2", "3", ""]
    far, between, near, bad = table
    assert float(far["error_full_size_voxels"]) == 9.0
    assert float(far["bias_y_voxels"]) == 9.0
    assert (far["truth_inside_radius"], near["truth_inside_radius"]) == ("False", "True")
    assert (far["share_inside_crop"], near["error_mm"]) == ("0.5", "")
    assert (between["model_has_seen"], near["model_has_seen"]) == ("trained on", "")
    assert (bad["status"], bad["reason"]) == ("failed", "the mask is <empty>")


def test_the_json_has_every_number_and_the_unseen_scans_on_their_own():
    said = json.loads(json.dumps(json_content(evaluation()), allow_nan=False))
    jaw, unseen = said["objects"]["jaw"], said["objects_in_unseen_scans"]["jaw"]
    assert jaw["errors"]["full_size_voxels"]["mean"] == pytest.approx(13 / 3)
    assert unseen["errors"]["full_size_voxels"]["mean"] == 5.0
    assert said["seen_scans"] == {"trained on": ["between"]}
    assert jaw["success"] == [{"radius": 3.0, "scans": 2, "share": pytest.approx(2 / 3)}]
    assert (jaw["coverage"]["inside"], jaw["coverage"]["stated"]) == (2, 0.9)
    assert (jaw["crops"]["whole"], jaw["crops"]["least_share"]) == (2, 0.5)
    assert jaw["statuses"]["uncertain"]["worst_error"] == {"full_size_voxels": 9.0}
    assert (said["provenance"], said["fair_scans"]) == ("recorded in the model", 2)
    assert json_content(evaluation({}))["objects_in_unseen_scans"] == {}


def test_without_a_record_nothing_is_called_fair():
    unknown = evaluation(dict.fromkeys(("near", "far", "between"), "unknown"))
    said = json_content(unknown)
    assert (said["provenance"], said["fair_scans"], said["fair_specimens"]) == ("unknown", 0, 0)
    assert said["objects_in_unseen_scans"] == {}
    (note,) = provenance_notes(unknown)
    assert "unknown provenance" in note
    assert {row["model_has_seen"] for row in said["rows"][:3]} == {"unknown"}
    assert {row["fair"] for row in said["rows"][:3]} == {None}
    assert "is of unknown provenance" in html_report(unknown, {})


def test_a_scan_of_a_specimen_that_the_model_learned_from_is_not_fair():
    said = json_content(evaluation({"far": "specimen"}))
    assert said["objects_in_unseen_scans"]["jaw"]["errors"]["full_size_voxels"]["mean"] == 2.0
    assert said["seen_scans"] == {"of a specimen learned from": ["far"]}


def test_errors_are_fair_where_only_the_radius_was_calibrated_and_coverage_is_not():
    uses = {"far": "calibration", "between": "validation"}
    said = json_content(evaluation(uses))
    fair = said["objects_in_unseen_scans"]["jaw"]
    assert fair["scans"] == 2
    assert fair["errors"]["full_size_voxels"]["mean"] == 5.0  # near and far
    assert (fair["coverage"]["scans"], fair["coverage"]["inside"]) == (1, 1)  # near alone
    first, second = provenance_notes(evaluation(uses))
    assert first.startswith("the model has used 1 of these 3 scans (validated on: 1)")
    assert (
        "on 1 of these 3 scans (or others of their specimens) the radius was calibrated" in second
    )
    assert evaluation({"far": "calibration"}).fair_metrics() == {}  # all errors are fair


def test_without_a_radius_none_was_calibrated():
    """Regression: the note was shown for a model that states no radius."""
    known = evaluation({"far": "calibration"})
    assert len(provenance_notes(known)) == 1
    without = tuple(
        replace(one, found=replace(one.found, radius_voxels=None)) for one in known.evaluated
    )
    assert provenance_notes(replace(known, evaluated=without)) == []


def test_the_metrics_of_the_run():
    numbers = evaluation_metrics(evaluation())
    assert numbers["evaluation_scans"] == 3
    assert numbers["evaluation_failed_scans"] == 1
    assert numbers["evaluation_error_full_size_voxels_worst"] == 9.0
    assert numbers["evaluation_sdr_3_full_size_voxels"] == pytest.approx(2 / 3)
    assert numbers["evaluation_bias_x_full_size_voxels"] == -1.0
    assert numbers["evaluation_coverage"] == pytest.approx(2 / 3)
    assert numbers["evaluation_unseen_error_full_size_voxels_mean"] == 5.0
    several = evaluation(
        objects=("a", "b"), evaluated=(evaluated("s", name="a"), evaluated("s", name="b"))
    )
    assert "evaluation_b_error_full_size_voxels_mean" in evaluation_metrics(several)


def test_the_page_says_it_in_words(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "worst_01_far.png")
    page = html_report(evaluation(), {"jaw": [tmp_path / "worst_01_far.png"]})
    page = " ".join(page.split())  # as a browser shows it
    for part in (
        "How well m&lt;1&gt; finds the jaw",
        "3 labelled scans were evaluated, 1 could not be",
        "2 of 3 crops hold all of the labelled voxels",
        "inside the stated radius in 2 of 3 scans of 3 specimens",
        "the model states at least 90 %",
        "The model has used 1 of these 3 scans (trained on: 1): its errors there are optimistic.",
        "The 2 scans on which the model's errors are fair",
        "Radii and ranks are in full-size voxels: the files of some scans don",
        "odd &amp; old",
        "is &lt;empty&gt;",
        "What the worst look like",
    ):
        assert part in page, part
    assert "<empty>" not in page
    assert page.count("<img") == page.count("data:image/png;base64,") == 1


@pytest.mark.parametrize(
    ("own", "mean", "warnings"),
    [
        (4.0, 40.0, []),
        (35.0, 40.0, ["this model is hardly better than a guess"]),  # as its file says
        (0.9, 40.0, ["the mean error on scans that the model has not learned from, 5 full-size"]),
    ],
)
def test_a_bad_model_or_labels_of_other_scans_are_told(own, mean, warnings):
    """Regression: errors many times those of the training had the same words as good ones."""
    errors = HeldOutErrors("test", 3, {"full_size_voxels": own}, {"full_size_voxels": mean}, {})
    known = evaluation(errors=errors)
    said = accuracy_notes(known)
    assert [note[: len(start)] for note, start in zip(said, warnings, strict=True)] == warnings
    assert json_content(known)["warnings"] == said
    page = " ".join(html_report(known, {}).split())
    for note in warnings:
        assert note[0].upper() + note[1:] in page
        assert f"WARNING: {note}" in "\n".join(describe_evaluation(known))


def test_scans_that_contradict_a_bad_test_are_believed():
    """Regression: a model whose test scans had wrong labels was called bad below good figures."""
    errors = HeldOutErrors("test", 3, {"full_size_voxels": 35.0}, {"full_size_voxels": 40.0}, {})
    (said,) = accuracy_notes(evaluation(use={"between": "new"}, errors=errors))
    assert said == (
        "the mean error when the model was tested, 35 full-size voxels, is many times that here, "
        "4.33; its test scans may have had the labels of other scans"
    )
    assert "no better" not in said and accuracy_notes(evaluation(errors=errors)) != [said]  # two


def test_a_model_without_errors_in_its_file_has_no_warning():
    assert accuracy_notes(evaluation()) == accuracy_notes(evaluation(evaluated=())) == []


def test_without_any_scan_there_is_still_a_report(tmp_path):
    files = write_report(tmp_path, evaluation(evaluated=()), {})
    assert [path.name for path in files] == [
        f"evaluation.{kind}" for kind in ("json", "csv", "html")
    ]
    assert "Scans that failed: 1" in files[2].read_text(encoding="utf-8")
    assert "bad.dcm" in files[1].read_text(encoding="utf-8")
    assert json.loads(files[0].read_text(encoding="utf-8"))["objects"] == {}


@pytest.mark.parametrize("inside", [(None, None), (100, None)])
def test_what_needs_a_mask_is_said_to_be_unknown(inside):
    scans = tuple(
        evaluated(name, (1, 0, 0), inside=n) for name, n in zip("ab", inside, strict=True)
    )
    clicked = evaluation(evaluated=scans)
    page, numbers = html_report(clicked, {}), evaluation_metrics(clicked)
    rows = {row["scan"]: row for row in json_content(clicked)["rows"]}
    assert (rows["b"]["share_inside_crop"], rows["b"]["labelled_voxels"]) == (None, None)
    assert page.count('<td class="text">ok</td><td>unknown</td>') == inside.count(None)
    if inside == (None, None):
        assert "Whether the crops hold all of it is unknown" in page
        assert json_content(clicked)["objects"]["jaw"]["crops"] is None
        assert not [name for name in numbers if "crop" in name]
    else:
        assert "1 of 1 crop holds all of the labelled voxels" in page
        assert "It is unknown in 1 of 2 scans, where points were given in place of a mask." in page
        assert numbers["evaluation_crops_whole"] == 1
